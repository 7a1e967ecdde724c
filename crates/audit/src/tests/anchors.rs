//! What surrounds the chain: openings that continue or reopen a log, links between heads, thinnings, and the verdict.

use super::Log;
use crate::thinning::DatedHead;
use crate::*;

const NOW: i64 = 10_000_000_000;
const MINUTE: i64 = 60_000_000;

fn lost(head: &Head) -> LostHead {
    LostHead {
        epoch: head.epoch,
        size: head.size,
        hash: head.last_hash,
    }
}

impl Log {
    /// Every head as it is in a repository, each with a link to the one before.
    fn linked(&self) -> Vec<SignedHead> {
        let mut previous = None;
        let mut all = Vec::new();
        for head in &self.heads {
            let signed = self.key.sign(head);
            all.push(match previous.replace(lost(head)) {
                Some(before) => signed.after(before, &self.key),
                None => signed,
            });
        }
        all
    }

    fn judged(&self, heads: usize, missing: &[(u32, u64)]) -> (Verdict, Report) {
        let mut report = self.verify();
        let verdict = report.anchored(&Anchoring {
            heads,
            missing,
            now_micros: NOW,
        });
        (verdict, report)
    }
}

#[test]
fn a_log_that_is_lost_whole_is_continued_in_an_epoch_above_all_that_are_known() {
    let before = Log::with(40, &[10, 40]);
    let mut after = Log::new();
    (after.chain, after.heads) = (Chain::new(1), before.heads.clone());
    let opening = EpochOpening::Continued {
        timeline: 2,
        known_heads: &before.heads,
        restore_id: "r-1",
        target_lsn: 0,
        known_lost: Some(40),
        missing_heads: &[],
    };
    assert_eq!(after.chain.next_epoch(6, &opening), 7);
    let opened = after
        .chain
        .open_epoch_above(6, NOW, &opening, &after.key)
        .unwrap();
    after.rows = vec![StoredEntry::from(&opened)];
    after.grow(5, &[5]);
    let (verdict, report) = after.judged(3, &[]);
    assert_eq!(verdict, Verdict::KnownLoss, "{report:?}");
    let opening = &report.epochs[0];
    assert_eq!(
        (
            opening.reason,
            opening.epoch,
            opening.position,
            report.lost_entries
        ),
        (Reason::Continued, 7, 1, 40)
    );
    let named: Vec<(u32, u64)> = report
        .known_losses
        .iter()
        .map(|l| (l.epoch, l.size))
        .collect();
    assert!(named.contains(&(1, 40)), "{named:?}");
    // It says so itself: the same log as a created one is none that these heads belong to.
    let again = Log {
        heads: before.heads.clone(),
        ..Log::with(5, &[])
    };
    assert_eq!(again.verify().verdict(), "cut");
}

#[test]
fn a_reopening_says_what_is_missing_and_why() {
    let mut log = Log::with(30, &[10, 20, 30]);
    let heads = log.linked();
    let (kept, gone) = ([heads[0].clone(), heads[2].clone()], (1, 20));
    let missing = missing_heads(&kept, &[], &[], &[]);
    assert_eq!(missing, [gone]);
    let (verdict, report) = log.judged(2, &missing);
    assert_eq!(verdict, Verdict::Cut);
    assert!(report.reason.unwrap().contains("epoch 1 at size 20"));

    let ranges = [HeadRange {
        epoch: 1,
        from: 12,
        to: 20,
    }];
    let opening = EpochOpening::Reopened {
        timeline: 1,
        known_heads: &log.heads.clone(),
        known_lost: Some(0),
        why: "a disk was cleaned by hand",
        actor: "ops",
        missing_heads: &ranges,
        missing_entries: &[],
    };
    let opened = log.chain.open_epoch(NOW, &opening, &log.key).unwrap();
    log.rows.push(StoredEntry::from(&opened));
    log.grow(33, &[31, 33]);
    let (verdict, report) = log.judged(2, &missing);
    assert_eq!(verdict, Verdict::KnownLoss, "{report:?}");
    let told = report.epochs.last().unwrap();
    assert_eq!(
        (told.reason, told.why.as_deref(), &told.missing_heads[..]),
        (
            Reason::Reopened,
            Some("a disk was cleaned by hand"),
            &ranges[..]
        )
    );
    // Another head that goes is not what was declared.
    assert_eq!(log.judged(1, &[(1, 10), gone]).0, Verdict::Cut);
}

