//! Each way to falsify a log, done to one with heads at 5, 10 and 15 of 18 entries, and the verdict of the
//! verification.

use proptest::prelude::*;

use super::Log;
use crate::*;

fn log() -> Log {
    Log::with(18, &[5, 10, 15])
}

/// The first bad place and the words that the reason must contain; entries before it are vouched for.
fn check(log: &Log, epoch: i64, position: i64, says: &str) {
    let report = log.verify();
    let reason = report.reason.clone().unwrap_or_default();
    assert_eq!(
        report.first_bad,
        Some(BadEntry { epoch, position }),
        "{reason}"
    );
    assert!(reason.contains(says), "{reason}");
    assert_eq!(report.verified, position as u64 - 1);
    assert!(!report.is_sound());
}

/// Writes the rows from `from` on again, so that chain and hashes are right again.
fn rechain(log: &mut Log, from: usize) {
    let mut previous = Hash::try_from(&log.rows[from - 1].hash[..]).unwrap();
    for (index, row) in log.rows.iter_mut().enumerate().skip(from) {
        let mut entry = Entry::parse(&row.bytes).unwrap();
        entry.previous = previous;
        entry.position = index as u64 + 1;
        row.position = index as i64 + 1;
        row.bytes = entry.to_bytes().unwrap();
        previous = Entry::hash_of(&row.bytes);
        row.hash = previous.as_bytes().to_vec();
    }
}

fn change_fee(row: &mut StoredEntry) {
    let mut entry = Entry::parse(&row.bytes).unwrap();
    entry.fields.set("outputs", "{\"total_fee\":0.0000}");
    row.bytes = entry.to_bytes().unwrap();
    row.hash = Entry::hash_of(&row.bytes).as_bytes().to_vec();
}

#[test]
fn an_untouched_log_is_sound() {
    let report = log().verify();
    assert_eq!(report.first_bad, None);
    assert_eq!(
        (
            report.entries,
            report.verified,
            report.heads_agreed,
            report.covered_to
        ),
        (18, 18, 3, 15)
    );
    assert_eq!(report.epochs.len(), 1);
    assert_eq!(report.epochs[0].reason, Reason::Created);
}

proptest! {
    /// Any bit of any row's bytes, hash, epoch or position.
    #[test]
    fn a_changed_bit(row in 0_usize..18, bit: prop::sample::Index) {
        let mut log = log();
        let stored = &mut log.rows[row];
        let bits = (stored.bytes.len() + stored.hash.len() + 16) * 8;
        let bit = bit.index(bits);
        let (byte, mask) = (bit / 8, 1_u8 << (bit % 8));
        let (bytes, hash) = (stored.bytes.len(), stored.hash.len());
        match byte {
            b if b < bytes => stored.bytes[b] ^= mask,
            b if b < bytes + hash => stored.hash[b - bytes] ^= mask,
            b if b < bytes + hash + 8 => stored.epoch ^= 1 << (bit - (bytes + hash) * 8),
            _ => stored.position ^= 1 << (bit - (bytes + hash + 8) * 8),
        }
        let report = log.verify();
        prop_assert!(!report.is_sound());
        prop_assert_eq!(report.verified, row as u64);
    }

    /// The same with the hash mended: the next entry, or the next head, still shows it, unless no head covers the entry
    /// yet and nothing follows it.
    #[test]
    fn a_changed_entry_with_its_hash_mended(row in 1_usize..17) {
        let mut log = log();
        change_fee(&mut log.rows[row]);
        let report = log.verify();
        prop_assert!(!report.is_sound());
        prop_assert!(report.verified <= row as u64 + 1);
    }

    #[test]
    fn a_rewritten_chain(from in 1_usize..15) {
        let mut log = log();
        change_fee(&mut log.rows[from]);
        rechain(&mut log, from + 1);
        let agreed = from as i64 / 5 * 5;
        check(&log, 1, agreed + 1, "rewritten");
    }

    #[test]
    fn any_other_order(first in 0_usize..18, second in 0_usize..18) {
        prop_assume!(first != second);
        let mut log = log();
        log.rows.swap(first, second);
        prop_assert!(!log.verify().is_sound());
        // With the positions put right as well.
        for (index, row) in log.rows.iter_mut().enumerate() {
            row.position = index as i64 + 1;
        }
        prop_assert!(!log.verify().is_sound());
    }
}

