//! What every store must do. A new store is added by one line at the end.

use std::sync::Arc;

use super::{FaultyStore, MARKER, MemoryStore, PosixStore, Store};
use crate::error::StoreError;

fn check(store: &dyn Store) {
    store.put(MARKER, b"{}").unwrap();
    write_once(store);
    ranges(store);
    listing(store);
    appending(store);
    names(store);
}

fn write_once(store: &dyn Store) {
    store.put("packs/one", b"first").unwrap();
    let refused = store.put("packs/one", b"second");
    assert!(matches!(refused, Err(StoreError::AlreadyExists { object }) if object == "packs/one"));
    assert_eq!(store.get("packs/one").unwrap(), b"first");
    assert!(matches!(
        store.appender("packs/one"),
        None | Some(Err(StoreError::AlreadyExists { .. }))
    ));

    store.delete("packs/one").unwrap();
    assert!(matches!(
        store.get("packs/one"),
        Err(StoreError::NotFound { .. })
    ));
    assert!(matches!(
        store.delete("packs/one"),
        Err(StoreError::NotFound { .. })
    ));
    store.put("packs/one", b"").unwrap();
    assert_eq!(store.size("packs/one").unwrap(), 0);
}

fn ranges(store: &dyn Store) {
    store.put("packs/range", b"0123456789").unwrap();
    assert_eq!(store.get_range("packs/range", 3, 4).unwrap(), b"3456");
    assert_eq!(store.get_range("packs/range", 10, 0).unwrap(), b"");
    let short = store.get_range("packs/range", 8, 3);
    assert!(matches!(short, Err(StoreError::Damaged { object, .. }) if object == "packs/range"));
    assert!(matches!(
        store.get_range("packs/none", 0, 1),
        Err(StoreError::NotFound { .. })
    ));
    assert_eq!(store.size("packs/range").unwrap(), 10);
}

fn listing(store: &dyn Store) {
    for name in [
        "wal/a/2.x",
        "wal/a/10.x",
        "wal/ab/1.x",
        "wal/b/1.x",
        "walrus",
    ] {
        store.put(name, name.as_bytes()).unwrap();
    }
    let names = |prefix: &str| -> Vec<String> {
        store
            .list(prefix)
            .unwrap()
            .into_iter()
            .map(|o| o.name)
            .collect()
    };
    assert_eq!(
        names("wal/"),
        ["wal/a/10.x", "wal/a/2.x", "wal/ab/1.x", "wal/b/1.x"]
    );
    assert_eq!(names("wal/a"), ["wal/a/10.x", "wal/a/2.x", "wal/ab/1.x"]);
    assert_eq!(names("wal/a/2."), ["wal/a/2.x"]);
    assert_eq!(names("nothing/"), [""; 0]);
    assert!(names("").contains(&"walrus".to_owned()));
    let one = store.list("wal/b/").unwrap().remove(0);
    assert_eq!(one.size, 9);
    assert!(one.modified_micros > 0);
}

fn appending(store: &dyn Store) {
    let Some(appender) = store.appender("tail/1/x") else {
        return;
    };
    let mut appender = appender.unwrap();
    appender.append(b"ab").unwrap();
    assert_eq!(store.get("tail/1/x").unwrap(), b"ab");
    appender.append(b"cd").unwrap();
    assert_eq!(store.get("tail/1/x").unwrap(), b"abcd");
    assert!(matches!(
        store.put("tail/1/x", b"z"),
        Err(StoreError::AlreadyExists { .. })
    ));
    // The last object of a folder goes, and the name below it can be used again.
    store.delete("tail/1/x").unwrap();
    store.put("tail/1/y", b"z").unwrap();
}

fn names(store: &dyn Store) {
    for bad in [
        "",
        "/etc/passwd",
        "../up",
        "a//b",
        "a/",
        ".incoming/x",
        "a b",
        "a/../b",
    ] {
        assert!(store.put(bad, b"x").is_err(), "{bad:?} was accepted");
    }
}

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
    let late = store.write_new(&root.join("packs/one"), b"x");
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
