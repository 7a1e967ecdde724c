//! A warm standby: a restored cluster that replays from the repository until it is promoted. While it follows, it
//! proves that each WAL object replays. The time of a promotion does not depend on the size of the database.
//!
//! Entry point: [`Standby`], which one process keeps and drives; [`Watch`] shows its state to others; [`take_promoted`]
//! puts a promoted cluster into its final place. It reads the repository and writes only the claim on its new timeline.
//!
//! Absent: who asks for a promotion and whether the old primary is dead (the engine), the audit log's view of it.

mod error;
mod feed;
mod keep;
mod promote;
mod server;
mod state;
mod status;

pub use error::{StandbyError, StandbyResult};
pub use keep::{is_promoted, take_promoted};
pub use promote::Conditions;
pub use state::{PromotionReport, StepMillis};
pub use status::{Phase, Status, Watch};

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use postgres_physical::server::{Absence, Binaries, OsUser, Server};
use repository::{Progress, Repository, keys::RecipientPrivate};

use feed::FeedProgress;
use promote::Promotion;
use server::{StandbyServer, Turn};
use state::{Step, StoredState};
use status::Behind;

use crate::database::{Plan, Target, plan};
use repository::FileLock;

use crate::Backoff;

/// How often it is looked whether a backup has come that leads on.
const LOOK_FOR_BACKUP: Duration = Duration::from_secs(2);
/// A standby that ends twice within this is not started a third time.
const DEATHS_APART: Duration = Duration::from_secs(60);
/// Between two tries of what failed.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MOST: Duration = Duration::from_secs(300);
/// After its folder was taken a standby leaves the machine to whoever took it.
const REST: Duration = Duration::from_secs(10);
const LOCK_TIMEOUT: Duration = Duration::from_millis(300);

pub(crate) use crate::database::show_lsn;

#[derive(Debug, Clone)]
pub struct Settings {
    pub repository: Repository,
    pub private: RecipientPrivate,
    /// The standby's own; PostgreSQL's account must be able to pass through.
    pub folder: PathBuf,
    /// For the sockets of its PostgreSQL; short, and that account's.
    pub sockets: PathBuf,
    pub binaries: Binaries,
    pub user: OsUser,
    /// What the server that it is spare for is started with.
    pub server: Vec<(String, String)>,
}

#[derive(Debug)]
enum Life {
    Nothing,
    Following(StoredState, Box<StandbyServer>),
    Promoted(StoredState, Server),
}

/// Why replay cannot continue, and what would help.
#[derive(Debug)]
struct ReplayObstacle {
    why: String,
    needs: Needs,
    asked: Instant,
}

#[derive(Debug, Clone, Copy)]
enum Needs {
    /// A backup that starts there or later.
    BackupFrom(u64),
    /// A way to this timeline.
    Timeline(u32),
}

/// One standby in one folder, kept by one process.
#[derive(Debug)]
pub struct Standby {
    settings: Settings,
    /// Held for as long as this lives.
    _lock: FileLock,
    life: Life,
    lost: Option<ReplayObstacle>,
    died: Option<Instant>,
    rest: Option<Instant>,
    /// Everything that is done again, from a start to a whole restore, waits for its turn.
    again: Backoff,
    /// Why nothing runs meanwhile.
    stopped_by: Option<String>,
    /// Why the folder was last restored again.
    anew: Option<String>,
    behind: Behind,
    /// Backups from which the last restores failed for a reason that is in them.
    passed_over: Vec<String>,
    watch: Watch,
}

impl Standby {
    /// Takes the folder, which must exist; nothing runs yet.
    pub fn open(settings: Settings) -> StandbyResult<Self> {
        let lock = lock(&settings)?;
        Ok(Self {
            settings,
            _lock: lock,
            life: Life::Nothing,
            lost: None,
            died: None,
            rest: None,
            again: Backoff::new(PAUSE, PAUSE_MOST),
            stopped_by: None,
            anew: None,
            behind: Behind::default(),
            passed_over: Vec::new(),
            watch: Watch::default(),
        })
    }

    #[must_use]
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// Goes on a little: restores what is missing, feeds and looks. To be called again and again, several times a
    /// second; an error is what stands in the way now, and in [`Status`] too.
    pub fn turn(&mut self, progress: &dyn Progress) -> StandbyResult<()> {
        let result = match &mut self.life {
            Life::Nothing if self.rest.is_some_and(|until| Instant::now() < until) => Ok(()),
            Life::Nothing if !self.again.is_due(Instant::now()) => Ok(()),
            Life::Nothing => self.begin(progress).inspect_err(|error| {
                self.again.failed(Instant::now());
                self.stopped_by = Some(reason(error));
            }),
            Life::Following(..) => self.follow(),
            Life::Promoted(..) => self.keep_promoted(),
        };
        self.show(result.as_ref().err());
        result
    }

