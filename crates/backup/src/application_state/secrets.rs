//! Secrets of namespaces, for sealed snapshots only: there is no way from here into git. Those in which Helm keeps its
//! releases are among them, tokens of accounts are not: the cluster makes new ones.

use std::collections::BTreeMap;

use control_plane::kubernetes::{Kubectl, Object};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::secrets_manager::{self, SecretsManagerSource};
use super::{StateError, StateReport, UnreadNamespace, by_namespace, read_objects};
use crate::Progress;
use crate::documents::{Collection, Document, DocumentSource};

pub const COMPONENT: &str = "secrets";
pub(super) const FOLDER: &str = "secrets";
/// Which namespaces are missing in a snapshot of a part. Nothing is restored from it.
pub const NOT_READ: &str = "not_read.json";

#[derive(Debug, Clone, Copy)]
pub struct SecretSource<'a> {
    pub kubectl: &'a Kubectl,
    pub namespaces: &'a [String],
}

impl DocumentSource for SecretSource<'_> {
    type Error = StateError;
    type Report = StateReport;

    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn collect(&self, progress: &dyn Progress) -> Result<(Collection, StateReport), StateError> {
        let found = by_namespace(self.namespaces, FOLDER, progress, |namespace, documents| {
            let kinds = ["secrets"];
            read_objects(self.kubectl, namespace, &kinds, FOLDER, progress, documents)
        });
        let (mut collection, report) = found?;
        // A sealed snapshot cannot take over what an earlier one holds: it says itself what it lacks.
        collection.not_read.clear();
        note_unread(&mut collection, &report);
        Ok((collection, report))
    }

    fn redacted(&self, name: &str, content: &[u8]) -> String {
        redacted(name, content)
    }
}

/// Only names: an error's words differ from run to run, and each would be a new snapshot.
fn note_unread(collection: &mut Collection, report: &StateReport) {
    if !report.is_partial() {
        return;
    }
    let unread = report.not_read.iter();
    let namespaces: Vec<&str> = unread.map(|unread| unread.namespace.as_str()).collect();
    let mut content = json!({"namespaces": namespaces});
    if !report.secrets_not_read.is_empty() {
        content["secrets"] = report.secrets_not_read.keys().cloned().collect();
    }
    let document = Document {
        content: Zeroizing::new(control_plane::kubernetes::bytes(&content)),
        attributes: BTreeMap::from([("derived".to_owned(), "true".to_owned())]),
    };
    collection.documents.insert(NOT_READ.to_owned(), document);
}

/// Names and lengths.
fn redacted(name: &str, content: &[u8]) -> String {
    if name.starts_with(secrets_manager::FOLDER) {
        return secrets_manager::redacted(content);
    }
    let Ok(mut object) = Object::parse(content) else {
        return match name {
            NOT_READ => super::text_of(content),
            _ => format!("({} bytes)", content.len()),
        };
    };
    let mut shown = object.value.clone();
    for field in ["data", "stringData"] {
        if let Some(Value::Object(values)) = shown.get_mut(field) {
            for value in values.values_mut() {
                let length = value.as_str().map_or(0, str::len);
                control_plane::kubernetes::wipe(value);
                *value = format!("({length} characters of base64)").into();
            }
        }
    }
    control_plane::kubernetes::wipe(&mut object.value);
    String::from_utf8_lossy(&control_plane::kubernetes::bytes(&shown)).into_owned()
}

/// All Secrets that one snapshot holds: of a cluster, of Secrets Manager, or of both.
#[derive(Debug, Clone, Copy)]
pub struct AllSecrets<'a> {
    pub cluster: Option<SecretSource<'a>>,
    pub manager: Option<SecretsManagerSource<'a>>,
}

impl AllSecrets<'_> {
    fn of_cluster(&self, progress: &dyn Progress) -> Result<(Collection, StateReport), StateError> {
        let Some(cluster) = &self.cluster else {
            return Ok(Default::default());
        };
        match cluster.collect(progress) {
            Err(StateError::NoneRead(first)) if self.manager.is_some() => {
                let unread = |namespace: &String| UnreadNamespace {
                    namespace: namespace.clone(),
                    why: first.why.clone(),
                };
                let report = StateReport {
                    not_read: cluster.namespaces.iter().map(unread).collect(),
                    ..StateReport::default()
                };
                Ok((Collection::default(), report))
            }
            other => other,
        }
    }
}

impl DocumentSource for AllSecrets<'_> {
    type Error = StateError;
    type Report = StateReport;

    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn collect(&self, progress: &dyn Progress) -> Result<(Collection, StateReport), StateError> {
        let (mut collection, mut report) = self.of_cluster(progress)?;
        if let Some(manager) = &self.manager {
            match manager.read(progress) {
                Ok(found) => {
                    report.objects += found.documents.len();
                    report.secrets_not_read = found.not_read;
                    report.earlier_not_read = found.earlier_not_read;
                    collection.documents.extend(found.documents);
                }
                Err(StateError::Cancelled) => return Err(StateError::Cancelled),
                Err(error) if report.namespaces.is_empty() => return Err(error),
                Err(error) => {
                    let all = "all of Secrets Manager".to_owned();
                    report.secrets_not_read.insert(all, error.to_string());
                }
            }
        }
        note_unread(&mut collection, &report);
        Ok((collection, report))
    }

    fn redacted(&self, name: &str, content: &[u8]) -> String {
        redacted(name, content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_without_its_values() {
        let kubectl = Kubectl::default();
        let source = SecretSource {
            kubectl: &kubectl,
            namespaces: &[],
        };
        let content = br#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": "shop"},
            "data": {"password": "aHVudGVyMg=="}}"#;
        let shown = source.redacted("secrets/shop/secret/db.json", content);
        assert!(
            shown.contains("\"password\": \"(12 characters of base64)\""),
            "{shown}"
        );
        assert!(!shown.contains("aHVudGVyMg"), "{shown}");
        let shown = source.redacted("secrets/shop/secret/db.json", b"hunter2");
        assert_eq!(shown, "(7 bytes)");
    }
}
