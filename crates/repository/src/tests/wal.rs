use super::*;

fn intervals(world: &World) -> Vec<(u64, u64, i64)> {
    let keyless = wal_inventory(&world.repository).unwrap();
    let proven = world.reader().inventory().unwrap();
    assert_eq!(keyless.timelines, proven.timelines);
    assert!(keyless.damaged.is_empty(), "{:?}", keyless.damaged);
    let wal = proven.timelines.get(&1).cloned().unwrap_or_default();
    wal.intervals
        .iter()
        .map(|i| (i.start, i.end, i.end_time_micros))
        .collect()
}

fn check_bytes(world: &World, from: u64, to: u64) {
    assert_eq!(world.reader().bytes(1, from, to).unwrap(), wal(from, to));
}

/// Appends of all sizes, across segment ends, with and without appending stores.
#[test]
fn what_was_acknowledged_is_there() {
    for without_appender in [false, true] {
        let world = World::new();
        world.faults.set_without_appender(without_appender);
        let mut writer = world.writer(SEGMENT).unwrap();
        let mut at = SEGMENT;
        for (number, len) in [1, 8192, 70_000, 3, 200_000, 65_536, 24]
            .into_iter()
            .enumerate()
        {
            writer
                .append(at, &wal(at, at + len), number as i64)
                .unwrap();
            at += len;
            assert_eq!(writer.durable_lsn(), at);
            assert_eq!(intervals(&world), [(SEGMENT, at, number as i64)]);
        }
        check_bytes(&world, SEGMENT, at);
        writer.finish().unwrap();
        check_bytes(&world, SEGMENT + 17, at - 3);
        assert_eq!(intervals(&world), [(SEGMENT, at, 6)]);
        assert_eq!(world.names("wal/").len() as u64, at / SEGMENT - 1);
        assert!(
            world
                .names("tail/")
                .iter()
                .all(|name| name.contains(&format!("/{:016x}/", at / SEGMENT)))
        );
    }
}

#[test]
fn segments_are_whole_padded_or_proven_absent() {
    let world = World::new();
    let mut writer = world.writer(SEGMENT).unwrap();
    writer
        .append(SEGMENT, &wal(SEGMENT, 2 * SEGMENT + 100), 1)
        .unwrap();
    writer.finish().unwrap();
    let reader = world.reader();
    assert_eq!(
        reader.segment(1, 1).unwrap().unwrap(),
        wal(SEGMENT, 2 * SEGMENT)
    );
    let newest = reader.segment(1, 2).unwrap().unwrap();
    assert_eq!(newest[..100], wal(2 * SEGMENT, 2 * SEGMENT + 100));
    assert_eq!(newest[100..], vec![0; SEGMENT as usize - 100]);
    assert_eq!(reader.segment(1, 3).unwrap(), None);
    assert_eq!(reader.segment(2, 1).unwrap(), None);
    assert!(
        matches!(reader.segment(1, 0), Err(Error::WalHole { .. })),
        "earlier than the first is no end of WAL"
    );
    world.faults.set_away(true);
    assert!(reader.segment(1, 3).is_err(), "away is not absent");
}

#[test]
fn a_hole_behind_the_target_is_no_obstacle() {
    let world = World::new();
    let end = 2 * SEGMENT + 100;
    let mut before = world.writer(SEGMENT).unwrap();
    before.append(SEGMENT, &wal(SEGMENT, end), 1).unwrap();
    let mut after = world.writer(4 * SEGMENT).unwrap();
    after
        .append(4 * SEGMENT, &wal(4 * SEGMENT, 4 * SEGMENT + 10), 2)
        .unwrap();
    let reader = world.reader();
    let segment = reader.segment_until(1, 2, end - 1).unwrap().unwrap();
    let mut padded = wal(2 * SEGMENT, end);
    padded.resize(SEGMENT as usize, 0);
    assert!(segment == padded);
    for (segment, until) in [(2, end), (2, u64::MAX), (3, end - 1)] {
        let error = reader.segment_until(1, segment, until).unwrap_err();
        assert!(
            matches!(error, Error::WalHole { .. }),
            "{segment} {until}: {error}"
        );
    }
}

