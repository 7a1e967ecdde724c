//! `bre audit`: verify the record, list its signed heads, export its entries.

use std::process::ExitCode;

use audit::{Head, SignedHead};
use serde::Serialize;

use super::{audit_archive, audit_keys, audit_prove, audit_tables, opened::Opened};
use crate::{
    cli::{AuditArgs, AuditCommand, RepositoryArgs},
    control::Control,
    error::Error,
    instance::Instance,
    keys::verifying_key,
    terminal::{self, time},
    up::heads::{self, LOG},
};

pub(crate) async fn run(
    instance: &Instance,
    json: bool,
    command: AuditCommand,
) -> Result<ExitCode, Error> {
    match command {
        AuditCommand::Verify {
            archive: true,
            args,
        } => audit_archive::verify(instance, json, &args.repository),
        AuditCommand::Verify { args, .. } => verify(instance, json, &args).await,
        AuditCommand::Archive(args) => {
            let database = database(instance, &args)?;
            audit_archive::archive(instance, json, &database, &args).await
        }
        AuditCommand::Heads(args) => list_heads(instance, json, &args),
        AuditCommand::Export(args) => export(instance, &args).await,
        AuditCommand::Prove(args) => audit_prove::prove(instance, json, &args).await,
        AuditCommand::CheckProof { file, key } => audit_prove::check(instance, json, &file, &key),
        AuditCommand::Key(command) => audit_keys::run(instance, json, command),
    }
}

pub(super) fn database(instance: &Instance, args: &AuditArgs) -> Result<String, Error> {
    args.database.clone().map_or_else(
        || instance.running().map(|running| running.database_url),
        Ok,
    )
}

async fn verify(instance: &Instance, json: bool, args: &AuditArgs) -> Result<ExitCode, Error> {
    let opened = Opened::at(instance, &args.repository)?;
    let key = verifying_key(&opened.keys)?;
    let keys = [key];
    let mut signed = heads::stored(&opened.repository)?;
    if args.database.is_none() {
        signed.extend(newest_of_running(instance).await);
    }
    let heads: Vec<Head> = signed
        .iter()
        .map(|head| head.verify(&keys))
        .collect::<Result<_, _>>()?;
    let report = services::verify(&database(instance, args)?, LOG, &heads, &keys).await?;
    terminal::result(json, &report, || sentences(&report, heads.len()));
    Ok(if report.log.is_sound() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
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

fn sentences(report: &services::AuditReport, heads: usize) -> String {
    let log = &report.log;
    let mut text = format!(
        "{} entries, {} verified against {heads} signed heads ({} agreed, the newest at {}); {} quotes\n",
        log.entries, log.verified, log.heads_agreed, log.covered_to, report.quotes
    );
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
    text.push_str(&verdict(log));
    text
}

/// Of a log that was walked, wherever it lies.
pub(super) fn verdict(log: &audit::Report) -> String {
    match (&log.first_bad, &log.reason) {
        (Some(bad), reason) => format!(
            "NOT SOUND: first bad entry is epoch {} position {}: {}\n",
            bad.epoch,
            bad.position,
            reason.as_deref().unwrap_or("no reason given")
        ),
        (None, _) if !log.known_losses.is_empty() => {
            "sound, with known losses: what is there is whole, and what is not there is named above\n"
                .to_owned()
        }
        (None, _) => "sound\n".to_owned(),
    }
}

#[derive(Debug, Serialize)]
struct ShownHead {
    log: u16,
    epoch: u32,
    size: u64,
    last_hash: String,
    signed_at: String,
    key_id: String,
    signature_verified: bool,
}

fn list_heads(instance: &Instance, json: bool, args: &RepositoryArgs) -> Result<ExitCode, Error> {
    let opened = Opened::at(instance, args)?;
    let keys = [verifying_key(&opened.keys)?];
    let shown: Vec<ShownHead> = heads::stored(&opened.repository)?
        .iter()
        .map(|signed| {
            let head = signed.claimed();
            ShownHead {
                log: head.log,
                epoch: head.epoch,
                size: head.size,
                last_hash: head.last_hash.to_string(),
                signed_at: time(head.at_micros),
                key_id: signed.key_id().to_string(),
                signature_verified: signed.verify(&keys).is_ok(),
            }
        })
        .collect();
    terminal::result(json, &shown, || {
        shown
            .iter()
            .map(|head| {
                format!(
                    "epoch {} size {} {} {}\n",
                    head.epoch, head.size, head.signed_at, head.last_hash
                )
            })
            .collect()
    });
    Ok(if shown.iter().all(|head| head.signature_verified) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
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
