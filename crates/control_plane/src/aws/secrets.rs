//! Secrets Manager: secrets with their values by staging label. A version's content never changes, so a version's id
//! says what it holds.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{AwsError, AwsRound};
use crate::kubernetes::wipe;

/// So many values come with one call.
const BATCH: usize = 20;
pub const CURRENT: &str = "AWSCURRENT";
const PENDING: &str = "AWSPENDING";

/// What is known of a secret without its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSecret {
    pub name: String,
    pub description: Option<String>,
    pub kms_key: Option<String>,
    pub tags: BTreeMap<String, String>,
    /// Staging label to the id of its version. One that a rotation is about to make is not among them.
    pub labels: BTreeMap<String, String>,
    /// It waits for its deletion: no value of it can be read.
    pub is_deleted: bool,
    /// Another service made it, and manages it.
    pub owner: Option<String>,
}

/// All of a region, by one call.
pub fn list(round: &AwsRound<'_>) -> Result<Vec<ListedSecret>, AwsError> {
    let answer = round.json(&[
        "secretsmanager",
        "list-secrets",
        "--include-planned-deletion",
    ])?;
    let secrets = answer["SecretList"].as_array();
    Ok(secrets.into_iter().flatten().filter_map(listed).collect())
}

fn listed(secret: &Value) -> Option<ListedSecret> {
    let text = |name: &str| {
        let text = secret[name].as_str().filter(|text| !text.is_empty());
        text.map(str::to_owned)
    };
    let tags = secret["Tags"].as_array().into_iter().flatten();
    let tag = |tag: &Value| {
        Some((
            tag["Key"].as_str()?.to_owned(),
            tag["Value"].as_str()?.to_owned(),
        ))
    };
    let mut labels = BTreeMap::new();
    for (version, of_version) in secret["SecretVersionsToStages"]
        .as_object()
        .into_iter()
        .flatten()
    {
        for label in of_version
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if label != PENDING {
                labels.insert(label.to_owned(), version.clone());
            }
        }
    }
    Some(ListedSecret {
        name: text("Name")?,
        description: text("Description"),
        kms_key: text("KmsKeyId"),
        tags: tags.filter_map(tag).collect(),
        labels,
        is_deleted: secret["DeletedDate"].is_string() || secret["DeletedDate"].is_number(),
        owner: text("OwningService"),
    })
}

/// The content of a version: `SecretString` or `SecretBinary`, as the service has it.
pub type VersionContent = Map<String, Value>;

/// By name: the current version of each and its content; of those that cannot be read, why.
pub type CurrentVersions = BTreeMap<String, Result<(String, VersionContent), String>>;

/// The current values of these secrets, as many as the round has calls for.
pub fn current(round: &AwsRound<'_>, names: &[&str]) -> Result<CurrentVersions, AwsError> {
    let mut found = CurrentVersions::new();
    for batch in names.chunks(BATCH) {
        if round.calls_left() == 0 {
            break;
        }
        let mut arguments = vec![
            "secretsmanager",
            "batch-get-secret-value",
            "--secret-id-list",
        ];
        arguments.extend(batch);
        let mut answer = round.json(&arguments)?;
        for value in answer["SecretValues"].as_array_mut().into_iter().flatten() {
            let name = value["Name"].as_str().unwrap_or_default().to_owned();
            let version = value["VersionId"].as_str().unwrap_or_default().to_owned();
            found.insert(name, Ok((version, content(value))));
        }
        for error in answer["Errors"].as_array().into_iter().flatten() {
            let text = |name: &str| error[name].as_str().unwrap_or_default();
            let why = format!("{}: {}", text("ErrorCode"), text("Message"));
            // The service names it by its name or by its ARN, which ends in the name and six characters.
            let id = text("SecretId");
            let name = batch
                .iter()
                .find(|name| id == **name || id.contains(&format!(":secret:{name}-")));
            found.insert(
                name.map_or_else(|| id.to_owned(), |name| (*name).to_owned()),
                Err(why),
            );
        }
    }
    Ok(found)
}

/// One version of one secret.
pub fn version(
    round: &AwsRound<'_>,
    name: &str,
    version: &str,
) -> Result<VersionContent, AwsError> {
    let arguments = [
        "secretsmanager",
        "get-secret-value",
        "--secret-id",
        name,
        "--version-id",
        version,
    ];
    let mut value = round.json(&arguments)?;
    Ok(content(&mut value))
}

fn content(value: &mut Value) -> VersionContent {
    let mut content = VersionContent::new();
    for field in ["SecretString", "SecretBinary"] {
        if let Some(found) = value.get_mut(field) {
            content.insert(field.to_owned(), found.take());
        }
    }
    content
}

/// With its first version.
pub fn create(
    round: &AwsRound<'_>,
    secret: &ListedSecret,
    version: &str,
    content: &VersionContent,
) -> Result<(), AwsError> {
    let mut wanted = json!({"Name": secret.name, "ClientRequestToken": version});
    if let Some(description) = &secret.description {
        wanted["Description"] = description.as_str().into();
    }
    if let Some(key) = &secret.kms_key {
        wanted["KmsKeyId"] = key.as_str().into();
    }
    if !secret.tags.is_empty() {
        wanted["Tags"] = tags(&secret.tags);
    }
    asked(round, "create-secret", wanted, content)
}

fn tags(tags: &BTreeMap<String, String>) -> Value {
    let tag = |(key, value): (&String, &String)| json!({"Key": key, "Value": value});
    tags.iter().map(tag).collect()
}

/// A version under its own id, with its labels.
pub fn put(
    round: &AwsRound<'_>,
    name: &str,
    version: &str,
    labels: &[&str],
    content: &VersionContent,
) -> Result<(), AwsError> {
    let wanted = json!({"SecretId": name, "ClientRequestToken": version, "VersionStages": labels});
    asked(round, "put-secret-value", wanted, content)
}

/// Values go through standard input.
fn asked(
    round: &AwsRound<'_>,
    what: &str,
    mut wanted: Value,
    content: &VersionContent,
) -> Result<(), AwsError> {
    for (field, value) in content {
        wanted[field] = value.clone();
    }
    let input = zeroize::Zeroizing::new(wanted.to_string().into_bytes());
    wipe(&mut wanted);
    let arguments = [
        "secretsmanager",
        what,
        "--cli-input-json",
        "file:///dev/stdin",
    ];
    round.json_with(&arguments, &input).map(drop)
}

/// A label moves from the version that has it now, if any.
pub fn move_label(
    round: &AwsRound<'_>,
    name: &str,
    label: &str,
    to: &str,
    from: Option<&str>,
) -> Result<(), AwsError> {
    let mut arguments = vec![
        "secretsmanager",
        "update-secret-version-stage",
        "--secret-id",
        name,
    ];
    arguments.extend(["--version-stage", label, "--move-to-version-id", to]);
    if let Some(from) = from {
        arguments.extend(["--remove-from-version-id", from]);
    }
    round.json(&arguments).map(drop)
}

/// It does not wait for its deletion any more.
pub fn undelete(round: &AwsRound<'_>, name: &str) -> Result<(), AwsError> {
    let arguments = ["secretsmanager", "restore-secret", "--secret-id", name];
    round.json(&arguments).map(drop)
}
