//! What runs on a Kubernetes cluster, from documents that were kept: what would be done is decided first ([`plan`]),
//! with backup, cluster and git side by side, and only then carried out ([`apply`]) by server-side apply as one field
//! manager, in an order in which each finds what it needs. What was applied is read back: a second plan is empty.
//!
//! Left alone: what the cluster makes by itself (default accounts, tokens), and what is only on the cluster.

mod apply;
mod plan;
pub mod secrets_manager;

use std::path::Path;

use control_plane::ClientError;
use control_plane::git::Files;
use repository::snapshot::SnapshotReader;

pub use apply::{Conflicts, apply};
pub use plan::{GitState, StateAction, StatePlan, StateStep, plan};

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Aws(#[from] control_plane::aws::AwsError),
    #[error(transparent)]
    Repository(#[from] repository::Error),
    #[error("the document {name} is no object that can be applied: {reason}. Nothing was changed")]
    Document { name: String, reason: String },
    #[error(
        "{0}. What was applied before it stays; plan again to see what is left. If other managers hold the fields, \
         apply with force takes them over"
    )]
    Apply(ClientError),
    #[error(
        "after it was applied the cluster still has other values of {}: something on the cluster changes them \
         (an admission webhook, a controller). Look at it there", .0.join("; ")
    )]
    NotTheSame(Vec<String>),
}

impl StateError {
    /// Nothing was changed.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Document { .. })
    }
}

/// The documents of a commit, as `backup::application_state` keeps them.
pub fn documents_of_commit(folder: &Path, commit: &str) -> Result<Files, StateError> {
    let folders = ["kubernetes", "configmaps"];
    Ok(control_plane::git::files(
        folder, commit, &folders, ".json",
    )?)
}

/// The documents of a sealed snapshot, without those that are made from others.
pub fn documents_of_snapshot(reader: &SnapshotReader) -> Result<Files, StateError> {
    let mut files = Files::new();
    let is_derived = |attributes: &std::collections::BTreeMap<String, String>| {
        attributes
            .get("derived")
            .is_some_and(|derived| derived == "true")
    };
    for document in reader.documents() {
        if !is_derived(&document.attributes) {
            files.insert(document.name.clone(), reader.read(document)?);
        }
    }
    Ok(files)
}
