//! `bre audit`: verify the record, list its signed heads, export its entries.

use std::process::ExitCode;

use audit::{BadEntry, SignedHead, Verdict, VerifyingKey};
use serde::Serialize;

use postgres_physical::server::{Binaries, OsUser};

use super::{
    audit_archive, audit_follow, audit_from_archive, audit_keys, audit_prove, audit_tables,
    signing_keys,
};
use host::{
    control::Control, instance::Instance, keys::trusted, log::LOG, progress::Steps,
    signals::interrupted, stored_heads,
};
use terminal::{self, time};

use crate::{
    cli::{AuditArgs, AuditCommand, AuditReopenArgs, AuditRoad, HeadCommand, RepositoryArgs},
    error::Error,
};
use operations::{
    audit_outside::{Extent, Outside, OutsideEvidence},
    audit_statements,
    exit::Exit,
    jobs::settings,
    repository_handle::RepositoryHandle,
    restore_test::{Reach, ReplayedLog, RestoreTester},
};

pub(crate) async fn run(
    instance: &Instance,
    json: bool,
    command: AuditCommand,
) -> Result<ExitCode, Error> {
    match command {
        AuditCommand::Archive(args) => {
            let database = database(instance, &args)?;
            audit_archive::archive(instance, json, &database, &args).await
        }
        AuditCommand::Head(HeadCommand::List(args)) => list_heads(instance, json, &args),
        AuditCommand::Export(args) => export(instance, &args).await,
        AuditCommand::Prove(args) => audit_prove::prove(instance, json, &args).await,
        AuditCommand::CheckProof {
            file,
            key,
            statements,
        } => audit_prove::check(instance, json, &file, &key, statements.as_deref()),
        AuditCommand::Follow(args) => audit_follow::run(json, &args).await,
        AuditCommand::SigningKey(command) => signing_keys::run(instance, json, command).await,
        AuditCommand::Reopen(args) => {
            reopen(instance, json, &args).await?;
            Ok(ExitCode::SUCCESS)
        }
        AuditCommand::Key(command) => audit_keys::run(instance, json, command),
    }
}

pub(super) fn database(instance: &Instance, args: &AuditArgs) -> Result<String, Error> {
    args.database
        .clone()
        .map_or_else(|| Ok(instance.running()?.database_url), Ok)
}

/// Verification on a road that asks no running server; `None`: the running server is to be asked.
pub(super) fn run_apart(
    instance: &Instance,
    json: bool,
    road: &AuditRoad,
    args: &AuditArgs,
) -> Option<Result<ExitCode, Error>> {
    let reach = match road {
        AuditRoad { from_wal: true, .. } => Reach::NewestWal,
        AuditRoad {
            from_backup: Some(id),
            ..
        } => Reach::Backup(id.clone()),
        AuditRoad {
            archive: Some(place),
            ..
        } => {
            let place = place.as_deref();
            return Some(audit_from_archive::verify(
                instance,
                json,
                place,
                &args.repository,
            ));
        }
        _ => return None,
    };
    Some(verify_copy(instance, json, road, &reach, &args.repository))
}

/// The report of a log, and by which road it was reached.
#[derive(Debug, Serialize)]
struct LogVerification {
    /// `server`, `wal` or `backup`; of an archive `archive` or `export`.
    road: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed_to: Option<String>,
    #[serde(flatten)]
    report: services::AuditReport,
    #[serde(flatten)]
    beside: OutsideEvidence,
}

pub(super) async fn verify(
    instance: &Instance,
    json: bool,
    args: &AuditArgs,
) -> Result<ExitCode, Error> {
    let opened = RepositoryHandle::at(instance, &args.repository)?;
    let keys = trusted(&opened.keys, &opened.repository)?;
    let mut outside = Outside::gather(instance, opened.log(), &keys)?;
    if args.database.is_none()
        && let Some(newest) = newest_of_running(instance).await
    {
        outside.heads.push(newest.verify(&keys)?);
    }
    let (heads, database) = (&outside.heads, database(instance, args)?);
    let mut report = services::verify(&database, LOG, heads, &keys).await?;
    audit_statements::judge(&database, &opened.repository, &outside, &mut report.log).await?;
    let now = jiff::Timestamp::now().as_microsecond();
    let (word, beside) = outside.judge(&mut report.log, &Extent::Whole, now);
    // A fault of what stands around the log is said by whoever compared it.
    if report.schema.is_sound() {
        report.verdict = word.name();
    }
    let road = format!(
        "road: the running server's own answers (bre verify audit --from-wal asks the repository alone)\n{}",
        beside.sentences()
    );
    let verified = LogVerification {
        road: "server",
        backup_id: None,
        replayed_to: None,
        report,
        beside,
    };
    Ok(show(json, &verified, &road, heads.len(), word))
}

