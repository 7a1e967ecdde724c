//! Wiring: start in the one order used everywhere (database, data, cache, calculation, gateway), stop in the opposite one.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use arc_swap::ArcSwap;

use crate::api_gateway::{
    self, DAYS_DEFAULT, Gateway, GatewayParts, KeyRequest, SharedLimits, WrongKeys,
};
use crate::cache::{Cache, Seal};
use crate::calculation::Calculator;
use crate::config::{DatabaseConfig, RequestsPerMinute, ServicesConfig};
use crate::data::{
    self, AuditLog, DatabaseError, MarketRefresher, SampleRates, SeedError, Writer, WriterState,
};
use crate::domain::keys::{Role, Tier};
use crate::domain::protection::RecoveryFact;
use crate::error::ServiceError;
use crate::market::{FeedSettings, Market};
use crate::public_log::PublicFolder;
use crate::reload::{self, ReloadReport};
use crate::unrecorded::UnrecordedAnswers;
use crate::wiring::{AuditLogBackend, RemoteServices};
use crate::{internal, server};

/// See [`Services::start`].
#[derive(Debug)]
pub struct Services;

/// The services, running. Dropping it ends them at once; [`Running::shutdown`] ends them well.
#[derive(Debug)]
pub struct Running {
    public_address: Option<SocketAddr>,
    internal_address: Option<SocketAddr>,
    gateway: Gateway,
    /// Names of those that run here.
    services: String,
    /// Where the log is written.
    writer: Option<Writer>,
    database: watch::Sender<DatabaseConfig>,
    ready: watch::Receiver<Readiness>,
    drain: watch::Sender<bool>,
    stop_heads: watch::Sender<bool>,
    feeds_changed: watch::Sender<()>,
    servers: Vec<JoinHandle<()>>,
    background: Vec<JoinHandle<()>>,
    writer_task: Option<JoinHandle<()>>,
    heads_task: Option<JoinHandle<()>>,
}

/// How far the first run's preparations have come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Readiness {
    Waiting(String),
    Ready,
}

const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// For the writer's last commit, and for the last head: each.
const LAST_TIMEOUT: Duration = Duration::from_secs(6);
const HEAD_TIMEOUT: Duration = Duration::from_secs(3);
const RETRY_EVERY: Duration = Duration::from_millis(200);
const HOUSE_EVERY: Duration = Duration::from_secs(5);

impl Services {
    /// Listens at once; serves rates as soon as there is a market view, locates as soon as the log is open. A database that is away
    /// is waited for in the background; one whose schema cannot be brought up to date is an error.
    pub async fn start(config: ServicesConfig) -> Result<Running, ServiceError> {
        api_gateway::recorder();
        if config.audit.is_some() {
            match data::migrate(&config.database.owner).await {
                Err(DatabaseError::Connect(reason)) => {
                    tracing::warn!(%reason, "the database is away; it is waited for")
                }
                result => result?,
            }
        }
        let remote = RemoteServices::of(&config)?;
        Services::assemble(config, &remote, |config, market, seal| {
            AuditLogBackend::of(config, &remote, market, seal)
        })
    }

    /// For benchmarks only: the same server, but quotes are answered without being recorded anywhere. The database is read, for
    /// keys and the market, and never written.
    pub async fn start_unrecorded(config: ServicesConfig) -> Result<Running, ServiceError> {
        api_gateway::recorder();
        let remote = RemoteServices::of(&config)?;
        Services::assemble(config, &remote, |config, _, _| {
            Ok(AuditLogBackend {
                record: Arc::new(UnrecordedAnswers::new()),
                stream: Arc::clone(&config.stream),
                local: None,
                tasks: Vec::new(),
            })
        })
    }