/// A reader without the hashes of what is gone continues from the opening, before any head follows it.
#[test]
fn an_opening_brings_the_tree_of_entries_that_are_gone() {
    let lost = |heads: &[u64]| {
        let mut log = Log::with(30, heads);
        let stretch = Stretch { from: 10, to: 20 };
        log.rows
            .retain(|row| !stretch.holds(row.position.cast_unsigned()));
        let known = log.heads.clone();
        let opening = EpochOpening::Reopened {
            timeline: 1,
            known_heads: &known,
            known_lost: Some(11),
            why: "a table was emptied",
            actor: "ops",
            missing_heads: &[],
            missing_entries: &[stretch],
        };
        let opened = log.chain.open_epoch(NOW, &opening, &log.key).unwrap();
        log.rows.push(StoredEntry::from(&opened));
        log
    };
    let read = |log: &Log| {
        let mut verifier = Verifier::new(1, &log.heads, &log.keys());
        for row in &log.rows {
            verifier.push(row);
        }
        (verifier.chain(), verifier.finish())
    };
    let log = lost(&[8]);
    let (chain, report) = read(&log);
    assert_eq!(report.verdict(), "known_loss", "{report:?}");
    assert_eq!(chain.unwrap().frontier(), log.chain.frontier());
    // It says of a tree that is known what it is, or it is no opening of this log.
    let mut log = lost(&[8, 25]);
    let row = log.rows.last_mut().unwrap();
    let mut entry = Entry::parse(&row.bytes).unwrap();
    let peaks = entry.fields.get("recovered_peaks").unwrap();
    let (first, rest) = peaks.split_once(' ').unwrap();
    let other = format!("{} {rest}", Hash::of(&[first.as_bytes()]));
    entry.fields.remove("signature");
    entry.fields.set("recovered_peaks", other);
    crate::opening::sign(&mut entry, &log.key).unwrap();
    row.bytes = entry.to_bytes().unwrap();
    row.hash = Entry::hash_of(&row.bytes).as_bytes().to_vec();
    let (_, report) = read(&log);
    assert_eq!(report.verdict(), "rewritten", "{report:?}");
    assert!(report.reason.unwrap().contains("another tree"));
}

#[test]
fn entries_that_a_reopening_names_are_a_known_loss_and_no_others() {
    // The first entry is gone, one in the middle, several; heads lie in what is gone, at its end, and behind.
    for (gone, heads) in [
        (1..=4, vec![2, 30]),
        (12..=12, vec![12, 30]),
        (10..=20, vec![15, 20, 25, 30]),
        (10..=20, vec![30]),
    ] {
        let stretch = Stretch {
            from: *gone.start(),
            to: *gone.end(),
        };
        let reopened = |named: &[Stretch]| {
            let mut log = Log::with(30, &heads);
            log.rows
                .retain(|row| !stretch.holds(row.position.cast_unsigned()));
            let known = log.heads.clone();
            let opening = EpochOpening::Reopened {
                timeline: 1,
                known_heads: &known,
                known_lost: Some(stretch.entries()),
                why: "a table was emptied",
                actor: "ops",
                missing_heads: &[],
                missing_entries: named,
            };
            let opened = log.chain.open_epoch(NOW, &opening, &log.key).unwrap();
            log.rows.push(StoredEntry::from(&opened));
            log.grow(40, &[35, 40]);
            log
        };
        let log = reopened(&[stretch]);
        let report = log.verify();
        assert_eq!(report.verdict(), "known_loss", "{gone:?}: {report:?}");
        let told = report.epochs.last().unwrap();
        assert_eq!(
            (
                report.lost_entries,
                report.covered_to,
                &told.missing_entries[..]
            ),
            (stretch.entries(), 40, &[stretch][..])
        );
        // A neighbour more is not what was named, nor is one less.
        let next = i64::try_from(stretch.to + 1).unwrap();
        let mut more = reopened(&[stretch]);
        more.rows.retain(|row| row.position != next);
        let report = more.verify();
        assert_eq!(report.verdict(), "cut", "{report:?}");
        assert_eq!(
            report.first_bad.unwrap().position.cast_unsigned(),
            stretch.from
        );
        let wide = Stretch {
            from: stretch.from,
            to: stretch.to + 1,
        };
        for named in [&[][..], &[wide][..]] {
            assert_eq!(reopened(named).verify().verdict(), "cut", "{named:?}");
        }
        // What is between the loss and its opening is chained to that opening.
        let mut changed = reopened(&[stretch]);
        let row = changed.rows.iter_mut().find(|row| row.position == next);
        let row = row.unwrap();
        let mut entry = Entry::parse(&row.bytes).unwrap();
        entry.recorded_at_micros += 1;
        row.bytes = entry.to_bytes().unwrap();
        row.hash = Entry::hash_of(&row.bytes).as_bytes().to_vec();
        assert!(!changed.verify().is_sound());
        // And the head behind it says what the last missing one was.
        let mut other = reopened(&[stretch]);
        let signed = other.heads.iter_mut().find(|head| head.size >= stretch.to);
        signed.unwrap().last_hash = Hash::ZERO;
        assert!(!other.verify().is_sound());
    }
}

