//! Snapshots: what was handed over comes back, nothing of it shows, and what is newer than this program is left in
//! peace.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::keys::new_data_key;
use crate::pipeline::{BoxKind, Compression, ObjectHeader, ObjectKind, seal_single};
use crate::repository::to_json;
use crate::retention::{
    Action, Clock, DAY_MICROS, Plan, Rules, Subject, clear_hold, decide, execute, set_hold,
};
use crate::snapshot::{
    SnapshotOptions, SnapshotOutcome, SnapshotReader, SnapshotState, SnapshotWriter, find_snapshot,
    put_verification, snapshots, verify,
};
use crate::store::{LockMode, LockPolicy, Store};

const CONFIGURATION: &str = "configuration";
const AT: i64 = 1_700_000_000_000_000;
const SECRET: &[u8] = b"database_password = 'correct horse battery staple'";

fn options(cache: Option<&Path>) -> SnapshotOptions {
    SnapshotOptions {
        cache: cache.map(Path::to_owned),
        ..SnapshotOptions::default()
    }
}

fn take(
    world: &World,
    cache: Option<&Path>,
    at: i64,
    documents: &[(&str, &[u8])],
) -> Result<SnapshotOutcome> {
    world.memory.set_clock(Some(at));
    let (repository, public, key) = (&world.repository, world.private.public(), &world.chunk_key);
    let options = options(cache);
    let mut writer = SnapshotWriter::begin(repository, public, key, CONFIGURATION, at, options)?;
    for (name, bytes) in documents {
        let mode = BTreeMap::from([("mode".to_owned(), "0600".to_owned())]);
        writer.document(name, mode, &mut &bytes[..])?;
    }
    writer.finish(BTreeMap::new(), at + 1)
}

fn read(world: &World, id: &str) -> BTreeMap<String, Vec<u8>> {
    let reader =
        SnapshotReader::open(&world.repository, &world.private, CONFIGURATION, id).unwrap();
    let documents = reader.documents().iter();
    documents
        .map(|it| (it.name.clone(), reader.read(it).unwrap().to_vec()))
        .collect()
}

fn expected(documents: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
    let owned = |(name, bytes): &(&str, &[u8])| ((*name).to_owned(), bytes.to_vec());
    documents.iter().map(owned).collect()
}

fn clock(at: i64) -> Clock {
    Clock {
        now_micros: at,
        store_micros: at,
        postgres_micros: None,
    }
}

fn plan_at(world: &World, at: i64) -> Plan {
    world.memory.set_clock(Some(at));
    let clock = || Ok::<_, Error>(clock(at));
    decide(&world.repository, None, &Rules::default(), clock).unwrap()
}

fn expire_at(world: &World, at: i64) {
    execute(&world.repository, &plan_at(world, at), &()).unwrap();
}

fn live(world: &World) -> Vec<String> {
    let all = snapshots(&world.repository).unwrap().snapshots;
    let live = all
        .into_iter()
        .filter(|it| it.state == SnapshotState::Complete);
    live.map(|it| it.id).collect()
}

#[test]
fn documents_come_back_and_nothing_of_them_shows() {
    let (world, cache) = (World::new(), tempfile::tempdir().unwrap());
    let large = noise((2 << 20) + 77, 4);
    let documents: &[(&str, &[u8])] = &[
        ("empty", b""),
        ("large.rdb", &large),
        ("settings/bre.toml", SECRET),
    ];
    let outcome = take(&world, Some(cache.path()), AT, documents).unwrap();
    assert!(outcome.is_new && outcome.changes.is_none(), "{outcome:?}");
    assert!(outcome.full_reason.unwrap().contains("no earlier snapshot"));
    assert_eq!(read(&world, &outcome.id), expected(documents));
    let reader = SnapshotReader::open(
        &world.repository,
        &world.private,
        CONFIGURATION,
        &outcome.id,
    )
    .unwrap();
    assert_eq!(reader.documents()[0].attributes["mode"], "0600");
    assert_eq!(
        world.repository.cluster().unwrap(),
        None,
        "no cluster is needed"
    );

    let mut places: Vec<Vec<u8>> = Vec::new();
    for object in world.memory.list("").unwrap() {
        places.push(object.name.clone().into_bytes());
        places.push(world.memory.get(&object.name).unwrap());
    }
    for file in std::fs::read_dir(cache.path()).unwrap() {
        places.push(std::fs::read(file.unwrap().path()).unwrap());
    }
    let clear_digest = blake3::hash(SECRET);
    for needle in [SECRET, b"horse", b"bre.toml", clear_digest.as_bytes()] {
        let shows = |place: &Vec<u8>| place.windows(needle.len()).any(|window| window == needle);
        assert!(!places.iter().any(shows), "{needle:?} shows");
    }
    let stranger = RecipientPrivate::generate().unwrap();
    let error =
        SnapshotReader::open(&world.repository, &stranger, CONFIGURATION, &outcome.id).unwrap_err();
    assert!(matches!(error, Error::WrongKey(_)), "{error}");
}

