//! Starts the parts in their one order, watches them, and brings back what fails.

use std::{
    io::IsTerminal,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use postgres_physical::server::Leftover;
use services::{RedisSettings, Services, Tier};

use super::{
    FIRST_CLIENT, ground::Ground, observer::Observer, postgres::Postgres, redis::Redis,
    standby::StandbySupervisor, wiring,
};
use host::{
    database::{BACKUP, SUPERUSER},
    instance::{Instance, Running},
    signals::stop_on_signal,
    workers::Workers,
};

use crate::{
    leftovers,
    listener::control_listener,
    protection::{ProtectedCluster, Protection},
    reachable::keep_reachable,
    reload::Reloader,
};
use operations::{
    Error, config::Config, jobs::Screens, passed_over::PassedOverBackups,
    primary_repository::open_own, recovery_fact,
};

/// Of the backups that the plan takes.
const LABEL: &str = "by the plan";
/// How long one look at the database's process lasts; also how soon a request to stop is seen.
const LOOK: Duration = Duration::from_millis(100);
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// A running instance.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(super) instance: Instance,
    pub(super) config: Config,
    pub(super) protection: Protection,
    pub(super) postgres: Postgres,
    pub(super) redis: Option<Redis>,
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
    pub(super) passed_over: PassedOverBackups,
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
        screens: Screens,
    ) -> Result<Self, Error> {
        let runtime = Workers::start()?;
        let ours = instance.clone();
        let stop = stop_on_signal(&runtime, move || end_servers(&ours))?;
        host::keys::prepare(&instance.keys(), &config.repository_key)?;
        let own = open_own(
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
        let cluster = ProtectedCluster {
            connect: postgres.connect_options(BACKUP, "postgres"),
            definitions: Some(postgres.connect_options(SUPERUSER, "postgres")),
            binaries: Some(postgres.binaries().clone()),
            user: Some(postgres.user().clone()),
        };
        let protection = Protection::new(instance, &config, own, cluster, screens, LABEL);
        let mut supervisor = Self {
            instance: instance.clone(),
            config,
            passed_over: PassedOverBackups::of(instance, protection.monitor().clone()),
            protection,
            postgres,
            redis,
            services: None,
            runtime,
            api_key_made: None,
            url,
            stop,
            observer: Observer::of_environment(),
            announced: None,
            reloader: None,
            continue_log,
            standby,
        };
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
        let made = "the first API key was made, which is recorded in it".to_owned();
        let publisher = self.protection.publisher(
            &self.config,
            self.protection.keys().first_api_key()?.map(|_| made),
            recovery.is_some(),
            self.continue_log,
        )?;
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

    pub(super) fn keep_reachable(&mut self) -> Result<(), Error> {
        let Some(services) = &mut self.services else {
            return Ok(());
        };
        let announced = self.announced.as_ref();
        if keep_reachable(&self.instance, &self.runtime, services, announced)? {
            self.protection.write_again();
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
        if has_continued || self.protection.keys().first_api_key()?.is_none() {
            let made = services.create_key(FIRST_CLIENT, Tier::Internal, "bre up");
            let key = self.runtime.block_on(made)?;
            self.protection.keys().keep_first_api_key(&key)?;
            self.api_key_made = Some(key);
        }
        // Whoever waits for readiness may look for the file now.
        services.started();
        Ok(())
    }

    /// The first API key, at the start that made it, or when it is asked for.
    pub(crate) fn api_key_to_show(&self, asked: bool) -> Result<Option<String>, Error> {
        match (asked, &self.api_key_made) {
            (true, _) => Ok(self.protection.keys().first_api_key()?),
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
            api_key_file: Some(self.protection.keys().first_api_key_file()),
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
            if self.protection.is_asked() || next_look <= Instant::now() {
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
        self.protection.check_keys(self.services.as_ref());
        if let Err(error) = self.check_stream() {
            tracing::warn!(%error, "the state of the WAL stream could not be read");
        }
    }

    /// Services first, so that nobody waits for an answer that cannot come; the stream last, so that it gets the last byte. What runs in
    /// the background is told at once and has until then. The whole of it is bounded: see `stop_on_signal`.
    pub(crate) fn stop(mut self) -> Result<(), Error> {
        tracing::info!("stopping");
        self.instance.withdraw();
        self.protection.cancel_jobs();
        if let Some(services) = self.services.take() {
            self.runtime.block_on(services.shutdown());
        }
        self.protection.end_jobs();
        // PostgreSQL waits until its stream has confirmed the last byte. One that cannot deliver must not hold it back.
        if !self.protection.monitor().is_attached() {
            self.protection.stop_stream();
        }
        let stopped = self.postgres.stop();
        self.protection.stop_stream();
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
