use super::*;

const ID: &str = "20261123T081530Z-00000001";

#[test]
fn what_goes_in_comes_out() {
    let world = World::new();
    world.backup(ID).unwrap();
    let reader = BackupReader::open(&world.repository, &world.private, ID).unwrap();
    reader.check_packs().unwrap();
    let entries = reader.entries().unwrap();
    let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
    let expected = [
        "PG_VERSION",
        "base",
        "base/1",
        "base/1/1259",
        "base/1/empty",
        "pg_tblspc",
        "pg_tblspc/1",
    ];
    assert_eq!(paths, expected);
    assert_eq!(reader.read_file(&entries[0]).unwrap(), b"15\n");
    assert_eq!((entries[0].mode, entries[0].mtime_micros), (0o600, 7));
    assert_eq!(
        reader.read_file(&entries[3]).unwrap(),
        noise(3 * (1 << 20) + 8192, 1)
    );
    assert_eq!(reader.read_file(&entries[4]).unwrap(), b"");
    assert_eq!(
        entries[6].kind,
        EntryKind::Symlink {
            target: "/elsewhere".to_owned()
        }
    );
    let report = reader.verify(2, &|_| {}).unwrap();
    assert_eq!(
        (report.files, report.chunks, report.damaged),
        (3, 5, vec![])
    );
}

/// Files long enough for leaves and inner nodes, and packs that fill up.
#[test]
fn large_files_have_a_tree_of_extents() {
    let world = World::new();
    let backup = world.begin(ID).unwrap();
    let block = noise(1 << 20, 3);
    let mut file = backup.file("base/1/large", 0o600, 0).unwrap();
    for number in 0..70u64 {
        file.write(&number.to_be_bytes()).unwrap();
        file.write(&block[8..]).unwrap();
    }
    file.write(b"end").unwrap();
    file.finish().unwrap();
    backup.finish(stop(SEGMENT)).unwrap();

    assert!(world.names("packs/").len() >= 2);
    let reader = BackupReader::open(&world.repository, &world.private, ID).unwrap();
    let entries = reader.entries().unwrap();
    let large = entries
        .iter()
        .find(|entry| entry.path == "base/1/large")
        .unwrap();
    let EntryKind::File { size, extents } = &large.kind else {
        panic!("{large:?}")
    };
    assert_eq!((*size, extents.len()), (70 * (1 << 20) + 3, 71));
    for (number, extent) in extents[..70].iter().enumerate() {
        assert_eq!(
            reader.read_extent(extent).unwrap()[..8],
            (number as u64).to_be_bytes()
        );
    }
    assert_eq!(reader.read_extent(&extents[70]).unwrap(), b"end");
}

/// Files that grow at the same time on several threads do not mix.
#[test]
fn several_threads_write_files_at_once() {
    let world = World::new();
    let backup = world.begin(ID).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let backup = &backup;
            scope.spawn(move || {
                let mut pair = [0, 1].map(|n| {
                    backup
                        .file(&format!("base/{thread}/{n}"), 0o600, 0)
                        .unwrap()
                });
                assert!(backup.file(&format!("base/{thread}/1"), 0o600, 0).is_err());
                for piece in noise(3 << 20, thread).chunks(700_000) {
                    pair[0].write(piece).unwrap();
                    pair[1].write(&piece[..piece.len() / 2]).unwrap();
                }
                let [one, two] = pair;
                one.finish().unwrap();
                two.finish().unwrap();
            });
        }
    });
    backup.finish(stop(SEGMENT)).unwrap();
    let reader = BackupReader::open(&world.repository, &world.private, ID).unwrap();
    let entries = reader.entries().unwrap();
    for thread in 0..4u8 {
        let whole = noise(3 << 20, thread);
        let halves: Vec<u8> = whole
            .chunks(700_000)
            .flat_map(|piece| piece[..piece.len() / 2].to_vec())
            .collect();
        for (n, expected) in [whole.clone(), halves].iter().enumerate() {
            let path = format!("base/{thread}/{n}");
            let entry = entries.iter().find(|entry| entry.path == path).unwrap();
            assert!(reader.read_file(entry).unwrap() == *expected, "{path}");
        }
    }
    assert_eq!(reader.summary().files, 8);
}