#[test]
fn an_entry_removed() {
    let mut cut = log();
    cut.rows.remove(6);
    check(&cut, 1, 7, "missing");
    let mut closed = log();
    closed.rows.remove(6);
    rechain(&mut closed, 6);
    check(&closed, 1, 6, "rewritten");
    let mut first = log();
    first.rows.remove(0);
    check(&first, 1, 1, "missing");
}

#[test]
fn an_entry_inserted() {
    let mut twice = log();
    let copy = twice.rows[6].clone();
    twice.rows.insert(7, copy);
    let report = twice.verify();
    assert_eq!(
        report.first_bad,
        Some(BadEntry {
            epoch: 1,
            position: 7
        })
    );
    assert_eq!((report.verified, report.entries), (7, 19));

    let mut fitted = log();
    let mut copy = fitted.rows[6].clone();
    change_fee(&mut copy);
    fitted.rows.insert(7, copy);
    rechain(&mut fitted, 7);
    check(&fitted, 1, 6, "rewritten");
}

#[test]
fn the_tail_cut() {
    for size in [0, 1, 9, 14] {
        let mut log = log();
        log.rows.truncate(size);
        check(&log, 1, size as i64 + 1, "the tail was cut");
    }
    let mut truncated = log();
    truncated.rows.clear();
    truncated.heads.clear();
    check(&truncated, 1, 1, "the log is empty");
}

/// The limit that the document states: what no head covers yet can be cut, or exchanged for something else, and the
/// report says how far the heads reach. The next head exposes it.
#[test]
fn entries_after_the_newest_head_are_chained_and_nothing_more() {
    let covered = |log: &Log, entries: u64| {
        let report = log.verify();
        assert!(report.is_sound());
        assert_eq!((report.entries, report.covered_to), (entries, 15));
        assert_eq!(report.uncovered_since_micros.is_some(), entries > 15);
    };
    let mut cut = log();
    cut.rows.truncate(15);
    covered(&cut, 15);
    let mut exchanged = log();
    exchanged.rows[15..].iter_mut().for_each(change_fee);
    rechain(&mut exchanged, 15);
    covered(&exchanged, 18);
    exchanged.sign_head();
    check(&exchanged, 1, 16, "rewritten");
}

/// The limits of somebody with the key: nothing here judges what an entry says, misses what was never recorded, or
/// knows the day.
#[test]
fn whoever_holds_the_key_can_lie_leave_out_and_date_back() {
    let (honest, mut changed) = (log(), log());
    // A fee that no policy gives, and one request that never was: the chain is written again from there, and heads are
    // signed for it.
    change_fee(&mut changed.rows[7]);
    changed.rows.remove(9);
    rechain(&mut changed, 7);
    let upto = |log: &Log, size: usize| {
        let rows = log.rows[..size].to_vec();
        Chain::resume(1, None, rows, &log.keys()).unwrap()
    };
    changed.heads = [5, 10, 15, 17]
        .map(|size| upto(&changed, size).head(0, 0).unwrap())
        .to_vec();
    assert_eq!(changed.verify().verdict(), "sound");
    // One head of before, kept elsewhere, convicts.
    changed.heads.push(honest.heads[2].clone());
    assert_eq!(changed.verify().verdict(), "rewritten");

    // A key that was stolen today signs a head of last year; its place in the log is what ends it.
    let year_micros = 365 * 86_400_000_000;
    let dated = honest.chain.head(-year_micros, 0).unwrap();
    let signed = honest.key.sign(&dated);
    let key = honest.key.verifying_key();
    assert_eq!(key.verify(&signed).unwrap().at_micros, -year_micros);
    let ended = key.clone().until(1, dated.size);
    ended.verify(&signed).unwrap_err();
    let earlier = upto(&honest, 10).head(0, 0).unwrap();
    ended.verify(&honest.key.sign(&earlier)).unwrap();
}

