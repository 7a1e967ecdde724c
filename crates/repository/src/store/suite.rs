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
    pieces(store);
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

fn pieces(store: &dyn Store) {
    let put = |name: &str, mut pieces: Vec<Result<Option<Vec<u8>>, StoreError>>| {
        store.put_pieces(name, &mut || pieces.remove(0))
    };
    let piece = |byte: u8, len: usize| Ok(Some(vec![byte; len]));
    put(
        "wal/pieces",
        vec![piece(1, 3), piece(2, 0), piece(3, 2), Ok(None)],
    )
    .unwrap();
    assert_eq!(store.get("wal/pieces").unwrap(), [1, 1, 1, 3, 3]);
    let refused = put("wal/pieces", vec![piece(4, 1), Ok(None)]);
    assert!(matches!(refused, Err(StoreError::AlreadyExists { .. })));
    // Long enough to be on its way when the next piece fails.
    let cut = || StoreError::NotFound {
        store: "the source".to_owned(),
        object: "of pieces".to_owned(),
    };
    let failed = put("wal/cut", vec![piece(5, 20 << 20), Err(cut())]);
    assert!(matches!(failed, Err(StoreError::NotFound { store, .. }) if store == "the source"));
    assert!(store.get("wal/cut").is_err());
    put("wal/cut", vec![piece(6, 20 << 20), piece(7, 1), Ok(None)]).unwrap();
    assert_eq!(store.size("wal/cut").unwrap(), (20 << 20) + 1);
    assert_eq!(
        store.get_range("wal/cut", (20 << 20) - 1, 2).unwrap(),
        [6, 7]
    );
    store
        .delete_all(&["wal/pieces".to_owned(), "wal/cut".to_owned()])
        .unwrap();
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
