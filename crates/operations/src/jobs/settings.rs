//! The settings as they count: what `[jobs.NAME]` says is taken in the place of what `[backup]` says of that job, and the
//! plan that follows from all of it is checked.

use std::{collections::BTreeMap, path::Path};

use jobs::{JobSpec, Registry, schedule::Trigger};

use super::{WAL_STREAM, listed, names, specs};
use crate::{
    config::{Backup, Config, Delegation, JobSettings, Schedule},
    error::Error,
    job_status::short_name,
    strategy,
};

/// Reads the named file, or `DIR/bre.toml` if there is one, or takes the defaults.
pub fn load(named: Option<&Path>, data: &Path) -> Result<Config, Error> {
    let config = Config::read(named, data)?;
    match config.file.clone() {
        Some(path) => with_jobs(config, &path),
        None => Ok(config),
    }
}

/// The table of jobs and rules, for a snapshot of the configuration.
pub fn plan_document(named: Option<&Path>, data: &Path) -> Option<Vec<u8>> {
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
    let own = config.backup.clone();
    for (name, cluster) in &config.clusters {
        let plan = of_cluster(&own, name, cluster.jobs.as_ref()).map_err(fault)?;
        config.backup.clusters.insert(name.clone(), plan);
    }
    Ok(config)
}

/// What a job's own section says, in the place of what `[backup]` says of it.
fn take(plan: &mut Backup, name: &str, settings: &JobSettings) -> Result<(), String> {
    let section = match &plan.cluster {
        None => format!("[jobs.\"{name}\"]"),
        Some(cluster) => format!("[clusters.{cluster}.jobs.\"{name}\"]"),
    };
    let said = |why: String| format!("{section} {why}");
    if let Some(delegation) = delegation(settings).map_err(said)? {
        let full_name = listed(plan, name).map(|listed| (listed.spec)(plan).name);
        let full_name = full_name.unwrap_or_else(|| name.to_owned());
        let of_instance = plan.cluster.is_none();
        strategy::may_delegate(&full_name, &delegation, of_instance).map_err(said)?;
        plan.delegate(full_name, delegation);
        return Ok(());
    }
    let Some(listed) = listed(plan, name) else {
        let known = names(plan).join(", ");
        let is_known = super::listed(&Backup::default(), name).is_some();
        return Err(match is_known {
            true => format!(
                "{section}: a job of the instance's own database; a named cluster has: {known}"
            ),
            false => format!("{section}: no job is called so; there are: {known}"),
        });
    };
    let full_name = (listed.spec)(plan).name;
    let older = (listed.older_settings)(plan);
    match (settings.keep_days, older.keep_days) {
        (Some(said), Some(days)) => *days = said,
        (Some(_), None) => {
            return Err(format!(
                "{section} keep_days: {full_name} keeps nothing that days are set for"
            ));
        }
        (None, _) => {}
    }
    match (&settings.schedule, older.schedule) {
        (Some(said), Some(schedule)) => *schedule = said.clone(),
        (Some(said), None) => plan.set_schedule(full_name, said),
        (None, _) => {}
    }
    Ok(())
}

/// A row has one of them, and then no job that a schedule could be for.
fn delegation(settings: &JobSettings) -> Result<Option<Delegation>, String> {
    let has_own = settings.schedule.is_some() || settings.keep_days.is_some();
    let delegation = match (&settings.not_here, settings.provided_by) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err("has both not_here and provided_by: one of them".to_owned());
        }
        (Some(reason), None) if reason.trim().is_empty() => {
            return Err("not_here = \"\": say why it is not here".to_owned());
        }
        (Some(reason), None) => Delegation::NotHere(reason.trim().to_owned()),
        (None, Some(provider)) => Delegation::ProvidedBy(provider),
    };
    match has_own {
        true => Err(format!(
            "{delegation}: then the job does not run here, and schedule and keep_days say nothing; take them out"
        )),
        false => Ok(Some(delegation)),
    }
}

/// Of a cluster that is not the instance's own: what its sections do not say is as in the instance's.
fn of_cluster(
    own: &Backup,
    name: &str,
    jobs: Option<&BTreeMap<String, JobSettings>>,
) -> Result<Backup, String> {
    let mut plan = own.of_cluster(name);
    match jobs {
        Some(jobs) => {
            for (job, settings) in jobs {
                take(&mut plan, job, settings)?;
            }
        }
        // As before there were any: backups are taken by hand, and nothing expires by itself.
        None => {
            let schedules = [
                &mut plan.full,
                &mut plan.incremental,
                &mut plan.proof,
                &mut plan.expire,
            ];
            for schedule in schedules {
                *schedule = Schedule(Trigger::Manual);
            }
        }
    }
    check(&plan).map_err(|reason| format!("[clusters.{name}.jobs] {reason}"))?;
    Ok(plan)
}

