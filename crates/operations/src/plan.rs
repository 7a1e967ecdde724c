//! The plan of the running engine: one driver for its jobs, what they need, how they stand in a file, and what an
//! operator must look at among the alarms.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use backup::stream::StreamWatch;
use jobs::{Availability, Claims, Driver, History, JobStatus, Outcome, PausePolicy, Settings};
use postgres_physical::{
    server::{Binaries, OsUser},
    wire::ConnectOptions,
};
use repository::{
    Repository,
    backup::{BackupState, BackupSummary, catalogue},
};

use host::{instance::Instance, keys::Keys, record::Event};

use crate::{
    backup_request::Reading,
    clusters::ClusterFigures,
    config,
    error::Error,
    health::{ProtectionStatus, StreamMonitor},
    job_status::{JobDescription, JobRun, JobState, JobStatusFile, short_name, told_of},
    jobs::{
        Caller, JobEnvironment, Moment, OfDatabase, OfInstance, OfRepository, RunArchive,
        RunRequests, Screens, WAL_STREAM, host_name, registry, settings::runs_by_itself,
    },
    restore_test::{failed_proof, newest_failure},
};

/// Whose plan it is, and what its jobs need.
#[derive(Debug)]
pub struct Host<'a> {
    pub instance: &'a Instance,
    pub repository: &'a Repository,
    pub keys: &'a Keys,
    /// Of PostgreSQL's programs; without them no restore can be tested.
    pub binaries: Option<&'a Binaries>,
    pub user: Option<&'a OsUser>,
    pub config: &'a config::Backup,
    pub connect: ConnectOptions,
    /// As a role that may read every definition.
    pub definitions: Option<ConnectOptions>,
    pub monitor: &'a StreamMonitor,
    pub runtime: &'a tokio::runtime::Handle,
    pub stream: Option<StreamWatch>,
    pub attached: bool,
    /// How it is said what came of a run.
    pub screens: Screens,
    /// Of the backups that it takes.
    pub label: &'static str,
    pub reading: Reading,
}

impl Host<'_> {
    fn moment(&self, label: &'static str) -> Moment {
        Moment {
            repository: self.repository.clone(),
            private: self.keys.private.clone(),
            public: Some(self.keys.public.clone()),
            chunk_id: Some(self.keys.chunk_id.clone()),
            binaries: self.binaries.cloned(),
            user: self.user.cloned(),
            connect: Some(self.connect.clone()),
            definitions: self.definitions.clone(),
            stream: self.stream.clone(),
            attached: self.attached,
            label,
            reading: self.reading,
        }
    }
}

/// Between two requests for a full backup that is needed now.
const REQUEST_PAUSE: Duration = Duration::from_secs(30);
/// How long the engine's stop waits for jobs that were told to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);
const FULL: &str = "database.full";

#[derive(Debug)]
pub struct Plan {
    driver: Driver,
    environment: Arc<JobEnvironment>,
    /// Why a full backup is needed now, until there is one.
    needed: Option<&'static str>,
    requested_at: Option<Instant>,
    /// What the file says.
    written: Option<JobStatusFile>,
    requests: RunRequests,
    clusters: ClusterFigures,
}

impl Plan {
    /// What ran before is in the repository and in the records of runs.
    pub fn begin(host: &Host<'_>) -> Result<Self, Error> {
        // A restore test that was killed with its engine leaves a server running.
        for folder in [host.instance.proofs(), host.instance.beside()] {
            if let Err(error) = crate::scratch::sweep(&folder, host.repository) {
                tracing::warn!(%error, "what an earlier restore test left could not be cleared");
            }
        }
        let caller = Caller::Engine(host.runtime.clone());
        let moment = host.moment(host.label);
        let environment = Arc::new(JobEnvironment::new(
            host.instance,
            host.config,
            caller,
            host.screens,
            moment,
        ));
        let of_look = Arc::clone(&environment);
        let mut claims: Vec<Box<dyn Claims>> = vec![Box::new(OfInstance)];
        // A session of its own in a cluster of somebody else is taken for jobs alone.
        if host.config.cluster.is_none() || runs_by_itself(host.config) {
            let database = OfDatabase::start(&environment);
            let lock = database.lock();
            claims.push(Box::new(database));
            claims.push(Box::new(OfRepository::start(&environment, lock)));
        }
        let settings = Settings {
            root: host.instance.root(),
            archive: Some(Arc::new(RunArchive(host.repository.clone()))),
            claims,
            host: &host_name(),
            before_look: Some(Arc::new(move || look(&of_look))),
        };
        let driver = Driver::start(registry(&environment)?, settings)?;
        let mut plan = Self {
            driver,
            environment,
            needed: None,
            requested_at: None,
            written: None,
            requests: RunRequests::listen(host.instance)?,
            clusters: ClusterFigures::of(host.instance, &host.config.clusters),
        };
        plan.publish_status(host);
        Ok(plan)
    }

