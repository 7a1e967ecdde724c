use proptest::prelude::*;

use crate::*;

fn sample() -> Entry {
    Entry {
        log: 1,
        epoch: 2,
        position: 3,
        previous: Hash::from_bytes([7; 32]),
        recorded_at_micros: -5,
        kind: Kind::Quote,
        fields: Fields::new()
            .with("a", "1")
            .with("b.c", "zwölf")
            .with("b_c", ""),
    }
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let fields = prop::collection::btree_map("[a-z0-9_.]{1,64}", ".{0,40}", 0..12);
    let numbers = (
        any::<u16>(),
        1..=i32::MAX as u32,
        1..=i64::MAX as u64,
        any::<i64>(),
        1_u8..=255,
    );
    (numbers, any::<[u8; 32]>(), fields).prop_map(
        |((log, epoch, position, at, kind), previous, fields)| Entry {
            log,
            epoch,
            position,
            previous: Hash::from_bytes(previous),
            recorded_at_micros: at,
            kind: Kind::from_number(kind),
            fields: fields.into_iter().collect(),
        },
    )
}

proptest! {
    #[test]
    fn round_trip(entry in any_entry()) {
        let bytes = entry.to_bytes().unwrap();
        let parsed = Entry::parse(&bytes).unwrap();
        prop_assert_eq!(&parsed.to_bytes().unwrap(), &bytes);
        prop_assert_eq!(parsed, entry);
    }

    /// Whatever parses is the one byte form of what it says.
    #[test]
    fn no_second_form(entry in any_entry(), at: prop::sample::Index, byte: u8) {
        let mut bytes = entry.to_bytes().unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(parsed) = Entry::parse(&bytes) {
            prop_assert_eq!(parsed.to_bytes().unwrap(), bytes);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        prop_assert!(Entry::parse(&bytes).is_err());
    }
}

#[test]
fn every_truncation_is_refused() {
    let bytes = sample().to_bytes().unwrap();
    for len in 0..bytes.len() {
        let error = Entry::parse(&bytes[..len]).unwrap_err();
        assert!(
            matches!(error, EntryError::Truncated { len: at, .. } if at == len),
            "{len}: {error}"
        );
    }
}

#[test]
fn malformed_forms_are_refused() {
    let good = sample().to_bytes().unwrap();
    let at = |offset: usize, bytes: &[u8]| {
        let mut changed = good.clone();
        changed[offset..offset + bytes.len()].copy_from_slice(bytes);
        Entry::parse(&changed)
    };
    let name = |name: &str| EntryError::Name {
        name: name.to_owned(),
    };
    // Fields: 65 "a" (2+1), 68 "1" (4+1), 73 "b.c" (2+3), 78 "zwölf" (4+6), 88 "b_c" (2+3), 93 "" (4).
    for (offset, bytes, error) in [
        (0, &b"BREH"[..], EntryError::Magic),
        (4, &[0, 2], EntryError::Version(2)),
        (8, &[0; 4], EntryError::Epoch(0)),
        (8, &[0x80, 0, 0, 0], EntryError::Epoch(1 << 31)),
        (12, &[0; 8], EntryError::Position(0)),
        (
            12,
            &[0x80, 0, 0, 0, 0, 0, 0, 0],
            EntryError::Position(1 << 63),
        ),
        (60, &[0], EntryError::Kind),
        (61, &[0xFF; 4], EntryError::FieldCount(0xFFFF_FFFF)),
        (61, &[0, 0, 4, 1], EntryError::FieldCount(1025)),
        (61, &[0, 0, 0, 2], EntryError::Trailing(9)),
        (65, &[0, 0], name("")),
        (67, b"A", name("A")),
        (67, b"-", name("-")),
        (67, &[0xC3], name("\u{FFFD}")),
        (
            82,
            &[b'z', 0xFF],
            EntryError::Utf8 {
                name: "b.c".to_owned(),
            },
        ),
    ] {
        assert_eq!(at(offset, bytes), Err(error), "offset {offset}");
    }
    let order = |name: &str, after: &str| EntryError::Order {
        name: name.to_owned(),
        after: after.to_owned(),
    };
    assert_eq!(at(67, b"c"), Err(order("b.c", "c")));
    assert_eq!(at(90, b"b.c"), Err(order("b.c", "b.c")), "a name twice");
    let mut trailing = good.clone();
    trailing.push(0);
    assert_eq!(Entry::parse(&trailing), Err(EntryError::Trailing(1)));
}

/// Lengths that the bytes do not back are refused before anything of that size is asked for.
#[test]
fn huge_lengths_are_refused() {
    let good = sample().to_bytes().unwrap();
    let mut name = good.clone();
    name[65..67].copy_from_slice(&[0xFF, 0xFF]);
    let what = "a field's name";
    let len = good.len();
    assert_eq!(
        Entry::parse(&name),
        Err(EntryError::Truncated { what, len })
    );
    let mut value = good.clone();
    value[68..72].copy_from_slice(&[0xFF; 4]);
    let what = "a field's value";
    assert_eq!(
        Entry::parse(&value),
        Err(EntryError::Truncated { what, len })
    );
    let long = vec![0; ENTRY_BYTES_MAX + 1];
    assert_eq!(
        Entry::parse(&long),
        Err(EntryError::TooLong(ENTRY_BYTES_MAX + 1))
    );
}

#[test]
fn what_the_format_cannot_hold_is_not_written() {
    let with = |change: fn(&mut Entry)| {
        let mut entry = sample();
        change(&mut entry);
        entry.to_bytes().unwrap_err()
    };
    assert_eq!(with(|e| e.epoch = 0), EntryError::Epoch(0));
    assert_eq!(
        with(|e| e.position = 1 << 63),
        EntryError::Position(1 << 63)
    );
    assert_eq!(with(|e| e.kind = Kind::Other(0)), EntryError::Kind);
    let upper = with(|e| {
        e.fields.set("Total", "1");
    });
    assert_eq!(
        upper,
        EntryError::Name {
            name: "Total".to_owned()
        }
    );
    let long = with(|e| {
        e.fields.set("x".repeat(65), "1");
    });
    assert_eq!(
        long,
        EntryError::Name {
            name: "x".repeat(65)
        }
    );
    let many = with(|e| e.fields = (0..1025).map(|n| (format!("f{n}"), "")).collect());
    assert_eq!(many, EntryError::FieldCount(1025));
    let large = with(|e| {
        e.fields.set("x", "y".repeat(ENTRY_BYTES_MAX));
    });
    assert!(matches!(large, EntryError::TooLong(_)));

    let mut most = sample();
    most.fields = Fields::new();
    most.fields.set("x", "y".repeat(ENTRY_BYTES_MAX - 65 - 7));
    let bytes = most.to_bytes().unwrap();
    assert_eq!(bytes.len(), ENTRY_BYTES_MAX);
    assert_eq!(Entry::parse(&bytes), Ok(most));
}

#[test]
fn a_hash_has_one_text() {
    let hash = Hash::from_bytes([0xAB; 32]);
    let text = hash.to_string();
    assert_eq!(text.parse(), Ok(hash));
    assert_eq!(
        serde_json::from_str::<Hash>(&format!("\"{text}\"")).unwrap(),
        hash
    );
    assert!(text.to_uppercase().parse::<Hash>().is_err());
    assert!(text[2..].parse::<Hash>().is_err());
    assert!(format!("{}é", &text[2..]).parse::<Hash>().is_err());
}
