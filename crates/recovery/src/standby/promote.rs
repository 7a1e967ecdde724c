//! From a standby to a primary. Before promotion, the standby has replayed each whole record that a complete listing of
//! the repository shows, and the new timeline is claimed there.

use std::time::{Duration, Instant};

use postgres_physical::server::tail_of;
use postgres_physical::timeline::{History, history_file_name};
use repository::timelines::{release, reserve};

use super::error::{StandbyError, StandbyResult};
use super::feed::FeedProgress;
use super::server::StandbyServer;
use super::state::{PromotionReport, Step, StepMillis, StoredState};
use super::{Settings, show_lsn};

/// How an end is recognised unless told otherwise: nothing came for so long.
const QUIET: Duration = Duration::from_millis(50);
/// What a stream had in hand when its primary died is in the repository by then.
const LAST_BYTES: Duration = Duration::from_secs(1);
/// Replaying what is in place; a standby that follows has milliseconds of it.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(300);
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(2);

/// What has to hold for a promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conditions {
    /// Leave a primary behind that is still heard of.
    pub even_if_alive: bool,
    /// The repository has to be silent for so long before the old primary counts as not heard of.
    pub quiet: Duration,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            even_if_alive: false,
            quiet: QUIET,
        }
    }
}

pub(super) struct Promotion<'a> {
    pub(super) settings: &'a Settings,
    pub(super) state: &'a mut StoredState,
    pub(super) standby: &'a mut StandbyServer,
    pub(super) conditions: Conditions,
    pub(super) steps: Vec<StepMillis>,
    pub(super) since: Instant,
}

