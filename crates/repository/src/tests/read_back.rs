//! Every object is read back: damage to any, and the loss of any that something needs, is named; the rest is left in peace.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::log_stretches::{LogKind, NO_DIGEST, StretchFacts, seal_stretch};
use crate::retention::Rules;
use crate::snapshot::{SnapshotOptions, SnapshotWriter, put_verification, verify};

const FIRST: &str = "20261123T081530Z-00000001";
const SECOND: &str = "20261123T091530Z-00000002";
/// Server time of the last frame.
const LAST_MICROS: i64 = 60_000_000;

/// Heads are the text of their own name here.
#[derive(Debug)]
struct Heads;

impl AuditReader for Heads {
    fn head(&self, log: &str, epoch: u32, size: u64, bytes: &[u8]) -> Result<HeadSaid, String> {
        let text = std::str::from_utf8(bytes).ok();
        let lsn: Option<u64> = text.and_then(|text| text.strip_suffix('.')?.parse().ok());
        let lsn = lsn.ok_or_else(|| format!("head {log} {epoch} {size} is none"))?;
        Ok(HeadSaid::Evidence(Evidence {
            source: EvidenceSource::SignedHead,
            object: None,
            timeline: None,
            epoch,
            lsn,
            at_micros: i64::MAX / 2,
        }))
    }

    fn record(&self, _: ObjectClass, name: &str, bytes: &[u8]) -> Result<Option<String>, String> {
        match bytes == name.as_bytes() {
            true => Ok(None),
            false => Err("it is another".to_owned()),
        }
    }

    fn stretch(&self, _: &ArchivePart, _: &ArchivedEntries) -> Result<(), String> {
        Ok(())
    }
}

struct Whole {
    world: World,
    archive: RecipientPrivate,
}

