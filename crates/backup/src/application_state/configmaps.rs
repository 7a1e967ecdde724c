//! ConfigMaps of namespaces.

use control_plane::kubernetes::Kubectl;

use super::{PlainState, StateError, StateReport, by_namespace, read_objects, text_of};
use crate::Progress;
use crate::documents::{Collection, DocumentSource, Documents};

pub const COMPONENT: &str = "configmaps";
const FOLDER: &str = "configmaps";

#[derive(Debug, Clone, Copy)]
pub struct ConfigMapSource<'a> {
    pub kubectl: &'a Kubectl,
    pub namespaces: &'a [String],
}

impl PlainState for ConfigMapSource<'_> {
    const FOLDERS: &'static [&'static str] = &[FOLDER];
}

impl DocumentSource for ConfigMapSource<'_> {
    type Error = StateError;
    type Report = StateReport;

    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn collect(&self, progress: &dyn Progress) -> Result<(Collection, StateReport), StateError> {
        by_namespace(self.namespaces, FOLDER, progress, |namespace, documents| {
            let kinds = ["configmaps"];
            read_objects(self.kubectl, namespace, &kinds, FOLDER, progress, documents)
        })
    }

    fn redacted(&self, _: &str, content: &[u8]) -> String {
        text_of(content)
    }

    fn changes(&self, before: &Documents, after: &Documents) -> Vec<String> {
        super::changes(before, after)
    }
}
