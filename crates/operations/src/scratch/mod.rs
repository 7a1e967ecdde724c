//! A moment of the past as a cluster of its own beside the running one: restored into a scratch folder, started on a
//! private socket, gone when dropped. It archives nothing, streams nothing, and gives its timeline back. Restore
//! tests, tables and pages are made from one.

mod folder;

pub use folder::{ScratchFolder, sweep};

use host::progress::Steps;
use postgres_physical::{
    lsn::Lsn,
    server::{Binaries, OsUser, Server},
    wire::ConnectOptions,
};
use recovery::database::{Plan, RecoveryReport, RestoreOptions, Target};
use repository::{Repository, keys::RecipientPrivate};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    error::Error,
    missing::{self, Missing},
    restored::Source,
};

/// How long the stream may take to bring the WAL of a moment that was just now.
const WAL_TIMEOUT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// In this order everything ends: the server, its folder, its timeline.
#[derive(Debug)]
pub struct ScratchCluster {
    server: Option<Server>,
    pub folder: ScratchFolder,
    pub plan: Plan,
    pub recovered: RecoveryReport,
    /// What was asked for and is not in it.
    pub missing: Vec<Missing>,
    claim: Claim,
}

/// The timeline on which nothing will ever run once its folder is gone: given back when dropped.
#[derive(Debug)]
pub struct Claim {
    repository: Repository,
    timeline: u32,
    restore_id: String,
}

impl Claim {
    fn of(repository: &Repository, plan: &Plan, recovered: &RecoveryReport) -> Self {
        Self {
            repository: repository.clone(),
            timeline: recovered.timeline,
            restore_id: plan.restore_id.clone(),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // When that fails the number stays taken, which harms nobody.
        let _ = repository::timelines::release(&self.repository, self.timeline, &self.restore_id);
    }
}

/// What it takes: a repository, its keys, PostgreSQL's programs, a folder.
#[derive(Debug)]
pub struct ScratchRestorer<'a> {
    pub repository: &'a Repository,
    pub private: &'a RecipientPrivate,
    pub binaries: &'a Binaries,
    pub user: &'a OsUser,
    pub work: PathBuf,
}

impl ScratchRestorer<'_> {
    /// At the usual priority: somebody waits for it.
    pub fn restore(&self, target: Target, steps: &Steps) -> Result<ScratchCluster, Error> {
        let (repository, private) = (self.repository, self.private);
        let folder = ScratchFolder::claim(&self.work, self.user, repository)?;
        let known = missing::known(repository, &target, Vec::new())?;
        let plan = recovery::database::plan_watched(repository, private, target, steps)?;
        let missing = missing::from(repository, &plan, &known)?;
        for it in &missing {
            terminal::note(&format!("bre: WARNING: {}", it.sentence));
        }
        let mut cluster = self.follow(plan, folder, steps)?;
        cluster.missing = missing;
        Ok(cluster)
    }

    /// From a backup without a damaged page, to a place that the stream may still be bringing.
    pub fn restore_sound(&self, place: Lsn, steps: &Steps) -> Result<ScratchCluster, Error> {
        let (repository, private) = (self.repository, self.private);
        let folder = ScratchFolder::claim(&self.work, self.user, repository)?;
        steps.step("waiting for the WAL of this moment");
        let deadline = Instant::now() + WAL_TIMEOUT;
        let plan = loop {
            let target = Target::lsn(place.0);
            match recovery::database::plan_sound(repository, private, target, steps) {
                Ok(plan) => break plan,
                Err(recovery::Error::OutsideWindow { .. })
                    if Instant::now() < deadline && !steps.is_cancelled() =>
                {
                    std::thread::sleep(LOOK);
                }
                Err(error) => return Err(error.into()),
            }
        };
        self.follow(plan, folder, steps)
    }

    fn follow(
        &self,
        plan: Plan,
        folder: ScratchFolder,
        steps: &Steps,
    ) -> Result<ScratchCluster, Error> {
        let source = Source {
            repository: self.repository,
            private: self.private,
            binaries: self.binaries,
            user: self.user,
            log: &folder.log(),
        };
        let options = RestoreOptions::new(self.user.clone());
        folder.restore(&source, &plan, &options, steps)??;
        let (recovered, claim) = folder.replay(&source, &plan, steps)??;
        Ok(ScratchCluster {
            server: None,
            folder,
            plan,
            recovered,
            missing: Vec::new(),
            claim,
        })
    }
}

impl ScratchCluster {
    /// Starts it: from now on it answers on its socket.
    pub fn start(&mut self, restorer: &ScratchRestorer<'_>, steps: &Steps) -> Result<(), Error> {
        steps.step("starting it privately");
        self.server = Some(self.folder.start(restorer.binaries, restorer.user)?);
        tracing::debug!(
            timeline = self.claim.timeline,
            "a moment is back beside the database"
        );
        Ok(())
    }

    pub fn connect(&self, database: &str) -> ConnectOptions {
        self.folder.connect(database)
    }
}
