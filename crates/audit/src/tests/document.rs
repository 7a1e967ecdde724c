//! The worked example in the format document, against the code.

use super::SEED;
use crate::stored::{DICTIONARY, PACKED_MAGIC};
use crate::*;

const DOCUMENT: &str = include_str!("../../../../docs/formats/audit_log.md");

/// The fenced block that follows `<!-- example: NAME -->`.
fn example(name: &str) -> &'static str {
    let mark = format!("<!-- example: {name} -->");
    let (_, after) = DOCUMENT
        .split_once(&mark)
        .unwrap_or_else(|| panic!("no example {name}"));
    let (_, block) = after.split_once("```").unwrap();
    let (_, body) = block.split_once('\n').unwrap();
    body.split_once("```").unwrap().0
}

fn bytes(name: &str) -> Vec<u8> {
    hex::decode(&example(name).split_whitespace().collect::<String>()).unwrap()
}

#[test]
fn the_worked_example() {
    let key = SigningKey::from_seed(&SEED).unwrap();
    assert!(DOCUMENT.contains(&hex::encode(&SEED)));
    assert!(DOCUMENT.contains(&format!("key id `{}`", key.key_id())));

    let at = 1_795_421_730_000_000;
    let mut chain = Chain::new(1);
    let opening = EpochOpening::Created { timeline: 1 };
    let first = chain.open_epoch(at, &opening, &key).unwrap();
    assert_eq!(first.bytes, bytes("entry-1"));
    assert_eq!(first.hash.to_string(), example("hash-1").trim());

    let fields = Fields::new()
        .with("client_id", "standard")
        .with("outputs", r#"{"total_fee":456.5068}"#)
        .with("request_id", "r-1");
    let second = chain.append(Kind::Quote, at + 1_500_000, fields).unwrap();
    assert_eq!(second.bytes, bytes("entry-2"));
    assert_eq!(second.hash.to_string(), example("hash-2").trim());
    assert_eq!(Entry::parse(&bytes("entry-2")), Ok(second.entry.clone()));

    let head = chain.head(at + 2_000_000, 0x1A2B_3C4D).unwrap();
    assert_eq!(head.root.to_string(), example("root").trim());
    let signed = key.sign(&head);
    assert_eq!(head.payload(key.key_id()), bytes("head"));
    assert_eq!(
        String::from_utf8(signed.to_json()).unwrap(),
        example("signed-head")
    );
    let read = SignedHead::from_json(example("signed-head").as_bytes()).unwrap();
    assert_eq!(key.verifying_key().verify(&read).as_ref(), Ok(&head));

    let rows = [&first, &second].map(StoredEntry::from);
    let report = verify(1, rows, &[head], std::slice::from_ref(key.verifying_key()));
    assert_eq!(
        (report.verified, report.covered_to, report.reason),
        (2, 2, None)
    );
}

#[test]
fn the_kinds_of_the_document() {
    let (_, after) = DOCUMENT.split_once("Kinds: ").unwrap();
    let list = after.split_once('.').unwrap().0;
    for item in list.split(',') {
        let (number, name) = item.trim().split_once(' ').unwrap();
        let kind = Kind::from_number(number.parse().unwrap());
        assert_eq!(
            (kind.name(), kind.number().to_string().as_str()),
            (name, number)
        );
    }
    assert_eq!(list.split(',').count(), 17);
    assert_eq!(Kind::from_number(18), Kind::Other(18));
}

/// What was packed once opens for ever, whatever a newer zstd would make of it.
#[test]
fn the_packed_form_of_the_document() {
    let packed = bytes("packed-2");
    assert!(packed.starts_with(PACKED_MAGIC));
    assert_eq!(*expand(&packed), bytes("entry-2"));
    let digest = hex::encode(Hash::of(&[DICTIONARY]).as_bytes());
    let row = format!("{} bytes, raw content", DICTIONARY.len());
    assert!(DOCUMENT.contains(&digest) && DOCUMENT.contains(&row));
}
