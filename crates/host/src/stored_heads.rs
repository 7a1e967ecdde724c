//! Signed heads, and records of thinned ones, as a repository holds them: each by what its signature is worth. What a
//! key signed that had ended there does not count, and hides nothing else (docs/formats/audit_transparency.md §6).

use std::collections::BTreeMap;

use audit::{HeadError, KeyId, SignedHead, Thinning, ThinningError, VerifyingKey};
use repository::{Repository, StoreError, heads::ThinnedName};

use crate::{
    error::Error,
    log::{LOG, log_name},
};

/// Epoch and size.
pub type HeadPosition = (u32, u64);

pub fn place(head: &SignedHead) -> HeadPosition {
    (head.claimed().epoch, head.claimed().size)
}

/// Signed by a key that had ended: no evidence, and no damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UncountedHead {
    pub what: &'static str,
    pub place: HeadPosition,
    pub key_id: KeyId,
    /// The epoch and position where the key ends.
    pub from: (u32, u64),
}

/// What a signature is worth.
pub fn uncounted_head(head: &SignedHead, error: &HeadError) -> Option<UncountedHead> {
    match error {
        HeadError::Revoked { key_id, from, .. } => Some(UncountedHead {
            what: "heads in the repository",
            place: place(head),
            key_id: *key_id,
            from: *from,
        }),
        _ => None,
    }
}