    fn assemble(
        mut config: ServicesConfig,
        remote: &RemoteServices,
        data: impl FnOnce(
            &mut ServicesConfig,
            &Arc<Market>,
            &Arc<Seal>,
        ) -> Result<AuditLogBackend, ServiceError>,
    ) -> Result<Running, ServiceError> {
        let (public_address, internal_address) = (
            address_of(config.public.as_ref())?,
            address_of(config.internal.as_ref())?,
        );
        if let Some(control) = &config.control
            && let Some(path) = control.local_addr()?.as_pathname()
        {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        }
        let tls = config.settings.tls.as_ref().map(server::acceptor);
        let options = server::ConnectionOptions {
            head_timeout: config.settings.head_timeout,
            tls: tls.transpose().map_err(ServiceError::Tls)?,
        };
        let market = Arc::new(Market::new(
            config.settings.view_age_max,
            config.settings.feeds.clone(),
        ));
        let seal = Arc::new(seal_of(&config));
        let data = data(&mut config, &market, &seal)?;
        let settings = config.settings;
        let redis = config
            .redis
            .clone()
            .filter(|_| settings.share_limits && public_address.is_some());
        let shared_limits = redis.map(SharedLimits::start).map(Arc::new);
        let cache = Arc::new(Cache::new(config.redis, seal));
        let refresher = Arc::new(MarketRefresher::new(
            config.database.service.clone(),
            Arc::clone(&market),
            remote.market_cache(&cache),
        ));
        let calculator = Calculator {
            market,
            refresher: Arc::clone(&refresher),
            writer: data.record,
            quote_valid: settings.quote_valid,
        };
        let (local, mut background) = (data.local, data.tasks);
        let public_log = local.as_ref().and_then(|local| local.public_log.clone());
        if let Some(log) = &public_log {
            background.push(tokio::spawn(Arc::clone(log).run(Arc::clone(&refresher))));
            let asked = log
                .witnesses()
                .map(|witness| tokio::spawn(Arc::clone(log).ask(witness)));
            background.extend(asked);
        }
        let gateway = Gateway::from(GatewayParts {
            calculation: remote.calculation(&calculator, settings.quote_deadline),
            calculator,
            refresher: Arc::clone(&refresher),
            cache: Arc::clone(&cache),
            heads: local.as_ref().map(|local| Arc::clone(&local.heads)),
            public_folder: match &public_log {
                Some(log) => Some(log.folder()),
                None => settings.public_folder.map(PublicFolder::new),
            },
            public_log,
            show_log: settings.show_log,
            stream: data.stream,
            strict: config.strict,
            limits: Arc::new(ArcSwap::from_pointee(settings.requests_per_minute)),
            reload: Arc::default(),
            peers: remote.peers(),
            shared_limits,
            metrics: settings.metrics,
            wrong_keys: WrongKeys::new(settings.trusted_proxies),
            started: AtomicBool::new(!settings.starts_later),
            body_bytes_max: settings.body_bytes_max,
            timeout: settings.quote_deadline,
            request_deadline: settings.request_deadline,
            books: Arc::default(),
            book_settings: settings.books,
        });
        let (database, configured) = watch::channel(config.database);
        let (prepared, ready) = watch::channel(Readiness::Waiting("starting".to_owned()));
        let drain = watch::channel(false).0;
        let stop_heads = watch::channel(false).0;
        let feeds_changed = watch::channel(()).0;
        let writer = local.as_ref().map(|local| local.writer.clone());
        background.extend([
            tokio::spawn(Arc::clone(&refresher).run()),
            tokio::spawn(renew_cache(cache)),
            tokio::spawn(prepare(
                configured,
                writer.clone(),
                refresher,
                config.sample,
                prepared,
            )),
        ]);
        if let Some(writer) = writer.clone() {
            // Feeds are asked where what they say is recorded.
            let refresher = Arc::clone(&gateway.refresher);
            let record: Arc<dyn AuditLog> = Arc::new(writer);
            let sweep = data::sweep(Arc::clone(&refresher), Arc::clone(&record));
            background.push(tokio::spawn(sweep));
            let changed = feeds_changed.subscribe();
            let feeds = ask_feeds(refresher, record, changed, ready.clone());
            background.push(tokio::spawn(feeds));
        }
        let looks = gateway.peers.iter().cloned();
        background.extend(looks.map(|peer| tokio::spawn(peer.look())));
        if let Some(local) = &local {
            background.push(tokio::spawn(Arc::clone(&local.heads).watch_over()));
        }
        let heads_task = local.as_ref().map(|local| {
            let heads = Arc::clone(&local.heads);
            tokio::spawn(heads.publish_all(stop_heads.subscribe(), HEAD_TIMEOUT))
        });
        let services = config.services.to_string();
        let mut servers = Vec::new();
        if let Some(public) = config.public {
            let routes = api_gateway::public_routes(gateway.clone());
            servers.push(server::serve(public, routes, options, drain.subscribe()));
        }
        if let Some(listener) = config.internal {
            let secret = config.elsewhere.secret.ok_or(ServiceError::NoSecret)?;
            let routes = internal::routes(gateway.clone(), config.services, Arc::new(secret));
            let options = server::ConnectionOptions {
                head_timeout: settings.head_timeout,
                tls: None,
            };
            servers.push(server::serve(listener, routes, options, drain.subscribe()));
        }
        if let Some(control) = config.control {
            let routes = api_gateway::control_routes(gateway.clone());
            servers.push(serve(control, routes, drain.subscribe()));
        }
        Ok(Running {
            public_address,
            internal_address,
            gateway,
            services,
            writer,
            database,
            ready,
            drain,
            stop_heads,
            feeds_changed,
            servers,
            background,
            writer_task: local.map(|local| local.writer_task),
            heads_task,
        })
    }
}

