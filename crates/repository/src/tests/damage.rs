//! One flipped byte anywhere in any object is found, by name and with a remedy; nothing is read as if it were whole.

use super::*;

const ID: &str = "20261123T081530Z-00000001";

/// A world with one object of every kind: segment 1 sealed, segment 2 in a tail, history of timeline 2.
fn world() -> World {
    let world = World::new();
    world.backup(ID).unwrap();
    let mut writer = world.writer(SEGMENT).unwrap();
    writer
        .append(SEGMENT, &wal(SEGMENT, 2 * SEGMENT), 10)
        .unwrap();
    writer
        .append(2 * SEGMENT, &wal(2 * SEGMENT, 2 * SEGMENT + 100), 11)
        .unwrap();
    writer
        .append(
            2 * SEGMENT + 100,
            &wal(2 * SEGMENT + 100, 2 * SEGMENT + 300),
            12,
        )
        .unwrap();
    writer.finish().unwrap();
    put_history(
        &world.repository,
        world.private.public(),
        2,
        b"1\t0/20000\tbecause\n",
    )
    .unwrap();
    world
}

fn read_backup(world: &World) -> Result<()> {
    let reader = BackupReader::open(&world.repository, &world.private, ID)?;
    let report = reader.verify(1, &|_| {})?;
    if let Some(DamagedObject { object, reason, .. }) = report.damaged.first() {
        let (object, what) = (object.clone(), reason.clone());
        return Err(Error::Damaged {
            object,
            offset: 0,
            what,
            remedy: "",
        });
    }
    assert_eq!(report.chunks, 5);
    Ok(())
}

fn read_wal(world: &World) -> Result<()> {
    let reader = world.reader();
    assert_eq!(reader.segment(1, 1)?.unwrap(), wal(SEGMENT, 2 * SEGMENT));
    assert_eq!(
        reader.segment(1, 2)?.unwrap()[..300],
        wal(2 * SEGMENT, 2 * SEGMENT + 300)
    );
    assert_eq!(reader.history(2)?.unwrap(), b"1\t0/20000\tbecause\n");
    Ok(())
}

fn read_all(world: &World) -> Result<()> {
    read_backup(world).and_then(|()| read_wal(world))
}

fn check(prefix: &str, read: fn(&World) -> Result<()>) {
    let world = world();
    read(&world).unwrap();
    for object in world.memory.list(prefix).unwrap() {
        let size = usize::try_from(object.size).unwrap();
        let step = (size / 40).max(1);
        for at in (0..size.min(400))
            .step_by(3)
            .chain((0..size).step_by(step))
            .chain([size - 1])
        {
            world.memory.tamper(&object.name, |bytes| bytes[at] ^= 0x10);
            let error = read(&world).expect_err(&format!("byte {at} of {}", object.name));
            let named =
                error.to_string().contains(&object.name) || error.object() == Some(&object.name);
            assert!(named, "byte {at} of {}: {error}", object.name);
            world.memory.tamper(&object.name, |bytes| bytes[at] ^= 0x10);
        }
    }
    read(&world).unwrap();
}

#[test]
fn in_packs() {
    check("packs/", read_backup);
}

#[test]
fn in_manifests() {
    // Pack lists are for expiry; what is wrong with them is its own test.
    check("backups/20261123T081530Z-00000001/manifest", read_backup);
}

#[test]
fn in_wal_segments() {
    check("wal/", read_wal);
}

#[test]
fn in_wal_tails() {
    check("tail/", read_wal);
}

#[test]
fn in_histories() {
    check("timelines/", read_wal);
}

#[test]
fn in_the_marker() {
    let world = world();
    world.memory.tamper(MARKER, |bytes| bytes[0] ^= 1);
    let error = Repository::open(Arc::new(world.memory.clone())).unwrap_err();
    assert!(error.to_string().contains("`format`"), "{error}");
}

#[test]
fn in_wraps() {
    let world = world();
    for object in world.memory.list("wraps/").unwrap() {
        for at in [0, 5, 10, 30, 50, 80, 119] {
            world.memory.tamper(&object.name, |bytes| bytes[at] ^= 0x10);
            let error = read_all(&world).expect_err(&object.name);
            assert!(error.to_string().contains(&object.name), "{error}");
            world.memory.tamper(&object.name, |bytes| bytes[at] ^= 0x10);
        }
    }
}

#[test]
fn a_missing_pack_is_named_before_anything_is_read() {
    let world = world();
    let pack = world.names("packs/").remove(0);
    world.memory.delete(&pack).unwrap();
    let reader = BackupReader::open(&world.repository, &world.private, ID).unwrap();
    let error = reader.check_packs().unwrap_err();
    assert!(
        error.to_string().contains(&pack) && error.to_string().contains(ID),
        "{error}"
    );
    let report = reader.verify(1, &|_| {}).unwrap();
    assert!(
        report.damaged.iter().any(|damaged| damaged.object == pack),
        "{report:?}"
    );
}

#[test]
fn verify_names_the_files_that_need_a_damaged_pack() {
    let world = world();
    for pack in world.names("packs/") {
        world.memory.tamper(&pack, |bytes| bytes[36 + 40 + 2] ^= 1);
    }
    let reader = BackupReader::open(&world.repository, &world.private, ID).unwrap();
    let report = reader.verify(2, &|_| {}).unwrap();
    let files: Vec<&String> = report
        .damaged
        .iter()
        .flat_map(|damaged| &damaged.files)
        .collect();
    assert!(
        !files.is_empty() && report.damaged[0].reason.contains("packs/"),
        "{report:?}"
    );
}

#[test]
fn a_cut_segment_object_is_named() {
    let world = world();
    let name = world.only("wal/");
    let whole = world.memory.get(&name).unwrap();
    for len in [0, 20, 60, 100, whole.len() / 2, whole.len() - 1] {
        world.memory.tamper(&name, |bytes| bytes.truncate(len));
        let error = world.reader().segment(1, 1).unwrap_err();
        assert!(
            error.to_string().contains(&name) && error.to_string().contains("restore to a point"),
            "{error}"
        );
        world.memory.tamper(&name, |bytes| *bytes = whole.clone());
    }
}

#[test]
fn an_object_under_another_name_does_not_open() {
    let world = world();
    let name = world.only("wal/");
    let bytes = world.memory.get(&name).unwrap();
    world.memory.delete(&name).unwrap();
    let moved = format!("{name}0");
    world.memory.put(&moved, &bytes).unwrap();
    let error = world.reader().segment(1, 1).unwrap_err();
    assert_eq!(error.object(), Some(moved.as_str()), "{error}");
}

#[test]
fn one_bad_manifest_hides_no_other() {
    let world = world();
    let second = world.backup("20261123T091530Z-00000002").unwrap();
    let first = format!("backups/{ID}/manifest");
    world.memory.tamper(&first, |bytes| bytes[50] ^= 1);
    let catalogue = catalogue(&world.repository).unwrap();
    assert_eq!(
        catalogue.backups.iter().map(|b| &b.id).collect::<Vec<_>>(),
        [&second]
    );
    assert_eq!(catalogue.damaged[0].object(), Some(first.as_str()));
}
