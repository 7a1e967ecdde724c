//! A server of our own that loads files and goes away again: on a socket in a folder that only we reach, without a
//! port, writing nothing that is not asked for.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{RedisError, Result};
use crate::session::{RedisSession, ServerKind};
use crate::settings::RedisSettings;

/// A server that says nothing at all for so long hangs; one that loads says so.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const END_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);
const LOG: &str = "server.log";

/// `redis-server` or `valkey-server`. The tools that check files are the same program under another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub path: PathBuf,
    pub kind: ServerKind,
}

impl Program {
    /// Of the kind of the server whose files are looked at; where only the other one is here, that one.
    pub fn find(kind: ServerKind) -> Result<Program> {
        let (redis, valkey) = ("redis-server", "valkey-server");
        let order = match kind {
            ServerKind::Redis => [(redis, ServerKind::Redis), (valkey, ServerKind::Valkey)],
            ServerKind::Valkey => [(valkey, ServerKind::Valkey), (redis, ServerKind::Redis)],
        };
        let found = order.into_iter().find_map(|(name, kind)| {
            let path = on_path(name)?;
            Some(Program { path, kind })
        });
        found.ok_or(RedisError::NoProgram(order[0].0))
    }

    /// Runs the tool for an append-only file; what it says is in the error.
    pub fn check_aof(&self, manifest: &Path, options: &[&str]) -> Result<()> {
        self.tool("check-aof", options, manifest)
    }

    pub fn check_rdb(&self, file: &Path) -> Result<()> {
        self.tool("check-rdb", &[], file)
    }

    fn tool(&self, tool: &str, options: &[&str], file: &Path) -> Result<()> {
        let name = match self.kind {
            ServerKind::Redis => format!("redis-{tool}"),
            ServerKind::Valkey => format!("valkey-{tool}"),
        };
        // By its name the program knows what it is to do; a package may have the tools as files of their own.
        let beside = self.path.with_file_name(&name);
        let mut command = match beside.is_file() {
            true => Command::new(beside),
            false => Command::new(&self.path),
        };
        let output = command
            .arg0(&name)
            .args(options)
            .arg(file)
            .stdin(Stdio::null())
            .output()
            .map_err(RedisError::file("run", &self.path))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        Err(RedisError::Load {
            files: file.to_owned(),
            fault: LoadFault::of_tool(&said),
        })
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/usr/local/bin", "/usr/sbin"]
        .into_iter()
        .map(PathBuf::from);
    let mut files = std::env::split_paths(&path)
        .chain(usual)
        .map(|folder| folder.join(name));
    files.find(|file| file.is_file())
}

/// Why a server did not load files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadFault {
    #[error(
        "they are of a version that it does not read ({0}). Install the server that wrote them, or a later one"
    )]
    Version(String),
    #[error("they are damaged ({0}). Take an earlier copy")]
    Damaged(String),
    #[error("there is not enough memory ({0})")]
    Memory(String),
    #[error("it ended ({0})")]
    Ended(String),
    #[error("it did not answer for a minute")]
    Silent,
}

impl LoadFault {
    /// By the first line that says the reason; the last ones say only that it ended.
    fn of_log(log: &str) -> LoadFault {
        let is_known = |line: &&str| !line.is_empty() && !line.contains("Memory overcommit");
        let lines: Vec<&str> = log.lines().map(words_of).filter(is_known).collect();
        let first = |words: &[&str]| {
            let has = |line: &&&str| words.iter().any(|word| line.contains(word));
            lines.iter().find(has).map(|line| (*line).to_owned())
        };
        let version = first(&[
            "handle RDB format",
            "Feature not supported",
            "unknown AUX",
            "Unknown RDB",
        ]);
        let memory = || first(&["Out Of Memory", "Can't allocate", "Cannot allocate"]);
        let damage = || {
            first(&[
                "Bad file format",
                "Unexpected end of file",
                "Unexpected EOF",
                "Short read",
                "Wrong signature",
                "checksum",
                "CRC error",
                "Internal error in RDB",
                "Fatal error loading",
                "AOF loading aborted",
                "not valid",
            ])
        };
        let last = || {
            lines
                .last()
                .map_or("it wrote no log", |line| line)
                .to_owned()
        };
        version
            .map(LoadFault::Version)
            .or_else(|| memory().map(LoadFault::Memory))
            .or_else(|| damage().map(LoadFault::Damaged))
            .unwrap_or_else(|| LoadFault::Ended(last()))
    }

