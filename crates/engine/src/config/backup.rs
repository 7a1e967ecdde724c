//! `[backup]` and `[jobs.NAME]`: when the jobs of the plan run, and how long their results are kept.

use std::{
    collections::BTreeMap,
    num::{NonZeroU16, NonZeroU32},
    path::PathBuf,
};

use jobs::{
    JobSpec, Registry,
    schedule::{After, Trigger},
};
use repository::retention::{DAY_MICROS, HOUR_MICROS, Rules};
use serde::Deserialize;

use super::{Remote, ReplicaConfig};
use crate::{cli::Source, jobs as planned};

/// The plan: when its jobs run, and how long their results are kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Backup {
    pub(crate) full: Schedule,
    pub(crate) incremental: Schedule,
    pub(crate) proof: Schedule,
    pub(crate) expire: Schedule,
    /// Of the definitions into git; where git or pg_dump is missing the plan says so.
    pub(crate) schema: Schedule,
    /// What is new in the audit log, into its archive.
    pub(crate) audit_archive: Schedule,
    /// A folder, or a remote of git; DIR/schema when absent.
    pub(crate) schema_to: Option<Remote>,
    pub(crate) full_days: NonZeroU16,
    pub(crate) incremental_days: NonZeroU16,
    pub(crate) wal_days: NonZeroU16,
    /// Of schema dumps. git keeps its history for longer; nothing is deleted there.
    pub(crate) schema_days: NonZeroU16,
    /// Of components other than the database.
    pub(crate) snapshot_days: NonZeroU16,
    /// Between the mark that something expires and its deletion. Longer than any backup takes.
    pub(crate) grace_hours: NonZeroU16,
    /// Of older engines: signed heads are thinned by one rule now (audit_log.md §5). Read, and without effect.
    #[serde(rename = "heads_minutes")]
    _heads_minutes: Option<NonZeroU16>,
    pub(crate) source: Source,
    /// Most MiB a second that a backup reads; none: as fast as it can.
    pub(crate) throttle_mib: Option<NonZeroU32>,
    /// These settings themselves, where they are a file.
    #[serde(skip)]
    pub(crate) settings_file: Option<PathBuf>,
    /// As `[database] strict` has it.
    #[serde(skip)]
    pub(crate) strict: bool,
    /// As `[repositories.NAME]` has them.
    #[serde(skip)]
    pub(crate) repositories: BTreeMap<String, ReplicaConfig>,
    /// By name, of jobs that have no schedule above.
    #[serde(skip)]
    schedules: BTreeMap<String, Trigger>,
}

/// `[jobs."database.full"]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct JobSettings {
    schedule: Option<Schedule>,
    /// How long its results are kept.
    keep_days: Option<NonZeroU16>,
}

/// What `[backup]` says of a job under an older name.
#[derive(Debug, Default)]
pub(crate) struct OlderSettings<'a> {
    pub(crate) schedule: Option<&'a mut Schedule>,
    pub(crate) keep_days: Option<&'a mut NonZeroU16>,
}

/// In the words of `docs/operations/jobs.md`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Schedule(pub(crate) Trigger);

impl TryFrom<String> for Schedule {
    type Error = jobs::schedule::TriggerError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

const fn days(days: u16) -> NonZeroU16 {
    match NonZeroU16::new(days) {
        Some(days) => days,
        None => NonZeroU16::MIN,
    }
}

/// The guide's table.
impl Default for Backup {
    fn default() -> Self {
        Self {
            full: Schedule(Trigger::daily(90)),
            incremental: Schedule(Trigger::Hourly { minute: 0 }),
            proof: Schedule(Trigger::After(After::Every("backup".to_owned()))),
            expire: Schedule(Trigger::After(After::Jobs(vec!["full".to_owned()]))),
            schema: Schedule(Trigger::EveryMinutes { minutes: 15 }),
            audit_archive: Schedule(Trigger::daily(150)),
            schema_to: None,
            full_days: days(30),
            incremental_days: days(7),
            wal_days: days(7),
            schema_days: days(90),
            snapshot_days: days(90),
            grace_hours: days(24),
            _heads_minutes: None,
            source: Source::Auto,
            throttle_mib: None,
            settings_file: None,
            strict: false,
            repositories: BTreeMap::new(),
            schedules: BTreeMap::new(),
        }
    }
}

impl Backup {
    pub(crate) fn rules(&self) -> Rules {
        let micros = |days: NonZeroU16| i64::from(days.get()) * DAY_MICROS;
        Rules {
            full_micros: micros(self.full_days),
            incremental_micros: micros(self.incremental_days),
            wal_micros: micros(self.wal_days),
            schema_micros: micros(self.schema_days),
            snapshot_micros: micros(self.snapshot_days),
            grace_micros: i64::from(self.grace_hours.get()) * HOUR_MICROS,
            wal_at_once: false,
        }
    }

