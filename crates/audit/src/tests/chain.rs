use super::{Log, key};
use crate::*;

#[test]
fn going_on_from_any_head_is_a_straight_run() {
    let mut straight = Log::with(40, &(1..=40).collect::<Vec<_>>());
    let rows = straight.rows.clone();
    let heads = straight.heads.clone();
    straight.grow(50, &[]);
    for head in &heads {
        let from = head.size as usize - 1;
        let mut resumed =
            Chain::resume(1, Some(head), rows[from..].to_vec(), &straight.keys()).unwrap();
        for row in &straight.rows[40..] {
            let entry = Entry::parse(&row.bytes).unwrap();
            let sealed = resumed
                .append(entry.kind, entry.recorded_at_micros, entry.fields)
                .unwrap();
            assert_eq!(StoredEntry::from(&sealed), *row);
        }
        assert_eq!(resumed, straight.chain, "from size {}", head.size);
    }
    let from_start = Chain::resume(1, None, straight.rows.clone(), &straight.keys()).unwrap();
    assert_eq!(from_start, straight.chain);
}

#[test]
fn a_log_that_ends_before_its_head_is_not_gone_on_with() {
    let log = Log::with(10, &[8]);
    let head = &log.heads[0];
    let resume = |rows: &[StoredEntry]| Chain::resume(1, Some(head), rows.to_vec(), &log.keys());
    assert!(resume(&log.rows[7..]).is_ok());
    let behind = ChainError::BehindHead {
        log: 1,
        epoch: 1,
        size: 8,
    };
    assert_eq!(resume(&[]), Err(behind.clone()));
    assert_eq!(
        resume(&log.rows[8..]),
        Err(behind.clone()),
        "the head's own entry is missing"
    );
    let mut changed = log.rows[7..].to_vec();
    changed[0].bytes[70] ^= 1;
    assert_eq!(resume(&changed), Err(behind));
    let gap = resume(&[log.rows[7].clone(), log.rows[9].clone()]);
    assert!(
        matches!(gap, Err(ChainError::Damaged { position: 9, .. })),
        "{gap:?}"
    );
    assert_eq!(
        Chain::resume(2, Some(head), log.rows[7..].to_vec(), &log.keys()),
        Err(ChainError::OtherLog { log: 2, found: 1 })
    );
}

#[test]
fn a_failed_entry_leaves_the_chain_as_it_was() {
    let mut log = Log::with(5, &[]);
    let before = log.chain.clone();
    let error = log
        .chain
        .append(Kind::Quote, 1, Fields::new().with("Not a name", ""))
        .unwrap_err();
    assert!(matches!(error, ChainError::Entry(EntryError::Name { .. })));
    assert_eq!(log.chain, before);
}

#[test]
fn epochs_are_opened_in_one_way_only() {
    let key = key();
    let mut chain = Chain::new(3);
    assert_eq!(
        chain.append(Kind::Quote, 1, Fields::new()),
        Err(ChainError::NotOpened(3))
    );
    assert_eq!(chain.head(1, 1), None);
    let recovery = EpochOpening::Recovery {
        timeline: 2,
        known_heads: &[],
        restore_id: "r",
        target_lsn: 0,
        known_lost: None,
        missing_heads: &[],
    };
    assert_eq!(
        chain.open_epoch(1, &recovery, &key),
        Err(ChainError::NothingRecovered(3))
    );
    let created = EpochOpening::Created { timeline: 1 };
    chain.open_epoch(1, &created, &key).unwrap();
    assert!(matches!(
        chain.open_epoch(1, &created, &key),
        Err(ChainError::Exists { position: 1, .. })
    ));
    assert_eq!(
        chain.append(Kind::EpochOpened, 1, Fields::new()),
        Err(ChainError::Unsigned)
    );
    assert_eq!((chain.log(), chain.epoch(), chain.position()), (3, 1, 1));
}

