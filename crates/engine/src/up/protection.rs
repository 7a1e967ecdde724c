//! What protects the database while it runs: the stream, strict mode, and a full backup that the WAL can follow.

use std::{sync::Arc, time::Duration};

use backup::{
    database::{is_strict, set_strict, slot_status},
    stream::{Streamer, StreamerConfig},
};
use repository::{
    backup::{BackupKind, BackupState, catalogue},
    wal::WalReader,
};

use super::supervisor::Supervisor;
use host::{
    database::{BACKUP, SLOT, SUPERUSER},
    progress::Steps,
    record::Event,
};

use crate::{
    backup_request::{OwnedRequest, Reading, ReadingSelection},
    error::Error,
    plan::{Host, Plan},
};

/// How long the last append of a stream may take that was told to end.
const STREAM_TIMEOUT: Duration = Duration::from_secs(10);

impl Supervisor {
    pub(super) fn start_streamer(&mut self) {
        let connect = self
            .postgres
            .connect_options(BACKUP, "postgres")
            .with_application_name(SLOT);
        let public = self.keys.public.clone();
        let mut settings = StreamerConfig::new(connect, SLOT, Arc::clone(&self.store), public);
        if !self.config.database.strict {
            settings = settings.without_haste();
        }
        let streamer = Streamer::start(settings);
        self.stream.follow(Some(streamer.watch()));
        self.streamer = Some(streamer);
        self.note_recipient();
        self.tidy_wal();
    }

    /// Seals what an earlier stream left in tails. In the background: the bytes are safe where they are, and a process that
    /// ends in the middle harms nothing.
    fn tidy_wal(&self) {
        let Some(private) = self.keys.private.clone() else {
            return;
        };
        let (repository, public) = (self.repository.clone(), self.keys.public.clone());
        std::thread::spawn(
            move || match WalReader::new(&repository, &private).compact(&public) {
                Ok(report) => tracing::debug!(?report, "tidied WAL of earlier streams"),
                Err(error) => {
                    tracing::warn!(%error, "WAL of earlier streams stays in tails for now")
                }
            },
        );
    }

