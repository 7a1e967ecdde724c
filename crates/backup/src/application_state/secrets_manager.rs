//! Secrets of AWS Secrets Manager, for sealed snapshots only: which version each staging label names, and its content.
//! In one round of calls: the current value of every secret first, then earlier ones as far as the round's calls reach;
//! those that it does not reach were current ones in an earlier snapshot.

use std::collections::BTreeMap;

use control_plane::aws::secrets::{CURRENT, ListedSecret, VersionContent, current, list, version};
use control_plane::aws::{Aws, AwsError, CALLS_MAX};
use control_plane::kubernetes::{bytes, wipe};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::StateError;
use crate::Progress;
use crate::documents::{Document, Documents};

/// Of its documents in a snapshot.
pub const FOLDER: &str = "secrets_manager";

#[derive(Debug, Clone, Copy)]
pub struct SecretsManagerSource<'a> {
    pub aws: &'a Aws,
    /// Secrets whose names begin so.
    pub prefixes: &'a [String],
}

/// What was read of it.
#[derive(Debug, Default)]
pub(super) struct ManagerCollection {
    pub(super) documents: Documents,
    /// Their names, and why.
    pub(super) not_read: BTreeMap<String, String>,
    /// Versions that have a label and whose content this round had no call for.
    pub(super) earlier_not_read: usize,
}

impl SecretsManagerSource<'_> {
    pub(super) fn read(&self, progress: &dyn Progress) -> Result<ManagerCollection, StateError> {
        progress.message("reading Secrets Manager");
        let cancelled = || progress.cancelled();
        let round = self.aws.round_of(CALLS_MAX, &cancelled);
        let mut secrets = list(&round)?;
        // One that waits for its deletion has no value that can be read; what another service manages it makes again.
        secrets.retain(|secret| self.is_wanted(secret));
        let names: Vec<&str> = secrets.iter().map(|secret| secret.name.as_str()).collect();
        let mut values = current(&round, &names)?;
        let mut found = ManagerCollection::default();
        for secret in &secrets {
            let value = values.remove(&secret.name);
            match value.unwrap_or_else(|| {
                Err("a round makes 12 calls, and none is left for it".to_owned())
            }) {
                Ok((id, content)) => {
                    let mut versions = BTreeMap::new();
                    // It is another one where somebody changed it since the list was made: that one is asked for.
                    if secret.labels.get(CURRENT) == Some(&id) {
                        versions.insert(id, content);
                    }
                    let earlier = secret
                        .labels
                        .values()
                        .filter(|id| !versions.contains_key(*id));
                    for id in earlier.cloned().collect::<std::collections::BTreeSet<_>>() {
                        if round.calls_left() == 0 {
                            found.earlier_not_read += 1;
                            continue;
                        }
                        match version(&round, &secret.name, &id) {
                            Ok(content) => drop(versions.insert(id, content)),
                            Err(error) if error.is_of_one_call() => found.earlier_not_read += 1,
                            Err(error) => return Err(error.into()),
                        }
                    }
                    let current = secret.labels.get(CURRENT);
                    if !current.is_some_and(|current| versions.contains_key(current)) {
                        let why = "it changed while it was read".to_owned();
                        found.not_read.insert(secret.name.clone(), why);
                        continue;
                    }
                    let name = format!("{FOLDER}/{}.json", encoded(&secret.name));
                    found.documents.insert(name, document(secret, versions));
                }
                Err(why) => drop(found.not_read.insert(secret.name.clone(), why)),
            }
        }
        Ok(found)
    }

    fn is_wanted(&self, secret: &ListedSecret) -> bool {
        let mut prefixes = self.prefixes.iter();
        !secret.is_deleted
            && secret.owner.is_none()
            && secret.labels.contains_key(CURRENT)
            && prefixes.any(|prefix| secret.name.starts_with(prefix.as_str()))
    }
}

fn document(secret: &ListedSecret, versions: BTreeMap<String, VersionContent>) -> Document {
    let mut value = json!({
        "name": secret.name, "tags": secret.tags, "labels": secret.labels, "versions": versions,
    });
    if let Some(description) = &secret.description {
        value["description"] = description.as_str().into();
    }
    if let Some(key) = &secret.kms_key {
        value["kms_key"] = key.as_str().into();
    }
    let content = Zeroizing::new(bytes(&value));
    wipe(&mut value);
    for (_, content) in versions {
        wipe(&mut Value::Object(content));
    }
    Document {
        content,
        ..Document::default()
    }
}

/// A path's part: one name never leads to another folder.
fn encoded(name: &str) -> String {
    let mut path = String::with_capacity(name.len());
    for (at, b) in name.bytes().enumerate() {
        let is_plain = b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'+' | b'=' | b'@');
        match is_plain || (b == b'.' && at > 0) {
            true => path.push(b.into()),
            false => path.push_str(&format!("%{b:02X}")),
        }
    }
    path
}

/// Its labels, and the lengths of its values.
pub(super) fn redacted(content: &[u8]) -> String {
    let Ok(mut value) = serde_json::from_slice::<Value>(content) else {
        return format!("({} bytes)", content.len());
    };
    for version in value["versions"]
        .as_object_mut()
        .into_iter()
        .flat_map(|all| all.values_mut())
    {
        for field in version
            .as_object_mut()
            .into_iter()
            .flat_map(|all| all.values_mut())
        {
            let length = field.as_str().map_or(0, str::len);
            wipe(field);
            *field = format!("({length} characters)").into();
        }
    }
    String::from_utf8_lossy(&bytes(&value)).into_owned()
}

impl From<AwsError> for StateError {
    fn from(error: AwsError) -> Self {
        match error.is_cancelled() {
            true => Self::Cancelled,
            false => Self::Aws(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_a_path_and_a_value_is_not_shown() {
        assert_eq!(encoded("prod/db"), "prod%2Fdb");
        assert_eq!(encoded("../x"), "%2E.%2Fx");
        let content = br#"{"name": "a", "versions": {"1": {"SecretString": "hunter22"}}}"#;
        let shown = redacted(content);
        assert!(
            shown.contains("(8 characters)") && !shown.contains("hunter22"),
            "{shown}"
        );
        assert_eq!(redacted(b"hunter22"), "(8 bytes)");
    }
}