#[test]
fn what_did_not_change_is_not_written_again() {
    let (world, cache) = (World::new(), tempfile::tempdir().unwrap());
    let cache = Some(cache.path());
    let large = noise(3 << 20, 4);
    let first = take(
        &world,
        cache,
        AT,
        &[("a", &large), ("b", b"1"), ("c", b"x")],
    )
    .unwrap();
    let before = world.names("");
    let same = take(
        &world,
        cache,
        AT + DAY_MICROS,
        &[("a", &large), ("b", b"1"), ("c", b"x")],
    )
    .unwrap();
    assert!(!same.is_new && same.id == first.id, "{same:?}");
    assert_eq!(world.names(""), before, "not a byte");

    let documents: &[(&str, &[u8])] = &[("a", &large), ("b", b"2"), ("d", b"new")];
    let changed = take(&world, cache, AT + 2 * DAY_MICROS, documents).unwrap();
    let changes = changed.changes.clone().unwrap();
    assert_eq!(
        (changes.added, changes.changed, changes.removed),
        (vec!["d".to_owned()], vec!["b".to_owned()], 1)
    );
    assert_eq!(
        (changed.bytes_reused, changed.parent),
        (3 << 20, Some(first.id))
    );
    assert!(changed.bytes_stored < 2000, "{}", changed.bytes_stored);
    assert_eq!(read(&world, &changed.id), expected(documents));

    // Another host took one since: these documents are not what the newest snapshot holds.
    let other = tempfile::tempdir().unwrap();
    take(
        &world,
        Some(other.path()),
        AT + 3 * DAY_MICROS,
        &[("z", b"z")],
    )
    .unwrap();
    let again = take(&world, cache, AT + 4 * DAY_MICROS, documents).unwrap();
    assert!(again.is_new && again.changes.unwrap().is_empty());
    assert_eq!(
        find_snapshot(&world.repository, CONFIGURATION, None)
            .unwrap()
            .id,
        again.id
    );
}

/// Each is taken in full, says why, and reads back.
#[test]
fn a_cache_that_is_lost_or_wrong_only_costs_a_full_snapshot() {
    let (world, cache) = (World::new(), tempfile::tempdir().unwrap());
    let large = noise(1 << 20, 4);
    let documents: &[(&str, &[u8])] = &[("a", &large), ("b", b"1")];
    let file = cache.path().join("snapshot-configuration");
    let mut at = AT;
    let mut check = |reason: &str, harm: &dyn Fn()| {
        take(&world, Some(cache.path()), at, documents).unwrap();
        harm();
        at += DAY_MICROS;
        let outcome = take(&world, Some(cache.path()), at, documents).unwrap();
        let why = outcome.full_reason.unwrap_or_default();
        assert!(why.contains(reason), "{reason}: {why}");
        assert!(outcome.is_new && outcome.bytes_reused == 0 && outcome.bytes_stored > 1 << 20);
        assert_eq!(read(&world, &outcome.id), expected(documents));
        at += DAY_MICROS;
    };
    check("no earlier snapshot", &|| {
        std::fs::remove_file(&file).unwrap();
    });
    for place in [3, 60, 400] {
        check("is damaged", &|| {
            let mut bytes = std::fs::read(&file).unwrap();
            let at = place % bytes.len();
            bytes[at] ^= 1;
            std::fs::write(&file, bytes).unwrap();
        });
    }
    check("is damaged", &|| {
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    });
    check("is missing or expiring", &|| {
        for pack in world.names("packs/") {
            world.memory.delete(&pack).unwrap();
        }
    });
    check("not in the repository any more", &|| {
        for object in world.names("snapshots/") {
            world.memory.delete(&object).unwrap();
        }
    });
}

