//! Old signed heads are let go of by whoever signs them (audit_log.md §5): first it is put on record which stay, then the others go.

use std::collections::{BTreeMap, BTreeSet};

use audit::{DatedHead, KEPT_MAX, SigningKey, Thinning, VerifyingKey, staying};
use host::{
    log::{LOG, log_name},
    stored_heads::{HeadPosition, thinning_records, thinnings},
};
use repository::{Repository, heads::ThinnedName};

use crate::error::Error;

/// Fewer are not worth a record.
const YOUNG_MIN: usize = 30;
const OLD_MIN: usize = 300;
/// So many go with one record.
const GOING_MAX: usize = 20_000;
/// A record that lists more is not written again with the next one.
const TAKEN_UP_MAX: usize = 2_000;
const DAY_MICROS: i64 = 86_400_000_000;

#[derive(Debug)]
pub struct Thinner<'a> {
    pub repository: &'a Repository,
    pub signing: &'a SigningKey,
    /// Whose earlier records count.
    pub trusted: &'a [VerifyingKey],
    pub now_micros: i64,
}

impl Thinner<'_> {
    /// All that is due, of heads with the times of their signing. Says how many went, and which as they go.
    pub fn pass(
        &self,
        there: &BTreeMap<HeadPosition, i64>,
        named: &[HeadPosition],
        gone: &mut dyn FnMut(HeadPosition),
    ) -> Result<u64, Error> {
        let mut pinned: BTreeSet<HeadPosition> = named.iter().copied().collect();
        let mut left = there.clone();
        let mut dropped = 0;
        let mut asked = false;
        for epoch in epochs(there) {
            loop {
                let of_epoch: Vec<(u64, i64)> = left
                    .range((epoch, 0)..=(epoch, u64::MAX))
                    .map(|((_, size), at)| (*size, *at))
                    .collect();
                let Some(going) = due(&of_epoch, epoch, &pinned, self.now_micros) else {
                    break;
                };
                // Only where something is due is it asked what must stay.
                if !asked {
                    pinned.extend(repository::heads::kept_heads(self.repository, &log_name())?);
                    asked = true;
                    continue;
                }
                self.record(epoch, &of_epoch, &going)?;
                for size in going {
                    repository::heads::drop_head(self.repository, &log_name(), (epoch, size))?;
                    left.remove(&(epoch, size));
                    gone((epoch, size));
                    dropped += 1;
                }
            }
        }
        Ok(dropped)
    }

    /// Before anything goes. A record that lies within the new one has done its work.
    fn record(&self, epoch: u32, heads: &[(u64, i64)], going: &BTreeSet<u64>) -> Result<(), Error> {
        let (Some(&first), Some(&last)) = (going.first(), going.last()) else {
            return Ok(());
        };
        // As far as they count: what a key says that had ended is not taken up, and stays as evidence.
        let records = thinning_records(self.repository, self.trusted)?;
        let is_small = |record: &Thinning| record.kept.len() <= TAKEN_UP_MAX;
        let is_whole = |name: &ThinnedName, record: &Thinning| {
            (record.epoch, record.from, record.to) == (name.epoch, name.from, name.to)
        };
        let is_touching =
            |record: &Thinning| record.epoch == epoch && record.from <= last && record.to >= first;
        let taken_up: Vec<&(ThinnedName, Thinning)> = records
            .iter()
            .filter(|(name, record)| {
                is_touching(record) && is_small(record) && is_whole(name, record)
            })
            .collect();
        let reached = taken_up.iter().map(|(_, record)| record);
        let from = reached.clone().map(|it| it.from).chain([first]).min();
        let to = reached.map(|it| it.to).chain([last]).max();
        let (from, to) = (from.unwrap_or(first), to.unwrap_or(last));
        let stays = |size: &u64| (from..=to).contains(size) && !going.contains(size);
        let kept: Vec<u64> = heads.iter().map(|(size, _)| *size).filter(stays).collect();
        if kept.len() > KEPT_MAX {
            return Err(Error::failed(format!(
                "{} heads of epoch {epoch} would have to be listed in one record",
                kept.len()
            )));
        }
        let record = Thinning {
            log: LOG,
            epoch,
            from,
            to,
            at_micros: self.now_micros,
            kept,
        };
        repository::heads::put_thinned(
            self.repository,
            &log_name(),
            epoch,
            (from, to),
            self.now_micros,
            &record.sign(self.signing),
        )?;
        let newest = |name: &ThinnedName| {
            (name.from, name.to) == (from, to)
                && name.object.ends_with(&format!("{:016x}", self.now_micros))
        };
        for (name, _) in taken_up.into_iter().filter(|(name, _)| !newest(name)) {
            repository::heads::drop_thinned(self.repository, name)?;
        }
        Ok(())
    }
}

