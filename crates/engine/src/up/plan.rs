//! The plan at work: starts each job when it is due, one backup or expiry at a time and beside it one proof; keeps how they
//! stand in a file, and what an operator must look at among the alarms.

mod past;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use backup::schedule::{Cadence, Job, Now, Scheduler};
use postgres_physical::{
    server::{Binaries, OsUser},
    wire::ConnectOptions,
};
use repository::{
    Repository,
    backup::{BackupKind, BackupState, BackupSummary, catalogue},
};

use past::past;

use super::backups::{Backups, Ended, join_soon};
use crate::{
    commands::audit_archive,
    config,
    error::Error,
    expiry,
    health::{Protected, StreamMonitor},
    host::{instance::Instance, lock::lock, progress::Steps, record::Event},
    jobs::{JobState, Ran, Standing},
    keys,
    keys::Keys,
    proof::{self, Prover, Record},
    schema::{self, Schema},
};

/// Whose plan it is, and what its jobs need.
#[derive(Debug)]
pub(crate) struct Host<'a> {
    pub(crate) instance: &'a Instance,
    pub(crate) repository: &'a Repository,
    pub(crate) keys: &'a Keys,
    /// Of PostgreSQL's programs; without them no proof can be made.
    pub(crate) binaries: Option<&'a Binaries>,
    pub(crate) user: Option<&'a OsUser>,
    pub(crate) config: &'a config::Backup,
    pub(crate) connect: ConnectOptions,
    /// As a role that may read every definition.
    pub(crate) definitions: Option<ConnectOptions>,
    pub(crate) monitor: &'a StreamMonitor,
    pub(crate) runtime: &'a tokio::runtime::Handle,
}

impl Host<'_> {
    /// Why proofs cannot be made here.
    fn cannot_prove(&self) -> Option<&'static str> {
        match (&self.keys.private, self.binaries, self.user) {
            (None, ..) => Some(
                "the repository's private key is not on this host: run bre restore-test run where it is",
            ),
            (_, None, _) | (_, _, None) => Some("PostgreSQL's programs are not on this host"),
            _ => None,
        }
    }

    /// Why definitions are not put into git here.
    fn cannot_back_up_schema(&self) -> Option<String> {
        match self.definitions {
            None => Some(
                "no role here may read every definition: run bre schema backup with one that may"
                    .to_owned(),
            ),
            Some(_) => backup::schema::cannot_back_up(self.binaries),
        }
    }

    fn schema(&self) -> Option<Schema> {
        let remote = self.config.schema_to.as_ref();
        Some(Schema::new(
            self.instance,
            self.definitions.clone()?,
            self.binaries?,
            self.user?,
            remote.map(|remote| remote.0.as_str()),
        ))
    }

    fn prover(&self) -> Option<Prover> {
        Some(Prover {
            repository: self.repository.clone(),
            private: self.keys.private.clone()?,
            trusted: keys::trusted(&self.instance.keys(), self.repository).ok()?,
            binaries: self.binaries?.clone(),
            user: self.user?.clone(),
            work: self.instance.proofs(),
        })
    }
}

/// Between two looks at what others (a person, another host) put into the repository.
const LOOK_PAUSE: Duration = Duration::from_secs(60);

type Proved = Result<(Record, (String, Vec<u8>)), Error>;

#[derive(Debug)]
pub(crate) struct Plan {
    scheduler: Scheduler,
    clock: Instant,
    proof: Option<JoinHandle<Proved>>,
    expiry: Option<JoinHandle<Result<String, Error>>>,
    schema: Option<JoinHandle<Result<String, Error>>>,
    audit_archive: Option<JoinHandle<Result<String, Error>>>,
    /// The catalogue, read in the background: a repository that hangs must not hold up the supervisor.
    look: Option<JoinHandle<Result<Vec<BackupSummary>, Error>>>,
    look_at: Instant,
    cancel: Arc<AtomicBool>,
    standing: Standing,
    /// What the file says.
    written: Option<Standing>,
    protected: Protected,
}