impl Whole {
    /// One object of every class: segments 1 to 3 whole, segment 4 in a tail.
    fn new() -> Self {
        let world = World::new();
        let archive = RecipientPrivate::generate().unwrap();
        for (id, seed) in [(FIRST, 1), (SECOND, 2)] {
            let backup = world.begin(id).unwrap();
            backup.dir("base", 0o700, 5).unwrap();
            backup
                .blob("base/1259", 0o600, 7, &noise(20_000, seed))
                .unwrap();
            backup.finish(stop(SEGMENT + 5000)).unwrap();
        }
        let end = 4 * SEGMENT + 300;
        let mut writer = world.writer(SEGMENT).unwrap();
        for (number, from) in (SEGMENT..end).step_by(9000).enumerate() {
            let to = (from + 9000).min(end);
            // Frames stay inside a segment.
            let cut = (from / SEGMENT + 1) * SEGMENT;
            let at = LAST_MICROS - 1_000_000 + i64::try_from(number).unwrap();
            for (from, to) in [(from, to.min(cut)), (cut, to)] {
                if from < to {
                    writer.append(from, &wal(from, to), at).unwrap();
                }
            }
        }
        writer.heartbeat(LAST_MICROS).unwrap();
        writer.finish().unwrap();
        let put = |name: &str, value: serde_json::Value| {
            let bytes = serde_json::to_vec(&value).unwrap();
            world.memory.put(name, &bytes).unwrap();
        };
        put_history(
            &world.repository,
            world.private.public(),
            2,
            b"1\t0/40010\twhy\n",
        )
        .unwrap();
        reserve(&world.repository, "r-1").unwrap();
        put_head(
            &world.repository,
            "1",
            1,
            20,
            format!("{}.", end - 5).as_bytes(),
        )
        .unwrap();
        let record = RestoreTestRecord {
            proved_at_micros: 9,
            passed: true,
            details: json!({"backup_id": FIRST, "checks": []})
                .as_object()
                .unwrap()
                .clone(),
        };
        put_restore_test(&world.repository, FIRST, &record).unwrap();
        let (repository, public) = (&world.repository, world.private.public());
        let mut writer = SnapshotWriter::begin(
            repository,
            public,
            &world.chunk_key,
            "configuration",
            5,
            SnapshotOptions::default(),
        )
        .unwrap();
        let bytes = noise(20_000, 3);
        writer
            .document("bre.toml", BTreeMap::new(), &mut bytes.as_slice())
            .unwrap();
        let snapshot = writer.finish(BTreeMap::new(), 6).unwrap().id;
        let record = verify(repository, &world.private, "configuration", &snapshot, 7).unwrap();
        put_verification(repository, "configuration", &snapshot, &record).unwrap();
        let none = String::from_utf8(vec![b'0'; 64]).unwrap();
        let part = ArchivePart::new(1, 1, (1, 2), none.clone(), none);
        let content = ArchivedEntries {
            signed_head: b"head".to_vec(),
            entries: vec![b"one".to_vec(), b"two".to_vec()],
        };
        put_archive(&world.repository, archive.public(), &part, &content).unwrap();
        let facts = StretchFacts {
            kind: LogKind::System,
            source: "journal",
            number: 1,
            day: jiff::civil::Date::ZERO,
            span_micros: (0, 0),
            previous: (NO_DIGEST, 0),
            cursor: "c",
            gaps: Vec::new(),
            host: "h",
        };
        let stretch = seal_stretch(repository, archive.public(), facts, &[b"line".to_vec()]);
        stretch.unwrap().put(repository).unwrap();
        let hold = json!({"version": 1, "backup_id": FIRST, "reason": "so"});
        put(&format!("holds/{FIRST}/0000000000000007-set"), hold);
        let mark = json!({"version": 1, "written_at_micros": 1, "sweep_after_micros": 2, "reason": "so", "objects": []});
        put("tombstones/rest.0000000000000001-0a0b0c0d", mark);
        put("probes/0123456789abcdef", json!({}));
        for name in [
            "thinned/1/00000001-0000000000000001-0000000000000002.0000000000000003",
            "tlog/1/00000001/00-0000000000000000",
            "origins/1/00000001",
            "cosigned/1/00000001-0000000000000014.0a0b0c0d",
            "signing-keys/1/0123456789abcdef0123456789abcdef",
        ] {
            world.memory.put(name, name.as_bytes()).unwrap();
        }
        let head = "1/00000001-0000000000000014";
        world.memory.put(&format!("anchors/{head}"), b"7.").unwrap();
        world.memory.put(&format!("kept/{head}"), b"").unwrap();
        put("probes/claim-0123456789abcdef0123456789abcdef", json!({}));
        let run = "runs/2026-11/0123456789abcdef-0a0b0c0d";
        put(
            run,
            json!({"record_version": 1, "run_id": "0123456789abcdef-0a0b0c0d"}),
        );
        let month = world.memory.get(run).unwrap();
        let digest = blake3::hash(&month).to_hex()[..32].to_owned();
        let month_name = format!("runs/compacted/2026-11-{digest}");
        world.memory.put(&month_name, &month).unwrap();
        put("claims/0-0123456789abcdef.0a0b0c0d.host", json!({}));
        record_hole(
            &world.repository,
            1,
            SEGMENT / 2,
            SEGMENT / 2 + 8,
            "s1",
            "so",
        )
        .unwrap();
        Self { world, archive }
    }

    fn read(&self, known_id: Option<&str>) -> ReadBack {
        self.read_with(Some(&self.world.private), Some(&self.archive), known_id)
    }

    fn read_with(
        &self,
        private: Option<&RecipientPrivate>,
        archive: Option<&RecipientPrivate>,
        known_id: Option<&str>,
    ) -> ReadBack {
        let options = ReadBackOptions {
            private,
            archive,
            rules: Rules::default(),
            now_micros: 3_600_000_000,
            repository_id: known_id,
            audit: &Heads,
            evidence: Vec::new(),
            threads: 2,
        };
        // The marker was read when the repository was opened.
        let opened = Repository::open(Arc::new(self.world.memory.clone()));
        let repository = opened.unwrap_or_else(|_| self.world.repository.clone());
        read_back(&repository, &options, &()).unwrap()
    }