fn epochs(there: &BTreeMap<HeadPosition, i64>) -> BTreeSet<u32> {
    there.keys().map(|(epoch, _)| *epoch).collect()
}

/// Sizes that go next: those older than a day once there are many, then those older than an hour.
fn due(
    heads: &[(u64, i64)],
    epoch: u32,
    pinned: &BTreeSet<HeadPosition>,
    now_micros: i64,
) -> Option<BTreeSet<u64>> {
    let newest = heads.last()?.0;
    let dated: Vec<DatedHead> = heads
        .iter()
        .map(|(size, at_micros)| DatedHead {
            size: *size,
            at_micros: *at_micros,
            pinned: *size == newest || pinned.contains(&(epoch, *size)),
        })
        .collect();
    let stays: BTreeSet<u64> = staying(&dated, now_micros).into_iter().collect();
    let going = dated.iter().filter(|head| !stays.contains(&head.size));
    let (old, young): (Vec<&DatedHead>, Vec<&DatedHead>) =
        going.partition(|head| now_micros.saturating_sub(head.at_micros) >= DAY_MICROS);
    let chosen = match (old.len() >= OLD_MIN, young.len() >= YOUNG_MIN) {
        (true, _) => old,
        (false, true) => young,
        (false, false) => return None,
    };
    Some(
        chosen
            .iter()
            .take(GOING_MAX)
            .map(|head| head.size)
            .collect(),
    )
}

