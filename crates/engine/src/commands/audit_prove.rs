//! `bre audit prove` and `bre audit check-proof`: an entry of the log shown to somebody who has neither the log nor the repository, and
//! checked by him with a public key alone.

use std::{
    fs::OpenOptions,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use audit::{InclusionProof, KeyStatement, ProvenEntry, VerifyingKey};
use repository::heads::keep_head;
use serde::Serialize;

use super::audit::database;
use host::{
    instance::Instance,
    keys::{trusted, verifying_key},
    log::LOG,
};
use terminal::{self, time};

use crate::{cli::AuditProveArgs, error::Error};
use operations::{
    inclusion::{self, EntryQuery},
    repository_handle::RepositoryHandle,
};

#[derive(Debug, Serialize)]
struct ProofFile<'a> {
    file: &'a Path,
    log: u16,
    epoch: u32,
    position: u64,
    hash: String,
    head_epoch: u32,
    head_size: u64,
    key_id: String,
}

pub(super) async fn prove(
    instance: &Instance,
    json: bool,
    args: &AuditProveArgs,
) -> Result<ExitCode, Error> {
    let opened = RepositoryHandle::at(instance, &args.audit.repository)?;
    let keys = trusted(&opened.keys, &opened.repository)?;
    let database = database(instance, &args.audit)?;
    let wanted = EntryQuery {
        position: args.position,
        id: args.id.as_deref().unwrap_or_default(),
        step: args.step,
    };
    let place = inclusion::place(&database, &wanted).await?;
    let proof = inclusion::prove(&opened.repository, &database, place, &keys).await?;
    let named = proof.head().claimed();
    // Whoever gets the proof may look for its head here. A repository that is only read has an engine that thins no head of the last hour.
    if let Err(error) = keep_head(
        &opened.repository,
        &LOG.to_string(),
        (named.epoch, named.size),
    ) {
        tracing::warn!(%error, "the proof's head may be thinned later; the proof itself holds all that it needs");
    }
    let Some(file) = &args.out else {
        // The very bytes: a proof is checked byte for byte.
        terminal::bytes(&proof.to_json());
        return Ok(ExitCode::SUCCESS);
    };
    write(file, &proof.to_json())?;
    let proved = proof
        .verify(&keys)
        .map_err(|error| inclusion::refused(error.to_string()))?;
    let written = ProofFile {
        file,
        log: proved.entry.log,
        epoch: proved.entry.epoch,
        position: proved.entry.position,
        hash: proved.hash.to_string(),
        head_epoch: proved.head.epoch,
        head_size: proved.head.size,
        key_id: proof.head().key_id().to_string(),
    };
    terminal::result(json, &written, || {
        format!(
            "{}: entry {} of epoch {}, in the log that the head of size {} signs\n\
             check it, with nothing but {}: bre audit check-proof {} --key audit_signing.pub\n",
            file.display(),
            written.position,
            written.epoch,
            written.head_size,
            opened.keys.join("audit_signing.pub").display(),
            file.display()
        )
    });
    Ok(ExitCode::SUCCESS)
}

/// Whole, durable, and never over another file.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
    written.map_err(Error::file("cannot write", path))
}

#[derive(Debug, Serialize)]
struct ProofCheck {
    verified: bool,
    /// Why not.
    reason: Option<String>,
    #[serde(flatten)]
    content: Option<Content>,
}

#[derive(Debug, Serialize)]
struct Content {
    log: u16,
    epoch: u32,
    position: u64,
    kind: &'static str,
    recorded_at: String,
    hash: String,
    fields: serde_json::Map<String, serde_json::Value>,
    head_epoch: u32,
    head_size: u64,
    signed_at: String,
    key_id: String,
}

/// Needs no instance, no database, no repository.
pub(super) fn check(
    instance: &Instance,
    json: bool,
    file: &Path,
    given: &[PathBuf],
    statements: Option<&Path>,
) -> Result<ExitCode, Error> {
    let given = match given {
        [] => vec![verifying_key(&instance.keys())?],
        files => files
            .iter()
            .map(|file| Ok(VerifyingKey::load(file)?))
            .collect::<Result<Vec<_>, Error>>()?,
    };
    let statements = match statements {
        Some(file) => KeyStatement::parse_all(&read(file)?).map_err(unread)?,
        None => Vec::new(),
    };
    let bytes = read(file)?;
    let proof = InclusionProof::from_json(&bytes);
    let log = proof.as_ref().map_or(LOG, |proof| proof.claimed().log);
    let keys = audit::trust(log, &given, &statements).map_err(unread)?;
    let proved = proof.and_then(|proof| Ok((proof.verify(&keys)?, proof)));
    let checked = match proved {
        Ok((proved, proof)) => ProofCheck {
            verified: true,
            reason: None,
            content: Some(content(&proved, &proof)),
        },
        Err(error) => ProofCheck {
            verified: false,
            reason: Some(error.to_string()),
            content: None,
        },
    };
    terminal::result(json, &checked, || checked.sentences());
    Ok(match checked.verified {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn unread(error: audit::StatementError) -> Error {
    Error::refused("it is not known whose signatures count", error.to_string())
}

/// Longer than any entry in hex with its path and head.
const PROOF_BYTES_MAX: u64 = 64 << 20;

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = match file.to_str() {
        Some("-") => std::io::stdin()
            .take(PROOF_BYTES_MAX)
            .read_to_end(&mut bytes),
        _ => std::fs::File::open(file)
            .and_then(|open| open.take(PROOF_BYTES_MAX).read_to_end(&mut bytes)),
    };
    read.map_err(Error::file("cannot read", file))?;
    Ok(bytes)
}

fn content(proved: &ProvenEntry, proof: &InclusionProof) -> Content {
    let (entry, head) = (&proved.entry, &proved.head);
    Content {
        log: entry.log,
        epoch: entry.epoch,
        position: entry.position,
        kind: entry.kind.name(),
        recorded_at: time(entry.recorded_at_micros),
        hash: proved.hash.to_string(),
        fields: entry
            .fields
            .iter()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect(),
        head_epoch: head.epoch,
        head_size: head.size,
        signed_at: time(head.at_micros),
        key_id: proof.head().key_id().to_string(),
    }
}

impl ProofCheck {
    fn sentences(&self) -> String {
        let Some(content) = &self.content else {
            return format!(
                "NOT PROVED: {}\n",
                self.reason.as_deref().unwrap_or("no reason given")
            );
        };
        let mut text = format!(
            "proved: entry {} of epoch {}, {}, recorded at {}\nin the log as the head of epoch {}, size {} signs it, by key {} at {}\n",
            content.position,
            content.epoch,
            content.kind,
            content.recorded_at,
            content.head_epoch,
            content.head_size,
            content.key_id,
            content.signed_at
        );
        for (name, value) in &content.fields {
            let value = value.as_str().unwrap_or_default();
            text.push_str(&format!("  {name:<16} {}\n", value.escape_debug()));
        }
        text
    }
}