    /// A tool that looks at files ends so only of them.
    fn of_tool(said: &str) -> LoadFault {
        match LoadFault::of_log(said) {
            LoadFault::Ended(words) => LoadFault::Damaged(words),
            other => other,
        }
    }
}

/// Without the process and the time of a log's line, or the offset of a tool's.
fn words_of(line: &str) -> &str {
    let of_log = line
        .split_once(" # ")
        .or_else(|| line.split_once(" * "))
        .map_or(line, |(_, words)| words);
    let of_tool = of_log
        .split_once("] ")
        .filter(|(offset, _)| offset.starts_with('['));
    of_tool.map_or(of_log, |(_, words)| words).trim()
}

/// What it loads, in a folder of its own.
#[derive(Debug, Clone, Copy)]
pub enum ScratchFiles<'a> {
    /// The folder's `FOLDER/NAME.manifest` and what it names; switched on, and never rewritten unless asked.
    Aof {
        folder: &'a str,
        name: &'a str,
    },
    /// A file; the append-only file is off.
    Rdb(&'a str),
    Nothing,
}

#[derive(Debug)]
pub struct ScratchRedis {
    child: Child,
    folder: PathBuf,
    /// With its socket, whose name has to be short, and its log.
    socket_folder: tempfile::TempDir,
}

impl ScratchRedis {
    /// Returns when all is loaded. `databases`: as the server has them whose files these are.
    pub fn start(
        program: &Program,
        folder: &Path,
        files: ScratchFiles<'_>,
        databases: u32,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<ScratchRedis> {
        let socket_folder = tempfile::Builder::new()
            .prefix("bre-redis-")
            .tempdir()
            .map_err(RedisError::file(
                "make a folder for a socket in",
                &std::env::temp_dir(),
            ))?;
        let log_path = socket_folder.path().join(LOG);
        let log = File::create(&log_path).map_err(RedisError::file("write", &log_path))?;
        let errors = log
            .try_clone()
            .map_err(RedisError::file("write", &log_path))?;
        // Through its standard input: it needs no file, and takes nothing from the command line.
        let mut child = Command::new(&program.path)
            .arg("-")
            .process_group(0)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(RedisError::file("start", &program.path))?;
        let settings = configuration(folder, &socket_folder.path().join("s"), files, databases);
        let written = child
            .stdin
            .take()
            .map(|mut input| input.write_all(settings.as_bytes()));
        let mut scratch = ScratchRedis {
            child,
            folder: folder.to_owned(),
            socket_folder,
        };
        if let Some(Err(error)) = written
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            return Err(RedisError::file("start", &program.path)(error));
        }
        scratch.wait_loaded(cancelled)?;
        Ok(scratch)
    }

