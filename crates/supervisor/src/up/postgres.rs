//! The instance's own PostgreSQL: made once, started as our child, found whole or found missing.

use host::{
    database::{BACKUP, DATABASE, OWNER, SERVICE, SUPERUSER, server_settings},
    files::make_folder,
    instance::Instance,
};
use postgres_physical::{
    server::{
        Binaries, InitOptions, Leftover, OsUser, Server, ServerError, StartOptions, StopMode,
        initdb, sql::Client, write_peer_access,
    },
    wire::ConnectOptions,
};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::leftovers::UNFINISHED_CLUSTER;
use operations::{Error, config::Config, lost::LostPart};

/// Only names the socket; nothing listens on a network.
const PORT: u16 = 5432;
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// SIGQUIT and SIGKILL are obeyed at once; a process in a system call that hangs is not waited for.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Recovery of much WAL takes time.
const READY_TIMEOUT: Duration = Duration::from_secs(300);
/// How soon a request to stop is seen while the server starts.
const LOOK: Duration = Duration::from_millis(20);

/// Where the data folder stands before a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Folder {
    /// Everything a start needs is there.
    Whole,
    /// Not there, or so little of it that no start is possible.
    Missing,
}

/// The embedded server and all that is needed to start it again.
#[derive(Debug)]
pub(crate) struct Postgres {
    instance: Instance,
    binaries: Binaries,
    user: OsUser,
    socket_dir: PathBuf,
    keep_mb: u32,
    server: Option<Server>,
    stop: Arc<AtomicBool>,
}

