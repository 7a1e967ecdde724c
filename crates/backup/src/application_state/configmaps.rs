//! ConfigMaps of namespaces.

use control_plane::kubernetes::Kubectl;

use super::{PlainState, StateError, StateReport, by_namespace, read_objects};
use crate::Progress;
use crate::documents::Collection;

pub const COMPONENT: &str = "configmaps";
const FOLDER: &str = "configmaps";

#[derive(Debug, Clone, Copy)]
pub struct ConfigMapSource<'a> {
    pub kubectl: &'a Kubectl,
    pub namespaces: &'a [String],
}

impl PlainState for ConfigMapSource<'_> {
    const COMPONENT: &'static str = COMPONENT;
    const FOLDERS: &'static [&'static str] = &[FOLDER];

    fn collect(&self, progress: &dyn Progress) -> Result<(Collection, StateReport), StateError> {
        by_namespace(self.namespaces, FOLDER, progress, |namespace, documents| {
            let kinds = ["configmaps"];
            read_objects(self.kubectl, namespace, &kinds, FOLDER, progress, documents)
        })
    }
}
