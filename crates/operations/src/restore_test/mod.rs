//! The restore proof: a backup counts as good only after it was restored. From repository and keys alone, into a scratch folder:
//! restore, replay, page checksums, a private start, every check of `assurance::verification`, the audit log against the signed heads
//! that lie outside the database, and a sample of quotes priced again.

mod audited;
mod looks;
mod newest;
mod priority;
mod record;
mod second_road;

use audited::Replay;
pub use newest::{NewestTest, failed_proof, newest_complete, newest_failure};
pub use record::{RestoreTestReport, event};
pub use second_road::{Reach, ReplayedLog};

use std::time::Instant;

use assurance::verification::{self, Check, Options};
use audit::VerifyingKey;
use host::{instance::Instance, progress::Steps};
use postgres_physical::{
    lsn::Lsn,
    server::{Absence, Binaries, OsUser},
};
use recovery::database::{Plan, RecoveryReport, RestoreOptions, RestoreReport, Target, plan};
use repository::{
    Repository,
    backup::{BackupState, BackupSummary, catalogue},
    keys::RecipientPrivate,
};
use serde_json::json;

use crate::{
    audit_outside::Outside,
    error::Error,
    restored::Source,
    scratch::{Claim, ScratchFolder},
};

/// All that a proof needs: nothing of the running database.
#[derive(Clone, Debug)]
pub struct RestoreTester {
    pub repository: Repository,
    pub private: RecipientPrivate,
    /// Whose signatures count on heads and openings.
    pub trusted: Vec<VerifyingKey>,
    pub binaries: Binaries,
    pub user: OsUser,
    /// Where the scratch folder is made.
    pub work: std::path::PathBuf,
    /// What it says of further repositories, and the folder with the keys: the log is held against all that is known
    /// of it.
    pub instance: Instance,
    pub keys: std::path::PathBuf,
}

impl RestoreTester {
    /// Makes one proof and returns its record, passed or failed. An error means that none could be made: there is no verdict on
    /// the backup then. Runs at low priority, together with everything that it starts.
    pub fn run(&self, id: &str, steps: &Steps) -> Result<RestoreTestReport, Error> {
        priority::lower();
        let backups = catalogue(&self.repository)?.backups;
        let backup = chosen(&backups, id)?;
        // Given back after the folder is gone, however this ends: nothing will ever run on that timeline.
        let mut claim = None;
        let scratch =
            ScratchFolder::claim_when_free(&self.work, &self.user, &self.repository, steps)?;
        // Before the plan: whatever was signed by now must be in a restore to the newest WAL.
        let beside = (&self.repository, self.keys.as_path());
        let outside = Outside::gather(&self.instance, beside, &self.trusted)?;
        let began = Instant::now();
        let mut record = RestoreTestReport::begin(backup);
        let target = target(backup, &backups);
        let came = self.try_to_restore(backup, target, &scratch, steps, &mut record, &mut claim)?;
        if let Some(recovered) = came {
            self.examine(&scratch, &recovered, &outside, steps, &mut record)?;
        }
        if steps.is_cancelled() {
            return Err(interrupted());
        }
        drop(scratch);
        drop(claim);
        record.end(began.elapsed());
        Ok(record)
    }

    /// Restores and replays. `None`: it failed, and that is the verdict.
    fn try_to_restore(
        &self,
        backup: &BackupSummary,
        target: Target,
        scratch: &ScratchFolder,
        steps: &Steps,
        record: &mut RestoreTestReport,
        claim: &mut Option<Claim>,
    ) -> Result<Option<(Plan, RecoveryReport)>, Error> {
        let began = Instant::now();
        let source = Source {
            repository: &self.repository,
            private: &self.private,
            binaries: &self.binaries,
            user: &self.user,
            log: &scratch.log(),
        };
        let (plan, restored) = match self.restore(&source, backup, target, scratch, steps)? {
            Ok(done) => done,
            Err(error) => return verdict(error, "restore", record),
        };
        let detail = json!({
            "bytes": restored.bytes, "files": restored.files, "millis": millis(began),
            "settings_without_effect": restored.omissions.sentences,
        });
        record.add(Check::passed("restore", detail));
        let began = Instant::now();
        let recovered = match scratch.replay(&source, &plan, steps)? {
            Ok((recovered, taken)) => {
                *claim = Some(taken);
                recovered
            }
            Err(error) => return verdict(error, "replay", record),
        };
        let detail = json!({
            "replayed_to": Lsn(recovered.switch_lsn).to_string(), "timeline": recovered.parent_timeline,
            "wal_bytes": recovered.wal_bytes, "millis": millis(began),
        });
        record.add(Check::passed("replay", detail));
        Ok(Some((plan, recovered)))
    }

    fn restore(
        &self,
        source: &Source<'_>,
        backup: &BackupSummary,
        target: Target,
        scratch: &ScratchFolder,
        steps: &Steps,
    ) -> Result<recovery::Result<(Plan, RestoreReport)>, Error> {
        let plan = match plan(&self.repository, &self.private, target) {
            Ok(plan) if plan.backup.id == backup.id => plan,
            Ok(other) => {
                return Ok(Err(recovery::Error::NothingToRestore(format!(
                    "the way to the end of backup {} leads through backup {}, which ends at the same place",
                    backup.id, other.backup.id
                ))));
            }
            Err(error) => return Ok(Err(error)),
        };
        let options = RestoreOptions {
            threads: 1,
            ..RestoreOptions::new(self.user.clone())
        };
        let restored = scratch.restore(source, &plan, &options, steps)?;
        Ok(restored.map(|restored| (plan, restored)))
    }

