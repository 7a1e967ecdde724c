//! Whose folder is it, and does a server run on it? Checked before a byte of an existing folder is touched.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postgres_physical::pg_control::ControlFile;
use postgres_physical::server::Leftover;

use super::marker::marked_system;
use super::restore::CONTROL;
use super::writing::open_plain;
use crate::{Error, Result};

const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// In the first page of each WAL segment: its header is of the long kind, and holds the system identifier here.
const LONG_HEADER: u16 = 0x2;
const SYSTEM_AT: usize = 24;

/// Fails unless the folder is certainly a data folder of this cluster: by its `pg_control`, the mark of an interrupted
/// restore, or its WAL.
pub(super) fn check_cluster(folder: &Path, expected: u64) -> Result<()> {
    let control = read_control(folder).map(|control| control.system_identifier);
    let found = control
        .or_else(|| marked_system(folder))
        .or_else(|| wal_system(folder));
    match found {
        Some(found) if found == expected => Ok(()),
        Some(found) => Err(Error::OtherCluster {
            folder: folder.to_owned(),
            found,
            expected,
        }),
        None => Err(Error::NoDataFolder(folder.to_owned())),
    }
}

fn read_control(folder: &Path) -> Option<ControlFile> {
    let mut bytes = Vec::new();
    let mut file = open_plain(&folder.join(CONTROL), false).ok()?;
    file.read_to_end(&mut bytes).ok()?;
    ControlFile::parse(&bytes).ok()
}

fn wal_system(folder: &Path) -> Option<u64> {
    let wal = folder.join("pg_wal");
    if wal.is_symlink() {
        return None;
    }
    let names = fs::read_dir(wal).ok()?.flatten();
    let mut segments: Vec<PathBuf> = names
        .filter(|entry| entry.file_name().len() == 24)
        .map(|entry| entry.path())
        .collect();
    segments.sort();
    segments.iter().find_map(|path| {
        let mut page = [0; SYSTEM_AT + 8];
        open_plain(path, false).ok()?.read_exact(&mut page).ok()?;
        let magic = u16::from_ne_bytes([page[0], page[1]]);
        let info = u16::from_ne_bytes([page[2], page[3]]);
        let system = page[SYSTEM_AT..].first_chunk::<8>()?;
        (magic >> 8 == 0xD1 && info & LONG_HEADER != 0).then(|| u64::from_ne_bytes(*system))
    })
}

/// Fails while a server runs on the folder. One that only a killed restore left behind is stopped first.
pub(super) fn check_not_running(folder: &Path) -> Result<()> {
    if let Some(leftover) = Leftover::detect(folder) {
        if leftover.postmaster.is_some_and(is_of_dead_restore) {
            leftover.stop(STOP_TIMEOUT)?;
        } else {
            let pid = leftover.postmaster.or(leftover.processes.first().copied());
            return Err(Error::ServerRuns {
                folder: folder.to_owned(),
                pid: pid.unwrap_or_default(),
            });
        }
    }
    match lock_holder(folder) {
        // What cannot be looked at may be a server of another account.
        Some(pid) if is_alive(pid) && fs::read_link(format!("/proc/{pid}/exe")).is_err() => {
            Err(Error::ServerRuns {
                folder: folder.to_owned(),
                pid,
            })
        }
        _ => Ok(()),
    }
}

/// The process that `postmaster.pid` names.
pub(super) fn lock_holder(folder: &Path) -> Option<i32> {
    let text = fs::read_to_string(folder.join("postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok()
}

fn is_alive(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// A server that replays for a restore has its socket in the restore's work folder, whose name holds the restore's
/// process.
fn is_of_dead_restore(postmaster: i32) -> bool {
    let Ok(line) = fs::read(format!("/proc/{postmaster}/cmdline")) else {
        return false;
    };
    let line = String::from_utf8_lossy(&line);
    let Some((_, rest)) = line.split_once(super::work::SOCKETS_PREFIX) else {
        return false;
    };
    let digits = rest.split('-').next().and_then(|pid| pid.parse().ok());
    digits.is_some_and(|pid| !is_alive(pid)) && line.contains("recovery_target_action=promote")
}

/// Fails while any server has a tablespace in this folder: a copy of a data folder has links into the original's.
pub(super) fn check_tablespace_free(folder: &Path) -> Result<()> {
    let Ok(folder) = fs::canonicalize(folder) else {
        return Ok(());
    };
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        let exe = fs::read_link(format!("/proc/{pid}/exe"));
        if !exe.is_ok_and(|exe| exe.ends_with("postgres")) {
            continue;
        }
        let links = fs::read_dir(format!("/proc/{pid}/cwd/pg_tblspc"));
        for link in links.into_iter().flatten().flatten() {
            if fs::canonicalize(link.path()).is_ok_and(|place| place == folder) {
                return Err(Error::ServerRuns { folder, pid });
            }
        }
    }
    Ok(())
}
