//! Processes of an earlier run that still hold a data folder: a server whose parent was killed, or backends whose
//! postmaster was. They are recognised by their working directory, which PostgreSQL sets to its data folder.

use super::ServerError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What still runs on a data folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    pub dir: PathBuf,
    /// The postmaster, when it is still alive.
    pub postmaster: Option<i32>,
    /// Every process on the folder, the postmaster included.
    pub processes: Vec<i32>,
}

impl Leftover {
    /// `None` when nothing runs there. A stale `postmaster.pid` of a dead or foreign process does not count (and the
    /// server itself replaces it). Works after the folder was deleted, too.
    pub fn detect(dir: &Path) -> Option<Leftover> {
        let dir = std::fs::canonicalize(dir)
            .or_else(|_| std::path::absolute(dir))
            .ok()?;
        let mut processes: Vec<i32> = running_pids().filter(|pid| runs_on(*pid, &dir)).collect();
        processes.sort_unstable();
        if processes.is_empty() {
            return None;
        }
        let postmaster = processes.iter().copied().find(|pid| {
            parent_of(*pid).is_none_or(|parent| !processes.contains(&parent)) && is_postmaster(*pid)
        });
        Some(Leftover {
            dir,
            postmaster,
            processes,
        })
    }

    /// Fast shutdown first (a clean stop), then immediate, then SIGKILL for whatever is still there.
    pub fn stop(&self, patience: Duration) -> Result<(), ServerError> {
        if let Some(pid) = self.postmaster {
            signal(pid, Signal::INT);
            if wait_gone(&self.processes, patience) {
                return Ok(());
            }
        }
        for kind in [Signal::QUIT, Signal::KILL] {
            for pid in &self.processes {
                signal(*pid, kind);
            }
            if wait_gone(&self.processes, Duration::from_secs(5)) {
                return Ok(());
            }
        }
        Err(ServerError::NotStopped {
            dir: self.dir.clone(),
            seconds: patience.as_secs() + 10,
        })
    }

    /// SIGKILL to every process, as a crash of the machine would: for drills.
    pub fn kill(&self) -> Result<(), ServerError> {
        for pid in &self.processes {
            signal(*pid, Signal::KILL);
        }
        if wait_gone(&self.processes, Duration::from_secs(10)) {
            return Ok(());
        }
        Err(ServerError::NotStopped {
            dir: self.dir.clone(),
            seconds: 10,
        })
    }
}

/// A process that is gone already is what we want.
pub(super) fn signal(pid: i32, kind: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, kind);
    }
}

/// Waits until none of the processes lives (a zombie does not live); false when time ran out.
fn wait_gone(pids: &[i32], patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    pids.iter()
        .all(|pid| wait_exit(*pid, deadline.saturating_duration_since(Instant::now())))
}

/// Waits for one process to end, whoever its parent is.
pub(super) fn wait_exit(pid: i32, patience: Duration) -> bool {
    let Some(pid) = Pid::from_raw(pid) else {
        return true;
    };
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
        return true;
    };
    let timeout = Timespec {
        tv_sec: patience.as_secs().min(1_000_000) as i64,
        tv_nsec: i64::from(patience.subsec_nanos()),
    };
    let mut fds = [PollFd::new(&handle, PollFlags::IN)];
    loop {
        match poll(&mut fds, Some(&timeout)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}

fn running_pids() -> impl Iterator<Item = i32> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn runs_on(pid: i32, dir: &Path) -> bool {
    let Ok(cwd) = std::fs::read_link(format!("/proc/{pid}/cwd")) else {
        return false;
    };
    let deleted = PathBuf::from(format!("{} (deleted)", dir.display()));
    (cwd == dir || cwd == deleted)
        && program_of(pid).is_some_and(|name| name == "postgres" || name == "postmaster")
}

fn program_of(pid: i32) -> Option<String> {
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(
        exe.file_name()?
            .to_str()?
            .trim_end_matches(" (deleted)")
            .to_owned(),
    )
}

/// Children change their title to `postgres: checkpointer`; only a postmaster keeps its command line.
fn is_postmaster(pid: i32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.starts_with(b"postgres: "))
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}
