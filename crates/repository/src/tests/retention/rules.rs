//! Each rule by itself.

use super::super::*;
use super::model::{Cluster, Moment};
use crate::references::pack_list::listed;
use crate::references::{check_present, packs_marked_for_deletion, record_references};
use crate::retention::{
    self, Action, Clock, DAY_MICROS, Decision, HOUR_MICROS, Plan, Subject, Survey, clear_hold,
    execute, holds, plan, set_hold,
};
use crate::store::{LockMode, LockPolicy, Store};

fn decide(cluster: &Cluster) -> Plan {
    let survey = Survey::read(&cluster.world.repository, None).unwrap();
    plan(&survey, &cluster.clock(), &cluster.rules).unwrap()
}

fn run(cluster: &Cluster) -> crate::retention::ExpiryOutcome {
    execute(&cluster.world.repository, &decide(cluster), &()).unwrap()
}

fn about<'a>(plan: &'a Plan, subject: Subject, which: &str) -> &'a Decision {
    plan.decisions
        .iter()
        .find(|decision| decision.subject == subject && decision.which.contains(which))
        .unwrap_or_else(|| panic!("nothing about {which}: {:#?}", plan.decisions))
}

/// A full backup more than a month ago and one more than a week ago: the first is needed for nothing any more.
fn old_and_new(cluster: &mut Cluster) -> (String, String) {
    let old = cluster.backup(BackupKind::Full).unwrap();
    cluster.write(3 * SEGMENT);
    cluster.wait_until_sealed();
    cluster.pass(40 * DAY_MICROS);
    let new = cluster.backup(BackupKind::Full).unwrap();
    cluster.pass(8 * DAY_MICROS);
    cluster.write(10);
    (old, new)
}

/// One a day.
fn fulls(cluster: &mut Cluster, days: i64) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..days {
        ids.push(cluster.backup(BackupKind::Full).unwrap());
        cluster.write(SEGMENT);
        cluster.wait_until_sealed();
        cluster.pass(DAY_MICROS - HOUR_MICROS / 2);
    }
    ids
}

#[test]
fn the_guides_table() {
    let mut cluster = Cluster::new(1);
    let mut ids = fulls(&mut cluster, 33);
    cluster.pass(-HOUR_MICROS);
    ids.push(cluster.backup(BackupKind::Incremental).unwrap());
    let first = decide(&cluster);
    let reason = |id: &str| &about(&first, Subject::Backup, id).reason;
    assert_eq!(reason(&ids[0]), "full older than 30 days");
    assert_eq!(reason(&ids[10]), "full younger than 30 days");
    assert_eq!(
        reason(&ids[33]),
        "newest complete backup, and none is proven"
    );
    assert!(
        reason(&ids[25]).starts_with("the window of 7 days"),
        "{}",
        reason(&ids[25])
    );
    let pinned = format!("pinned by backup {} until it is consistent", ids[10]);
    let wal = first.decisions.iter().filter(|d| d.subject == Subject::Wal);
    let pins: Vec<&Decision> = wal.filter(|d| d.reason == pinned).collect();
    assert_eq!(
        (pins.len(), pins[0].action),
        (1, Action::Keep),
        "{:#?}",
        first.decisions
    );

    run(&cluster);
    assert_eq!(cluster.live().len(), 34 - 3);
    let list = catalogue(&cluster.world.repository).unwrap().backups;
    assert_eq!(list[0].state, BackupState::Expiring);
    let before = cluster.world.names("packs/").len();
    assert_eq!(run(&cluster).deleted, 0, "the grace is not over");
    cluster.pass(DAY_MICROS + 1);
    assert!(run(&cluster).deleted > 8);
    assert!(cluster.world.names("packs/").len() < before);
    assert!(
        cluster
            .world
            .names(&format!("backups/{}", ids[0]))
            .is_empty()
    );
    for id in cluster.live() {
        cluster.check_backup(&id);
    }
}

