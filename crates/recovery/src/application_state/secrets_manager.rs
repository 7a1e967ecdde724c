//! Secrets back into AWS Secrets Manager: each version under its own id, with its staging labels. A version's content
//! never changes, so labels that name the same ids are all there is to compare. Labels that the backup does not have,
//! and secrets that only the service has, are left alone.

use std::collections::BTreeMap;

use control_plane::aws::AwsRound;
use control_plane::aws::secrets::{self, CURRENT, ListedSecret, VersionContent};
use control_plane::git::Files;
use serde::Serialize;
use serde_json::Value;

use super::StateError;

const PREVIOUS: &str = "AWSPREVIOUS";
/// A version has 20 labels at most.
const MOVES_MAX: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ManagerAction {
    Create,
    /// It waits for its deletion.
    Undelete,
    Change,
    Same,
}

#[derive(Debug, Clone, Serialize)]
pub struct ManagerStep {
    pub secret: String,
    pub action: ManagerAction,
    /// That name another version there.
    pub labels: Vec<String>,
    /// Whose version is neither in the snapshot nor there.
    pub lacks: Vec<String>,
    #[serde(skip)]
    wanted: SavedSecret,
}

#[derive(Debug, Clone, Serialize)]
pub struct ManagerPlan {
    pub steps: Vec<ManagerStep>,
    pub only_live: Vec<String>,
}

impl ManagerPlan {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes().next().is_none()
    }

    pub fn changes(&self) -> impl Iterator<Item = &ManagerStep> {
        let steps = self.steps.iter();
        steps.filter(|step| step.action != ManagerAction::Same)
    }
}

/// As a document has it.
#[derive(Debug, Clone)]
struct SavedSecret {
    listed: ListedSecret,
    versions: BTreeMap<String, VersionContent>,
}

impl Drop for SavedSecret {
    fn drop(&mut self) {
        for content in self.versions.values_mut() {
            content
                .values_mut()
                .for_each(control_plane::kubernetes::wipe);
        }
    }
}

impl SavedSecret {
    fn parse(name: &str, content: &[u8]) -> Result<Self, StateError> {
        let odd = |reason: &str| StateError::Document {
            name: name.to_owned(),
            reason: reason.to_owned(),
        };
        let mut value: Value = serde_json::from_slice(content).map_err(|_| odd("no JSON"))?;
        let texts = |field: &Value| -> BTreeMap<String, String> {
            let fields = field.as_object().into_iter().flatten();
            let text =
                |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
            fields.filter_map(text).collect()
        };
        let text = |field: &str| value[field].as_str().map(str::to_owned);
        let listed = ListedSecret {
            name: text("name").ok_or_else(|| odd("it has no name"))?,
            description: text("description"),
            kms_key: text("kms_key"),
            tags: texts(&value["tags"]),
            labels: texts(&value["labels"]),
            is_deleted: false,
            owner: None,
        };
        let Value::Object(versions) = value["versions"].take() else {
            return Err(odd("it has no versions"));
        };
        let content = |(id, content)| match content {
            Value::Object(content) => Some((id, content)),
            _ => None,
        };
        let versions: BTreeMap<String, VersionContent> =
            versions.into_iter().filter_map(content).collect();
        let current = listed.labels.get(CURRENT);
        match current.is_some_and(|current| versions.contains_key(current)) {
            true => Ok(Self { listed, versions }),
            false => Err(odd("it has no current version")),
        }
    }

    /// Those with a label whose content is here: the previous one first, the current one last, as they came to be.
    fn in_order(&self) -> Vec<&str> {
        let rank = |id: &&str| {
            let is = |label: &str| self.listed.labels.get(label).is_some_and(|of| of == id);
            if is(CURRENT) {
                2
            } else {
                u8::from(!is(PREVIOUS))
            }
        };
        let mut ids: Vec<&str> = self.listed.labels.values().map(String::as_str).collect();
        ids.retain(|id| self.versions.contains_key(*id));
        ids.sort_unstable_by_key(|id| (rank(id), *id));
        ids.dedup();
        ids
    }

    fn labels_of(&self, id: &str) -> Vec<&str> {
        let labels = self.listed.labels.iter();
        labels
            .filter(|(_, of)| *of == id)
            .map(|(label, _)| label.as_str())
            .collect()
    }
}

/// `documents`: of a snapshot, those of Secrets Manager. `live`: as it lists them now.
pub fn plan(documents: &Files, live: &[ListedSecret]) -> Result<ManagerPlan, StateError> {
    let mut steps = Vec::new();
    for (name, content) in documents {
        let wanted = SavedSecret::parse(name, content)?;
        let there = live.iter().find(|live| live.name == wanted.listed.name);
        steps.push(step(wanted, there));
    }
    let is_wanted = |live: &&ListedSecret| steps.iter().any(|step| step.secret == live.name);
    let only_live = live.iter().filter(|live| !is_wanted(live));
    Ok(ManagerPlan {
        only_live: only_live.map(|live| live.name.clone()).collect(),
        steps,
    })
}