#[test]
fn documents_that_lie_in_too_many_packs_are_stored_together_again() {
    let (world, cache) = (World::new(), tempfile::tempdir().unwrap());
    let names: Vec<String> = (0..70).map(|number| format!("{number:02}")).collect();
    let mut documents: Vec<(&str, &[u8])> = Vec::new();
    let mut last = None;
    for (number, name) in names.iter().enumerate() {
        documents.push((name, name.as_bytes()));
        let at = AT + i64::try_from(number).unwrap() * DAY_MICROS;
        let outcome = take(&world, Some(cache.path()), at, &documents).unwrap();
        let is_full = number == 0 || number == 65;
        assert_eq!(
            outcome.full_reason.is_some(),
            is_full,
            "{number}: {outcome:?}"
        );
        last = Some(outcome.id);
    }
    assert_eq!(read(&world, &last.unwrap()), expected(&documents));
}

#[test]
fn a_snapshot_that_is_stopped_at_any_write_is_none_and_the_next_one_is_whole() {
    let (world, cache) = (World::new(), tempfile::tempdir().unwrap());
    let mut stops = 0;
    let large = noise(1 << 20, 9);
    for round in 0..3_u8 {
        let documents: &[(&str, &[u8])] = &[("a", &large), ("b", &[round])];
        for write in 0.. {
            let at = AT + stops * DAY_MICROS;
            world.faults.crash_at_write(Some(write));
            let outcome = take(&world, Some(cache.path()), at, documents);
            world.faults.crash_at_write(None);
            for id in live(&world) {
                read(&world, &id);
            }
            if let Ok(outcome) = outcome {
                assert_eq!(read(&world, &outcome.id), expected(documents));
                break;
            }
            stops += 1;
        }
    }
    assert!(stops >= 9, "{stops}");
    // What they left goes, and nothing else.
    for days in [200, 202, 204, 220, 222, 224] {
        expire_at(&world, AT + days * DAY_MICROS);
    }
    let id = live(&world).pop().unwrap();
    assert_eq!(world.names("snapshots/").len(), 2, "{:?}", world.names(""));
    assert_eq!(read(&world, &id)["a"], large);
    assert!(world.names("packs/").len() <= 2, "{:?}", world.names(""));
    let reads = (
        world.names("wraps/").len(),
        world.names("tombstones/").len(),
    );
    assert!(reads.0 <= 3 && reads.1 == 0, "{:?}", world.names(""));
}

/// In a repository without a cluster, without a key.
#[test]
fn the_newest_and_the_newest_verified_one_never_expire_nor_what_they_refer_to() {
    let (world, cache) = (World::new(), tempfile::tempdir().unwrap());
    let cache = Some(cache.path());
    let large = noise(1 << 20, 9);
    let day = |days: i64| AT + days * DAY_MICROS;
    let ids: Vec<String> = [0, 10, 20, 100]
        .iter()
        .enumerate()
        .map(|(number, days)| {
            let number = [u8::try_from(number).unwrap()];
            let documents: &[(&str, &[u8])] = &[("a", &large), ("b", &number)];
            take(&world, cache, day(*days), documents).unwrap().id
        })
        .collect();
    let record = verify(
        &world.repository,
        &world.private,
        CONFIGURATION,
        &ids[1],
        day(11),
    )
    .unwrap();
    put_verification(&world.repository, CONFIGURATION, &ids[1], &record).unwrap();

    let plan = plan_at(&world, day(105));
    let reasons: Vec<(Action, &str)> = plan
        .decisions
        .iter()
        .filter(|it| it.subject == Subject::Snapshot)
        .map(|it| (it.action, it.reason.as_str()))
        .collect();
    assert_eq!(
        reasons,
        [
            (Action::Expire, "superseded for more than 90 days"),
            (Action::Keep, "newest verified snapshot of configuration"),
            (Action::Keep, "younger than 90 days"),
            (Action::Keep, "newest snapshot of configuration"),
        ]
    );
    // In force until the day before, at any age.
    let plan = plan_at(&world, day(115));
    let of = |id: &str| {
        let mut all = plan.decisions.iter();
        all.find(|it| it.which.ends_with(id))
            .unwrap()
            .reason
            .clone()
    };
    assert_eq!(of(&ids[2]), "in force when the 90 days began");
    for days in [400, 402, 404] {
        expire_at(&world, day(days));
    }
    assert_eq!(live(&world), [ids[1].clone(), ids[3].clone()]);
    // The first pack is the first snapshot's, which is gone.
    assert_eq!(read(&world, &ids[3])["a"], large);
    assert_eq!(read(&world, &ids[1])["b"], [1]);
    assert!(
        world
            .names(&format!("snapshots/{CONFIGURATION}/{}", ids[0]))
            .is_empty()
    );
    let cached = take(&world, cache, day(405), &[("a", &large), ("b", b"\x03")]).unwrap();
    assert!(!cached.is_new, "the newest is still what the cache knows");
}

