//! Stacks of CloudFormation: of each its template, and with which parameters and tags it was made. Values that a
//! template hides (`NoEcho`) are told to no one, and are in no snapshot.

use std::collections::BTreeMap;

use control_plane::aws::{Aws, AwsError, AwsRound};
use control_plane::kubernetes::bytes;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{InfrastructureError, InfrastructureReport, UnreadPart, document, text_of};
use crate::Progress;
use crate::documents::{Collection, Document, DocumentSource};

pub const COMPONENT: &str = "cloudformation";
/// Which stacks are missing in a snapshot of a part. Nothing is restored from it.
pub const NOT_READ: &str = "not_read.json";
/// One for all stacks, and one for the template of each.
const CALLS_MAX: u32 = 500;

#[derive(Debug, Clone, Copy)]
pub struct StackSource<'a> {
    pub aws: &'a Aws,
    /// Those named; all of the region where none is.
    pub stacks: &'a [String],
}

impl DocumentSource for StackSource<'_> {
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
        let round = self.aws.round_of(CALLS_MAX, &cancelled);
        progress.message("reading the stacks of CloudFormation");
        let answer = round.json(&["cloudformation", "describe-stacks"])?;
        let (mut collection, mut report) = (Collection::default(), InfrastructureReport::default());
        let mut absent: Vec<&String> = self.stacks.iter().collect();
        for stack in answer["Stacks"].as_array().into_iter().flatten() {
            let name = stack["StackName"].as_str().unwrap_or_default();
            let is_named = self.stacks.is_empty() || self.stacks.iter().any(|it| it == name);
            // A stack inside another comes with that one.
            if !is_named
                || stack["ParentId"].is_string()
                || stack["StackStatus"] == "DELETE_COMPLETE"
            {
                continue;
            }
            absent.retain(|it| *it != name);
            progress.message(&format!("reading stack {name}"));
            match template(&round, name) {
                Ok((ending, content)) => {
                    let documents = &mut collection.documents;
                    documents.insert(format!("{name}/stack.json"), document(&canonical(stack)));
                    documents.insert(format!("{name}/template.{ending}"), content);
                    report.objects += 1;
                }
                Err(error) if error.is_of_one_call() => report.not_read.push(UnreadPart {
                    part: format!("stack {name}"),
                    why: error.to_string(),
                }),
                Err(error) => return Err(error.into()),
            }
        }
        report.not_read.extend(absent.iter().map(|name| UnreadPart {
            part: format!("stack {name}"),
            why: "there is no stack of this name in the region".to_owned(),
        }));
        report.calls = round.calls();
        if let Some(first) = report.not_read.first() {
            if report.objects == 0 {
                return Err(InfrastructureError::NoneRead(first.clone()));
            }
            // Only names: the words of an error differ from run to run, and each would be a new snapshot.
            let names: Vec<&String> = report.not_read.iter().map(|it| &it.part).collect();
            let lacks = Document {
                content: Zeroizing::new(bytes(&json!({"not_read": names}))),
                attributes: BTreeMap::from([("derived".to_owned(), "true".to_owned())]),
            };
            collection.documents.insert(NOT_READ.to_owned(), lacks);
        }
        Ok((collection, report))
    }

    fn redacted(&self, _: &str, content: &[u8]) -> String {
        text_of(content)
    }
}

/// As it was given: JSON comes parsed, YAML as its text.
fn template(round: &AwsRound<'_>, stack: &str) -> Result<(&'static str, Document), AwsError> {
    let arguments = ["cloudformation", "get-template", "--stack-name", stack];
    let answer = round.json(&arguments)?;
    Ok(match &answer["TemplateBody"] {
        Value::String(text) if !text.trim_start().starts_with('{') => {
            let content = Zeroizing::new(text.as_bytes().to_vec());
            let attributes = BTreeMap::new();
            (
                "yaml",
                Document {
                    content,
                    attributes,
                },
            )
        }
        Value::String(text) => {
            let value = serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into());
            ("json", document(&value))
        }
        value => ("json", document(value)),
    })
}

/// What it takes to make it again, without what happened to it.
#[must_use]
pub fn canonical(stack: &Value) -> Value {
    let pairs = |list: &str, key: &str, value: &str| -> Map<String, Value> {
        let items = stack[list].as_array().into_iter().flatten();
        let pair = |it: &Value| Some((it[key].as_str()?.to_owned(), it[value].clone()));
        items.filter_map(pair).collect()
    };
    let mut kept = Map::new();
    kept.insert("name".to_owned(), stack["StackName"].clone());
    kept.insert(
        "parameters".to_owned(),
        pairs("Parameters", "ParameterKey", "ParameterValue").into(),
    );
    kept.insert("tags".to_owned(), pairs("Tags", "Key", "Value").into());
    for (name, field) in [
        ("capabilities", "Capabilities"),
        ("notification_arns", "NotificationARNs"),
        ("role_arn", "RoleARN"),
        ("termination_protection", "EnableTerminationProtection"),
        ("timeout_minutes", "TimeoutInMinutes"),
    ] {
        let value = &stack[field];
        let is_empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if !is_empty {
            kept.insert(name.to_owned(), value.clone());
        }
    }
    kept.into()
}