#[test]
fn a_wholly_rewritten_log() {
    let mut log = log();
    let mut other = Log::new();
    other.clock = 5_000_000;
    other.grow(18, &[]);
    log.rows = other.rows;
    check(&log, 1, 1, "rewritten");
    assert!(log.verify().reason.unwrap().contains("entries 1 to 5"));
}

#[test]
fn a_caller_can_reject_what_only_it_sees() {
    let log = log();
    let mut verifier = Verifier::new(1, &log.heads, &log.keys());
    for row in &log.rows {
        let entry = verifier.push(row);
        assert_eq!(entry.is_some(), row.position <= 7);
        if row.position == 7 {
            verifier.reject(1, 7, "its column client_id says other");
        }
    }
    assert_eq!(verifier.chain(), None);
    let report = verifier.finish();
    assert_eq!(
        report.first_bad,
        Some(BadEntry {
            epoch: 1,
            position: 7
        })
    );
    assert_eq!((report.entries, report.verified), (18, 6));
    assert_eq!(
        report.reason.as_deref(),
        Some("its column client_id says other")
    );
}

#[test]
fn a_verified_log_can_be_gone_on_with() {
    let log = log();
    let mut verifier = Verifier::new(1, &log.heads, &log.keys());
    log.rows.iter().for_each(|row| drop(verifier.push(row)));
    assert_eq!(verifier.chain(), Some(log.chain));
}

#[test]
fn heads_of_another_log_say_nothing_of_this_one() {
    let mut log = log();
    let mut other = log.heads[2].clone();
    (other.log, other.size) = (2, 99);
    log.heads.push(other);
    assert!(log.verify().is_sound());
    let report = verify(2, log.rows.clone(), &[], &log.keys());
    assert!(
        report
            .reason
            .unwrap()
            .contains("its log is 2, but its bytes say 1")
    );
}

#[test]
fn a_known_loss_is_reported_and_no_fault() {
    let mut log = log();
    log.recover(12, 2, Some(6));
    log.grow(20, &[13, 20]);
    let report = log.verify();
    assert_eq!(report.reason, None);
    assert_eq!(
        (report.verified, report.covered_to, report.heads_agreed),
        (20, 20, 4)
    );
    let hash = log.heads[2].last_hash;
    let lost = LostHead {
        epoch: 1,
        size: 15,
        hash,
    };
    assert_eq!(report.known_losses, [lost]);
    let opening = &report.epochs[1];
    assert_eq!(
        (opening.epoch, opening.position, opening.recovered_size),
        (2, 13, 12)
    );
    assert_eq!(
        (opening.known_lost, &opening.old_heads[..]),
        (Some(6), &[lost][..])
    );
    assert_eq!(opening.target_lsn.as_deref(), Some("1/2000"));
}

#[test]
fn a_loss_of_entries_that_no_head_was_signed_for_is_reported_all_the_same() {
    let mut log = log();
    log.recover(12, 2, Some(6));
    log.grow(20, &[20]);
    // The engine that lived on knew its end; the repository never held a head of it.
    log.heads.retain(|head| head.epoch > 1 || head.size <= 12);
    let report = log.verify();
    assert_eq!(report.reason, None);
    let told = (report.verdict(), report.lost_entries);
    assert_eq!(told, ("known_loss", 6));
    let lost = report
        .known_losses
        .iter()
        .map(|lost| (lost.epoch, lost.size));
    assert_eq!(lost.collect::<Vec<_>>(), [(1, 15)]);
}

#[test]
fn a_recovery_without_loss() {
    let mut log = log();
    log.recover(18, 2, Some(0));
    log.grow(25, &[25]);
    let report = log.verify();
    assert_eq!(
        (
            report.reason,
            report.known_losses.len(),
            report.heads_agreed
        ),
        (None, 0, 4)
    );
}