    /// Takes note of what ended, and starts what is due. True when a backup ended.
    pub fn turn(&mut self, host: &Host<'_>) -> bool {
        self.environment
            .set_moment(host.moment(self.needed.unwrap_or(host.label)));
        self.request_what_is_needed();
        self.requests.start_runs(&mut self.driver);
        let ended = self.driver.turn();
        let mut a_backup_ended = false;
        for record in ended.iter().map(|ended| &ended.record) {
            a_backup_ended |= matches!(record.job.as_str(), FULL | "database.incremental");
            if record.job == FULL && record.outcome == Outcome::Succeeded {
                (self.needed, self.requested_at) = (None, None);
            }
        }
        self.environment.events().send(host.runtime, host.instance);
        let is_recorded = self.environment.events().are_recorded();
        self.requests.answer(&self.driver, ended, is_recorded);
        self.publish_status(host);
        a_backup_ended
    }

    /// Now, without an appointment, and again until there is one.
    pub fn need_full_backup(&mut self, label: &'static str) {
        if self.needed.is_none() {
            tracing::warn!(label, "a full backup is needed now");
            self.needed = Some(label);
        }
    }

    fn request_what_is_needed(&mut self) {
        let may_ask = self
            .requested_at
            .is_none_or(|at| at.elapsed() >= REQUEST_PAUSE);
        if self.needed.is_none() || !may_ask || self.driver.is_running(FULL) {
            return;
        }
        self.requested_at = Some(Instant::now());
        if let Err(error) = self.driver.request(FULL) {
            tracing::warn!(%error, "the full backup that is needed cannot be asked for");
        }
    }

    /// By an operator, who is allowed to.
    pub fn is_stream_paused(&self) -> bool {
        self.driver.is_paused(WAL_STREAM)
    }

    /// Of something that was done before the plan began.
    pub fn put_on_record(&self, event: Event) {
        self.environment.events().push(event);
    }

    /// To health and metrics at once; into the file when it changed.
    fn publish_status(&mut self, host: &Host<'_>) {
        let mut standing = JobStatusFile::default();
        let (mut failing, mut figures) = (Vec::new(), Vec::new());
        for job in self.driver.status() {
            let name = short_name(&job.spec);
            let mut state = state_of(&job);
            if let Some(who) = self.driver.elsewhere() {
                state.waits_for = Some(format!("another engine runs the plan: {who}"));
            }
            let failed = |ran: &&JobRun| ran.succeeded == Some(false);
            if let Some(last) = state.last.as_ref().filter(failed) {
                failing.push(format!(
                    "the job {name} of the plan failed: {}",
                    last.summary
                ));
            }
            if let (Some(_), PausePolicy::Alarming(why)) = (&job.paused, &job.pause_policy) {
                failing.push(format!("the job {name} is paused: {why}"));
            }
            figures.push(figures_of(&job));
            standing.set(name, state);
        }
        failing.extend(self.driver.troubles());
        figures.extend_from_slice(self.clusters.newest());
        let protected = {
            let mut protected = self.environment.protected();
            (protected.failing, protected.jobs) = (failing, figures);
            protected.clone()
        };
        host.monitor.set_protected(&protected);
        if self.written.as_ref().map(JobStatusFile::without_next) == Some(standing.without_next()) {
            return;
        }
        match standing.write(&host.instance.plan_file()) {
            Ok(()) => self.written = Some(standing),
            Err(error) => {
                tracing::debug!(%error, "the state of the plan could not be written down")
            }
        }
    }