impl Postgres {
    pub(crate) fn new(
        instance: &Instance,
        config: &Config,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, Error> {
        let binaries = Binaries::find(config.database.binaries.as_deref())?;
        Ok(Self {
            instance: instance.clone(),
            binaries,
            user: OsUser::for_server()?,
            socket_dir: instance.socket_folder("pg"),
            keep_mb: config.database.max_slot_wal_keep_size_mb,
            server: None,
            stop,
        })
    }

    pub(crate) fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    pub(crate) fn user(&self) -> &OsUser {
        &self.user
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.instance.postgres()
    }

    pub(crate) fn folder(&self) -> Folder {
        let dir = self.dir();
        let whole = ["PG_VERSION", "global/pg_control", "base"]
            .iter()
            .all(|part| dir.join(part).exists());
        if whole {
            Folder::Whole
        } else {
            Folder::Missing
        }
    }

    /// Makes a new cluster beside its final place and moves it there when it is complete: a crash in between leaves
    /// nothing that looks like a database.
    pub(crate) fn create(&self) -> Result<(), Error> {
        let unfinished = self.instance.root().join(UNFINISHED_CLUSTER);
        if unfinished.exists() {
            postgres_physical::server::remove_tree(&unfinished)?;
        }
        initdb(
            &self.binaries,
            &self.user,
            &unfinished,
            &InitOptions::default(),
        )?;
        let us = OsUser::current()?;
        let mut accounts = vec![us.name.as_str()];
        if self.user.name != us.name {
            accounts.push(&self.user.name);
        }
        write_peer_access(
            &unfinished,
            &self.user,
            &accounts,
            &[SUPERUSER, OWNER, SERVICE, BACKUP],
        )?;
        std::fs::rename(&unfinished, self.dir())
            .map_err(Error::file("cannot put in place", self.dir()))
    }

    /// Starts the server; ends whatever an earlier run left on the folder first.
    pub(crate) fn start(&mut self) -> Result<(), Error> {
        self.server = None;
        self.instance.make_folders()?;
        make_folder(&self.socket_dir, 0o711)?;
        self.user.own(&self.socket_dir)?;
        if let Some(left) = Leftover::detect(&self.dir()) {
            tracing::warn!(processes = ?left.processes, "an earlier run left PostgreSQL processes; stopping them");
            left.stop(STOP_TIMEOUT)?;
        }
        let options = self.options();
        let log_start = std::fs::metadata(&options.log).map_or(0, |meta| meta.len());
        let server = Server::start(&self.binaries, &self.user, &self.dir(), &options)?;
        self.server = Some(server);
        let started = self.wait_ready(log_start).and_then(|()| self.make_roles());
        if let Err(error) = started {
            let lost = self.lost();
            self.abandon();
            // Of its own end the log says why, and the error quotes it.
            let is_own_end = matches!(
                &error,
                Error::Host(host::Error::Server(ServerError::StartFailed { status, .. })) if !status.starts_with("killed")
            );
            return Err(match lost {
                Some(lost) if !is_own_end => lost.into(),
                _ => error,
            });
        }
        Ok(())
    }

    fn wait_ready(&mut self, log_start: u64) -> Result<(), Error> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let Some(server) = &mut self.server else {
                return Ok(());
            };
            match server.wait_ready(LOOK, log_start) {
                Err(ServerError::NotReady { .. }) if self.stop.load(Ordering::Relaxed) => {
                    return Err(LostPart::Stopping.into());
                }
                Err(ServerError::NotReady { .. }) if Instant::now() < deadline => {}
                other => return Ok(other?),
            }
        }
    }

    fn options(&self) -> StartOptions {
        let log = self.instance.logs().join("postgres.log");
        let mut options = StartOptions::new(&self.socket_dir, PORT, log);
        options.settings = server_settings(self.keep_mb);
        options.wait_ready = false;
        options
    }

    /// Roles belong to the cluster, so a restored one has them; a new one gets them here, database and all.
    fn make_roles(&self) -> Result<(), Error> {
        let mut client = self.client()?;
        for (role, attributes) in [
            (OWNER, "LOGIN"),
            (SERVICE, "LOGIN"),
            (BACKUP, "LOGIN REPLICATION"),
        ] {
            if client
                .value(&format!("SELECT 1 FROM pg_roles WHERE rolname = '{role}'"))?
                .is_none()
            {
                client.query(&format!("CREATE ROLE {role} {attributes}"))?;
            }
        }
        if client
            .value(&format!(
                "SELECT 1 WHERE pg_has_role('{BACKUP}', 'pg_monitor', 'member')"
            ))?
            .is_none()
        {
            client.query(&format!("GRANT pg_monitor TO {BACKUP}"))?;
        }
        // Backups read the files beside a session that holds them open; without the right they come through the protocol.
        let functions = ["pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"];
        let may = functions
            .map(|name| format!("has_function_privilege('{BACKUP}', '{name}', 'EXECUTE')"))
            .join(" AND ");
        if client.value(&format!("SELECT 1 WHERE {may}"))?.is_none() {
            let functions = functions.join(", ");
            client.query(&format!(
                "GRANT EXECUTE ON FUNCTION {functions} TO {BACKUP}"
            ))?;
        }
        if client
            .value(&format!(
                "SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"
            ))?
            .is_none()
        {
            client.query(&format!("CREATE DATABASE {DATABASE} OWNER {OWNER}"))?;
        }
        self.install_amcheck()
    }

    /// `bre verify database` asks it about the structure of tables and indexes. Without it the engine runs, and that says so.
    fn install_amcheck(&self) -> Result<(), Error> {
        for database in [DATABASE, "postgres"] {
            let mut client = Client::connect(&self.connect_options(SUPERUSER, database))?;
            let there = "SELECT 1 FROM pg_extension WHERE extname = 'amcheck'";
            if client.value(there)?.is_none() {
                client.query("SET synchronous_commit = local")?;
                if let Err(error) = client.query("CREATE EXTENSION amcheck") {
                    tracing::warn!(%error, database, "the extension amcheck is not installed");
                }
            }
        }
        Ok(())
    }

    pub(crate) fn connect_options(&self, role: &str, database: &str) -> ConnectOptions {
        ConnectOptions::unix(&self.socket_dir, PORT, role, database)
    }

    /// A superuser's connection, for administration. Its commits never wait for the stream, which may not be attached yet.
    fn client(&self) -> Result<Client, Error> {
        let mut client = Client::connect(&self.connect_options(SUPERUSER, "postgres"))?;
        client.query("SET synchronous_commit = local")?;
        Ok(client)
    }

    /// For clients that take a URL.
    pub(crate) fn url(&self, role: &str) -> String {
        self.connect_options(role, DATABASE).to_url()
    }

    /// What of the server is gone, if anything.
    pub(crate) fn lost(&mut self) -> Option<LostPart> {
        let Some(server) = &mut self.server else {
            return Some(LostPart::Server("it was not started".to_owned()));
        };
        if let Some(exit) = server.exited() {
            return Some(LostPart::Server(exit.description));
        }
        if self.folder() == Folder::Missing {
            return Some(LostPart::Folder);
        }
        let socket = self.socket_dir.join(format!(".s.PGSQL.{PORT}"));
        (!socket.exists()).then_some(LostPart::Socket)
    }

    /// The same after a pause, which the end of the process cuts short.
    pub(crate) fn lost_within(&mut self, pause: Duration) -> Option<LostPart> {
        match &mut self.server {
            Some(server) => drop(server.wait_exit(pause)),
            None => std::thread::sleep(pause),
        }
        self.lost()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.server.is_some()
    }

    /// Stops cleanly: everything is flushed, and the streamer gets all of it before the server is gone.
    pub(crate) fn stop(&mut self) -> Result<(), Error> {
        let Some(mut server) = self.server.take() else {
            return Ok(());
        };
        if server.stop(StopMode::Fast, STOP_TIMEOUT).is_ok() {
            return Ok(());
        }
        // It waits for the stream to confirm, which it cannot while the repository is away. Nothing committed is lost:
        // the next start replays it, and the slot keeps it for the stream.
        tracing::warn!("PostgreSQL waits for the repository; stopping it at once instead");
        if server.stop(StopMode::Immediate, END_TIMEOUT).is_err() {
            server.stop(StopMode::Kill, END_TIMEOUT)?;
        }
        Ok(())
    }

    /// Ends the server at once and forgets it: its folder is gone or about to be replaced.
    pub(crate) fn abandon(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.stop(StopMode::Kill, END_TIMEOUT);
        }
    }
}
