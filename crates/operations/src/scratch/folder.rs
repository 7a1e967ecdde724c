//! The folder in which a backup is brought back and looked at. One at a time; whatever an earlier one left is cleared
//! first.

use std::{
    fs::File,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use postgres_physical::{
    server::{
        Binaries, Leftover, OsUser, Server, ServerError, StartOptions, remove_tree,
        write_cluster_file,
    },
    wire::ConnectOptions,
};
use recovery::database::{Plan, RecoveryReport, RestoreOptions, RestoreReport, restore};
use repository::{FileLock, Repository};

use super::Claim;
use host::{database::SUPERUSER, files::make_folder, progress::Steps};

use crate::{
    error::Error,
    restored::{Source, fetched_by_this_program},
};

const PORT: u16 = 5432;
const TIMEOUT: Duration = Duration::from_secs(30);
/// A proof leaves this much of the disk to everybody else.
const LEFT_FREE_BYTES: u64 = 1 << 30;

/// Between two looks whether another restore is over.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// In the scratch folder: whose claim on a timeline goes with it.
const RESTORE_ID: &str = "restore_id";

#[derive(Debug)]
pub struct ScratchFolder {
    root: PathBuf,
    /// Short enough for a socket, closed to everybody but the server's account.
    sockets: tempfile::TempDir,
    _lock: FileLock,
}

impl ScratchFolder {
    pub fn claim(work: &Path, user: &OsUser, repository: &Repository) -> Result<Self, Error> {
        make_folder(work, 0o711)?;
        Self::make(work, user, repository, take(work)?)
    }

    /// Waits for whoever restores there. A restore test that the plan starts while a person runs one has not failed.
    pub fn claim_when_free(
        work: &Path,
        user: &OsUser,
        repository: &Repository,
        steps: &Steps,
    ) -> Result<Self, Error> {
        make_folder(work, 0o711)?;
        let mut said = false;
        loop {
            match take(work) {
                Ok(lock) => return Self::make(work, user, repository, lock),
                Err(busy @ Error::Host(host::Error::Refused { .. })) if steps.is_cancelled() => {
                    return Err(busy);
                }
                Err(Error::Host(host::Error::Refused { .. })) => {
                    if !std::mem::replace(&mut said, true) {
                        steps.step(&format!(
                            "waiting for another restore in {}",
                            work.display()
                        ));
                    }
                    std::thread::sleep(LOOK_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn make(
        work: &Path,
        user: &OsUser,
        repository: &Repository,
        lock: FileLock,
    ) -> Result<Self, Error> {
        let root = work.join("scratch");
        clear_left(&root, repository)?;
        make_folder(&root, 0o711)?;
        let sockets = tempfile::Builder::new()
            .prefix("bre-proof-")
            .tempdir_in("/tmp")
            .map_err(Error::file("cannot make a folder in", "/tmp"))?;
        user.own(sockets.path())?;
        Ok(Self {
            root,
            sockets,
            _lock: lock,
        })
    }

    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Brings the files of the plan's backup here, once there is room for all that follows. The outer error speaks of
    /// this folder.
    pub fn restore(
        &self,
        source: &Source<'_>,
        plan: &Plan,
        options: &RestoreOptions,
        steps: &Steps,
    ) -> Result<recovery::Result<RestoreReport>, Error> {
        let (repository, private) = (source.repository, source.private);
        let space = self.check_space(plan.backup.bytes_source, plan.wal_bytes);
        let restored =
            space.and_then(|()| restore(repository, private, plan, &self.data(), options, steps));
        if restored.is_ok() {
            self.note_restore(&plan.restore_id)?;
        }
        Ok(restored)
    }

    /// Replays WAL into them. The claim is to outlive this folder.
    pub fn replay(
        &self,
        source: &Source<'_>,
        plan: &Plan,
        steps: &Steps,
    ) -> Result<recovery::Result<(RecoveryReport, Claim)>, Error> {
        let replayed = source.replay(plan, &self.data(), &fetched_by_this_program()?, steps);
        Ok(replayed.map(|recovered| {
            let claim = Claim::of(source.repository, plan, &recovered);
            (recovered, claim)
        }))
    }

    /// Written down before the replay claims a timeline.
    fn note_restore(&self, restore_id: &str) -> Result<(), Error> {
        let path = self.root.join(RESTORE_ID);
        std::fs::write(&path, restore_id).map_err(Error::file("cannot write", &path))
    }

    pub fn log(&self) -> PathBuf {
        self.root.join("postgres.log")
    }

    /// Restored files, the WAL that is replayed and written again, and what stays free.
    fn check_space(&self, bytes: u64, wal_bytes: u64) -> recovery::Result<()> {
        let Ok(disk) = rustix::fs::statvfs(&self.root) else {
            return Ok(());
        };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let needed = bytes
            .saturating_add(bytes / 10)
            .saturating_add(wal_bytes)
            .saturating_add(LEFT_FREE_BYTES);
        if free >= needed {
            return Ok(());
        }
        Err(recovery::Error::NoSpace {
            folder: self.root.clone(),
            free,
            needed,
        })
    }

    /// On a socket that only the server's account and we can reach; sends nothing, archives nothing, waits for nobody.
    pub fn start(&self, binaries: &Binaries, user: &OsUser) -> Result<Server, ServerError> {
        let hba = "bre_proof_hba.conf";
        write_cluster_file(&self.data(), hba, "local all all trust\n", user)?;
        let options = StartOptions::new(self.sockets.path(), PORT, self.log())
            .set("hba_file", self.data().join(hba).display())
            .set("synchronous_standby_names", "")
            .set("primary_conninfo", "")
            .set("archive_mode", "off")
            .set("wal_level", "minimal")
            .set("max_wal_senders", 0)
            .set("ssl", "off")
            .set("fsync", "off")
            .set("autovacuum", "off")
            .set("logging_collector", "off")
            .set("log_destination", "stderr")
            // We read it.
            .set("lc_messages", "C")
            .set("huge_pages", "try");
        Server::start(binaries, user, &self.data(), &options)
    }

    pub fn connect(&self, database: &str) -> ConnectOptions {
        ConnectOptions::unix(self.sockets.path(), PORT, SUPERUSER, database)
    }

    pub fn url(&self, database: &str) -> String {
        self.connect(database).to_url()
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        if let Err(error) = clear(&self.root) {
            tracing::warn!(%error, "the scratch folder of a proof stays; the next proof clears it");
        }
    }
}

/// Only one proof at a time in a folder.
fn take(work: &Path) -> Result<FileLock, Error> {
    let folder = File::open(work).map_err(Error::file("cannot open", work))?;
    match FileLock::try_take(folder) {
        Ok(Some(lock)) => Ok(lock),
        _ => Err(Error::refused(
            "nothing was restored",
            format!(
                "another restore runs in {}. Wait for it, or name another folder with --work DIR",
                work.display()
            ),
        )),
    }
}

/// Clears what a proof left that was killed; one that runs is left alone.
pub fn sweep(work: &Path, repository: &Repository) -> Result<(), Error> {
    let root = work.join("scratch");
    if !root.exists() {
        return Ok(());
    }
    let Ok(_lock) = take(work) else {
        return Ok(());
    };
    clear_left(&root, repository)
}

/// A proof that was killed also leaves its claim on a timeline in the repository.
fn clear_left(root: &Path, repository: &Repository) -> Result<(), Error> {
    let restore_id = std::fs::read_to_string(root.join(RESTORE_ID)).unwrap_or_default();
    clear(root)?;
    if restore_id.is_empty() {
        return Ok(());
    }
    let claims = repository.store().list("timelines/");
    for claim in claims.map_err(repository::Error::from)? {
        let name = claim.name.strip_prefix("timelines/").unwrap_or_default();
        if let Some((digits, of)) = name.split_once(".reserved.")
            && of == restore_id
            && let Ok(timeline) = u32::from_str_radix(digits, 16)
        {
            repository::timelines::release(repository, timeline, &restore_id)?;
        }
    }
    Ok(())
}

/// Ends what still runs there (a proof that was killed leaves its server) and removes everything.
fn clear(root: &Path) -> Result<(), Error> {
    if !root.exists() {
        return Ok(());
    }
    if let Some(left) = Leftover::detect(&root.join("data")) {
        tracing::warn!(processes = ?left.processes, "an earlier proof left PostgreSQL processes; stopping them");
        left.stop(TIMEOUT)?;
    }
    // A restored folder may be closed even to its owner.
    let _ = std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o711));
    Ok(remove_tree(root)?)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicBool};

    use repository::store::MemoryStore;

    use super::*;

    #[test]
    fn a_restore_test_waits_for_another_one_and_can_be_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        let work = folder.path().join("proof");
        let user = OsUser::current().unwrap();
        let repository = Repository::init(Arc::new(MemoryStore::default())).unwrap();
        let wait = |steps: &Steps| {
            ScratchFolder::claim_when_free(&work, &user, &repository, steps).map(drop)
        };
        let first = ScratchFolder::claim(&work, &user, &repository).unwrap();
        let interrupted = Steps::logged().cancelled_by(Arc::new(AtomicBool::new(true)));
        assert!(matches!(
            wait(&interrupted),
            Err(Error::Host(host::Error::Refused { .. }))
        ));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(&Steps::logged()));
            drop(first);
            waiting.join().unwrap().unwrap();
        });
    }
}
