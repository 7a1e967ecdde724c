//! Processes of an earlier run that still hold a data folder: a server whose parent was killed, or backends whose
//! postmaster was. PostgreSQL sets their working directory to the data folder; this identifies them.

use super::ServerError;
use super::processes::{parent_of, running_pids, state_of};
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
    pub fn stop(&self, timeout: Duration) -> Result<(), ServerError> {
        if let Some(pid) = self.postmaster {
            signal(pid, Signal::INT);
            if wait_gone(&self.processes, timeout) {
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
            seconds: timeout.as_secs() + 10,
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

/// Removes lock files that only seem to be held: by a process that ended and was never waited for (in a container whose
/// first process does not do that), or by another program that got its number. PostgreSQL would take either for a
/// running server. Call it when nothing runs on the folder; the lock of a server that is alive stays.
pub(super) fn remove_dead_locks(dir: &Path, socket_dir: &Path, port: u16) {
    for lock in [
        dir.join("postmaster.pid"),
        socket_dir.join(format!(".s.PGSQL.{port}.lock")),
    ] {
        let pid = std::fs::read_to_string(&lock)
            .ok()
            .and_then(|text| text.lines().next()?.trim().parse().ok());
        if let Some(pid) = pid
            && only_seems_to_run(pid)
        {
            let _ = std::fs::remove_file(&lock);
        }
    }
}

/// Of a number that is free PostgreSQL judges by itself, and of one that cannot be looked at nothing is known.
fn only_seems_to_run(pid: i32) -> bool {
    match state_of(pid) {
        Some('Z' | 'X') => true,
        Some(_) => program_of(pid).is_some_and(|name| name != "postgres" && name != "postmaster"),
        None => false,
    }
}

/// A process that is gone already is what we want.
pub(super) fn signal(pid: i32, kind: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, kind);
    }
}

/// Waits until none of the processes lives (a zombie does not live); false when time ran out.
fn wait_gone(pids: &[i32], timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    pids.iter()
        .all(|pid| wait_exit(*pid, deadline.saturating_duration_since(Instant::now())))
}

/// Waits for one process to end, whoever its parent is.
pub(super) fn wait_exit(pid: i32, timeout: Duration) -> bool {
    let Some(pid) = Pid::from_raw(pid) else {
        return true;
    };
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
        return true;
    };
    let timeout = Timespec {
        tv_sec: timeout.as_secs().min(1_000_000) as i64,
        tv_nsec: i64::from(timeout.subsec_nanos()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_only_seems_to_be_held_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, sockets) = (folder.path().join("data"), folder.path().join("run"));
        let locks = [dir.join("postmaster.pid"), sockets.join(".s.PGSQL.7.lock")];
        let alive = |pid: &str| {
            for lock in &locks {
                std::fs::create_dir_all(lock.parent().unwrap()).unwrap();
                std::fs::write(lock, format!("{pid}\n{}\n", dir.display())).unwrap();
            }
            remove_dead_locks(&dir, &sockets, 7);
            locks.each_ref().map(|lock| lock.exists())
        };
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        let pid = ended.id();
        while state_of(pid.cast_signed()) != Some('Z') {
            std::thread::yield_now();
        }
        assert_eq!(alive(&pid.to_string()), [false, false], "a zombie");
        let us = std::process::id().to_string();
        assert_eq!(alive(&us), [false, false], "another program");
        ended.wait().unwrap();
        assert_eq!(alive(&pid.to_string()), [true, true], "a free number");
        assert_eq!(alive("what?"), [true, true], "not a number");
    }
}