impl Running {
    /// Where the public API listens; nowhere without an api-gateway.
    pub fn address(&self) -> Option<SocketAddr> {
        self.public_address
    }

    /// Where other services ask.
    pub fn internal_address(&self) -> Option<SocketAddr> {
        self.internal_address
    }

    /// Serves the command line on another socket as well: the file of the first one may have been deleted.
    pub fn serve_control(&mut self, listener: tokio::net::UnixListener) {
        let routes = api_gateway::control_routes(self.gateway.clone());
        self.servers
            .push(serve(listener, routes, self.drain.subscribe()));
    }

    /// What had to be there before anybody is told that this is ready, is.
    pub fn started(&self) {
        self.gateway.started.store(true, Ordering::Release);
    }

    pub fn writer_state(&self) -> WriterState {
        self.gateway.calculator.writer.state()
    }

    pub fn watch_writer(&self) -> watch::Receiver<WriterState> {
        self.gateway.calculator.writer.watch_state()
    }

    /// Waits until the starting set is in, the log is open and the market view and keys are read.
    pub async fn wait_ready(&self, timeout: Duration) -> Result<(), ServiceError> {
        let mut ready = self.ready.clone();
        let waited =
            tokio::time::timeout(timeout, ready.wait_for(|ready| *ready == Readiness::Ready))
                .await
                .is_ok();
        if waited {
            return Ok(());
        }
        let state = match &*self.ready.borrow() {
            Readiness::Waiting(why) => {
                format!("{why}; audit log: {}", self.writer_state().explain())
            }
            Readiness::Ready => return Ok(()),
        };
        Err(ServiceError::NotReady {
            seconds: timeout.as_secs(),
            state,
        })
    }

    /// Lets go of the audit log's connection and keeps off until [`Running::resume_writer`]. Locates are refused meanwhile, and what
    /// was being committed is answered "outcome unknown"; rates go on.
    pub async fn pause_writer(&self) {
        if let Some(writer) = &self.writer {
            writer.pause().await;
        }
    }

    /// Takes up the log again, with the fact of a recovery if there was one: it opens a new epoch.
    pub async fn resume_writer(&self, recovery: Option<RecoveryFact>) -> Result<(), ServiceError> {
        let owner = self.database.borrow().owner.clone();
        // What was restored may be older than this engine's schema.
        data::migrate(&owner).await?;
        if let Some(writer) = &self.writer {
            writer.resume(recovery);
        }
        Ok(())
    }

    /// The database lives elsewhere from now on.
    pub fn set_database(&self, database: DatabaseConfig) {
        if let Some(writer) = &self.writer {
            writer.set_database(database.service.clone());
        }
        self.gateway
            .refresher
            .set_database(database.service.clone());
        self.database.send_replace(database);
    }

