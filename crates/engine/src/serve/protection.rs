//! What protects the log of a data-service: the WAL stream, signed heads and full backups, where a repository is named. Without
//! one the log is as safe as its database, and health says so.

use std::{sync::Arc, time::Duration};

use audit::{SignedHead, SigningKey, VerifyingKey};
use backup::{
    database::{is_strict, slot_status},
    stream::{StreamState, Streamer, StreamerConfig},
};
use host::{database::SLOT, instance::Instance, keys, stored_heads};
use postgres_physical::{
    server::{Binaries, OsUser},
    wire::ConnectOptions,
};
use repository::backup::{BackupState, catalogue};
use services::{Claim, HeadPublisher, KnownLog, PublicLogConfig, StreamHealth};
use tokio::runtime::Runtime;

use crate::{
    anchors::{self, Anchors, Carriers},
    backup_request::{Reading, ReadingSelection},
    config::Config,
    error::Error,
    heads::Publisher,
    health::StreamMonitor,
    plan::{Host, Plan},
    primary_repository::{PrimaryRepository, open_own},
    public_log,
};

const UNPROTECTED: &str =
    "no repository protects this log: name one in [repository] path, and [database] backup_url";
const NO_BACKUP: &str = "no full backup yet: the WAL in the repository restores nothing by itself";

/// Of the backups that it takes.
const LABEL: &str = "by the data-service";

/// How long the last append may take at the stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

const NOT_SEEN: &str = "the WAL stream was not looked at yet";

#[derive(Debug)]
pub(super) struct Protection {
    signing: Arc<SigningKey>,
    monitor: StreamMonitor,
    cluster: Option<ProtectedCluster>,
}

#[derive(Debug)]
struct ProtectedCluster {
    own: PrimaryRepository,
    connect: ConnectOptions,
    /// None while an operator pauses it.
    streamer: Option<Streamer>,
    plan: Option<Plan>,
    carriers: Option<Carriers>,
    binaries: Option<Binaries>,
    user: Option<OsUser>,
    settings: crate::config::Backup,
    reading: Reading,
    /// A complete backup on this timeline is known.
    backed_up: bool,
    strict: bool,
}

impl Protection {
    pub(super) fn start(instance: &Instance, config: &Config) -> Result<Self, Error> {
        let monitor = StreamMonitor::default();
        monitor.want_strict(config.database.strict);
        let Some(location) = &config.repository.path else {
            tracing::warn!(UNPROTECTED);
            monitor.set_problem(Some(UNPROTECTED.to_owned()));
            return Ok(Self {
                signing: keys::signing_key(&instance.keys())?,
                monitor,
                cluster: None,
            });
        };
        let connect = backup_connection(config)?;
        keys::prepare(&instance.keys(), &config.repository_key)?;
        let own = open_own(instance, Some(location), config.repository.lock)?;
        let streamer = streamer(&connect, &own);
        note_recipient(instance, &own);
        monitor.follow(Some(streamer.watch()));
        monitor.set_problem(Some(NOT_SEEN.to_owned()));
        Ok(Self {
            signing: Arc::clone(&own.keys.signing),
            monitor,
            cluster: Some(ProtectedCluster {
                own,
                connect,
                streamer: Some(streamer),
                plan: None,
                carriers: None,
                // Only proofs need them; without them they are not made, and the plan says so.
                binaries: Binaries::find(config.database.binaries.as_deref()).ok(),
                user: OsUser::for_server().ok(),
                settings: config.backup.clone(),
                reading: Reading::new(&config.backup, ReadingSelection::default()),
                backed_up: false,
                strict: config.database.strict,
            }),
        })
    }

    pub(super) fn signing_key(&self) -> Arc<SigningKey> {
        Arc::clone(&self.signing)
    }

    pub(super) fn repository_id(&self) -> Option<String> {
        let cluster = self.cluster.as_ref()?;
        Some(cluster.own.repository.id().to_owned())
    }

    pub(super) fn publisher(
        &mut self,
        instance: &Instance,
        config: &Config,
        recovering: bool,
    ) -> Result<Arc<dyn HeadPublisher>, Error> {
        let Some(cluster) = &mut self.cluster else {
            return Ok(Arc::new(InMemory {
                anchors: Anchors::open(&instance.keys(), "")?,
                damage: anchors::noted_damage(&instance.keys()),
                left_at: anchors::noted_end(&instance.keys()),
            }));
        };
        let publisher = Arc::new(Publisher::prepare(
            &cluster.own.repository,
            self.monitor.clone(),
            &instance.keys(),
            config,
            None,
            recovering,
        )?);
        cluster.carriers = Some(Carriers::start(
            config,
            &publisher.anchors,
            &cluster.own.repository,
        ));
        Ok(publisher)
    }