    fn objects(&self) -> Vec<(ObjectClass, String, u64)> {
        let all = self.world.memory.list("").unwrap();
        all.into_iter()
            .map(|object| (ObjectClass::of(&object.name), object.name, object.size))
            .collect()
    }

    fn delete(&self, name: &str) -> Vec<u8> {
        let bytes = self.world.memory.get(name).unwrap();
        self.world.memory.delete(name).unwrap();
        bytes
    }
}

fn names(all: &[Finding]) -> Vec<&str> {
    all.iter().map(|finding| finding.object.as_str()).collect()
}

#[test]
fn every_class_is_read_and_damage_in_any_object_is_named() {
    let whole = Whole::new();
    let id = whole.world.repository.id().to_owned();
    let sound = whole.read(Some(&id));
    assert!(sound.is_sound(), "{:#?}", sound.findings);
    assert_eq!(sound.not_opened(), 0, "{:?}", sound.classes);
    let read: Vec<ObjectClass> = sound.classes.iter().map(|class| class.class).collect();
    assert_eq!(read, ObjectClass::KNOWN, "one object of every class");
    assert!(!sound.newest.unwrap().is_missing);
    for (class, name, size) in whole.objects() {
        let size = usize::try_from(size).unwrap();
        // What is sealed, hashed, or known by its name and form shows any change; of the others a change of form does.
        let places = match class {
            ObjectClass::Probe
            | ObjectClass::Claim
            | ObjectClass::PlanClaim
            | ObjectClass::Kept => continue,
            ObjectClass::Format
            | ObjectClass::Cluster
            | ObjectClass::RestoreTest
            | ObjectClass::Reservation
            | ObjectClass::Head
            | ObjectClass::Anchor
            | ObjectClass::Tombstone
            | ObjectClass::Hold
            | ObjectClass::SnapshotVerification
            | ObjectClass::Hole
            | ObjectClass::Run => vec![0, size - 1],
            _ => vec![0, 20.min(size - 1), size / 3, size / 2, size - 1],
        };
        for at in places {
            whole.world.memory.tamper(&name, |bytes| bytes[at] ^= 0x10);
            let found = whole.read(Some(&id));
            assert!(
                names(&found.findings).contains(&name.as_str()),
                "byte {at} of {name}: {:#?}",
                found.findings
            );
            whole.world.memory.tamper(&name, |bytes| bytes[at] ^= 0x10);
        }
        let cut = whole.delete(&name);
        whole.world.memory.put(&name, &cut[..size / 2]).unwrap();
        let found = whole.read(Some(&id));
        // A tail that ends early is what a crash leaves: the end of the WAL says it.
        let named = names(&found.findings)
            .into_iter()
            .any(|it| name.starts_with(it) && (it == name || class == ObjectClass::WalTail));
        assert!(named, "half of {name}: {:#?}", found.findings);
        whole.delete(&name);
        whole.world.memory.put(&name, &cut).unwrap();
    }
    let found = whole.read(Some("00000000000000000000000000000000"));
    assert_eq!(
        names(&found.findings),
        ["format"],
        "the keys belong to another"
    );
}

/// Of these only the name is looked at.
const NEVER_READ: [ObjectClass; 3] = [
    ObjectClass::Probe,
    ObjectClass::Claim,
    ObjectClass::PlanClaim,
];