/// Something of this plan is started without a person.
pub fn runs_by_itself(plan: &Backup) -> bool {
    let by_itself = |spec: &JobSpec| {
        spec.name != WAL_STREAM && !matches!(spec.trigger, Trigger::Off | Trigger::Manual)
    };
    specs(plan).iter().any(by_itself)
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
    fn a_named_cluster_has_jobs_of_its_own_that_begin_as_the_instances_are() {
        let of = |text: &str| {
            let url = "[clusters.desk]\nurl = \"postgres://bre@db/postgres\"\n";
            let config = parse(&format!("{url}{text}"), Path::new("bre.toml"));
            config.unwrap().backup.clusters.remove("desk").unwrap()
        };
        let by_hand = of("[backup]\nfull_days = 9\n");
        assert!(!runs_by_itself(&by_hand));
        assert_eq!(by_hand.full.0, Trigger::Manual);
        assert_eq!(
            by_hand.full_days.get(),
            9,
            "as bre backup expire --cluster has it"
        );
        let own = of("[backup]\nfull = \"daily 03:00\"\nfull_days = 9\n[clusters.desk.jobs]\n");
        assert!(runs_by_itself(&own));
        assert_eq!(own.full.0.to_string(), "daily 03:00");
        let text = "[clusters.desk.jobs.\"database.full\"]\nschedule = \"weekly sunday 03:00\"\nkeep_days = 60\n\
                    [clusters.desk.jobs.proof]\nschedule = \"off\"\n";
        let said = of(text);
        assert_eq!(said.full.0.to_string(), "weekly sunday 03:00");
        assert_eq!((said.full_days.get(), &said.proof.0), (60, &Trigger::Off));
        assert_eq!(
            names(&said),
            [
                "database.full",
                "database.incremental",
                "wal.stream",
                "database.restore_test",
                "database.expire"
            ]
        );
        let refused = |text: &str, says: &[&str]| {
            let cluster = "[clusters.desk]\nurl = \"postgres://bre@db/postgres\"\n";
            refused(&format!("{cluster}{text}"), says);
        };
        refused(
            "[clusters.desk.jobs.\"database.ful\"]\n",
            &[
                "[clusters.desk.jobs.\"database.ful\"]: no job is called so",
                "database.expire",
            ],
        );
        refused(
            "[clusters.desk.jobs.schema]\n",
            &[
                "[clusters.desk.jobs.\"schema\"]",
                "the instance's own database",
                "database.full, ",
            ],
        );
        refused(
            "[clusters.desk.jobs.full]\nschedule = \"daily 25:00\"\n",
            &[
                "line 4",
                "schedule = \"daily 25:00\"",
                "semi-annual D HH:MM",
            ],
        );
        refused(
            "[clusters.desk.jobs.full]\nevery = 3\n",
            &["every", "keep_days"],
        );
        refused(
            "[clusters.desk.jobs.expire]\nschedule = \"after schema\"\n",
            &["[clusters.desk.jobs] the plan: the job database.expire runs after \"schema\""],
        );
        refused(
            "[clusters.desk.jobs.wal]\nschedule = \"off\"\n",
            &["[clusters.desk.jobs] wal.stream = \"off\""],
        );
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

    #[test]
    fn a_row_of_the_guide_may_be_said_to_be_absent_or_provided() {
        let text = "[jobs.\"cache.rdb\"]\nnot_here = \"no Redis of ours\"\n\
                    [jobs.full]\nprovided_by = \"rds\"\n";
        let backup = parse(text, Path::new("x")).unwrap().backup;
        let trigger = |name: &str| super::super::spec(&backup, name).unwrap().trigger;
        assert_eq!(trigger("cache.rdb"), Trigger::Off);
        assert_eq!(trigger("database.full"), Trigger::Off);
        assert_ne!(trigger("cache.aof"), Trigger::Off);
        let refusals: [(&str, &[&str]); 8] = [
            ("[jobs.full]\nnot_here = \" \"\n", &["not_here", "say why"]),
            (
                "[jobs.full]\nnot_here = \"a\"\nprovided_by = \"rds\"\n",
                &["not_here and provided_by"],
            ),
            (
                "[jobs.full]\nnot_here = \"a\"\nkeep_days = 3\n",
                &["does not run here", "keep_days"],
            ),
            (
                "[jobs.expire]\nnot_here = \"a\"\n",
                &["database.expire is no row", "wal.stream"],
            ),
            (
                "[jobs.fool]\nnot_here = \"a\"\n",
                &["fool is no row", "iam.policies"],
            ),
            (
                "[jobs.schema]\nprovided_by = \"rds\"\n",
                &["provided_by = \"rds\"", "nothing else does"],
            ),
            (
                "[jobs.full]\nprovided_by = \"ada\"\n",
                &["ada", "aws-backup"],
            ),
            ("[jobs.wal]\nnot_here = \"a\"\n", &["wal.stream = \"off\""]),
        ];
        for (text, says) in refusals {
            refused(text, says);
        }
        let cluster = "[clusters.desk]\nurl = \"postgres://bre@db/postgres\"\n";
        refused(
            &format!("{cluster}[clusters.desk.jobs.full]\nnot_here = \"a\"\n"),
            &[
                "[clusters.desk.jobs.\"full\"] not_here",
                "a named cluster has none",
            ],
        );
    }
}