#[test]
fn a_hole_is_never_handed_out_as_the_end() {
    let world = World::new();
    let mut first = world.writer(SEGMENT).unwrap();
    first
        .append(SEGMENT, &wal(SEGMENT, SEGMENT + 100), 1)
        .unwrap();
    let mut second = world.writer(3 * SEGMENT).unwrap();
    second
        .append(3 * SEGMENT, &wal(3 * SEGMENT, 3 * SEGMENT + 50), 2)
        .unwrap();
    let reader = world.reader();
    for segment in [1, 2] {
        let error = reader.segment(1, segment).unwrap_err();
        assert!(
            matches!(error, Error::WalHole { .. }),
            "segment {segment}: {error}"
        );
    }
    assert!(reader.bytes(1, SEGMENT, 3 * SEGMENT).is_err());
    assert_eq!(
        intervals(&world),
        [
            (SEGMENT, SEGMENT + 100, 1),
            (3 * SEGMENT, 3 * SEGMENT + 50, 2)
        ]
    );
}

/// Restarted in the middle of a segment: both writers' tails count, and overlaps are harmless.
#[test]
fn writers_follow_each_other() {
    let world = World::new();
    let mut first = world.writer(SEGMENT).unwrap();
    first
        .append(SEGMENT, &wal(SEGMENT, SEGMENT + 1000), 1)
        .unwrap();
    drop(first);
    let mut second = world.writer(SEGMENT + 600).unwrap();
    second
        .append(SEGMENT + 600, &wal(SEGMENT + 600, 2 * SEGMENT + 10), 2)
        .unwrap();
    second.finish().unwrap();
    check_bytes(&world, SEGMENT, 2 * SEGMENT + 10);
    assert_eq!(
        world.names("wal/"),
        [""; 0],
        "the second writer did not see the whole segment"
    );

    let report = world.reader().compact(world.private.public()).unwrap();
    assert_eq!((report.sealed, report.swept), (1, 1));
    assert_eq!(world.names("wal/").len(), 1);
    assert_eq!(world.names("tail/").len(), 1);
    check_bytes(&world, SEGMENT, 2 * SEGMENT + 10);
    assert_eq!(intervals(&world), [(SEGMENT, 2 * SEGMENT + 10, 2)]);
    assert_eq!(
        world.reader().compact(world.private.public()).unwrap(),
        CompactReport::default()
    );
}

#[test]
fn a_restart_at_the_segment_start_supersedes_older_tails() {
    let world = World::new();
    let mut first = world.writer(SEGMENT).unwrap();
    first
        .append(SEGMENT, &wal(SEGMENT, SEGMENT + 1000), 1)
        .unwrap();
    drop(first);
    let mut second = world.writer(SEGMENT).unwrap();
    second
        .append(SEGMENT, &wal(SEGMENT, 2 * SEGMENT), 2)
        .unwrap();
    second.finish().unwrap();
    assert_eq!(world.names("tail/"), [""; 0]);
    check_bytes(&world, SEGMENT, 2 * SEGMENT);
}

#[test]
fn heartbeats_move_the_end_of_the_window_once_a_second() {
    let world = World::new();
    let mut writer = world.writer(SEGMENT).unwrap();
    writer.heartbeat(5_000_000).unwrap();
    assert_eq!(intervals(&world), [(SEGMENT, SEGMENT, 5_000_000)]);
    writer
        .append(SEGMENT, &wal(SEGMENT, SEGMENT + 10), 6_000_000)
        .unwrap();
    let writes = world.faults.writes();
    writer.heartbeat(6_999_999).unwrap();
    assert_eq!(world.faults.writes(), writes);
    writer.heartbeat(7_000_000).unwrap();
    assert_eq!(intervals(&world), [(SEGMENT, SEGMENT + 10, 7_000_000)]);
    writer
        .append(SEGMENT + 10, &wal(SEGMENT + 10, 2 * SEGMENT), 8_000_000)
        .unwrap();
    writer.heartbeat(9_500_000).unwrap();
    writer.finish().unwrap();
    assert_eq!(intervals(&world), [(SEGMENT, 2 * SEGMENT, 9_500_000)]);
    check_bytes(&world, SEGMENT, 2 * SEGMENT);
}

