//! Helm releases of namespaces: chart, version and the values that their owner set. Values whose names say that they
//! are secret are not in it; they are in the release's own Secret, which the sealed snapshot has.

use control_plane::ClientError;
use control_plane::helm::Helm;
use control_plane::kubernetes::{bytes, wipe};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{PlainState, StateError, StateReport, by_namespace};
use crate::Progress;
use crate::documents::{Collection, Document, Documents};

pub const COMPONENT: &str = "helm";
const FOLDER: &str = "helm";
/// In the place of a value that is not shown.
const SEALED: &str = "(in the snapshot of secrets)";
/// A value whose name holds one of these is a secret.
const SECRET_NAMES: [&str; 8] = [
    "password",
    "passwd",
    "secret",
    "token",
    "credential",
    "apikey",
    "accesskey",
    "privatekey",
];

#[derive(Debug, Clone, Copy)]
pub struct HelmSource<'a> {
    pub helm: &'a Helm,
    pub namespaces: &'a [String],
}

impl PlainState for HelmSource<'_> {
    const COMPONENT: &'static str = COMPONENT;
    const FOLDERS: &'static [&'static str] = &[FOLDER];

    fn collect(&self, progress: &dyn Progress) -> Result<(Collection, StateReport), StateError> {
        by_namespace(self.namespaces, FOLDER, progress, |namespace, documents| {
            self.read(namespace, progress, documents)
        })
    }
}

impl HelmSource<'_> {
    fn read(
        &self,
        namespace: &str,
        progress: &dyn Progress,
        documents: &mut Documents,
    ) -> Result<(), ClientError> {
        let cancelled = || progress.cancelled();
        for release in self.helm.releases(namespace, &cancelled)? {
            let values = self.helm.values(&release, &cancelled)?;
            let mut values = Value::Object(values.into_iter().collect());
            hide(&mut values);
            let mut content = json!({
                "apiVersion": "helm.sh/v1",
                "kind": "Release",
                "metadata": {"name": release.name, "namespace": release.namespace},
                "release": release,
                "values": values,
            });
            let document = Document {
                content: Zeroizing::new(bytes(&content)),
                ..Document::default()
            };
            wipe(&mut content);
            documents.insert(
                format!("{FOLDER}/{namespace}/release/{}.json", release.name),
                document,
            );
        }
        Ok(())
    }
}

/// Everything below such a name.
fn hide(values: &mut Value) {
    match values {
        Value::Object(fields) => {
            for (name, field) in fields {
                if is_secret(name) {
                    hide_all(field);
                } else {
                    hide(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        _ => {}
    }
}

fn hide_all(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(hide_all),
        Value::Array(items) => items.iter_mut().for_each(hide_all),
        // Whether a token is mounted, and the like.
        Value::Bool(_) | Value::Null => {}
        Value::String(_) | Value::Number(_) => {
            wipe(value);
            *value = SEALED.into();
        }
    }
}

fn is_secret(name: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let plain = plain.to_ascii_lowercase();
    // The name of a Secret that exists is what an operator needs to see.
    let is_reference =
        plain.starts_with("existing") || plain.ends_with("name") || plain.ends_with("ref");
    !is_reference && SECRET_NAMES.iter().any(|secret| plain.contains(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_secret_by_name_are_not_in_git() {
        let mut values = json!({
            "auth": {"rootPassword": "hunter2", "existingSecret": "db", "api-key": 12345},
            "replicas": 3,
            "secrets": [{"name": "a", "value": "hunter2"}],
            "automountServiceAccountToken": true,
            "env": [{"DB_PASSWORD": "hunter2"}],
        });
        hide(&mut values);
        assert!(!values.to_string().contains("hunter2"), "{values}");
        assert_eq!(values["auth"]["existingSecret"], "db");
        assert_eq!(values["auth"]["api-key"], SEALED);
        assert_eq!(values["replicas"], 3);
        assert_eq!(values["automountServiceAccountToken"], true);
    }
}
