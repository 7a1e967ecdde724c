//! Starts the parts in their one order, watches them, and brings back what fails.

use std::{
    io::IsTerminal,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::net::UnixListener,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use backup::{BackupError, stream::Streamer};
use repository::{Repository, Store};
use services::{RecoveryFact, Services, Tier, WriterState};
use tokio::runtime::Runtime;

use super::{
    FIRST_CLIENT,
    backups::Backups,
    database,
    health::StreamMonitor,
    plan::Plan,
    postgres::Postgres,
    redis::Redis,
    repository::{Claim, Own, open_own},
    sockets,
    spare::Companion,
    wiring,
};
use crate::{
    config::Config,
    copies::Copies,
    error::Error,
    instance::{Instance, Running},
    keys::Keys,
    reload::Reloader,
};

/// How long one look at the database's process lasts; also how soon a request to stop is seen.
const LOOK: Duration = Duration::from_millis(100);
const HOUSEKEEPING: Duration = Duration::from_secs(1);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LAST: Duration = Duration::from_secs(10);
/// How long a start waits for the stream and the first commit; past it the instance is up and says what is missing.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// A running instance.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(super) instance: Instance,
    pub(super) config: Config,
    pub(super) keys: Keys,
    pub(super) store: Arc<dyn Store>,
    pub(super) repository: Repository,
    _claim: Claim,
    pub(super) postgres: Postgres,
    pub(super) redis: Option<Redis>,
    pub(super) streamer: Option<Streamer>,
    pub(super) stream: StreamMonitor,
    services: Option<services::Running>,
    pub(super) runtime: Runtime,
    api_key: String,
    url: String,
    stop: Arc<AtomicBool>,
    reloader: Option<Reloader>,
    pub(super) backups: Backups,
    /// From the first look on.
    pub(super) plan: Option<Plan>,
    copies: Option<Copies>,
    companion: Companion,
}

impl Supervisor {
    /// From nothing, or from what is there, to serving. Order: database and Redis, stream, services.
    pub(crate) fn start(
        instance: &Instance,
        config: Config,
        listener: TcpListener,
        book: Option<Vec<u8>>,
    ) -> Result<Self, Error> {
        let runtime = Runtime::new()
            .map_err(|error| Error::Failed(format!("cannot start threads: {error}")))?;
        let stop = stop_on_signal(&runtime)?;
        crate::keys::prepare(&instance.keys(), &config.repository_key)?;
        let Own {
            store,
            repository,
            keys,
            claim,
        } = open_own(
            instance,
            config.repository.path.as_ref(),
            config.repository.lock,
        )?;
        let mut postgres = Postgres::new(instance, &config)?;
        let mut companion = Companion::new(instance, &config);
        companion.take_over(&postgres)?;
        let came = database::bring_up(&mut postgres, instance, &repository, keys.private.as_ref())?;
        tracing::info!(?came, "the database is up");
        let redis = match &config.cache.url {
            Some(_) => None,
            None => Some(started(Redis::new(instance)?)),
        };
        let scheme = config.server.scheme();
        let url = format!("{scheme}://{}", reachable(&listener)?);
        let mut supervisor = Self {
            stream: StreamMonitor::default(),
            instance: instance.clone(),
            config,
            keys,
            store,
            repository,
            _claim: claim,
            postgres,
            redis,
            streamer: None,
            services: None,
            runtime,
            api_key: String::new(),
            url,
            stop,
            reloader: None,
            backups: Backups::default(),
            plan: None,
            copies: None,
            companion,
        };
        supervisor
            .stream
            .want_strict(supervisor.config.database.strict);
        supervisor.attach_stream()?;
        supervisor.start_services(listener, book)?;
        supervisor.first_key()?;
        supervisor.copies = Some(Copies::start(
            &supervisor.instance,
            &supervisor.config,
            &supervisor.repository,
            supervisor.keys.private.as_ref(),
        ));
        Ok(supervisor)
    }

    /// The stream first, then strict mode: a commit that waits for nobody would wait for ever.
    fn attach_stream(&mut self) -> Result<(), Error> {
        self.start_streamer();
        self.attach_and_settle()?;
        self.ensure_full_backup()
    }

