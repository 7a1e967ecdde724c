//! What Amazon backs up by itself, and the manual snapshots beside it: whether the settings are what the plan demands,
//! one snapshot under the guide's name, those of ours that are too old deleted, and what the service says happened.

pub mod elasticache;
pub mod rds;

use std::collections::BTreeMap;

use control_plane::aws::{AwsError, AwsRound};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

/// What is demanded of a service, and how its snapshots are made.
#[derive(Debug, Clone)]
pub struct ProviderPlan<'a> {
    /// Of automated backups.
    pub days_min: u16,
    pub multi_az: bool,
    /// An ARN, or its end; any key when absent.
    pub kms_key: Option<&'a str>,
    /// Of snapshots of ours.
    pub keep_days: u16,
    pub tags: &'a BTreeMap<String, String>,
    /// Of this repository: its snapshots are told from all others by it.
    pub mark: &'a str,
    pub now: Timestamp,
}

/// The tag that tells a snapshot of ours.
pub const MARK: &str = "bre-repository";

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProviderEvent {
    pub at: String,
    pub message: String,
    pub is_failure: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ProviderReport {
    /// That was made now.
    pub snapshot: String,
    pub deleted: Vec<String>,
    /// Snapshots of ours that there are now.
    pub kept: usize,
    /// Where the service is not as the plan demands, with the line that mends it.
    pub faults: Vec<String>,
    /// Any moment between the two can be restored by the service.
    pub restorable_from: Option<String>,
    pub restorable_to: Option<String>,
    /// Of the last day, about backups.
    pub events: Vec<ProviderEvent>,
    /// What it could not be asked, and why.
    pub not_read: Vec<String>,
    pub calls: u32,
}

impl ProviderPlan<'_> {
    /// As the guide names it, UTC.
    #[must_use]
    pub fn name(&self) -> String {
        self.now
            .strftime("manual-backup-%Y-%m-%d-%H-%M")
            .to_string()
    }

    fn tags_text(&self) -> String {
        let own = (MARK.to_owned(), self.mark.to_owned());
        let all = self.tags.clone().into_iter().chain([own]);
        let all: Vec<Value> = all
            .map(|(key, value)| json!({"Key": key, "Value": value}))
            .collect();
        json!(all).to_string()
    }

    fn is_ours(&self, tags: &Value) -> bool {
        let tags = tags.as_array().into_iter().flatten();
        let mut ours = tags.filter(|tag| tag["Key"] == MARK && tag["Value"] == self.mark);
        ours.next().is_some()
    }

    fn is_wanted_key(&self, key: &str) -> bool {
        self.kms_key
            .is_none_or(|wanted| key == wanted || key.ends_with(&format!("/{wanted}")))
    }

    /// Of snapshots of ours, by name with the moment of each: those that are too old. The newest stays at any age.
    fn too_old(&self, snapshots: &[(String, Timestamp)]) -> Vec<String> {
        let newest = snapshots.iter().map(|(_, at)| *at).max();
        let limit = jiff::SignedDuration::from_hours(24 * i64::from(self.keep_days));
        let old = snapshots
            .iter()
            .filter(|(_, at)| Some(*at) != newest && self.now.duration_since(*at) > limit);
        old.map(|(name, _)| name.clone()).collect()
    }
}

impl ProviderReport {
    /// A role may lack the right to ask for them: the rest is known without.
    fn read_events(&mut self, round: &AwsRound<'_>, arguments: &[&str]) -> Result<(), AwsError> {
        match round.json(arguments) {
            Ok(answer) => self.events = events(&answer),
            Err(error) if error.is_of_one_call() => self.not_read.push(error.to_string()),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// As the service tells them, about backups: the newest last.
fn events(answer: &Value) -> Vec<ProviderEvent> {
    let all = answer["Events"].as_array().into_iter().flatten();
    let event = |it: &Value| {
        let message = it["Message"].as_str()?.to_owned();
        let categories = it["EventCategories"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let of = |word: &str| categories.iter().any(|it| it == word);
        let lower = message.to_lowercase();
        let is_about = of("backup") || lower.contains("backup") || lower.contains("snapshot");
        let is_failure = of("failure") || lower.contains("fail") || lower.contains("unable to");
        let at = it["Date"].as_str().unwrap_or_default().to_owned();
        (is_about || is_failure).then_some(ProviderEvent {
            at,
            message,
            is_failure,
        })
    };
    all.filter_map(event).collect()
}

fn moment(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn plan<'a>(tags: &'a BTreeMap<String, String>, now: &str) -> ProviderPlan<'a> {
        ProviderPlan {
            days_min: 7,
            multi_az: true,
            kms_key: Some("k-1"),
            keep_days: 30,
            tags,
            mark: "r-1",
            now: at(now),
        }
    }

    // any day: the clock is passed in.
    #[test]
    fn only_old_ones_of_ours_go_and_the_newest_stays() {
        let tags = BTreeMap::new();
        let plan = plan(&tags, "2026-04-30T00:00:00Z");
        let of = |list: &[(&str, &str)]| -> Vec<String> {
            let list: Vec<(String, Timestamp)> = list
                .iter()
                .map(|(name, when)| ((*name).to_owned(), at(when)))
                .collect();
            plan.too_old(&list)
        };
        let old = ("old", "2026-03-01T00:00:00Z");
        assert_eq!(of(&[old, ("young", "2026-04-29T00:00:00Z")]), ["old"]);
        assert_eq!(of(&[old]), Vec::<String>::new(), "there is no newer one");
        assert_eq!(of(&[]), Vec::<String>::new());
        assert_eq!(plan.name(), "manual-backup-2026-04-30-00-00");
        let mine = json!([{"Key": MARK, "Value": "r-1"}]);
        assert!(plan.is_ours(&mine) && !plan.is_ours(&json!([{"Key": MARK, "Value": "r-2"}])));
        assert!(!plan.is_ours(&json!([{"Key": "Purpose", "Value": "ManualBackup"}])));
        assert!(plan.is_wanted_key("arn:aws:kms:x:1:key/k-1") && !plan.is_wanted_key("k-2"));
    }

    #[test]
    fn a_failure_is_told_from_what_went_well() {
        let found = events(&json!({"Events": [
            {"Date": "d1", "Message": "Finished DB Instance backup", "EventCategories": ["backup"]},
            {"Date": "d2", "Message": "Unable to create snapshot", "EventCategories": ["failure"]},
            {"Date": "d3", "Message": "Applied the parameter group", "EventCategories": ["configuration change"]},
        ]}));
        let said: Vec<(&str, bool)> = found
            .iter()
            .map(|it| (it.at.as_str(), it.is_failure))
            .collect();
        assert_eq!(said, [("d1", false), ("d2", true)]);
    }
}
