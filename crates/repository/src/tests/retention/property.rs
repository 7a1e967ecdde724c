//! Random plans and histories; expiry again and again, killed at any of its writes; after each, **every** backup that stays and every
//! moment that is promised is read back byte for byte.
//!
//! `BRE_RETENTION_SEEDS=10000` runs that many seeds instead of a few, from `BRE_RETENTION_SEED` (default 1) on.

use std::collections::BTreeSet;

use super::model::{Cluster, Moment};
use crate::retention::{Action, DAY_MICROS, HOUR_MICROS, Plan, Survey, execute, plan};
use crate::{Error, backup::BackupKind};

const SEEDS: u64 = 3;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[test]
fn no_restore_is_ever_broken() {
    let (first, many) = (
        setting("BRE_RETENTION_SEED", 1),
        setting("BRE_RETENTION_SEEDS", SEEDS),
    );
    let mut seen = Tally::default();
    for seed in first..first + many {
        let outcome = std::panic::catch_unwind(|| history(seed));
        match outcome {
            Ok(one) => seen.add(one),
            Err(panic) => {
                println!("BRE_RETENTION_SEED={seed} BRE_RETENTION_SEEDS=1");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("seeds {first} to {}: {seen:?}", first + many - 1);
    // A test that never expires, sweeps, crashes or recovers shows nothing.
    assert!(
        seen.backups_expired > many && seen.wal_expired > many,
        "{seen:?}"
    );
    assert!(seen.objects_deleted > 10 * many, "{seen:?}");
    assert!(seen.crashes > 0 && seen.shared > 0, "{seen:?}");
    assert!(
        seen.snapshots_expired > many && seen.snapshots_shared > many,
        "{seen:?}"
    );
    assert!(seen.snapshots_unchanged > 0, "{seen:?}");
}

#[derive(Debug, Default)]
struct Tally {
    backups_expired: u64,
    wal_expired: u64,
    objects_deleted: u64,
    crashes: u64,
    timelines: u64,
    moments_read: u64,
    backups_read: u64,
    /// Backups that refer to packs of others.
    shared: u64,
    snapshots_expired: u64,
    snapshots_read: u64,
    snapshots_shared: u64,
    snapshots_unchanged: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.backups_expired += other.backups_expired;
        self.wal_expired += other.wal_expired;
        self.objects_deleted += other.objects_deleted;
        self.crashes += other.crashes;
        self.timelines += other.timelines;
        self.moments_read += other.moments_read;
        self.backups_read += other.backups_read;
        self.shared += other.shared;
        self.snapshots_expired += other.snapshots_expired;
        self.snapshots_read += other.snapshots_read;
        self.snapshots_shared += other.snapshots_shared;
        self.snapshots_unchanged += other.snapshots_unchanged;
    }
}

/// Fifty days or so of a cluster's life.
fn history(seed: u64) -> Tally {
    let mut cluster = Cluster::new(seed);
    // Other than those of backups, so that neither hides behind the other's packs.
    cluster.rules.snapshot_micros = 10 * DAY_MICROS;
    let mut seen = Tally::default();
    // The same private key everywhere, or none: a host that only writes expires as well.
    let with_key = seed.is_multiple_of(2);
    // Days without a backup: the window is then replayed from far before it.
    let rare = seed.is_multiple_of(3);
    while cluster.days() < 50 {
        let hours = 1 + i64::try_from(cluster.dice.below(14)).unwrap();
        cluster.pass(hours * HOUR_MICROS);
        let len = 1 + cluster.dice.below(SEGMENT_THIRD);
        cluster.write(len);
        let happens = cluster.dice.below(48);
        if rare && happens < 24 && cluster.dice.below(12) > 0 {
            cluster.write(3 * SEGMENT_THIRD);
            continue;
        }
        match happens {
            0..=11 => drop(cluster.backup(BackupKind::Full).unwrap()),
            12..=23 => {
                let id = cluster.backup(BackupKind::Incremental).unwrap();
                seen.shared += u64::from(cluster.taken[&id].kind == BackupKind::Incremental);
            }
            24..=25 => cluster.killed_backup(),
            26 => cluster.hole(),
            27 => {
                cluster.recover();
                seen.timelines += 1;
            }
            28..=29 => cluster.restart_stream(),
            30..=31 => cluster.prove(),
            32 => wrong_clocks(&cluster),
            33..=38 => expire(&mut cluster, with_key, &mut seen),
            39..=44 => cluster.snapshot(),
            45 => cluster.killed_snapshot(),
            46 => cluster.verify_snapshot(),
            // Nothing happens for a while: the engine was off.
            _ => {
                let days = i64::try_from(cluster.dice.below(6)).unwrap();
                cluster.pass(days * DAY_MICROS);
            }
        }
    }
    expire(&mut cluster, with_key, &mut seen);
    seen.snapshots_shared = cluster.snapshots.shared;
    seen.snapshots_unchanged = cluster.snapshots.unchanged;
    seen
}

const SEGMENT_THIRD: u64 = super::super::SEGMENT / 3;

fn decide(cluster: &Cluster, with_key: bool) -> Plan {
    let key = with_key.then_some(&cluster.world.private);
    let survey = Survey::read(&cluster.world.repository, key).unwrap();
    plan(&survey, &cluster.clock(), &cluster.rules).unwrap()
}

/// Killed at a random write first, most of the time; then to the end.
fn expire(cluster: &mut Cluster, with_key: bool, seen: &mut Tally) {
    for _ in 0..cluster.dice.below(3) {
        let plan = decide(cluster, with_key);
        let at = cluster.dice.below(12);
        cluster.world.faults.crash_at_write(Some(at));
        let outcome = execute(&cluster.world.repository, &plan, &());
        cluster.world.faults.crash_at_write(None);
        seen.crashes += u64::from(outcome.is_err());
        check(cluster, seen, 3);
    }
    let plan = decide(cluster, with_key);
    for decision in &plan.decisions {
        assert!(!decision.reason.is_empty(), "{decision:?}");
        if decision.action == Action::Expire {
            match decision.subject {
                crate::retention::Subject::Backup => seen.backups_expired += 1,
                crate::retention::Subject::Snapshot => seen.snapshots_expired += 1,
                crate::retention::Subject::Wal => seen.wal_expired += decision.objects,
                _ => {}
            }
        }
    }
    let done = execute(&cluster.world.repository, &plan, &()).unwrap();
    seen.objects_deleted += done.deleted;
    check(cluster, seen, if done.deleted > 0 { usize::MAX } else { 3 });
    // What was deleted may free a wrap; beyond that nothing gets a second tombstone.
    for may_mark in [true, false] {
        let again = decide(cluster, with_key);
        let done = execute(&cluster.world.repository, &again, &()).unwrap();
        assert!(done.marked == 0 || may_mark, "{:#?}", again.decisions);
    }
}

/// The promises, from the model alone. Every backup is read where something was deleted, elsewhere so many.
fn check(cluster: &mut Cluster, seen: &mut Tally, backups_max: usize) {
    let live = cluster.live();
    for id in live.iter().take(backups_max) {
        cluster.check_backup(id);
        seen.backups_read += 1;
    }
    for (id, taken) in &cluster.taken {
        let age_max = match taken.kind {
            BackupKind::Full => cluster.rules.full_micros,
            BackupKind::Incremental => cluster.rules.incremental_micros,
        };
        let is_young = taken.at >= cluster.now - age_max;
        assert!(!is_young || live.contains(id), "{id} is young and gone");
    }
    let newest_proven = cluster
        .taken
        .iter()
        .filter(|(id, _)| cluster.proven.contains_key(*id))
        .max_by_key(|(_, taken)| taken.at);
    if let Some((id, _)) = newest_proven {
        assert!(live.contains(id), "{id} is the newest proven one and gone");
    }
    seen.snapshots_read += cluster.check_snapshots();
    check_moments(cluster, &live, seen);
}

/// Every moment of the window that could ever be restored still can; a few of them are read, the newest always.
fn check_moments(cluster: &mut Cluster, live: &BTreeSet<String>, seen: &mut Tally) {
    let until = cluster.moments.iter().map(|moment| moment.at).max();
    let from = until.unwrap_or(0) - cluster.rules.wal_micros;
    let promised: Vec<Moment> = cluster
        .moments
        .iter()
        .filter(|moment| moment.at >= from)
        .filter(|moment| cluster.is_restorable(moment, cluster.taken.values()))
        .copied()
        .collect();
    let mut chosen: Vec<usize> = (0..3).map(|_| pick(cluster, promised.len())).collect();
    chosen.push(promised.len().saturating_sub(1));
    for (number, moment) in promised.iter().enumerate() {
        let kept = live.iter().map(|id| (id, &cluster.taken[id]));
        let mut routes =
            kept.filter_map(|(id, taken)| Some((id, taken, cluster.route(taken, moment)?)));
        if !chosen.contains(&number) {
            assert!(routes.next().is_some(), "{moment:?} has no backup any more");
            continue;
        }
        // The backup that a restore chooses: the newest that is consistent by then.
        let (id, _, route) = routes
            .max_by_key(|(_, taken, _)| taken.at)
            .unwrap_or_else(|| panic!("{moment:?} has no backup any more"));
        cluster.check_wal(&route, &format!("{moment:?} from {id}"));
        seen.moments_read += 1;
    }
}

fn pick(cluster: &mut Cluster, len: usize) -> usize {
    usize::try_from(cluster.dice.below(len.max(1) as u64)).unwrap_or(0)
}

/// Each refused: without a plan nothing can be carried out.
fn wrong_clocks(cluster: &Cluster) {
    let survey = Survey::read(&cluster.world.repository, None).unwrap();
    let right = cluster.clock();
    let mut wrong = [right; 3];
    wrong[0].store_micros -= 40 * DAY_MICROS;
    wrong[1].postgres_micros = Some(right.now_micros - 6 * 60 * 1_000_000);
    wrong[2].now_micros = super::model::BEGINNING - DAY_MICROS;
    (wrong[2].store_micros, wrong[2].postgres_micros) = (wrong[2].now_micros, None);
    let is_new = cluster.taken.is_empty();
    for (number, clock) in wrong.iter().enumerate() {
        let refused = plan(&survey, clock, &cluster.rules);
        let is_refused = matches!(refused, Err(Error::Clock { .. }));
        assert!(is_refused || (number == 2 && is_new), "{clock:?}");
    }
}