    /// A stream that was just attached may go again at once: to follow a timeline that ended, for instance. What does not
    /// come about here comes about while the instance runs; until then strict mode refuses locates.
    fn attach_and_settle(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            self.wait_for_stream();
            match self.settle_strict_mode() {
                Err(Error::Backup(error @ BackupError::Setting(_))) => {
                    tracing::warn!(%error, "strict mode is not settled yet");
                }
                other => return other,
            }
            if Instant::now() >= deadline || self.is_stopping() {
                return Ok(());
            }
            std::thread::sleep(RETRY_FIRST);
        }
    }

    /// Past its patience the instance goes on and says what is missing.
    fn wait_for_stream(&self) {
        if let Some(streamer) = &self.streamer
            && streamer
                .watch()
                .wait_until(START_PATIENCE, |state| state.attached)
                .is_none()
        {
            tracing::error!(state = ?streamer.state(), "WAL does not reach the repository");
        }
    }

    fn start_services(
        &mut self,
        listener: TcpListener,
        book: Option<Vec<u8>>,
    ) -> Result<(), Error> {
        let recovery = database::read_fact(&self.postgres.dir())?;
        let control = control_listener(&self.instance)?;
        let config = wiring::services_config(self, listener, control, book, recovery.clone())?;
        let services = self.runtime.block_on(Services::start(config))?;
        self.services = Some(services);
        self.wait_for_writer(recovery.as_ref())
    }

    /// Waits until the log is open, and until an epoch that a restore demands is on record.
    fn wait_for_writer(&mut self, recovery: Option<&RecoveryFact>) -> Result<(), Error> {
        let Some(services) = &self.services else {
            return Ok(());
        };
        let serving = self.runtime.block_on(async {
            let (mut state, mut refused) = (services.watch_writer(), services.watch_writer());
            let serving = async {
                services.wait_ready(START_PATIENCE).await?;
                let serving = state.wait_for(WriterState::is_serving);
                let waited = tokio::time::timeout(START_PATIENCE, serving).await;
                Ok::<bool, services::ServiceError>(matches!(waited, Ok(Ok(_))))
            };
            // A log that is refused stays so until a person has looked: there is nothing to wait for.
            let is_refused = |state: &WriterState| matches!(state, WriterState::Refusing { .. });
            tokio::select! {
                serving = serving => serving,
                _ = refused.wait_for(is_refused) => Ok(false),
            }
        });
        match (serving, recovery) {
            (Ok(true), Some(_)) => database::forget_fact(&self.postgres.dir()),
            (Ok(true), None) => Ok(()),
            (not_serving, _) => {
                tracing::error!(
                    state = ?services.writer_state(), result = ?not_serving, "the audit log is not open: locates are refused"
                );
                Ok(())
            }
        }
    }

    /// The control socket may have been deleted with everything else; bind it anew.
    fn serve_control(&mut self) -> Result<(), Error> {
        let Some(services) = &mut self.services else {
            return Ok(());
        };
        let listener = control_listener(&self.instance)?;
        let _inside = self.runtime.enter();
        let listener = tokio::net::UnixListener::from_std(listener).map_err(Error::file(
            "cannot listen on",
            self.instance.control_socket(),
        ))?;
        services.serve_control(listener);
        Ok(())
    }

    /// The first key is made once and kept in a file that only its owner can read.
    fn first_key(&mut self) -> Result<(), Error> {
        let Some(services) = &self.services else {
            return Ok(());
        };
        self.api_key = match self.keys.first_api_key() {
            Some(key) => key,
            None => {
                let made = services.create_key(FIRST_CLIENT, Tier::Internal, "bre up");
                let key = self.runtime.block_on(made)?;
                self.keys.keep_first_api_key(&key)?;
                key
            }
        };
        // Whoever waits for readiness may look for the file now.
        services.started();
        Ok(())
    }

    pub(crate) fn api_key(&self) -> &str {
        &self.api_key
    }

    /// Writes where the engine is for commands to find.
    pub(crate) fn announce(&self) -> Result<Running, Error> {
        let running = Running {
            url: self.url.clone(),
            database_url: self.postgres.url(super::postgres::SUPERUSER),
            cache_url: self.cache_url(),
            data_dir: self.instance.root().to_owned(),
            repository: self.location(),
            pid: std::process::id(),
        };
        self.instance.announce(&running)?;
        Ok(running)
    }

    pub(super) fn cache_url(&self) -> String {
        match (&self.config.cache.url, &self.redis) {
            (Some(url), _) => url.clone(),
            (None, Some(redis)) => redis.url(),
            (None, None) => String::new(),
        }
    }

    fn location(&self) -> crate::location::Location {
        self.config
            .repository
            .path
            .clone()
            .unwrap_or_else(|| self.instance.repository().into())
    }

    /// From now on SIGHUP makes it read its settings again. At a terminal it stays what it is there: the end of the session.
    pub(crate) fn follow_settings(&mut self, named: Option<&Path>) -> Result<(), Error> {
        if std::io::stdin().is_terminal() {
            return Ok(());
        }
        let reloader = Reloader::start(&self.runtime, named, self.instance.root())?;
        self.reloader = Some(reloader);
        Ok(())
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Until told to stop: notices what fails and brings it back.
    pub(crate) fn watch(&mut self) {
        let mut next_look = Instant::now();
        while !self.is_stopping() {
            if let Some(exit) = self.postgres.wait_exit(LOOK) {
                tracing::error!(how = %exit.description, "PostgreSQL ended");
                self.bring_back();
            } else if self.postgres.folder() == super::postgres::Folder::Missing {
                tracing::error!("the data folder is gone although PostgreSQL still runs");
                self.bring_back();
            }
            if let (Some(reloader), Some(services)) = (&mut self.reloader, &self.services) {
                reloader.act(&self.runtime, services);
            }
            if next_look <= Instant::now() {
                self.keep_house();
                next_look = Instant::now() + HOUSEKEEPING;
            }
        }
    }

    fn keep_house(&mut self) {
        if let Some(redis) = &mut self.redis {
            redis.keep_running();
        }
        self.companion.keep();
        self.look_after_keys();
        if let Err(error) = self.look_after_stream() {
            tracing::warn!(%error, "the state of the WAL stream could not be read");
        }
    }

    /// Tries until the database is back or the engine is told to stop. Rates are answered meanwhile.
    fn bring_back(&mut self) {
        let mut retry = RETRY_FIRST;
        while !self.is_stopping() {
            match self.try_to_bring_back() {
                Ok(()) => {
                    self.stream.set_problem(None);
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "the database could not be brought back; trying again");
                    self.stream
                        .set_problem(Some(format!("the database is away: {error}")));
                }
            }
            std::thread::sleep(retry);
            retry = (retry * 2).min(RETRY_LAST);
        }
    }

    fn try_to_bring_back(&mut self) -> Result<(), Error> {
        if let Some(services) = &self.services {
            self.runtime.block_on(services.pause_writer());
        }
        self.stop_streamer();
        self.postgres.abandon();
        self.instance.make_folders()?;
        self.companion.take_over(&self.postgres)?;
        let came = database::bring_up(
            &mut self.postgres,
            &self.instance,
            &self.repository,
            self.keys.private.as_ref(),
        )?;
        tracing::info!(?came, "the database is back");
        self.start_streamer();
        self.attach_and_settle()?;
        let recovery = database::read_fact(&self.postgres.dir())?;
        if let Some(services) = &self.services {
            self.runtime
                .block_on(services.resume_writer(recovery.clone()))?;
        }
        self.wait_for_writer(recovery.as_ref())?;
        if !self.instance.control_socket().exists() {
            self.serve_control()?;
        }
        self.announce()?;
        self.ensure_full_backup()
    }

    /// Services first, so that nobody waits for an answer that cannot come; the stream last, so that it gets the last byte.
    pub(crate) fn stop(mut self) -> Result<(), Error> {
        tracing::info!("stopping");
        self.instance.withdraw();
        if let Some(services) = self.services.take() {
            self.runtime.block_on(services.shutdown());
        }
        self.backups.end();
        if let Some(copies) = &mut self.copies {
            copies.end();
        }
        if let Some(plan) = &mut self.plan {
            plan.end();
        }
        // PostgreSQL waits until its stream has confirmed the last byte. One that cannot deliver must not hold it back.
        if !self.stream.is_attached() {
            self.stop_streamer();
        }
        self.postgres.stop()?;
        self.stop_streamer();
        self.companion.stop();
        if let Some(mut redis) = self.redis.take() {
            redis.stop();
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// The engine lives without its cache, so a Redis that does not start is reported and tried again later.
fn started(mut redis: Redis) -> Redis {
    if let Err(error) = redis.start() {
        tracing::error!(%error, "Redis did not start; the engine goes on without its cache");
    }
    redis
}

pub(crate) fn control_listener(instance: &Instance) -> Result<UnixListener, Error> {
    let path = instance.control_socket();
    if let Some(folder) = path.parent().filter(|folder| *folder != instance.run()) {
        sockets::make_private(folder)?;
    }
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).map_err(Error::file("cannot listen on", &path))?;
    listener
        .set_nonblocking(true)
        .map_err(Error::file("cannot listen on", &path))?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .map_err(Error::file("cannot protect", &path))?;
    Ok(listener)
}

/// What a client on this machine connects to.
fn reachable(listener: &TcpListener) -> Result<SocketAddr, Error> {
    let mut address = listener
        .local_addr()
        .map_err(Error::file("cannot use", "the listening socket"))?;
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    Ok(address)
}

/// Ctrl-C and SIGTERM ask for a clean stop; a second one ends the process at once, which loses nothing either.
pub(crate) fn stop_on_signal(runtime: &Runtime) -> Result<Arc<AtomicBool>, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let failed =
        |error: std::io::Error| Error::Failed(format!("cannot listen for signals: {error}"));
    let _inside = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    runtime.spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if seen.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        }
    });
    Ok(stop)
}
