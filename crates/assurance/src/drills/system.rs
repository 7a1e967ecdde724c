//! The throw-away system: a real `bre up` in a folder of its own, started, harmed and queried from outside.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use postgres_physical::server::processes::{children_of, is_alive};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::DrillError;

/// Everything of an instance folder that a loss leaves: the repository and its keys.
const SURVIVORS: [&str; 2] = ["repository", "keys"];
const STANDBY: &str = "spare";

/// The line that `bre up --json` prints when it is ready; only what a drill needs of it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Ready {
    pub(crate) url: String,
    pub(crate) api_key_file: PathBuf,
    pub(crate) client_id: String,
}

/// Of `bre standby status --json`, what a drill needs.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct StandbyStatus {
    pub(crate) healthy: bool,
    pub(crate) restore_id: Option<String>,
}

/// How to start the system; the same words every time, so that a restart is what an init system would do.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) bre: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) config: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) strict: bool,
    pub(crate) rates_file: Option<PathBuf>,
}

impl System {
    /// Starts `bre up` and waits for its one line. It must come from the engine: no timer stands in for it.
    pub(crate) fn up(&self, port: u16) -> Result<(Child, Ready), DrillError> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(DrillError::file("cannot open the log", &self.log))?;
        let mut command = Command::new(&self.bre);
        command
            .arg("up")
            .arg("--json")
            .arg("--data")
            .arg(&self.data)
            .arg("--config")
            .arg(&self.config);
        command.arg("--port").arg(port.to_string());
        if self.strict {
            command.arg("--strict");
        }
        if let Some(rates_file) = &self.rates_file {
            command.arg("--book").arg(rates_file);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(DrillError::file("cannot start", &self.bre))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout)
                .read_line(&mut line)
                .map_err(DrillError::file("cannot read the output of", &self.bre))?;
        }
        match serde_json::from_str(&line) {
            Ok(ready) => Ok((child, ready)),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(DrillError::Start {
                    reason: format!("expected its line of JSON, got {line:?} ({error})"),
                    log: self.log.clone(),
                })
            }
        }
    }

    /// Runs a command of `bre` against this system and gives its standard output.
    pub(crate) fn ask(&self, words: &[&str]) -> Result<(bool, String), DrillError> {
        let output = Command::new(&self.bre)
            .args(words)
            .arg("--data")
            .arg(&self.data)
            .stdin(Stdio::null())
            .output()
            .map_err(DrillError::file("cannot start", &self.bre))?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if stdout.is_empty() && !output.status.success() {
            return Err(DrillError::Command {
                command: words.join(" "),
                reason: String::from_utf8_lossy(&output.stderr).into_owned(),
            });
        }
        Ok((output.status.success(), stdout))
    }

    pub(crate) fn standby(&self) -> Option<StandbyStatus> {
        let (_, printed) = self.ask(&["standby", "status", "--json"]).ok()?;
        serde_json::from_str(&printed).ok()
    }

    /// The process ids of the running database: the postmaster and all its children.
    pub(crate) fn database_pids(&self) -> Result<Vec<i32>, DrillError> {
        let path = self.data.join("postgres/postmaster.pid");
        let text =
            std::fs::read_to_string(&path).map_err(DrillError::file("cannot read", &path))?;
        let postmaster: i32 = text
            .lines()
            .next()
            .and_then(|line| line.trim().parse().ok())
            .ok_or_else(|| DrillError::Command {
                command: "up".into(),
                reason: format!("{} holds no process id", path.display()),
            })?;
        let mut pids = vec![postmaster];
        pids.extend(children_of(postmaster));
        Ok(pids)
    }

    /// Deletes everything but the repository and its keys, and the standby if it is to survive, as a burnt disk would.
    /// Only ever called on the drill's own folder.
    pub(crate) fn destroy(&self, but_the_standby: bool) -> Result<(), DrillError> {
        let read =
            std::fs::read_dir(&self.data).map_err(DrillError::file("cannot list", &self.data))?;
        let names: Vec<_> = read.flatten().map(|entry| entry.file_name()).collect();
        let burnt = self.data.with_extension("burnt");
        std::fs::create_dir(&burnt).map_err(DrillError::file("cannot make", &burnt))?;
        for name in names {
            if SURVIVORS.iter().any(|kept| name == *kept) || (but_the_standby && name == STANDBY) {
                continue;
            }
            // Gone in one instant: what a living engine puts in its place meanwhile is not part of the loss.
            let path = self.data.join(&name);
            match std::fs::rename(&path, burnt.join(&name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(DrillError::file("cannot take away", path)(error));
                }
                _ => {}
            }
        }
        remove(&burnt)
    }
}

fn remove(path: &Path) -> Result<(), DrillError> {
    loop {
        let removed = if path.is_dir() {
            std::fs::remove_dir_all(path)
        } else {
            std::fs::remove_file(path)
        };
        match removed {
            // A living engine may write a file into the folder while it is being emptied.
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(DrillError::file("cannot delete", path)(error));
            }
            _ => return Ok(()),
        }
    }
}

/// SIGKILL: no warning, no clean-up. A process that is gone already is no error.
pub(crate) fn kill(pid: i32) -> Result<(), DrillError> {
    let Some(target) = Pid::from_raw(pid) else {
        return Ok(());
    };
    match kill_process(target, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(DrillError::Kill {
            pid,
            source: error.into(),
        }),
    }
}

/// Waits until none of the processes runs any more (one that nobody has waited for yet does not run).
pub(crate) fn wait_dead(pids: &[i32]) {
    while pids.iter().any(|pid| is_alive(*pid)) {
        std::thread::yield_now();
    }
}

/// Asks the engine to stop as Ctrl-C would, and waits; past `limit` it is killed and that is reported.
pub(crate) fn stop(child: &mut Child, limit: Duration) -> Result<bool, DrillError> {
    let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
    if let Some(target) = Pid::from_raw(pid) {
        let _ = kill_process(target, Signal::TERM);
    }
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status.success()),
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            Err(error) => return Err(DrillError::Kill { pid, source: error }),
        }
    }
    kill(pid)?;
    let _ = child.wait();
    Ok(false)
}
