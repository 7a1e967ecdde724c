//! The running server.

use super::leftover::{Leftover, remove_dead_locks, signal, wait_exit};
use super::{Binaries, OsUser, ServerError, check_traversable};
use rustix::process::Signal;
use std::fs::OpenOptions;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How to start a cluster. Settings go on the command line, so they win over `postgresql.conf` and
/// `postgresql.auto.conf` and leave no trace in the data folder.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// A short folder (the socket's path has a limit of 107 bytes) that the server's account may write to.
    pub socket_dir: PathBuf,
    pub port: u16,
    /// `listen_addresses`; empty means unix socket only.
    pub listen: String,
    /// What the server prints goes here, appended.
    pub log: PathBuf,
    pub settings: Vec<(String, String)>,
    /// Wait for connections this long. Recovery of much WAL takes time: choose it generously.
    pub ready_timeout: Duration,
    /// `false` returns as soon as the process runs, before it accepts connections.
    pub wait_ready: bool,
}

impl StartOptions {
    pub fn new(socket_dir: impl Into<PathBuf>, port: u16, log: impl Into<PathBuf>) -> StartOptions {
        StartOptions {
            socket_dir: socket_dir.into(),
            port,
            listen: String::new(),
            log: log.into(),
            settings: Vec::new(),
            ready_timeout: Duration::from_secs(300),
            wait_ready: true,
        }
    }

    pub fn set(mut self, name: &str, value: impl ToString) -> StartOptions {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Disconnects everybody, writes a checkpoint (SIGINT). Waits for WAL senders to take everything.
    Fast,
    /// Stops at once; the next start recovers from WAL (SIGQUIT).
    Immediate,
    /// SIGKILL to the server and its children, as a crash would.
    Kill,
}

/// How the server ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    pub clean: bool,
    pub description: String,
}

/// A PostgreSQL server that is our direct child, in a process group of its own (Ctrl-C on a terminal reaches us, not
/// it). Dropping it stops it at once (immediate), which loses nothing that was committed.
#[derive(Debug)]
pub struct Server {
    child: Child,
    dir: PathBuf,
    log: PathBuf,
    socket_dir: PathBuf,
    port: u16,
    ended: Option<Exit>,
}

