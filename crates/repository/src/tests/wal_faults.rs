//! Crashes, torn writes and stores that come back: acknowledged WAL is always there, and damage never passes for an end.

use proptest::prelude::*;

use super::*;

/// A world with one tail of three frames (100, 5000 and 2000 bytes); its name and bytes.
fn with_tail() -> (World, String, Vec<u8>) {
    let world = World::new();
    let mut writer = world.writer(SEGMENT).unwrap();
    for (from, to) in [(0, 100), (100, 5100), (5100, 7100)] {
        writer
            .append(SEGMENT + from, &wal(SEGMENT + from, SEGMENT + to), 1)
            .unwrap();
    }
    let name = world.only("tail/");
    let bytes = world.memory.get(&name).unwrap();
    (world, name, bytes)
}

/// How far the tail reaches, with and without the key.
fn end(world: &World) -> Result<u64> {
    let newest = world.reader().segment(1, 1)?;
    let inventory = world.reader().inventory()?;
    if let Some(error) = inventory.damaged.into_iter().next() {
        return Err(error);
    }
    let end = inventory
        .timelines
        .get(&1)
        .and_then(TimelineWal::end)
        .unwrap_or(SEGMENT)
        - SEGMENT;
    if let Some(bytes) = newest {
        let len = usize::try_from(end).unwrap();
        assert_eq!(bytes[..len], wal(SEGMENT, SEGMENT + end));
        assert!(bytes[len..].iter().all(|byte| *byte == 0));
    }
    Ok(end)
}

#[test]
fn a_torn_last_frame_is_ignored_wherever_it_is_cut() {
    let (world, name, whole) = with_tail();
    let ends = [
        36 + 48,
        36 + 48 + 56 + 100,
        36 + 48 + 2 * 56 + 5100,
        whole.len(),
    ];
    for len in (0..whole.len()).rev().step_by(53).chain(ends) {
        world
            .memory
            .tamper(&name, |bytes| *bytes = whole[..len].to_vec());
        let frames = ends[1..].iter().filter(|end| **end <= len).count();
        assert_eq!(
            end(&world).unwrap(),
            [0, 100, 5100, 7100][frames],
            "cut at {len}"
        );
    }
}

#[test]
fn a_last_frame_whose_sectors_never_arrived_is_ignored() {
    let (world, name, whole) = with_tail();
    let last = 36 + 48 + 2 * 56 + 5100;
    for sector in last / 512 + 1..whole.len() / 512 {
        world.memory.tamper(&name, |bytes| {
            *bytes = whole.clone();
            bytes[sector * 512..(sector + 1) * 512].fill(0);
        });
        assert_eq!(end(&world).unwrap(), 5100, "sector {sector}");
    }
    world.memory.tamper(&name, |bytes| {
        *bytes = whole.clone();
        bytes[last..].fill(0);
    });
    assert_eq!(end(&world).unwrap(), 5100, "all of it");
    world.memory.tamper(&name, |bytes| {
        *bytes = whole.clone();
        bytes.extend([0; 9000]);
    });
    assert_eq!(end(&world).unwrap(), 7100, "padding");
}

/// A frame that shares its first or its last sector with little of itself, and that sector never arrived.
#[test]
fn a_last_frame_that_lost_a_few_bytes_at_its_ends_is_ignored() {
    // Object header, then 56 bytes around each frame's WAL.
    let frame_at = |first: u64| 84 + 56 + first;
    for few in 1..=40 {
        // It begins so many bytes before the end of a sector, or ends so many bytes after the beginning of one.
        let begins = (1024 - few - frame_at(0), 3000);
        let ends = (1024 - frame_at(0), 2048 + few - 56);
        for (number, (first, last)) in [begins, ends].into_iter().enumerate() {
            let world = World::new();
            let mut writer = world.writer(SEGMENT).unwrap();
            let (middle, to) = (SEGMENT + first, SEGMENT + first + last);
            writer.append(SEGMENT, &wal(SEGMENT, middle), 1).unwrap();
            writer.append(middle, &wal(middle, to), 1).unwrap();
            let name = world.only("tail/");
            let whole = world.memory.get(&name).unwrap();
            let lost = match number {
                0 => usize::try_from(frame_at(first)).unwrap(),
                _ => whole.len() - usize::try_from(few).unwrap(),
            };
            let lost = lost..lost + usize::try_from(few).unwrap();
            let changes_nothing = whole[lost.clone()].iter().all(|byte| *byte == 0);
            world.memory.tamper(&name, |bytes| bytes[lost].fill(0));
            let expected = if changes_nothing { first + last } else { first };
            assert_eq!(end(&world).unwrap(), expected, "{few} bytes, {number}");
        }
    }
}

