//! The log of a data-service, on a database that somebody else runs: protected where a repository is named. Without one
//! the log is as safe as its database, and health says so.

use std::sync::Arc;

use crate::protection::{ProtectedCluster, Protection};
use audit::{SignedHead, SigningKey, VerifyingKey};
use backup::database::{is_strict, slot_status};
use host::{database::SLOT, instance::Instance, keys};
use operations::{
    Error,
    anchors::{self, Anchors},
    config::Config,
    health::StreamMonitor,
    jobs::Screens,
    primary_repository::open_own,
};
use postgres_physical::{
    server::{Binaries, OsUser, sql::Client},
    wire::ConnectOptions,
};
use repository::backup::{BackupState, catalogue};
use services::{Claim, HeadPublisher, KnownLog, PublicLogConfig, StreamHealth};
use tokio::runtime::Runtime;

use super::wiring::database_url;

const UNPROTECTED: &str =
    "no repository protects this log: name one in [repository] path, and [database] backup_url";
const NO_BACKUP: &str = "no full backup yet: the WAL in the repository restores nothing by itself";

/// Of the backups that it takes.
const LABEL: &str = "by the data-service";

const NOT_SEEN: &str = "the WAL stream was not looked at yet";

#[derive(Debug)]
pub(super) struct DataService {
    signing: Arc<SigningKey>,
    monitor: StreamMonitor,
    cluster: Option<ForeignCluster>,
}

/// One that this engine protects and does not run.
#[derive(Debug)]
struct ForeignCluster {
    protection: Protection,
    /// As the role that owns the tables, until it is known whether it may read every definition.
    owner: Option<ConnectOptions>,
    /// A complete backup on this timeline is known.
    backed_up: bool,
    strict: bool,
}

impl DataService {
    pub(super) fn start(
        instance: &Instance,
        config: &Config,
        screens: Screens,
    ) -> Result<Self, Error> {
        let Some(location) = &config.repository.path else {
            let monitor = StreamMonitor::default();
            monitor.want_strict(config.database.strict);
            tracing::warn!(UNPROTECTED);
            monitor.set_problem(Some(UNPROTECTED.to_owned()));
            return Ok(Self {
                signing: keys::signing_key(&instance.keys())?,
                monitor,
                cluster: None,
            });
        };
        let cluster = ProtectedCluster {
            connect: backup_connection(config)?,
            definitions: None,
            // Only restore tests need them; without them they are not made, and the plan says so.
            binaries: Binaries::find(config.database.binaries.as_deref()).ok(),
            user: OsUser::for_server().ok(),
        };
        let owner = database_url(&config.database.owner_url, "owner_url")?;
        keys::prepare(&instance.keys(), &config.repository_key)?;
        let own = open_own(instance, Some(location), config.repository.lock)?;
        let mut protection = Protection::new(instance, config, own, cluster, screens, LABEL);
        protection.start_stream();
        let monitor = protection.monitor().clone();
        monitor.set_problem(Some(NOT_SEEN.to_owned()));
        Ok(Self {
            signing: Arc::clone(&protection.keys().signing),
            monitor,
            cluster: Some(ForeignCluster {
                protection,
                owner: ConnectOptions::from_url(&owner).ok(),
                backed_up: false,
                strict: config.database.strict,
            }),
        })
    }

    pub(super) fn signing_key(&self) -> Arc<SigningKey> {
        Arc::clone(&self.signing)
    }

    fn protection(&self) -> Option<&Protection> {
        self.cluster.as_ref().map(|cluster| &cluster.protection)
    }

    pub(super) fn repository_id(&self) -> Option<String> {
        Some(self.protection()?.repository().id().to_owned())
    }

    pub(super) fn publisher(
        &mut self,
        instance: &Instance,
        config: &Config,
        recovering: bool,
    ) -> Result<Arc<dyn HeadPublisher>, Error> {
        match &mut self.cluster {
            Some(cluster) => {
                let protection = &mut cluster.protection;
                Ok(protection.publisher(config, None, recovering, false)?)
            }
            None => Ok(Arc::new(InMemory {
                anchors: Anchors::open(&instance.keys(), "")?,
                damage: anchors::noted_damage(&instance.keys()),
                left_at: anchors::noted_end(&instance.keys()),
            })),
        }
    }

