//! Bringing the database to life, whatever is left of it: start it, make it, or get it back from the repository.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use postgres_physical::server::OsUser;
use recovery::database::Target;
use repository::{RecipientPrivate, Repository};
use serde::{Deserialize, Serialize};
use services::RecoveryFact;

use super::postgres::{Folder, Postgres};
use crate::{
    commands::progress::Steps,
    error::Error,
    instance::{Instance, write_whole},
    restored::{Source, bring_back},
};

/// Travels inside a restored data folder until the audit log's new epoch is on record.
const FACT_FILE: &str = "bre_recovery.json";

/// What had to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Came {
    /// A new, empty cluster.
    New,
    /// The folder was whole; PostgreSQL recovered by itself if it had to.
    Started,
    /// From the repository.
    Restored,
}

/// Starts the database, whatever it takes. What is whole is never thrown away; what is missing is restored.
pub(crate) fn bring_up(
    postgres: &mut Postgres,
    instance: &Instance,
    repository: &Repository,
    private: Option<&RecipientPrivate>,
) -> Result<Came, Error> {
    let came = match postgres.folder() {
        Folder::Whole => Came::Started,
        Folder::Missing => {
            move_aside(&postgres.dir())?;
            make_or_restore(postgres, instance, repository, private)?
        }
    };
    postgres.start()?;
    if postgres.folder() == Folder::Missing {
        // Deleted while it was starting: what runs there has no files.
        postgres.abandon();
        return Err(Error::Failed(
            "the data folder vanished while PostgreSQL was starting".into(),
        ));
    }
    Ok(came)
}

fn make_or_restore(
    postgres: &Postgres,
    instance: &Instance,
    repository: &Repository,
    private: Option<&RecipientPrivate>,
) -> Result<Came, Error> {
    // Anything of a cluster in the repository means that there was one: making a new one would bury it.
    if repository.cluster()?.is_none() {
        postgres.create()?;
        return Ok(Came::New);
    }
    let private = private.ok_or_else(|| Error::Refused {
        what: "the database is missing and cannot be restored",
        reason: format!(
            "the private key is not in {}. Bring recipient.key and start again",
            instance.keys().display()
        ),
    })?;
    restore(postgres, instance, repository, private)?;
    Ok(Came::Restored)
}

/// Restores beside the final place and moves there when the folder is plain and complete, with the fact of it inside.
fn restore(
    postgres: &Postgres,
    instance: &Instance,
    repository: &Repository,
    private: &RecipientPrivate,
) -> Result<(), Error> {
    let unfinished = instance.root().join("postgres.restoring");
    if unfinished.exists() {
        tracing::warn!(folder = %unfinished.display(), "an earlier restore did not finish; starting over");
        std::fs::remove_dir_all(&unfinished).map_err(Error::file("cannot clear", &unfinished))?;
    }
    let began = std::time::Instant::now();
    tracing::info!(repository = %repository.describe(), "restoring the database from the repository");
    let log = instance.logs().join("restore.log");
    let source = Source {
        repository,
        private,
        binaries: postgres.binaries(),
        user: postgres.user(),
        log: &log,
    };
    let outcome = bring_back(&source, Target::latest(), &unfinished, &Steps::logged())?;
    std::fs::rename(&unfinished, postgres.dir())
        .map_err(Error::file("cannot put in place", postgres.dir()))?;
    sync_folder(instance.root())?;
    tracing::info!(result = %outcome.recovered.describe(&outcome.plan), seconds = began.elapsed().as_secs_f64(), "the database is restored");
    Ok(())
}

fn sync_folder(path: &Path) -> Result<(), Error> {
    std::fs::File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::file("cannot sync", path))
}

/// A folder that is not whole may still hold what somebody wants to look at.
pub(super) fn move_aside(dir: &Path) -> Result<(), Error> {
    if dir.symlink_metadata().is_err() {
        return Ok(());
    }
    let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let aside: PathBuf = dir.with_file_name(format!("postgres.broken-{stamp}"));
    tracing::warn!(from = %dir.display(), to = %aside.display(), "moving what is left of the data folder aside");
    std::fs::rename(dir, &aside).map_err(Error::file("cannot move aside", dir))
}

/// Leaves the fact of a restore in the restored folder, for whoever starts an engine on it.
/// It belongs to PostgreSQL's account like everything there: a base backup must be able to read it.
pub(crate) fn write_fact(dir: &Path, user: &OsUser, fact: &RecoveryFact) -> Result<(), Error> {
    let path = dir.join(FACT_FILE);
    let text = serde_json::to_vec(fact)
        .map_err(|error| Error::file("cannot write", &path)(error.into()))?;
    write_whole(&path, &text, 0o600)?;
    Ok(user.own(&path)?)
}

/// The fact of a restore whose epoch is not on record yet.
pub(crate) fn read_fact(dir: &Path) -> Result<Option<RecoveryFact>, Error> {
    let path = dir.join(FACT_FILE);
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| Error::file("cannot understand", &path)(error.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("cannot read", &path)(error)),
    }
}

/// The epoch is on record: the fact has done its work.
pub(crate) fn forget_fact(dir: &Path) -> Result<(), Error> {
    let path = dir.join(FACT_FILE);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("cannot remove", &path)(error))
        }
        _ => Ok(()),
    }
}
