//! Bringing the database to life, whatever is left of it: start it, make it, or get it back from the repository.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use postgres_physical::{
    lsn::Lsn,
    server::{Leftover, is_mount_root},
};
use recovery::database::Target;
use repository::keys::RecipientPrivate;
use serde::{Deserialize, Serialize};

use super::{observer::Step, postgres::Folder, supervisor::Supervisor};
use crate::leftovers::UNFINISHED_RESTORE;
use host::{progress::Steps, record::Event};

use operations::{
    Error,
    anchors::AnchorFile,
    passed_over::PassedOver,
    restored::{RestoreOutcome, Source, Stage, remove_restored, restore_and_replay},
};

/// What had to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StartKind {
    /// A new, empty cluster.
    New,
    /// The folder was whole; PostgreSQL recovered by itself if it had to.
    Started,
    /// From the repository.
    Restored,
}

/// Starts the database, whatever it takes. What is whole is never thrown away; what is missing is restored.
pub(super) fn bring_up(supervisor: &mut Supervisor) -> Result<StartKind, Error> {
    let came = match supervisor.postgres.folder() {
        Folder::Whole => StartKind::Started,
        Folder::Missing => {
            // What still runs there has no files.
            supervisor.postgres.abandon();
            end_leftover(&supervisor.postgres.dir())?;
            move_aside(&supervisor.postgres.dir())?;
            let came = make_or_restore(supervisor)?;
            supervisor.observer.passed(Step::InPlace);
            came
        }
    };
    supervisor.postgres.start()?;
    Ok(came)
}

fn end_leftover(dir: &Path) -> Result<(), Error> {
    match Leftover::detect(dir) {
        Some(left) => Ok(left.kill()?),
        None => Ok(()),
    }
}

fn make_or_restore(supervisor: &mut Supervisor) -> Result<StartKind, Error> {
    // Anything of a cluster in the repository means that there was one: making a new one would hide it.
    if supervisor.protection.repository().cluster()?.is_none() {
        refuse_to_hide(supervisor)?;
        supervisor.postgres.create()?;
        return Ok(StartKind::New);
    }
    let private = supervisor
        .protection
        .keys()
        .private
        .clone()
        .ok_or_else(|| {
            Error::refused(
                "the database is missing and cannot be restored",
                format!(
                    "the private key is not in {}. Bring recipient.key and start again",
                    supervisor.instance.keys().display()
                ),
            )
        })?;
    restore(supervisor, &private)?;
    Ok(StartKind::Restored)
}

/// A new database holds no log. Where an anchor says that there was one, a person has to have said that it is lost.
fn refuse_to_hide(supervisor: &Supervisor) -> Result<(), Error> {
    let anchor = AnchorFile::read(&supervisor.instance.keys())?;
    let head = anchor.as_ref().map(AnchorFile::head).transpose()?.flatten();
    let Some(head) = head.filter(|_| !supervisor.continue_log) else {
        return Ok(());
    };
    let (epoch, size) = (head.claimed().epoch, head.claimed().size);
    Err(Error::refused(
        "the database is missing, and the repository holds nothing of it",
        format!(
            "the anchor beside the keys says that the audit log had {size} entries in epoch {epoch}. Bring back the repository that holds them, or a further one; \
             only if all of it is truly lost, let another log take its place: bre up --continue-log"
        ),
    ))
}

/// Restores beside the final place and moves there when the folder is plain and complete, with the fact of it inside.
fn restore(supervisor: &mut Supervisor, private: &RecipientPrivate) -> Result<(), Error> {
    let (postgres, instance) = (&supervisor.postgres, &supervisor.instance);
    let repository = supervisor.protection.repository();
    let unfinished = instance.root().join(UNFINISHED_RESTORE);
    if unfinished.exists() {
        tracing::warn!(folder = %unfinished.display(), "an earlier restore did not finish; starting over");
        end_leftover(&unfinished)?;
    }
    remove_restored(&unfinished)?;
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
    let steps = Steps::logged().cancelled_by(Arc::clone(&supervisor.stop));
    let passed = |stage| {
        supervisor.observer.passed(match stage {
            Stage::Planned => Step::Planned,
            Stage::FilesRestored => Step::FilesRestored,
        });
    };
    let passed_over = &mut supervisor.passed_over;
    let mut restored_to = |target: &Target| {
        restore_and_replay(&source, target, passed_over, &unfinished, &steps, &passed)
    };
    let outcome = match restored_to(&Target::latest()) {
        // Trying the same again would fail the same way.
        Err(Error::Recovery(recovery::Error::BrokenWal {
            timeline,
            last_record,
            at,
            goes_on_to,
            ..
        })) => {
            tracing::error!(timeline, %at, %goes_on_to, "the repository holds bytes that are no WAL; restoring what comes before them");
            remove_restored(&unfinished)?;
            restored_to(&Target::lsn(last_record).on_timeline(timeline))?
        }
        outcome => outcome?,
    };
    std::fs::rename(&unfinished, postgres.dir())
        .map_err(Error::file("cannot put in place", postgres.dir()))?;
    sync_folder(instance.root())?;
    supervisor
        .protection
        .put_on_record(on_record(&outcome, passed_over.list()));
    tracing::info!(result = %outcome.recovered.describe(&outcome.plan), seconds = began.elapsed().as_secs_f64(), "the database is restored");
    Ok(())
}

/// That an older backup served, and why. Of any other recovery the opening of the epoch says all.
fn on_record(outcome: &RestoreOutcome, passed_over: &[PassedOver]) -> Option<Event> {
    let recovered = &outcome.recovered;
    let told = |it: &PassedOver| format!("{}: {}", it.backup_id, it.reason);
    let told: Vec<String> = passed_over.iter().map(told).collect();
    (!told.is_empty()).then(|| {
        Event::by_engine("RestoreRun")
            .with("restore_id", &recovered.restore_id)
            .with("backup_id", &outcome.plan.backup.id)
            .with("target", Lsn(recovered.switch_lsn))
            .with("timeline", recovered.timeline)
            .with("passed_over", told.join("; "))
            .with("outcome", "restored")
    })
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
    if is_mount_root(dir).unwrap_or(false) {
        return Err(Error::refused(
            "the database cannot be brought back",
            format!(
                "another file system is mounted at {0}, and a restored folder takes that place by its name. Unmount it (umount {0}) and mount a \
                 file system at the folder above it if the database is to have one of its own; then this goes on by itself",
                dir.display()
            ),
        ));
    }
    let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let aside: PathBuf = dir.with_file_name(format!("postgres.broken-{stamp}"));
    tracing::warn!(from = %dir.display(), to = %aside.display(), "moving what is left of the data folder aside");
    std::fs::rename(dir, &aside).map_err(Error::file("cannot move aside", dir))
}
