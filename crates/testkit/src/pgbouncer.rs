//! A PgBouncer of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::{TestPostgres, eventually, open_folder};

/// In front of a test's PostgreSQL, on a unix socket; anybody may log in as anybody.
#[derive(Debug)]
pub struct TestPgBouncer {
    child: Child,
    root: tempfile::TempDir,
    port: u16,
    settings: String,
}

impl TestPgBouncer {
    /// `None` (which is said): it is not installed; `scripts/setup pgbouncer` installs it. `more`: further lines of its `[pgbouncer]`.
    pub fn start(postgres: &TestPostgres, pool_mode: &str, more: &str) -> Option<TestPgBouncer> {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].map(Path::new);
        let Some(program) = program.into_iter().find(|path| path.exists()) else {
            crate::skip!("pgbouncer", "scripts/setup pgbouncer installs it");
            return None;
        };
        let root = open_folder("pgbouncer-");
        postgres.os_user().own(root.path()).expect("owner");
        let (folder, port) = (root.path().display(), 6432);
        let users = root.path().join("users");
        let text = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nunix_socket_dir = {folder}\nlisten_port = {port}\nauth_type = trust\n\
             auth_file = {}\npool_mode = {pool_mode}\nlogfile = {folder}/log\npidfile = {folder}/pid\n{more}\n",
            postgres.socket_dir().display(),
            postgres.port(),
            users.display()
        );
        let names =
            ["postgres", "bre_owner", "bre_service"].map(|name| format!("\"{name}\" \"\"\n"));
        std::fs::write(&users, names.concat()).expect("users");
        let settings = root.path().join("pgbouncer.ini");
        std::fs::write(&settings, &text).expect("settings");
        for file in [&users, &settings] {
            std::fs::set_permissions(file, PermissionsExt::from_mode(0o644)).expect("mode");
        }
        let child = postgres
            .os_user()
            .command(program)
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("PgBouncer starts");
        let mut bouncer = TestPgBouncer {
            child,
            root,
            port,
            settings: text,
        };
        let socket = bouncer.folder().join(format!(".s.PGSQL.{port}"));
        eventually("PgBouncer listens", || {
            let ended = bouncer.child.try_wait().expect("its state");
            assert!(ended.is_none(), "PgBouncer: {}", bouncer.log());
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
        Some(bouncer)
    }

    pub fn folder(&self) -> &Path {
        self.root.path()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// For whatever begins after it has been read.
    pub fn set_pool_mode(&mut self, pool_mode: &str) {
        let line = |line: &str| match line.starts_with("pool_mode") {
            true => format!("pool_mode = {pool_mode}\n"),
            false => format!("{line}\n"),
        };
        self.settings = self.settings.lines().map(line).collect();
        std::fs::write(self.root.path().join("pgbouncer.ini"), &self.settings).expect("settings");
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("a signal");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.root.path().join("log")).unwrap_or_default()
    }
}

impl Drop for TestPgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