    fn examine(
        &self,
        scratch: &ScratchFolder,
        (plan, recovered): &(Plan, RecoveryReport),
        outside: &Outside,
        steps: &Steps,
        record: &mut RestoreTestReport,
    ) -> Result<(), Error> {
        steps.step("checking page checksums");
        record.add(scratch.page_checksums(&self.binaries, &self.user));
        steps.step("starting it privately");
        let server = match scratch.start(&self.binaries, &self.user) {
            Ok(server) => server,
            Err(error) => {
                if let Some(absence) = Absence::find(&error.to_string()) {
                    return Err(no_verdict(absence.to_string()));
                }
                record.add(Check::failed("start", error.to_string(), json!({})));
                return Ok(());
            }
        };
        record.add(Check::passed("start", json!({})));
        steps.step("checking structure and rows");
        let options = Options {
            scratch: true,
            engine_expected: false,
            trusted: &self.trusted,
            cancelled: &|| steps.is_cancelled(),
        };
        scratch.open_databases()?;
        record.add(scratch.collations()?);
        let database = scratch.engine_database()?;
        let checks = verification::cluster(&scratch.connect(&database), &options);
        let is_engine = !checks
            .iter()
            .any(|check| check.name == "row_counts" && check.not_applicable);
        record.extend(checks);
        steps.step("verifying the audit log and pricing quotes again");
        let audited = audited::LogCheck {
            database: &database,
            scratch,
            repository: &self.repository,
            trusted: &self.trusted,
            plan,
            recovered,
        };
        let replay = match self.reaches_the_newest(plan) {
            true => Replay::ToTheNewest,
            false => Replay::ToItsEnd,
        };
        record.extend(match is_engine {
            true => audited.checks(outside, replay),
            false => audited::not_an_engine(),
        });
        drop(server);
        Ok(())
    }
}

impl RestoreTester {
    /// Whether there is no WAL behind the end of this replay, on any timeline: all that was signed must be in it.
    fn reaches_the_newest(&self, way: &Plan) -> bool {
        let newest = plan(&self.repository, &self.private, Target::latest());
        let is_last = newest.is_ok_and(|newest| newest.timeline == way.timeline);
        is_last && way.target == Target::latest().on_timeline(way.timeline) && way.beyond.is_none()
    }
}

fn chosen<'a>(backups: &'a [BackupSummary], id: &str) -> Result<&'a BackupSummary, Error> {
    let not_this =
        |reason: &str| Error::argument("backup to prove", id.to_owned(), reason.to_owned());
    let backup = backups.iter().find(|backup| backup.id == id);
    let backup = backup
        .ok_or_else(|| not_this("the repository has none of this id; see: bre backup list"))?;
    match backup.state {
        BackupState::Complete => Ok(backup),
        BackupState::Waiting => Err(not_this(
            "its WAL has not all arrived yet; prove it when it is complete",
        )),
        BackupState::Failed => Err(not_this(
            "its WAL will never arrive: it restores nothing. Take a new one",
        )),
        BackupState::Expiring => Err(not_this("it has expired and is about to go")),
    }
}

/// The newest backup is replayed to the newest WAL, an older one to its own end.
fn target(backup: &BackupSummary, all: &[BackupSummary]) -> Target {
    let newer = |other: &BackupSummary| {
        other.state == BackupState::Complete
            && (other.timeline, other.stop_lsn) > (backup.timeline, backup.stop_lsn)
    };
    match all.iter().any(newer) {
        true => Target::lsn(backup.stop_lsn).on_timeline(backup.timeline),
        false => Target::latest().on_timeline(backup.timeline),
    }
}

fn millis(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

pub fn interrupted() -> Error {
    Error::failed("no proof was made: it was interrupted")
}

/// What speaks about the backup is a failed proof; what speaks about this machine, the store or the operator is none at all.
fn verdict<T>(
    error: recovery::Error,
    step: &str,
    record: &mut RestoreTestReport,
) -> Result<Option<T>, Error> {
    if says_nothing_of_the_backup(&error) {
        return Err(match error {
            recovery::Error::Cancelled(_) => interrupted(),
            other => no_verdict(other.to_string()),
        });
    }
    record.add(Check::failed(step, error.to_string(), json!({})));
    Ok(None)
}

fn no_verdict(reason: String) -> Error {
    Error::refused("there is no verdict", reason)
}

fn says_nothing_of_the_backup(error: &recovery::Error) -> bool {
    use recovery::Error as E;
    match error {
        E::Repository(error) => error.is_unavailable(),
        E::Incomplete { error, .. } => says_nothing_of_the_backup(error),
        E::Cancelled(_)
        | E::NoSpace { .. }
        | E::NoInodes { .. }
        | E::ReadOnly(_)
        | E::NotEmpty(_)
        | E::Absent { .. }
        | E::Io { .. }
        | E::Server(_) => true,
        _ => false,
    }
}
