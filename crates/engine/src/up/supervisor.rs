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

use backup::stream::Streamer;
use postgres_physical::server::Leftover;
use repository::{Repository, store::Store};
use services::{RedisSettings, Services, Tier};

use super::{
    FIRST_CLIENT, ground::Ground, leftovers, observer::Observer, postgres::Postgres, reachable,
    redis::Redis, standby::StandbySupervisor, wiring,
};
use host::{
    instance::{Instance, Running},
    keys::Keys,
    record::Event,
    signals::stop_on_signal,
    sockets,
    workers::Workers,
};

use crate::{
    anchors::Carriers,
    config::Config,
    error::Error,
    heads::Publisher,
    health::StreamMonitor,
    passed_over::PassedOverBackups,
    plan::Plan,
    primary_repository::{Claim, PrimaryRepository, open_own},
    recovery_fact,
    reload::Reloader,
};

/// How long one look at the database's process lasts; also how soon a request to stop is seen.
const LOOK: Duration = Duration::from_millis(100);
const HOUSEKEEPING: Duration = Duration::from_secs(1);

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
    pub(super) services: Option<services::Running>,
    pub(super) runtime: Workers,
    /// The first one, if this start made it.
    api_key_made: Option<String>,
    url: String,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) observer: Observer,
    /// What commands were told.
    announced: Option<Running>,
    reloader: Option<Reloader>,
    /// What was done before the plan began, for the audit log.
    pub(super) not_on_record: Vec<Event>,
    pub(super) passed_over: PassedOverBackups,
    /// Why one is needed as soon as the plan can take it.
    pub(super) full_backup_needed: Option<&'static str>,
    /// An operator paused it: it is not there, and nothing is wrong.
    pub(super) stream_paused: bool,
    /// From the first look on.
    pub(super) plan: Option<Plan>,
    carriers: Option<Carriers>,
    /// A person has said that all of the audit log is lost.
    pub(super) continue_log: bool,
    pub(super) standby: StandbySupervisor,
}

impl Supervisor {
    /// From nothing, or from what is there, to serving. Order: database and Redis, stream, services.
    pub(crate) fn start(
        instance: &Instance,
        config: Config,
        listener: TcpListener,
        rates_file: Option<Vec<u8>>,
        continue_log: bool,
    ) -> Result<Self, Error> {
        let runtime = Workers::start()?;
        let ours = instance.clone();
        let stop = stop_on_signal(&runtime, move || end_servers(&ours))?;
        host::keys::prepare(&instance.keys(), &config.repository_key)?;
        let PrimaryRepository {
            store,
            repository,
            keys,
            claim,
        } = open_own(
            instance,
            config.repository.path.as_ref(),
            config.repository.lock,
        )?;
        leftovers::end(instance, &config);
        let postgres = Postgres::new(instance, &config, Arc::clone(&stop))?;
        let standby = StandbySupervisor::new(instance, &config, Arc::clone(&stop));
        let redis = match &config.cache.url {
            Some(_) => None,
            None => Some(started(Redis::new(instance)?)),
        };
        let scheme = config.server.scheme();
        let url = format!("{scheme}://{}", reachable(&listener)?);
        let stream = StreamMonitor::default();
        let mut supervisor = Self {
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
            api_key_made: None,
            url,
            stop,
            observer: Observer::of_environment(),
            announced: None,
            reloader: None,
            not_on_record: Vec::new(),
            passed_over: PassedOverBackups::of(instance, stream.clone()),
            full_backup_needed: None,
            stream_paused: false,
            plan: None,
            carriers: None,
            continue_log,
            standby,
            stream,
        };
        supervisor
            .stream
            .want_strict(supervisor.config.database.strict);
        supervisor.first_recovery()?;
        supervisor.start_services(listener, rates_file)?;
        supervisor.first_key()?;
        Ok(supervisor)
    }

    fn start_services(
        &mut self,
        listener: TcpListener,
        rates_file: Option<Vec<u8>>,
    ) -> Result<(), Error> {
        let recovery = recovery_fact::read_fact(&self.postgres.dir())?;
        let control = control_listener(&self.instance)?;
        let publisher = Arc::new(self.publisher(recovery.is_some())?);
        self.carriers = Some(Carriers::start(
            &self.config,
            &publisher.anchors,
            &self.repository,
        ));
        let config = wiring::services_config(
            self,
            listener,
            control,
            rates_file,
            recovery.clone(),
            publisher,
        )?;
        let services = self.runtime.block_on(Services::start(config))?;
        self.services = Some(services);
        match self.wait_for_writer(recovery.as_ref()) {
            Err(Error::Lost(lost)) => {
                tracing::error!(%lost, "lost again while the services started");
                self.recover();
                Ok(())
            }
            other => other,
        }
    }

    fn publisher(&self, recovering: bool) -> Result<Publisher, Error> {
        let made = "the first API key was made, which is recorded in it".to_owned();
        let publisher = Publisher::prepare(
            &self.repository,
            self.stream.clone(),
            &self.instance.keys(),
            &self.config,
            self.keys.first_api_key()?.map(|_| made),
            recovering,
        )?;
        Ok(publisher.continuing(self.continue_log))
    }

    pub(super) fn keep_reachable(&mut self) -> Result<(), Error> {
        let Some(services) = &mut self.services else {
            return Ok(());
        };
        let announced = self.announced.as_ref();
        if reachable::keep_reachable(&self.instance, &self.runtime, services, announced)? {
            self.note_recipient();
            if let Some(plan) = &mut self.plan {
                plan.write_again();
            }
        }
        Ok(())
    }