    /// As `[jobs.NAME]` has it, of a job that `[backup]` says nothing of.
    pub(crate) fn schedule_of(&self, name: &str) -> Option<&Trigger> {
        self.schedules.get(name)
    }

    /// What a job's own section says, in the place of what `[backup]` says of it.
    pub(super) fn take(&mut self, name: &str, settings: &JobSettings) -> Result<(), String> {
        let Some(listed) = planned::listed(self, name) else {
            return Err(format!(
                "[jobs.\"{name}\"]: no job is called so; there are: {}",
                planned::names(self).join(", ")
            ));
        };
        let full_name = (listed.spec)(self).name;
        let older = (listed.older_settings)(self);
        match (settings.keep_days, older.keep_days) {
            (Some(said), Some(days)) => *days = said,
            (Some(_), None) => {
                return Err(format!(
                    "[jobs.\"{name}\"] keep_days: {full_name} keeps nothing that days are set for"
                ));
            }
            (None, _) => {}
        }
        match (&settings.schedule, older.schedule) {
            (Some(said), Some(schedule)) => *schedule = said.clone(),
            (Some(said), None) => drop(self.schedules.insert(full_name, said.0.clone())),
            (None, _) => {}
        }
        Ok(())
    }

    /// A backup follows no other job; without full ones nothing else has a beginning.
    pub(super) fn check(&self) -> Result<(), String> {
        let specs = planned::specs(self);
        let is_backup = |spec: &&JobSpec| spec.group.as_deref() == Some("backup");
        for spec in specs.iter().filter(is_backup) {
            let by_the_clock = spec.trigger.period().is_some();
            if !by_the_clock && !matches!(spec.trigger, Trigger::Off | Trigger::Manual) {
                return Err(format!(
                    "{} = \"{}\": a backup runs daily or hourly, at another time, or is off",
                    spec.name, spec.trigger
                ));
            }
        }
        let stream = specs.iter().find(|spec| spec.name == planned::WAL_STREAM);
        if let Some(stream) = stream.filter(|spec| spec.trigger != Trigger::Continuous) {
            return Err(format!(
                "{} = \"{}\": every backup needs it: it is continuous, and bre job pause stops it",
                stream.name, stream.trigger
            ));
        }
        Registry::check(specs).map_err(|error| format!("the plan: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn refused(text: &str, says: &[&str]) {
        let error = Config::parse(text, Path::new("bre.toml"))
            .unwrap_err()
            .to_string();
        for word in says.iter().chain(&["bre.toml"]) {
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_schedule_that_makes_no_sense_is_refused() {
        refused("[backup]\nfull = \"sometimes\"\n", &["daily HH:MM"]);
        refused(
            "[backup]\nfull = \"after full\"\n",
            &["database.full", "runs daily or hourly"],
        );
        refused(
            "[backup]\nexpire = \"after fall\"\n",
            &[
                "database.expire runs after \"fall\", and no job is called so; there are: database.full",
            ],
        );
        refused("[backup]\nproof = \"after every dump\"\n", &["every dump"]);
        refused(
            "[backup]\nexpire = \"after proof\"\nproof = \"after expire\"\n",
            &["circle"],
        );
        refused("[backup]\nwal_days = 0\n", &["wal_days"]);
        refused(
            "[jobs.wal]\nschedule = \"off\"\n",
            &["wal.stream = \"off\"", "bre job pause"],
        );
        let config = Config::parse("[backup]\nproof = \"off\"\n", Path::new("x")).unwrap();
        assert_eq!(config.backup.proof.0, Trigger::Off);
        assert_eq!(config.backup.rules(), Rules::default(), "the guide's table");
    }

    #[test]
    fn a_job_has_a_section_of_its_own_beside_the_old_one() {
        let text = "[backup]\nfull = \"daily 03:00\"\nfull_days = 9\n\
                    [jobs.\"database.full\"]\nschedule = \"daily 01:30 Europe/Berlin\"\n\
                    [jobs.incremental]\nkeep_days = 3\n";
        let backup = Config::parse(text, Path::new("x")).unwrap().backup;
        assert_eq!(backup.full.0.to_string(), "daily 01:30 Europe/Berlin");
        assert_eq!(
            (backup.full_days.get(), backup.incremental_days.get()),
            (9, 3)
        );
        refused(
            "[jobs.\"database.ful\"]\n",
            &["database.ful", "database.full, database.incremental"],
        );
        refused(
            "[jobs.full]\nschedule = \"daily 25:00\"\n",
            &["schedule", "daily 25:00", "semi-annual D HH:MM"],
        );
        refused("[jobs.full]\nevery = 3\n", &["every", "keep_days"]);
        refused(
            "[jobs.expire]\nkeep_days = 3\n",
            &["jobs.\"expire\"", "keep_days"],
        );
        refused(
            "[jobs.expire]\nschedule = \"after fall\"\n",
            &["database.expire runs after \"fall\""],
        );
    }
}