impl Plan {
    /// What ran before is in the repository; of the rest the last run's file tells, if it is still there.
    pub(crate) fn begin(host: &Host<'_>) -> Self {
        let backups = catalogue(host.repository)
            .map(|all| all.backups)
            .unwrap_or_default();
        let standing = Standing::read(&host.instance.plan_file());
        let clock = Instant::now();
        let no_schema = host.cannot_back_up_schema();
        let scheduler = Scheduler::new(
            now(clock),
            |job| match (job, host.cannot_prove()) {
                (Job::Proof, Some(_)) => Cadence::Off,
                (Job::Schema, _) if no_schema.is_some() => Cadence::Off,
                _ => host.config.cadence(job),
            },
            |job| past(job, &backups, &standing),
        );
        // A proof that was killed with its engine leaves a server running.
        for folder in [host.instance.proofs(), host.instance.beside()] {
            if let Err(error) = crate::scratch::sweep(&folder, host.repository) {
                tracing::warn!(%error, "what an earlier proof left could not be cleared");
            }
        }
        let mut plan = Self {
            scheduler,
            clock,
            proof: None,
            expiry: None,
            schema: None,
            audit_archive: None,
            look: None,
            look_at: clock + LOOK_PAUSE,
            cancel: Arc::default(),
            standing,
            written: None,
            protected: Protected::default(),
        };
        for job in Job::ALL {
            let state = plan.standing.job(job);
            (state.running, state.cannot) = (false, None);
            state.schedule = Some(host.config.cadence(job).to_string());
        }
        plan.standing.job(Job::Proof).cannot = host.cannot_prove().map(ToOwned::to_owned);
        plan.standing.job(Job::Schema).cannot = no_schema;
        plan.note_backups(&backups);
        plan.tell(host);
        plan
    }

    /// Takes note of what ended. True when a backup did.
    pub(crate) fn collect(&mut self, backups: &mut Backups, host: &Host<'_>) -> bool {
        // Backups are also started for other reasons than the plan: the first one, after a hole, after a recovery.
        if let Some(job) = backups
            .running()
            .filter(|job| !self.scheduler.is_running(*job))
        {
            self.started(job);
        }
        let ended = backups.collect();
        let a_backup_ended = ended.is_some();
        if let Some(Ended { job, result }) = ended {
            if !self.scheduler.is_running(job) {
                self.started(job);
            }
            let result = result.map(|outcome| outcome.id);
            self.ended(job, result);
        }
        if let Some(result) = finished(&mut self.expiry) {
            self.ended(Job::Expire, result);
        }
        if let Some(result) = finished(&mut self.schema) {
            self.ended(Job::Schema, result);
        }
        if let Some(result) = finished(&mut self.audit_archive) {
            self.ended(Job::AuditArchive, result);
        }
        if let Some(proved) = finished(&mut self.proof) {
            self.proof_ended(proved, backups);
        }
        backups.records.send(host.runtime, host.instance);
        self.look(host);
        self.tell(host);
        a_backup_ended
    }

    fn look(&mut self, host: &Host<'_>) {
        match finished(&mut self.look) {
            Some(Ok(backups)) => {
                self.note_backups(&backups);
                for job in [Job::Full, Job::Incremental, Job::Proof] {
                    let past = past(job, &backups, &Standing::default());
                    let Some(started) = past.last_start_micros else {
                        continue;
                    };
                    if !past.pending {
                        self.scheduler.seen(job, started);
                    }
                    // A failure that somebody has made good since is no news any more.
                    let last = &mut self.standing.job(job).last;
                    let failed_before =
                        |ran: &Ran| ran.succeeded == Some(false) && ran.started_micros < started;
                    if last.as_ref().is_some_and(failed_before) {
                        *last = None;
                    }
                }
            }
            Some(Err(error)) => tracing::debug!(%error, "the catalogue could not be read"),
            None => {}
        }
        if self.look.is_none() && self.look_at <= Instant::now() {
            self.look_at = Instant::now() + LOOK_PAUSE;
            let repository = host.repository.clone();
            self.look = Some(std::thread::spawn(move || {
                Ok(catalogue(&repository)?.backups)
            }));
        }
    }

    /// Starts what is due; a backup is started by whoever has the connection, and `may_back_up` says whether it can be now.
    pub(crate) fn start_due(&mut self, host: &Host<'_>, may_back_up: bool) -> Option<BackupKind> {
        let mut kind = None;
        while kind.is_none() {
            let now = now(self.clock);
            let can = |job| match job {
                Job::Full | Job::Incremental => may_back_up,
                Job::Expire | Job::Proof | Job::Schema | Job::AuditArchive => true,
            };
            let Some(job) = self.scheduler.due(now, can) else {
                break;
            };
            self.started(job);
            match job {
                Job::Full => kind = Some(BackupKind::Full),
                Job::Incremental => kind = Some(BackupKind::Incremental),
                Job::Expire => self.expiry = Some(self.start_expiry(host)),
                Job::Proof => self.start_proof(host),
                Job::Schema => self.schema = self.start_schema(host),
                Job::AuditArchive => self.audit_archive = Some(self.start_audit_archive(host)),
            }
        }
        self.tell(host);
        kind
    }