/// A further repository lets go of what the first has let go of, once it has the record.
pub fn follow(repository: &Repository, keys: &[VerifyingKey]) -> Result<u64, Error> {
    let records = thinnings(repository, keys)?;
    if records.is_empty() {
        return Ok(0);
    }
    let there = repository::heads::head_sizes(repository, &log_name())?;
    let mut dropped = 0;
    for (epoch, size) in there {
        if audit::was_thinned(&records, epoch, size) {
            repository::heads::drop_head(repository, &log_name(), (epoch, size))?;
            dropped += 1;
        }
    }
    Ok(dropped)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use audit::{Chain, EpochOpening, Fields, Kind, LostHead, SignedHead, missing_heads};
    use repository::store::MemoryStore;

    use super::*;
    use host::stored_heads::StoredHeads;

    fn stored(repository: &Repository, keys: &[VerifyingKey]) -> Vec<SignedHead> {
        StoredHeads::read(repository, keys).unwrap().counted
    }

    const SECOND: i64 = 1_000_000;

    /// A head every half minute for three days, each with a link to the one before.
    fn three_days(now: i64) -> (Repository, SigningKey, BTreeMap<HeadPosition, i64>) {
        let repository = Repository::init(Arc::new(MemoryStore::default())).unwrap();
        let key = SigningKey::generate().unwrap();
        let mut chain = Chain::new(LOG);
        chain
            .open_epoch(0, &EpochOpening::Created { timeline: 1 }, &key)
            .unwrap();
        let (mut there, mut before) = (BTreeMap::new(), None);
        for at in (now - 3 * DAY_MICROS..now).step_by(30_000_000) {
            chain.append(Kind::BackupRun, at, Fields::new()).unwrap();
            let head = chain.head(at, 0).unwrap();
            let mut signed = key.sign(&head);
            if let Some(before) = before {
                signed = signed.after(before, &key);
            }
            before = Some(LostHead {
                epoch: head.epoch,
                size: head.size,
                hash: head.last_hash,
            });
            repository::heads::put_head(&repository, "1", head.epoch, head.size, &signed.to_json())
                .unwrap();
            there.insert((head.epoch, head.size), at);
        }
        (repository, key, there)
    }

    #[test]
    fn days_of_heads_become_hundreds_and_one_that_is_taken_away_is_still_missed() {
        let now = 1_000_000 * 60 * SECOND;
        let (repository, key, mut there) = three_days(now);
        let all = there.len();
        repository::heads::keep_head(&repository, "1", (1, 1001)).unwrap();
        let keys = [key.verifying_key().clone()];
        let thinner = |now_micros| Thinner {
            repository: &repository,
            signing: &key,
            trusted: &keys,
            now_micros,
        };
        let missing = || {
            let heads = stored(&repository, &keys);
            missing_heads(&heads, &[], &thinnings(&repository, &keys).unwrap(), &[])
        };
        // A day passes, with a pass every quarter of an hour.
        for quarter in 0..96 {
            let at = now + quarter * 900 * SECOND;
            let before = there.clone();
            thinner(at)
                .pass(&before, &[(1, 2002)], &mut |place| {
                    there.remove(&place);
                })
                .unwrap();
            assert!(quarter % 32 != 0 || missing().is_empty(), "{:?}", missing());
        }
        let sizes: BTreeSet<HeadPosition> = repository::heads::head_sizes(&repository, "1")
            .unwrap()
            .into_iter()
            .collect();
        assert_eq!(sizes, there.keys().copied().collect());
        // Three days of quarters, at most a few hundred that wait for their number, and the minutes of the last day.
        assert!(
            sizes.len() < 3 * 96 + OLD_MIN + 2,
            "{} of {all}",
            sizes.len()
        );
        assert!(sizes.contains(&(1, 1001)) && sizes.contains(&(1, 2002)));
        let records = repository::heads::thinned_names(&repository, "1").unwrap();
        assert!(records.len() < 12, "{}", records.len());
        assert_eq!(missing(), []);
        let taken = *sizes.iter().nth(100).unwrap();
        repository::heads::drop_head(&repository, "1", taken).unwrap();
        assert_eq!(missing(), [taken]);
        // Heads that are gone already do not go twice.
        assert_eq!(follow(&repository, &keys).unwrap(), 0);
    }

    #[test]
    fn a_copy_lets_go_of_what_the_first_let_go_of_once_it_has_the_record() {
        let now = 1_000_000 * 60 * SECOND;
        let (first, key, mut there) = three_days(now);
        let copy = Repository::init(Arc::new(MemoryStore::default())).unwrap();
        let keys = [key.verifying_key().clone()];
        for head in stored(&first, &keys) {
            let (epoch, size) = (head.claimed().epoch, head.claimed().size);
            repository::heads::put_head(&copy, "1", epoch, size, &head.to_json()).unwrap();
        }
        let all = there.len();
        let thinner = Thinner {
            repository: &first,
            signing: &key,
            trusted: &keys,
            now_micros: now,
        };
        let before = there.clone();
        let dropped = thinner.pass(&before, &[(1, 2002)], &mut |place| {
            there.remove(&place);
        });
        assert!(dropped.unwrap() > 1000);
        let sizes = |repository: &Repository| -> BTreeSet<HeadPosition> {
            let sizes = repository::heads::head_sizes(repository, "1").unwrap();
            sizes.into_iter().collect()
        };
        // Without a record nothing goes, nor with one that another key signed.
        assert_eq!(follow(&copy, &keys).unwrap(), 0);
        let carry = |signed_by: Option<&SigningKey>| {
            for name in repository::heads::thinned_names(&first, "1").unwrap() {
                let bytes = repository::heads::thinned(&first, &name).unwrap().unwrap();
                let bytes = match signed_by {
                    Some(other) => Thinning::read(&bytes, &keys).unwrap().sign(other),
                    None => bytes,
                };
                let range = (name.from, name.to);
                repository::heads::put_thinned(&copy, "1", name.epoch, range, now, &bytes).unwrap();
            }
        };
        carry(Some(&SigningKey::generate().unwrap()));
        follow(&copy, &keys).unwrap_err();
        assert_eq!(sizes(&copy).len(), all);
        for name in repository::heads::thinned_names(&copy, "1").unwrap() {
            repository::heads::drop_thinned(&copy, &name).unwrap();
        }
        carry(None);
        let gone = follow(&copy, &keys).unwrap();
        assert_eq!(gone, u64::try_from(all - there.len()).unwrap());
        assert_eq!(sizes(&copy), sizes(&first));
        assert!(sizes(&copy).contains(&(1, 2002)));
    }
}
