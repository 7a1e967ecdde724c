//! What protects the log of an engine while it runs, in `bre up` and in `bre serve` alike: the repository and its
//! keys, the WAL stream into it, the jobs of the plan, and the signed heads with what carries them elsewhere.

use std::{sync::Arc, time::Duration};

use audit::{SignedHead, VerifyingKey};
use backup::stream::{StreamState, StreamWatch, Streamer, StreamerConfig};
use host::{
    database::SLOT,
    instance::Instance,
    keys::{self, Keys},
    record::Event,
    stored_heads,
};
use operations::{
    Error,
    anchors::Carriers,
    backup_request::{OwnedRequest, Reading, ReadingSelection},
    config::{self, Config},
    heads::Publisher,
    health::StreamMonitor,
    jobs::Screens,
    plan::{Host, Plan},
    primary_repository::PrimaryRepository,
    public_log,
};
use postgres_physical::{
    server::{Binaries, OsUser},
    wire::ConnectOptions,
};
use repository::{
    Repository,
    backup::{BackupKind, BackupSummary},
    store::Store,
    wal::WalReader,
};
use services::PublicLogConfig;
use tokio::runtime::Handle;

/// How long the last append of a stream may take that was told to end.
const STREAM_TIMEOUT: Duration = Duration::from_secs(10);

/// How the database is reached whose log this is, and what this host has to work on its copies.
#[derive(Debug)]
pub(crate) struct ProtectedCluster {
    /// As a role that may replicate.
    pub(crate) connect: ConnectOptions,
    /// As a role that may read every definition, where there is one.
    pub(crate) definitions: Option<ConnectOptions>,
    /// Of PostgreSQL's programs; without them no restore can be tested.
    pub(crate) binaries: Option<Binaries>,
    pub(crate) user: Option<OsUser>,
}

#[derive(Debug)]
pub(crate) struct Protection {
    instance: Instance,
    own: PrimaryRepository,
    monitor: StreamMonitor,
    cluster: ProtectedCluster,
    settings: config::Backup,
    strict: bool,
    screens: Screens,
    /// Of the backups that it takes.
    label: &'static str,
    /// None before the first, and while an operator pauses it.
    streamer: Option<Streamer>,
    is_paused: bool,
    /// From the first look on.
    plan: Option<Plan>,
    carriers: Option<Carriers>,
    /// Why one is needed as soon as the plan can take it.
    full_backup_needed: Option<&'static str>,
    /// What was done before the plan began, for the audit log.
    not_on_record: Vec<Event>,
}

impl Protection {
    pub(crate) fn new(
        instance: &Instance,
        config: &Config,
        own: PrimaryRepository,
        cluster: ProtectedCluster,
        screens: Screens,
        label: &'static str,
    ) -> Self {
        let monitor = StreamMonitor::default();
        monitor.want_strict(config.database.strict);
        Self {
            instance: instance.clone(),
            own,
            monitor,
            cluster,
            settings: config.backup.clone(),
            strict: config.database.strict,
            screens,
            label,
            streamer: None,
            is_paused: false,
            plan: None,
            carriers: None,
            full_backup_needed: None,
            not_on_record: Vec::new(),
        }
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.own.keys
    }