#[test]
fn segments_know_when_they_were_confirmed() {
    let world = World::new();
    let mut writer = world.writer(SEGMENT).unwrap();
    writer
        .append(SEGMENT, &wal(SEGMENT, SEGMENT + 10), 5)
        .unwrap();
    writer
        .append(SEGMENT + 10, &wal(SEGMENT + 10, 2 * SEGMENT + 10), 7)
        .unwrap();
    writer.append(2 * SEGMENT + 10, &wal(0, 1), 9).unwrap();
    writer.finish().unwrap();
    let times = [1, 2, 3].map(|segment| world.reader().confirmed_at(1, segment).unwrap());
    assert_eq!(times, [Some(7), Some(9), None]);
}

#[test]
fn wal_out_of_order_and_of_other_clusters_is_refused() {
    let world = World::new();
    let mut writer = world.writer(SEGMENT).unwrap();
    let error = writer.append(SEGMENT + 1, b"x", 1).unwrap_err();
    assert!(matches!(error, Error::WalPosition { expected, .. } if expected == SEGMENT));
    writer
        .append(SEGMENT, &wal(SEGMENT, SEGMENT + 9), 1)
        .unwrap();
    writer
        .append(SEGMENT + 4, &wal(SEGMENT + 4, SEGMENT + 12), 1)
        .unwrap();
    assert_eq!(
        writer.durable_lsn(),
        SEGMENT + 12,
        "what is known already is skipped"
    );
    check_bytes(&world, SEGMENT, SEGMENT + 12);

    let foreign = WalWriter::new(
        &world.repository,
        world.private.public(),
        SYSTEM + 1,
        1,
        SEGMENT,
        "s2",
        SEGMENT,
    );
    assert!(matches!(foreign, Err(Error::ForeignCluster { found, .. }) if found == SYSTEM + 1));
}

/// Another cluster's objects, copied in by hand with their wraps, are refused by name.
#[test]
fn foreign_objects_are_refused_by_name() {
    let world = World::new();
    world.backup("20261123T081530Z-00000001").unwrap();
    let stranger = World::new();
    let writer = WalWriter::new(
        &stranger.repository,
        world.private.public(),
        SYSTEM + 1,
        1,
        SEGMENT,
        "s2",
        SEGMENT,
    );
    let mut writer = writer.unwrap();
    writer
        .append(SEGMENT, &wal(SEGMENT, 2 * SEGMENT + 5), 1)
        .unwrap();
    writer.finish().unwrap();
    for object in stranger
        .names("")
        .iter()
        .filter(|name| !name.starts_with("cluster/") && *name != MARKER)
    {
        world
            .memory
            .put(object, &stranger.memory.get(object).unwrap())
            .unwrap();
    }
    for (segment, prefix) in [(1, "wal/"), (2, "tail/")] {
        let error = world.reader().segment(1, segment).unwrap_err();
        assert!(
            matches!(&error, Error::ForeignCluster { object, .. } if object.starts_with(prefix)),
            "{error}"
        );
    }
    let inventory = wal_inventory(&world.repository).unwrap();
    assert_eq!(inventory.damaged.len(), 2, "{:?}", inventory.damaged);
    assert_eq!(inventory.timelines[&1].intervals, []);
}

