//! A cluster of its own.

use crate::open_folder;
use postgres_physical::server::sql::Client;
use postgres_physical::server::{
    Binaries, InitOptions, OsUser, Server, StartOptions, StopMode, write_cluster_file,
};
use postgres_physical::wire::ConnectOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A running cluster on a unix socket; any local user may log in as anybody.
#[derive(Debug)]
pub struct TestPostgres {
    // Dropped in this order: first the server stops, then its folder goes.
    server: Option<Server>,
    binaries: Binaries,
    user: OsUser,
    options: StartOptions,
    root: tempfile::TempDir,
}

#[derive(Debug, Clone)]
pub struct Builder {
    settings: Vec<(String, String)>,
    init: InitOptions,
    tcp: bool,
    hba: Option<String>,
    binaries: Option<Binaries>,
    initdb: Option<Vec<String>>,
}

impl Builder {
    /// One line of configuration, kept over restarts.
    pub fn set(mut self, name: &str, value: impl ToString) -> Builder {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn wal_segment_bytes(mut self, bytes: u64) -> Builder {
        self.init.wal_segment_bytes = Some(bytes);
        self
    }

    /// Made by `initdb` with these arguments instead of the usual ones (checksums, UTF-8, locale C).
    pub fn initdb(mut self, arguments: &[&str]) -> Builder {
        self.initdb = Some(arguments.iter().map(|it| (*it).to_owned()).collect());
        self
    }

    /// Another PostgreSQL than the one that would be found.
    pub fn binaries(mut self, binaries: Binaries) -> Builder {
        self.binaries = Some(binaries);
        self
    }

    /// Listen on a free loopback port as well.
    pub fn tcp(mut self) -> Builder {
        self.tcp = true;
        self
    }

    /// Replaces `pg_hba.conf`.
    pub fn hba(mut self, text: &str) -> Builder {
        self.hba = Some(text.to_owned());
        self
    }

    pub fn start(self) -> TestPostgres {
        let found = || Binaries::find(None).expect("PostgreSQL is installed");
        let binaries = self.binaries.unwrap_or_else(found);
        let user = OsUser::for_server().expect("the server's account");
        let root = open_folder("pg-");
        user.own(root.path()).expect("owner of the folder");
        let data = root.path().join("data");
        match &self.initdb {
            Some(arguments) => initdb(&binaries, &user, &data, (&self.init, arguments)),
            None => crate::template::new_cluster(&binaries, &user, &data, &self.init),
        }
        if let Some(hba) = &self.hba {
            postgres_physical::server::write_cluster_file(&data, "pg_hba.conf", hba, &user)
                .expect("pg_hba.conf");
        }
        let port = if self.tcp { crate::free_port() } else { 5432 };
        let mut options = StartOptions::new(root.path(), port, root.path().join("log"));
        if self.tcp {
            options.listen = "127.0.0.1".into();
        }
        options.settings = self.settings;
        let mut postgres = TestPostgres {
            server: None,
            binaries,
            user,
            options,
            root,
        };
        postgres.start_again();
        postgres
    }
}

fn initdb(
    binaries: &Binaries,
    user: &OsUser,
    data: &Path,
    (options, arguments): (&InitOptions, &[String]),
) {
    let mut command = user.command(&binaries.program("initdb"));
    command
        .arg("--pgdata")
        .arg(data)
        .args(["--no-sync", "--no-instructions", "--auth-local=trust"])
        .arg(format!("--username={}", options.superuser))
        .args(arguments);
    if let Some(bytes) = options.wal_segment_bytes {
        command.arg(format!("--wal-segsize={}", bytes >> 20));
    }
    let output = command.output().expect("initdb runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "initdb: {said}");
}

/// A PostgreSQL that can name the pages that changed; `None` (which is said) when there is none. `scripts/postgresql-18` installs it.
pub fn postgres_17_or_newer() -> Option<Binaries> {
    let mut folders = vec![
        PathBuf::from("/var/cache/borrow-rate-engine/postgresql-18/bin"),
        crate::cache_folder().join("postgresql-18/bin"),
    ];
    folders.extend(
        [19, 18, 17].map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"))),
    );
    let found = folders.iter().filter(|folder| folder.is_dir());
    let found = found.filter_map(|folder| Binaries::find(Some(folder)).ok());
    let new_enough = |binaries: &Binaries| binaries.major() >= 17;
    let found = found.into_iter().find(new_enough);
    if found.is_none() {
        crate::skip!(
            "postgresql-17",
            "of that version or newer; scripts/postgresql-18 installs one"
        );
    }
    found
}

impl TestPostgres {
    /// A cluster with small resources, no fsync, and WAL fit for streaming.
    pub fn start() -> TestPostgres {
        TestPostgres::builder().start()
    }

    pub fn builder() -> Builder {
        let init = InitOptions {
            no_sync: true,
            local_authentication: "trust",
            ..InitOptions::default()
        };
        let builder = Builder {
            settings: Vec::new(),
            init,
            tcp: false,
            hba: None,
            binaries: None,
            initdb: None,
        };
        builder
            .set("fsync", "off")
            .set("shared_buffers", "16MB")
            .set("max_wal_senders", 8)
            .set("max_replication_slots", 8)
            .set("wal_level", "replica")
            .set("autovacuum", "off")
    }

    pub fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("the server is running")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// The folder above the data folder: room for more files that live as long as the cluster.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.options.log).unwrap_or_default()
    }

    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    pub fn os_user(&self) -> &OsUser {
        &self.user
    }

    pub fn port(&self) -> u16 {
        self.options.port
    }

    pub fn socket_dir(&self) -> &Path {
        &self.options.socket_dir
    }

    /// As superuser to database `postgres`, over the unix socket.
    pub fn connect_options(&self) -> ConnectOptions {
        ConnectOptions::unix(
            &self.options.socket_dir,
            self.options.port,
            "postgres",
            "postgres",
        )
    }

    /// For clients that take a URL.
    pub fn url(&self) -> String {
        format!(
            "postgres://postgres@/postgres?host={}&port={}",
            self.options.socket_dir.display(),
            self.options.port
        )
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.connect_options()).expect("a connection")
    }