#[test]
fn a_bad_frame_in_the_middle_is_damage_with_its_offset() {
    let (world, name, whole) = with_tail();
    let second = 36 + 48 + 56 + 100;
    type Spoil = fn(&mut [u8]);
    let damage: [(&str, Spoil); 4] = [
        ("a flipped byte", |frame| frame[900] ^= 1),
        ("a lost sector", |frame| frame[512..1536].fill(0)),
        ("a lost header", |frame| frame[..40].fill(0)),
        ("a length too long", |frame| frame[0] = 1),
    ];
    for (what, spoil) in damage {
        world.memory.tamper(&name, |bytes| {
            *bytes = whole.clone();
            spoil(&mut bytes[second..second + 5056]);
        });
        let error = end(&world).expect_err(what);
        let expected = format!("`{name}` is damaged at byte {second}");
        assert!(error.to_string().contains(&expected), "{what}: {error}");
    }
    world.memory.tamper(&name, |bytes| {
        *bytes = whole.clone();
        let last = bytes.len() - 50;
        bytes[last] ^= 1;
    });
    assert!(
        end(&world).is_err(),
        "a flipped byte in the last frame is no torn write"
    );
}

/// The segment object is there, the tails are not yet gone: it wins, and the next sweep removes them.
#[test]
fn a_crash_between_segment_object_and_tail_deletion() {
    let world = World::new();
    world.faults.set_deny_delete(true);
    let mut writer = world.writer(SEGMENT).unwrap();
    writer
        .append(SEGMENT, &wal(SEGMENT, 2 * SEGMENT), 1)
        .unwrap();
    writer.finish().unwrap();
    assert_eq!(
        (world.names("wal/").len(), world.names("tail/").len()),
        (1, 1)
    );
    world
        .memory
        .tamper(&world.only("tail/"), |bytes| bytes[500] ^= 1);
    assert_eq!(
        world.reader().segment(1, 1).unwrap().unwrap(),
        wal(SEGMENT, 2 * SEGMENT)
    );
    assert!(wal_inventory(&world.repository).unwrap().damaged.is_empty());

    world.faults.set_deny_delete(false);
    let report = world.reader().compact(world.private.public()).unwrap();
    assert_eq!((report.sealed, report.swept), (0, 1));
    assert_eq!(world.names("tail/"), [""; 0]);
}

/// A damaged segment object beside its tails costs nothing.
#[test]
fn tails_stand_in_for_a_damaged_segment_object() {
    let world = World::new();
    world.faults.set_deny_delete(true);
    let mut writer = world.writer(SEGMENT).unwrap();
    writer
        .append(SEGMENT, &wal(SEGMENT, 2 * SEGMENT), 1)
        .unwrap();
    writer.finish().unwrap();
    world
        .memory
        .tamper(&world.only("wal/"), |bytes| bytes[500] ^= 1);
    assert_eq!(
        world.reader().segment(1, 1).unwrap().unwrap(),
        wal(SEGMENT, 2 * SEGMENT)
    );
}

