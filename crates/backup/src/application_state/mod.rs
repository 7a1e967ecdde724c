//! What runs on a Kubernetes cluster, as documents: [`kubernetes`] and [`configmaps`] as canonical objects in git,
//! [`helm`] releases with their values there too, [`secrets`] as sealed snapshots only.
//!
//! A namespace that cannot be read is named, what git has of it stays, and the others are backed up: the report says
//! that it is a part. Nothing is written by any of them but into their sink.

pub mod configmaps;
pub mod helm;
pub mod kubernetes;
pub mod secrets;
pub mod secrets_manager;

use std::fmt;
use std::io;
use std::path::Path;

use control_plane::ClientError;
use control_plane::aws::AwsError;
use control_plane::kubernetes::{Kubectl, Object};
use serde_json::Value;

use crate::Progress;
use crate::documents::{
    Collection, Document, DocumentSource, Documents, GitDocuments, GitError, GitOutcome,
    Interruption, SealedDocuments, SealedError, SealedOutcome, take,
};

/// For people, and in git's errors.
const WHAT: &str = "the state of the application";

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    Sealed(#[from] SealedError),
    #[error(transparent)]
    Aws(AwsError),
    #[error("{0}; set [kubernetes] namespaces in bre.toml")]
    Namespace(String),
    #[error("none of the namespaces could be read; {0}")]
    NoneRead(UnreadNamespace),
    #[error("interrupted; nothing was kept")]
    Cancelled,
}

impl From<Interruption> for StateError {
    fn from(_: Interruption) -> Self {
        Self::Cancelled
    }
}

/// One that is not part of what was kept, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadNamespace {
    pub namespace: String,
    pub why: String,
}

impl fmt::Display for UnreadNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "namespace {}: {}", self.namespace, self.why)
    }
}

/// What was read of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateReport {
    pub objects: usize,
    /// Those that were read.
    pub namespaces: Vec<String>,
    pub not_read: Vec<UnreadNamespace>,
    /// Of Secrets Manager, by name, and why.
    pub secrets_not_read: std::collections::BTreeMap<String, String>,
    /// Versions of secrets with a label of their own that a round had no call for.
    pub earlier_not_read: usize,
}

impl StateReport {
    #[must_use]
    pub fn is_partial(&self) -> bool {
        !self.not_read.is_empty() || !self.secrets_not_read.is_empty()
    }
}

/// A git repository with a working tree, made when it is not there, and where its commits are pushed.
#[derive(Debug, Clone, Copy)]
pub struct StateRepository<'a> {
    pub folder: &'a Path,
    pub remote: Option<&'a str>,
}

/// A component whose documents may be in git as they are, and may be shown.
pub trait PlainState {
    const COMPONENT: &'static str;
    /// Their folder in it.
    const FOLDERS: &'static [&'static str];

    fn collect(&self, progress: &dyn Progress) -> Result<(Collection, StateReport), StateError>;
}

impl<S: PlainState> DocumentSource for S {
    type Error = StateError;
    type Report = StateReport;

    fn component(&self) -> &'static str {
        S::COMPONENT
    }

    fn collect(&self, progress: &dyn Progress) -> Result<(Collection, StateReport), StateError> {
        PlainState::collect(self, progress)
    }

    fn redacted(&self, _: &str, content: &[u8]) -> String {
        text_of(content)
    }

    fn changes(&self, before: &Documents, after: &Documents) -> Vec<String> {
        changes(before, after)
    }
}

/// One commit for a change, none without one.
pub fn backup_to_git<S: PlainState>(
    source: &S,
    to: StateRepository<'_>,
    progress: &dyn Progress,
) -> Result<(GitOutcome, StateReport), StateError> {
    let mut sink = GitDocuments {
        what: WHAT,
        folder: to.folder,
        remote: to.remote,
        paths: S::FOLDERS,
        ending: ".json",
        git: None,
    };
    take(source, &mut sink, progress)
}

/// Into the sealed repository.
pub fn backup_sealed(
    source: &impl DocumentSource<Error = StateError, Report = StateReport>,
    sink: &mut SealedDocuments,
    progress: &dyn Progress,
) -> Result<(SealedOutcome, StateReport), StateError> {
    take(source, sink, progress)
}