impl Server {
    pub fn start(
        binaries: &Binaries,
        user: &OsUser,
        dir: &Path,
        options: &StartOptions,
    ) -> Result<Server, ServerError> {
        let dir = std::fs::canonicalize(dir).map_err(ServerError::io("find", dir))?;
        check_traversable(&dir, user)?;
        check_traversable(&options.socket_dir, user)?;
        if let Some(left) = Leftover::detect(&dir) {
            return Err(ServerError::AlreadyRunning {
                dir,
                pid: left
                    .postmaster
                    .or(left.processes.first().copied())
                    .unwrap_or_default(),
            });
        }
        remove_dead_locks(&dir, &options.socket_dir, options.port);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&options.log)
            .map_err(ServerError::io("open", &options.log))?;
        let log_again = log
            .try_clone()
            .map_err(ServerError::io("open", &options.log))?;
        let mut command = user.command(&binaries.program("postgres"));
        command
            .arg("-D")
            .arg(&dir)
            .arg("-p")
            .arg(options.port.to_string());
        // A list: quoted, a folder's name may hold commas, quotes and spaces.
        command.arg("-c").arg(format!(
            "unix_socket_directories=\"{}\"",
            options
                .socket_dir
                .display()
                .to_string()
                .replace('"', "\"\"")
        ));
        command
            .arg("-c")
            .arg(format!("listen_addresses={}", options.listen));
        for (name, value) in &options.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_again)
            .process_group(0);
        let log_start = std::fs::metadata(&options.log)
            .map(|m| m.len())
            .unwrap_or(0);
        let child = command
            .spawn()
            .map_err(ServerError::io("run", binaries.program("postgres")))?;
        let mut server = Server {
            child,
            dir,
            log: options.log.clone(),
            socket_dir: options.socket_dir.clone(),
            port: options.port,
            ended: None,
        };
        if options.wait_ready {
            server.wait_ready(options.ready_timeout, log_start)?;
        }
        Ok(server)
    }

    /// Until connections are accepted (a standby counts) or the process ended.
    pub fn wait_ready(&mut self, timeout: Duration, log_start: u64) -> Result<(), ServerError> {
        let deadline = Instant::now() + timeout;
        loop {
            if matches!(self.status_line().as_deref(), Some("ready" | "standby")) {
                return Ok(());
            }
            // One whose folder was deleted never says anything more, and lives on for a minute.
            if !self.dir.join("global/pg_control").exists() {
                return Err(ServerError::FolderGone {
                    dir: self.dir.clone(),
                });
            }
            // The wait for the process to end doubles as the pause between two looks at the status line.
            if let Some(exit) = self.wait_exit(Duration::from_millis(5)) {
                return Err(ServerError::StartFailed {
                    dir: self.dir.clone(),
                    status: exit.description,
                    log: self.log.clone(),
                    tail: tail_of(&self.log, log_start),
                });
            }
            if Instant::now() >= deadline {
                return Err(ServerError::NotReady {
                    dir: self.dir.clone(),
                    seconds: timeout.as_secs(),
                    log: self.log.clone(),
                    tail: tail_of(&self.log, log_start),
                });
            }
        }
    }

    /// The eighth line of `postmaster.pid`: `starting`, `stopping`, `ready` or `standby`; only if the file is this
    /// server's.
    fn status_line(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.dir.join("postmaster.pid")).ok()?;
        let mut lines = text.lines();
        if lines.next()?.trim().parse::<u32>().ok()? != self.child.id() {
            return None;
        }
        Some(lines.nth(6)?.trim().to_owned())
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `Some` once the process has ended, without waiting.
    pub fn exited(&mut self) -> Option<Exit> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten().map(describe);
        }
        self.ended.clone()
    }

    /// Waits for the process to end by itself.
    pub fn wait_exit(&mut self, timeout: Duration) -> Option<Exit> {
        if self.ended.is_none() {
            wait_exit(self.pid(), timeout);
        }
        self.exited()
    }

    /// Stops and waits. Fast falls back to nothing: when it takes longer than `timeout` the caller decides.
    pub fn stop(&mut self, mode: StopMode, timeout: Duration) -> Result<Exit, ServerError> {
        if let Some(exit) = self.exited() {
            return Ok(exit);
        }
        match mode {
            StopMode::Fast => signal(self.pid(), Signal::INT),
            StopMode::Immediate => signal(self.pid(), Signal::QUIT),
            StopMode::Kill => self.kill_all(),
        }
        self.wait_exit(timeout)
            .ok_or_else(|| ServerError::NotStopped {
                dir: self.dir.clone(),
                seconds: timeout.as_secs(),
            })
    }

    fn kill_all(&mut self) {
        signal(self.pid(), Signal::KILL);
        // Children notice the death of their parent; a crash of the machine would not wait for that.
        if let Some(left) = Leftover::detect(&self.dir) {
            let _ = left.kill();
        }
    }

    /// Reads the configuration files again (SIGHUP).
    pub fn reload(&self) {
        signal(self.pid(), Signal::HUP);
    }

    /// The last lines of the server's log.
    pub fn log_tail(&self) -> String {
        tail_of(&self.log, 0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self
            .stop(StopMode::Immediate, Duration::from_secs(10))
            .is_err()
        {
            let _ = self.stop(StopMode::Kill, Duration::from_secs(10));
        }
    }
}

fn describe(status: ExitStatus) -> Exit {
    let description = match (status.code(), status.signal()) {
        (Some(0), _) => "exit code 0".to_owned(),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(number)) => format!("killed by signal {number}"),
        (None, None) => "ended".to_owned(),
    };
    Exit {
        clean: status.success(),
        description,
    }
}

/// The last 20 lines of a log, not earlier than `from`.
pub fn tail_of(log: &Path, from: u64) -> String {
    let Ok(bytes) = std::fs::read(log) else {
        return "(no log)".to_owned();
    };
    let text = String::from_utf8_lossy(bytes.get(from as usize..).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