/// A full disk takes no mark before something is gone.
#[test]
fn a_full_repository_can_be_emptied_what_is_due_goes_before_anything_is_written() {
    let mut cluster = Cluster::new(3);
    let ids = fulls(&mut cluster, 33);
    assert!(run(&cluster).marked > 0);
    cluster.pass(DAY_MICROS + 1);
    let plan = decide(&cluster);
    let count = |plan: &Plan, action| {
        let all = plan.decisions.iter();
        all.filter(|decision| decision.action == action).count()
    };
    assert!(count(&plan, Action::Sweep) > 0 && count(&plan, Action::Expire) > 0);
    cluster.world.faults.set_full(true);
    let refused = execute(&cluster.world.repository, &plan, &()).unwrap_err();
    assert!(matches!(
        refused,
        Error::Store(StoreError::Full {
            wanted: Some(1..),
            ..
        })
    ));
    let left = cluster.world.names(&format!("backups/{}", ids[0]));
    assert_eq!(left, [""; 0]);

    // At once, and with nothing to write: WAL that nothing needs. All else keeps its grace.
    cluster.rules.wal_at_once = true;
    cluster.pass(20 * DAY_MICROS);
    let packs = cluster.world.names("packs/");
    let wal = cluster.world.names("wal/").len();
    let mut plan = decide(&cluster);
    assert!(!plan.at_once.is_empty());
    plan.tombstones.clear();
    let done = execute(&cluster.world.repository, &plan, &()).unwrap();
    assert!(done.deleted as usize >= plan.at_once.len());
    assert!(cluster.world.names("wal/").len() < wal);
    let is_kept = |pack: &&String| !plan.sweeps.iter().any(|sweep| sweep.objects.contains(pack));
    let kept: Vec<&String> = packs.iter().filter(is_kept).collect();
    assert_eq!(
        cluster.world.names("packs/").iter().collect::<Vec<_>>(),
        kept
    );
    for id in cluster.live() {
        cluster.check_backup(&id);
    }
}

/// A policy without `s3:DeleteObject`: told once, counted, and what may go is marked all the same.
#[test]
fn a_store_that_refuses_to_delete_stops_no_expiry() {
    let mut cluster = Cluster::new(4);
    fulls(&mut cluster, 33);
    run(&cluster);
    cluster.pass(DAY_MICROS + 1);
    let plan = decide(&cluster);
    cluster.world.faults.set_deny_delete(true);
    let writes = cluster.world.faults.writes();
    let done = execute(&cluster.world.repository, &plan, &()).unwrap();
    assert!(done.marked > 0, "{done:?}");
    assert_eq!(done.deleted, 0);
    let due: usize = plan.sweeps.iter().map(|sweep| sweep.objects.len()).sum();
    assert_eq!(done.refused as usize, due);
    let reason = done.refused_reason.unwrap();
    assert!(reason.contains("deletion denied"), "{reason}");
    let asked = cluster.world.faults.writes() - writes;
    assert_eq!(
        asked as usize,
        1 + plan.tombstones.len(),
        "one delete was tried"
    );
    cluster.world.faults.set_deny_delete(false);
    assert!(run(&cluster).deleted > 0);
}

/// Weeks later nothing lies around that nobody needs: not of killed backups, not of keys, not of tombstones.
#[test]
fn nothing_is_left_behind() {
    let mut cluster = Cluster::new(7);
    fulls(&mut cluster, 5);
    for _ in 0..6 {
        cluster.killed_backup();
    }
    cluster.hole();
    let before = fulls(&mut cluster, 2);
    cluster.pass(60 * DAY_MICROS);
    let newest = cluster.backup(BackupKind::Full).unwrap();
    cluster.wait_until_sealed();
    cluster.pass(9 * DAY_MICROS);
    cluster.restart_stream();
    cluster.write(10);
    for _ in 0..6 {
        run(&cluster);
        cluster.pass(2 * DAY_MICROS);
    }
    run(&cluster);
    assert_eq!(cluster.live(), [newest.clone()].into());
    assert!(!before.contains(&newest));
    assert_eq!(cluster.world.names("tombstones/"), [""; 0]);
    assert_eq!(cluster.world.names("holes/"), [""; 0]);
    assert!(
        cluster
            .world
            .names("backups/")
            .iter()
            .all(|name| name.contains(&newest))
    );
    let survey = Survey::read(&cluster.world.repository, None).unwrap();
    let packs = survey.references[&newest].clone().unwrap();
    assert_eq!(cluster.world.names("packs/").len(), packs.len());
    let spans = cluster.world.names("wal/").len() + cluster.world.names("tail/").len();
    assert!(spans <= 4, "{:?}", cluster.world.names(""));
    let wraps = cluster.world.names("wraps/").len();
    assert!(
        wraps <= 1 + spans,
        "{wraps} wraps for {spans} spans and a backup"
    );
    cluster.check_backup(&newest);
}

/// A stream that stands still moves no window; a clock that runs ahead together with all others does not either.
#[test]
fn the_window_is_counted_from_the_newest_that_is_here() {
    let mut cluster = Cluster::new(3);
    fulls(&mut cluster, 10);
    let (moments, wal) = (cluster.moments.clone(), cluster.world.names("wal/").len());
    cluster.pass(365 * DAY_MICROS);
    run(&cluster);
    cluster.pass(2 * DAY_MICROS);
    run(&cluster);
    assert!(cluster.world.names("wal/").len() < wal);
    check_days_before_the_last(&cluster, &moments);
}