    /// As it was last read, and when it was asked for; not before the first look.
    pub fn with_catalogue(&self, act: impl FnOnce(&[BackupSummary], i64)) {
        let asked_at_micros = self.environment.backups_asked_at_micros();
        if asked_at_micros > 0 {
            act(&self.environment.backups(), asked_at_micros);
        }
    }

    /// The file may have been deleted.
    pub fn write_again(&mut self) {
        self.written = None;
    }

    /// A person waits for what a turn would do.
    pub fn is_asked(&self) -> bool {
        self.requests.are_waiting(&self.driver)
    }

    pub fn cancel(&self) {
        self.driver.cancel();
    }

    /// The engine stops: what runs is ended cleanly. One that hangs, on a store that is away for instance, leaves
    /// nothing that a kill could harm: it is not waited for.
    pub fn end(&mut self) {
        let ended = self.driver.stop(END_TIMEOUT);
        self.requests.end(&self.driver, ended);
    }
}

/// As the status file has it.
pub fn state_of(job: &JobStatus) -> JobState {
    let (unavailable_reason, waits_for) = match &job.available {
        Availability::Ready => (None, None),
        Availability::Unavailable(reason) => (Some(reason.clone()), None),
        Availability::Waiting(reason) => (None, Some(reason.clone())),
    };
    let said = job.running.as_ref().map(|(_, said)| said);
    let progress = said.filter(|said| !said.is_empty()).cloned();
    let running = job
        .running
        .as_ref()
        .map(|(record, _)| JobRun::begun(record.started_at_micros));
    let recorded = job.last.as_ref().map(JobRun::of);
    // What somebody else did is newer than what is on record here; a failure that it made good is no news any more.
    let shown = job.shown.as_ref().and_then(shown);
    let last = match (recorded, shown) {
        (Some(recorded), Some(shown)) => {
            match recorded.ended_micros.max(Some(recorded.started_micros)) {
                known if known >= Some(shown.started_micros) => Some(recorded),
                _ => Some(shown),
            }
        }
        (recorded, shown) => recorded.or(shown),
    };
    JobState {
        running: running.is_some(),
        schedule: Some(job.spec.trigger.to_string()),
        // What waits for its turn is due "now", again and again: no news.
        next_micros: job
            .next_micros
            .filter(|_| unavailable_reason.is_none())
            .map(|next| next - next % 1_000_000),
        unavailable_reason,
        progress,
        waits_for,
        described: Some(JobDescription::of(&job.spec)),
        last: running.or(last),
    }
}

fn shown(history: &History) -> Option<JobRun> {
    Some(JobRun {
        started_micros: history.started_micros?,
        ended_micros: history.ended_micros,
        succeeded: Some(!history.unsound),
        summary: history.summary.clone(),
    })
}

/// For metrics; none where nothing succeeded yet.
pub fn figures_of(job: &JobStatus) -> services::JobReport {
    let told = told_of(&job.spec, &job.statistics, job.running.is_some());
    let shown = job.shown.as_ref().filter(|shown| !shown.unsound);
    services::JobReport {
        last_success_micros: told
            .last_success_micros
            .max(shown.and_then(|shown| shown.ended_micros)),
        paused: job.paused.is_some(),
        ..told
    }
}

/// At what others (a person, another host) put into the repository, too. In the background: a repository that hangs
/// must not hold up the supervisor.
fn look(environment: &JobEnvironment) {
    let asked_at_micros = jiff::Timestamp::now().as_microsecond();
    match catalogue(&environment.moment().repository) {
        Ok(all) => {
            note_backups(&mut environment.protected(), &all.backups);
            environment.set_backups(all.backups, asked_at_micros);
        }
        Err(error) => tracing::debug!(%error, "the catalogue could not be read"),
    }
}

fn note_backups(protected: &mut ProtectionStatus, backups: &[BackupSummary]) {
    let complete = || {
        backups
            .iter()
            .filter(|backup| backup.state == BackupState::Complete)
    };
    protected.last_backup_micros = complete().map(|backup| backup.finished_at_micros).max();
    protected.last_proof_micros = complete()
        .filter_map(|backup| backup.restored_and_proved_at_micros)
        .max();
    protected.proof_failed =
        newest_failure(backups).map(|id| failed_proof(id, "see bre backup show"));
}