/// Each namespace by itself: what `read` found of it, or why it could not be read.
fn by_namespace(
    namespaces: &[String],
    folder: &str,
    progress: &dyn Progress,
    read: impl Fn(&str, &mut Documents) -> Result<(), ClientError>,
) -> Result<(Collection, StateReport), StateError> {
    let (mut collection, mut report) = (Collection::default(), StateReport::default());
    if namespaces.is_empty() {
        return Err(StateError::Namespace("no namespace is named".to_owned()));
    }
    for namespace in namespaces {
        control_plane::kubernetes::check_namespace(namespace).map_err(StateError::Namespace)?;
    }
    for namespace in namespaces {
        progress.message(&format!("reading namespace {namespace}"));
        let mut found = Documents::new();
        match read(namespace, &mut found) {
            Ok(()) => {
                report.objects += found.len();
                report.namespaces.push(namespace.clone());
                collection.documents.extend(found);
            }
            Err(error) if error.is_cancelled() => return Err(StateError::Cancelled),
            Err(error) if error.is_missing_program() => return Err(error.into()),
            Err(error) => {
                collection.not_read.push(format!("{folder}/{namespace}/"));
                report.not_read.push(UnreadNamespace {
                    namespace: namespace.clone(),
                    why: error.to_string(),
                });
            }
        }
    }
    match report.not_read.first() {
        Some(first) if report.namespaces.is_empty() => Err(StateError::NoneRead(first.clone())),
        _ => Ok((collection, report)),
    }
}

/// Objects of these kinds, each in its canonical form. A namespace that is not there is an error, not an empty one.
fn read_objects(
    kubectl: &Kubectl,
    namespace: &str,
    kinds: &[&str],
    folder: &str,
    progress: &dyn Progress,
    documents: &mut Documents,
) -> Result<(), ClientError> {
    let cancelled = || progress.cancelled();
    let mut is_empty = true;
    kubectl.list(namespace, kinds, &cancelled, &mut |value| {
        is_empty = false;
        keep(value, folder, documents)
    })?;
    if is_empty {
        // kubectl answers an empty list for one that does not exist.
        kubectl.namespace(namespace, &cancelled)?;
    }
    Ok(())
}

fn keep(value: Value, folder: &str, documents: &mut Documents) -> io::Result<()> {
    if let Some(object) = Object::canonical(value).map_err(io::Error::other)? {
        // Settings name further kinds, by any of their names.
        let is_secret = object.kind == "Secret" && object.group.is_empty();
        if is_secret && folder != secrets::FOLDER {
            return Err(io::Error::other("Secrets are kept sealed, never in git"));
        }
        let (name, document) = (format!("{folder}/{}", object.path()), document(object));
        documents.insert(name, document);
    }
    Ok(())
}

/// Nothing of the object is left in memory but the document, which wipes itself.
fn document(mut object: Object) -> Document {
    let content = zeroize::Zeroizing::new(object.bytes());
    control_plane::kubernetes::wipe(&mut object.value);
    Document {
        content,
        ..Document::default()
    }
}

/// As a commit names it: `configmap settings in shop changed`.
fn changes(before: &Documents, after: &Documents) -> Vec<String> {
    let names = before.keys().chain(after.keys());
    let names: std::collections::BTreeSet<&String> = names.collect();
    let change = |name: &String| {
        let change = match (before.get(name), after.get(name)) {
            (None, _) => "added",
            (_, None) => "removed",
            (earlier, now) if earlier == now => return None,
            _ => "changed",
        };
        Some(format!("{} {change}", shown(name)))
    };
    names.into_iter().filter_map(change).collect()
}

fn shown(name: &str) -> String {
    let plain = name.strip_suffix(".json").unwrap_or(name);
    let parts: Vec<&str> = plain.split('/').collect();
    match parts[..] {
        [_, namespace, kind, name] => {
            let kind = kind.split('.').next().unwrap_or(kind);
            format!("{kind} {name} in {namespace}")
        }
        [_, namespace, what] => format!("{what} of {namespace}"),
        _ => plain.to_owned(),
    }
}

/// A document's text; of one that is no text, its length.
fn text_of(content: &[u8]) -> String {
    match std::str::from_utf8(content) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("({} bytes that are no text)", content.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_named_as_a_person_names_it() {
        let document = |text: &str| Document {
            content: zeroize::Zeroizing::new(text.as_bytes().to_vec()),
            ..Document::default()
        };
        let before = Documents::from([
            ("configmaps/shop/configmap/a.json".to_owned(), document("1")),
            ("configmaps/shop/configmap/b.json".to_owned(), document("1")),
        ]);
        let after = Documents::from([
            ("configmaps/shop/configmap/b.json".to_owned(), document("2")),
            (
                "kubernetes/shop/deployment.apps/api.json".to_owned(),
                document("1"),
            ),
            ("kubernetes/shop/namespace.json".to_owned(), document("1")),
        ]);
        let expected = [
            "configmap a in shop removed",
            "configmap b in shop changed",
            "deployment api in shop added",
            "namespace of shop added",
        ];
        assert_eq!(changes(&before, &after), expected);
    }
}