fn step(wanted: SavedSecret, live: Option<&ListedSecret>) -> ManagerStep {
    let there = live.map_or_else(BTreeMap::new, |live| live.labels.clone());
    let (mut labels, mut lacks) = (Vec::new(), Vec::new());
    for (label, id) in &wanted.listed.labels {
        let can_be_had =
            wanted.versions.contains_key(id) || there.values().any(|there| there == id);
        match there.get(label) {
            Some(there) if there == id => {}
            _ if can_be_had => labels.push(label.clone()),
            _ => lacks.push(label.clone()),
        }
    }
    let action = match live {
        None => ManagerAction::Create,
        Some(live) if live.is_deleted => ManagerAction::Undelete,
        Some(_) if labels.is_empty() => ManagerAction::Same,
        Some(_) => ManagerAction::Change,
    };
    ManagerStep {
        secret: wanted.listed.name.clone(),
        action,
        labels,
        lacks,
        wanted,
    }
}

/// Carried out and read back. Interrupted anywhere it is planned and applied again.
pub fn apply(
    documents: &Files,
    first: &ManagerPlan,
    round: &AwsRound<'_>,
) -> Result<ManagerPlan, StateError> {
    for step in first.changes() {
        let wanted = &step.wanted;
        if step.action == ManagerAction::Undelete {
            secrets::undelete(round, &step.secret)?;
        }
        let mut is_new = step.action == ManagerAction::Create;
        for id in wanted.in_order() {
            let (labels, content) = (wanted.labels_of(id), &wanted.versions[id]);
            if is_new {
                secrets::create(round, &wanted.listed, id, content)?;
                is_new = false;
            } else if step
                .labels
                .iter()
                .any(|label| labels.contains(&label.as_str()))
            {
                // One that is there already is as it was: the service ignores it, and the labels move below.
                secrets::put(round, &step.secret, id, &labels, content)?;
            }
        }
    }
    // Moving a label moves others along: one of each secret at a time, by what is there then.
    let mut moves = 0..MOVES_MAX;
    let last = loop {
        let live = secrets::list(round)?;
        let left = plan(documents, &live)?;
        if left.is_empty() || moves.next().is_none() {
            break left;
        }
        for step in left.changes() {
            let there = live.iter().find(|live| live.name == step.secret);
            let label = step.labels.iter().min_by_key(|label| *label != CURRENT);
            if let Some(label) = label {
                let from = there.and_then(|there| there.labels.get(label));
                let to = &step.wanted.listed.labels[label];
                secrets::move_label(round, &step.secret, label, to, from.map(String::as_str))?;
            }
        }
    };
    let mut different: Vec<String> = last.changes().map(|step| step.secret.clone()).collect();
    for step in first.changes() {
        let id = &step.wanted.listed.labels[CURRENT];
        let there = secrets::version(round, &step.secret, id)?;
        if there != step.wanted.versions[id] {
            different.push(format!("{} (its value)", step.secret));
        }
    }
    match different.is_empty() {
        true => Ok(last),
        false => Err(StateError::NotTheSame(different)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(labels: &str) -> Files {
        let versions = r#"{"1": {"SecretString": "a"}, "2": {"SecretString": "b"}}"#;
        let content = format!(r#"{{"name": "db", "labels": {labels}, "versions": {versions}}}"#);
        Files::from([(
            "secrets_manager/db.json".to_owned(),
            content.into_bytes().into(),
        )])
    }

    fn live(labels: &[(&str, &str)], is_deleted: bool) -> ListedSecret {
        let labels = labels
            .iter()
            .map(|(label, id)| ((*label).to_owned(), (*id).to_owned()));
        ListedSecret {
            name: "db".to_owned(),
            description: None,
            kms_key: None,
            tags: BTreeMap::new(),
            labels: labels.collect(),
            is_deleted,
            owner: None,
        }
    }

    #[test]
    fn labels_say_what_differs() {
        use ManagerAction::{Change, Create, Same, Undelete};
        let wanted = document(r#"{"AWSCURRENT": "2", "AWSPREVIOUS": "1", "old": "0"}"#);
        let check = |live: &[ListedSecret], action, labels: &[&str], lacks: &[&str]| {
            let plan = plan(&wanted, live).unwrap();
            let step = &plan.steps[0];
            assert_eq!(
                (step.action, &step.labels[..]),
                (
                    action,
                    &labels.iter().map(ToString::to_string).collect::<Vec<_>>()[..]
                )
            );
            assert_eq!(step.lacks, lacks);
            assert_eq!(step.wanted.in_order(), ["1", "2"]);
        };
        check(&[], Create, &["AWSCURRENT", "AWSPREVIOUS"], &["old"]);
        let same = [("AWSCURRENT", "2"), ("AWSPREVIOUS", "1"), ("old", "0")];
        check(&[live(&same, false)], Same, &[], &[]);
        check(&[live(&same, true)], Undelete, &[], &[]);
        let later = [("AWSCURRENT", "3"), ("AWSPREVIOUS", "2"), ("old", "0")];
        check(
            &[live(&later, false)],
            Change,
            &["AWSCURRENT", "AWSPREVIOUS"],
            &[],
        );
    }

    #[test]
    fn a_document_without_a_current_version_is_refused() {
        for labels in ["{}", r#"{"AWSCURRENT": "9"}"#] {
            let error = plan(&document(labels), &[]).unwrap_err().to_string();
            assert!(error.contains("no current version"), "{error}");
        }
        let odd = Files::from([("x".to_owned(), b"{\"name\": \"hunter2".to_vec().into())]);
        let error = plan(&odd, &[]).unwrap_err().to_string();
        assert!(
            error.contains("no JSON") && !error.contains("hunter2"),
            "{error}"
        );
    }
}
