//! The store suite on S3 (moto), and what S3 does besides.

use std::sync::Arc;

use aws::s3::S3Store;
use repository::{LockMode, LockPolicy, MARKER, Repository, Store, StoreError, suite};
use testkit::TestS3;

fn store(s3: &TestS3, bucket: &str, prefix: &str) -> S3Store {
    opened(&s3.location(bucket, prefix), None)
}

fn opened(location: &str, lock: Option<LockPolicy>) -> S3Store {
    S3Store::open(&location.parse().unwrap(), lock).unwrap()
}

#[test]
fn the_suite() {
    let Some(s3) = TestS3::start() else { return };
    s3.make_bucket("plain");
    s3.make_locking_bucket("versions");
    for bucket in ["plain", "versions"] {
        suite::check(&store(&s3, bucket, "a/b"));
        suite::check(&store(&s3, bucket, ""));
    }
    // What was written beside the first prefix is not seen below it, and the other way round.
    assert!(
        store(&s3, "plain", "a").list("").is_err(),
        "no marker there"
    );
    let names = store(&s3, "plain", "a/b").list("packs/").unwrap();
    assert_eq!(names.len(), 2);
}

/// From a thread that another runtime owns, and dropped there.
#[test]
fn inside_another_runtime() {
    let Some(s3) = TestS3::start() else { return };
    s3.make_bucket("bucket");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = store(&s3, "bucket", "");
        store.put(MARKER, b"{}").unwrap();
        assert_eq!(store.list("").unwrap().len(), 1);
    });
}

#[test]
fn long_objects_and_long_listings() {
    let Some(s3) = TestS3::start() else { return };
    s3.make_bucket("bucket");
    let store = store(&s3, "bucket", "p").in_steps_of(5 << 20, 4);
    store.put(MARKER, b"{}").unwrap();
    let bytes: Vec<u8> = (0..12_000_000_u32).map(|n| (n % 251) as u8).collect();
    store.put("wal/long", &bytes).unwrap();
    assert!(store.get("wal/long").unwrap() == bytes);
    assert_eq!(
        store.get_range("wal/long", 11_999_990, 10).unwrap(),
        bytes[11_999_990..]
    );
    assert!(matches!(
        store.put("wal/long", &bytes),
        Err(StoreError::AlreadyExists { .. })
    ));
    // Several pages, with names that begin as others end.
    for number in 0..23 {
        store.put(&format!("packs/{number}"), b"").unwrap();
    }
    assert_eq!(store.list("packs/").unwrap().len(), 23);
    store.delete("packs/1").unwrap();
    let names = store.list("packs/1").unwrap();
    assert_eq!(names.len(), 10, "10 to 19 are left: {names:?}");
}

#[test]
fn what_is_away_is_said_to_be_away() {
    let Some(mut s3) = TestS3::start() else {
        return;
    };
    s3.make_bucket("bucket");
    let away = |result: Result<(), StoreError>, says: &str| match result {
        Err(error @ StoreError::Away { .. }) => {
            let said = error.to_string();
            assert!(said.contains(says), "{said}");
        }
        other => panic!("{says}: {other:?}"),
    };
    let none = store(&s3, "none", "");
    away(none.get(MARKER).map(drop), "no bucket none");
    away(none.put(MARKER, b"{}"), "no bucket none");
    let empty = store(&s3, "bucket", "");
    away(empty.put("packs/one", b"x"), "marker");
    away(empty.list("").map(drop), "marker");

    let here = store(&s3, "bucket", "");
    here.put(MARKER, b"{}").unwrap();
    s3.kill();
    away(here.put("packs/one", b"x"), "does not answer");
    away(here.list("").map(drop), "does not answer");
}

#[test]
fn locked_until_its_day() {
    let Some(s3) = TestS3::start() else { return };
    s3.make_locking_bucket("bucket");
    let lock = |days| LockPolicy {
        mode: LockMode::Compliance,
        days,
    };
    let location = s3.location("bucket", "p");
    let two = opened(&location, Some(lock(2)));
    Repository::init(Arc::new(opened(&location, Some(lock(2))))).unwrap();
    two.put("packs/one", b"x").unwrap();
    two.put("tail/one", b"x").unwrap();
    two.delete("tail/one").unwrap();
    let until = |store: &S3Store| {
        store
            .lock_of("packs/one")
            .unwrap()
            .unwrap()
            .until_micros
            .unwrap()
    };
    let first = until(&two);
    let Err(StoreError::Locked { object, lock: told }) = two.delete("packs/one") else {
        panic!("it was deleted");
    };
    assert_eq!(
        (object.as_str(), told.until_micros),
        ("packs/one", Some(first))
    );
    assert_eq!(two.get("packs/one").unwrap(), b"x");

    let names = ["packs/one".to_owned()];
    opened(&location, Some(lock(1)))
        .keep_longer(&names)
        .unwrap();
    assert_eq!(until(&two), first, "never shorter");
    let nine = opened(&location, Some(lock(9)));
    nine.keep_longer(&names).unwrap();
    assert_eq!((until(&two) - first) / 86_400_000_000, 7);

    nine.set_hold(&names, true).unwrap();
    assert!(nine.lock_of("packs/one").unwrap().unwrap().hold);
    nine.set_hold(&names, false).unwrap();
    assert!(!nine.lock_of("packs/one").unwrap().unwrap().hold);
}
