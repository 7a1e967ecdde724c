//! The objects of namespaces by kind: what is needed to build them again, besides ConfigMaps and Secrets.

use control_plane::kubernetes::{KINDS, Kubectl};

use super::{PlainState, StateError, StateReport, by_namespace, keep, read_objects};
use crate::Progress;
use crate::documents::Collection;

pub const COMPONENT: &str = "kubernetes";
const FOLDER: &str = "kubernetes";

#[derive(Debug, Clone, Copy)]
pub struct KubernetesSource<'a> {
    pub kubectl: &'a Kubectl,
    pub namespaces: &'a [String],
    /// Besides the usual ones, as kubectl takes them: `certificates.cert-manager.io`.
    pub more_kinds: &'a [String],
}

impl PlainState for KubernetesSource<'_> {
    const COMPONENT: &'static str = COMPONENT;
    const FOLDERS: &'static [&'static str] = &[FOLDER];

    fn collect(&self, progress: &dyn Progress) -> Result<(Collection, StateReport), StateError> {
        let more = self.more_kinds.iter().map(String::as_str);
        let kinds: Vec<&str> = KINDS.into_iter().chain(more).collect();
        by_namespace(self.namespaces, FOLDER, progress, |namespace, documents| {
            let itself = self
                .kubectl
                .namespace(namespace, &|| progress.cancelled())?;
            let kept = keep(itself, FOLDER, documents);
            kept.map_err(|source| control_plane::ClientError::Output {
                program: "kubectl".to_owned(),
                doing: format!("get namespace {namespace}"),
                source,
            })?;
            read_objects(self.kubectl, namespace, &kinds, FOLDER, progress, documents)
        })
    }
}
