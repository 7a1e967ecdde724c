//! A short path for the sockets of a recovery, which the server's account may enter.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use postgres_physical::server::remove_tree;

use crate::{Error, Result};

/// Sockets' paths have a limit of 107 bytes, which a deep target exceeds.
const PREFIX: &str = "/tmp/bre-";
/// As it shows in the command line of the server that recovers.
pub(super) const SOCKETS_PREFIX: &str = "unix_socket_directories=\"/tmp/bre-";

/// `/tmp/bre-<process>-<time>`, removed when dropped.
pub(super) struct WorkFolder(pub(super) PathBuf);

impl WorkFolder {
    pub(super) fn new() -> Result<Self> {
        sweep();
        let now = jiff::Timestamp::now().as_microsecond();
        let path = PathBuf::from(format!("{PREFIX}{}-{now:x}", std::process::id()));
        DirBuilder::new()
            .mode(0o711)
            .create(&path)
            .map_err(Error::io("create", &path))?;
        Ok(Self(path))
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        let _ = remove_tree(&self.0);
    }
}

/// Removes what recoveries left that were killed: ours by owner, and their process is gone.
fn sweep() {
    for entry in fs::read_dir("/tmp").into_iter().flatten().flatten() {
        let path = entry.path();
        if is_abandoned(&path) {
            let _ = remove_tree(&path);
        }
    }
}

fn is_abandoned(path: &Path) -> bool {
    let Some(rest) = path.to_str().and_then(|path| path.strip_prefix(PREFIX)) else {
        return false;
    };
    let Some((pid, time)) = rest.split_once('-') else {
        return false;
    };
    let named = pid.parse::<u32>().is_ok() && u64::from_str_radix(time, 16).is_ok();
    let ours = path
        .symlink_metadata()
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw());
    // A server that outlived its restore still has its socket there.
    let in_use = || path.join("pg/.s.PGSQL.5432.lock").exists() && serves(path);
    named && ours && !Path::new(&format!("/proc/{pid}")).exists() && !in_use()
}

/// Whether the process that holds the socket's lock is alive.
fn serves(path: &Path) -> bool {
    let lock = fs::read_to_string(path.join("pg/.s.PGSQL.5432.lock")).unwrap_or_default();
    let pid = lock.lines().next().unwrap_or_default().trim();
    !pid.is_empty() && Path::new(&format!("/proc/{pid}")).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_recovery_left_is_swept() {
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        let dead = ended.id();
        ended.wait().unwrap();
        let check = |name: String, swept: bool| {
            let path = PathBuf::from(format!("{PREFIX}{name}"));
            fs::create_dir(&path).unwrap();
            let found = is_abandoned(&path);
            fs::remove_dir(&path).unwrap();
            assert_eq!(found, swept, "{name}");
        };
        check(format!("{dead}-5af3"), true);
        check(format!("{}-5af3", std::process::id()), false);
        check(format!("{dead}-mine!"), false);
        check(format!("{dead}"), false);
    }
}