#[test]
fn holds_and_locks_keep_a_snapshot_and_its_packs() {
    let world = World::new();
    let day = |days: i64| AT + days * DAY_MICROS;
    let first = take(&world, None, day(0), &[("a", b"1")]).unwrap().id;
    let second = take(&world, None, day(1), &[("a", b"2")]).unwrap().id;
    world.memory.set_lock(Some(LockPolicy {
        mode: LockMode::Compliance,
        days: 300,
    }));
    let third = take(&world, None, day(2), &[("a", b"3")]).unwrap().id;
    take(&world, None, day(3), &[("a", b"4")]).unwrap();
    set_hold(&world.repository, None, &first, "a court asks").unwrap();
    for days in [150, 152, 154] {
        expire_at(&world, day(days));
    }
    let here = live(&world);
    assert!(here.contains(&first) && here.contains(&third), "{here:?}");
    assert!(!here.contains(&second), "{here:?}");
    assert_eq!(read(&world, &first)["a"], b"1");
    assert_eq!(read(&world, &third)["a"], b"3");
    let (repository, name) = (
        &world.repository,
        format!("snapshots/{CONFIGURATION}/{third}/manifest"),
    );
    assert!(repository.store().lock_of(&name).unwrap().is_some());
    clear_hold(repository, None, &first, "it asks no more").unwrap();
    for days in [400, 402, 404] {
        expire_at(&world, day(days));
    }
    assert_eq!(live(&world).len(), 1);
    let error = set_hold(repository, None, "20261123T081530Z-00000000", "so").unwrap_err();
    assert!(
        error.to_string().contains("no backup and no snapshot"),
        "{error}"
    );
}

/// Of a format of some day: manifest, list and an object that is not known here.
pub(super) fn newer(world: &World, id: &str, packs: &[String]) {
    let folder = format!("snapshots/{CONFIGURATION}/{id}");
    let key = new_data_key(&world.repository, world.private.public()).unwrap();
    let name = format!("{folder}/manifest");
    let header = ObjectHeader {
        kind: ObjectKind::Snapshot,
        data_key: key.id(),
        clear: br#"{"snapshot_version":2,"component":{"of":"another form"}}"#.to_vec(),
    };
    let (kind, level) = (BoxKind::Snapshot, Compression::Stored);
    let object = seal_single(&key, &name, &header, kind, level, (0, 0), b"?").unwrap();
    crate::references::record_references_below(&world.repository, &folder, packs).unwrap();
    world.memory.put(&format!("{folder}/part-1"), b"?").unwrap();
    world.memory.put(&name, &object).unwrap();
}

#[test]
fn a_newer_format_is_kept_named_and_copied_and_hides_nothing() {
    let (world, id) = (World::new(), "20231114T221320Z-00000001");
    let ours = take(&world, None, AT, &[("a", b"1")]).unwrap().id;
    let pack = world.names("packs/")[0].clone();
    let lists = |world: &World| world.names(&format!("snapshots/{CONFIGURATION}/{id}/"));
    newer(&world, id, &[pack.trim_start_matches("packs/").to_owned()]);
    let later = take(&world, None, AT + DAY_MICROS, &[("a", b"2")])
        .unwrap()
        .id;

    let all = snapshots(&world.repository).unwrap();
    assert!(all.damaged.is_empty(), "{:?}", all.damaged);
    assert_eq!((all.newer.len(), all.newer[0].version), (1, 2));
    assert_eq!(all.newer[0].id, id);
    let shown: Vec<String> = all.snapshots.into_iter().map(|it| it.id).collect();
    assert_eq!(shown, [ours.clone(), later]);
    let open = |id| SnapshotReader::open(&world.repository, &world.private, CONFIGURATION, id);
    let error = open(id).unwrap_err();
    assert!(matches!(error, Error::Version { found: 2, .. }), "{error}");
    let error = find_snapshot(&world.repository, CONFIGURATION, Some(id)).unwrap_err();
    assert!(error.to_string().contains("version 2"), "{error}");

    // Ours goes; its pack stays, because the newer one lists it.
    for days in [300, 302, 304, 320, 322] {
        expire_at(&world, AT + days * DAY_MICROS);
    }
    assert!(open(&ours).is_err());
    assert_eq!(lists(&world).len(), 3);
    assert!(world.names("packs/").contains(&pack));

    let other = World::new();
    let options = CopyOptions {
        backup: None,
        rules: Rules::default(),
        private: None,
        now_micros: AT + 322 * DAY_MICROS,
    };
    let done = copy(&world.repository, &other.repository, &options, &()).unwrap();
    assert_eq!(
        (done.snapshots, done.notes.len()),
        (2, 0),
        "{:?}",
        done.notes
    );
    assert_eq!(lists(&other), lists(&world));
    assert!(other.names("packs/").contains(&pack));

    // A list in a form of some day too: no pack is deleted.
    let list = lists(&world)
        .into_iter()
        .find(|it| it.contains("/packs-"))
        .unwrap();
    world.memory.tamper(&list, |bytes| bytes[5] = 2);
    world
        .memory
        .put("packs/00000000000000000000000000000000", b"x")
        .unwrap();
    let plan = plan_at(&world, AT + 400 * DAY_MICROS);
    let packs: Vec<&str> = plan
        .decisions
        .iter()
        .filter(|it| it.subject == Subject::Packs)
        .map(|it| it.reason.as_str())
        .collect();
    assert!(
        matches!(packs.as_slice(), [one] if one.contains("nobody can tell here")),
        "{packs:?}"
    );
}