/// What is wrong with one object hides nothing of what is wrong with others, of its class or of another.
#[test]
fn one_damaged_object_of_any_class_hides_no_other_finding() {
    let whole = Whole::new();
    let memory = &whole.world.memory;
    let of = |class: ObjectClass| {
        let mut all = whole.objects();
        all.retain(|(it, ..)| *it == class);
        all.into_iter().map(|(_, name, _)| name).collect::<Vec<_>>()
    };
    // Something of nearly every kind is wrong already: a gap in the WAL, and a second object beside each that is
    // there. A short tail is what a crash leaves.
    whole.delete(&of(ObjectClass::WalSegment)[1]);
    let second = [
        ("heads/1/00000001-0000000000000015", "no head"),
        ("anchors/1/00000001-0000000000000015", "no head"),
        (
            "thinned/1/00000001-0000000000000003-0000000000000004.0000000000000003",
            "x",
        ),
        ("tlog/1/00000001/00-0000000000000001", "x"),
        ("origins/1/00000002", "x"),
        ("cosigned/1/00000001-0000000000000015.0a0b0c0d", "x"),
        ("signing-keys/1/11111111111111111111111111111111", "x"),
        ("timelines/00000003.reserved.r-9", "x"),
        ("timelines/00000001.history", "x"),
        ("holds/20261123T091530Z-00000002/0000000000000007-set", "x"),
        ("holes/00000001/0000000000000001-0000000000000002.s1", "x"),
        ("tombstones/wal.0000000000000001-0a0b0c0d", "x"),
        (
            "backups/20261123T081530Z-00000001/proof-0000000000000008",
            "x",
        ),
        (
            "backups/20261123T081530Z-00000001/packs-11111111111111111111111111111111",
            "x",
        ),
        ("backups/20261123T071530Z-00000009/manifest", "x"),
        (
            "audit/entries/1/00000001-0000000000000003-0000000000000004",
            "x",
        ),
        ("packs/11111111111111111111111111111111", "x"),
        (
            "wraps/11111111111111111111111111111111/11111111111111111111111111111111",
            "x",
        ),
        (
            "audit/wraps/11111111111111111111111111111111/11111111111111111111111111111111",
            "x",
        ),
    ];
    let untouched = whole.objects();
    for (name, text) in second {
        memory.put(name, text.as_bytes()).unwrap();
    }
    let wrong = |read: ReadBack| -> std::collections::BTreeSet<(ObjectClass, String)> {
        let findings = read.findings.into_iter();
        findings.map(|it| (it.class, it.object)).collect()
    };
    let before = wrong(whole.read(None));
    for (name, _) in second {
        assert!(
            before.iter().any(|(_, it)| it == name),
            "{name}: {before:#?}"
        );
    }
    assert!(
        before.iter().any(|(_, it)| it.starts_with("wal/")),
        "{before:#?}"
    );
    let mut tried = std::collections::BTreeSet::new();
    for (class, name, size) in untouched {
        if NEVER_READ.contains(&class) {
            continue;
        }
        tried.insert(class);
        match class {
            ObjectClass::Kept => memory.tamper(&name, |bytes| bytes.push(1)),
            _ => memory.tamper(&name, |bytes| bytes[size as usize - 1] ^= 0x10),
        }
        let now = wrong(whole.read(None));
        assert!(now.iter().any(|(_, it)| *it == name), "{name}: {now:#?}");
        let hidden: Vec<_> = before.difference(&now).collect();
        assert!(hidden.is_empty(), "{name} hides {hidden:#?}");
        match class {
            ObjectClass::Kept => memory.tamper(&name, |bytes| bytes.truncate(0)),
            _ => memory.tamper(&name, |bytes| bytes[size as usize - 1] ^= 0x10),
        }
    }
    let read = ObjectClass::KNOWN.len() - NEVER_READ.len();
    assert_eq!(tried.len(), read, "{tried:?}");
}

