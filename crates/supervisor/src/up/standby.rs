//! The instance's warm spare: kept by a process of its own, which outlives this one, and taken when the database is missing.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use postgres_physical::server::Leftover;
use recovery::Backoff;
use recovery::standby::{Phase, PromotionReport, Status, is_promoted, take_promoted};

use super::{
    database::move_aside,
    postgres::{Folder, Postgres},
};
use host::{
    files::make_folder,
    instance::{Instance, is_folder_locked},
    location::Location,
};

use operations::{
    Error,
    config::Config,
    lost::LostPart,
    standby::{Link, Request},
};

/// Between two starts of a process that ends at once, and at most.
const START_AGAIN: Duration = Duration::from_secs(5);
const START_AGAIN_MOST: Duration = Duration::from_secs(300);
/// One that ran for so long is started again at once.
const RAN_WELL: Duration = Duration::from_secs(60);
/// A spare whose process ended with everything else is back within this, or the database is restored the ordinary way.
const WAKE_TIMEOUT: Duration = Duration::from_secs(20);
const OLD_TIMEOUT: Duration = Duration::from_secs(30);
/// Its server writes a checkpoint first.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct StandbySupervisor {
    instance: Instance,
    enabled: bool,
    settings: Option<std::path::PathBuf>,
    repository: Option<Location>,
    child: Option<Child>,
    started: Option<Instant>,
    stop: Arc<AtomicBool>,
    again: Backoff,
}

impl StandbySupervisor {
    pub(crate) fn new(instance: &Instance, config: &Config, stop: Arc<AtomicBool>) -> Self {
        Self {
            instance: instance.clone(),
            enabled: config.standby.enabled,
            settings: config.file.clone(),
            repository: config.repository.path.clone(),
            child: None,
            started: None,
            stop,
            again: Backoff::new(START_AGAIN, START_AGAIN_MOST),
        }
    }

    fn link(&self) -> Link {
        Link::to(&self.instance)
    }

    /// Sees to it that some process keeps the spare.
    pub(crate) fn keep(&mut self) {
        if !self.enabled {
            return;
        }
        if let Some(child) = &mut self.child
            && let Ok(Some(status)) = child.try_wait()
        {
            tracing::warn!(%status, "the process that keeps the spare ended");
            self.child = None;
            self.ended();
        }
        let due = self.again.is_due(Instant::now());
        if self.child.is_none() && due && !is_folder_locked(&self.instance.standby()) {
            self.started = Some(Instant::now());
            match self.spawn() {
                Ok(child) => self.child = Some(child),
                Err(error) => {
                    tracing::error!(%error, "the spare cannot be kept");
                    self.ended();
                }
            }
        }
    }

    fn ended(&mut self) {
        let ran = self.started.map(|started| started.elapsed());
        if ran.is_some_and(|ran| ran > RAN_WELL) {
            self.again.succeeded();
        } else {
            self.again.failed(Instant::now());
        }
    }

    /// In a process group of its own: Ctrl-C is for us, and we tell it.
    fn spawn(&self) -> Result<Child, Error> {
        let program =
            std::env::current_exe().map_err(Error::file("cannot find", "this program"))?;
        make_folder(&self.instance.standby(), 0o711)?;
        let log = self.instance.standby().join("spare.log");
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(Error::file("cannot open the log", &log))?;
        let mut command = Command::new(&program);
        command.args(["standby", "run", "--json", "--data"]);
        command.arg(self.instance.root());
        if let Some(settings) = &self.settings {
            command.arg("--config").arg(settings);
        }
        let own = || Location::from(self.instance.repository());
        let repository = self.repository.clone().unwrap_or_else(own);
        command.arg("--repository").arg(repository.to_string());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .process_group(0);
        command
            .spawn()
            .map_err(Error::file("cannot start", &program))
    }

    /// Before the database is brought up: one that was promoted takes the place of whatever is there, and where nothing is, the
    /// spare is promoted. What does not come about is left to the ordinary way.
    pub(crate) fn take_over(&mut self, postgres: &Postgres) -> Result<(), Error> {
        let waiting = self.waiting()?;
        if !waiting && (postgres.folder() == Folder::Whole || !self.enabled) {
            return Ok(());
        }
        let began = Instant::now();
        let taken = if waiting {
            tracing::warn!(
                "a spare was promoted: its cluster takes the place of the database that was here"
            );
            self.hand_over(postgres)
        } else {
            self.promote().and_then(|ready| match ready {
                true => self.hand_over(postgres),
                false => Ok(None),
            })
        };
        match taken {
            Ok(Some(promoted)) => tracing::info!(
                timeline = promoted.timeline,
                seconds = began.elapsed().as_secs_f64(),
                "the spare is the database now"
            ),
            Ok(None) => {}
            // What was promoted holds what nothing else holds: it is not passed over.
            Err(error @ Error::Lost(_)) => return Err(error),
            Err(error) if self.waiting().unwrap_or(true) => return Err(error),
            Err(error) => {
                tracing::error!(%error, "the spare could not be taken; the database is restored");
            }
        }
        Ok(())
    }

    /// Whether a promoted cluster waits to be taken.
    fn waiting(&self) -> Result<bool, Error> {
        if let Some(status) = self.link().status()? {
            return Ok(status.phase == Phase::Promoted);
        }
        Ok(is_promoted(&self.instance.standby())?)
    }

    fn hand_over(&self, postgres: &Postgres) -> Result<Option<PromotionReport>, Error> {
        let to = postgres.dir();
        // An old primary that outlived its engine: left alive it would go on where nobody looks.
        if let Some(left) = Leftover::detect(&to) {
            tracing::warn!(processes = ?left.processes, "the old primary still runs; stopping it");
            left.stop(OLD_TIMEOUT)?;
        }
        move_aside(&to)?;
        let request = Request::HandOver { to: to.clone() };
        match self.link().promoted(&request, Some(&self.stop))? {
            Some(promoted) => Ok(Some(promoted)),
            None => Ok(take_promoted(&self.instance.standby(), &to)?),
        }
    }

    /// `false` when there is no spare that could be promoted.
    fn promote(&mut self) -> Result<bool, Error> {
        if !self.instance.standby().join("state.json").exists() {
            return Ok(false);
        }
        let deadline = Instant::now() + WAKE_TIMEOUT;
        loop {
            match self.link().status()? {
                Some(Status { healthy: true, .. }) => break,
                Some(Status {
                    phase: Phase::Restoring | Phase::Lost,
                    trouble,
                    ..
                }) => {
                    tracing::warn!(?trouble, "the spare is not where it could be promoted");
                    return Ok(false);
                }
                _ if self.stop.load(Ordering::Relaxed) => return Err(LostPart::Stopping.into()),
                _ if Instant::now() > deadline => {
                    tracing::warn!("the spare does not follow");
                    return Ok(false);
                }
                _ => {}
            }
            self.keep();
            std::thread::sleep(LOOK);
        }
        let request = Request::Promote {
            even_if_alive: false,
        };
        Ok(self.link().promoted(&request, Some(&self.stop))?.is_some())
    }

    /// Whoever keeps it: it stops with the engine.
    pub(crate) fn stop(&mut self) {
        if !self.enabled {
            return;
        }
        if let Err(error) = self.link().ask(&Request::Stop) {
            tracing::warn!(%error, "the spare was not told to stop");
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        while is_folder_locked(&self.instance.standby()) && Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
        if let Some(mut child) = self.child.take() {
            if is_folder_locked(&self.instance.standby()) {
                tracing::warn!("the process that keeps the spare does not stop; ending it");
                let _ = child.kill();
            }
            let _ = child.wait();
        }
    }
}