/// Stopped at each of its writes in turn, then whole; a copy is verified by those who read it, not by what was copied.
#[test]
fn snapshots_are_copied_by_the_others_rules() {
    let (world, other) = (World::new(), World::new());
    let ids: Vec<String> = (0..3)
        .map(|number| {
            let at = AT + i64::from(number) * 100 * DAY_MICROS;
            take(&world, None, at, &[("a", &[number])]).unwrap().id
        })
        .collect();
    let now = AT + 201 * DAY_MICROS;
    let record = verify(
        &world.repository,
        &world.private,
        CONFIGURATION,
        &ids[2],
        now,
    )
    .unwrap();
    put_verification(&world.repository, CONFIGURATION, &ids[2], &record).unwrap();
    let options = CopyOptions {
        backup: None,
        rules: Rules::default(),
        private: None,
        now_micros: now,
    };
    let mut stops = 0;
    while stops < 100 {
        other.faults.crash_at_write(Some(stops % 3));
        let done = copy(&world.repository, &other.repository, &options, &());
        other.faults.crash_at_write(None);
        for id in live(&other) {
            let private = &world.private;
            let reader = SnapshotReader::open(&other.repository, private, CONFIGURATION, &id);
            let reader = reader.unwrap();
            reader.read_all(&mut |_, _| Ok(())).unwrap();
        }
        if done.is_ok() {
            break;
        }
        stops += 1;
    }
    assert!((3..100).contains(&stops), "{stops}");
    assert_eq!(
        live(&other),
        ids[1..],
        "the first was superseded too long ago"
    );
    assert!(
        !other
            .names("snapshots/")
            .iter()
            .any(|it| it.contains("/verified-"))
    );
    let again = copy(&world.repository, &other.repository, &options, &()).unwrap();
    assert_eq!((again.snapshots, again.objects), (0, 0));
}

#[test]
fn keys_are_rotated_with_snapshots_and_the_cache_goes_on() {
    let (world, cache) = (World::new(), tempfile::tempdir().unwrap());
    let large = noise(1 << 20, 9);
    let id = take(&world, Some(cache.path()), AT, &[("a", &large)])
        .unwrap()
        .id;
    let next = RecipientPrivate::generate().unwrap();
    let begin = |recipient: &RecipientPrivate, at| {
        let (repository, key) = (&world.repository, &world.chunk_key);
        let options = options(Some(cache.path()));
        SnapshotWriter::begin(
            repository,
            recipient.public(),
            key,
            CONFIGURATION,
            at,
            options,
        )
    };
    let mut writer = begin(&next, AT + 1).unwrap();
    writer
        .document("a", BTreeMap::new(), &mut &large[..])
        .unwrap();
    assert!(format!("{writer:?}").contains("1 documents"));
    drop(writer);
    rewrap(&world.repository, &world.private, &next, &()).unwrap();
    retire(&world.repository, &world.private.public().id(), &next, &()).unwrap();
    let mut writer = begin(&next, AT + DAY_MICROS).unwrap();
    writer
        .document("a", BTreeMap::new(), &mut &large[..])
        .unwrap();
    writer
        .document("b", BTreeMap::new(), &mut &b"2"[..])
        .unwrap();
    let outcome = writer.finish(BTreeMap::new(), AT + DAY_MICROS).unwrap();
    assert_eq!((outcome.full_reason, outcome.bytes_reused), (None, 1 << 20));
    for id in [&id, &outcome.id] {
        let reader = SnapshotReader::open(&world.repository, &next, CONFIGURATION, id).unwrap();
        assert_eq!(reader.read_all(&mut |_, _| Ok(())).unwrap().bytes >> 20, 1);
    }
}