#[test]
fn equal_chunks_are_stored_once() {
    let world = World::new();
    let backup = world.begin(ID).unwrap();
    for number in 0..20 {
        backup
            .blob(&format!("base/{number}"), 0o600, 0, &noise(1 << 20, 5))
            .unwrap();
    }
    backup.finish(stop(SEGMENT)).unwrap();
    let summary = catalogue(&world.repository).unwrap().backups.remove(0);
    assert_eq!(summary.bytes_source, 20 << 20);
    assert!(summary.bytes_stored < 2 << 20, "{}", summary.bytes_stored);
    let stored: u64 = world
        .memory
        .list("packs/")
        .unwrap()
        .iter()
        .map(|pack| pack.size)
        .sum();
    assert_eq!(summary.bytes_stored, stored);
}

#[test]
fn it_waits_until_wal_covers_its_stop() {
    let world = World::new();
    world.backup(ID).unwrap();
    let state = || catalogue(&world.repository).unwrap().backups[0].state;
    assert_eq!(state(), BackupState::Waiting);
    let mut writer = world.writer(SEGMENT).unwrap();
    writer
        .append(SEGMENT, &wal(SEGMENT, SEGMENT + 4999), 10)
        .unwrap();
    assert_eq!(state(), BackupState::Waiting);
    writer
        .append(SEGMENT + 4999, &wal(SEGMENT + 4999, SEGMENT + 5000), 11)
        .unwrap();
    assert_eq!(state(), BackupState::Complete);
    writer
        .append(SEGMENT + 5000, &wal(SEGMENT + 5000, 2 * SEGMENT + 1), 12)
        .unwrap();
    writer.finish().unwrap();
    assert_eq!(state(), BackupState::Complete);
}

#[test]
fn it_failed_when_its_wal_can_no_longer_come() {
    let recorded = World::new();
    recorded.backup(ID).unwrap();
    record_hole(
        &recorded.repository,
        1,
        SEGMENT + 10,
        SEGMENT + 20,
        "s1",
        "slot lost",
    )
    .unwrap();
    assert_eq!(
        catalogue(&recorded.repository).unwrap().backups[0].state,
        BackupState::Failed
    );

    let passed_by = World::new();
    passed_by.backup(ID).unwrap();
    let mut writer = passed_by.writer(2 * SEGMENT).unwrap();
    writer.append(2 * SEGMENT, &wal(0, 10), 1).unwrap();
    assert_eq!(
        catalogue(&passed_by.repository).unwrap().backups[0].state,
        BackupState::Failed
    );
}

#[test]
fn an_abandoned_backup_leaves_no_manifest_and_harms_none() {
    let world = World::new();
    world.backup(ID).unwrap();
    let second = world.begin("20261123T091530Z-00000002").unwrap();
    second
        .blob("base/1", 0o600, 0, &noise(40 << 20, 8))
        .unwrap();
    let mut open = second.file("base/2", 0o600, 0).unwrap();
    open.write(b"half").unwrap();
    drop(open);
    let refused = second.finish(stop(SEGMENT)).unwrap_err();
    assert!(refused.to_string().contains("base/2"), "{refused}");
    world.begin("20261123T091530Z-00000003").unwrap().abort();

    let backups = catalogue(&world.repository).unwrap().backups;
    assert_eq!(
        backups.iter().map(|b| b.id.as_str()).collect::<Vec<_>>(),
        [ID]
    );
    let reader = BackupReader::open(&world.repository, &world.private, ID).unwrap();
    assert_eq!(reader.verify(1, &|_| {}).unwrap().damaged, []);
}

