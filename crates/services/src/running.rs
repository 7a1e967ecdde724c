//! Wiring: start in the one order used everywhere (database, data, cache, calculation, gateway), stop in the opposite one.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::api_gateway::{self, DAYS_DEFAULT, Gateway, KeyOrder, Role, Tier};
use crate::cache::Cache;
use crate::calculation::{Calculator, Market};
use crate::config::{DatabaseConfig, RecoveryFact, SampleBook, ServicesConfig};
use crate::data::{
    self, DatabaseError, HeadKeeper, Keeper, SeedError, Writer, WriterConfig, WriterState,
};

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("a listener is not usable: {0}")]
    Listener(#[from] std::io::Error),
    #[error("not ready after {seconds} s: {state}")]
    NotReady { seconds: u64, state: String },
    #[error("the API key was not created: {0}")]
    Key(String),
}

/// See [`Services::start`].
#[derive(Debug)]
pub struct Services;

/// The services, running. Dropping it ends them at once; [`Running::shutdown`] ends them well.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    gateway: Gateway,
    writer: Writer,
    database: watch::Sender<DatabaseConfig>,
    ready: watch::Receiver<Readiness>,
    drain: watch::Sender<bool>,
    stop_heads: watch::Sender<bool>,
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

const DRAIN_PATIENCE: Duration = Duration::from_secs(10);
const HEAD_PATIENCE: Duration = Duration::from_secs(3);
const RETRY_EVERY: Duration = Duration::from_millis(200);
const HOUSE_EVERY: Duration = Duration::from_secs(5);

impl Services {
    /// Listens at once; serves rates as soon as there is a market view, locates as soon as the log is open. A database that is away
    /// is waited for in the background; one whose schema cannot be brought up to date is an error.
    pub async fn start(config: ServicesConfig) -> Result<Running, ServiceError> {
        api_gateway::recorder();
        match data::migrate(&config.database.owner).await {
            Err(DatabaseError::Connect(reason)) => {
                tracing::warn!(%reason, "the database is away; it is waited for")
            }
            result => result?,
        }
        let address = config.public.local_addr()?;
        if let Some(path) = config.control.local_addr()?.as_pathname() {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        }
        let audit = config.audit;
        let keys = vec![audit.signing_key.verifying_key().clone()];
        let heads = Arc::new(HeadKeeper::new(
            audit.log,
            audit.signing_key,
            audit.publisher,
            &audit.heads,
            &keys,
        ));
        let settings = config.settings;
        let (writer, writer_task) = Writer::start(WriterConfig {
            log: audit.log,
            keys,
            heads: Arc::clone(&heads),
            recovery: audit.recovery,
            database: config.database.service.clone(),
            stream: Arc::clone(&config.stream),
            strict: config.strict,
            deadline: settings.quote_deadline,
            queue_max: settings.queue_quotes_max,
            batch_max: settings.batch_quotes_max,
        });
        let market = Arc::new(Market::new(settings.view_age_max));
        let cache = Arc::new(Cache::new(config.redis));
        let keeper = Arc::new(Keeper::new(
            config.database.service.clone(),
            Arc::clone(&market),
            Arc::clone(&cache),
        ));
        let calculator = Calculator {
            market,
            writer: Arc::new(writer.clone()),
            quote_valid: settings.quote_valid,
        };
        let gateway = Gateway {
            calculation: Arc::new(calculator.clone()),
            calculator,
            keeper: Arc::clone(&keeper),
            cache: Arc::clone(&cache),
            heads: Arc::clone(&heads),
            stream: config.stream,
            strict: config.strict,
            limits: settings.requests_per_minute,
            body_bytes_max: settings.body_bytes_max,
            patience: settings.quote_deadline,
        };
        let (database, configured) = watch::channel(config.database);
        let (prepared, ready) = watch::channel(Readiness::Waiting("starting".to_owned()));
        let drain = watch::channel(false).0;
        let stop_heads = watch::channel(false).0;
        let heads_task =
            tokio::spawn(Arc::clone(&heads).publish_all(stop_heads.subscribe(), HEAD_PATIENCE));
        let background = vec![
            tokio::spawn(Arc::clone(&keeper).run()),
            tokio::spawn(keep_house(cache)),
            tokio::spawn(prepare(
                configured,
                writer.clone(),
                keeper,
                config.sample,
                prepared,
            )),
        ];
        // Small answers are sent at once, not collected.
        let public = config
            .public
            .tap_io(|stream| drop(stream.set_nodelay(true)));
        let servers = vec![
            serve(
                public,
                api_gateway::public_routes(gateway.clone()),
                drain.subscribe(),
            ),
            serve(
                config.control,
                api_gateway::control_routes(gateway.clone()),
                drain.subscribe(),
            ),
        ];
        Ok(Running {
            address,
            gateway,
            writer,
            database,
            ready,
            drain,
            stop_heads,
            servers,
            background,
            writer_task: Some(writer_task),
            heads_task: Some(heads_task),
        })
    }
}

