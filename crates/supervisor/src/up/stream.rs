//! The stream of the instance's own database: strict mode, its slot, and the full backup that its WAL follows.

use backup::database::{is_strict, set_strict, slot_status};
use host::{
    database::{SLOT, SUPERUSER},
    progress::Steps,
    record::Event,
};
use operations::{Error, backup_record};
use repository::backup::{BackupKind, BackupState, BackupSummary, catalogue};

use super::supervisor::Supervisor;

impl Supervisor {
    /// Makes PostgreSQL wait for the stream, or not, as configured. Strict is switched on only once the stream is attached.
    pub(super) fn settle_strict_mode(&mut self) -> Result<(), Error> {
        let superuser = self.postgres.connect_options(SUPERUSER, "postgres");
        let wanted = self.config.database.strict;
        let may_wait = self.protection.monitor().is_attached();
        let settled = self.ground().during(move |_| -> Result<bool, Error> {
            let is_on = is_strict(&superuser, SLOT)?;
            match (wanted, is_on) {
                (true, false) if !may_wait => return Ok(false),
                (true, false) => {
                    set_strict(&superuser, SLOT, true)?;
                    tracing::info!("strict mode: a commit returns when the repository holds it");
                }
                (false, true) => {
                    set_strict(&superuser, SLOT, false)?;
                    tracing::warn!("strict mode was left, as this start's settings say");
                }
                _ => {}
            }
            Ok(true)
        })??;
        if settled {
            self.protection.monitor().set_strict(wanted);
        }
        Ok(())
    }

    /// Once a second: how much WAL waits, whether strict mode can come on, whether a hole demands a new backup.
    pub(super) fn check_stream(&mut self) -> Result<(), Error> {
        if !self.postgres.is_running() {
            return Ok(());
        }
        let connect = self.protection.connect().clone();
        let slot = self
            .ground()
            .during(move |_| slot_status(&connect, SLOT))??;
        self.protection.monitor().set_slot(slot.as_ref());
        self.keep_strict_mode()?;
        self.protection.run_due_jobs(self.runtime.handle());
        self.protection
            .with_catalogue(|backups, asked_at| self.passed_over.settle(backups, asked_at));
        let state = self.protection.stream_state();
        if state.is_some_and(|state| state.needs_full_backup) {
            self.protection.need_full_backup("after a hole in the WAL");
        }
        Ok(())
    }

    /// Comes on when the stream is attached, and again when somebody switched it off in the database: leaving it is done by
    /// this engine's settings alone.
    fn keep_strict_mode(&mut self) -> Result<(), Error> {
        if !self.config.database.strict || !self.protection.monitor().is_attached() {
            return Ok(());
        }
        if self.protection.monitor().is_strict() {
            let superuser = self.postgres.connect_options(SUPERUSER, "postgres");
            if self
                .ground()
                .during(move |_| is_strict(&superuser, SLOT))??
            {
                return Ok(());
            }
            tracing::error!(
                "synchronous_standby_names was changed in the database; strict mode is switched on again"
            );
            self.protection.monitor().set_strict(false);
        }
        self.settle_strict_mode()
    }

    /// Without a complete backup on this timeline WAL alone restores nothing. The first one is waited for.
    pub(super) fn ensure_full_backup(&mut self) -> Result<(), Error> {
        let repository = self.protection.repository().clone();
        let backups = self
            .ground()
            .during(move |_| catalogue(&repository))??
            .backups;
        if backups
            .iter()
            .any(|backup| backup.state == BackupState::Complete)
        {
            let state = self.protection.stream_state();
            let timeline = state.map(|state| state.timeline);
            let on_timeline = |backup: &BackupSummary| Some(backup.timeline) == timeline;
            if !backups.iter().any(on_timeline) {
                self.protection.need_full_backup("after a recovery");
            }
            return Ok(());
        }
        tracing::info!("no complete backup yet: taking the first one before serving");
        let request = self
            .protection
            .backup_request(BackupKind::Full, "first backup");
        let outcome = self
            .ground()
            .during(move |cancel| request.run(&Steps::logged().cancelled_by(cancel)))??;
        backup_record::note(&outcome);
        let event = backup_record::event(Event::by_engine("BackupRun"), &outcome);
        self.protection.put_on_record([event]);
        Ok(())
    }
}