/// Appends fail while the store is full, sealing goes on by itself when it is back.
#[test]
fn the_writer_goes_on_when_the_store_is_back() {
    let world = World::new();
    let mut writer = world.writer(SEGMENT).unwrap();
    writer
        .append(SEGMENT, &wal(SEGMENT, SEGMENT + 100), 1)
        .unwrap();
    for fault in [
        FaultyStore::set_full,
        FaultyStore::set_away,
        FaultyStore::set_read_only,
    ] {
        fault(&world.faults, true);
        let at = writer.durable_lsn();
        for _ in 0..2 {
            let error = writer.append(at, &wal(at, at + 100), 1).unwrap_err();
            assert!(error.is_unavailable(), "{error}");
            assert_eq!(writer.durable_lsn(), at);
        }
        fault(&world.faults, false);
        writer.append(at, &wal(at, at + 100), 1).unwrap();
    }
    let at = writer.durable_lsn();
    writer.append(at, &wal(at, 2 * SEGMENT + 5), 2).unwrap();
    writer.finish().unwrap();
    assert_eq!(world.names("wal/").len(), 1);
    assert_eq!(
        world.reader().bytes(1, SEGMENT, 2 * SEGMENT + 5).unwrap(),
        wal(SEGMENT, 2 * SEGMENT + 5)
    );
}

#[test]
fn trouble_with_sealing_is_shown_and_fails_no_append() {
    let world = World::new();
    let mut writer = world.writer(SEGMENT).unwrap();
    world.faults.set_deny_put(Some("wal/"));
    writer
        .append(SEGMENT, &wal(SEGMENT, 2 * SEGMENT), 1)
        .unwrap();
    while writer.seal_status().last_error.is_none() {
        std::thread::yield_now();
    }
    let status = writer.seal_status();
    assert_eq!((status.pending, status.sealed), (1, 0));
    assert!(status.last_error.unwrap().contains("put denied"));
    writer
        .append(2 * SEGMENT, &wal(2 * SEGMENT, 2 * SEGMENT + 1), 2)
        .unwrap();
    world.faults.set_deny_put(None);
    while writer.seal_status().pending > 0 {
        std::thread::yield_now();
    }
    let sealed = SealStatus {
        sealed: 1,
        ..SealStatus::default()
    };
    assert_eq!(writer.seal_status(), sealed);
}

