//! Inclusion proofs: that one entry is in the log, for a reader who has neither the log nor the repository. A proof
//! holds the entry's bytes, the path from its leaf to the root, and a signed head (format §11).

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::entry::{Entry, EntryError};
use crate::hash::Hash;
use crate::head::{Head, HeadError};
use crate::hex::{self, HexError};
use crate::keys::VerifyingKey;
use crate::merkle::join;
use crate::signed_head::{self, SignedHead};

const FORMAT: &str = "bre-audit-proof-1";

/// Reading one proves nothing: only [`InclusionProof::verify`] hands out an [`Entry`] to rely on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InclusionProof {
    claimed: Entry,
    entry: Vec<u8>,
    /// From the leaf's sibling up to the one below the root.
    path: Vec<Hash>,
    head: SignedHead,
}

/// What a proof that holds says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenEntry {
    pub entry: Entry,
    pub hash: Hash,
    pub head: Head,
}

#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum InclusionProofError {
    #[error("this is not a proof of the form bre-audit-proof-1: {0}")]
    Json(String),
    #[error("the proof's entry is not hex as it should be: {0}")]
    Hex(HexError),
    #[error(
        "the proof's bytes are not those that its content is written as: the file was edited, or it was printed again"
    )]
    Edited,
    #[error("the proof's entry cannot be read: {0}")]
    Entry(EntryError),
    #[error(transparent)]
    Head(#[from] HeadError),
    #[error(
        "the entry of log {log}, epoch {epoch}, position {position} is not covered by the head of log {head_log}, \
         epoch {head_epoch}, size {size}"
    )]
    NotCovered {
        log: u16,
        epoch: u32,
        position: u64,
        head_log: u16,
        head_epoch: u32,
        size: u64,
    },
    #[error(
        "the entry of epoch {epoch}, position {position} is not in the log that the head of size {size} signs: its \
         hash does not lead to the signed root"
    )]
    NotIncluded {
        epoch: u32,
        position: u64,
        size: u64,
    },
    #[error("the positions {from} to {to} are needed for this proof, and {given} entries came")]
    Leaves { from: u64, to: u64, given: u64 },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    format: String,
    log: u16,
    epoch: u32,
    position: u64,
    kind: String,
    at_micros: i64,
    hash: Hash,
    entry: String,
    path: Vec<Hash>,
    head: signed_head::Json,
}

impl InclusionProof {
    /// What it says, not verified: for choosing names and for messages.
    pub fn claimed(&self) -> &Entry {
        &self.claimed
    }

    pub fn head(&self) -> &SignedHead {
        &self.head
    }

    /// Of an entry and the path to it that somebody has, from tiles for one. It holds, but for the signature, or it is
    /// not made.
    pub fn assemble(
        entry: Vec<u8>,
        path: Vec<Hash>,
        head: SignedHead,
    ) -> Result<InclusionProof, InclusionProofError> {
        let claimed = Entry::parse(&entry).map_err(InclusionProofError::Entry)?;
        let proof = InclusionProof {
            claimed,
            entry,
            path,
            head: head.without_link(),
        };
        proof.leads_to(proof.head.claimed())?;
        Ok(proof)
    }

    /// With the public keys that are trusted, and nothing else.
    pub fn verify(&self, keys: &[VerifyingKey]) -> Result<ProvenEntry, InclusionProofError> {
        let head = self.head.verify(keys)?;
        self.leads_to(&head)?;
        Ok(ProvenEntry {
            entry: self.claimed.clone(),
            hash: Entry::hash_of(&self.entry),
            head,
        })
    }

    fn leads_to(&self, head: &Head) -> Result<(), InclusionProofError> {
        let entry = &self.claimed;
        check_covered(entry, head)?;
        let leaf = Entry::hash_of(&self.entry);
        if root(leaf, entry.position - 1, head.size, &self.path) == Some(head.root) {
            return Ok(());
        }
        Err(InclusionProofError::NotIncluded {
            epoch: entry.epoch,
            position: entry.position,
            size: head.size,
        })
    }