impl Running {
    /// Where the public API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the command line on another socket as well: the file of the first one may have been deleted.
    pub fn serve_control(&mut self, listener: tokio::net::UnixListener) {
        let routes = api_gateway::control_routes(self.gateway.clone());
        self.servers
            .push(serve(listener, routes, self.drain.subscribe()));
    }

    pub fn writer_state(&self) -> WriterState {
        self.writer().state()
    }

    pub fn watch_writer(&self) -> watch::Receiver<WriterState> {
        self.writer().watch_state()
    }

    /// Waits until the starting set is in, the log is open and the market view and keys are read.
    pub async fn wait_ready(&self, patience: Duration) -> Result<(), ServiceError> {
        let mut ready = self.ready.clone();
        let waited =
            tokio::time::timeout(patience, ready.wait_for(|ready| *ready == Readiness::Ready))
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
            seconds: patience.as_secs(),
            state,
        })
    }

    /// Lets go of the audit log's connection and keeps off until [`Running::resume_writer`]. Locates are refused meanwhile, and what
    /// was being committed is answered "outcome unknown"; rates go on.
    pub async fn pause_writer(&self) {
        self.writer().pause().await;
    }

    /// Takes up the log again, with the fact of a recovery if there was one: it opens a new epoch.
    pub async fn resume_writer(&self, recovery: Option<RecoveryFact>) -> Result<(), ServiceError> {
        let owner = self.database.borrow().owner.clone();
        // What was restored may be older than this engine's schema.
        data::migrate(&owner).await?;
        self.writer().resume(recovery);
        Ok(())
    }

    /// The database lives elsewhere from now on.
    pub fn set_database(&self, database: DatabaseConfig) {
        self.writer().set_database(database.service.clone());
        self.gateway.keeper.set_database(database.service.clone());
        self.database.send_replace(database);
    }

    /// A new key for a client; its text is never seen again.
    pub async fn create_key(
        &self,
        client_id: &str,
        tier: Tier,
        by: &str,
    ) -> Result<String, ServiceError> {
        let order = KeyOrder {
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
        let head = self.writer().tip()?.head(crate::time::now_micros(), 0)?;
        Some(self.gateway.heads.signing_key().sign(&head))
    }

    /// Answers what has been asked, then stops; the last head is published if the repository gets there.
    pub async fn shutdown(mut self) {
        self.drain.send_replace(true);
        for server in &mut self.servers {
            if tokio::time::timeout(DRAIN_PATIENCE, &mut *server)
                .await
                .is_err()
            {
                server.abort();
            }
        }
        self.writer().stop();
        if let Some(task) = self.writer_task.take() {
            let _ = task.await;
        }
        self.stop_heads.send_replace(true);
        if let Some(task) = self.heads_task.take() {
            let _ = task.await;
        }
    }

    fn writer(&self) -> &Writer {
        &self.writer
    }
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

/// Small things that have to happen now and then.
async fn keep_house(cache: Arc<Cache>) {
    let mut every = tokio::time::interval(HOUSE_EVERY);
    loop {
        every.tick().await;
        cache.ping().await;
        // Measurements pile up between scrapes otherwise.
        if let Some(recorder) = api_gateway::recorder() {
            recorder.run_upkeep();
        }
    }
}

/// Brings a first run to where it can serve, however long the database takes.
async fn prepare(
    database: watch::Receiver<DatabaseConfig>,
    writer: Writer,
    keeper: Arc<Keeper>,
    sample: Option<SampleBook>,
    prepared: watch::Sender<Readiness>,
) {
    loop {
        let target = database.borrow().clone();
        match prepare_once(&target, &writer, &keeper, sample).await {
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
    writer: &Writer,
    keeper: &Keeper,
    sample: Option<SampleBook>,
) -> Result<(), SeedError> {
    data::migrate(&database.owner).await?;
    let mut state = writer.watch_state();
    let _ = state.wait_for(WriterState::is_serving).await;
    data::seed(&database.owner, writer, sample).await?;
    let mut reads = keeper.reads();
    let _ = reads.wait_for(|reads| *reads > 0).await;
    keeper.refresh().await?;
    Ok(())
}
