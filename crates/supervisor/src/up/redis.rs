//! The instance's own Redis: a cache. It is restarted when it ends and never stands in anybody's way.

use host::{
    files::{make_folder, write_whole},
    instance::Instance,
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use operations::Error;

const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const LISTEN_TIMEOUT: Duration = Duration::from_secs(2);

/// The guide's persistence settings: a snapshot an hour, the append-only file synced every second.
const CONFIG: &str = "save 3600 1\nappendonly yes\nappendfsync everysec\nauto-aof-rewrite-percentage 100\n\
                      auto-aof-rewrite-min-size 64mb\nport 0\ndaemonize no\nmaxmemory-policy allkeys-lru\n";

/// Since version 7: restores may go to a second between two copies.
const TIME_MARKS: &str = "aof-timestamp-enabled yes\n";

/// A running Redis and what is needed to start it again.
#[derive(Debug)]
pub(crate) struct Redis {
    instance: Instance,
    program: PathBuf,
    socket: PathBuf,
    child: Option<Child>,
    /// Its socket was seen since its start, or must have been there: when it is not there any more, somebody deleted it.
    listened: bool,
    started: Instant,
}

impl Redis {
    pub(crate) fn new(instance: &Instance) -> Result<Self, Error> {
        let program = find_program().ok_or(Error::from(host::Error::ProgramMissing {
            program: "redis-server",
            package: "redis-server",
            setting: "[cache] url = \"redis://…\" to use one that runs elsewhere",
        }))?;
        let socket = instance.socket_folder("redis").join("redis.sock");
        Ok(Self {
            instance: instance.clone(),
            program,
            socket,
            child: None,
            listened: false,
            started: Instant::now(),
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket.display())
    }

    pub(crate) fn start(&mut self) -> Result<(), Error> {
        let dir = self.instance.redis();
        make_folder(&dir, 0o700)?;
        make_folder(&self.instance.logs(), 0o711)?;
        if let Some(folder) = self.socket.parent() {
            make_folder(folder, 0o700)?;
        }
        self.end_leftover();
        let config = self.config_file();
        let marks = match has_time_marks(&self.program) {
            true => TIME_MARKS,
            false => "",
        };
        let text = format!(
            "{CONFIG}{marks}dir \"{}\"\nunixsocket \"{}\"\nunixsocketperm 700\n",
            dir.display(),
            self.socket.display()
        );
        write_whole(&config, text.as_bytes(), 0o600)?;
        let path = self.instance.logs().join("redis.log");
        let log = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Error::file("cannot open", &path))?;
        let errors = log.try_clone().map_err(Error::file("cannot open", &path))?;
        let mut command = Command::new(&self.program);
        // A process group of its own: Ctrl-C on the terminal is ours to handle, in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(Error::file("cannot start", &self.program))?;
        self.child = Some(child);
        (self.listened, self.started) = (false, Instant::now());
        Ok(())
    }

    fn config_file(&self) -> PathBuf {
        self.instance.redis().join("redis.conf")
    }

    /// An engine that was killed leaves its Redis running; two on one append-only file would ruin it.
    fn end_leftover(&self) {
        // One whose files were deleted refuses to stop before it has saved, which it cannot.
        let gentle = self.config_file().exists();
        let began = Instant::now();
        loop {
            let left = self.leftovers();
            if left.is_empty() {
                return;
            }
            let harder = !gentle || began.elapsed() > STOP_TIMEOUT;
            for pid in left {
                let signal = if harder { Signal::KILL } else { Signal::TERM };
                let _ = kill_process(pid, signal);
            }
            if began.elapsed() > STOP_TIMEOUT * 2 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn kill_leftovers(&self) {
        for pid in self.leftovers() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// By their command lines: the file with its number may have been deleted under it.
    fn leftovers(&self) -> Vec<Pid> {
        let serving = format!("unixsocket:{}", self.socket.display());
        let starting = format!("\0{}\0", self.config_file().display());
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
            .filter(|pid| {
                let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_pid()));
                line.is_ok_and(|line| {
                    let line = String::from_utf8_lossy(&line);
                    line.contains("redis-server")
                        && (line.contains(&serving) || line.contains(&starting))
                })
            })
            .collect()
    }

    /// Starts it again if it ended, or if its files were deleted under it: it could neither be reached nor save.
    pub(crate) fn keep_running(&mut self) {
        let ended = match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(Some(_))),
            None => true,
        };
        // Written before the process starts, so its absence means a deletion, never a slow start.
        let listens = self.socket.exists();
        let deleted = !self.config_file().exists() || self.listened && !listens;
        // It listens before it reads its files.
        self.listened |= listens || self.started.elapsed() > LISTEN_TIMEOUT;
        if !ended && !deleted {
            return;
        }
        tracing::warn!(
            ended,
            deleted,
            "Redis is not as it should be; starting it again"
        );
        self.end_at_once();
        if let Err(error) = self.start() {
            tracing::error!(%error, "Redis could not be started; the engine goes on without its cache");
        }
    }

    fn end_at_once(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(crate) fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child = Some(child);
        self.end_at_once();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An older one does not start with a setting that it does not know.
fn has_time_marks(program: &Path) -> bool {
    let said = Command::new(program).arg("--version").output();
    said.is_ok_and(|said| major_of(&String::from_utf8_lossy(&said.stdout)) >= Some(7))
}

fn major_of(version: &str) -> Option<u32> {
    let (_, number) = version.split_once("v=")?;
    number.split('.').next()?.parse().ok()
}

#[test]
fn a_version_is_read() {
    assert_eq!(major_of("Redis server v=7.0.15 sha=00000000:0"), Some(7));
    assert_eq!(major_of("Redis server v=6.2.14 sha=0"), Some(6));
    assert_eq!(major_of("something else"), None);
}

fn find_program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/usr/local/bin", "/usr/sbin"]
        .into_iter()
        .map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(usual)
        .map(|dir| dir.join("redis-server"))
        .find(|file| file.is_file())
}
