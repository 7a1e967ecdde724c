use super::*;

const ID: &str = "20261123T081530Z-00000001";

#[test]
fn a_wrong_key_is_told_which_one_is_wanted() {
    let world = World::new();
    world.backup(ID).unwrap();
    let mut writer = world.writer(SEGMENT).unwrap();
    writer.append(SEGMENT, b"wal", 1).unwrap();
    let stranger = RecipientPrivate::generate().unwrap();
    let wanted = world.private.public().id();

    let error = BackupReader::open(&world.repository, &stranger, ID).unwrap_err();
    assert!(
        matches!(&error, Error::WrongKey(wrong) if wrong.sealed_for == wanted),
        "{error}"
    );
    assert!(
        error.to_string().contains(&stranger.public().id()),
        "{error}"
    );
    let error = WalReader::new(&world.repository, &stranger)
        .segment(1, 1)
        .unwrap_err();
    assert!(
        matches!(&error, Error::WrongKey(wrong) if wrong.object.starts_with("tail/")),
        "{error}"
    );
}

#[test]
fn key_files_come_back_and_are_not_replaced() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let private = RecipientPrivate::generate().unwrap();
    let path = dir.path().join("recipient.key");
    private.store(&path).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(
        RecipientPrivate::load(&path).unwrap().public(),
        private.public()
    );
    assert!(private.store(&path).is_err());

    let public_path = dir.path().join("recipient.pub");
    private.public().store(&public_path).unwrap();
    assert_eq!(
        &RecipientPublic::load(&public_path).unwrap(),
        private.public()
    );
    // Whatever is in it: what others can read is no secret.
    let error = RecipientPrivate::load(&public_path).unwrap_err();
    assert!(error.to_string().contains("0644"), "{error}");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&public_path, mode).unwrap();
    let error = RecipientPrivate::load(&public_path).unwrap_err();
    assert!(
        error.to_string().contains("bre-recipient-private-1"),
        "{error}"
    );

    let chunk_path = dir.path().join("chunk_id.key");
    let chunk_key = ChunkIdKey::generate().unwrap();
    chunk_key.store(&chunk_path).unwrap();
    assert_eq!(
        ChunkIdKey::load(&chunk_path).unwrap().bytes(),
        chunk_key.bytes()
    );
}

#[test]
fn nothing_secret_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let private = RecipientPrivate::generate().unwrap();
    let path = dir.path().join("key");
    private.store(&path).unwrap();
    let line = std::fs::read_to_string(&path).unwrap();
    let secret = line.trim().split(' ').nth(1).unwrap();
    assert!(!format!("{private:?}").contains(&secret[..8]));
    let chunk_key = ChunkIdKey::generate().unwrap();
    assert_eq!(format!("{chunk_key:?}"), "ChunkIdKey(..)");
}

/// Nothing of a page, a file name or the chunk id key is readable in the store.
#[test]
fn the_store_sees_no_plain_bytes() {
    let world = World::new();
    let backup = world.begin(ID).unwrap();
    backup
        .blob(
            "base/plainly_visible_name",
            0o600,
            0,
            b"plainly visible bytes",
        )
        .unwrap();
    backup.finish(stop(SEGMENT)).unwrap();
    let mut writer = world.writer(SEGMENT).unwrap();
    writer.append(SEGMENT, b"plainly visible bytes", 1).unwrap();
    for object in world.memory.list("").unwrap() {
        let bytes = world.memory.get(&object.name).unwrap();
        let shows = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(
            !shows(b"plainly") && !shows(world.chunk_key.to_hex().as_bytes()),
            "{}",
            object.name
        );
    }
}
