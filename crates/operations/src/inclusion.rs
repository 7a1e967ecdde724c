//! The proof that an entry is in the log: which entry is meant, and which signed head it is proved under.

use std::ops::ControlFlow;

use audit::{
    HeadError, InclusionProof, InclusionProofError, InclusionProver, SignedHead, VerifyingKey,
};
use host::log::{LOG, log_name};
use repository::Repository;
use services::EntryRef;

use crate::error::Error;

/// Heads are tried until one fits: those of stretches that a recovery left behind do not.
const HEADS_MAX: usize = 16;

/// What names an entry.
#[derive(Debug)]
pub struct EntryQuery<'a> {
    pub position: Option<u64>,
    /// Of a quote or of a locate, where no position is named.
    pub id: &'a str,
    /// One step of a locate; the last when absent.
    pub step: Option<u32>,
}

pub fn refused(reason: impl Into<String>) -> Error {
    Error::refused("no proof was made", reason)
}

/// Epoch and position.
pub async fn place(database: &str, wanted: &EntryQuery<'_>) -> Result<(u32, u64), Error> {
    if let Some(position) = wanted.position {
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
    let id = wanted.id;
    let places = services::places(database, LOG, id).await?;
    let of_step = |place: &&EntryRef| match (wanted.step, &place.step) {
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
pub async fn prove(
    repository: &Repository,
    database: &str,
    (epoch, position): (u32, u64),
    keys: &[VerifyingKey],
) -> Result<InclusionProof, Error> {
    let span = |size: u64| InclusionProver::stretch(size, position).map(|(from, to)| to - from);
    let mut heads: Vec<(u64, u64, u32)> = repository::heads::head_sizes(repository, &log_name())?
        .into_iter()
        .filter(|(of, _)| *of >= epoch)
        .filter_map(|(of, size)| Some((span(size)?, size, of)))
        .collect();
    heads.sort_unstable();
    let mut last = None;
    let mut tried = 0;
    for (_, size, of) in heads {
        if tried == HEADS_MAX {
            break;
        }
        let Some(head) = repository::heads::head(repository, &log_name(), (of, size))? else {
            continue;
        };
        let head = SignedHead::from_json(&head)?;
        match head.verify(keys) {
            // A reader who knows of the key's end refuses it.
            Err(HeadError::Revoked { .. }) => continue,
            verified => verified?,
        };
        tried += 1;
        match below(database, head, position).await? {
            Ok(proof) => return Ok(proof),
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        None => refused(format!(
            "no signed head in the repository reaches the entry {position} yet: one follows within a second or so of the stream"
        )),
        Some(error) => refused(format!("{error}. Run: bre verify audit")),
    })
}

/// The inner error: this head does not fit the log of today.
async fn below(
    database: &str,
    head: SignedHead,
    position: u64,
) -> Result<Result<InclusionProof, InclusionProofError>, Error> {
    let size = head.claimed().size;
    let Some(mut prover) = InclusionProver::new(head, position) else {
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
