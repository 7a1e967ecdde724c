//! Signed heads go into the repository, where the database's superuser cannot reach them; the newest of them also beside the keys and
//! into further repositories. What was published is looked for again and again, and old heads are let go of.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use audit::{HeadRange, LostHead, SignedHead, VerifyingKey};
use repository::{Repository, StoreError};
use services::{Claim, Evidence, HeadPublisher, KnownLog};

use super::{health::StreamMonitor, thinning};
use host::{
    log::{LOG, log_name},
    stored_heads::{self, HeadPosition, StoredHeads, thinnings},
};

use crate::{
    anchors::{self, Anchors},
    config::Config,
    error::Error,
};

/// Between two passes of thinning.
const THIN_EVERY: Duration = Duration::from_secs(600);
/// Heads of before a start that are read with one look, for what they name.
const READ_MAX: usize = 200;
/// More ranges than this are not told one by one.
const RANGES_MAX: usize = 500;

#[derive(Debug)]
pub struct Publisher {
    repository: Repository,
    stream: StreamMonitor,
    keys: PathBuf,
    pub anchors: Arc<Anchors>,
    known: KnownLog,
    /// Heads that the repository holds, as far as this process knows, and when they were signed.
    there: Mutex<BTreeMap<HeadPosition, i64>>,
    /// Heads of before this start whose links were not looked at yet, oldest first.
    unread: Mutex<Vec<HeadPosition>>,
    /// What thinnings say was looked at once.
    looked: Mutex<bool>,
    thinned_at: Mutex<Option<Instant>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Publisher {
    /// With all that is known of the log outside its database. `existed`: why a log that is empty was not always so. `recovering`: the database
    /// was just restored, and the opening that follows names what is gone.
    pub fn prepare(
        repository: &Repository,
        stream: StreamMonitor,
        keys: &Path,
        config: &Config,
        existed: Option<String>,
        recovering: bool,
    ) -> Result<Self, Error> {
        let anchors = Arc::new(Anchors::open(keys, repository.id())?);
        let trusted = host::keys::trusted(keys, repository)?;
        let there: BTreeMap<HeadPosition, i64> =
            repository::heads::dated_heads(repository, &log_name())?
                .into_iter()
                .collect();
        let file = anchors.file();
        let mut known = KnownLog {
            claimed: file.claim(),
            damage: anchors::noted_damage(keys),
            left_at: anchors::noted_end(keys),
            evidence: evidence(repository)?,
            existed,
            ..KnownLog::default()
        };
        if let Some(head) = file.head()? {
            let claimed = head.claimed();
            let place = (claimed.epoch, claimed.size);
            if file.repository_id == repository.id()
                && !there.contains_key(&place)
                && known.damage.is_none()
                && !recovering
                && !is_thinned(repository, &trusted, place)?
            {
                known.damage = Some(gone(&[place]));
            }
            match head.verify(&trusted) {
                // What its key signed counts no more: it says nothing of how far the log went.
                Err(error @ audit::HeadError::Revoked { .. }) => {
                    tracing::warn!(%error, "the anchor beside the keys does not count");
                }
                _ => known.anchors.push(head),
            }
        }
        for far in anchors::of_further(&config.repositories, &trusted) {
            match far.heads {
                // One that nobody trusted signed is no anchor: whoever rules that place does not stop this one.
                Ok(heads) => known.anchors.extend(
                    heads
                        .into_iter()
                        .filter(|head| head.verify(&trusted).is_ok()),
                ),
                Err(error) => {
                    tracing::warn!(repository = far.name, %error, "what it knows of the audit log is not known");
                }
            }
        }
        if let Some(reason) = &known.damage {
            anchors.note_damage(Some(reason))?;
        }
        Ok(Self {
            repository: repository.clone(),
            stream,
            keys: keys.to_owned(),
            anchors,
            known,
            unread: Mutex::new(there.keys().copied().collect()),
            there: Mutex::new(there),
            looked: Mutex::new(false),
            thinned_at: Mutex::new(None),
        })
    }

    #[must_use]
    pub fn continuing(mut self, continue_log: bool) -> Self {
        self.known.continue_log = continue_log;
        self
    }

    /// The keys that vouch for the log now: they may be rotated while this runs.
    fn trusted(&self) -> Result<Vec<VerifyingKey>, Error> {
        Ok(host::keys::trusted(&self.keys, &self.repository)?)
    }

    fn put(&self, head: &SignedHead) -> Result<(), String> {
        let claimed = head.claimed();
        let put = repository::heads::put_head(
            &self.repository,
            &log_name(),
            claimed.epoch,
            claimed.size,
            &head.to_json(),
        );
        match put {
            // After a restart the same end of the log is signed again, at another time. The first signature stands.
            Err(repository::Error::Store(StoreError::AlreadyExists { object })) => {
                self.agrees(&object, head)
            }
            other => other.map_err(|error| error.to_string()),
        }
    }

    fn agrees(&self, object: &str, head: &SignedHead) -> Result<(), String> {
        let bytes = self
            .repository
            .store()
            .get(object)
            .map_err(|error| error.to_string())?;
        let stored =
            SignedHead::from_json(&bytes).map_err(|error| format!("`{object}`: {error}"))?;
        if stored.claimed().last_hash == head.claimed().last_hash {
            return Ok(());
        }
        Err(format!(
            "`{object}` is the head of another chain: two engines wrote this log, or it was rewritten. Run: bre verify audit"
        ))
    }

    /// Heads that were there, or that a thinning lists or a later head names, and are not; but for those that openings
    /// name as missing.
    fn disappeared(&self, known: &[HeadRange]) -> Result<Vec<HeadPosition>, Error> {
        // Before the listing: what is published meanwhile is not missed.
        let before = locked(&self.there).clone();
        let listed = repository::heads::dated_heads(&self.repository, &log_name())?;
        let now: BTreeSet<HeadPosition> = listed.iter().map(|(place, _)| *place).collect();
        let mut missing: Vec<HeadPosition> = before
            .into_keys()
            .filter(|place| !now.contains(place))
            .collect();
        if !*locked(&self.looked) {
            for record in thinnings(&self.repository, &self.trusted()?)? {
                let kept = record.kept.iter().map(|size| (record.epoch, *size));
                missing.extend(kept.filter(|place| !now.contains(place)));
            }
            *locked(&self.looked) = missing.is_empty();
        }
        missing.extend(self.read_some(&now)?);
        missing.retain(|(epoch, size)| !known.iter().any(|range| range.holds(*epoch, *size)));
        if !missing.is_empty() {
            let records = thinnings(&self.repository, &self.trusted()?)?;
            missing.retain(|(epoch, size)| !audit::was_thinned(&records, *epoch, *size));
        }
        let mut there = locked(&self.there);
        for (place, at_micros) in listed {
            there.entry(place).or_insert(at_micros);
        }
        Ok(missing)
    }

    /// What some of the heads of before this start name, newest first, and is not there: it went while no engine
    /// looked.
    fn read_some(&self, now: &BTreeSet<HeadPosition>) -> Result<Vec<HeadPosition>, Error> {
        let mut unread = locked(&self.unread);
        let first = unread.len().saturating_sub(READ_MAX);
        let part = unread.split_off(first);
        if part.is_empty() {
            return Ok(Vec::new());
        }
        let trusted = self.trusted()?;
        let mut missing = Vec::new();
        for place in &part {
            let bytes = match repository::heads::head(&self.repository, &log_name(), *place) {
                Ok(bytes) => bytes.unwrap_or_default(),
                Err(error) => {
                    unread.extend(part);
                    return Err(error.into());
                }
            };
            let head = SignedHead::from_json(&bytes).ok();
            let head = head.filter(|head| head.verify(&trusted).is_ok());
            let before = head.and_then(|head| head.previous());
            let before = before.map(|before| (before.epoch, before.size));
            missing.extend(before.filter(|before| !now.contains(before)));
        }
        Ok(missing)
    }

    /// Heads that are listed, and the anchor's where it is not among them.
    fn anchor_missing(&self) -> Result<(BTreeSet<HeadPosition>, Vec<HeadPosition>), Error> {
        let listed = repository::heads::head_sizes(&self.repository, &log_name())?;
        let listed: BTreeSet<HeadPosition> = listed.into_iter().collect();
        let named = anchored_in(&self.anchors.file(), &self.repository)?;
        let place = named.map(|head| (head.epoch, head.size));
        let gone = match place.filter(|place| !listed.contains(place)) {
            Some(place) if !is_thinned(&self.repository, &self.trusted()?, place)? => vec![place],
            _ => Vec::new(),
        };
        Ok((listed, gone))
    }

    /// Forgets what a person knows to be gone.
    fn take_as_it_is(&self) -> Result<(), Error> {
        let listed = repository::heads::dated_heads(&self.repository, &log_name())?;
        let now: BTreeSet<HeadPosition> = listed.iter().map(|(place, _)| *place).collect();
        locked(&self.there).retain(|place, _| now.contains(place));
        *locked(&self.looked) = true;
        Ok(())
    }
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl HeadPublisher for Publisher {
    fn durable_lsn(&self) -> Option<u64> {
        self.stream.durable_lsn()
    }

    fn publish(&self, head: &SignedHead) -> Result<(), String> {
        self.put(head)?;
        let claimed = head.claimed();
        locked(&self.there).insert((claimed.epoch, claimed.size), claimed.at_micros);
        self.anchors
            .keep(self.repository.id(), head)
            .map_err(|error| format!("the anchor beside the keys: {error}"))
    }

    fn known(&self) -> KnownLog {
        self.known.clone()
    }

    fn trusted(&self) -> Result<Option<Vec<VerifyingKey>>, String> {
        Publisher::trusted(self).map(Some).map_err(said)
    }

    fn claim(&self, claim: &Claim) -> Result<(), String> {
        self.anchors.claim(claim).map_err(said)
    }

    fn look(&self, known: &[HeadRange]) -> Result<Option<String>, String> {
        if let Some(beyond) = self.anchors.beyond() {
            return Ok(Some(beyond));
        }
        let missing = self.disappeared(known).map_err(said)?;
        Ok((!missing.is_empty()).then(|| gone(&missing)))
    }

    fn missing(&self, whole: bool) -> Result<Vec<HeadRange>, String> {
        if !whole {
            let (listed, gone) = self.anchor_missing().map_err(said)?;
            return Ok(ranges(gone, &listed));
        }
        let (trusted, file) = (self.trusted().map_err(said)?, self.anchors.file());
        let heads = StoredHeads::read(&self.repository, &trusted).map_err(said)?;
        if let Some(((epoch, size), why)) = heads.damaged.first() {
            return Err(format!(
                "the head of epoch {epoch} at size {size} is none: {why}"
            ));
        }
        let records = thinnings(&self.repository, &trusted).map_err(said)?;
        let named = anchored_in(&file, &self.repository).map_err(said)?;
        let (counted, uncounted) = (&heads.counted, &heads.uncounted);
        let mut missing = audit::missing_heads(counted, uncounted, &records, named.as_slice());
        missing.extend(self.disappeared(&[]).map_err(said)?);
        let there = counted.iter().chain(uncounted).map(stored_heads::place);
        Ok(ranges(missing, &there.collect()))
    }

    fn note_damage(&self, reason: Option<&str>) -> Result<(), String> {
        if reason.is_none() {
            self.take_as_it_is().map_err(said)?;
        }
        self.anchors.note_damage(reason).map_err(said)
    }

    fn note_end(&self, head: &SignedHead) -> Result<(), String> {
        self.anchors.note_end(head).map_err(said)
    }

    fn thin(&self, named: &[HeadPosition]) -> Result<(), String> {
        let mut last = locked(&self.thinned_at);
        if last.is_some_and(|last| last.elapsed() < THIN_EVERY) {
            return Ok(());
        }
        let signing = host::keys::signing_key(&self.keys).map_err(said)?;
        let trusted = self.trusted().map_err(said)?;
        let thinner = thinning::Thinner {
            repository: &self.repository,
            signing: &signing,
            trusted: &trusted,
            now_micros: jiff::Timestamp::now().as_microsecond(),
        };
        let there = locked(&self.there).clone();
        let dropped = thinner.pass(&there, named, &mut |place| {
            locked(&self.there).remove(&place);
        });
        let dropped = dropped.map_err(said)?;
        *last = Some(Instant::now());
        if dropped > 0 {
            tracing::info!(heads = dropped, "old signed heads were thinned");
        }
        Ok(())
    }
}

fn gone(missing: &[HeadPosition]) -> String {
    let (epoch, size) = missing.first().copied().unwrap_or_default();
    let more = match missing.len() {
        0 | 1 => String::new(),
        all => format!(", and {} more", all - 1),
    };
    format!(
        "a signed head has disappeared from the repository: the one of epoch {epoch} at size {size}{more}"
    )
}

/// The anchor beside the keys, where it says that its head is in this repository.
pub fn anchored_in(
    file: &anchors::AnchorFile,
    repository: &Repository,
) -> Result<Option<LostHead>, Error> {
    if file.repository_id != repository.id() {
        return Ok(None);
    }
    Ok(file.head()?.map(|head| LostHead {
        epoch: head.claimed().epoch,
        size: head.claimed().size,
        hash: head.claimed().last_hash,
    }))
}

/// Each of them from the head before it on: what lay between, nobody knows any more.
fn ranges(mut missing: Vec<HeadPosition>, there: &BTreeSet<HeadPosition>) -> Vec<HeadRange> {
    missing.sort_unstable();
    missing.dedup();
    let mut ranges: Vec<HeadRange> = Vec::new();
    for (epoch, size) in missing {
        let before = there.range((epoch, 0)..(epoch, size)).next_back();
        let from = before.map_or(1, |(_, before)| before + 1);
        match ranges.last_mut() {
            Some(last) if last.epoch == epoch && (last.to >= from || ranges_full(last, from)) => {
                last.to = size;
            }
            _ => ranges.push(HeadRange {
                epoch,
                from,
                to: size,
            }),
        }
    }
    if ranges.len() <= RANGES_MAX {
        return ranges;
    }
    let mut whole: BTreeMap<u32, HeadRange> = BTreeMap::new();
    for range in ranges {
        let known = whole.entry(range.epoch).or_insert(range);
        known.to = known.to.max(range.to);
    }
    whole.into_values().collect()
}

/// One that begins right behind the other.
fn ranges_full(last: &HeadRange, from: u64) -> bool {
    last.to + 1 == from
}

/// What unsigned things in the repository say of the log.
pub fn evidence(repository: &Repository) -> Result<Vec<Evidence>, Error> {
    let mut all = Vec::new();
    if let Some(part) = repository::archive::newest_archived(repository, LOG)? {
        all.push(Evidence {
            what: format!("the audit archive ({})", part.name()),
            epoch: part.epoch,
            size: part.to,
            hash: part.last.parse().ok(),
        });
    }
    all.extend(tested(repository)?);
    Ok(all)
}

/// The newest restore test that came to a verdict.
fn tested(repository: &Repository) -> Result<Option<Evidence>, Error> {
    let store = repository.store();
    let objects = store.list("backups/").map_err(repository::Error::from)?;
    let of = |name: &str| name.split("/proof-").nth(1).map(str::to_owned);
    let newest = objects.iter().max_by_key(|object| of(&object.name));
    let Some(newest) = newest.filter(|object| of(&object.name).is_some()) else {
        return Ok(None);
    };
    let bytes = match store.get(&newest.name) {
        Err(StoreError::NotFound { .. }) => return Ok(None),
        other => other.map_err(repository::Error::from)?,
    };
    let record: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let checks = record["checks"].as_array().cloned().unwrap_or_default();
    let audited = checks
        .iter()
        .find(|check| check["name"] == "audit_log" && check["verdict"] == "passed");
    let entries = audited.and_then(|check| check["detail"]["verified"].as_u64());
    Ok(entries.map(|size| Evidence {
        what: format!("the restore test `{}`", newest.name),
        epoch: 0,
        size,
        hash: None,
    }))
}

fn is_thinned(
    repository: &Repository,
    keys: &[VerifyingKey],
    (epoch, size): HeadPosition,
) -> Result<bool, Error> {
    Ok(audit::was_thinned(
        &thinnings(repository, keys)?,
        epoch,
        size,
    ))
}

#[cfg(test)]
mod tests {
    use audit::{Chain, EpochOpening, SigningKey};
    use repository::store::MemoryStore;

    use super::*;
    use host::stored_heads::newest;

    #[test]
    fn a_start_reads_one_head_an_epoch() {
        let repository = Repository::init(Arc::new(MemoryStore::default())).unwrap();
        let key = SigningKey::generate().unwrap();
        let mut chain = Chain::new(LOG);
        chain
            .open_epoch(0, &EpochOpening::Created { timeline: 1 }, &key)
            .unwrap();
        for at in 1..=3 {
            let head = key.sign(&chain.head(at, 0).unwrap());
            let claimed = head.claimed();
            repository::heads::put_head(
                &repository,
                &log_name(),
                claimed.epoch,
                claimed.size,
                &head.to_json(),
            )
            .unwrap();
            let opening = EpochOpening::Recovery {
                timeline: 1,
                known_heads: &[],
                restore_id: "r",
                target_lsn: 0,
                known_lost: None,
                missing_heads: &[],
            };
            if at == 2 {
                chain.open_epoch(at, &opening, &key).unwrap();
            } else {
                chain
                    .append(audit::Kind::BackupRun, at, audit::Fields::new())
                    .unwrap();
            }
        }
        let keys = [key.verifying_key().clone()];
        let newest: Vec<HeadPosition> = newest(&repository, &keys)
            .unwrap()
            .iter()
            .map(stored_heads::place)
            .collect();
        assert_eq!(newest, [(1, 2), (2, 3)]);
        let stored = StoredHeads::read(&repository, &keys).unwrap();
        assert_eq!(stored.counted.len(), 3);
    }
}