    /// One JSON object with a line end, for people as well. The bytes follow from the content: there is one form.
    pub fn to_json(&self) -> Vec<u8> {
        let json = Json {
            format: FORMAT.to_owned(),
            log: self.claimed.log,
            epoch: self.claimed.epoch,
            position: self.claimed.position,
            kind: self.claimed.kind.name().to_owned(),
            at_micros: self.claimed.recorded_at_micros,
            hash: Entry::hash_of(&self.entry),
            entry: hex::encode(&self.entry),
            path: self.path.clone(),
            head: signed_head::Json::of(&self.head),
        };
        // Strings and integers only: there is nothing here that serde_json could fail on.
        let mut bytes = serde_json::to_vec_pretty(&json).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    pub fn from_json(bytes: &[u8]) -> Result<InclusionProof, InclusionProofError> {
        let json: Json = serde_json::from_slice(bytes)
            .map_err(|error| InclusionProofError::Json(error.to_string()))?;
        if json.format != FORMAT {
            let found = format!("its format is {:?}", json.format);
            return Err(InclusionProofError::Json(found));
        }
        let entry = hex::decode(&json.entry).map_err(InclusionProofError::Hex)?;
        let proof = InclusionProof {
            claimed: Entry::parse(&entry).map_err(InclusionProofError::Entry)?,
            entry,
            path: json.path,
            // A link is not part of a proof: one that is there is not what the content is written as.
            head: SignedHead::from_fields(json.head)?.without_link(),
        };
        // Written again and compared, so that the fields for people cannot disagree with the entry.
        match proof.to_json() == bytes {
            true => Ok(proof),
            false => Err(InclusionProofError::Edited),
        }
    }
}

fn check_covered(entry: &Entry, head: &Head) -> Result<(), InclusionProofError> {
    if entry.log == head.log && entry.epoch <= head.epoch && entry.position <= head.size {
        return Ok(());
    }
    Err(InclusionProofError::NotCovered {
        log: entry.log,
        epoch: entry.epoch,
        position: entry.position,
        head_log: head.log,
        head_epoch: head.epoch,
        size: head.size,
    })
}

/// RFC 9162 §2.1.3.2: the root that a leaf and its path lead to in a tree of that size. `None`: the path has not the
/// length that it must have.
pub(crate) fn root(leaf: Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    let (mut index, mut last) = (index, size.checked_sub(1)?);
    let mut node = leaf;
    for sibling in path {
        if last == 0 {
            return None;
        }
        if index % 2 == 1 || index == last {
            node = join(*sibling, node);
            while index % 2 == 0 && index != 0 {
                (index, last) = (index / 2, last / 2);
            }
        } else {
            node = join(node, *sibling);
        }
        (index, last) = (index / 2, last / 2);
    }
    (last == 0).then_some(node)
}

/// Makes one. The peaks of the head stand for most of the tree, so only the entries of the perfect subtree around the
/// entry are asked for.
#[derive(Debug)]
pub struct InclusionProver {
    head: SignedHead,
    position: u64,
    /// Which peak the entry is below.
    peak: usize,
    from: u64,
    to: u64,
    entry: Option<Vec<u8>>,
    given: u64,
    row: Vec<Subtree>,
}

/// A perfect subtree of what came; with the way up to its root when the entry is in it.
#[derive(Debug)]
struct Subtree {
    size: u64,
    root: Hash,
    path: Option<Vec<Hash>>,
}

impl Subtree {
    fn join(self, right: Subtree) -> Subtree {
        let way = |path: Option<Vec<Hash>>, sibling: Hash| {
            path.map(|mut path| {
                path.push(sibling);
                path
            })
        };
        Subtree {
            size: self.size + right.size,
            root: join(self.root, right.root),
            path: way(self.path, right.root).or(way(right.path, self.root)),
        }
    }
}

impl InclusionProver {
    /// `None` when the head does not reach so far.
    pub fn new(head: SignedHead, position: u64) -> Option<InclusionProver> {
        let (peak, from, to) = below_peak(head.claimed().size, position)?;
        Some(InclusionProver {
            head: head.without_link(),
            position,
            peak,
            from,
            to,
            entry: None,
            given: 0,
            row: Vec::new(),
        })
    }

    /// What a head of that size would need: the fewer, the better a choice it is.
    pub fn stretch(size: u64, position: u64) -> Option<(u64, u64)> {
        below_peak(size, position).map(|(_, from, to)| (from, to))
    }

    /// Positions of the first and the last entry that it needs, in order.
    pub fn needs(&self) -> (u64, u64) {
        (self.from, self.to)
    }

    /// The canonical bytes of the next entry. True: that was the last one.
    pub fn push(&mut self, bytes: Vec<u8>) -> bool {
        let is_it = self.from + self.given == self.position;
        let mut node = Subtree {
            size: 1,
            root: Entry::hash_of(&bytes),
            path: is_it.then(Vec::new),
        };
        if is_it {
            self.entry = Some(bytes);
        }
        self.given += 1;
        while let Some(left) = self.row.pop_if(|left| left.size == node.size) {
            node = left.join(node);
        }
        self.row.push(node);
        self.from + self.given > self.to
    }

    /// It holds, but for the signature, or it is not handed out: entries that were changed since make no proof.
    pub fn finish(mut self) -> Result<InclusionProof, InclusionProofError> {
        let leaves = InclusionProofError::Leaves {
            from: self.from,
            to: self.to,
            given: self.given,
        };
        let below = self.row.pop().filter(|_| self.row.is_empty());
        let complete = self.from + self.given == self.to + 1;
        let (Some(below), Some(entry), true) = (below, self.entry, complete) else {
            return Err(leaves);
        };
        let head = self.head.claimed().clone();
        let (larger, smaller) = head.peaks.split_at(self.peak);
        let mut path = below.path.unwrap_or_default();
        let smaller = smaller.get(1..).unwrap_or_default().iter().rev();
        path.extend(smaller.copied().reduce(|right, left| join(left, right)));
        path.extend(larger.iter().rev());
        InclusionProof::assemble(entry, path, self.head)
    }
}

/// The perfect subtree that a position is in: which one from the left, its first position and its last.
fn below_peak(size: u64, position: u64) -> Option<(usize, u64, u64)> {
    if position == 0 || position > size {
        return None;
    }
    let mut before = 0;
    for (peak, bit) in (0..u64::BITS)
        .rev()
        .filter(|bit| size >> bit & 1 == 1)
        .enumerate()
    {
        let leaves = 1 << bit;
        if position <= before + leaves {
            return Some((peak, before + 1, before + leaves));
        }
        before += leaves;
    }
    None
}
