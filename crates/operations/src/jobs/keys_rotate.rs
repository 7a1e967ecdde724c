//! The keys of the repository and of the audit archive: replaced before the guide's 90 days are over, where this host
//! may; a reminder, and past that time an alarm, where a person has to.

use host::keys::rotation::{AUDIT, BACKUPS};
use jobs::{
    Deadline, FirstRun, JobSpec, Retention, RunContext, RunReport, Storage, schedule::Trigger,
};

use super::{JobDefinition, JobEnvironment, Task, late};
use crate::{
    config::{self, OlderSettings},
    error::Error,
    key_rotation::{KeyCondition, KeyRotation, rotate_archive_key, rotate_repository_key},
};

pub(super) const JOB: JobDefinition = JobDefinition {
    spec,
    task: || Box::new(KeysRotate),
    for_clusters: false,
    older_settings: |_| OlderSettings::default(),
};

struct KeysRotate;

fn spec(_: &config::Backup) -> JobSpec {
    let trigger = Trigger::daily(250);
    JobSpec {
        name: "keys.rotate".to_owned(),
        aliases: Vec::new(),
        component: "configuration".to_owned(),
        kind: "new keys at 85 days".to_owned(),
        group: None,
        objective: trigger.period().map(late),
        trigger,
        retention: Retention::in_words("the old key until retire-old"),
        storage: Storage::Local,
        locks: vec!["keys".to_owned()],
        covered_by: Vec::new(),
        priority: 0,
        deadline: Deadline::FourMedians,
        verification: "each data key is sealed to the new key, read back and opened".to_owned(),
        first_run: FirstRun::NextAppointment,
    }
}

impl Task for KeysRotate {
    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        let (instance, config) = (&environment.instance, &environment.config);
        let (keys, repository) = (instance.keys(), environment.moment().repository);
        let steps = environment.steps(context, "rotate");
        let mut report = RunReport::default();
        let (mut sentences, mut alarms) = (Vec::new(), Vec::new());
        for (pair, wanted) in [
            (&BACKUPS, &config.repository_key),
            (&AUDIT, &config.audit_key),
        ] {
            let Some(condition) = KeyCondition::look(pair, &keys, wanted)? else {
                continue;
            };
            if !matches!(condition, KeyCondition::Due { .. }) {
                if condition.is_overdue() {
                    alarms.push(condition.sentence(pair));
                }
                sentences.push(condition.sentence(pair));
                continue;
            }
            let begun = environment.event(context).with("new_key", pair.title);
            environment.record(&begun)?;
            let rotation = match pair.vault == BACKUPS.vault {
                true => rotate_repository_key(instance, &keys, &repository, wanted, &steps)?,
                false => rotate_archive_key(&keys, &repository, wanted, &steps)?,
            };
            if let Some(lack) = lack(&rotation) {
                alarms.push(format!("{}: {lack}", pair.title));
            }
            sentences.push(format!(
                "{} is {} now; {} data keys are sealed to it",
                pair.title,
                rotation.recipient_id,
                rotation.data_keys.saturating_sub(rotation.not_sealed)
            ));
            report.figures.insert(
                "data_keys".to_owned(),
                i64::try_from(rotation.data_keys).unwrap_or(i64::MAX),
            );
        }
        report.summary = sentences.join("; ");
        report.unsound = (!alarms.is_empty()).then(|| alarms.join("; "));
        Ok(report)
    }
}

/// Why a rotation is not finished.
fn lack(rotation: &KeyRotation) -> Option<String> {
    if rotation.engine_took_it == Some(false) {
        return Some("the running engine has not taken the new key: look at its log".to_owned());
    }
    let why = rotation.closed_because.as_deref().unwrap_or_default();
    (rotation.not_sealed > 0).then(|| {
        format!(
            "{} data keys are sealed to other keys only: bring the private keys they are sealed to, and run this \
             again; {why}",
            rotation.not_sealed
        )
    })
}
