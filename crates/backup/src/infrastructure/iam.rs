//! Users, groups, roles and policies of an account.

use std::collections::BTreeSet;

use control_plane::aws::Aws;
use control_plane::aws::iam::{IamKind, IamName, differences, read};
use serde_json::Value;

use super::{
    InfrastructureError, InfrastructureReport, PlainInfrastructure, document, parsed, parts_of,
    text_of,
};
use crate::Progress;
use crate::documents::{Collection, DocumentSource, Documents};

pub const COMPONENT: &str = "iam";
pub const FOLDER: &str = "iam";

#[derive(Debug, Clone, Copy)]
pub struct IamSource<'a> {
    pub aws: &'a Aws,
}

impl PlainInfrastructure for IamSource<'_> {
    const FOLDERS: &'static [&'static str] = &[FOLDER];
}

impl DocumentSource for IamSource<'_> {
    type Error = InfrastructureError;
    type Report = InfrastructureReport;

    fn component(&self) -> &str {
        COMPONENT
    }

    fn collect(
        &self,
        progress: &dyn Progress,
    ) -> Result<(Collection, InfrastructureReport), InfrastructureError> {
        progress.message("reading users, groups, roles and policies");
        let cancelled = || progress.cancelled();
        let round = self.aws.round(&cancelled);
        let objects = read(&round)?;
        let report = InfrastructureReport {
            objects: objects.len(),
            calls: round.calls(),
            not_read: Vec::new(),
        };
        let named = |(name, value): (&IamName, &Value)| (document_name(name), document(value));
        let collection = Collection {
            documents: objects.iter().map(named).collect(),
            not_read: Vec::new(),
        };
        Ok((collection, report))
    }

    fn redacted(&self, _: &str, content: &[u8]) -> String {
        text_of(content)
    }

    fn changes(&self, before: &Documents, after: &Documents) -> Vec<String> {
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let mut said = Vec::new();
        for document in names {
            let Some(name) = name_of(document) else {
                continue;
            };
            match (before.get(document), after.get(document)) {
                (None, _) => said.push(format!("{name} added")),
                (_, None) => said.push(format!("{name} removed")),
                (Some(earlier), Some(now)) if earlier == now => {}
                (Some(earlier), Some(now)) => {
                    said.extend(differences(&name, &parsed(earlier), &parsed(now)));
                }
            }
        }
        said
    }
}

#[must_use]
pub fn document_name(name: &IamName) -> String {
    format!("{FOLDER}/{}/{}.json", name.kind.word(), name.name)
}

/// Of a document's name.
#[must_use]
pub fn name_of(document: &str) -> Option<IamName> {
    let (kind, name) = parts_of(document)?;
    Some(IamName {
        kind: IamKind::of_word(kind)?,
        name: name.to_owned(),
    })
}