    fn follow(&mut self) -> StandbyResult<()> {
        let Life::Following(state, standby) = &mut self.life else {
            return Ok(());
        };
        let turn = match standby.turn() {
            Err(error @ StandbyError::Server(_)) => return self.died(&error),
            other => other?,
        };
        state.wal_objects = standby.objects_before + standby.feeder.objects();
        match turn {
            Turn::Fed(FeedProgress::Hole { timeline, at }) => self.lose(
                Needs::BackupFrom(at),
                format!(
                    "WAL of timeline {timeline} from {} on is missing in the repository and newer WAL is there",
                    show_lsn(at)
                ),
            ),
            Turn::Fed(fed) => {
                if standby.is_open() && standby.ran_for() > DEATHS_APART {
                    self.again.succeeded();
                    self.stopped_by = None;
                }
                self.behind.note(fed == FeedProgress::AtEnd, standby)?;
                if matches!(&self.lost, Some(lost) if matches!(lost.needs, Needs::BackupFrom(_))) {
                    self.lost = None;
                }
                Ok(())
            }
            Turn::NewTimeline(newer) => self.change_timeline(newer),
            Turn::StartAgain => self.start_again(),
            Turn::Astray => {
                self.replace("somebody promoted it, without a claim on its timeline".to_owned())
            }
            Turn::Stuck => self.replace(
                "it stopped replaying although whole segments were in front of it".to_owned(),
            ),
        }
    }

    /// Once is an accident; twice is a folder that does not work, unless it is this machine that lacks something:
    /// another restore would lack it too.
    fn died(&mut self, error: &StandbyError) -> StandbyResult<()> {
        let again = self.died.is_some_and(|at| at.elapsed() < DEATHS_APART);
        self.died = Some(Instant::now());
        tracing::warn!(%error, "the standby's PostgreSQL ended");
        let why = reason(error);
        if Absence::find(&error.to_string()).is_some() {
            let wait = self.again.failed(Instant::now());
            tracing::warn!(seconds = wait.as_secs(), %why, "the standby waits before it starts again");
            self.stopped_by = Some(why);
            return self.start_again();
        }
        if again {
            return self.replace(format!("its PostgreSQL ended again: {why}"));
        }
        self.start_again()
    }

    fn start_again(&mut self) -> StandbyResult<()> {
        if let Life::Following(_, standby) = std::mem::replace(&mut self.life, Life::Nothing) {
            standby.stop()?;
        }
        // The folder says the rest.
        Ok(())
    }

    /// Follows where the new timeline left ours behind what is replayed; else only a backup leads there.
    fn change_timeline(&mut self, newer: u32) -> StandbyResult<()> {
        let Life::Following(state, standby) = &mut self.life else {
            return Ok(());
        };
        let left_at = standby.feeder.way_to(newer)?.and_then(|piece| piece.end);
        let replayed = standby.replay.lsn;
        if left_at.is_some_and(|end| replayed <= end) {
            tracing::info!(timeline = newer, "the standby follows a new timeline");
            state.timeline = newer;
            state.write(&self.settings.folder)?;
            self.lost = None;
            return self.start_again();
        }
        let why = format!(
            "the repository continues on timeline {newer}, which branches off before {}, up to where the standby has \
             replayed",
            show_lsn(replayed)
        );
        self.lose(Needs::Timeline(newer), why)
    }

    /// Stays where it is until something better than that can be restored.
    fn lose(&mut self, needs: Needs, why: String) -> StandbyResult<()> {
        let now = Instant::now();
        let due = match &mut self.lost {
            Some(lost) if lost.asked.elapsed() < LOOK_FOR_BACKUP => false,
            Some(lost) => {
                lost.asked = now;
                true
            }
            None => {
                tracing::warn!(%why, "the standby cannot continue");
                true
            }
        };
        if due {
            let found = plan(
                &self.settings.repository,
                &self.settings.private,
                Target::latest(),
            );
            self.lost = Some(ReplayObstacle {
                why: why.clone(),
                needs,
                asked: now,
            });
            if found.is_ok_and(|plan| leads_on(&plan, needs)) {
                return self.replace(why);
            }
        }
        Ok(())
    }

    /// Another restore, from the newest backup.
    fn replace(&mut self, why: String) -> StandbyResult<()> {
        tracing::warn!(%why, "the standby is restored again");
        let life = std::mem::replace(&mut self.life, Life::Nothing);
        if let Life::Following(state, standby) = life {
            drop(standby);
            keep::discard(&self.settings.folder, &state)?;
        }
        let wait = self.again.failed(Instant::now());
        tracing::warn!(
            seconds = wait.as_secs(),
            "the next restore of the standby waits"
        );
        self.lost = None;
        self.died = None;
        self.stopped_by = Some(why.clone());
        self.anew = Some(why);
        self.show(None);
        Ok(())
    }

