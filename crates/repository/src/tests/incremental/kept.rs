//! Files of which only some pieces are given: the others are their parent's, unread.

use super::*;

/// Writes `now` over `before`, giving only pages that changed.
fn give_changed(backup: &BackupWriter, path: &str, before: &[u8], now: &[u8]) -> usize {
    let mut file = backup.file(path, 0o600, 7).unwrap();
    assert_eq!(file.bytes_before(), Some(before.len() as u64), "{path}");
    let mut given = 0;
    for (at, page) in now.chunks(PAGE).enumerate() {
        if before.chunks(PAGE).nth(at) == Some(page) {
            file.keep(PAGE as u64).unwrap();
        } else {
            file.write(page).unwrap();
            given += 1;
        }
    }
    file.finish().unwrap();
    given
}

fn chunks_a_window_max(vault: &Vault, id: &str) -> usize {
    let mut most = 0;
    for entry in vault.open(id).entries().unwrap() {
        if let EntryKind::File { extents, .. } = &entry.kind {
            for window in extents.chunk_by(|a, b| a.file_offset >> 20 == b.file_offset >> 20) {
                let chunks: BTreeSet<_> = window.iter().map(|extent| extent.chunk).collect();
                most = most.max(chunks.len());
            }
        }
    }
    most
}

/// Grown, shortened, changed here and there, for long enough that what is scattered has to be given whole now and then.
#[test]
fn kept_pieces_are_those_of_the_parent() {
    let mut dice = Dice::new(22);
    let mut vault = Vault::new();
    let mut cluster = Cluster::new();
    for number in 0..4 {
        let pages = 1 + dice.below(300);
        cluster.insert(format!("base/5/{number}"), dice.bytes(pages * PAGE));
    }
    vault.take(BackupKind::Full, &cluster);
    let (mut kept, mut whole) = (0, 0);
    for _ in 0..60 {
        let backup = vault.begin(BackupKind::Incremental).unwrap();
        assert_eq!(backup.kind(), BackupKind::Incremental);
        let keepable: BTreeSet<String> = backup.keepable().unwrap().into_iter().collect();
        let before = cluster.clone();
        for (path, bytes) in &mut cluster {
            let mut pages = bytes.len() / PAGE;
            match dice.below(6) {
                0 => pages = dice.below(pages + 1),
                1 => pages += dice.below(40),
                _ => {}
            }
            bytes.resize(pages * PAGE, 0);
            for _ in 0..pages / 30 + 1 {
                if pages > 0 {
                    let at = dice.below(pages) * PAGE;
                    bytes[at..at + PAGE].copy_from_slice(&dice.bytes(PAGE));
                }
            }
            if keepable.contains(path) {
                let given = give_changed(&backup, path, &before[path], bytes);
                kept += bytes.len() / PAGE - given;
            } else {
                backup.blob(path, 0o600, 7, bytes).unwrap();
                whole += 1;
            }
        }
        let id = backup.finish(stop(SEGMENT)).unwrap();
        vault.check(&id, &cluster);
        let scattered = chunks_a_window_max(&vault, &id);
        assert!(scattered <= 17, "{scattered}");
    }
    assert!(kept > 1000 && whole > 3, "{kept} kept, {whole} whole");
}

#[test]
fn what_the_parent_has_not_cannot_be_kept() {
    let mut vault = Vault::new();
    let mut cluster = cluster_of(1, 3 * PAGE + 10);
    vault.take(BackupKind::Full, &cluster);
    let path = cluster.keys().next().unwrap().clone();
    let refuses = |path: &str, steps: &dyn Fn(&mut FileWriter<'_>) -> Result<()>| {
        let mut vault = Vault::new();
        vault.take(BackupKind::Full, &cluster);
        let backup = vault.begin(BackupKind::Incremental).unwrap();
        let mut file = backup.file(path, 0o600, 7).unwrap();
        assert!(matches!(steps(&mut file), Err(Error::Input(_))));
    };
    let page = PAGE as u64;
    // Its last piece is not a whole one.
    refuses(&path, &|file| file.keep(4 * page));
    refuses(&path, &|file| {
        file.keep(2 * page)?;
        file.keep(2 * page)
    });
    refuses(&path, &|file| file.keep(100));
    refuses(&path, &|file| {
        file.write(b"some")?;
        file.keep(page)
    });
    refuses("base/1/new", &|file| file.keep(page));

    let backup = vault.begin(BackupKind::Incremental).unwrap();
    let mut file = backup.file(&path, 0o600, 7).unwrap();
    assert_eq!(file.bytes_before(), Some(3 * page));
    file.keep(page).unwrap();
    file.write(&[7; 2 * PAGE + 5]).unwrap();
    file.finish().unwrap();
    let id = backup.finish(stop(SEGMENT)).unwrap();
    let bytes = cluster.get_mut(&path).unwrap();
    bytes.truncate(PAGE);
    bytes.resize(3 * PAGE + 5, 7);
    vault.check(&id, &cluster);
}

#[test]
fn what_a_source_wants_to_remember_is_there_next_time() {
    let mut vault = Vault::new();
    let cluster = cluster_of(1, PAGE);
    let remember = std::collections::BTreeMap::from([("start".to_owned(), "0/28".to_owned())]);
    let backup = vault.begin(BackupKind::Full).unwrap();
    assert_eq!(backup.remembered(), None);
    let stop_with = BackupStop {
        remember: remember.clone(),
        ..stop(SEGMENT)
    };
    backup.finish(stop_with).unwrap();
    let backup = vault.begin(BackupKind::Incremental).unwrap();
    assert_eq!(backup.remembered(), Some(&remember));
    drop(backup);
    // A backup that remembers nothing leaves nothing of its parent's.
    vault.take(BackupKind::Incremental, &cluster);
    let backup = vault.begin(BackupKind::Incremental).unwrap();
    assert_eq!(backup.remembered().map(|it| it.len()), Some(0));
}
