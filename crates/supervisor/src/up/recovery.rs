//! From whatever is left to a database that is served and protected again, step by step. Whatever is lost on the way is noticed by
//! the step that needs it, and the way begins anew.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use backup::BackupError;
use repository::{Repository, store::Store};
use services::{RecoveryFact, WriterState};

use super::{
    database,
    ground::{Ground, WaitOutcome, pause},
    observer::Step,
    supervisor::Supervisor,
};
use operations::{Error, lost::LostPart, recovery_fact};

/// How long a start waits for the stream and the first commit; past it the instance is up and says what is missing.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(10);
/// Between two attempts at strict mode.
const SETTLE_PAUSE: Duration = Duration::from_millis(200);
/// Between two looks whether a repository that was away answers again.
const ASK_PAUSE: Duration = Duration::from_millis(200);

impl Supervisor {
    /// At the start of the engine: what cannot be brought up is told and ends it, what is lost meanwhile is brought back.
    pub(super) fn first_recovery(&mut self) -> Result<(), Error> {
        let brought = self
            .bring_up_database()
            .and_then(|()| self.attach_stream())
            .and_then(|()| self.ensure_full_backup());
        match brought.map_err(|error| self.cause(error)) {
            Err(Error::Lost(lost)) => {
                tracing::error!(%lost, "lost again while it was brought up");
                self.recover();
                Ok(())
            }
            other => other,
        }
    }

    /// Tries until the database is back or the engine is told to stop. Rates are answered meanwhile.
    pub(super) fn recover(&mut self) {
        let mut retry = RETRY_FIRST;
        // The first of several losses is met at once; a server that ends again and again is given more and more time.
        let mut again = Duration::ZERO;
        while !self.is_stopping() {
            match self.try_to_recover().map_err(|error| self.cause(error)) {
                Ok(()) => {
                    self.protection.monitor().set_problem(None);
                    return;
                }
                Err(Error::Lost(LostPart::Stopping)) => return,
                Err(Error::Lost(lost)) => {
                    tracing::error!(%lost, "lost again while it was being brought back");
                    self.protection
                        .monitor()
                        .set_problem(Some(format!("the database is away: {lost}")));
                    pause(&self.stop, again, || false);
                    again = (again * 2).clamp(RETRY_FIRST / 10, RETRY_LAST);
                }
                Err(error) => {
                    tracing::error!(%error, "the database could not be brought back; trying again");
                    self.protection
                        .monitor()
                        .set_problem(Some(format!("the database is away: {error}")));
                    self.wait_to_try_again(retry);
                    retry = (retry * 2).min(RETRY_LAST);
                }
            }
        }
    }

    /// What failed may have failed because the server is gone, which says more, and is met at once.
    fn cause(&mut self, error: Error) -> Error {
        if matches!(error, Error::Lost(_)) || !self.postgres.is_running() {
            return error;
        }
        match self.postgres.lost() {
            Some(lost) => {
                tracing::debug!(%error, "failed");
                lost.into()
            }
            None => error,
        }
    }

    /// Not longer than it takes for a repository that was away to answer, or for a data folder to come back.
    fn wait_to_try_again(&self, timeout: Duration) {
        let folder = self.postgres.folder();
        let answers = Answers::watch(self.protection.store(), timeout);
        pause(&self.stop, timeout, || {
            self.postgres.folder() != folder || answers.again()
        });
    }

    fn try_to_recover(&mut self) -> Result<(), Error> {
        if let Some(services) = &self.services {
            self.runtime.block_on(services.pause_writer());
        }
        // One that nobody can reach any more is whole: it is stopped as at any end, and its stream gets the last byte.
        if self.postgres.lost() == Some(LostPart::Socket) {
            self.postgres.stop()?;
        }
        self.protection.stop_stream();
        self.postgres.abandon();
        self.instance.make_folders()?;
        // Whoever asks meanwhile is told how it stands.
        self.keep_reachable()?;
        self.observer.passed(Step::LetGo);
        self.bring_up_database()?;
        self.attach_stream()?;
        let recovery = recovery_fact::read_fact(&self.postgres.dir())?;
        self.resume_writer(recovery.as_ref())?;
        self.wait_for_writer(recovery.as_ref())?;
        self.observer.passed(Step::WriterServing);
        self.announce()?;
        self.observer.passed(Step::Announced);
        self.ensure_full_backup()?;
        self.observer.passed(Step::Protected);
        match self.ground().lost() {
            Some(lost) => Err(lost.into()),
            None => Ok(()),
        }
    }

    fn bring_up_database(&mut self) -> Result<(), Error> {
        self.standby.take_over(&self.postgres)?;
        self.observer.passed(Step::StandbyAsked);
        let came = database::bring_up(self)?;
        tracing::info!(?came, "the database is up");
        self.observer.passed(Step::ServerStarted);
        Ok(())
    }