/// The stream stands still for days, and a backup was taken nevertheless: until its WAL is here it brings nothing back.
#[test]
fn a_backup_that_waits_for_its_wal_moves_no_window() {
    let mut cluster = Cluster::new(5);
    fulls(&mut cluster, 40);
    let moments = cluster.moments.clone();
    cluster.pass(28 * DAY_MICROS);
    cluster.waiting_backup();
    cluster.pass(2 * HOUR_MICROS);
    run(&cluster);
    check_days_before_the_last(&cluster, &moments);
}

fn check_days_before_the_last(cluster: &Cluster, moments: &[Moment]) {
    let live: Vec<_> = cluster
        .live()
        .iter()
        .map(|id| cluster.taken[id].clone())
        .collect();
    let newest = moments.last().unwrap().at;
    for moment in moments
        .iter()
        .filter(|moment| moment.at >= newest - 7 * DAY_MICROS)
    {
        assert!(cluster.is_restorable(moment, live.iter()), "{moment:?}");
    }
}

#[test]
fn a_wrong_clock_says_whose() {
    let mut cluster = Cluster::new(1);
    fulls(&mut cluster, 1);
    let survey = Survey::read(&cluster.world.repository, None).unwrap();
    let check = |clock: Clock, says: &str| {
        let error = plan(&survey, &clock, &cluster.rules)
            .unwrap_err()
            .to_string();
        assert!(error.contains(says), "{error}");
    };
    let right = cluster.clock();
    let minutes = |n: i64| n * 60 * 1_000_000;
    check(
        Clock {
            store_micros: right.now_micros - minutes(6),
            ..right
        },
        "the store's are 360 s apart",
    );
    check(
        Clock {
            postgres_micros: Some(right.now_micros + minutes(6)),
            ..right
        },
        "PostgreSQL's are 360 s apart",
    );
    let early = right.now_micros - 2 * DAY_MICROS;
    let set_back = Clock {
        now_micros: early,
        store_micros: early,
        postgres_micros: Some(early),
    };
    check(set_back, "before the newest manifest");
    assert!(
        plan(
            &survey,
            &Clock {
                postgres_micros: Some(right.now_micros + minutes(4)),
                ..right
            },
            &cluster.rules
        )
        .is_ok()
    );
}

/// Jobs that put other manifests run beside an expiry.
#[test]
fn a_backup_that_ends_while_it_is_decided_makes_no_clock_wrong() {
    let mut cluster = Cluster::new(2);
    fulls(&mut cluster, 1);
    let (repository, rules) = (cluster.world.repository.clone(), cluster.rules);
    let decided = retention::decide(&repository, None, &rules, || {
        let now = cluster.clock();
        cluster.pass(1_000_000);
        fulls(&mut cluster, 1);
        Ok::<_, Error>(now)
    });
    let plan = decided.unwrap();
    let backups = plan.decisions.iter();
    let backups = backups.filter(|decision| decision.subject == Subject::Backup);
    assert_eq!((backups.count(), cluster.taken.len()), (1, 2));
}

#[test]
fn the_stores_clock_is_read_and_no_probe_stays() {
    let world = World::new();
    world.memory.set_clock(Some(77));
    let clock = Clock::read(&world.repository, None).unwrap();
    assert_eq!((clock.store_micros, clock.postgres_micros), (77, None));
    assert_eq!(world.names("probes/"), [""; 0]);
}

/// Packs are let go of by lists alone; where one is damaged or missing, only the key can tell, and without it none goes.
#[test]
fn without_a_list_no_pack_goes_unless_the_key_is_here() {
    for missing in [true, false] {
        let mut cluster = Cluster::new(4);
        let (old, new) = old_and_new(&mut cluster);
        let list = cluster.world.only(&format!("backups/{new}/packs-"));
        match missing {
            true => cluster.world.memory.delete(&list).unwrap(),
            false => cluster.world.memory.tamper(&list, |bytes| bytes[9] ^= 1),
        }
        let keyless = decide(&cluster);
        let packs = about(&keyless, Subject::Packs, "");
        assert_eq!(packs.action, Action::Keep);
        assert!(
            packs.reason.contains(&new) && packs.reason.contains("private key"),
            "{}",
            packs.reason
        );
        assert_eq!(
            about(&keyless, Subject::Backup, &old).action,
            Action::Expire
        );
        let private = Some(&cluster.world.private);
        let survey = Survey::read(&cluster.world.repository, private).unwrap();
        assert_eq!(
            survey.references[&new]
                .as_ref()
                .map(|packs| packs.is_empty()),
            Some(false)
        );
    }
}

