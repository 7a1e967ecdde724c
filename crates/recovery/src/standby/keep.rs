//! The standby's folder: created, resumed, thrown away, or handed over.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use postgres_physical::server::Server;
use repository::Progress;

use super::error::{StandbyError, StandbyResult};
use super::server::{
    StandbyServer, end_leftover, is_unreachable, make_socket_folder, options, stop,
};
use super::state::{PromotionReport, Step, StoredState, put_whole, sync};
use super::{DEATHS_APART, Life, Standby};
use crate::Error;
use crate::database::{
    Marker, RestoreOptions, Start, Target, is_half_restored, plan_starting, remove, restore,
};

const STANDBY: &str = "standby.signal";

impl Standby {
    /// Goes on with the folder as it was left, or restores the newest backup.
    pub(super) fn begin(&mut self, progress: &dyn Progress) -> StandbyResult<()> {
        let folder = self.settings.folder.clone();
        if let Some(state) = StoredState::read(&folder)? {
            let data = state.data(&folder);
            let whole = data.join(STANDBY).exists() && !is_half_restored(&data);
            match state.step {
                Step::Promoted => {
                    self.life = self.started(state)?;
                    return Ok(());
                }
                Step::Following if whole => {
                    let standby = StandbyServer::start(&self.settings, &state)?;
                    self.life = Life::Following(state, Box::new(standby));
                    return Ok(());
                }
                step => {
                    tracing::warn!(?step, folder = %data.display(), "deleting what an earlier standby left");
                    discard(&folder, &state)?;
                }
            }
        }
        self.restore(progress)
    }

    fn restore(&mut self, progress: &dyn Progress) -> StandbyResult<()> {
        self.show_restoring();
        let (settings, folder) = (&self.settings, &self.settings.folder);
        let (repository, private) = (&settings.repository, &settings.private);
        let start = match self.passed_over.is_empty() {
            true => Start::Newest,
            false => Start::Without(&self.passed_over),
        };
        let plan = match plan_starting(repository, private, Target::latest(), start, progress) {
            Err(error @ Error::NoOtherBackup { .. }) => {
                // What they lacked may be there again.
                self.passed_over.clear();
                return Err(error.into());
            }
            plan => plan?,
        };
        let mut state = StoredState {
            step: Step::Restoring,
            restore_id: plan.restore_id.clone(),
            backup_id: plan.backup.id.clone(),
            start_lsn: plan.backup.start_lsn,
            stop_lsn: plan.backup.stop_lsn,
            timeline: plan.timeline,
            segment_bytes: plan.segment_bytes,
            since_micros: jiff::Timestamp::now().as_microsecond(),
            wal_objects: 0,
            promoted: None,
        };
        state.write(folder)?;
        let data = state.data(folder);
        tracing::info!(backup = %state.backup_id, "the standby is restored");
        let options = RestoreOptions::new(settings.user.clone());
        let restored = restore(repository, private, &plan, &data, &options, progress);
        let restored = restored.inspect_err(|error| {
            if error.is_of_backup() {
                tracing::error!(backup = %state.backup_id, %error, "the standby continues with an older backup");
                self.passed_over.push(state.backup_id.clone());
            }
        })?;
        for sentence in &restored.omissions.sentences {
            tracing::warn!("{sentence}");
        }
        let marker = Marker::take_up(&data)?;
        // A standby never ends recovery by itself.
        let user = &settings.user;
        put_whole(&data, STANDBY, b"", |path| Ok(user.own(path)?))?;
        remove(&data.join("recovery.signal"))?;
        sync(&data)?;
        marker.map_or(Ok(()), Marker::remove)?;
        state.step = Step::Following;
        state.write(folder)?;
        self.behind.end_known(plan.span.to_lsn());
        let standby = StandbyServer::start(&self.settings, &state)?;
        self.life = Life::Following(state, Box::new(standby));
        Ok(())
    }

    fn started(&self, state: StoredState) -> StandbyResult<Life> {
        let data = state.data(&self.settings.folder);
        end_leftover(&data)?;
        let settings = &self.settings;
        make_socket_folder(settings)?;
        let options = options(settings, None);
        let server = Server::start(&settings.binaries, &settings.user, &data, &options)?;
        Ok(Life::Promoted(state, server))
    }

