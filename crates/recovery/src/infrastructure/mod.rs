//! What a system is built of, from documents that were kept: what would be done is decided first, shown, and only then
//! carried out through the official clients. What was done is read back: a second plan is empty.
//!
//! Left alone: what is only in the account, and what Amazon makes by itself. A network has no restore of its own: it
//! is built by Terraform or CloudFormation, whose states are here.

pub mod cloudformation;
pub mod iam;
pub mod terraform;

use control_plane::ClientError;
use control_plane::aws::AwsError;
use control_plane::git::Files;
use repository::snapshot::SnapshotReader;
use serde_json::{Map, Value};

#[derive(Debug, thiserror::Error)]
pub enum InfrastructureError {
    #[error(transparent)]
    Aws(#[from] AwsError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Repository(#[from] repository::Error),
    #[error("the document {name} cannot be restored: {reason}. Nothing was changed")]
    Document { name: String, reason: String },
    /// Something is against it.
    #[error("{0}. Nothing was changed")]
    Refused(String),
    #[error("{0}. What was done before it stays; plan again to see what is left")]
    Apply(AwsError),
    #[error("{what}: {said}")]
    Failed { what: String, said: String },
    #[error(
        "after the restore there are still differences: {}. Something else changes them: look at it there",
        .0.join("; ")
    )]
    NotTheSame(Vec<String>),
}

impl InfrastructureError {
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Document { .. })
    }
}

/// The documents of a sealed snapshot, without those that are made from others.
pub fn documents_of_snapshot(reader: &SnapshotReader) -> Result<Files, InfrastructureError> {
    let is_derived = |document: &&repository::snapshot::SnapshotDocument| {
        let derived = document.attributes.get("derived");
        derived.is_some_and(|derived| derived == "true")
    };
    let mut files = Files::new();
    for document in reader.documents() {
        if !is_derived(&document) {
            files.insert(document.name.clone(), reader.read(document)?);
        }
    }
    Ok(files)
}

fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items
        .filter_map(|it| it.as_str().map(str::to_owned))
        .collect()
}

fn fields(value: &Value, name: &str) -> Map<String, Value> {
    value[name].as_object().cloned().unwrap_or_default()
}