/// What they are, the key and where it ends.
type Group = (&'static str, String, HeadPosition);

/// A sentence for each key that ended, however many objects it signed.
pub fn sentences(all: &[UncountedHead]) -> Vec<String> {
    let mut groups: BTreeMap<Group, Vec<HeadPosition>> = BTreeMap::new();
    for one in all {
        let group = (one.what, one.key_id.to_string(), one.from);
        groups.entry(group).or_default().push(one.place);
    }
    let sentence = |((what, key, from), mut places): (Group, Vec<HeadPosition>)| {
        places.sort_unstable();
        let (first, last) = (places[0], places[places.len() - 1]);
        format!(
            "signed by a revoked key, not counted: {what} ({}), from epoch {} at size {} to epoch {} at size {}; \
             key {key} ends at epoch {}, position {}",
            places.len(),
            first.0,
            first.1,
            last.0,
            last.1,
            from.0,
            from.1
        )
    };
    groups.into_iter().map(sentence).collect()
}

/// All heads of a repository.
#[derive(Debug, Default)]
pub struct StoredHeads {
    /// That a trusted key signed, oldest first.
    pub counted: Vec<SignedHead>,
    pub uncounted: Vec<SignedHead>,
    /// What is no head of ours, and why.
    pub damaged: Vec<(HeadPosition, String)>,
    pub notices: Vec<UncountedHead>,
}

impl StoredHeads {
    /// One that is damaged hides none of the others.
    pub fn read(repository: &Repository, keys: &[VerifyingKey]) -> Result<Self, Error> {
        let mut all = Self::default();
        for (at, read) in each_head(repository)? {
            let head = match read {
                Ok(head) => head,
                Err(why) => {
                    all.damaged.push((at, why));
                    continue;
                }
            };
            match head.verify(keys) {
                Ok(_) => all.counted.push(head),
                Err(error) => match uncounted_head(&head, &error) {
                    Some(notice) => {
                        all.notices.push(notice);
                        all.uncounted.push(head);
                    }
                    None => all.damaged.push((at, error.to_string())),
                },
            }
        }
        Ok(all)
    }
}

/// The newest head of each epoch whose signer had not ended by then: all that a start needs, however many years of
/// heads there are. One that no trusted key signed is among them, for the reader to refuse.
pub fn newest(repository: &Repository, keys: &[VerifyingKey]) -> Result<Vec<SignedHead>, Error> {
    let mut epochs: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for (epoch, size) in repository::heads::head_sizes(repository, &log_name())? {
        epochs.entry(epoch).or_default().push(size);
    }
    let mut newest = Vec::new();
    for (epoch, mut sizes) in epochs {
        sizes.sort_unstable();
        for size in sizes.into_iter().rev() {
            let bytes = repository::heads::head(repository, &log_name(), (epoch, size))?;
            // Thinned since the listing.
            let Some(bytes) = bytes else { continue };
            let head = SignedHead::from_json(&bytes)?;
            if !matches!(head.verify(keys), Err(HeadError::Revoked { .. })) {
                newest.push(head);
                break;
            }
        }
    }
    Ok(newest)
}

/// A head, or what is wrong with the object that is named as one.
pub type ReadHead = Result<SignedHead, String>;

/// Every head that a listing names, by place.
pub fn each_head(repository: &Repository) -> Result<Vec<(HeadPosition, ReadHead)>, Error> {
    let mut all = Vec::new();
    for place in repository::heads::head_sizes(repository, &log_name())? {
        all.extend(head_at(repository, place)?.map(|head| (place, head)));
    }
    Ok(all)
}

/// `None` when it was thinned; `Some(Err)`: what is wrong with it.
fn head_at(repository: &Repository, at: HeadPosition) -> Result<Option<ReadHead>, Error> {
    let bytes = match repository::heads::head(repository, &log_name(), at) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        // A bad sector is of one object.
        Err(error @ repository::Error::Store(StoreError::Io { .. })) => {
            return Ok(Some(Err(error.to_string())));
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Some(match SignedHead::from_json(&bytes) {
        Ok(head) if place(&head) == at && head.claimed().log == LOG => Ok(head),
        Ok(head) => Err(format!(
            "it holds the head of log {}, epoch {} at size {}",
            head.claimed().log,
            head.claimed().epoch,
            head.claimed().size
        )),
        Err(error) => Err(error.to_string()),
    }))
}

/// All records of thinned heads that there are.
#[derive(Debug, Default)]
pub struct StoredThinnings {
    /// As far as their signers count.
    pub records: Vec<(ThinnedName, Thinning)>,
    /// What cannot be read as one, and why.
    pub damaged: Vec<(ThinnedName, String)>,
    pub notices: Vec<UncountedHead>,
}

impl StoredThinnings {
    /// One that a newer one took the place of meanwhile is looked for again.
    pub fn read(repository: &Repository, keys: &[VerifyingKey]) -> Result<Self, Error> {
        const TRIES: usize = 3;
        for _ in 0..TRIES {
            if let Some(read) = Self::read_once(repository, keys)? {
                return Ok(read);
            }
        }
        Err(Error::Failed(
            "the records of thinned heads change while they are read; try again".to_owned(),
        ))
    }

    fn read_once(repository: &Repository, keys: &[VerifyingKey]) -> Result<Option<Self>, Error> {
        let mut read = Self::default();
        for name in repository::heads::thinned_names(repository, &log_name())? {
            let bytes = match repository::heads::thinned(repository, &name) {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return Ok(None),
                // A bad sector is of one object.
                Err(error @ repository::Error::Store(StoreError::Io { .. })) => {
                    read.damaged.push((name, error.to_string()));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match Thinning::read(&bytes, keys) {
                Ok(thinning) => read.records.push((name, thinning)),
                Err(ThinningError::Revoked { key_id, from }) => read.notices.push(UncountedHead {
                    what: "records of thinned heads",
                    place: (name.epoch, name.to),
                    key_id,
                    from,
                }),
                Err(error) => read.damaged.push((name, error.to_string())),
            }
        }
        Ok(Some(read))
    }

    pub fn thinnings(self) -> Vec<Thinning> {
        self.records.into_iter().map(|(_, record)| record).collect()
    }
}

/// Those that count. One that is damaged is an error: the engine does not write without it.
pub fn thinning_records(
    repository: &Repository,
    keys: &[VerifyingKey],
) -> Result<Vec<(ThinnedName, Thinning)>, Error> {
    let read = StoredThinnings::read(repository, keys)?;
    match read.damaged.first() {
        None => Ok(read.records),
        Some((name, why)) => Err(Error::Failed(format!("`{}`: {why}", name.object))),
    }
}

pub fn thinnings(repository: &Repository, keys: &[VerifyingKey]) -> Result<Vec<Thinning>, Error> {
    let records = thinning_records(repository, keys)?.into_iter();
    Ok(records.map(|(_, record)| record).collect())
}