    /// A new key for a client; its text is never seen again.
    pub async fn create_key(
        &self,
        client_id: &str,
        tier: Tier,
        by: &str,
    ) -> Result<String, ServiceError> {
        let order = KeyRequest {
            client_id: client_id.to_owned(),
            role: Role::Client,
            tier,
            days: DAYS_DEFAULT,
            by: Some(by.to_owned()),
        };
        let issued = api_gateway::issue(&self.gateway, order).await;
        issued
            .map(|(key, _)| key)
            .map_err(|error| ServiceError::Key(format!("{error:?}")))
    }

    /// The log's end as this engine knows it, freshly signed.
    pub fn signed_head(&self) -> Option<audit::SignedHead> {
        let head = self.writer.as_ref()?.tip()?;
        let head = head.head(crate::domain::time::now_micros(), 0)?;
        Some(self.gateway.heads.as_ref()?.signing_key().sign(&head))
    }

    /// The signing key was rotated: heads and openings from now on are signed by this one.
    pub fn set_signing_key(&self, key: Arc<audit::SigningKey>, trusted: Vec<audit::VerifyingKey>) {
        if let Some(heads) = &self.gateway.heads {
            heads.set_signing_key(key, trusted);
        }
    }

    /// Whether this process opened a log in the place of one that is lost whole.
    pub fn log_has_continued(&self) -> bool {
        let heads = self.gateway.heads.as_ref();
        heads.is_some_and(|heads| heads.has_continued())
    }

    /// In force for the next request.
    pub fn set_limits(&self, limits: RequestsPerMinute) {
        self.gateway.limits.store(Arc::new(limits));
    }

    /// In force for the next look at the feeds, and for this process's market view, which is read again.
    pub fn set_feeds(&self, feeds: FeedSettings) {
        self.gateway.calculator.market.set_feeds(feeds);
        self.feeds_changed.send_replace(());
        let refresher = Arc::clone(&self.gateway.refresher);
        // Should it fail, the next connection reads everything.
        tokio::spawn(async move { drop(refresher.refresh().await) });
    }

    /// Shows in `/config` what a change of settings brought, and puts it on record; await it for the latter.
    pub fn reloaded(&self, report: ReloadReport) -> impl Future<Output = ()> + Send + 'static {
        let report = Arc::new(report);
        self.gateway.reload.store(Some(Arc::clone(&report)));
        let writer = Arc::clone(&self.gateway.calculator.writer);
        reload::record(writer, report, self.services.clone())
    }

    /// Answers what has been asked, then stops; the last head is published if the repository gets there. Ends within
    /// [`Running::STOP_SECONDS_MAX`] whatever runs.
    pub async fn shutdown(mut self) {
        self.drain.send_replace(true);
        let drained = tokio::time::Instant::now() + DRAIN_TIMEOUT;
        for server in &mut self.servers {
            // One timeout for all of them.
            if tokio::time::timeout_at(drained, &mut *server)
                .await
                .is_err()
            {
                server.abort();
            }
        }
        self.gateway.books.halt();
        if let Some(writer) = &self.writer {
            writer.stop();
        }
        self.stop_heads_after(LAST_TIMEOUT).await;
    }

    async fn stop_heads_after(&mut self, timeout: Duration) {
        if let Some(task) = self.writer_task.take()
            && tokio::time::timeout(timeout, task).await.is_err()
        {
            tracing::warn!("the writer of the audit log does not end; it is left to itself");
        }
        self.stop_heads.send_replace(true);
        if let Some(task) = self.heads_task.take()
            && tokio::time::timeout(timeout, task).await.is_err()
        {
            tracing::warn!("the last signed head is not published yet; it is left to itself");
        }
    }

    /// How long [`Running::shutdown`] takes at most.
    pub const STOP_SECONDS_MAX: u64 = DRAIN_TIMEOUT.as_secs() + 2 * LAST_TIMEOUT.as_secs();
}