    fn start_expiry(&self, host: &Host<'_>) -> JoinHandle<Result<String, Error>> {
        let steps = Steps::logged().cancelled_by(Arc::clone(&self.cancel));
        let (repository, private) = (host.repository.clone(), host.keys.private.clone());
        let (connect, path) = (host.connect.clone(), host.instance.backup_lock());
        let rules = host.config.rules();
        let (runtime, instance) = (host.runtime.clone(), host.instance.clone());
        std::thread::spawn(move || {
            let _alone = lock(&path)?;
            let log = expiry::Log {
                asked_by: Event::by_engine("BackupRun"),
                record: &|event| runtime.block_on(event.record(&instance)),
            };
            let private = private.as_ref();
            expiry::expire(&repository, private, Some(&connect), &rules, &steps, &log)
        })
    }

    fn start_schema(&self, host: &Host<'_>) -> Option<JoinHandle<Result<String, Error>>> {
        let schema = host.schema()?;
        let steps = Steps::logged().cancelled_by(Arc::clone(&self.cancel));
        Some(std::thread::spawn(move || {
            let outcome = schema.run(&steps)?;
            match schema::failure(&outcome) {
                Some(error) => Err(error),
                None => Ok(schema::said(&outcome)),
            }
        }))
    }

    fn start_audit_archive(&self, host: &Host<'_>) -> JoinHandle<Result<String, Error>> {
        let (repository, keys) = (host.repository.clone(), host.instance.keys());
        let (runtime, instance) = (host.runtime.clone(), host.instance.clone());
        let cancel = Arc::clone(&self.cancel);
        std::thread::spawn(move || {
            let database = instance.running()?.database_url;
            let pass = audit_archive::pass(&repository, &keys, &database, &cancel);
            let said = audit_archive::said(runtime.block_on(pass)?.as_ref());
            tracing::info!(said, "the audit archive");
            Ok(said)
        })
    }

    fn start_proof(&mut self, host: &Host<'_>) {
        let Some(prover) = host.prover() else {
            return;
        };
        let steps = Steps::logged().cancelled_by(Arc::clone(&self.cancel));
        self.proof = Some(std::thread::spawn(move || {
            let backups = catalogue(&prover.repository)?.backups;
            let newest = backups
                .iter()
                .rfind(|backup| backup.state == BackupState::Complete);
            let newest = newest.ok_or_else(|| Error::Refused {
                what: "no proof was made",
                reason: "there is no complete backup yet".to_owned(),
            })?;
            let record = prover.prove(&newest.id, &steps)?;
            let stored = record.store(&prover.repository)?;
            Ok((record, stored))
        }));
    }

    fn proof_ended(&mut self, proved: Proved, backups: &mut Backups) {
        let (record, stored) = match proved {
            Ok(proved) => proved,
            Err(error) => return self.ended(Job::Proof, Err(error)),
        };
        let event = proof::event(Event::by_engine("BackupRun"), &record, &stored);
        backups.records.push(event);
        self.ended(Job::Proof, Ok(record.backup_id.clone()));
        let Some(why) = record.failure() else {
            tracing::info!(backup = %record.backup_id, millis = record.millis, "restored and proved");
            self.protected.last_proof_micros = Some(record.proved_at_micros);
            self.protected.proof_failed = None;
            return;
        };
        // A verdict: the job is done, and its result is bad.
        let alarm = failed_proof(&record.backup_id, &why);
        if let Some(last) = &mut self.standing.job(Job::Proof).last {
            (last.succeeded, last.said) = (Some(false), alarm.clone());
        }
        self.protected.proof_failed = Some(alarm);
    }

    fn started(&mut self, job: Job) {
        self.scheduler.started(job, now(self.clock));
        let state = self.standing.job(job);
        state.running = true;
        state.last = Some(Ran::begun(now(self.clock).wall_micros));
    }