    /// The repository's key may be replaced while the engine runs. A stream that ends writes all that it received, the slot keeps the
    /// rest, and the next one goes on from there with a data key sealed to the new recipient.
    pub(super) fn check_keys(&mut self) {
        match self.keys.take_new_recipient() {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(recipient = %self.keys.public.id(), "the repository's key was replaced");
                if self.streamer.is_some() {
                    self.stop_streamer();
                    self.start_streamer();
                }
                self.note_recipient();
            }
            Err(error) => tracing::warn!(%error, "the repository's key could not be looked at"),
        }
        match self.keys.take_new_signing_key() {
            Ok(false) => {}
            Ok(true) => self.sign_with_the_new_key(),
            Err(error) => tracing::warn!(%error, "the log's signing key could not be looked at"),
        }
        self.stream
            .set_key_warning(self.keys.age().ok().and_then(|age| age.warning));
    }

    fn sign_with_the_new_key(&self) {
        let trusted = host::keys::trusted(&self.instance.keys(), &self.repository);
        match (trusted, &self.services) {
            (Ok(trusted), Some(services)) => {
                tracing::info!(key = %self.keys.signing.key_id(), "the log's signing key was rotated");
                services.set_signing_key(Arc::clone(&self.keys.signing), trusted);
            }
            (Ok(_), None) => {}
            (Err(error), _) => tracing::error!(%error, "the log is signed with the old key still"),
        }
    }

    pub(super) fn note_recipient(&self) {
        if let Err(error) = self.instance.note_recipient(&self.keys.public.id()) {
            tracing::warn!(%error, "whose key is in use could not be noted");
        }
    }

    pub(super) fn stop_streamer(&mut self) {
        self.stream.follow(None);
        if let Some(streamer) = self.streamer.take()
            && !streamer.stop_within(STREAM_TIMEOUT)
        {
            tracing::warn!("the repository hangs: the stream's last append is left to itself");
        }
    }

    /// Makes PostgreSQL wait for the stream, or not, as configured. Strict is switched on only once the stream is attached.
    pub(super) fn settle_strict_mode(&mut self) -> Result<(), Error> {
        let superuser = self.postgres.connect_options(SUPERUSER, "postgres");
        let wanted = self.config.database.strict;
        let may_wait = self.stream.is_attached();
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
            self.stream.set_strict(wanted);
        }
        Ok(())
    }

    /// Once a second: how much WAL waits, whether strict mode can come on, whether a hole demands a new backup.
    pub(super) fn check_stream(&mut self) -> Result<(), Error> {
        if !self.postgres.is_running() {
            return Ok(());
        }
        let connect = self.postgres.connect_options(BACKUP, "postgres");
        let slot = self
            .ground()
            .during(move |_| slot_status(&connect, SLOT))??;
        self.stream.set_slot(slot.as_ref());
        self.keep_strict_mode()?;
        self.run_due_jobs();
        let hole = self
            .streamer
            .as_ref()
            .is_some_and(|streamer| streamer.state().needs_full_backup);
        if hole && let Some(plan) = &mut self.plan {
            plan.need_full_backup("after a hole in the WAL");
        }
        Ok(())
    }

    /// Comes on when the stream is attached, and again when somebody switched it off in the database: leaving it is done by
    /// this engine's settings alone.
    fn keep_strict_mode(&mut self) -> Result<(), Error> {
        if !self.config.database.strict || !self.stream.is_attached() {
            return Ok(());
        }
        if self.stream.is_strict() {
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
            self.stream.set_strict(false);
        }
        self.settle_strict_mode()
    }

    /// Without a complete backup on this timeline WAL alone restores nothing. The first one is waited for.
    pub(super) fn ensure_full_backup(&mut self) -> Result<(), Error> {
        let repository = self.repository.clone();
        let backups = self
            .ground()
            .during(move |_| catalogue(&repository))??
            .backups;
        if backups
            .iter()
            .any(|backup| backup.state == BackupState::Complete)
        {
            let timeline = self
                .streamer
                .as_ref()
                .map(|streamer| streamer.state().timeline);
            let on_timeline =
                |backup: &repository::backup::BackupSummary| Some(backup.timeline) == timeline;
            if !backups.iter().any(on_timeline) {
                self.full_backup_needed = Some("after a recovery");
            }
            return Ok(());
        }
        tracing::info!("no complete backup yet: taking the first one before serving");
        let request = self.backup_request(BackupKind::Full, "first backup");
        let outcome = self
            .ground()
            .during(move |cancel| request.run(&Steps::logged().cancelled_by(cancel)))??;
        crate::backup_record::note(&outcome);
        let event = crate::backup_record::event(Event::by_engine("BackupRun"), &outcome);
        self.not_on_record.push(event);
        Ok(())
    }

    fn backup_request(&self, kind: BackupKind, label: &'static str) -> OwnedRequest {
        OwnedRequest {
            connect: self.postgres.connect_options(BACKUP, "postgres"),
            repository: self.repository.clone(),
            public: self.keys.public.clone(),
            chunk_id: self.keys.chunk_id.clone(),
            label,
            kind,
            reading: Reading::new(&self.config.backup, ReadingSelection::default()),
            cache: self.instance.cache(),
            lock: self.instance.backup_lock(),
        }
    }

    /// The jobs of the plan: what ended, what is due.
    fn run_due_jobs(&mut self) {
        let host = Host {
            instance: &self.instance,
            repository: &self.repository,
            keys: &self.keys,
            binaries: Some(self.postgres.binaries()),
            user: Some(self.postgres.user()),
            config: &self.config.backup,
            connect: self.postgres.connect_options(BACKUP, "postgres"),
            definitions: Some(self.postgres.connect_options(SUPERUSER, "postgres")),
            monitor: &self.stream,
            runtime: self.runtime.handle(),
            stream: self.streamer.as_ref().map(Streamer::watch),
            attached: self.stream.is_attached(),
            label: "by the plan",
            reading: Reading::new(&self.config.backup, ReadingSelection::default()),
        };
        if self.plan.is_none() {
            match Plan::begin(&host) {
                Ok(plan) => self.plan = Some(plan),
                Err(error) => tracing::error!(%error, "the plan cannot begin; it is tried again"),
            }
        }
        let Some(plan) = &mut self.plan else { return };
        for event in self.not_on_record.drain(..) {
            plan.put_on_record(event);
        }
        if let Some(label) = self.full_backup_needed.take() {
            plan.need_full_backup(label);
        }
        plan.turn(&host);
        plan.with_catalogue(|backups, asked_at| self.passed_over.settle(backups, asked_at));
        self.follow_pause();
    }

    /// While an operator pauses it the slot keeps what it would have got.
    fn follow_pause(&mut self) {
        let paused = self.plan.as_ref().is_some_and(Plan::is_stream_paused);
        match (paused, self.streamer.is_some()) {
            (true, true) => {
                tracing::warn!("the WAL stream is paused: nothing protects what is committed now");
                self.stop_streamer();
                self.stream_paused = true;
            }
            (false, false) if self.stream_paused => {
                self.stream_paused = false;
                self.start_streamer();
            }
            _ => {}
        }
    }
}