    /// The public keys that vouch for the log.
    pub(super) fn trusted(&self, instance: &Instance) -> Result<Vec<VerifyingKey>, Error> {
        match &self.cluster {
            Some(cluster) => Ok(keys::trusted(&instance.keys(), &cluster.own.repository)?),
            None => Ok(vec![self.signing.verifying_key().clone()]),
        }
    }

    /// Without a repository nothing outlives this process that could be published.
    pub(super) fn public_log(&self, config: &Config) -> Result<Option<PublicLogConfig>, Error> {
        let cluster = self.cluster.as_ref();
        cluster
            .map(|cluster| public_log::config(config, &cluster.own.repository))
            .transpose()
    }

    pub(super) fn heads(&self, instance: &Instance) -> Result<Vec<SignedHead>, Error> {
        match &self.cluster {
            Some(cluster) => {
                let repository = &cluster.own.repository;
                Ok(stored_heads::newest(
                    repository,
                    &keys::trusted(&instance.keys(), repository)?,
                )?)
            }
            None => Ok(Vec::new()),
        }
    }

    pub(super) fn stream(&self) -> Arc<dyn StreamHealth> {
        Arc::new(self.monitor.clone())
    }

    /// A person waits for what the next look would do.
    pub(super) fn is_asked(&self) -> bool {
        let plan = self.cluster.as_ref().and_then(|it| it.plan.as_ref());
        plan.is_some_and(Plan::is_asked)
    }

    /// Once a second, and when a person waits.
    pub(super) fn look_after(
        &mut self,
        runtime: &Runtime,
        instance: &Instance,
        services: &services::Running,
    ) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        cluster.check_keys(&self.monitor, instance);
        cluster.check_signing(instance, services);
        match cluster.poll(&self.monitor) {
            Ok(problem) => self.monitor.set_problem(problem),
            Err(error) => {
                tracing::debug!(%error, "the state of the WAL stream could not be read");
                self.monitor
                    .set_problem(Some(format!("the slot cannot be looked at: {error}")));
            }
        }
        cluster.run_due_jobs(&self.monitor, runtime, instance);
    }

    pub(super) fn stop(self) {
        self.monitor.follow(None);
        if let Some(mut cluster) = self.cluster {
            if let Some(carriers) = &mut cluster.carriers {
                carriers.end();
            }
            if let Some(plan) = &mut cluster.plan {
                plan.end();
            }
            // One that hangs on the repository is not waited for; PostgreSQL keeps what it has not got.
            if let Some(streamer) = cluster.streamer {
                streamer.stop_within(STOP_TIMEOUT);
            }
        }
    }
}