    /// The public keys that vouch for the log.
    pub(super) fn trusted(&self) -> Result<Vec<VerifyingKey>, Error> {
        match self.protection() {
            Some(protection) => protection.trusted(),
            None => Ok(vec![self.signing.verifying_key().clone()]),
        }
    }

    /// Without a repository nothing outlives this process that could be published.
    pub(super) fn public_log(&self, config: &Config) -> Result<Option<PublicLogConfig>, Error> {
        let protection = self.protection();
        protection
            .map(|protection| protection.public_log(config))
            .transpose()
    }

    pub(super) fn heads(&self) -> Result<Vec<SignedHead>, Error> {
        match self.protection() {
            Some(protection) => protection.heads(&protection.trusted()?),
            None => Ok(Vec::new()),
        }
    }

    pub(super) fn stream(&self) -> Arc<dyn StreamHealth> {
        Arc::new(self.monitor.clone())
    }

    /// A person waits for what the next look would do.
    pub(super) fn is_asked(&self) -> bool {
        self.protection().is_some_and(Protection::is_asked)
    }

    /// Once a second, and when a person waits.
    pub(super) fn look_after(&mut self, runtime: &Runtime, services: &services::Running) {
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        cluster.protection.check_keys(Some(services));
        match cluster.poll(&self.monitor) {
            Ok(problem) => self.monitor.set_problem(problem),
            Err(error) => {
                tracing::debug!(%error, "the state of the WAL stream could not be read");
                self.monitor
                    .set_problem(Some(format!("the slot cannot be looked at: {error}")));
            }
        }
        if cluster.protection.run_due_jobs(runtime.handle()) {
            // The catalogue says whether it is complete, and on which timeline.
            cluster.backed_up = false;
        }
    }

    pub(super) fn stop(self) {
        self.monitor.follow(None);
        if let Some(mut cluster) = self.cluster {
            cluster.protection.end_jobs();
            // One that hangs on the repository is not waited for; PostgreSQL keeps what it has not got.
            cluster.protection.stop_stream();
        }
    }
}

impl ForeignCluster {
    /// What an operator should look at, if anything.
    fn poll(&mut self, monitor: &StreamMonitor) -> Result<Option<String>, Error> {
        let connect = self.protection.connect();
        let slot = slot_status(connect, SLOT)?;
        monitor.set_slot(slot.as_ref());
        let strict = self.strict && is_strict(connect, SLOT)?;
        monitor.set_strict(strict);
        self.hand_out_definitions();
        let mut problems = Vec::new();
        if self.strict && !strict {
            problems.push(format!(
                "strict mode is wanted, but the server does not wait for the stream: set synchronous_standby_names = '{SLOT}' there"
            ));
        }
        let state = self.protection.stream_state().unwrap_or_default();
        if !self.backed_up && state.attached {
            let backups = catalogue(self.protection.repository())?.backups;
            self.backed_up = backups.iter().any(|backup| {
                backup.state == BackupState::Complete && backup.timeline == state.timeline
            });
        }
        if !self.backed_up {
            problems.push(NO_BACKUP.to_owned());
        }
        if (!self.backed_up || state.needs_full_backup) && state.attached {
            self.protection.need_full_backup(LABEL);
        }
        Ok((!problems.is_empty()).then(|| problems.join("; ")))
    }

    /// Asked once, as soon as the server answers. A role that may not read all of them would make each run of that
    /// job a failure.
    fn hand_out_definitions(&mut self) {
        let Some(owner) = &self.owner else { return };
        match may_read_every_definition(owner) {
            Ok(may) => {
                let owner = self.owner.take().filter(|_| may);
                self.protection.set_definitions(owner);
            }
            Err(error) => tracing::debug!(%error, "whether the owner may read every definition"),
        }
    }
}

/// The passwords of roles are read by a superuser alone.
fn may_read_every_definition(owner: &ConnectOptions) -> Result<bool, Error> {
    let mut client = Client::connect(owner)?;
    let may = client.value("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")?;
    Ok(may.as_deref() == Some("t"))
}

fn backup_connection(config: &Config) -> Result<ConnectOptions, Error> {
    let url = database_url(&config.database.backup_url, "backup_url")?;
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
