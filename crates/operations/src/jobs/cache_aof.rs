//! Copies of the cache's append-only file, on this host.

use std::{collections::BTreeMap, time::Duration};

use backup::cache::{
    COMPONENT, CopyOptions, DISK_RESERVE_BYTES, check_aof, copy_aof, expire_copies,
};
use jobs::{
    Availability, Deadline, FirstRun, History, JobSpec, RunContext, RunReport, Storage,
    schedule::Trigger,
};

use super::{JobDefinition, JobEnvironment, Task, answer, answer::JobResult, hours, late};
use crate::{
    cache::{self, CacheReach},
    config::{self, OlderSettings},
    error::Error,
};

pub(super) const JOB: JobDefinition = JobDefinition {
    spec,
    task: || Box::new(CacheAof::default()),
    for_clusters: false,
    older_settings: |backup| OlderSettings {
        schedule: None,
        keep_days: Some(&mut backup.cache_aof_days),
    },
};

#[derive(Default)]
struct CacheAof {
    reach: CacheReach,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

fn spec(config: &config::Backup) -> JobSpec {
    let trigger = Trigger::EveryMinutes { minutes: 5 };
    JobSpec {
        name: "cache.aof".to_owned(),
        aliases: Vec::new(),
        component: COMPONENT.to_owned(),
        kind: "append-only file".to_owned(),
        group: None,
        objective: trigger.period().map(late),
        trigger,
        retention: hours(config.cache_aof_days),
        storage: Storage::Local,
        locks: vec!["cache copies".to_owned()],
        covered_by: Vec::new(),
        priority: 0,
        deadline: Deadline::FourMedians,
        verification: "loaded once by a Redis of its own".to_owned(),
        first_run: FirstRun::NextAppointment,
    }
}

impl Task for CacheAof {
    fn availability(&self, environment: &JobEnvironment) -> Availability {
        match environment.is_by_hand() {
            true => self
                .reach
                .look(&environment.instance, &environment.config, check_aof),
            false => self.reach.last(),
        }
    }

    /// Asked in the background.
    fn history(&self, environment: &JobEnvironment) -> Option<History> {
        self.reach
            .look(&environment.instance, &environment.config, check_aof);
        None
    }

    fn needs_the_engine(&self) -> bool {
        false
    }

    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        let instance = &environment.instance;
        let settings = cache::reached(instance, &environment.config)?;
        let copies = cache::copies(instance);
        let options = CopyOptions {
            copies: &copies,
            disk_reserve_bytes: DISK_RESERVE_BYTES,
            program: None,
        };
        let steps = environment.steps(context, "copy of the cache");
        let copy = copy_aof(&settings, options, &steps)?;
        drop(steps);
        let keep = DAY * u32::from(environment.config.cache_aof_days.get());
        let expired = expire_copies(&copies, copy.facts.taken_at_micros, keep)?;
        let facts = &copy.facts;
        let figure = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let figures = BTreeMap::from([
            ("keys".to_owned(), figure(facts.keys)),
            ("bytes_linked".to_owned(), figure(facts.bytes_linked)),
            ("expired".to_owned(), figure(expired.len() as u64)),
        ]);
        let report = RunReport {
            summary: format!("{}: {} keys of {}", copy.id, facts.keys, facts.server),
            bytes: Some(facts.bytes - facts.bytes_linked),
            figures,
            unsound: None,
        };
        answer::give(context, || {
            (environment.screens)(JobResult::CacheCopy(Box::new(copy)))
        });
        Ok(report)
    }
}