    /// The stream first, then strict mode: a commit that waits for nobody would wait for ever. A stream that was just attached may
    /// go again at once: to follow a timeline that ended, for instance. What does not come about here comes about while the
    /// instance runs; until then strict mode refuses locates.
    fn attach_stream(&mut self) -> Result<(), Error> {
        self.protection.start_stream();
        self.observer.passed(Step::StreamStarted);
        let began = Instant::now();
        loop {
            self.wait_for_stream()?;
            self.observer.passed(Step::StreamAttached);
            match self.settle_strict_mode() {
                Err(Error::Backup(error @ BackupError::Setting(_))) => {
                    tracing::warn!(%error, "strict mode is not settled yet");
                }
                other => {
                    self.observer.passed(Step::StrictSettled);
                    return other;
                }
            }
            if began.elapsed() >= START_TIMEOUT {
                return Ok(());
            }
            match self.ground().wait(SETTLE_PAUSE, pass_time) {
                WaitOutcome::Lost(lost) => return Err(lost.into()),
                WaitOutcome::Done(()) | WaitOutcome::TimedOut => {}
            }
        }
    }

    /// Past its timeout the instance goes on and says what is missing.
    fn wait_for_stream(&mut self) -> Result<(), Error> {
        let Some(watch) = self.protection.watch() else {
            return Ok(());
        };
        let attached = |turn| watch.wait_until(turn, |state| state.attached).map(drop);
        match self.ground().wait(START_TIMEOUT, attached) {
            WaitOutcome::Done(()) => Ok(()),
            WaitOutcome::Lost(lost) => Err(lost.into()),
            WaitOutcome::TimedOut => {
                tracing::error!(state = ?watch.state(), "WAL does not reach the repository");
                Ok(())
            }
        }
    }

    /// What was restored may be older than this engine's schema, and a commit may wait for a stream that is gone.
    fn resume_writer(&mut self, recovery: Option<&RecoveryFact>) -> Result<(), Error> {
        let Some(services) = &self.services else {
            return Ok(());
        };
        let mut ground = Ground {
            postgres: &mut self.postgres,
            stop: &self.stop,
        };
        let resumed = services.resume_writer(recovery.cloned());
        match ground.wait_for(self.runtime.handle(), Duration::MAX, resumed) {
            WaitOutcome::Done(resumed) => resumed?,
            WaitOutcome::Lost(lost) => return Err(lost.into()),
            WaitOutcome::TimedOut => {}
        }
        self.observer.passed(Step::WriterResumed);
        Ok(())
    }

    /// Waits until the log is open, and until an epoch that a restore demands is on record.
    pub(super) fn wait_for_writer(&mut self, recovery: Option<&RecoveryFact>) -> Result<(), Error> {
        let Some(services) = &self.services else {
            return Ok(());
        };
        let mut ground = Ground {
            postgres: &mut self.postgres,
            stop: &self.stop,
        };
        let serving = async {
            let (mut state, mut refused) = (services.watch_writer(), services.watch_writer());
            let serving = async {
                services.wait_ready(START_TIMEOUT).await?;
                let serving = state.wait_for(WriterState::is_serving).await;
                Ok::<bool, services::ServiceError>(serving.is_ok())
            };
            // A log that is refused stays so until a person has looked: there is nothing to wait for.
            let is_refused = |state: &WriterState| matches!(state, WriterState::Refusing { .. });
            tokio::select! {
                serving = serving => serving,
                _ = refused.wait_for(is_refused) => Ok(false),
            }
        };
        let timeout = START_TIMEOUT * 2;
        let waited = ground.wait_for(self.runtime.handle(), timeout, serving);
        match (waited, recovery) {
            (WaitOutcome::Lost(lost), _) => Err(lost.into()),
            (WaitOutcome::Done(Ok(true)), Some(_)) => {
                recovery_fact::forget_fact(&self.postgres.dir())
            }
            (WaitOutcome::Done(Ok(true)), None) => Ok(()),
            (not_serving, _) => {
                tracing::error!(
                    state = ?services.writer_state(), result = ?not_serving, "the audit log is not open: locates are refused"
                );
                Ok(())
            }
        }
    }
}

/// For a wait for nothing but the time.
fn pass_time(turn: Duration) -> Option<()> {
    std::thread::sleep(turn);
    None
}

/// Whether a repository that did not answer does again. Asked in the background, because one that hangs gives no answer at all.
struct Answers {
    again: Arc<AtomicBool>,
}

impl Answers {
    /// Looks for as long as that, or until nobody waits any more.
    fn watch(store: Arc<dyn Store>, timeout: Duration) -> Self {
        let again = Arc::<AtomicBool>::default();
        let told = Arc::downgrade(&again);
        let until = Instant::now() + timeout;
        std::thread::spawn(move || {
            let answers = || Repository::open(Arc::clone(&store)).is_ok();
            if answers() {
                return;
            }
            while Instant::now() < until && told.strong_count() > 0 {
                std::thread::sleep(ASK_PAUSE);
                if answers() {
                    if let Some(again) = told.upgrade() {
                        again.store(true, Ordering::Relaxed);
                    }
                    return;
                }
            }
        });
        Self { again }
    }

    fn again(&self) -> bool {
        self.again.load(Ordering::Relaxed)
    }
}
