//! The settings as they count: what `[jobs.NAME]` says is taken in the place of what `[backup]` says of that job, and the
//! plan that follows from all of it is checked.

use std::path::Path;

use jobs::{JobSpec, Registry, schedule::Trigger};

use super::{WAL_STREAM, listed, names, specs};
use crate::{
    config::{Backup, Config, JobSettings},
    error::Error,
    job_status::short_name,
};

/// Reads the named file, or `DIR/bre.toml` if there is one, or takes the defaults.
pub(crate) fn load(named: Option<&Path>, data: &Path) -> Result<Config, Error> {
    let config = Config::read(named, data)?;
    match config.file.clone() {
        Some(path) => with_jobs(config, &path),
        None => Ok(config),
    }
}

/// The table of jobs and rules, for a snapshot of the configuration.
pub(crate) fn plan_document(named: Option<&Path>, data: &Path) -> Option<Vec<u8>> {
    let config = load(named, data).ok()?.backup;
    let jobs: Vec<_> = specs(&config)
        .iter()
        .map(|spec| {
            let schedule = spec.trigger.to_string();
            serde_json::json!({ "job": short_name(spec), "schedule": schedule })
        })
        .collect();
    let plan = serde_json::json!({ "jobs": jobs, "rules": config.rules() });
    serde_json::to_vec_pretty(&plan).ok()
}

fn with_jobs(mut config: Config, path: &Path) -> Result<Config, Error> {
    let fault = |reason: String| Config::fault(path, reason);
    for (name, job) in &config.jobs {
        take(&mut config.backup, name, job).map_err(fault)?;
    }
    check(&config.backup).map_err(fault)?;
    Ok(config)
}

/// What a job's own section says, in the place of what `[backup]` says of it.
fn take(backup: &mut Backup, name: &str, settings: &JobSettings) -> Result<(), String> {
    let Some(listed) = listed(backup, name) else {
        return Err(format!(
            "[jobs.\"{name}\"]: no job is called so; there are: {}",
            names(backup).join(", ")
        ));
    };
    let full_name = (listed.spec)(backup).name;
    let older = (listed.older_settings)(backup);
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
        (Some(said), None) => backup.set_schedule(full_name, said),
        (None, _) => {}
    }
    Ok(())
}

/// A backup follows no other job; without full ones nothing else has a beginning.
fn check(backup: &Backup) -> Result<(), String> {
    let specs = specs(backup);
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
    let stream = specs.iter().find(|spec| spec.name == WAL_STREAM);
    if let Some(stream) = stream.filter(|spec| spec.trigger != Trigger::Continuous) {
        return Err(format!(
            "{} = \"{}\": every backup needs it: it is continuous, and bre job pause stops it",
            stream.name, stream.trigger
        ));
    }
    Registry::check(specs).map_err(|error| format!("the plan: {error}"))
}

#[cfg(test)]
mod tests {
    use repository::retention::Rules;

    use super::*;

    fn parse(text: &str, path: &Path) -> Result<Config, Error> {
        with_jobs(Config::parse(text, path)?, path)
    }

    fn refused(text: &str, says: &[&str]) {
        let error = parse(text, Path::new("bre.toml")).unwrap_err().to_string();
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
        let config = parse("[backup]\nproof = \"off\"\n", Path::new("x")).unwrap();
        assert_eq!(config.backup.proof.0, Trigger::Off);
        assert_eq!(config.backup.rules(), Rules::default(), "the guide's table");
    }

    #[test]
    fn a_job_has_a_section_of_its_own_beside_the_old_one() {
        let text = "[backup]\nfull = \"daily 03:00\"\nfull_days = 9\n\
                    [jobs.\"database.full\"]\nschedule = \"daily 01:30 Europe/Berlin\"\n\
                    [jobs.incremental]\nkeep_days = 3\n";
        let backup = parse(text, Path::new("x")).unwrap().backup;
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