impl Promotion<'_> {
    pub(super) fn run(mut self) -> StandbyResult<PromotionReport> {
        self.replay_all()?;
        self.mark("replayed all that the repository holds");
        let reserved = reserve(&self.settings.repository, &self.state.restore_id)?;
        self.mark("claimed the new timeline");
        let prepared = self.prepare(reserved);
        let markers = match prepared {
            Ok(markers) => markers,
            Err(error) => {
                // The number may be used again. When even that fails it stays taken, which harms nobody.
                let _ = release(&self.settings.repository, reserved, &self.state.restore_id);
                return Err(error);
            }
        };
        let opened = self.open(reserved);
        let promoted = opened.map_err(|error| self.failed(&error))?;
        for marker in markers {
            self.standby.feeder.take_away(&marker)?;
        }
        Ok(promoted)
    }

    fn mark(&mut self, step: &str) {
        let micros = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        let step = step.to_owned();
        self.steps.push(StepMillis { step, micros });
        self.since = Instant::now();
    }

    /// Until the repository is quiet and all of it is replayed.
    fn replay_all(&mut self) -> StandbyResult<()> {
        self.place_all()?;
        let began = Instant::now();
        loop {
            let (end, confirmed) = self.signs();
            self.wait_replayed()?;
            if self.conditions.even_if_alive || self.is_quiet((end, confirmed))? {
                return Ok(());
            }
            // What comes now comes from somebody who is alive, or from a stream that writes its last bytes.
            if began.elapsed() > LAST_BYTES {
                return Err(StandbyError::StillStreams {
                    from: show_lsn(end),
                    to: show_lsn(self.signs().0),
                });
            }
        }
    }

    /// The end of what is here, and when the primary last confirmed it.
    fn signs(&self) -> (u64, i64) {
        let feeder = &self.standby.feeder;
        (feeder.at(), feeder.confirmed_at_micros)
    }

    fn is_quiet(&mut self, before: (u64, i64)) -> StandbyResult<bool> {
        let until = Instant::now() + self.conditions.quiet;
        loop {
            self.place_all()?;
            if self.signs() != before {
                return Ok(false);
            }
            if Instant::now() >= until {
                return Ok(true);
            }
            std::thread::sleep(LOOK);
        }
    }

    fn place_all(&mut self) -> StandbyResult<()> {
        loop {
            match self.standby.feeder.feed(u64::MAX, true)? {
                FeedProgress::AtEnd => return Ok(()),
                FeedProgress::More => {}
                FeedProgress::Hole { timeline, at } => {
                    return Err(StandbyError::Behind(format!(
                        "WAL of timeline {timeline} from {} on is missing in the repository and newer WAL is there",
                        show_lsn(at)
                    )));
                }
            }
        }
    }

    /// Every whole record: the last one may have been cut by the end of the stream.
    fn wait_replayed(&mut self) -> StandbyResult<()> {
        let deadline = Instant::now() + REPLAY_TIMEOUT;
        loop {
            self.standby.ask()?;
            let replayed = self.standby.replay.lsn;
            let last = self.standby.feeder.last_record(replayed)?;
            let Some(last) = last else { return Ok(()) };
            if Instant::now() > deadline {
                return Err(StandbyError::NotReplayed {
                    replayed: show_lsn(replayed),
                    end: show_lsn(last),
                    log: self.standby.log().to_owned(),
                    tail: tail_of(self.standby.log(), 0),
                });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// PostgreSQL takes the first number without a history for its new timeline: those before the reserved one count as
    /// taken. From here on a crash leaves a folder that nobody uses.
    fn prepare(&mut self, reserved: u32) -> StandbyResult<Vec<String>> {
        let mut markers = Vec::new();
        for taken in self.standby.feeder.timeline() + 1..reserved {
            let name = history_file_name(taken);
            self.standby.feeder.put(&name, b"# reserved\n")?;
            markers.push(name);
        }
        self.state.step = Step::Promoting;
        if let Err(error) = self.state.write(&self.settings.folder) {
            self.state.step = Step::Following;
            return Err(error);
        }
        Ok(markers)
    }

    fn open(&mut self, reserved: u32) -> StandbyResult<PromotionReport> {
        let gone = || StandbyError::Behind("its PostgreSQL does not answer".to_owned());
        let client = self.standby.client()?.ok_or_else(gone)?;
        client.query("SELECT pg_promote(false)")?;
        let deadline = Instant::now() + OPEN_TIMEOUT;
        while client.value("SELECT pg_is_in_recovery()::text")?.as_deref() != Some("false") {
            if Instant::now() > deadline {
                return Err(StandbyError::Behind("it did not open in time".to_owned()));
            }
            std::thread::sleep(LOOK);
        }
        self.mark("opened");
        let client = self.standby.client()?.ok_or_else(gone)?;
        // A commit of its own that is flushed, and touches nobody's tables. Nobody waits for a stream that is not
        // attached yet.
        client.query("SET synchronous_commit = local")?;
        client.query("SELECT pg_logical_emit_message(true, 'bre', 'promoted')")?;
        let segment = client.value("SELECT pg_walfile_name(pg_current_wal_flush_lsn())")?;
        let timeline = segment.as_deref().and_then(|name| name.get(..8));
        let timeline = timeline.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        self.mark("committed a write");
        let (parent, switch_lsn) = self.switch(reserved)?;
        if timeline != Some(reserved) || parent != self.standby.feeder.timeline() {
            return Err(StandbyError::Behind(format!(
                "it writes {segment:?} after timeline {parent}, expected was timeline {reserved}"
            )));
        }
        Ok(PromotionReport {
            restore_id: self.state.restore_id.clone(),
            timeline: reserved,
            parent_timeline: parent,
            switch_lsn,
            folder: self.state.data(&self.settings.folder),
            steps: std::mem::take(&mut self.steps),
        })
    }

    /// Where the new timeline left its parent, by its own history.
    fn switch(&self, reserved: u32) -> StandbyResult<(u32, u64)> {
        let data = self.state.data(&self.settings.folder);
        let path = data.join("pg_wal").join(history_file_name(reserved));
        let text = std::fs::read_to_string(&path).map_err(StandbyError::io("read", &path))?;
        let history = History::parse(&text)
            .map_err(|error| StandbyError::io("understand", &path)(std::io::Error::other(error)))?;
        let last = history.switches.last();
        Ok(last.map_or((0, 0), |last| (last.parent, last.switch.0)))
    }

    fn failed(&self, error: &StandbyError) -> StandbyError {
        StandbyError::Promotion {
            what: error.to_string(),
            folder: self.state.data(&self.settings.folder),
            tail: tail_of(self.standby.log(), 0),
        }
    }
}