    fn wait_loaded(&mut self, cancelled: &dyn Fn() -> bool) -> Result<()> {
        let mut heard = Instant::now();
        loop {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                let log = fs::read(self.socket_folder.path().join(LOG)).unwrap_or_default();
                return Err(self.fault(LoadFault::of_log(&String::from_utf8_lossy(&log))));
            }
            if cancelled() {
                return Err(RedisError::Cancelled);
            }
            match self
                .session()
                .and_then(|mut session| session.ask::<String>(&["PING"]))
            {
                Ok(_) => return Ok(()),
                // It loads.
                Err(RedisError::Refused { .. }) => heard = Instant::now(),
                Err(_) => {}
            }
            if heard.elapsed() > SILENCE_MAX {
                return Err(self.fault(LoadFault::Silent));
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn fault(&self, fault: LoadFault) -> RedisError {
        RedisError::Load {
            files: self.folder.clone(),
            fault,
        }
    }

    #[must_use]
    pub fn settings(&self) -> RedisSettings {
        RedisSettings::from(format!(
            "redis+unix://{}",
            self.socket_folder.path().join("s").display()
        ))
    }

    pub fn session(&self) -> Result<RedisSession> {
        RedisSession::open(&self.settings())
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its files are left as they are; what it has in memory beyond them is gone.
    pub fn end(mut self) {
        self.kill();
    }

    /// Its append-only file is on disk when this returns; no RDB file is written.
    pub fn end_flushed(mut self) -> Result<()> {
        let mut session = self.session()?;
        // It hangs up instead of answering.
        let _ = session.ask::<()>(&["SHUTDOWN", "NOSAVE"]);
        let began = Instant::now();
        while began.elapsed() < END_TIMEOUT {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        Err(self.fault(LoadFault::Ended("it did not stop within 10 s".to_owned())))
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for ScratchRedis {
    fn drop(&mut self) {
        self.kill();
    }
}

fn configuration(folder: &Path, socket: &Path, files: ScratchFiles<'_>, databases: u32) -> String {
    let mut text = format!(
        "port 0\nunixsocket {}\nunixsocketperm 700\ndir {}\ndaemonize no\nsave \"\"\ndatabases {databases}\n\
         auto-aof-rewrite-percentage 0\naof-load-truncated no\nmaxmemory 0\nlogfile \"\"\nloglevel notice\n",
        quoted(socket),
        quoted(folder),
    );
    text.push_str(&match files {
        ScratchFiles::Aof { folder, name } => {
            format!("appendonly yes\nappenddirname \"{folder}\"\nappendfilename \"{name}\"\n")
        }
        ScratchFiles::Rdb(name) => format!("appendonly no\ndbfilename \"{name}\"\n"),
        ScratchFiles::Nothing => "appendonly no\ndbfilename \"none.rdb\"\n".to_owned(),
    });
    text
}

fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Servers that an earlier process of ours left in a folder below this one when it was killed.
pub fn end_leftovers(below: &Path) {
    let Ok(below) = below.canonicalize() else {
        return;
    };
    let began = Instant::now();
    loop {
        let left = servers_in(&below);
        if left.is_empty() || began.elapsed() > END_TIMEOUT {
            return;
        }
        for pid in left {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether a server works in this folder, or below it.
#[must_use]
pub fn is_in_use(folder: &Path) -> bool {
    folder
        .canonicalize()
        .is_ok_and(|folder| !servers_in(&folder).is_empty())
}

fn servers_in(below: &Path) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    pids.filter(|pid| {
        let place = PathBuf::from(format!("/proc/{}", pid.as_raw_pid()));
        let name = fs::read_to_string(place.join("comm")).unwrap_or_default();
        let folder = fs::read_link(place.join("cwd"));
        (name.starts_with("redis-") || name.starts_with("valkey-"))
            && folder.is_ok_and(|folder| folder.starts_with(below))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_told_and_not_that_it_ended() {
        let version = "1:M 30 Nov 2026 16:59:42.637 * Reading RDB base file\n\
                       1:M 30 Nov 2026 16:59:42.637 # Can't handle RDB format version 11\n\
                       1:M 30 Nov 2026 16:59:42.637 # Error reading the RDB base file, AOF loading aborted\n";
        let words = "Can't handle RDB format version 11".to_owned();
        assert_eq!(
            LoadFault::of_log(version),
            LoadFault::Version(words.clone())
        );
        let tool = "[offset 0] Checking RDB file r/dump.rdb\n--- RDB ERROR DETECTED ---\n\
                    [offset 9] Can't handle RDB format version 11\n[info] 0 already expired\n";
        assert_eq!(LoadFault::of_tool(tool), LoadFault::Version(words));
        let damage = "1:M 30 Nov 2026 16:59:43.008 # Wrong RDB checksum expected: (1) but got (2). Aborting now.\n\
                      [offset 0] Checking RDB file appendonly.aof.2.base.rdb\n";
        assert!(
            matches!(LoadFault::of_log(damage), LoadFault::Damaged(words) if words.starts_with("Wrong RDB"))
        );
        let other = "1:M 30 Nov 2026 16:59:43.008 # Failed listening on port 0\n";
        assert_eq!(
            LoadFault::of_log(other),
            LoadFault::Ended("Failed listening on port 0".to_owned())
        );
        assert_eq!(
            LoadFault::of_log(""),
            LoadFault::Ended("it wrote no log".to_owned())
        );
        assert!(matches!(
            LoadFault::of_tool("[info] odd\n"),
            LoadFault::Damaged(_)
        ));
    }
}
