//! What a log asks a witness, and what the witness answers (C2SP tlog-witness; `docs/formats/audit_transparency.md`
//! §5). State and HTTP are elsewhere.

use crate::checkpoint::{Checkpoint, whole};
use crate::hash::Hash;
use crate::keys::VerifyingKey;
use crate::note::{NOTE_BYTES_MAX, Note, NoteError, decode_hash, encode};
use crate::tiles::is_consistent;

/// Hashes in a consistency proof, at most.
const PROOF_HASHES_MAX: usize = 63;
/// A request is no longer: its size, its proof, its note.
pub const REQUEST_BYTES_MAX: usize = NOTE_BYTES_MAX + PROOF_HASHES_MAX * 45 + 32;
/// Nor is an answer.
pub const ANSWER_BYTES_MAX: usize = NOTE_BYTES_MAX;

/// The body of `add-checkpoint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    /// The size that the witness cosigned last; 0 for none.
    pub old: u64,
    /// From there to the checkpoint.
    pub proof: Vec<Hash>,
    pub checkpoint: Note,
}

impl AddCheckpoint {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("old {}\n", self.old);
        for hash in &self.proof {
            text.push_str(&encode(hash.as_bytes()));
            text.push('\n');
        }
        text.push('\n');
        let mut bytes = text.into_bytes();
        bytes.extend(self.checkpoint.to_bytes());
        bytes
    }

    pub fn parse(bytes: &[u8]) -> Result<AddCheckpoint, NoteError> {
        let form = NoteError::Form;
        if bytes.len() > REQUEST_BYTES_MAX {
            return Err(form("it is longer than a request"));
        }
        let text = str::from_utf8(bytes).map_err(|_| form("it is no UTF-8"))?;
        // The first empty line ends size and proof.
        let (before, note) = text
            .split_once("\n\n")
            .ok_or(form("no empty line stands before the checkpoint"))?;
        let mut lines = before.split('\n');
        let old = lines.next().and_then(|line| line.strip_prefix("old "));
        let old = old
            .and_then(whole)
            .ok_or(form("its first line is not: old SIZE"))?;
        let proof = lines.map(decode_hash).collect::<Option<Vec<_>>>();
        let proof = proof.ok_or(form("a line of its proof is not 32 bytes in base64"))?;
        if proof.len() > PROOF_HASHES_MAX {
            return Err(form("its proof has more than 63 lines"));
        }
        Ok(AddCheckpoint {
            old,
            proof,
            checkpoint: Note::parse(note.as_bytes())?,
        })
    }
}

/// A log that a witness was told of: by the key of one origin, or by one that vouches for all origins below its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownLog {
    pub name: String,
    pub keys: Vec<VerifyingKey>,
}

impl KnownLog {
    /// `<name>/log-<n>`: the number by which statements about keys name it.
    pub fn number(&self) -> Option<u16> {
        let (_, last) = self.name.rsplit_once('/')?;
        u16::try_from(whole(last.strip_prefix("log-")?)?).ok()
    }

    /// Whether that origin is one of this log's.
    pub fn has(&self, origin: &str) -> bool {
        let below = origin
            .strip_prefix(self.name.as_str())
            .and_then(|rest| rest.strip_prefix('/'));
        origin == self.name || below.is_some_and(|rest| whole(rest).is_some())
    }
}

/// The newest tree of an origin that a witness signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownTree {
    pub size: u64,
    pub root: Hash,
}

/// What a witness does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// 200: keep this as the newest, then sign it.
    Sign(Checkpoint),
    /// 400
    Malformed(String),
    /// 403: none of the log's keys signed it.
    Untrusted,
    /// 404
    UnknownOrigin,
    /// 409: the witness is at that size.
    Conflict(u64),
    /// 422: it is no continuation of what the witness has seen.
    Inconsistent(String),
}

impl Judgement {
    /// Of the answer over HTTP.
    pub fn status(&self) -> u16 {
        match self {
            Judgement::Sign(_) => 200,
            Judgement::Malformed(_) => 400,
            Judgement::Untrusted => 403,
            Judgement::UnknownOrigin => 404,
            Judgement::Conflict(_) => 409,
            Judgement::Inconsistent(_) => 422,
        }
    }
}

/// `seen` says what the witness signed last of an origin.
pub fn judge(
    request: &AddCheckpoint,
    logs: &[KnownLog],
    seen: impl Fn(&str) -> Option<KnownTree>,
) -> Judgement {
    let note = &request.checkpoint;
    let checkpoint = match Checkpoint::read(note) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return Judgement::Malformed(error.to_string()),
    };
    let origin = checkpoint.origin.as_str();
    let mut of_it = logs.iter().filter(|log| log.has(origin)).peekable();
    if of_it.peek().is_none() {
        return Judgement::UnknownOrigin;
    }
    // A false signature by a known key is not trusted, nor is that of one which had ended.
    if !of_it.any(|log| Checkpoint::verify(note, &log.keys).is_ok()) {
        return Judgement::Untrusted;
    }
    if request.old > checkpoint.size {
        return Judgement::Malformed("the old size is greater than the checkpoint's".to_owned());
    }
    let last = seen(origin);
    let known = last.map_or(0, |seen| seen.size);
    if request.old != known {
        return Judgement::Conflict(known);
    }
    match last {
        Some(last) if last.size == checkpoint.size && last.root != checkpoint.root => {
            return Judgement::Conflict(known);
        }
        Some(last) => {
            let (old, new) = ((last.size, last.root), (checkpoint.size, checkpoint.root));
            if !is_consistent(old, new, &request.proof) {
                return Judgement::Inconsistent(
                    "the consistency proof does not lead from the last tree to this one".to_owned(),
                );
            }
        }
        None if !request.proof.is_empty() => {
            return Judgement::Inconsistent("a proof from nothing is empty".to_owned());
        }
        None => {}
    }
    match checkpoint.left_behind() {
        Err(error) => return Judgement::Malformed(error.to_string()),
        Ok(Some(left)) => {
            // What was left behind is what was seen of it, or more.
            let hidden = seen(&left.origin).filter(|seen| {
                seen.size > left.size
                    || (seen.size == left.size && left.root.is_some_and(|root| root != seen.root))
            });
            if let Some(seen) = hidden {
                return Judgement::Inconsistent(format!(
                    "it says that {} ended at {}, and its tree was seen with {} entries",
                    left.origin, left.size, seen.size
                ));
            }
        }
        Ok(None) => {}
    }
    Judgement::Sign(checkpoint)
}
