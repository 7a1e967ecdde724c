//! A standby's status, for people and machines.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::error::{StandbyError, StandbyResult};
use super::server::StandbyServer;
use super::state::PromotionReport;
use super::{Life, Standby, reason, show_lsn};
use crate::database::show_time;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    #[default]
    Starting,
    Restoring,
    /// It replays what has come together.
    CatchingUp,
    /// It has replayed what the repository held a moment ago.
    Following,
    /// WAL is missing, or the repository continues without it.
    Lost,
    Promoted,
}

impl Phase {
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Restoring => "being restored",
            Self::CatchingUp => "catching up",
            Self::Following => "following",
            Self::Lost => "lost",
            Self::Promoted => "promoted",
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub phase: Phase,
    /// It could be promoted now without losing anything that the repository holds.
    pub healthy: bool,
    pub trouble: Option<String>,
    /// What would be wrong after a promotion here, although it follows.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Names the restore that it came from, and its claim on a timeline when it is promoted.
    pub restore_id: Option<String>,
    pub backup_id: Option<String>,
    pub timeline: u32,
    pub replayed_lsn: String,
    /// The newest that the repository holds, as far as the standby knows.
    pub repository_lsn: String,
    pub lag_bytes: u64,
    pub lag_seconds: f64,
    /// WAL objects replayed since the restore.
    pub wal_objects: u64,
    /// When it was restored.
    pub since: Option<String>,
    /// Of the newest transaction that was replayed.
    pub newest_commit_at: Option<String>,
    /// When the old primary was last heard of in the repository, by its own clock.
    pub repository_confirmed_at: Option<String>,
    /// Why it was last restored again.
    pub restored_anew: Option<String>,
    pub sockets: PathBuf,
    pub promoted: Option<PromotionReport>,
}

/// Shared with whoever asks.
#[derive(Debug, Clone, Default)]
pub struct Watch(Arc<Mutex<Status>>);

impl Watch {
    #[must_use]
    pub fn status(&self) -> Status {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, status: Status) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

/// How long something has been there that is not replayed.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// A place that was in the repository at that moment.
    mark: Option<(u64, Instant)>,
    at_end: bool,
    end_known: u64,
}

impl Behind {
    pub(super) fn end_known(&mut self, lsn: u64) {
        self.end_known = lsn;
    }

    pub(super) fn note(&mut self, at_end: bool, standby: &StandbyServer) -> StandbyResult<()> {
        self.at_end = at_end;
        self.end_known = self.end_known.max(standby.feeder.at());
        let (replayed, now) = (standby.replay.lsn, Instant::now());
        let (lsn, since) = *self.mark.get_or_insert((self.end_known, now));
        if replayed >= lsn {
            self.mark = Some((self.end_known, now));
        } else if at_end && standby.is_open() && since.elapsed().as_millis() > 500 {
            // The rest may be half a record, cut by the end of the stream.
            if standby.feeder.last_record(replayed)?.is_none() {
                self.mark = Some((replayed, now));
            }
        }
        Ok(())
    }

    fn seconds(&self, replayed: u64) -> f64 {
        match self.mark {
            Some((lsn, since)) if replayed < lsn => since.elapsed().as_secs_f64(),
            _ => 0.0,
        }
    }
}

impl Standby {
    pub(super) fn show_restoring(&self) {
        self.watch.set(Status {
            phase: Phase::Restoring,
            restored_anew: self.anew.clone(),
            sockets: self.settings.sockets.clone(),
            ..Status::default()
        });
    }

    pub(super) fn show(&self, error: Option<&StandbyError>) {
        let mut status = Status {
            trouble: error.map(reason).or_else(|| self.stopped_by.clone()),
            restored_anew: self.anew.clone(),
            sockets: self.settings.sockets.clone(),
            ..Status::default()
        };
        match &self.life {
            Life::Nothing => {}
            Life::Following(state, standby) => {
                let replay = standby.replay;
                let end = self.behind.end_known.max(standby.feeder.at());
                status.phase = match &self.lost {
                    Some(_) => Phase::Lost,
                    None if standby.is_open() && self.behind.at_end => Phase::Following,
                    None => Phase::CatchingUp,
                };
                if standby.is_open() {
                    status.trouble = error.map(reason);
                } else if let Some(refused) = standby.refused() {
                    status.trouble = Some(refused.to_owned());
                }
                if let Some(lost) = &self.lost {
                    status.trouble = Some(lost.why.clone());
                }
                status.warnings = standby.warnings().to_vec();
                status.backup_id = Some(state.backup_id.clone());
                status.restore_id = Some(state.restore_id.clone());
                status.timeline = state.timeline;
                status.replayed_lsn = show_lsn(replay.lsn);
                status.repository_lsn = show_lsn(end);
                status.lag_bytes = end.saturating_sub(replay.lsn);
                status.lag_seconds = self.behind.seconds(replay.lsn);
                status.wal_objects = state.wal_objects;
                status.since = Some(show_time(state.since_micros));
                status.newest_commit_at = replay.commit_micros.map(show_time);
                let confirmed = standby.feeder.confirmed_at_micros;
                status.repository_confirmed_at = (confirmed > 0).then(|| show_time(confirmed));
                status.healthy = status.phase == Phase::Following && status.trouble.is_none();
            }
            Life::Promoted(state, _) => {
                status.phase = Phase::Promoted;
                status.healthy = error.is_none();
                status.backup_id = Some(state.backup_id.clone());
                status.restore_id = Some(state.restore_id.clone());
                status.promoted = state.promoted.clone();
                if let Some(promoted) = &state.promoted {
                    status.timeline = promoted.timeline;
                    status.replayed_lsn = show_lsn(promoted.switch_lsn);
                }
            }
        }
        self.watch.set(status);
    }
}