/// Back too far, then again from the older timeline to a later point; and twice in a row without a head between.
#[test]
fn recoveries_of_recoveries() {
    let mut log = log();
    let first_life = log.rows.clone();
    log.recover(4, 2, Some(14));
    log.grow(8, &[8]);
    log.rows = first_life;
    log.recover(18, 3, Some(4));
    log.grow(22, &[21]);
    log.recover(20, 4, None);
    log.recover(20, 5, None);
    log.grow(24, &[24]);
    let report = log.verify();
    assert_eq!(report.reason, None);
    let epochs: Vec<_> = report
        .epochs
        .iter()
        .map(|e| (e.epoch, e.position))
        .collect();
    assert_eq!(epochs, [(1, 1), (3, 19), (5, 21)]);
    let lost: Vec<_> = report
        .known_losses
        .iter()
        .map(|h| (h.epoch, h.size))
        .collect();
    assert_eq!(lost, [(2, 8), (3, 21)]);
    assert_eq!(report.heads_agreed, 4);
}

#[test]
fn heads_of_several_epochs_left_behind_are_all_named() {
    let mut log = log();
    log.recover(12, 2, None);
    log.grow(20, &[20]);
    log.recover(3, 3, None);
    let report = log.verify();
    assert_eq!(report.reason, None);
    let lost: Vec<_> = report
        .known_losses
        .iter()
        .map(|h| (h.epoch, h.size))
        .collect();
    assert_eq!(lost, [(1, 5), (1, 10), (1, 15), (2, 20)]);
    let opening = Entry::parse(&log.rows[3].bytes).unwrap();
    let abandoned = opening.fields.get("abandoned").unwrap();
    assert_eq!(abandoned, format!("1:15:{}", log.heads[2].last_hash));
}

/// Two short lives are given up for the first, longer one: their heads are smaller than what is recovered, and named
/// all the same.
#[test]
fn heads_of_shorter_epochs_left_behind_are_named_too() {
    let mut log = log();
    let first_life = log.rows.clone();
    log.recover(4, 2, None);
    log.grow(8, &[8]);
    log.recover(8, 3, None);
    log.grow(11, &[11]);
    log.rows = first_life;
    log.recover(18, 4, None);
    let report = log.verify();
    assert_eq!(report.reason, None);
    let lost: Vec<_> = report
        .known_losses
        .iter()
        .map(|h| (h.epoch, h.size))
        .collect();
    assert_eq!(lost, [(2, 8), (3, 11)]);
}

/// Who can write to the database but not sign, and wants to pass a cut tail off as a recovery.
#[test]
fn a_forged_opening() {
    let forged_with = |key: &SigningKey, change: fn(&mut Entry)| {
        let mut log = log();
        log.rows.truncate(12);
        log.chain = Chain::resume(1, None, log.rows.clone(), &log.keys()).unwrap();
        let opening = EpochOpening::Recovery {
            timeline: 2,
            known_heads: &log.heads,
            restore_id: "r-1",
            target_lsn: 1,
            known_lost: None,
            missing_heads: &[],
        };
        let sealed = log.chain.open_epoch(1, &opening, key).unwrap();
        let mut entry = sealed.entry;
        change(&mut entry);
        let bytes = entry.to_bytes().unwrap();
        let hash = Entry::hash_of(&bytes).as_bytes().to_vec();
        log.rows.push(StoredEntry {
            epoch: i64::from(entry.epoch),
            position: 13,
            bytes,
            hash,
        });
        log
    };
    let own = super::key();
    assert!(
        forged_with(&own, |_| {}).verify().is_sound(),
        "the same, signed"
    );
    let stranger = SigningKey::generate().unwrap();
    check(
        &forged_with(&stranger, |_| {}),
        2,
        13,
        "not among the trusted keys",
    );
    let claims = |e: &mut Entry| {
        e.fields.set("key_id", super::key().key_id().to_string());
    };
    check(
        &forged_with(&stranger, claims),
        2,
        13,
        "its signature is false",
    );
    check(
        &forged_with(&own, |e| {
            e.fields.remove("signature");
        }),
        2,
        13,
        "signature",
    );
    check(
        &forged_with(&own, |e| {
            e.fields.set("known_lost", "0");
        }),
        2,
        13,
        "signature is false",
    );
    check(
        &forged_with(&own, |e| e.recorded_at_micros += 1),
        2,
        13,
        "signature is false",
    );
    check(
        &forged_with(&own, |e| e.epoch = 3),
        3,
        13,
        "signature is false",
    );
}