    fn ended(&mut self, job: Job, result: Result<String, Error>) {
        let now = now(self.clock);
        self.scheduler.ended(job, now, result.is_ok());
        let state = self.standing.job(job);
        state.running = false;
        let ran = state
            .last
            .get_or_insert_with(|| Ran::begun(now.wall_micros));
        ran.ended_micros = Some(now.wall_micros);
        ran.succeeded = Some(result.is_ok());
        match result {
            Ok(said) => ran.said = said,
            Err(error) => {
                tracing::error!(job = job.name(), %error, "a job of the plan failed; it is tried again");
                ran.said = error.to_string();
            }
        }
        // A look that began before this knows nothing of it.
        self.look = None;
        self.look_at = Instant::now();
    }

    fn note_backups(&mut self, backups: &[BackupSummary]) {
        let complete = || {
            backups
                .iter()
                .filter(|backup| backup.state == BackupState::Complete)
        };
        self.protected.last_backup_micros =
            complete().map(|backup| backup.finished_at_micros).max();
        self.protected.last_proof_micros = complete()
            .filter_map(|backup| backup.restored_and_proved_at_micros)
            .max();
        self.protected.proof_failed =
            newest_failure(backups).map(|id| failed_proof(id, "see bre backup show"));
    }

    /// To health and metrics at once; into the file when it changed.
    fn tell(&mut self, host: &Host<'_>) {
        let now = now(self.clock);
        let mut failing = Vec::new();
        for job in Job::ALL {
            let next = self.scheduler.next_micros(job, now);
            let state: &mut JobState = self.standing.job(job);
            // What waits for its turn is due "now", again and again: no news.
            state.next_micros = next.map(|next| next - next % 1_000_000);
            if let Some(last) = state
                .last
                .as_ref()
                .filter(|last| last.succeeded == Some(false))
            {
                failing.push(format!(
                    "the job {} of the plan failed: {}",
                    job.name(),
                    last.said
                ));
            }
        }
        self.protected.failing = failing;
        host.monitor.set_protected(&self.protected);
        let due_now = |standing: &Standing| standing.without_next();
        if self.written.as_ref().map(due_now) == Some(due_now(&self.standing)) {
            return;
        }
        match self.standing.write(&host.instance.plan_file()) {
            Ok(()) => self.written = Some(self.standing.clone()),
            Err(error) => tracing::debug!(%error, "how the plan stands could not be written down"),
        }
    }

    /// The file may have been deleted.
    pub(crate) fn write_again(&mut self) {
        self.written = None;
    }

    pub(crate) fn cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
    }

    /// The engine stops: what runs is ended cleanly. (Backups have their own end.)
    pub(crate) fn end(&mut self) {
        self.cancel();
        if let Some(proof) = self.proof.take() {
            join_soon(proof);
        }
        let jobs = [&mut self.expiry, &mut self.schema, &mut self.audit_archive];
        for job in jobs.into_iter().filter_map(Option::take) {
            join_soon(job);
        }
    }
}

fn failed_proof(backup_id: &str, why: &str) -> String {
    format!("the restore proof of backup {backup_id} FAILED: {why}")
}

/// For status, when no engine says it in more words.
pub(crate) fn failed_proof_of(backups: &[BackupSummary]) -> Option<String> {
    newest_failure(backups).map(|id| failed_proof(id, "bre restore-test run says why"))
}

/// The backup whose proof is the newest one of all, if that proof failed.
pub(crate) fn newest_failure(backups: &[BackupSummary]) -> Option<&str> {
    let kept = backups
        .iter()
        .filter(|backup| backup.state == BackupState::Complete);
    let proofs = kept.flat_map(|backup| {
        let of = |at: Option<i64>, failed: bool| at.map(|at| (at, failed, backup.id.as_str()));
        [
            of(backup.restored_and_proved_at_micros, false),
            of(backup.proof_failed_at_micros, true),
        ]
    });
    let (_, failed, id) = proofs.flatten().max()?;
    failed.then_some(id)
}

fn now(clock: Instant) -> Now {
    Now {
        wall_micros: jiff::Timestamp::now().as_microsecond(),
        steady: clock.elapsed(),
    }
}

fn finished<T>(thread: &mut Option<JoinHandle<Result<T, Error>>>) -> Option<Result<T, Error>> {
    if !thread.as_ref().is_some_and(JoinHandle::is_finished) {
        return None;
    }
    let result = thread.take()?.join();
    Some(result.unwrap_or_else(|_| Err(Error::Failed("its thread panicked".into()))))
}