#[test]
fn holes_are_on_record() {
    let world = World::new();
    record_hole(&world.repository, 1, 100, 200, "s1", "the slot was dropped").unwrap();
    record_hole(&world.repository, 1, 100, 200, "s1", "the slot was dropped").unwrap();
    let holes = wal_inventory(&world.repository)
        .unwrap()
        .timelines
        .remove(&1)
        .unwrap()
        .holes;
    assert_eq!(holes.len(), 1);
    assert_eq!(
        (holes[0].start, holes[0].end, holes[0].reason.as_str()),
        (100, 200, "the slot was dropped")
    );
}

#[test]
fn segment_files_have_postgresqls_names() {
    assert_eq!(
        segment_file_name(1, 1, 16 << 20),
        "000000010000000000000001"
    );
    assert_eq!(
        segment_file_name(10, 0x1_02, 16 << 20),
        "0000000A0000000100000002"
    );
    assert_eq!(segment_file_name(1, 5, 1 << 30), "000000010000000100000001");
}

/// Where none grows, each heartbeat is an object: once in ten seconds, for a minute.
#[test]
fn heartbeats_of_an_idle_server_do_not_pile_up_where_objects_do_not_grow() {
    let world = World::new();
    world.faults.set_without_appender(true);
    let mut writer = world.writer(SEGMENT).unwrap();
    writer
        .append(SEGMENT, &wal(SEGMENT, SEGMENT + 100), 1)
        .unwrap();
    for second in 1..=600 {
        writer.heartbeat(second * 1_000_000).unwrap();
        let end = intervals(&world)[0].2;
        assert!(second * 1_000_000 - end < 10_000_000, "{end} at {second}");
    }
    // What a newer one replaces is deleted behind the writer.
    testkit::eventually("heartbeats of one minute are left", || {
        (6..=9).contains(&world.names("tail/").len()).then_some(())
    });
    check_bytes(&world, SEGMENT, SEGMENT + 100);
}

/// Expiry lets go of tails by their age: a segment may miss its beginning for a while, and the others are tidied all the same.
#[test]
fn a_segment_that_will_never_be_whole_does_not_stop_the_tidying_of_others() {
    let world = World::new();
    world.faults.set_without_appender(true);
    let put = |from: u64, to: &[u64]| {
        let mut writer = world.writer(from).unwrap();
        let mut at = from;
        for to in to {
            writer.append(at, &wal(at, *to), 1).unwrap();
            at = *to;
        }
        writer.finish().unwrap();
    };
    put(SEGMENT, &[SEGMENT + 100, SEGMENT + 200]);
    let first = world.names("tail/").remove(0);
    world.memory.delete(&first).unwrap();
    let kept = world.names("tail/");
    // Two writers, neither of which saw the whole segment.
    put(3 * SEGMENT, &[3 * SEGMENT + 1000]);
    put(3 * SEGMENT + 600, &[4 * SEGMENT]);

    let report = world.reader().compact(world.private.public()).unwrap();
    assert_eq!((report.sealed, report.swept), (1, 1));
    assert_eq!(world.names("tail/"), kept);
}

