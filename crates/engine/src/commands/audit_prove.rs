//! `bre audit prove` and `bre audit check-proof`: an entry of the log shown to somebody who has neither the log nor the repository, and
//! checked by him with a public key alone.

use std::{
    fs::OpenOptions,
    io::{Read, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::ExitCode,
};

use audit::{InclusionProof, KeyStatement, ProofError, Proved, Prover, SignedHead, VerifyingKey};
use repository::{Repository, heads::keep_head};
use serde::Serialize;
use services::Place;

use super::audit::database;
use crate::{
    cli::AuditProveArgs,
    error::Error,
    host::{
        instance::Instance,
        log::{LOG, log_name},
    },
    keys::{trusted, verifying_key},
    opened::Opened,
    terminal::{self, time},
};

/// Heads are tried until one fits: those of stretches that a recovery left behind do not.
const HEADS_MAX: usize = 16;

fn refused(reason: impl Into<String>) -> Error {
    Error::Refused {
        what: "no proof was made",
        reason: reason.into(),
    }
}

#[derive(Debug, Serialize)]
struct Written<'a> {
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
    let opened = Opened::at(instance, &args.audit.repository)?;
    let keys = trusted(&opened.keys, &opened.repository)?;
    let database = database(instance, &args.audit)?;
    let place = place(&database, args).await?;
    let proof = proof_of(&opened.repository, &database, place, &keys).await?;
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
    let proved = proof.verify(&keys).map_err(failed)?;
    let written = Written {
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

fn failed(error: ProofError) -> Error {
    refused(error.to_string())
}

/// Epoch and position.
async fn place(database: &str, args: &AuditProveArgs) -> Result<(u32, u64), Error> {
    if let Some(position) = args.position {
        let entry = services::entry(database, LOG, position).await?;
        let Some(entry) = entry else {
            let losses = services::losses(database, LOG).await?;
            return Err(match losses.iter().find(|loss| loss.holds(position)) {
                Some(loss) => refused(format!("entry {position} {}", loss.describe())),
                None => refused(format!("the log has no entry {position} (yet)")),
            });
        };
        return Ok((u32::try_from(entry.epoch).unwrap_or_default(), position));
    }
    let id = args.id.as_deref().unwrap_or_default();
    let places = services::places(database, LOG, id).await?;
    let of_step = |place: &&Place| match (args.step, &place.step) {
        (Some(wanted), Some((step, _))) => wanted == *step,
        (Some(_), None) => false,
        (None, _) => true,
    };
    match places.iter().rfind(of_step) {
        Some(place) => Ok((place.epoch, place.position)),
        None if places.is_empty() => {
            let losses = services::losses(database, LOG).await?;
            Err(match losses.iter().find(|loss| loss.is_of_text(id)) {
                Some(loss) => refused(format!(
                    "nothing is recorded under {id}, and it was made when entries were recorded that are {}",
                    loss.describe()
                )),
                None => refused(format!(
                    "nothing is recorded under {id}: it is the id of a quote or of a locate, as it was answered"
                )),
            })
        }
        None => Err(refused(format!("{id} has no such step"))),
    }
}

/// The head around which the fewest entries have to be read comes first.
async fn proof_of(
    repository: &Repository,
    database: &str,
    (epoch, position): (u32, u64),
    keys: &[VerifyingKey],
) -> Result<InclusionProof, Error> {
    let span = |size: u64| Prover::stretch(size, position).map(|(from, to)| to - from);
    let mut heads: Vec<(u64, u64, u32)> = repository::heads::head_sizes(repository, &log_name())?
        .into_iter()
        .filter(|(of, _)| *of >= epoch)
        .filter_map(|(of, size)| Some((span(size)?, size, of)))
        .collect();
    heads.sort_unstable();
    let mut last = None;
    for (_, size, of) in heads.into_iter().take(HEADS_MAX) {
        let Some(head) = repository::heads::head(repository, &log_name(), (of, size))? else {
            continue;
        };
        let head = SignedHead::from_json(&head)?;
        head.verify(keys)?;
        match below(database, head, position).await? {
            Ok(proof) => return Ok(proof),
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        None => refused(format!(
            "no signed head in the repository reaches the entry {position} yet: one follows within a second or so of the stream"
        )),
        Some(error) => refused(format!("{error}. Run: bre audit verify")),
    })
}

/// The inner error: this head does not fit the log of today.
async fn below(
    database: &str,
    head: SignedHead,
    position: u64,
) -> Result<Result<InclusionProof, ProofError>, Error> {
    let size = head.claimed().size;
    let Some(mut prover) = Prover::new(head, position) else {
        return Err(refused(format!(
            "a head of size {size} has no entry {position}"
        )));
    };
    let (from, _) = prover.needs();
    services::export_from(database, LOG, from, |stored| {
        match prover.push(stored.bytes) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })
    .await?;
    Ok(prover.finish())
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
struct Checked {
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
        Ok((proved, proof)) => Checked {
            verified: true,
            reason: None,
            content: Some(content(&proved, &proof)),
        },
        Err(error) => Checked {
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
    Error::Refused {
        what: "it is not known whose signatures count",
        reason: error.to_string(),
    }
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

fn content(proved: &Proved, proof: &InclusionProof) -> Content {
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

impl Checked {
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