impl ProtectedCluster {
    /// As in `bre up`: the key may be replaced while we run.
    fn check_keys(&mut self, monitor: &StreamMonitor, instance: &Instance) {
        match self.own.keys.take_new_recipient() {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(recipient = %self.own.keys.public.id(), "the repository's key was replaced");
                if let Some(before) = self.streamer.take() {
                    monitor.follow(None);
                    let next = streamer(&self.connect, &self.own);
                    before.stop();
                    monitor.follow(Some(next.watch()));
                    self.streamer = Some(next);
                }
                note_recipient(instance, &self.own);
            }
            Err(error) => tracing::warn!(%error, "the repository's key could not be looked at"),
        }
        monitor.set_key_warning(self.own.keys.age().ok().and_then(|age| age.warning));
    }

    fn check_signing(&mut self, instance: &Instance, services: &services::Running) {
        let taken = self.own.keys.take_new_signing_key().and_then(|new| {
            let trusted = keys::trusted(&instance.keys(), &self.own.repository);
            new.then_some(trusted).transpose()
        });
        match taken {
            Ok(None) => {}
            Ok(Some(trusted)) => {
                tracing::info!(key = %self.own.keys.signing.key_id(), "the log's signing key was rotated");
                services.set_signing_key(Arc::clone(&self.own.keys.signing), trusted);
            }
            Err(error) => tracing::warn!(%error, "the log's signing key could not be looked at"),
        }
    }

    /// What an operator should look at, if anything.
    fn poll(&mut self, monitor: &StreamMonitor) -> Result<Option<String>, Error> {
        let slot = slot_status(&self.connect, SLOT)?;
        monitor.set_slot(slot.as_ref());
        let strict = self.strict && is_strict(&self.connect, SLOT)?;
        monitor.set_strict(strict);
        let mut problems = Vec::new();
        if self.strict && !strict {
            problems.push(format!(
                "strict mode is wanted, but the server does not wait for the stream: set synchronous_standby_names = '{SLOT}' there"
            ));
        }
        let state = self.state();
        if !self.backed_up && state.attached {
            let backups = catalogue(&self.own.repository)?.backups;
            self.backed_up = backups.iter().any(|backup| {
                backup.state == BackupState::Complete && backup.timeline == state.timeline
            });
        }
        if !self.backed_up {
            problems.push(NO_BACKUP.to_owned());
        }
        let wanted = !self.backed_up || state.needs_full_backup;
        if wanted
            && state.attached
            && let Some(plan) = &mut self.plan
        {
            plan.need_full_backup(LABEL);
        }
        Ok((!problems.is_empty()).then(|| problems.join("; ")))
    }

    /// The jobs of the plan, as in `bre up`.
    fn run_due_jobs(&mut self, monitor: &StreamMonitor, runtime: &Runtime, instance: &Instance) {
        let host = Host {
            instance,
            repository: &self.own.repository,
            keys: &self.own.keys,
            binaries: self.binaries.as_ref(),
            user: self.user.as_ref(),
            config: &self.settings,
            connect: self.connect.clone(),
            definitions: None,
            monitor,
            runtime: runtime.handle(),
            stream: self.streamer.as_ref().map(Streamer::watch),
            attached: self.state().attached,
            label: LABEL,
            reading: self.reading,
        };
        if self.plan.is_none() {
            match Plan::begin(&host) {
                Ok(plan) => self.plan = Some(plan),
                Err(error) => tracing::error!(%error, "the plan cannot begin; it is tried again"),
            }
        }
        let Some(plan) = &mut self.plan else { return };
        if plan.turn(&host) {
            // The catalogue says whether it is complete, and on which timeline.
            self.backed_up = false;
        }
        let paused = plan.is_stream_paused();
        match (paused, self.streamer.take()) {
            (true, Some(streamer)) => {
                tracing::warn!("the WAL stream is paused: nothing protects what is committed now");
                monitor.follow(None);
                streamer.stop_within(STOP_TIMEOUT);
            }
            (false, None) => {
                let next = streamer(&self.connect, &self.own);
                monitor.follow(Some(next.watch()));
                self.streamer = Some(next);
            }
            (_, unchanged) => self.streamer = unchanged,
        }
    }

    fn state(&self) -> StreamState {
        let state = self.streamer.as_ref().map(Streamer::state);
        state.unwrap_or_default()
    }
}

fn streamer(connect: &ConnectOptions, own: &PrimaryRepository) -> Streamer {
    Streamer::start(StreamerConfig::new(
        connect.clone().with_application_name(SLOT),
        SLOT,
        Arc::clone(&own.store),
        own.keys.public.clone(),
    ))
}

fn note_recipient(instance: &Instance, own: &PrimaryRepository) {
    if let Err(error) = instance.note_recipient(&own.keys.public.id()) {
        tracing::warn!(%error, "whose key is in use could not be noted");
    }
}

fn backup_connection(config: &Config) -> Result<ConnectOptions, Error> {
    let url = super::wiring::database_url(&config.database.backup_url, "backup_url")?;
    ConnectOptions::from_url(&url)
        .map(|connect| connect.with_database("postgres"))
        .map_err(|error| Error::failed(format!("[database] backup_url: {error}")))
}

/// Heads that no repository keeps: the newest of them lies beside the keys.
#[derive(Debug)]
struct InMemory {
    anchors: Anchors,
    damage: Option<String>,
    left_at: Option<SignedHead>,
}

impl HeadPublisher for InMemory {
    fn durable_lsn(&self) -> Option<u64> {
        Some(u64::MAX)
    }

    fn publish(&self, head: &SignedHead) -> Result<(), String> {
        self.anchors
            .keep("", head)
            .map_err(|error| error.to_string())
    }

    fn known(&self) -> KnownLog {
        let file = self.anchors.file();
        KnownLog {
            anchors: file.head().ok().flatten().into_iter().collect(),
            claimed: file.claim(),
            damage: self.damage.clone(),
            left_at: self.left_at.clone(),
            ..KnownLog::default()
        }
    }

    fn claim(&self, claim: &Claim) -> Result<(), String> {
        self.anchors.claim(claim).map_err(|error| error.to_string())
    }

    fn note_damage(&self, reason: Option<&str>) -> Result<(), String> {
        self.anchors
            .note_damage(reason)
            .map_err(|error| error.to_string())
    }

    fn note_end(&self, head: &SignedHead) -> Result<(), String> {
        self.anchors
            .note_end(head)
            .map_err(|error| error.to_string())
    }
}