/// A segment longer than a box lies in several; memory must not grow with what the server was made with.
#[test]
fn a_segment_of_any_size_is_sealed_box_by_box_and_read_as_before() {
    const LONG: u64 = 32 << 20;
    let world = World::new();
    let bytes: Vec<u8> = (0..LONG / 8)
        .flat_map(|at| (at / 64).to_le_bytes())
        .collect();
    let long_writer = |serial: &str| {
        WalWriter::new(
            &world.repository,
            world.private.public(),
            SYSTEM,
            1,
            LONG,
            serial,
            LONG,
        )
        .unwrap()
    };
    let mut writer = long_writer("a");
    for (at, part) in (LONG..).step_by(9 << 20).zip(bytes.chunks(9 << 20)) {
        writer.append(at, part, 7).unwrap();
    }
    // No tail is longer than what one box holds, so whoever reads one needs no more.
    let longest = world.memory.list("tail/").unwrap();
    assert!(
        longest.iter().all(|tail| tail.size < (4 << 20) + 4096),
        "{longest:?}"
    );
    writer.finish().unwrap();
    assert_eq!(
        (world.names("wal/").len(), world.names("tail/").len()),
        (1, 0)
    );
    assert!(world.reader().segment(1, 1).unwrap().unwrap() == bytes);

    // Left in tails by a stream that was killed: compacted the same way, and nothing is lost where one of its boxes is bad.
    let name = world.names("wal/").remove(0);
    let mut tails = long_writer("b");
    let (first, rest) = bytes.split_at(20 << 20);
    tails.append(LONG, first, 8).unwrap();
    drop(tails);
    let mut tails = WalWriter::new(
        &world.repository,
        world.private.public(),
        SYSTEM,
        1,
        LONG,
        "c",
        LONG + (20 << 20),
    )
    .unwrap();
    tails.append(LONG + (20 << 20), rest, 9).unwrap();
    tails.finish().unwrap();
    world.memory.tamper(&name, |object| {
        let last = object.len() - 3;
        object[last] ^= 1;
    });
    let report = world.reader().compact(world.private.public()).unwrap();
    assert_eq!((report.sealed, report.swept), (1, 1));
    assert!(world.reader().segment(1, 1).unwrap().unwrap() == bytes);
    assert_eq!(world.names("tail/"), [""; 0]);
}

/// A restore, a standby or a copy never has all of a long segment in memory.
#[test]
fn a_long_segment_is_handed_out_followed_and_copied_in_pieces() {
    const LONG: u64 = 64 << 20;
    let (world, other) = (World::new(), World::new());
    let bytes = noise(usize::try_from(LONG).unwrap(), 3);
    let mut writer = WalWriter::new(
        &world.repository,
        world.private.public(),
        SYSTEM,
        1,
        LONG,
        "a",
        LONG,
    )
    .unwrap();
    for (at, part) in (LONG..).step_by(8 << 20).zip(bytes.chunks(8 << 20)) {
        writer.append(at, part, 7).unwrap();
    }
    writer.finish().unwrap();
    let name = world.names("wal/").remove(0);
    let object = world.memory.get(&name).unwrap();
    assert!(object.len() as u64 > LONG, "nothing of it compresses");

    let reader = world.reader();
    let (mut found, mut longest) = (Vec::new(), 0);
    let mut take = |piece: SegmentPiece<'_>| match piece {
        SegmentPiece::Restart => found.clear(),
        SegmentPiece::Wal(piece) => {
            longest = longest.max(piece.len());
            found.extend_from_slice(piece);
        }
    };
    let whole = reader.segment_in_pieces(1, 1, u64::MAX, &mut take).unwrap();
    assert_eq!((whole, longest), (Some(LONG), 4 << 20));
    assert!(found == bytes);

    let (mut seen, mut followed, mut parts) = (SegmentView::default(), Vec::new(), Vec::new());
    while parts.len() < 9 {
        let at = LONG + followed.len() as u64;
        let Some(grown) = reader.grown(1, 1, at, &mut seen).unwrap() else {
            break;
        };
        followed.extend_from_slice(&grown.wal);
        parts.push((grown.wal.len() >> 20, grown.whole));
    }
    assert_eq!(parts, [(16, false), (16, false), (16, false), (16, true)]);
    assert!(followed == bytes);

    let options = CopyOptions {
        backup: None,
        rules: crate::retention::Rules::default(),
        private: None,
        now_micros: 0,
    };
    let done = copy(&world.repository, &other.repository, &options, &()).unwrap();
    assert_eq!(done.wal_end_lsn, 2 * LONG);
    assert!(other.memory.get(&name).unwrap() == object);
    // One that is there and is another is told, and left.
    other
        .memory
        .tamper(&name, |object| object.truncate(36 << 20));
    let refused = copy(&world.repository, &other.repository, &options, &()).unwrap_err();
    assert!(refused.to_string().contains("differs"), "{refused}");
}