    /// Replays everything that the repository holds, claims a timeline, opens it, and proves that it can be written to.
    /// `note` is called when that is certain and before it counts. Refused while something still streams, unless the
    /// conditions allow it.
    pub fn promote(
        &mut self,
        conditions: Conditions,
        note: &dyn Fn(&PromotionReport) -> std::io::Result<()>,
    ) -> StandbyResult<PromotionReport> {
        let since = Instant::now();
        let phase = self.watch.status().phase;
        let (state, standby) = match &mut self.life {
            Life::Promoted(state, _) => {
                let missing = || StandbyError::NotPromoted(self.settings.folder.clone());
                return state.promoted.clone().ok_or_else(missing);
            }
            Life::Following(state, standby) if standby.is_open() => (state, standby),
            _ => {
                let why = self.watch.status().trouble;
                return Err(StandbyError::NotFollowing {
                    phase: phase.words(),
                    why: why.map_or_else(String::new, |why| format!(" ({why})")),
                });
            }
        };
        if let Some(lost) = &self.lost {
            return Err(StandbyError::Behind(lost.why.clone()));
        }
        let promotion = Promotion {
            settings: &self.settings,
            state,
            standby,
            conditions,
            steps: Vec::new(),
            since,
        };
        let promoted = match promotion.run() {
            Ok(promoted) => promoted,
            Err(error) => {
                if state.step == Step::Promoting {
                    self.replace(error.to_string())?;
                }
                return Err(error);
            }
        };
        let noted = note(&promoted)
            .map_err(StandbyError::io("note the promotion in", &promoted.folder))
            .and_then(|()| {
                state.step = Step::Promoted;
                state.promoted = Some(promoted.clone());
                state.write(&self.settings.folder)
            });
        if let Err(error) = noted {
            // Nobody was told of it, and nobody shall be.
            self.replace(error.to_string())?;
            return Err(error);
        }
        if let Life::Following(state, standby) = std::mem::replace(&mut self.life, Life::Nothing) {
            self.life = Life::Promoted(state, standby.into_server());
        }
        self.show(None);
        Ok(promoted)
    }

    /// Stops the promoted cluster and moves its folder to `to`, which must not be there. Afterwards the standby begins
    /// again.
    pub fn hand_over(&mut self, to: &std::path::Path) -> StandbyResult<PromotionReport> {
        let Life::Promoted(..) = &self.life else {
            return Err(StandbyError::NotPromoted(self.settings.folder.clone()));
        };
        if let Life::Promoted(_, mut server) = std::mem::replace(&mut self.life, Life::Nothing) {
            server::stop(&mut server)?;
        }
        let promoted = keep::move_promoted(&self.settings.folder, to)?;
        self.rest = Some(Instant::now() + REST);
        self.anew = Some("the one before it was promoted".to_owned());
        self.show(None);
        Ok(promoted)
    }

    /// The repository's key was replaced: what is sealed from now on opens with this one only.
    pub fn use_key(&mut self, private: RecipientPrivate) -> StandbyResult<()> {
        if private.public().id() == self.settings.private.public().id() {
            return Ok(());
        }
        tracing::info!("the standby reads with a new key");
        self.settings.private = private;
        self.again.now();
        self.start_again()
    }

    /// Cleanly; the next one continues from here.
    pub fn stop(mut self) -> StandbyResult<()> {
        match std::mem::replace(&mut self.life, Life::Nothing) {
            Life::Nothing => Ok(()),
            Life::Following(state, standby) => {
                state.write(&self.settings.folder)?;
                standby.stop()
            }
            Life::Promoted(_, mut server) => server::stop(&mut server),
        }
    }
}

/// What stands in the way, and not the last lines of a log where they can be understood.
fn reason(error: &StandbyError) -> String {
    let text = error.to_string();
    Absence::find(&text).map_or(text, |absence| absence.to_string())
}

fn leads_on(plan: &Plan, needs: Needs) -> bool {
    match needs {
        Needs::BackupFrom(at) => plan.backup.start_lsn >= at,
        Needs::Timeline(timeline) => plan.timeline >= timeline,
    }
}

fn lock(settings: &Settings) -> StandbyResult<FileLock> {
    let folder = &settings.folder;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        let file = File::open(folder).map_err(StandbyError::io("open", folder))?;
        match FileLock::try_take(file) {
            Ok(Some(lock)) => return Ok(lock),
            // Somebody may only look whether it is taken.
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Ok(None) => return Err(StandbyError::Busy(folder.clone())),
            Err(error) => return Err(StandbyError::io("lock", folder)(error)),
        }
    }
}
