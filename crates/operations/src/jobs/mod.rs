//! The jobs of an instance: one file each, and the one list of them. A new job is a file here and a line in [`ALL`].

pub mod answer;
mod application_logs;
mod audit_archive;
mod audit_compliance;
mod cache_aof;
mod cache_rdb;
mod claim_state;
mod claims;
mod cloudformation_stacks;
mod configuration_snapshot;
mod elasticache_snapshots;
mod environment;
mod events;
mod expire;
mod full_backup;
mod iam_policies;
mod incremental_backup;
mod infrastructure_run;
mod keys_rotate;
mod kubernetes_config;
mod kubernetes_configmaps;
mod kubernetes_helm;
mod kubernetes_secrets;
mod log_shipment;
mod network_configuration;
mod postgres_logs;
mod provider_run;
mod rds_snapshots;
mod repository_claim;
mod repository_copy;
mod requests;
mod restore_test;
mod run_archive;
mod schema;
pub mod settings;
mod state_to_git;
mod system_logs;
mod terraform_state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod wal_stream;

use std::{fmt, sync::Arc, time::Duration};

use jobs::{
    Availability, History, Job, JobSpec, PausePolicy, Registry, Retention, RunContext, RunReport,
    schedule::Trigger,
};

pub use answer::{JobResult, Screens};
pub use cache_rdb::{LOAD_MILLIS, NAME as CACHE_RDB};
pub use claims::{OfDatabase, OfInstance};
pub use configuration_snapshot::NAME as CONFIGURATION_SNAPSHOT;
pub use environment::{Caller, JobEnvironment, Moment};
pub use kubernetes_secrets::NAME as KUBERNETES_SECRETS;
pub use repository_claim::OfRepository;
pub use requests::{RunRequests, run_there};
pub use run_archive::{RunArchive, host_name};
pub use state_to_git::job_of;
pub use wal_stream::NAME as WAL_STREAM;

use crate::{
    config::{self, OlderSettings},
    error::Error,
};

/// What a file of this folder is to say of its job.
struct JobDefinition {
    spec: fn(&config::Backup) -> JobSpec,
    task: fn() -> Box<dyn Task>,
    /// Whether named clusters have it, too: `[clusters.NAME.jobs]`.
    for_clusters: bool,
    /// Where `[backup]` has what `[jobs.NAME]` says of newer jobs.
    older_settings: fn(&mut config::Backup) -> OlderSettings<'_>,
}

/// In the order in which they are shown; which goes first when several are due says their priority.
const ALL: &[&JobDefinition] = &[
    &full_backup::JOB,
    &incremental_backup::JOB,
    &wal_stream::JOB,
    &restore_test::JOB,
    &expire::JOB,
    &schema::JOB,
    &audit_archive::JOB,
    &postgres_logs::JOB,
    &application_logs::JOB,
    &system_logs::JOB,
    &audit_compliance::JOB,
    &configuration_snapshot::JOB,
    &cache_rdb::JOB,
    &cache_aof::JOB,
    &kubernetes_config::JOB,
    &kubernetes_secrets::JOB,
    &kubernetes_configmaps::JOB,
    &kubernetes_helm::JOB,
    &terraform_state::JOB,
    &cloudformation_stacks::JOB,
    &iam_policies::JOB,
    &network_configuration::JOB,
    &rds_snapshots::JOB,
    &elasticache_snapshots::JOB,
    &keys_rotate::JOB,
    &repository_copy::JOB,
];

/// What a job of the engine does, with what the engine has.
trait Task: Send + Sync {
    fn availability(&self, _: &JobEnvironment) -> Availability {
        Availability::Ready
    }

    /// As [`Job::history`]; by what was last seen in the repository.
    fn history(&self, _: &JobEnvironment) -> Option<History> {
        None
    }

    fn pause_policy(&self, _: &config::Backup) -> PausePolicy {
        PausePolicy::Allowed
    }

    /// Why a run of it cannot be asked for.
    fn not_by_hand(&self) -> Option<&'static str> {
        None
    }

    /// As [`Job::has_changed`].
    fn has_changed(&self, _: &JobEnvironment) -> bool {
        false
    }

    /// Whether a run by hand needs the running engine.
    fn needs_the_engine(&self) -> bool {
        true
    }

    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error>;
}

/// A job as the driver sees it.
struct EngineJob {
    spec: JobSpec,
    environment: Arc<JobEnvironment>,
    task: Box<dyn Task>,
}

