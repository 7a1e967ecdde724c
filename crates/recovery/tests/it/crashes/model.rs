//! What must come back, known from outside; and the comparison of a repository with it.

use std::collections::BTreeMap;
use std::path::Path;

use recovery::database::{
    Plan, RestoreOptions, Span, StopPoint, Target, restore, restore_over, survey,
};
use repository::{
    Progress, Repository,
    backup::{BackupReader, BackupState, BackupSummary, EntryKind, catalogue},
    keys::RecipientPrivate,
    wal::WalReader,
};

use super::dice::noise;
use super::life::{RULES, SEGMENT};
use postgres_physical::server::OsUser;

pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// A backup that was begun; it exists for certain once its `finish` returned.
#[derive(Debug, Clone)]
pub(super) struct ModelBackup {
    pub(super) start: u64,
    pub(super) stop: u64,
    pub(super) at: i64,
    pub(super) is_full: bool,
    pub(super) is_called_complete: bool,
    pub(super) files: Files,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) taken: BTreeMap<String, ModelBackup>,
    /// All WAL before it was acknowledged.
    pub(super) acknowledged: u64,
    /// Where the server was at each time: what somebody may want back.
    pub(super) moments: Vec<(i64, u64)>,
    /// When the last WAL was handed over: the newest moment that the repository may prove.
    pub(super) confirmed_at: i64,
    pub(super) now: i64,
    /// Expiry may have let go of early WAL.
    pub(super) wal_may_be_gone: bool,
}

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct CheckCounts {
    pub(super) backups: u64,
    pub(super) wal_bytes: u64,
}

/// The WAL of the cluster: a function of the place.
pub(super) fn wal(from: u64, to: u64) -> Vec<u8> {
    noise(9, from, usize::try_from(to - from).unwrap())
}

impl Model {
    /// Everything that was promised, from the repository and this key alone.
    pub(super) fn check(
        &self,
        repository: &Repository,
        private: &RecipientPrivate,
    ) -> Result<CheckCounts, String> {
        let text = |error: repository::Error| error.to_string();
        let catalogue = catalogue(repository).map_err(text)?;
        if let Some(damaged) = catalogue.damaged.first() {
            return Err(format!("the catalogue: {damaged}"));
        }
        let mut checked = CheckCounts::default();
        let is_live = |backup: &&BackupSummary| backup.state != BackupState::Expiring;
        let live: BTreeMap<&str, &BackupSummary> = catalogue
            .backups
            .iter()
            .filter(is_live)
            .map(|backup| (backup.id.as_str(), backup))
            .collect();
        let reader = WalReader::new(repository, private);
        for (id, summary) in &live {
            let taken = self
                .taken
                .get(*id)
                .ok_or_else(|| format!("backup {id} was never taken"))?;
            self.check_backup(repository, private, &reader, summary, taken)
                .map_err(|error| format!("backup {id}: {error}"))?;
            checked.backups += 1;
        }
        self.check_young(&live)?;
        checked.wal_bytes += self.check_wal(&reader, &live)?;
        Ok(checked)
    }

    /// In a second repository: what is there is whole, and what is complete has its WAL.
    pub(super) fn check_copies(
        &self,
        other: &Repository,
        keys: &[RecipientPrivate],
    ) -> Result<(), String> {
        let text = |error: repository::Error| error.to_string();
        let catalogue = catalogue(other).map_err(text)?;
        if let Some(damaged) = catalogue.damaged.first() {
            return Err(format!("its catalogue: {damaged}"));
        }
        for summary in &catalogue.backups {
            let id = &summary.id;
            let taken = self
                .taken
                .get(id)
                .ok_or_else(|| format!("{id} was never taken"))?;
            let mut failed = String::new();
            let opened = keys.iter().rev().any(|key| {
                let reader = WalReader::new(other, key);
                let mut taken = taken.clone();
                if summary.state != BackupState::Complete {
                    taken.stop = u64::MAX;
                }
                let checked = self.check_backup(other, key, &reader, summary, &taken);
                checked.map_err(|error| failed = error).is_ok()
            });
            if !opened {
                return Err(format!("backup {id}: {failed}"));
            }
        }
        Ok(())
    }

    fn check_young(&self, live: &BTreeMap<&str, &BackupSummary>) -> Result<(), String> {
        for (id, taken) in &self.taken {
            let age_max = match taken.is_full {
                true => RULES.full_micros,
                false => RULES.incremental_micros,
            };
            let must_be = taken.is_called_complete && taken.at >= self.now - age_max;
            if must_be && !live.contains_key(id.as_str()) {
                return Err(format!("backup {id} was called complete and is gone"));
            }
        }
        Ok(())
    }