    /// The first key is made once and kept in a file that only its owner can read.
    fn first_key(&mut self) -> Result<(), Error> {
        let Some(services) = &self.services else {
            return Ok(());
        };
        // A log in the place of one that is lost knows no key of before.
        let has_continued = services.log_has_continued();
        if self.continue_log && !has_continued {
            tracing::error!(
                "--continue-log was given, and the audit log is there: take it out of the command or the unit, or the \
                 next loss of all of it is accepted without a question"
            );
        }
        if has_continued || self.keys.first_api_key()?.is_none() {
            let made = services.create_key(FIRST_CLIENT, Tier::Internal, "bre up");
            let key = self.runtime.block_on(made)?;
            self.keys.keep_first_api_key(&key)?;
            self.api_key_made = Some(key);
        }
        // Whoever waits for readiness may look for the file now.
        services.started();
        Ok(())
    }

    /// The first API key, at the start that made it, or when it is asked for.
    pub(crate) fn api_key_to_show(&self, asked: bool) -> Result<Option<String>, Error> {
        match (asked, &self.api_key_made) {
            (true, _) => Ok(self.keys.first_api_key()?),
            (false, made) => Ok(made.clone().filter(|_| !terminal::is_kept())),
        }
    }

    /// Writes where the engine is for commands to find.
    pub(crate) fn announce(&mut self) -> Result<Running, Error> {
        let running = Running {
            url: self.url.clone(),
            database_url: self.postgres.url(host::database::SUPERUSER),
            cache_url: self.cache_url(),
            data_dir: self.instance.root().to_owned(),
            repository: self.location(),
            pid: std::process::id(),
            api_key_file: Some(self.keys.first_api_key_file()),
        };
        self.instance.announce(&running)?;
        self.announced = Some(running.clone());
        Ok(running)
    }

    pub(super) fn cache_url(&self) -> String {
        match (&self.config.cache.url, &self.redis) {
            (Some(url), _) => url.clone(),
            (None, Some(redis)) => redis.url(),
            (None, None) => String::new(),
        }
    }

    pub(super) fn cache(&self) -> Result<Option<RedisSettings>, Error> {
        let own = || self.redis.as_ref().map(|redis| redis.url().into());
        Ok(self.config.cache.redis()?.or_else(own))
    }

    fn location(&self) -> host::location::Location {
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

    pub(super) fn ground(&mut self) -> Ground<'_> {
        Ground {
            postgres: &mut self.postgres,
            stop: &self.stop,
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Until told to stop: notices what fails and brings it back.
    pub(crate) fn watch(&mut self) {
        let mut next_look = Instant::now();
        while !self.is_stopping() {
            if let Some(lost) = self.postgres.lost_within(LOOK) {
                tracing::error!(%lost, "the database is lost");
                self.recover();
            }
            if let (Some(reloader), Some(services)) = (&mut self.reloader, &self.services) {
                reloader.act(&self.runtime, services);
            }
            let is_asked = self.plan.as_ref().is_some_and(Plan::is_asked);
            if is_asked || next_look <= Instant::now() {
                self.tick();
                next_look = Instant::now() + HOUSEKEEPING;
            }
        }
    }

    fn tick(&mut self) {
        if let Some(redis) = &mut self.redis {
            redis.keep_running();
        }
        self.standby.keep();
        if let Err(error) = self.keep_reachable() {
            tracing::warn!(%error, "commands cannot find the engine");
        }
        self.check_keys();
        if let Err(error) = self.check_stream() {
            tracing::warn!(%error, "the state of the WAL stream could not be read");
        }
    }

    /// Services first, so that nobody waits for an answer that cannot come; the stream last, so that it gets the last byte. What runs in
    /// the background is told at once and has until then. The whole of it is bounded: see `stop_on_signal`.
    pub(crate) fn stop(mut self) -> Result<(), Error> {
        tracing::info!("stopping");
        self.instance.withdraw();
        if let Some(plan) = &self.plan {
            plan.cancel();
        }
        if let Some(services) = self.services.take() {
            self.runtime.block_on(services.shutdown());
        }
        // The last head was signed.
        if let Some(carriers) = &mut self.carriers {
            carriers.end();
        }
        if let Some(plan) = &mut self.plan {
            plan.end();
        }
        // PostgreSQL waits until its stream has confirmed the last byte. One that cannot deliver must not hold it back.
        if !self.stream.is_attached() {
            self.stop_streamer();
        }
        let stopped = self.postgres.stop();
        self.stop_streamer();
        self.standby.stop();
        if let Some(mut redis) = self.redis.take() {
            redis.stop();
        }
        // A request whose work goes on in a thread is not waited for long: nobody is there to hear its answer.
        drop(self.runtime);
        stopped?;
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
    let listener = sockets::listen(&path, &instance.run())?;
    listener
        .set_nonblocking(true)
        .map_err(Error::file("cannot listen on", &path))?;
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

/// The servers of an engine that cannot end them itself any more.
fn end_servers(instance: &Instance) {
    if let Some(left) = Leftover::detect(&instance.postgres()) {
        let _ = left.kill();
    }
    if let Ok(redis) = Redis::new(instance) {
        redis.kill_leftovers();
    }
}