/// A body that somebody with the key made: no restore is led out of its folder, and no name is there twice.
#[test]
fn names_that_lead_elsewhere_are_refused_when_read_too() {
    let world = World::new();
    let body = |names: &[&str]| {
        let documents: Vec<serde_json::Value> = names
            .iter()
            .map(|name| serde_json::json!({"name": name, "bytes": 0, "chunks": []}))
            .collect();
        serde_json::json!({
            "chunk_id_key": world.chunk_key.to_hex().to_string(), "packs": [],
            "documents": documents, "facts": {},
        })
    };
    let check = |number: u8, names: &[&str], is_refused: bool| {
        let id = format!("20231114T221320Z-000000{number:02x}");
        let name = format!("snapshots/{CONFIGURATION}/{id}/manifest");
        let key = new_data_key(&world.repository, world.private.public()).unwrap();
        let clear = serde_json::json!({
            "snapshot_version": 1, "component": CONFIGURATION, "snapshot_id": id, "parent": null, "taken_at_micros": 1,
            "finished_at_micros": 1, "documents": 1, "bytes_source": 0, "bytes_stored": 0, "bytes_reused": 0,
        });
        let header = ObjectHeader {
            kind: ObjectKind::Snapshot,
            data_key: key.id(),
            clear: to_json(&clear),
        };
        let (kind, level) = (BoxKind::Snapshot, Compression::Stored);
        let raw = to_json(&body(names));
        let object = seal_single(&key, &name, &header, kind, level, (0, 0), &raw).unwrap();
        world.memory.put(&name, &object).unwrap();
        let opened = SnapshotReader::open(&world.repository, &world.private, CONFIGURATION, &id);
        assert_eq!(opened.is_err(), is_refused, "{names:?}");
    };
    check(1, &["a", "b"], false);
    check(2, &["../a"], true);
    check(3, &["/etc/passwd"], true);
    check(4, &["a", "a"], true);
    check(5, &["b", "a"], true);
    let mut writer = SnapshotWriter::begin(
        &world.repository,
        world.private.public(),
        &world.chunk_key,
        CONFIGURATION,
        AT,
        options(None),
    )
    .unwrap();
    for name in ["../a", "", "/a"] {
        let refused = writer.document(name, BTreeMap::new(), &mut &b""[..]);
        assert!(refused.is_err(), "{name}");
    }
    writer
        .document("a", BTreeMap::new(), &mut &b""[..])
        .unwrap();
    assert!(
        writer
            .document("a", BTreeMap::new(), &mut &b""[..])
            .is_err()
    );
}

#[test]
fn what_cannot_be_read_back_is_a_verdict_that_is_put_on_record() {
    let world = World::new();
    let id = take(&world, None, AT, &[("secret-name", b"1")]).unwrap().id;
    let pack = world.only("packs/");
    world.memory.tamper(&pack, |bytes| bytes[60] ^= 1);
    let (repository, private) = (&world.repository, &world.private);
    let record = verify(repository, private, CONFIGURATION, &id, AT + 5).unwrap();
    assert!(!record.passed);
    let why = record.details["why"].as_str().unwrap();
    assert!(why.contains(&pack) && !why.contains("secret-name"), "{why}");
    put_verification(repository, CONFIGURATION, &id, &record).unwrap();
    let shown = find_snapshot(repository, CONFIGURATION, Some(&id)).unwrap();
    assert_eq!(shown.verification_failed_at_micros, Some(AT + 5));
    world.memory.tamper(&pack, |bytes| bytes[60] ^= 1);
    let record = verify(repository, private, CONFIGURATION, &id, AT + 5).unwrap();
    // At the very same moment: beside it.
    put_verification(repository, CONFIGURATION, &id, &record).unwrap();
    let shown = find_snapshot(repository, CONFIGURATION, Some(&id[..10])).unwrap();
    assert_eq!(
        (
            shown.verified_at_micros,
            shown.verification_failed_at_micros
        ),
        (Some(AT + 6), None)
    );
}