#[test]
fn what_stands_around_a_sound_chain_decides_the_verdict() {
    let mut log = Log::with(30, &[10, 30]);
    assert_eq!(log.judged(2, &[]).0, Verdict::Sound);
    log.heads.clear();
    assert_eq!(log.judged(0, &[]).0, Verdict::Unanchored);
    let mut log = Log::with(30, &[10, 20]);
    let (verdict, report) = log.judged(2, &[]);
    assert_eq!((verdict, report.covered_to), (Verdict::SoundUpTo, 20));
    assert!(report.uncovered_since_micros.is_some());
    // Entries of the last minute are not missed yet.
    log.clock = NOW - MINUTE + 20;
    let mut young = Log::with(3, &[3]);
    young.clock = NOW - MINUTE;
    young.quote();
    assert_eq!(young.judged(1, &[]).0, Verdict::Sound);
    assert_eq!(log.verify().verdict(), "sound");
    let mut gone = Log::with(30, &[30]);
    gone.rows.remove(11);
    assert_eq!(gone.judged(1, &[]).0, Verdict::Cut);
    gone.rows[4].hash[0] ^= 1;
    assert_eq!(gone.judged(1, &[]).0, Verdict::Rewritten);
}

#[test]
fn a_link_is_signed_and_stays_out_of_proofs() {
    let log = Log::with(20, &[10, 20]);
    let heads = log.linked();
    let json = heads[1].to_json();
    let read = SignedHead::from_json(&json).unwrap();
    assert_eq!(read, heads[1]);
    assert_eq!(read.previous(), Some(lost(&log.heads[0])));
    assert!(read.verify(&log.keys()).is_ok());
    let text = String::from_utf8(json).unwrap();
    let forged = text.replace("\"size\": 10", "\"size\": 9");
    assert_ne!(text, forged);
    let forged = SignedHead::from_json(forged.as_bytes()).unwrap();
    assert!(matches!(
        forged.verify(&log.keys()),
        Err(HeadError::Signature { .. })
    ));
    let plain = SignedHead::from_json(&log.key.sign(&log.heads[1]).to_json()).unwrap();
    assert_eq!((plain.previous(), plain), (None, read.without_link()));
}

#[test]
fn a_thinning_accounts_for_the_heads_of_its_range_and_for_no_others() {
    let every: Vec<u64> = (1..=60).collect();
    let log = Log::with(60, &every);
    let all = log.linked();
    let record = Thinning {
        log: 1,
        epoch: 1,
        from: 11,
        to: 40,
        at_micros: NOW,
        kept: vec![20, 30, 40],
    };
    let bytes = record.sign(&log.key);
    assert_eq!(Thinning::read(&bytes, &log.keys()).unwrap(), record);
    let other = SigningKey::generate().unwrap();
    let keys = [other.verifying_key().clone()];
    assert!(matches!(
        Thinning::read(&bytes, &keys),
        Err(ThinningError::UnknownKey(_))
    ));
    let edited = String::from_utf8(bytes)
        .unwrap()
        .replace("\"to\": 40", "\"to\": 41");
    assert_eq!(
        Thinning::read(edited.as_bytes(), &log.keys()),
        Err(ThinningError::CopyDisagrees)
    );

    let without = |gone: &[u64]| -> Vec<SignedHead> {
        let thinned = |size: u64| (11..=40).contains(&size) && !record.kept.contains(&size);
        let stays = |head: &&SignedHead| {
            let size = head.claimed().size;
            !thinned(size) && !gone.contains(&size)
        };
        all.iter().filter(stays).cloned().collect()
    };
    let thinnings = [record.clone()];
    let missing =
        |gone: &[u64]| missing_heads(&without(gone), &[], &thinnings, &[lost(&log.heads[59])]);
    assert_eq!(missing(&[]), []);
    assert_eq!(missing(&[20]), [(1, 20)]);
    assert_eq!(missing(&[5, 50]), [(1, 5), (1, 50)]);
    assert_eq!(missing(&[60]), [(1, 60)]);
    let unrecorded = missing_heads(&without(&[]), &[], &[], &[]);
    assert_eq!(unrecorded, [(1, 19), (1, 29), (1, 39)]);
    // A newer one about the same sizes lets go of more.
    let again = Thinning {
        at_micros: NOW + 1,
        kept: vec![40],
        ..record.clone()
    };
    assert_eq!(
        missing_heads(&without(&[20, 30]), &[], &[record.clone(), again], &[]),
        []
    );
}

#[test]
fn a_week_of_heads_is_thinned_to_hundreds_and_what_is_named_stays() {
    const SECOND: i64 = 1_000_000;
    let seconds = 7 * 86_400;
    let now = 1_000_000 * MINUTE;
    let heads: Vec<DatedHead> = (0..seconds)
        .map(|i| DatedHead {
            size: i as u64 + 1,
            at_micros: now - (seconds - i) * SECOND,
            pinned: i == 12_345,
        })
        .collect();
    let stays = staying(&heads, now);
    // An hour of seconds, a day of minutes, six days of quarters.
    assert!(
        (3_600 + 23 * 60 + 6 * 96..3_600 + 23 * 60 + 6 * 96 + 8).contains(&stays.len()),
        "{}",
        stays.len()
    );
    assert!(stays.contains(&12_346) && stays.contains(&(seconds as u64)));
    // What stays is what a later look lets stay too, until time has passed.
    let left: Vec<DatedHead> = heads
        .iter()
        .filter(|head| stays.binary_search(&head.size).is_ok())
        .copied()
        .collect();
    assert_eq!(staying(&left, now), stays);
}
