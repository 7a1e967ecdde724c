//! What every store must do, to be called by the tests of each: a store exists when it passes. It panics where one does not.
#![allow(clippy::unwrap_used)]

use super::{MARKER, Store};
use crate::error::StoreError;

/// On an empty store.
///
/// # Panics
/// When the store does not do what stores do.
pub fn check(store: &dyn Store) {
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

#[cfg(test)]
mod tests;