/// A true opening, but taken to another place in the log.
#[test]
fn an_opening_elsewhere() {
    let mut log = log();
    log.recover(12, 2, None);
    let opening = log.rows.pop().unwrap();
    log.rows.truncate(8);
    let mut entry = Entry::parse(&opening.bytes).unwrap();
    entry.position = 9;
    entry.previous = Hash::try_from(&log.rows[7].hash[..]).unwrap();
    let bytes = entry.to_bytes().unwrap();
    let hash = Entry::hash_of(&bytes).as_bytes().to_vec();
    log.rows.push(StoredEntry {
        epoch: 2,
        position: 9,
        bytes,
        hash,
    });
    check(&log, 2, 9, "signature is false");
}

#[test]
fn an_epoch_without_an_opening() {
    let mut log = log();
    for row in &mut log.rows[12..] {
        let mut entry = Entry::parse(&row.bytes).unwrap();
        entry.epoch = 2;
        row.epoch = 2;
        row.bytes = entry.to_bytes().unwrap();
    }
    rechain(&mut log, 12);
    check(&log, 2, 13, "no opening ends epoch 1");
}

/// The recovery's own opening and all after it removed again: its heads remain.
#[test]
fn a_recovery_undone() {
    let mut log = log();
    let before = log.rows.clone();
    log.recover(16, 2, None);
    log.grow(18, &[18]);
    log.rows = before;
    check(&log, 2, 19, "the tail was cut");
}

/// A head signed after the recovery had looked, by an engine that should have been dead.
#[test]
fn a_head_that_the_recovery_did_not_know() {
    let mut log = log();
    let mut late = log.chain.clone();
    log.recover(16, 2, None);
    log.grow(25, &[25]);
    late.append(Kind::Quote, 1, Fields::new()).unwrap();
    log.heads.push(late.head(1, 1).unwrap());
    check(
        &log,
        1,
        19,
        "rewritten: a head was signed for epoch 1 at size 19",
    );
}

/// Two heads of one epoch and size that differ: one of them is not of this log.
#[test]
fn two_histories_under_one_number() {
    let mut log = log();
    let mut other = log.heads[2].clone();
    other.last_hash = Hash::ZERO;
    log.heads.push(other);
    let report = log.verify();
    assert!(
        report
            .reason
            .unwrap()
            .contains("rewritten: the head signed for epoch 1 at size 15")
    );
    let mut recovered = super::Log::with(18, &[5, 15]);
    recovered.recover(12, 2, None);
    let mut other = recovered.heads[1].clone();
    other.last_hash = Hash::ZERO;
    recovered.heads.push(other);
    assert!(!recovered.verify().is_sound());
}

/// Even the key's holder cannot describe a log other than the one before the opening.
#[test]
fn an_opening_that_does_not_fit_what_precedes_it() {
    for (field, value, says) in [
        (
            "recovered_size",
            "11",
            "its recovered_size is not what precedes it",
        ),
        ("recovered_size", "012", "no valid field 'recovered_size'"),
        (
            "recovered_hash",
            &"0".repeat(64),
            "its recovered_hash is not what precedes it",
        ),
        ("old_epoch", "2", "no valid field 'old_epoch'"),
        ("abandoned", "1:15", "no valid field 'abandoned'"),
        ("known_lost", "some", "no valid field 'known_lost'"),
        (
            "reason",
            "created",
            "may stand at position 1 of epoch 1 only",
        ),
        ("reason", "boredom", "no valid field 'reason'"),
    ] {
        let mut log = log();
        log.recover(12, 2, None);
        let row = &mut log.rows[12];
        let mut entry = Entry::parse(&row.bytes).unwrap();
        entry.fields.set(field, value);
        entry.fields.remove("signature");
        crate::opening::sign(&mut entry, &log.key).unwrap();
        row.bytes = entry.to_bytes().unwrap();
        row.hash = Entry::hash_of(&row.bytes).as_bytes().to_vec();
        check(&log, 2, 13, says);
    }
}
