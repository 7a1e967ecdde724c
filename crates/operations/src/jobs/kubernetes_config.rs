//! The objects of namespaces, into git.

use jobs::JobSpec;

use super::{JobDefinition, state_to_git, state_to_git::StateToGit};
use crate::{application_state::StateComponent, config, config::OlderSettings};

pub(super) const JOB: JobDefinition = JobDefinition {
    spec,
    task: || StateToGit::of(StateComponent::Kubernetes),
    for_clusters: false,
    older_settings: |_| OlderSettings::default(),
};

pub(super) const NAME: &str = "kubernetes.config";

fn spec(_: &config::Backup) -> JobSpec {
    state_to_git::spec(StateComponent::Kubernetes, "objects of namespaces")
}
