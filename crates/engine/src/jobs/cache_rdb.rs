//! An RDB file of the cache, as a sealed snapshot.

use std::collections::BTreeMap;

use backup::cache::{COMPONENT, RdbPolicy, RdbSource, check_reach};
use backup::documents::take;
use jobs::{
    Availability, Deadline, FirstRun, History, JobSpec, RunContext, RunReport, Storage,
    schedule::Trigger,
};

use super::{Listed, Shared, Task, answer, hours, late};
use crate::{
    cache::{self, CacheReach},
    commands::snapshot::taken,
    config::{self, OlderSettings},
    error::Error,
    snapshots,
};

pub(super) const JOB: Listed = Listed {
    spec,
    task: || Box::new(CacheRdb::default()),
    for_clusters: false,
    older_settings: |backup| OlderSettings {
        schedule: None,
        keep_days: Some(&mut backup.cache_days),
    },
};

pub(crate) const NAME: &str = "cache.rdb";
/// A figure of its runs.
pub(crate) const LOAD_MILLIS: &str = "load_millis";

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
    fn availability(&self, shared: &Shared) -> Availability {
        match shared.is_by_hand() {
            true => self.reach.look(shared, check_reach),
            false => self.reach.last(),
        }
    }

    /// Asked in the background.
    fn history(&self, shared: &Shared) -> Option<History> {
        self.reach.look(shared, check_reach);
        None
    }

    fn needs_the_engine(&self) -> bool {
        false
    }

    fn run(&self, shared: &Shared, context: &RunContext) -> Result<RunReport, Error> {
        let instance = &shared.instance;
        let source = RdbSource {
            settings: cache::reached(instance, &shared.config)?,
            policy: RdbPolicy::Save,
            scratch: cache::scratch(instance),
            program: None,
        };
        let steps = shared.steps(context, "snapshot");
        let mut sink = snapshots::sealed(instance, &shared.moment().repository, &instance.keys())?;
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
        answer::give(context, || taken(COMPONENT, &outcome));
        Ok(report)
    }
}
