//! The folder in which a backup is brought back and looked at. One at a time; whatever an earlier one left is cleared first.

use std::{
    fs::File,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use assurance::verification::Check;
use postgres_physical::{
    server::{
        Binaries, Leftover, OsUser, Server, ServerError, StartOptions, databases, remove_tree,
        sql::Client, write_cluster_file,
    },
    wire::ConnectOptions,
};
use repository::Repository;
use rustix::fs::{FlockOperation, flock};
use serde_json::json;

use crate::{
    error::Error,
    host::{
        database::{DATABASE, SUPERUSER},
        instance::make_folder,
    },
};

const PORT: u16 = 5432;
const PATIENCE: Duration = Duration::from_secs(30);
/// A proof leaves this much of the disk to everybody else.
const LEFT_FREE_BYTES: u64 = 1 << 30;

/// In the scratch folder: whose claim on a timeline goes with it.
const RESTORE_ID: &str = "restore_id";

#[derive(Debug)]
pub(crate) struct Scratch {
    root: PathBuf,
    /// Short enough for a socket, closed to everybody but the server's account.
    sockets: tempfile::TempDir,
    _lock: File,
}

impl Scratch {
    pub(crate) fn claim(
        work: &Path,
        user: &OsUser,
        repository: &Repository,
    ) -> Result<Self, Error> {
        make_folder(work, 0o711)?;
        let lock = take(work)?;
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

    pub(crate) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Written down before the replay claims a timeline.
    pub(crate) fn note_restore(&self, restore_id: &str) -> Result<(), Error> {
        let path = self.root.join(RESTORE_ID);
        std::fs::write(&path, restore_id).map_err(Error::file("cannot write", &path))
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("postgres.log")
    }

    /// Restored files, the WAL that is replayed and written again, and what stays free.
    pub(crate) fn check_space(&self, bytes: u64, wal_bytes: u64) -> recovery::Result<()> {
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

    /// Of the stopped cluster. PostgreSQL's own program says which file and block.
    pub(super) fn page_checksums(&self, binaries: &Binaries, user: &OsUser) -> Check {
        const NAME: &str = "page_checksums";
        let program = binaries.program("pg_checksums");
        let mut command = user.command(&program);
        let output = match command.arg("--check").arg("-D").arg(self.data()).output() {
            Ok(output) => output,
            Err(error) => {
                return Check::skipped(NAME, format!("cannot run {}: {error}", program.display()));
            }
        };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let printed = String::from_utf8_lossy(&output.stdout);
        let figure = |label: &str| -> Option<u64> {
            let line = printed.lines().find(|line| line.starts_with(label))?;
            line.rsplit(' ').next()?.parse().ok()
        };
        let blocks = figure("Blocks scanned:");
        if output.status.success() {
            return Check::passed(NAME, json!({ "blocks": blocks }));
        }
        if said.contains("not enabled") {
            return Check::skipped(
                NAME,
                "the cluster has no data checksums (pg_checksums --enable)",
            );
        }
        let bad: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("checksum"))
            .take(20)
            .collect();
        let first = bad.first().map_or(said.trim(), |line| *line);
        let count = figure("Bad checksums:");
        let why = match count {
            Some(count) => format!(
                "{count} pages fail their checksum; the first: {}",
                self.short(first)
            ),
            None => self.short(said.trim()),
        };
        Check::failed(
            NAME,
            why,
            json!({ "blocks": blocks, "bad": count, "named": bad }),
        )
    }

    /// Names inside the cluster, not of this folder.
    fn short(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.data().display()), "")
    }

    /// On a socket that only the server's account and we can reach; sends nothing, archives nothing, waits for nobody.
    pub(crate) fn start(&self, binaries: &Binaries, user: &OsUser) -> Result<Server, ServerError> {
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

    pub(crate) fn connect(&self, database: &str) -> ConnectOptions {
        ConnectOptions::unix(self.sockets.path(), PORT, SUPERUSER, database)
    }

    /// Fails when a database cannot be entered for want of something on this machine: that says nothing of the backup.
    pub(super) fn collations(&self) -> Result<Check, Error> {
        const NAME: &str = "collation_versions";
        let here = recovery::database::databases_here(&self.connect("template1"));
        if let Some(reason) = here.unusable.into_iter().next() {
            return Err(super::no_verdict(reason));
        }
        Ok(match here.ordered_otherwise.is_empty() {
            true => Check::passed(NAME, json!({})),
            false => Check::skipped(NAME, here.ordered_otherwise.join("; ")),
        })
    }

    pub(super) fn url(&self, database: &str) -> String {
        self.connect(database).to_url()
    }

    /// This copy is ours: databases that take no connections take some here, so that they are looked at like the others.
    pub(super) fn open_databases(&self) -> Result<(), Error> {
        let mut client = Client::connect(&self.connect("postgres"))?;
        client.query("UPDATE pg_database SET datallowconn = true WHERE NOT datallowconn AND datconnlimit <> -2")?;
        Ok(())
    }

    /// The engine's database where there is one.
    pub(super) fn engine_database(&self) -> Result<String, Error> {
        let mut client = Client::connect(&self.connect("postgres"))?;
        let mut listed = databases(&mut client)?;
        listed.sort_by_key(|database| database.name != DATABASE);
        for database in listed.into_iter().filter(|it| it.is_open() && !it.template) {
            // One that cannot be entered is told by the checks of all databases.
            let Ok(mut client) = Client::connect(&self.connect(&database.name)) else {
                continue;
            };
            let there = "SELECT 1 FROM pg_class WHERE relname = 'audit_log' AND relkind = 'r'";
            if client.value(there)?.is_some() {
                return Ok(database.name);
            }
        }
        let engines = Client::connect(&self.connect(DATABASE));
        Ok(engines.map_or("postgres", |_| DATABASE).to_owned())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = clear(&self.root) {
            tracing::warn!(%error, "the scratch folder of a proof stays; the next proof clears it");
        }
    }
}

/// Only one proof at a time in a folder.
fn take(work: &Path) -> Result<File, Error> {
    let lock = File::open(work).map_err(Error::file("cannot open", work))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(_) => Err(Error::Refused {
            what: "nothing was restored",
            reason: format!(
                "another restore runs in {}. Wait for it, or name another folder with --work DIR",
                work.display()
            ),
        }),
    }
}

/// Clears what a proof left that was killed; one that runs is left alone.
pub(crate) fn sweep(work: &Path, repository: &Repository) -> Result<(), Error> {
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
        left.stop(PATIENCE)?;
    }
    // A restored folder may be closed even to its owner.
    let _ = std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o711));
    Ok(remove_tree(root)?)
}