/// What is asked without reading everything back: each names what is damaged, and answers for the rest.
#[test]
fn a_damaged_record_hides_nothing_from_whoever_asks_for_its_kind() {
    let whole = Whole::new();
    let (memory, repository) = (&whole.world.memory, &whole.world.repository);
    let sound = wal_inventory(repository).unwrap();
    let put = |name: &str| memory.put(name, b"{").unwrap();
    let bad = "holes/00000001/0000000000000001-0000000000000002.s1";
    put(bad);
    let inventory = wal_inventory(repository).unwrap();
    assert_eq!(inventory.timelines, sound.timelines);
    let damaged: Vec<_> = inventory.damaged.iter().map(Error::object).collect();
    assert_eq!(damaged, [Some(bad)]);
    assert!(is_hole_record(bad));

    let timelines = known_timelines(repository).unwrap();
    put("timelines/zz.history");
    put("timelines/zz.reserved.r-2");
    assert_eq!(known_timelines(repository).unwrap(), timelines);
    let reserved = reserve(repository, "r-3").unwrap();
    assert!(reserved > 3, "{reserved}");

    let known = heads(repository, "1").unwrap();
    put("heads/1/zz");
    assert_eq!(heads(repository, "1").unwrap(), known);

    let parts = archive_listing(repository, 1).unwrap();
    put("audit/entries/1/00000001-0000000000000003-0000000000000004");
    let now = archive_listing(repository, 1).unwrap();
    assert_eq!((now.len(), parts.len()), (2, 1));
    assert!(now[0].1.is_ok() && now[1].1.is_err());

    let backups = catalogue(repository).unwrap().backups.len();
    put("backups/20261123T071530Z-00000009/manifest");
    put("backups/20261123T081530Z-00000001/proof-0000000000000008");
    let all = catalogue(repository).unwrap();
    assert_eq!((all.backups.len(), all.damaged.len()), (backups, 2));
}

#[test]
fn what_is_missing_and_needed_is_named_with_its_class() {
    let whole = Whole::new();
    let check = |name: &str, class: ObjectClass, says: &str| {
        let bytes = whole.delete(name);
        let found = whole.read(None);
        let named = found
            .findings
            .iter()
            .any(|it| it.class == class && it.what.contains(says) && !it.remedy.is_empty());
        assert!(named, "{name}: {:#?}", found.findings);
        whole.world.memory.put(name, &bytes).unwrap();
    };
    let of = |class: ObjectClass| {
        let mut all = whole.objects();
        all.retain(|(it, ..)| *it == class);
        all.into_iter().map(|(_, name, _)| name).collect::<Vec<_>>()
    };
    let segments = of(ObjectClass::WalSegment);
    assert_eq!(segments.len(), 3);
    check(
        &segments[1],
        ObjectClass::WalSegment,
        "nobody put that on record",
    );
    check(&segments[0], ObjectClass::Manifest, "is not all here");
    check(
        &of(ObjectClass::WalTail)[0],
        ObjectClass::WalTail,
        "the newest WAL is missing",
    );
    for pack in of(ObjectClass::Pack) {
        check(&pack, ObjectClass::Pack, "it is missing");
    }
    check(
        &of(ObjectClass::PackList)[1],
        ObjectClass::PackList,
        "it is missing",
    );
    let list = &of(ObjectClass::SnapshotPackList)[0];
    check(list, ObjectClass::SnapshotPackList, "it is missing");
    // No wrap, and its object cannot be opened by anybody.
    let wraps = of(ObjectClass::Wrap);
    let bytes = whole.delete(&wraps[0]);
    let found = whole.read(None);
    assert!(
        found.findings.iter().any(|it| it.what.contains("wraps/")),
        "{:#?}",
        found.findings
    );
    whole.world.memory.put(&wraps[0], &bytes).unwrap();
    // On record and made up for by no backup: told as well, as what it is.
    let hole = &segments[1];
    let bytes = whole.delete(hole);
    record_hole(
        &whole.world.repository,
        1,
        2 * SEGMENT,
        3 * SEGMENT,
        "s1",
        "the slot was lost",
    )
    .unwrap();
    let found = whole.read(None);
    let known = found
        .findings
        .iter()
        .find(|it| it.class == ObjectClass::Hole)
        .unwrap();
    assert!(known.what.contains("the slot was lost"), "{known:?}");
    assert_eq!(
        found.timelines[0].gaps[0].cause,
        GapCause::KnownHole {
            reason: "the slot was lost".to_owned(),
            is_made_up_for: false
        }
    );
    whole.world.memory.put(hole, &bytes).unwrap();
}