    fn check_backup(
        &self,
        repository: &Repository,
        private: &RecipientPrivate,
        wal_reader: &WalReader,
        summary: &BackupSummary,
        taken: &ModelBackup,
    ) -> Result<(), String> {
        let text = |error: repository::Error| error.to_string();
        let reader = BackupReader::open(repository, private, &summary.id).map_err(text)?;
        reader.check_packs().map_err(text)?;
        let mut files = Files::new();
        for entry in reader.entries().map_err(text)? {
            if matches!(entry.kind, EntryKind::File { .. }) {
                let bytes = reader.read_file(&entry).map_err(text)?;
                files.insert(entry.path.clone(), bytes);
            }
        }
        if files != taken.files {
            return Err("its files are not those that were handed over".to_owned());
        }
        if taken.stop > self.acknowledged {
            return Ok(());
        }
        if summary.state != BackupState::Complete {
            return Err(format!(
                "all its WAL was acknowledged, and it is {:?}",
                summary.state
            ));
        }
        let found = wal_reader.bytes(1, taken.start, taken.stop).map_err(text)?;
        match found == wal(taken.start, taken.stop) {
            true => Ok(()),
            false => Err("its WAL is not what was handed over".to_owned()),
        }
    }

    /// From the backup that must restore the oldest moment of the window, to the last byte that was acknowledged.
    fn check_wal(
        &self,
        reader: &WalReader,
        live: &BTreeMap<&str, &BackupSummary>,
    ) -> Result<u64, String> {
        let from = match self.wal_may_be_gone {
            false => SEGMENT,
            true => match self.oldest_promise(live)? {
                None => return Ok(0),
                Some(from) => from,
            },
        };
        let to = self.acknowledged;
        let found = reader
            .bytes(1, from, to)
            .map_err(|error| format!("acknowledged WAL from {from:#x} to {to:#x}: {error}"))?;
        match found == wal(from, to) {
            true => Ok(to - from),
            false => Err("acknowledged WAL is not what was handed over".to_owned()),
        }
    }

    fn oldest_promise(&self, live: &BTreeMap<&str, &BackupSummary>) -> Result<Option<u64>, String> {
        let from = self.confirmed_at - RULES.wal_micros;
        let complete = |taken: &&ModelBackup| taken.is_called_complete;
        let reachable = |lsn: u64| self.taken.values().filter(complete).any(|t| t.stop <= lsn);
        let mut promised = self
            .moments
            .iter()
            .filter(|(at, lsn)| *at >= from && *lsn <= self.acknowledged && reachable(*lsn));
        let Some((at, lsn)) = promised.next() else {
            return Ok(None);
        };
        let usable = live.values().filter(|backup| backup.stop_lsn <= *lsn);
        match usable.map(|backup| backup.start_lsn).max() {
            Some(start) => Ok(Some(start)),
            None => Err(format!(
                "the moment {at} (place {lsn:#x}) was promised, and no backup brings it back"
            )),
        }
    }

    /// Into a folder, killed at one of its steps, then repeated over what was left; all bytes against the model.
    pub(super) fn check_restore(
        &self,
        repository: &Repository,
        private: &RecipientPrivate,
        id: &str,
        folder: &Path,
        progress: &dyn Progress,
    ) -> Result<(), recovery::Error> {
        let catalogue = catalogue(repository)?;
        let Some(backup) = catalogue.backups.iter().find(|backup| backup.id == id) else {
            return Ok(());
        };
        let plan = plan_of(backup);
        let options = RestoreOptions::new(OsUser::current().unwrap());
        if let Err(error) = restore(repository, private, &plan, folder, &options, progress) {
            if !progress.cancelled() {
                return Err(error);
            }
            // Nothing may be started on it, and it can be gone on with.
            let survey = survey(repository, private, &plan, folder, &options, &())?;
            restore_over(&survey, &options, &())?;
        }
        for (path, bytes) in &self.taken[id].files {
            let found = std::fs::read(folder.join(path)).unwrap();
            assert_eq!(&found, bytes, "{path} of the restored backup {id}");
        }
        Ok(())
    }
}

/// To the end of the backup itself. Its WAL is not PostgreSQL's: nothing could be planned from it.
fn plan_of(backup: &BackupSummary) -> Plan {
    Plan {
        restore_id: backup.id.clone(),
        target: Target::latest(),
        backup: backup.clone(),
        timeline: 1,
        path: Vec::new(),
        stop: StopPoint {
            lsn: backup.stop_lsn,
            inclusive: true,
        },
        segment_bytes: SEGMENT,
        wal_bytes: 0,
        span: Span {
            links: Vec::new(),
            from_micros: 0,
            to_micros: 0,
        },
        beyond: None,
    }
}
