//! An RDB file of the cache, as a sealed snapshot.

use std::collections::BTreeMap;

use backup::cache::{COMPONENT, RdbPolicy, RdbSource, check_reach};
use backup::documents::take;
use jobs::{
    Availability, Deadline, FirstRun, History, JobSpec, RunContext, RunReport, Storage,
    schedule::Trigger,
};

use super::{JobDefinition, JobEnvironment, Task, answer, answer::JobResult, hours, late};
use crate::{
    cache::{self, CacheReach},
    config::{self, OlderSettings},
    error::Error,
    snapshots,
};

pub(super) const JOB: JobDefinition = JobDefinition {
    spec,
    task: || Box::new(CacheRdb::default()),
    for_clusters: false,
    older_settings: |backup| OlderSettings {
        schedule: None,
        keep_days: Some(&mut backup.cache_days),
    },
};

pub const NAME: &str = "cache.rdb";
/// A figure of its runs.
pub const LOAD_MILLIS: &str = "load_millis";

#[derive(Default)]
struct CacheRdb {
    reach: CacheReach,
}

fn spec(config: &config::Backup) -> JobSpec {
    let trigger = Trigger::Hourly { minute: 20 };
    JobSpec {
        name: NAME.to_owned(),
        aliases: Vec::new(),
        component: COMPONENT.to_owned(),
        kind: "RDB file".to_owned(),
        group: None,
        objective: trigger.period().map(late),
        trigger,
        retention: hours(config.cache_days),
        storage: Storage::Repository,
        locks: vec!["snapshots".to_owned()],
        covered_by: Vec::new(),
        priority: 0,
        deadline: Deadline::FourMedians,
        verification:
            "loaded once by a Redis of its own; read back at once, where the private key is"
                .to_owned(),
        first_run: FirstRun::NextAppointment,
    }
}

impl Task for CacheRdb {
    fn availability(&self, environment: &JobEnvironment) -> Availability {
        match environment.is_by_hand() {
            true => self
                .reach
                .look(&environment.instance, &environment.config, check_reach),
            false => self.reach.last(),
        }
    }

    /// Asked in the background.
    fn history(&self, environment: &JobEnvironment) -> Option<History> {
        self.reach
            .look(&environment.instance, &environment.config, check_reach);
        None
    }

    fn needs_the_engine(&self) -> bool {
        false
    }

    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        let instance = &environment.instance;
        let source = RdbSource {
            settings: cache::reached(instance, &environment.config)?,
            policy: RdbPolicy::Save,
            scratch: cache::scratch(instance),
            program: None,
        };
        let steps = environment.steps(context, "snapshot");
        let mut sink =
            snapshots::sealed(instance, &environment.moment().repository, &instance.keys())?;
        let (outcome, dump) = take::<_, _, Error>(&source, &mut sink, &steps)?;
        drop(steps);
        let figure = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let figures = BTreeMap::from([
            ("keys".to_owned(), figure(dump.keys)),
            ("keys_expired".to_owned(), figure(dump.keys_expired)),
            (LOAD_MILLIS.to_owned(), figure(dump.load_millis)),
        ]);
        let report = RunReport {
            summary: format!(
                "{}: {} keys of {}",
                outcome.snapshot.id, dump.keys, dump.server
            ),
            bytes: Some(outcome.snapshot.bytes_stored),
            figures,
            unsound: None,
        };
        answer::give(context, || {
            (environment.screens)(JobResult::Snapshot {
                component: COMPONENT,
                outcome: Box::new(outcome),
            })
        });
        Ok(report)
    }
}