#[test]
fn a_host_that_cannot_read_says_so_and_finds_what_needs_no_key() {
    let whole = Whole::new();
    let closed = whole.read_with(None, None, None);
    assert!(closed.is_sound(), "{:#?}", closed.findings);
    let sealed = |class: ObjectClass| closed.classes.iter().find(|it| it.class == class).unwrap();
    for class in [
        ObjectClass::Pack,
        ObjectClass::Manifest,
        ObjectClass::WalSegment,
        ObjectClass::WalTail,
        ObjectClass::History,
        ObjectClass::AuditEntries,
        ObjectClass::LogStretch,
        ObjectClass::Snapshot,
    ] {
        let report = sealed(class);
        assert_eq!(report.not_opened, report.objects, "{class:?}");
    }
    assert_eq!(closed.closed, ["the private key is not here"]);
    // Another's key opens nothing either, and is no damage.
    let stranger = RecipientPrivate::generate().unwrap();
    let closed = whole.read_with(Some(&stranger), None, None);
    assert!(closed.is_sound(), "{:#?}", closed.findings);
    assert!(
        closed.closed.iter().any(|it| it.contains("sealed for")),
        "{:?}",
        closed.closed
    );
    // Headers, lengths and the order of boxes need no key.
    for prefix in ["packs/", "wal/", "tail/"] {
        let name = whole.world.names(prefix)[0].clone();
        whole
            .world
            .memory
            .tamper(&name, |bytes| bytes.truncate(bytes.len() - 1));
        let found = whole.read_with(None, None, None);
        let is_tail = prefix == "tail/";
        // A tail may end anywhere: a crash cuts it.
        assert!(
            is_tail || names(&found.findings).contains(&name.as_str()),
            "{name}"
        );
        whole.world.memory.tamper(&name, |bytes| bytes.push(0));
    }
}

#[test]
fn a_snapshot_of_a_newer_format_is_named_and_is_no_damage() {
    let whole = Whole::new();
    let id = "20261123T101530Z-00000003";
    super::snapshots::newer(&whole.world, id, &[]);
    let found = whole.read(None);
    assert!(found.is_sound(), "{:#?}", found.findings);
    let folder = format!("snapshots/configuration/{id}");
    let noted = names(&found.notes);
    assert!(noted.contains(&format!("{folder}/manifest").as_str()));
    assert!(noted.contains(&format!("{folder}/part-1").as_str()));
    assert_eq!(found.not_opened(), 1);
    assert!(found.closed[0].contains("format version 2"), "{found:?}");
}

#[test]
fn a_foreign_object_is_named_and_breaks_nothing() {
    let whole = Whole::new();
    whole.world.memory.put("backups/readme", b"x").unwrap();
    let found = whole.read(None);
    assert!(found.is_sound(), "{:#?}", found.findings);
    assert!(names(&found.notes).contains(&"backups/readme"));
}

/// Stops after a few objects.
struct Impatient(std::sync::atomic::AtomicU64);

impl Progress for Impatient {
    fn advance(&self, _: u64) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    fn cancelled(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed) > 3
    }
}

#[test]
fn what_was_stopped_half_way_is_not_called_sound() {
    let whole = Whole::new();
    let options = ReadBackOptions {
        private: None,
        archive: None,
        rules: Rules::default(),
        now_micros: 0,
        repository_id: None,
        audit: &Heads,
        evidence: Vec::new(),
        threads: 1,
    };
    let found = read_back(&whole.world.repository, &options, &Impatient(0.into())).unwrap();
    assert!(found.cancelled && !found.is_sound());
}
