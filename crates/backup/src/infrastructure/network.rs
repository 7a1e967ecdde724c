//! The network of an account in one region.

use std::collections::BTreeSet;

use control_plane::aws::Aws;
use control_plane::aws::network::{NetworkPart, differences, read, shown};

use super::{
    InfrastructureError, InfrastructureReport, PlainInfrastructure, UnreadPart, document, parsed,
    parts_of, text_of,
};
use crate::Progress;
use crate::documents::{Collection, DocumentSource, Documents};

pub const COMPONENT: &str = "network";
pub const FOLDER: &str = "network";

#[derive(Debug, Clone, Copy)]
pub struct NetworkSource<'a> {
    pub aws: &'a Aws,
    /// All of `control_plane::aws::network::PARTS`, or some.
    pub parts: &'a [NetworkPart],
}

impl PlainInfrastructure for NetworkSource<'_> {
    const FOLDERS: &'static [&'static str] = &[FOLDER];
}

impl DocumentSource for NetworkSource<'_> {
    type Error = InfrastructureError;
    type Report = InfrastructureReport;

    fn component(&self) -> &str {
        COMPONENT
    }

    fn collect(
        &self,
        progress: &dyn Progress,
    ) -> Result<(Collection, InfrastructureReport), InfrastructureError> {
        let cancelled = || progress.cancelled();
        let round = self.aws.round(&cancelled);
        let (mut collection, mut report) = (Collection::default(), InfrastructureReport::default());
        for part in self.parts.iter().copied() {
            let plain = part.word.replace('_', " ");
            progress.message(&format!("reading each {plain}"));
            match read(&round, part) {
                Ok(found) => {
                    report.objects += found.len();
                    let named = found.iter().map(|(id, it)| {
                        (format!("{FOLDER}/{}/{id}.json", part.word), document(it))
                    });
                    collection.documents.extend(named);
                }
                Err(error) if error.is_of_one_call() => {
                    collection.not_read.push(format!("{FOLDER}/{}/", part.word));
                    report.not_read.push(UnreadPart {
                        part: plain,
                        why: error.to_string(),
                    });
                }
                Err(error) => return Err(error.into()),
            }
        }
        report.calls = round.calls();
        match report.not_read.first() {
            Some(first) if report.not_read.len() == self.parts.len() => {
                Err(InfrastructureError::NoneRead(first.clone()))
            }
            _ => Ok((collection, report)),
        }
    }

    fn redacted(&self, _: &str, content: &[u8]) -> String {
        text_of(content)
    }

    fn changes(&self, before: &Documents, after: &Documents) -> Vec<String> {
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let mut said = Vec::new();
        for name in names {
            let Some((word, id)) = parts_of(name) else {
                continue;
            };
            let plain = word.replace('_', " ");
            match (before.get(name), after.get(name)) {
                (None, Some(now)) => {
                    said.push(format!("{plain} {} added", shown(id, &parsed(now))))
                }
                (Some(was), None) => {
                    said.push(format!("{plain} {} removed", shown(id, &parsed(was))));
                }
                (Some(was), Some(now)) if was != now => {
                    said.extend(differences(word, id, &parsed(was), &parsed(now)));
                }
                _ => {}
            }
        }
        said
    }
}
