//! What a system is built of in an account of Amazon's, and Terraform's account of it: [`iam`] and [`network`] as
//! canonical objects in git, [`terraform`] states and [`cloudformation`] stacks as sealed snapshots.
//! [`provider`] has services make their own.
//!
//! What an account may not be asked is named, what was kept of it stays, and the rest is backed up: the report says
//! that it is a part. Nothing is written by any of them but into their sink.

pub mod cloudformation;
pub mod iam;
pub mod network;
pub mod provider;
pub mod terraform;

use std::fmt;
use std::path::{Path, PathBuf};

use control_plane::aws::AwsError;
use control_plane::kubernetes::bytes;
use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::Progress;
use crate::documents::{
    Document, DocumentSource, GitDocuments, GitError, GitOutcome, Interruption, SealedError, take,
};

/// For people, and in git's errors.
const WHAT: &str = "the infrastructure";

#[derive(Debug, thiserror::Error)]
pub enum InfrastructureError {
    #[error("{0}; earlier copies are untouched")]
    Aws(#[from] AwsError),
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    Sealed(#[from] SealedError),
    #[error("nothing could be read; {0}")]
    NoneRead(UnreadPart),
    #[error("{what} {path}: {source}")]
    File {
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{origin} is no state that can be kept: {reason}. Earlier copies are untouched")]
    State { origin: String, reason: String },
    #[error("interrupted; nothing was kept")]
    Cancelled,
}

impl From<Interruption> for InfrastructureError {
    fn from(_: Interruption) -> Self {
        Self::Cancelled
    }
}

impl InfrastructureError {
    fn file(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}

/// What is not part of what was kept, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnreadPart {
    pub part: String,
    pub why: String,
}

impl fmt::Display for UnreadPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.part, self.why)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct InfrastructureReport {
    pub objects: usize,
    /// Of the client.
    pub calls: u32,
    pub not_read: Vec<UnreadPart>,
}

/// A source whose documents may be in git as they are.
pub trait PlainInfrastructure:
    DocumentSource<Error = InfrastructureError, Report = InfrastructureReport>
{
    /// Their folder in it.
    const FOLDERS: &'static [&'static str];
}

/// One commit for a change, none without one. `folder`: a git repository with a working tree, made when it is not
/// there; its commits are pushed to `remote`.
pub fn backup_to_git<S: PlainInfrastructure>(
    source: &S,
    folder: &Path,
    remote: Option<&str>,
    progress: &dyn Progress,
) -> Result<(GitOutcome, InfrastructureReport), InfrastructureError> {
    let mut sink = GitDocuments {
        what: WHAT,
        folder,
        remote,
        paths: S::FOLDERS,
        ending: ".json",
        git: None,
    };
    take(source, &mut sink, progress)
}

fn document(value: &Value) -> Document {
    Document {
        content: Zeroizing::new(bytes(value)),
        ..Document::default()
    }
}

fn parsed(document: &Document) -> Value {
    serde_json::from_slice(&document.content).unwrap_or_default()
}

/// FOLDER/KIND/NAME.json
fn parts_of(name: &str) -> Option<(&str, &str)> {
    let (_, rest) = name.split_once('/')?;
    let (kind, name) = rest.split_once('/')?;
    Some((kind, name.strip_suffix(".json")?))
}

fn text_of(content: &[u8]) -> String {
    match std::str::from_utf8(content) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("({} bytes that are no text)", content.len()),
    }
}