impl fmt::Debug for EngineJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spec.name)
    }
}

impl Job for EngineJob {
    fn spec(&self) -> JobSpec {
        self.spec.clone()
    }

    fn availability(&self) -> Availability {
        self.task.availability(&self.environment)
    }

    fn pause_policy(&self) -> PausePolicy {
        self.task.pause_policy(&self.environment.config)
    }

    fn history(&self) -> Result<Option<History>, String> {
        let history = self.task.history(&self.environment);
        match history.is_some() && !self.environment.knows_backups() {
            true => Err("the catalogue of backups could not be read yet".to_owned()),
            false => Ok(history),
        }
    }

    fn has_changed(&self) -> bool {
        self.task.has_changed(&self.environment)
    }

    fn run(&self, context: &RunContext) -> Result<RunReport, String> {
        let came = self.task.run(&self.environment, context);
        came.map_err(|error| {
            answer::give_failure(context, &error);
            error.to_string()
        })
    }
}

/// Of this plan.
fn all(config: &config::Backup) -> Vec<&'static JobDefinition> {
    let mut all = ALL.to_vec();
    #[cfg(any(test, feature = "testing"))]
    all.extend(testing::added());
    all.retain(|listed| listed.for_clusters || config.cluster.is_none());
    all
}

/// All of them, as the settings have them.
pub fn specs(config: &config::Backup) -> Vec<JobSpec> {
    let spec = |listed: &&JobDefinition| with_settings(listed, config);
    all(config).iter().map(spec).collect()
}

fn with_settings(listed: &JobDefinition, config: &config::Backup) -> JobSpec {
    let mut spec = (listed.spec)(config);
    if let Some(trigger) = config.schedule_of(&spec.name) {
        spec.trigger = trigger.clone();
        spec.objective = spec.objective.and(trigger.period().map(late));
    }
    if config.delegation_of(&spec.name).is_some() {
        (spec.trigger, spec.objective) = (Trigger::Off, None);
    }
    spec
}

pub fn names(config: &config::Backup) -> Vec<String> {
    specs(config).into_iter().map(|spec| spec.name).collect()
}

fn goes_by(spec: &JobSpec, name: &str) -> bool {
    spec.name == name || spec.aliases.iter().any(|alias| alias == name)
}

/// By its name, or by an older one.
fn listed(config: &config::Backup, name: &str) -> Option<&'static JobDefinition> {
    let all = all(config).into_iter();
    all.rev()
        .find(|listed| goes_by(&(listed.spec)(config), name))
}

pub fn spec(config: &config::Backup, name: &str) -> Option<JobSpec> {
    let listed = listed(config, name)?;
    Some(with_settings(listed, config))
}

/// What a person has to know who asks for a run.
#[derive(Debug)]
pub struct ByHand {
    pub job: String,
    /// Why it cannot be asked for.
    pub refusal: Option<&'static str>,
    pub needs_the_engine: bool,
}

/// None where no job of this plan is called so.
pub fn by_hand(config: &config::Backup, name: &str) -> Option<ByHand> {
    let listed = listed(config, name)?;
    let task = (listed.task)();
    Some(ByHand {
        job: (listed.spec)(config).name,
        refusal: task.not_by_hand(),
        needs_the_engine: task.needs_the_engine(),
    })
}

/// Of a job by its name, by these settings.
pub fn pause_policy(config: &config::Backup, name: &str) -> PausePolicy {
    let policy = |listed: &JobDefinition| (listed.task)().pause_policy(config);
    listed(config, name).map(policy).unwrap_or_default()
}

pub fn registry(environment: &Arc<JobEnvironment>) -> Result<Registry, Error> {
    let wired = all(&environment.config)
        .into_iter()
        .map(|listed| -> Arc<dyn Job> {
            Arc::new(EngineJob {
                spec: with_settings(listed, &environment.config),
                environment: Arc::clone(environment),
                task: (listed.task)(),
            })
        });
    Ok(Registry::new(wired.collect())?)
}

/// The guide's alarm: 125 % of the schedule.
fn late(period: Duration) -> Duration {
    period + period / 4
}

fn days(days: std::num::NonZeroU16) -> Retention {
    Retention::days(days.get().into())
}

fn hours(days: std::num::NonZeroU16) -> Retention {
    Retention::hours(u64::from(days.get()) * 24)
}

#[cfg(test)]
mod tests;