/// Object lock, a policy, a gateway that answers 403: what cannot be deleted costs room, and nothing waits for it.
#[test]
fn where_nothing_can_be_deleted_segments_are_sealed_all_the_same_and_readers_pass_over_what_stays()
{
    for grows in [true, false] {
        let world = World::new();
        world.faults.set_without_appender(!grows);
        let mut writer = world.writer(SEGMENT).unwrap();
        world.faults.set_deny_delete(true);
        for segment in 1..4 {
            let (from, to) = (segment * SEGMENT, (segment + 1) * SEGMENT);
            // A heartbeat a minute, on which nothing waits either.
            for minute in 0..4 {
                let at = from + minute * 1000;
                let time = (segment.cast_signed() * 10 + minute.cast_signed()) * 61_000_000;
                writer.append(at, &wal(at, at + 1000), time).unwrap();
                writer.heartbeat(time + 30_000_000).unwrap();
            }
            let at = from + 4000;
            writer.append(at, &wal(at, to), 0).unwrap();
        }
        while writer.seal_status().pending > 0 {
            std::thread::yield_now();
        }
        let status = writer.seal_status();
        assert_eq!(status.sealed, 3);
        let reason = status.undeleted_reason.unwrap_or_default();
        assert!(
            status.undeleted >= 3 && reason.contains("deletion denied"),
            "{} {reason}",
            status.undeleted
        );
        writer.finish().unwrap();

        let left = world.names("tail/");
        assert!(left.len() as u64 >= status.undeleted);
        let reads = world.faults.reads_of("tail");
        let inventory = wal_inventory(&world.repository).unwrap();
        assert!(inventory.covers(1, SEGMENT, 4 * SEGMENT));
        let bytes = world.reader().bytes(1, SEGMENT, 4 * SEGMENT).unwrap();
        assert_eq!(bytes, wal(SEGMENT, 4 * SEGMENT));
        assert_eq!(
            world.faults.reads_of("tail") - reads,
            0,
            "a tail beside its segment is not asked for"
        );

        // Told, not tried for each; and gone when it may go.
        let report = world.reader().compact(world.private.public()).unwrap();
        assert_eq!((report.sealed, report.swept), (0, 0));
        assert!(report.undeleted_reason.unwrap().contains("deletion denied"));
        world.faults.set_deny_delete(false);
        let report = world.reader().compact(world.private.public()).unwrap();
        assert_eq!((report.swept, report.undeleted_reason), (3, None));
        assert_eq!(world.names("tail/"), [""; 0]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Random appends, random faults with torn bytes, a power cut: whatever was acknowledged reads back.
    #[test]
    fn acknowledged_wal_survives(
        seed in any::<u64>(),
        lens in prop::collection::vec(1u64..40_000, 1..25),
        percent in 0u64..30,
        crash in prop::option::of(0u64..60),
    ) {
        let memory = MemoryStore::new();
        Repository::init(Arc::new(memory.clone())).unwrap();
        let faults = FaultyStore::new(Arc::new(memory.clone()), seed);
        let repository = Repository::open(Arc::new(faults.clone())).unwrap();
        let private = RecipientPrivate::generate().unwrap();
        let mut writer =
            WalWriter::new(&repository, private.public(), SYSTEM, 1, SEGMENT, "s1", SEGMENT).unwrap();
        faults.set_write_fault_percent(percent);
        faults.crash_at_write(crash);
        let mut at = SEGMENT;
        for len in lens {
            // Each append is tried a few times, as the stream does.
            let _ = (0..4).any(|_| writer.append(at, &wal(at, at + len), 1).is_ok());
            at = writer.durable_lsn();
        }
        let _ = writer.finish();

        let repository = Repository::open(Arc::new(memory)).unwrap();
        let reader = WalReader::new(&repository, &private);
        let inventory = reader.inventory().unwrap();
        prop_assert!(inventory.damaged.is_empty(), "{:?}", inventory.damaged);
        let end = inventory.timelines.get(&1).and_then(TimelineWal::end).unwrap_or(SEGMENT);
        prop_assert!(end >= at, "{} bytes lost", at - end);
        prop_assert_eq!(reader.bytes(1, SEGMENT, at).unwrap(), wal(SEGMENT, at));
        reader.compact(private.public()).unwrap();
        prop_assert_eq!(reader.bytes(1, SEGMENT, at).unwrap(), wal(SEGMENT, at));
    }
}

/// A stream begins where a look without keys says that the repository ends, and tells the server so.
#[test]
fn without_keys_a_frame_that_was_cut_short_in_zeros_does_not_count() {
    let (world, name, whole) = with_tail();
    let last = 36 + 48 + 2 * 56 + 5100;
    for (cut, expected) in [
        (last + 40, 5100),
        (last + 700, 5100),
        (whole.len() - 4, 5100),
        (whole.len(), 7100),
    ] {
        world.memory.tamper(&name, |bytes| {
            *bytes = whole[..cut].to_vec();
            bytes.resize(whole.len() + 70_000, 0);
        });
        for look in [
            crate::wal::wal_inventory,
            crate::wal::wal_inventory_to_go_on,
        ] {
            let inventory = look(&world.repository).unwrap();
            let end = inventory.timelines.get(&1).and_then(TimelineWal::end);
            assert_eq!(end, Some(SEGMENT + expected), "cut at {cut}");
        }
    }
}

/// Files are made ahead as zeros: those behind the last frame must not make a bad frame look like one that was cut short.
#[test]
fn with_zeros_ahead_damage_is_still_damage() {
    let (world, name, whole) = with_tail();
    let last = 36 + 48 + 2 * 56 + 5100;
    let set = |change: &dyn Fn(&mut Vec<u8>)| {
        world.memory.tamper(&name, |bytes| {
            *bytes = whole.clone();
            change(bytes);
            bytes.resize(whole.len() + 70_000, 0);
        });
        end(&world)
    };
    assert_eq!(set(&|_| {}).unwrap(), 7100);
    assert_eq!(set(&|bytes| bytes.truncate(last + 700)).unwrap(), 5100);
    assert_eq!(set(&|bytes| bytes.truncate(last + 20)).unwrap(), 5100);
    for cut in [0, 10, 40, 83] {
        assert_eq!(set(&|bytes| bytes.truncate(cut)).unwrap(), 0, "cut {cut}");
    }
    assert!(set(&|bytes| bytes[20] ^= 1).is_err(), "the object's header");
    for at in [last + 5, last + 28, last + 900, whole.len() - 1] {
        assert!(set(&|bytes| bytes[at] ^= 1).is_err(), "byte {at}");
    }
}