/// A power cut at each write in turn: never a manifest that does not open, never harm to the backup before it.
#[test]
fn killed_at_any_write() {
    let mut number = 0;
    loop {
        let world = World::new();
        world.backup(ID).unwrap();
        world.faults.crash_at_write(Some(number));
        let outcome = world.backup("20261123T091530Z-00000002");
        world.faults.crash_at_write(None);
        let backups = catalogue(&world.repository).unwrap();
        assert!(backups.damaged.is_empty());
        assert_eq!(
            backups.backups.len(),
            1 + usize::from(outcome.is_ok()),
            "write {number}"
        );
        for backup in &backups.backups {
            let reader = BackupReader::open(&world.repository, &world.private, &backup.id).unwrap();
            assert_eq!(reader.verify(1, &|_| {}).unwrap().damaged, []);
        }
        world.backup("20261123T101530Z-00000003").unwrap();
        if outcome.is_ok() {
            assert!(number >= 3, "only {number} writes were killed");
            return;
        }
        number += 1;
    }
}

#[test]
fn a_full_store_fails_the_backup_by_name() {
    let world = World::new();
    let backup = world.begin(ID).unwrap();
    world.faults.set_full(true);
    let write = || {
        for number in 0..100 {
            backup.blob(&format!("base/{number}"), 0o600, 0, &noise(1 << 20, number))?;
        }
        Ok(())
    };
    let error: Error = write().unwrap_err();
    assert!(
        matches!(&error, Error::Store(StoreError::Full { object, .. }) if object.starts_with("packs/")),
        "{error}"
    );
    drop(backup);
    assert_eq!(world.names("backups/"), [""; 0]);
}

#[test]
fn a_manifest_is_never_replaced_and_paths_are_checked() {
    let world = World::new();
    world.backup(ID).unwrap();
    assert!(matches!(
        world.begin(ID),
        Err(Error::Store(StoreError::AlreadyExists { .. }))
    ));
    let backup = world.begin("20261123T091530Z-00000002").unwrap();
    for path in ["/etc/passwd", "../up", "base//1", "", "a/./b"] {
        assert!(
            backup.blob(path, 0o600, 0, b"x").is_err(),
            "{path:?} was accepted"
        );
    }
    backup.blob("base/1", 0o600, 0, b"x").unwrap();
    assert!(backup.blob("base/1", 0o600, 0, b"y").is_err());
    assert!(backup.blob("base/1/2", 0o600, 0, b"y").is_err());
}

#[test]
fn another_clusters_backup_is_refused() {
    let world = World::new();
    world.backup(ID).unwrap();
    let facts = BackupFacts {
        system_identifier: SYSTEM + 1,
        ..world.facts("20261123T091530Z-00000002")
    };
    let refused = BackupWriter::begin(
        &world.repository,
        world.private.public(),
        &world.chunk_key,
        facts,
    );
    let error = refused.unwrap_err();
    assert!(
        matches!(error, Error::ForeignCluster { found, expected, .. } if (found, expected) == (SYSTEM + 1, SYSTEM))
    );
}

#[test]
fn a_proof_shows_in_the_catalogue() {
    let world = World::new();
    world.backup(ID).unwrap();
    let proof = |proved_at_micros, passed| RestoreTestRecord {
        proved_at_micros,
        passed,
        details: Default::default(),
    };
    let shown = |made: RestoreTestRecord| {
        put_restore_test(&world.repository, ID, &made).unwrap();
        let backup = catalogue(&world.repository).unwrap().backups.remove(0);
        (
            backup.restored_and_proved_at_micros,
            backup.proof_failed_at_micros,
        )
    };
    assert_eq!(shown(proof(50, true)), (Some(50), None));
    assert_eq!(shown(proof(70, false)), (Some(50), Some(70)));
    assert_eq!(shown(proof(90, true)), (Some(90), None));
}

#[test]
fn ids_sort_by_time() {
    let id = new_backup_id(1_795_421_730_000_000).unwrap();
    assert_eq!(&id[..17], "20261123T081530Z-");
    assert_eq!(id.len(), 25);
}