#[test]
fn an_unreadable_manifest_is_left_alone_with_its_packs() {
    let mut cluster = Cluster::new(4);
    let (old, _) = old_and_new(&mut cluster);
    let manifest = format!("backups/{old}/manifest");
    cluster
        .world
        .memory
        .tamper(&manifest, |bytes| bytes[30] ^= 1);
    let packs = cluster.world.names("packs/");
    run(&cluster);
    cluster.pass(3 * DAY_MICROS);
    run(&cluster);
    assert_eq!(cluster.world.names("packs/"), packs);
    cluster
        .world
        .memory
        .tamper(&manifest, |bytes| bytes[30] ^= 1);
    cluster.check_files(&old);
}

/// A new backup may count on a pack that has a tombstone only while its grace is young; and then the pack stays.
#[test]
fn references_are_rechecked_before_a_manifest() {
    let mut cluster = Cluster::new(5);
    let now = crate::store::now_micros();
    cluster.now = now - 50 * DAY_MICROS;
    cluster.pass(0);
    let (old, new) = old_and_new(&mut cluster);
    let survey = Survey::read(&cluster.world.repository, None).unwrap();
    let packs = |id: &str| survey.references[id].clone().unwrap();
    let pack = packs(&old).difference(&packs(&new)).next().unwrap().clone();
    // Tombstones of half a day ago by the real clock: in the second half of their grace.
    cluster.now = now - DAY_MICROS / 2 - HOUR_MICROS;
    cluster.pass(0);
    run(&cluster);
    let repository = &cluster.world.repository;
    let packs = vec![pack.clone()];
    assert!(
        packs_marked_for_deletion(repository)
            .unwrap()
            .contains(&pack)
    );
    let error = check_present(repository, &packs).unwrap_err();
    assert!(error.to_string().contains(&pack), "{error}");
    assert!(record_references(repository, &old, &packs).is_err());

    // In the first half it is taken, and the sweep sees the reference.
    for name in cluster.world.names("tombstones/packs.") {
        cluster.world.memory.delete(&name).unwrap();
    }
    cluster.now = now;
    cluster.pass(0);
    run(&cluster);
    check_present(&cluster.world.repository, &packs).unwrap();
    let late = cluster.backup(BackupKind::Full).unwrap();
    record_references(&cluster.world.repository, &late, &packs).unwrap();
    cluster.pass(2 * DAY_MICROS);
    run(&cluster);
    assert!(
        cluster
            .world
            .names("packs/")
            .contains(&format!("packs/{pack}"))
    );
    let missing = vec!["00112233445566778899aabbccddeeff".to_owned()];
    assert!(check_present(&cluster.world.repository, &missing).is_err());
}

/// A backup that came between the decision and the deed stops the sweep.
#[test]
fn a_plan_does_not_outlive_a_new_backup() {
    let mut cluster = Cluster::new(6);
    old_and_new(&mut cluster);
    run(&cluster);
    cluster.pass(2 * DAY_MICROS);
    let old = decide(&cluster);
    fulls(&mut cluster, 1);
    let all =
        |cluster: &Cluster| ["tombstones/", "packs/", "backups/"].map(|p| cluster.world.names(p));
    let before = all(&cluster);
    let error = execute(&cluster.world.repository, &old, &()).unwrap_err();
    assert!(matches!(error, Error::PlanIsOld { .. }), "{error}");
    assert_eq!(before, all(&cluster));
}

/// Whoever signs them thins them, and says which went.
#[test]
fn expiry_leaves_signed_heads_and_what_lies_beside_them_alone() {
    let mut cluster = Cluster::new(8);
    fulls(&mut cluster, 1);
    for size in 1..=300 {
        cluster.pass(5_000_000);
        put_head(&cluster.world.repository, "1", 1, size, b"{}").unwrap();
    }
    put_thinned(&cluster.world.repository, "1", 1, (1, 9), 7, b"{}").unwrap();
    keep_head(&cluster.world.repository, "1", (1, 9)).unwrap();
    let names = |cluster: &Cluster| {
        ["heads/", "thinned/", "kept/"].map(|prefix| cluster.world.names(prefix))
    };
    let before = names(&cluster);
    cluster.pass(800 * DAY_MICROS);
    fulls(&mut cluster, 1);
    run(&cluster);
    cluster.pass(2 * DAY_MICROS);
    run(&cluster);
    assert_eq!(names(&cluster), before);
}

