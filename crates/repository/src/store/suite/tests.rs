//! The suite on the stores of this crate, and what each of them does besides.

use std::sync::Arc;

use super::check;
use crate::error::StoreError;
use crate::store::{FaultyStore, MARKER, MemoryStore, PosixStore, Store};

#[test]
fn memory() {
    check(&MemoryStore::new());
}

#[test]
fn posix() {
    let dir = tempfile::tempdir().unwrap();
    check(&PosixStore::new(dir.path().join("repository")));
}

#[test]
fn faulty_without_faults() {
    check(&FaultyStore::new(Arc::new(MemoryStore::new()), 1));
}

#[test]
fn faulty_without_appender() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()), 1);
    store.set_without_appender(true);
    check(&store);
}

#[test]
fn an_unmounted_folder_is_away_and_stays_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let store = PosixStore::new(dir.path());
    let away = |result: Result<(), StoreError>| matches!(result, Err(StoreError::Away { .. }));
    assert!(away(store.put("packs/one", b"x")));
    assert!(away(store.get("packs/one").map(|_| ())));
    assert!(away(store.list("").map(|_| ())));
    assert!(away(store.delete("packs/one")));
    assert!(away(store.appender("tail/x").unwrap().map(|_| ())));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// An open file takes bytes under whatever name; only one that is still found at its own may count as kept.
#[test]
fn an_open_tail_that_nobody_can_find_any_more_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (root, elsewhere) = (dir.path().join("repository"), dir.path().join("elsewhere"));
    let store = PosixStore::new(&root);
    store.put(MARKER, b"marker").unwrap();
    let mut tail = store.appender("tail/1/a").unwrap().unwrap();
    let mut away = |what: &str| {
        let result = tail.append(b"x");
        assert!(
            matches!(&result, Err(StoreError::Away { .. })),
            "{what}: {result:?}"
        );
    };

    std::fs::rename(&root, &elsewhere).unwrap();
    away("the folder was renamed");
    std::fs::create_dir_all(root.join("tail/1")).unwrap();
    std::fs::write(root.join(MARKER), b"marker").unwrap();
    away("another repository lies there");
    std::fs::write(root.join("tail/1/a"), b"").unwrap();
    away("another file has the name");
    std::fs::remove_dir_all(&root).unwrap();
    away("the folder is gone");

    std::fs::rename(&elsewhere, &root).unwrap();
    tail.append(b"y").unwrap();
    std::fs::remove_file(root.join("tail/1/a")).unwrap();
    assert!(matches!(tail.append(b"z"), Err(StoreError::Away { .. })));
}

#[test]
fn a_folder_that_vanishes_while_it_is_written_to_is_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("repository");
    let store = PosixStore::new(&root);
    store.put(MARKER, b"marker").unwrap();
    std::fs::remove_dir_all(&root).unwrap();
    // What a write does that looked at the marker just before.
    let late = store.write_new(&root.join("packs/one"), |_| Ok(()));
    assert_eq!(late.unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert!(!root.exists());
}

#[test]
fn faults_have_their_names() {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()), 7);
    store.put("a", b"x").unwrap();
    store.set_full(true);
    assert!(matches!(store.put("b", b"x"), Err(StoreError::Full { object, .. }) if object == "b"));
    store.set_full(false);
    store.set_read_only(true);
    assert!(matches!(
        store.put("b", b"x"),
        Err(StoreError::ReadOnly { .. })
    ));
    store.set_read_only(false);
    store.set_away(true);
    assert!(matches!(store.get("a"), Err(StoreError::Away { .. })));
    store.set_away(false);
    store.crash_at_write(Some(1));
    store.put("b", b"x").unwrap();
    assert!(matches!(store.put("c", b"x"), Err(StoreError::Io { .. })));
    assert!(store.get("a").is_err(), "nothing works after a crash");
    store.crash_at_write(None);
    assert!(matches!(store.get("c"), Err(StoreError::NotFound { .. })));
}