#[test]
fn an_epochs_number_is_above_all_that_are_known() {
    for (timeline, head_epoch, expected) in
        [(2, None, 2), (5, None, 5), (2, Some(7), 8), (9, Some(7), 9)]
    {
        let mut log = Log::with(5, &[4]);
        if let Some(epoch) = head_epoch {
            log.heads[0].epoch = epoch;
        }
        log.recover(5, timeline, Some(0));
        assert_eq!(log.chain.epoch(), expected);
    }
}

#[test]
fn what_an_opening_says() {
    let mut log = Log::with(10, &[4, 9]);
    log.recover(6, 2, Some(4));
    let opening = Entry::parse(&log.rows[6].bytes).unwrap();
    let get = |name| opening.fields.get(name);
    assert_eq!(opening.kind, Kind::EpochOpened);
    assert_eq!((opening.epoch, opening.position), (2, 7));
    for (name, value) in [
        ("reason", "recovery"),
        ("old_epoch", "1"),
        ("old_head_size", "9"),
        ("recovered_size", "6"),
        ("known_lost", "4"),
        ("target_lsn", "1/2000"),
        ("timeline", "2"),
        ("restore_id", "r-7"),
    ] {
        assert_eq!(get(name), Some(value), "{name}");
    }
    assert_eq!(
        get("old_head_hash"),
        Some(log.heads[1].last_hash.to_string().as_str())
    );
    assert_eq!(
        get("recovered_hash"),
        Some(opening.previous.to_string().as_str())
    );
    assert_eq!(get("abandoned"), None);
}

/// The writer's way and the reader's: one byte form, whoever encoded the fields.
#[test]
fn encoded_fields_make_the_same_entries() {
    let mut log = Log::with(3, &[]);
    let mut other = log.chain.clone();
    let fields = Fields::new()
        .with("client_id", "standard")
        .with("empty", "")
        .with("ticker", "GMÉ");
    let encoded = EncodedFields::try_from(&fields).unwrap();
    assert!(encoded.iter().eq(fields.iter()));
    assert_eq!(encoded.get("ticker"), Some("GMÉ"));
    let mut bytes = b"before".to_vec();
    for at in [7, -8] {
        let sealed = log.chain.append(Kind::Quote, at, fields.clone()).unwrap();
        bytes.truncate(6);
        let placed = other
            .append_encoded(Kind::Quote, at, &encoded, &mut bytes)
            .unwrap();
        assert_eq!(bytes[6..], sealed.bytes);
        assert_eq!(
            (placed.position, placed.hash),
            (sealed.entry.position, sealed.hash)
        );
        assert_eq!(other, log.chain);
    }
    let refused = other.append_encoded(Kind::EpochOpened, 0, &encoded, &mut bytes);
    assert_eq!(refused, Err(ChainError::Unsigned));
}

#[test]
fn what_the_format_cannot_hold_is_not_encoded() {
    use std::io::Write;
    let mut encoded = EncodedFields::default();
    encoded.push("b", "1").unwrap();
    let before = encoded.clone();
    let order = |name: &str| {
        Err(EntryError::Order {
            name: name.to_owned(),
            after: "b".to_owned(),
        })
    };
    assert_eq!(encoded.push("a", "x"), order("a"));
    assert_eq!(encoded.push("b", "x"), order("b"));
    let name = "C".to_owned();
    assert_eq!(encoded.push("C", "x"), Err(EntryError::Name { name }));
    let name = "c".to_owned();
    let broken = encoded.push_with("c", |into| drop(into.write_all(&[0xff])));
    assert_eq!(broken, Err(EntryError::Utf8 { name }));
    let long = "x".repeat(ENTRY_BYTES_MAX);
    assert!(matches!(
        encoded.push("c", &long),
        Err(EntryError::TooLong(_))
    ));
    assert_eq!(encoded, before);
    encoded.push("c", "2").unwrap();
    assert_eq!(encoded.iter().last(), Some(("c", "2")));
}