/// Everything is decided by what the store says, and a sweep that meets a lock after all goes on with the rest.
#[test]
fn what_is_locked_stays_until_its_day_and_goes_then() {
    let lock = |days| LockPolicy {
        mode: LockMode::Compliance,
        days,
    };
    let mut cluster = Cluster::new(3);
    let memory = cluster.world.memory.clone();
    memory.set_lock(Some(lock(60)));
    let (old, new) = old_and_new(&mut cluster);
    let repository = cluster.world.repository.clone();
    let decided = |cluster: &Cluster| {
        let clock = || Ok::<_, Error>(cluster.clock());
        retention::decide(&repository, None, &cluster.rules, clock).unwrap()
    };
    let plan = decided(&cluster);
    let kept = about(&plan, Subject::Backup, &old);
    assert_eq!(kept.action, Action::Keep);
    assert!(
        kept.reason.starts_with("locked until 20"),
        "{}",
        kept.reason
    );
    assert!(!plan.changes_anything(), "{:#?}", plan.decisions);

    // A lock that came after the plan was made: by somebody else, or on a clock that differs.
    cluster.pass(13 * DAY_MICROS);
    let plan = decided(&cluster);
    assert_eq!(about(&plan, Subject::Backup, &old).action, Action::Expire);
    execute(&repository, &plan, &()).unwrap();
    cluster.pass(2 * DAY_MICROS);
    let plan = decided(&cluster);
    let manifest = format!("backups/{old}/manifest");
    memory.keep_longer(std::slice::from_ref(&manifest)).unwrap();
    let done = execute(&repository, &plan, &()).unwrap();
    assert_eq!(done.locked, 1, "{done:?}");
    let plan = decided(&cluster);
    let waits = about(&plan, Subject::Tombstone, &old);
    assert_eq!(waits.action, Action::Wait);
    assert!(waits.reason.starts_with("locked until"), "{}", waits.reason);
    assert!(memory.size(&manifest).is_ok() && cluster.live().contains(&new));

    cluster.pass(61 * DAY_MICROS);
    execute(&repository, &decided(&cluster), &()).unwrap();
    assert!(cluster.world.names(&format!("backups/{old}")).is_empty());
    cluster.check_backup(&new);
}

#[test]
fn packs_that_a_new_backup_refers_to_are_locked_for_as_long_as_it() {
    let mut cluster = Cluster::new(4);
    let memory = cluster.world.memory.clone();
    memory.set_lock(Some(LockPolicy {
        mode: LockMode::Governance,
        days: 10,
    }));
    cluster.backup(BackupKind::Full).unwrap();
    cluster.pass(9 * DAY_MICROS);
    let late = cluster.backup(BackupKind::Incremental).unwrap();
    let until = |name: &str| memory.lock_of(name).unwrap().unwrap().until_micros;
    let manifest = until(&format!("backups/{late}/manifest"));
    let packs = listed(&cluster.world.repository, &late).unwrap().unwrap();
    assert!(packs.len() > 1);
    for pack in packs {
        let pack = until(&format!("packs/{pack}"));
        assert!(pack >= manifest, "{pack:?} is before {manifest:?}");
    }
}

#[test]
fn a_hold_keeps_a_backup_its_packs_and_its_wal_until_it_is_cleared() {
    let mut cluster = Cluster::new(5);
    let (old, _) = old_and_new(&mut cluster);
    let repository = cluster.world.repository.clone();
    assert!(set_hold(&repository, None, "no-such-backup", "why").is_err());
    let held = set_hold(&repository, None, &old, "case 4711").unwrap();
    assert!(held.objects > 2 && held.bytes > 0, "{held:?}");
    assert_eq!(holds(&repository).unwrap()[0].reason, "case 4711");
    for _ in 0..2 {
        run(&cluster);
        cluster.pass(2 * DAY_MICROS);
    }
    let kept = decide(&cluster);
    let kept = about(&kept, Subject::Backup, &old);
    assert!(
        kept.reason.starts_with("on legal hold since"),
        "{}",
        kept.reason
    );
    cluster.check_backup(&old);

    clear_hold(&repository, None, &old, "case closed").unwrap();
    assert!(clear_hold(&repository, None, &old, "again").is_err());
    assert!(holds(&repository).unwrap().is_empty());
    run(&cluster);
    cluster.pass(2 * DAY_MICROS);
    run(&cluster);
    assert!(cluster.world.names(&format!("backups/{old}")).is_empty());
}