    /// It is somebody's primary: it comes back whatever ended it.
    pub(super) fn keep_promoted(&mut self) -> StandbyResult<()> {
        let Life::Promoted(_, server) = &mut self.life else {
            return Ok(());
        };
        if let Some(exit) = server.exited() {
            tracing::error!(how = %exit.description, "the promoted PostgreSQL ended");
            // At once; when that does not last, later each time.
            if self
                .died
                .replace(Instant::now())
                .is_some_and(|at| at.elapsed() < DEATHS_APART)
            {
                self.again.failed(Instant::now());
            } else {
                self.again.succeeded();
            }
            // The folder says that it is promoted.
            self.life = Life::Nothing;
        } else if is_unreachable(server) {
            stop(server)?;
            self.life = Life::Nothing;
        }
        Ok(())
    }
}

/// Removes what a state names, and then the state.
pub(super) fn discard(folder: &Path, state: &StoredState) -> StandbyResult<()> {
    let data = state.data(folder);
    end_leftover(&data)?;
    remove(&data)?;
    remove(&PathBuf::from(format!("{}.tablespaces", data.display())))?;
    StoredState::forget(folder)
}

/// Whether the folder holds a cluster that was promoted and not taken yet.
pub fn is_promoted(folder: &Path) -> StandbyResult<bool> {
    Ok(StoredState::read(folder)?.is_some_and(|state| state.step == Step::Promoted))
}

/// For a folder that no process keeps: ends what runs on a promoted cluster and moves it to `to`, which must not be
/// there. `None` when nothing in the folder was promoted.
pub fn take_promoted(folder: &Path, to: &Path) -> StandbyResult<Option<PromotionReport>> {
    match StoredState::read(folder)? {
        Some(state) if state.step == Step::Promoted => {
            end_leftover(&state.data(folder))?;
            move_promoted(folder, to).map(Some)
        }
        _ => Ok(None),
    }
}

/// On another disk it stays where it is, and a link leads there: copying a database takes as long as restoring it.
fn put_in_place(
    data: &Path,
    to: &Path,
    rename: impl Fn(&Path, &Path) -> std::io::Result<()>,
) -> std::io::Result<()> {
    match rename(data, to) {
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
            std::os::unix::fs::symlink(fs::canonicalize(data)?, to)
        }
        other => other,
    }
}

fn leads_to(link: &Path, data: &Path) -> bool {
    let place = |path: &Path| fs::canonicalize(path).ok();
    link.is_symlink() && place(link).is_some() && place(link) == place(data)
}

/// A crash in between leaves the state: the move is repeated, or found done.
pub(super) fn move_promoted(folder: &Path, to: &Path) -> StandbyResult<PromotionReport> {
    let not = || StandbyError::NotPromoted(folder.to_owned());
    let state = StoredState::read(folder)?.filter(|state| state.step == Step::Promoted);
    let state = state.ok_or_else(not)?;
    let mut promoted = state.promoted.clone().ok_or_else(not)?;
    let data = state.data(folder);
    if data.exists() && !leads_to(to, &data) {
        if to.symlink_metadata().is_ok() {
            return Err(StandbyError::Taken(to.to_owned()));
        }
        put_in_place(&data, to, |from, to| fs::rename(from, to))
            .map_err(StandbyError::io("move into place", to))?;
        to.parent().map_or(Ok(()), sync)?;
        sync(folder)?;
    }
    // Tablespaces stay where they are, and are in use.
    StoredState::forget(folder)?;
    promoted.folder = to.to_owned();
    Ok(promoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_on_another_disk_is_linked_and_found_done_when_repeated() {
        let root = tempfile::tempdir().unwrap();
        let (data, to) = (root.path().join("data"), root.path().join("postgres"));
        fs::create_dir(&data).unwrap();
        fs::write(data.join("PG_VERSION"), "15").unwrap();
        let crosses = |_: &Path, _: &Path| Err(std::io::ErrorKind::CrossesDevices.into());
        assert!(!leads_to(&to, &data));
        put_in_place(&data, &to, crosses).unwrap();
        assert!(leads_to(&to, &data) && data.exists());
        assert_eq!(fs::read_to_string(to.join("PG_VERSION")).unwrap(), "15");
    }
}
