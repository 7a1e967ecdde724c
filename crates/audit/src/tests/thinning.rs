//! Heads may be thinned (format §5): the remaining heads find all that all of them found.

use super::Log;
use crate::*;

/// A head at every size, cut by a recovery in the middle of the first epoch's end.
fn log() -> Log {
    let every: Vec<u64> = (1..=60).collect();
    let mut log = Log::with(40, &every);
    log.recover(37, 2, Some(3));
    log.grow(60, &every);
    log
}

/// Of each epoch the first and the last few, and one in ten between.
fn thinned(log: &Log) -> Vec<Head> {
    let ends = |epoch: u32| {
        let of: Vec<u64> = log
            .heads
            .iter()
            .filter(|h| h.epoch == epoch)
            .map(|h| h.size)
            .collect();
        (of[0] + 2, of[of.len() - 1] - 2)
    };
    let stays = |head: &&Head| {
        let (first, last) = ends(head.epoch);
        head.size < first || head.size > last || head.size.is_multiple_of(10)
    };
    log.heads.iter().filter(stays).cloned().collect()
}

#[test]
fn a_sound_log_is_sound_by_thinned_heads_with_the_same_cover_and_losses() {
    let mut log = log();
    let all = log.verify();
    log.heads = thinned(&log);
    let few = log.verify();
    assert!(all.is_sound() && few.is_sound(), "{few:?}");
    assert!(few.heads_agreed * 2 < all.heads_agreed, "{few:?}");
    assert_eq!(
        (few.covered_to, few.verified),
        (all.covered_to, all.verified)
    );
    let newest = |report: &Report| report.known_losses.iter().map(|lost| lost.size).max();
    assert_eq!((newest(&few), newest(&all)), (Some(40), Some(40)));
}

#[test]
fn whatever_is_rewritten_where_heads_are_thin_is_found() {
    for at in 1..60 {
        let mut log = log();
        log.heads = thinned(&log);
        let row = &mut log.rows[at];
        let byte = row.bytes.len() - 1;
        row.bytes[byte] ^= 1;
        assert!(!log.verify().is_sound(), "entry {at}");
    }
    // A whole new chain, without a fault in itself.
    let mut log = log();
    log.heads = thinned(&log);
    let mut rewritten = Log::new();
    rewritten.clock = 77_000;
    rewritten.grow(60, &[]);
    rewritten.heads = log.heads;
    assert!(!rewritten.verify().is_sound());
}