fn verify_copy(
    instance: &Instance,
    json: bool,
    road: &AuditRoad,
    reach: &Reach,
    args: &RepositoryArgs,
) -> Result<ExitCode, Error> {
    let opened = RepositoryHandle::at(instance, args)?;
    let config = settings::load(None, instance.root())?;
    let trusted = trusted(&opened.keys, &opened.repository)?;
    // Before anything is planned: all that was signed by now must be in the newest WAL.
    let outside = Outside::gather(instance, opened.log(), &trusted)?;
    let prover = RestoreTester {
        repository: opened.repository.clone(),
        private: opened.private()?,
        trusted,
        binaries: Binaries::find(config.database.binaries.as_deref())?,
        user: OsUser::for_server()?,
        work: road.work.clone().unwrap_or_else(|| instance.proofs()),
        instance: instance.clone(),
        keys: opened.keys.clone(),
    };
    let steps = Steps::shown(json, "verify").cancelled_by(interrupted()?);
    let copied = prover.audit(reach, &outside, &steps)?;
    drop(steps);
    let ReplayedLog {
        report,
        verdict: word,
        beside,
        heads,
        backup,
        replayed_to,
        seconds,
    } = copied;
    let name = match reach {
        Reach::NewestWal => "wal",
        Reach::Backup(_) => "backup",
    };
    let mut words = format!(
        "road: {name}; backup {backup} and its WAL to {replayed_to}, restored in {seconds:.1} s; the running server \
         was not asked\n{}",
        beside.sentences()
    );
    if word == Verdict::Cut && name == "wal" {
        words.push_str("the WAL of what is missing may have been taken away: bre verify repository reads all of it\n");
    }
    let verified = LogVerification {
        road: name,
        backup_id: Some(backup),
        replayed_to: Some(replayed_to),
        report,
        beside,
    };
    Ok(show(json, &verified, &words, heads, word))
}

fn show(
    json: bool,
    verified: &LogVerification,
    road: &str,
    heads: usize,
    word: Verdict,
) -> ExitCode {
    let report = &verified.report;
    terminal::result(json, verified, || {
        format!("{road}{}", sentences(report, heads, word))
    });
    match report.schema.is_sound() {
        true => Exit::of(word).into(),
        false => Exit::Rewritten.into(),
    }
}

/// A person has looked at what was found damaged, and lets writing go on.
async fn reopen(instance: &Instance, json: bool, args: &AuditReopenArgs) -> Result<(), Error> {
    let order = serde_json::json!({ "reason": args.reason, "by": host::person::who() });
    let control = Control::to(instance)?;
    let answer: serde_json::Value = control.post("/internal/audit/reopen", &order).await?;
    terminal::result(json, &answer, || {
        format!(
            "the log is written again; entry {} of epoch {} says so, and why",
            answer["audit"]["position"], answer["audit"]["epoch"]
        )
    });
    Ok(())
}

/// The head that the running engine has in memory: it vouches for entries whose WAL is still on its way to the repository.
async fn newest_of_running(instance: &Instance) -> Option<SignedHead> {
    let head: serde_json::Value = Control::to(instance)
        .ok()?
        .get("/internal/audit/head")
        .await
        .ok()?;
    SignedHead::from_json(&serde_json::to_vec(&head).ok()?).ok()
}

fn sentences(report: &services::AuditReport, heads: usize, word: Verdict) -> String {
    let log = &report.log;
    let mut text = format!(
        "{} entries, {} verified against {heads} signed heads ({} agreed, the newest at {}); {} quotes\n",
        log.entries, log.verified, log.heads_agreed, log.covered_to, report.quotes
    );
    for opening in log.epochs.iter().filter(|opening| opening.why.is_some()) {
        text.push_str(&format!(
            "reopened after damage as epoch {} by {}: {}\n",
            opening.epoch,
            opening.actor.as_deref().unwrap_or("nobody"),
            opening.why.as_deref().unwrap_or_default()
        ));
    }
    for loss in &log.known_losses {
        text.push_str(&format!(
            "known loss, declared by a later epoch: epoch {} had {} entries\n",
            loss.epoch, loss.size
        ));
    }
    if log.lost_entries > 0 {
        text.push_str(&format!(
            "{} entries that were answered are lost; bre audit prove says of an id or a position whether it is one of them\n",
            log.lost_entries
        ));
    }
    text.push_str(&audit_tables::sentences(&report.tables));
    let schema = &report.schema;
    for note in &schema.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    for finding in &schema.findings {
        text.push_str(&format!("schema: {finding}\n"));
    }
    text.push_str(&match (schema.is_sound(), log.is_sound()) {
        (false, true) => format!(
            "NOT SOUND: the log hangs together, but {} things around it are not as the migrations make them\n",
            schema.findings.len()
        ),
        _ => verdict(log, word),
    });
    text
}