impl Drop for Running {
    fn drop(&mut self) {
        let tasks = self
            .servers
            .iter()
            .chain(&self.background)
            .chain(&self.writer_task)
            .chain(&self.heads_task);
        tasks.for_each(JoinHandle::abort);
    }
}

/// The secret that all services of a system share, or, where one process is all of it, what its signing key can make.
fn seal_of(config: &ServicesConfig) -> Seal {
    let audit = config.audit.as_ref();
    let identity = audit.map(|audit| match &config.settings.repository_id {
        Some(repository) => format!("{} of {repository}", audit.log),
        None => format!("{} of key {}", audit.log, audit.signing_key.key_id()),
    });
    match (&config.elsewhere.secret, audit) {
        (Some(secret), _) => Seal::new(secret.bytes(), identity),
        (None, Some(audit)) => {
            Seal::new(&audit.signing_key.secret_for("the shared cache"), identity)
        }
        // Benchmarks: nobody reads it again.
        (None, None) => Seal::new(uuid::Uuid::now_v7().as_bytes(), identity),
    }
}

fn address_of(listener: Option<&TcpListener>) -> std::io::Result<Option<SocketAddr>> {
    listener.map(TcpListener::local_addr).transpose()
}

fn serve<L>(listener: L, routes: axum::Router, mut drain: watch::Receiver<bool>) -> JoinHandle<()>
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
{
    let draining = async move {
        let _ = drain.wait_for(|drain| *drain).await;
    };
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes)
            .with_graceful_shutdown(draining)
            .await
        {
            tracing::error!(%error, "a listener ended");
        }
    })
}

/// Begins anew when the settings change; what was being asked is dropped. Not before the first run is prepared: it looks
/// whether the database has a book of its own, and a delivery that comes first would be taken for one.
async fn ask_feeds(
    refresher: Arc<MarketRefresher>,
    record: Arc<dyn AuditLog>,
    mut changed: watch::Receiver<()>,
    mut ready: watch::Receiver<Readiness>,
) {
    let is_ready = |readiness: &Readiness| matches!(readiness, Readiness::Ready);
    if ready.wait_for(is_ready).await.is_err() {
        return;
    }
    loop {
        let asking = async {
            data::poll(Arc::clone(&refresher), Arc::clone(&record)).await;
            // None is set, or none can be asked.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = asking => {}
            told = changed.changed() => if told.is_err() { return },
        }
    }
}

/// Small things that have to happen now and then.
async fn renew_cache(cache: Arc<Cache>) {
    let mut every = tokio::time::interval(HOUSE_EVERY);
    loop {
        every.tick().await;
        cache.probe().await;
        // Measurements pile up between scrapes otherwise.
        if let Some(recorder) = api_gateway::recorder() {
            recorder.run_upkeep();
        }
    }
}

/// Brings a first run to where it can serve, however long the database takes.
async fn prepare(
    database: watch::Receiver<DatabaseConfig>,
    writer: Option<Writer>,
    refresher: Arc<MarketRefresher>,
    sample: Option<SampleRates>,
    prepared: watch::Sender<Readiness>,
) {
    loop {
        let target = database.borrow().clone();
        match prepare_once(&target, writer.as_ref(), &refresher, sample).await {
            Ok(()) => break,
            Err(error) => {
                prepared.send_replace(Readiness::Waiting(error.to_string()));
                tokio::time::sleep(RETRY_EVERY).await;
            }
        }
    }
    prepared.send_replace(Readiness::Ready);
}

async fn prepare_once(
    database: &DatabaseConfig,
    writer: Option<&Writer>,
    refresher: &MarketRefresher,
    sample: Option<SampleRates>,
) -> Result<(), SeedError> {
    if let Some(writer) = writer {
        data::migrate(&database.owner).await?;
        let mut state = writer.watch_state();
        let _ = state.wait_for(WriterState::is_serving).await;
        data::seed(&database.owner, writer, sample).await?;
    }
    let mut reads = refresher.reads();
    let _ = reads.wait_for(|reads| *reads > 0).await;
    refresher.refresh().await?;
    Ok(())
}