    /// Runs statements on a connection of their own; rows as text, NULL as an empty string.
    pub fn sql(&self, sql: &str) -> Vec<Vec<String>> {
        let rows = self
            .client()
            .query(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
            .rows;
        rows.into_iter()
            .map(|row| row.into_iter().map(Option::unwrap_or_default).collect())
            .collect()
    }

    /// The first field of the first row.
    pub fn value(&self, sql: &str) -> String {
        self.sql(sql)
            .into_iter()
            .flatten()
            .next()
            .unwrap_or_default()
    }

    /// Speaks TLS with this certificate from now on; an authority is one that may sign clients' certificates.
    pub fn show(&self, issued: &crate::IssuedCertificate, clients: Option<&crate::Authority>) {
        let write = |name: &str, text: &str| {
            write_cluster_file(&self.data_dir(), name, text, &self.user).expect("a file for TLS");
        };
        write("server.crt", &issued.certificate);
        write("server.key", &issued.key);
        if let Some(clients) = clients {
            write("clients.crt", clients.certificate());
            self.sql("ALTER SYSTEM SET ssl_ca_file = 'clients.crt'");
        }
        self.sql("ALTER SYSTEM SET ssl = on");
        self.sql("SELECT pg_reload_conf()");
    }

    pub fn stop(&mut self, mode: StopMode) {
        if let Some(mut server) = self.server.take() {
            server
                .stop(mode, Duration::from_secs(60))
                .expect("the server stops");
        }
    }

    /// From the next start on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.options.settings.retain(|(set, _)| set != name);
        self.options
            .settings
            .push((name.to_owned(), value.to_owned()));
    }

    pub fn start_again(&mut self) {
        let server = Server::start(&self.binaries, &self.user, &self.data_dir(), &self.options);
        self.server = Some(server.expect("the server starts"));
    }

    /// Output of one of PostgreSQL's own programs, run as the server's account; panics when it fails.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = self.user.command(&self.binaries.program(program));
        let output = command
            .args(arguments)
            .output()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(
            output.status.success(),
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
