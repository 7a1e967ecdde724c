//! The worked example of `docs/formats/repository.md`, recomputed.

use crate::keys::{DataKey, DataKeyId, hex};
use crate::pipeline::{BoxKind, Compression, ObjectHeader, ObjectKind, ObjectOpener, seal_single};

const DOCUMENT: &str = include_str!("../../../../docs/formats/repository.md");

#[test]
fn the_worked_example_is_what_the_code_writes() {
    let id = DataKeyId(std::array::from_fn(|n| 0xa0 + u8::try_from(n).unwrap()));
    let secret = std::array::from_fn(|n| u8::try_from(n).unwrap());
    let key = DataKey::from_parts(id, zeroize::Zeroizing::new(secret));
    let name = "timelines/00000002.history";
    let content = b"1\t0/3000148\tno recovery target specified\n";
    let header = ObjectHeader {
        kind: ObjectKind::History,
        data_key: id,
        clear: Vec::new(),
    };
    let object = seal_single(
        &key,
        name,
        &header,
        BoxKind::History,
        Compression::Stored,
        (0, 0),
        content,
    )
    .unwrap();

    let lines: String = object
        .chunks(32)
        .enumerate()
        .map(|(n, c)| format!("{:<4} {}\n", n * 32, hex(c)))
        .collect();
    assert!(
        DOCUMENT.contains(&lines),
        "the document should hold:\n{lines}"
    );
    let opened = ObjectOpener::new(&key, name, &header)
        .unwrap()
        .open(36, &object[36..])
        .unwrap();
    assert_eq!(opened.raw, content);
}