/// Of a log that was walked, wherever it lies.
pub(super) fn verdict(log: &audit::Report, word: Verdict) -> String {
    let bad = |what: &str| {
        let bad = log.first_bad.unwrap_or(BadEntry {
            epoch: 0,
            position: 0,
        });
        format!(
            "NOT SOUND, {what}: first bad entry is epoch {} position {}: {}\n",
            bad.epoch,
            bad.position,
            log.reason.as_deref().unwrap_or("no reason given")
        )
    };
    match word {
        Verdict::Rewritten => bad("rewritten"),
        Verdict::Cut => bad("cut"),
        Verdict::Unanchored => "NOT SOUND, unanchored: there is no signed head and no anchor, so nothing outside the database vouches for it\n".to_owned(),
        Verdict::SoundUpTo => format!(
            "sound up to {}: no signed head covers what follows, the first of it recorded at {}\n",
            log.covered_to,
            log.uncovered_since_micros.map_or_else(String::new, time)
        ),
        Verdict::KnownLoss => {
            "sound, with known losses: what is there is whole, and what is not there is named above\n"
                .to_owned()
        }
        Verdict::Sound => "sound\n".to_owned(),
    }
}

#[derive(Debug, Serialize)]
struct ShownHead {
    log: u16,
    epoch: u32,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    signature_verified: bool,
    /// Signed by a key that had ended by then: no evidence, and no damage.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    revoked: bool,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

impl ShownHead {
    fn of(
        (epoch, size): (u32, u64),
        head: Result<SignedHead, String>,
        keys: &[VerifyingKey],
    ) -> Self {
        let mut revoked = false;
        let trouble = match &head {
            Ok(signed) => signed.verify(keys).err().map(|error| {
                revoked = stored_heads::uncounted_head(signed, &error).is_some();
                error.to_string()
            }),
            Err(why) => Some(why.clone()),
        };
        let signed = head.ok();
        let claimed = signed.as_ref().map(SignedHead::claimed);
        Self {
            log: LOG,
            epoch,
            size,
            last_hash: claimed.map(|head| head.last_hash.to_string()),
            signed_at: claimed.map(|head| time(head.at_micros)),
            key_id: signed.as_ref().map(|signed| signed.key_id().to_string()),
            signature_verified: trouble.is_none(),
            revoked,
            trouble,
        }
    }

    fn sentence(&self) -> String {
        let known = |value: &Option<String>| value.as_deref().unwrap_or("-").to_owned();
        let trouble = self.trouble.as_ref().map(|why| match self.revoked {
            true => format!("  not counted: {why}"),
            false => format!("  NOT A HEAD OF OURS: {why}"),
        });
        format!(
            "epoch {} size {} {} {}{}\n",
            self.epoch,
            self.size,
            known(&self.signed_at),
            known(&self.last_hash),
            trouble.unwrap_or_default()
        )
    }
}

/// One that is damaged hides none of the others.
fn list_heads(instance: &Instance, json: bool, args: &RepositoryArgs) -> Result<ExitCode, Error> {
    let opened = RepositoryHandle::at(instance, args)?;
    let keys = trusted(&opened.keys, &opened.repository)?;
    let shown: Vec<ShownHead> = stored_heads::each_head(&opened.repository)?
        .into_iter()
        .map(|(place, head)| ShownHead::of(place, head, &keys))
        .collect();
    terminal::result(json, &shown, || {
        shown.iter().map(ShownHead::sentence).collect()
    });
    let is_good = |head: &ShownHead| head.signature_verified || head.revoked;
    Ok(match shown.iter().all(is_good) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// One JSON line an entry: its place, its hash, its canonical bytes in hex. docs/formats/audit_log.md says how to read them.
async fn export(instance: &Instance, args: &AuditArgs) -> Result<ExitCode, Error> {
    services::export(&database(instance, args)?, LOG, |entry| {
        terminal::line(
            &serde_json::json!({
                "epoch": entry.epoch, "position": entry.position,
                "hash": audit::hex::encode(&entry.hash), "canonical": audit::hex::encode(&entry.bytes),
            })
            .to_string(),
        );
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}