    pub(crate) fn repository(&self) -> &Repository {
        &self.own.repository
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.own.store)
    }

    pub(crate) fn monitor(&self) -> &StreamMonitor {
        &self.monitor
    }

    pub(crate) fn connect(&self) -> &ConnectOptions {
        &self.cluster.connect
    }

    pub(crate) fn set_definitions(&mut self, definitions: Option<ConnectOptions>) {
        self.cluster.definitions = definitions;
    }

    /// The public keys that vouch for the log.
    pub(crate) fn trusted(&self) -> Result<Vec<VerifyingKey>, Error> {
        Ok(keys::trusted(&self.instance.keys(), self.repository())?)
    }

    /// The newest of the heads that the repository holds.
    pub(crate) fn heads(&self, trusted: &[VerifyingKey]) -> Result<Vec<SignedHead>, Error> {
        Ok(stored_heads::newest(self.repository(), trusted)?)
    }

    pub(crate) fn public_log(&self, config: &Config) -> Result<PublicLogConfig, Error> {
        public_log::config(config, self.repository())
    }

    /// Who puts signed heads into the repository; from now on they are carried to further places, too.
    /// `log_was_there`: how it is known that there was a log, where it is. `continue_log`: another takes its place.
    pub(crate) fn publisher(
        &mut self,
        config: &Config,
        log_was_there: Option<String>,
        recovering: bool,
        continue_log: bool,
    ) -> Result<Arc<Publisher>, Error> {
        let publisher = Publisher::prepare(
            &self.own.repository,
            self.monitor.clone(),
            &self.instance.keys(),
            config,
            log_was_there,
            recovering,
        )?;
        let publisher = Arc::new(publisher.continuing(continue_log));
        self.carriers = Some(Carriers::start(
            config,
            &publisher.anchors,
            &self.own.repository,
        ));
        Ok(publisher)
    }

    pub(crate) fn start_stream(&mut self) {
        let mut settings = StreamerConfig::new(
            self.cluster.connect.clone().with_application_name(SLOT),
            SLOT,
            self.store(),
            self.own.keys.public.clone(),
        );
        // No commit waits for it.
        if !self.strict {
            settings = settings.without_haste();
        }
        let streamer = Streamer::start(settings);
        self.monitor.follow(Some(streamer.watch()));
        self.streamer = Some(streamer);
        self.note_recipient();
        self.tidy_wal();
    }

    pub(crate) fn stop_stream(&mut self) {
        self.monitor.follow(None);
        if let Some(streamer) = self.streamer.take()
            && !streamer.stop_within(STREAM_TIMEOUT)
        {
            tracing::warn!("the repository hangs: the stream's last append is left to itself");
        }
    }

    pub(crate) fn watch(&self) -> Option<StreamWatch> {
        self.streamer.as_ref().map(Streamer::watch)
    }

    pub(crate) fn stream_state(&self) -> Option<StreamState> {
        self.streamer.as_ref().map(Streamer::state)
    }

    /// Seals what an earlier stream left in tails. In the background: the bytes are safe where they are, and a process that
    /// ends in the middle harms nothing.
    fn tidy_wal(&self) {
        let Some(private) = self.own.keys.private.clone() else {
            return;
        };
        let (repository, public) = (self.own.repository.clone(), self.own.keys.public.clone());
        std::thread::spawn(
            move || match WalReader::new(&repository, &private).compact(&public) {
                Ok(report) => tracing::debug!(?report, "tidied WAL of earlier streams"),
                Err(error) => {
                    tracing::warn!(%error, "WAL of earlier streams stays in tails for now")
                }
            },
        );
    }

    pub(crate) fn note_recipient(&self) {
        if let Err(error) = self.instance.note_recipient(&self.own.keys.public.id()) {
            tracing::warn!(%error, "whose key is in use could not be noted");
        }
    }

    /// The keys may be replaced while the engine runs. A stream that ends writes all that it received, the slot keeps
    /// the rest, and the next one goes on from there with a data key sealed to the new recipient.
    pub(crate) fn check_keys(&mut self, services: Option<&services::Running>) {
        match self.own.keys.take_new_recipient() {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(recipient = %self.own.keys.public.id(), "the repository's key was replaced");
                if self.streamer.is_some() {
                    self.stop_stream();
                    self.start_stream();
                }
                self.note_recipient();
            }
            Err(error) => tracing::warn!(%error, "the repository's key could not be looked at"),
        }
        match self.own.keys.take_new_signing_key() {
            Ok(false) => {}
            Ok(true) => self.sign_with_the_new_key(services),
            Err(error) => tracing::warn!(%error, "the log's signing key could not be looked at"),
        }
        self.monitor
            .set_key_warning(self.own.keys.age().ok().and_then(|age| age.warning));
    }

    fn sign_with_the_new_key(&self, services: Option<&services::Running>) {
        match (self.trusted(), services) {
            (Ok(trusted), Some(services)) => {
                let signing = &self.own.keys.signing;
                tracing::info!(key = %signing.key_id(), "the log's signing key was rotated");
                services.set_signing_key(Arc::clone(signing), trusted);
            }
            (Ok(_), None) => {}
            (Err(error), _) => tracing::error!(%error, "the log is signed with the old key still"),
        }
    }

    pub(crate) fn backup_request(&self, kind: BackupKind, label: &'static str) -> OwnedRequest {
        OwnedRequest {
            connect: self.cluster.connect.clone(),
            repository: self.own.repository.clone(),
            public: self.own.keys.public.clone(),
            chunk_id: self.own.keys.chunk_id.clone(),
            label,
            kind,
            reading: Reading::new(&self.settings, ReadingSelection::default()),
            cache: self.instance.cache(),
            lock: self.instance.backup_lock(),
        }
    }

    /// As soon as the plan can take it.
    pub(crate) fn need_full_backup(&mut self, label: &'static str) {
        match &mut self.plan {
            Some(plan) => plan.need_full_backup(label),
            None => self.full_backup_needed = Some(label),
        }
    }

    /// Of something that was done already, as soon as the log is open.
    pub(crate) fn put_on_record(&mut self, events: impl IntoIterator<Item = Event>) {
        self.not_on_record.extend(events);
    }

    /// The jobs of the plan: what ended, what is due. True when a backup ended.
    pub(crate) fn run_due_jobs(&mut self, runtime: &Handle) -> bool {
        let host = Host {
            instance: &self.instance,
            repository: &self.own.repository,
            keys: &self.own.keys,
            binaries: self.cluster.binaries.as_ref(),
            user: self.cluster.user.as_ref(),
            config: &self.settings,
            connect: self.cluster.connect.clone(),
            definitions: self.cluster.definitions.clone(),
            monitor: &self.monitor,
            runtime,
            stream: self.streamer.as_ref().map(Streamer::watch),
            attached: self.monitor.is_attached(),
            screens: self.screens,
            label: self.label,
            reading: Reading::new(&self.settings, ReadingSelection::default()),
        };
        if self.plan.is_none() {
            match Plan::begin(&host) {
                Ok(plan) => self.plan = Some(plan),
                Err(error) => tracing::error!(%error, "the plan cannot begin; it is tried again"),
            }
        }
        let Some(plan) = &mut self.plan else {
            return false;
        };
        for event in self.not_on_record.drain(..) {
            plan.put_on_record(event);
        }
        if let Some(label) = self.full_backup_needed.take() {
            plan.need_full_backup(label);
        }
        let a_backup_ended = plan.turn(&host);
        self.follow_pause();
        a_backup_ended
    }

    /// While an operator pauses it the slot keeps what it would have got.
    fn follow_pause(&mut self) {
        let paused = self.plan.as_ref().is_some_and(Plan::is_stream_paused);
        match (paused, self.streamer.is_some()) {
            (true, true) => {
                tracing::warn!("the WAL stream is paused: nothing protects what is committed now");
                self.stop_stream();
                self.is_paused = true;
            }
            (false, false) if self.is_paused => {
                self.is_paused = false;
                self.start_stream();
            }
            _ => {}
        }
    }

    /// A person waits for what a turn of the plan would do.
    pub(crate) fn is_asked(&self) -> bool {
        self.plan.as_ref().is_some_and(Plan::is_asked)
    }

    /// As it was last read, and when it was asked for; not before the first look.
    pub(crate) fn with_catalogue(&self, act: impl FnOnce(&[BackupSummary], i64)) {
        if let Some(plan) = &self.plan {
            plan.with_catalogue(act);
        }
    }

    /// What others find the engine's state in was deleted.
    pub(crate) fn write_again(&mut self) {
        self.note_recipient();
        if let Some(plan) = &mut self.plan {
            plan.write_again();
        }
    }

    /// The engine will stop: what runs may end meanwhile.
    pub(crate) fn cancel_jobs(&self) {
        if let Some(plan) = &self.plan {
            plan.cancel();
        }
    }

    /// The services have stopped, and the last head is signed. The stream goes on.
    pub(crate) fn end_jobs(&mut self) {
        if let Some(carriers) = &mut self.carriers {
            carriers.end();
        }
        if let Some(plan) = &mut self.plan {
            plan.end();
        }
    }
}
