use super::{Log, key};
use crate::*;

fn signed() -> SignedHead {
    let log = Log::with(7, &[]);
    log.key.sign(&log.chain.head(9, 0xA_0000_000B).unwrap())
}

fn json() -> String {
    String::from_utf8(signed().to_json()).unwrap()
}

#[test]
fn round_trip() {
    let read = SignedHead::from_json(json().as_bytes()).unwrap();
    assert_eq!(read, signed());
    let head = key().verifying_key().verify(&read).unwrap();
    assert_eq!(
        (head.size, head.peaks.len(), head.lsn),
        (7, 3, 0xA_0000_000B)
    );
    assert_eq!(json(), String::from_utf8(read.to_json()).unwrap());
}

#[test]
fn an_edited_copy_is_named() {
    for (field, from, to) in [
        ("log", "\"log\": 1", "\"log\": 2"),
        ("epoch", "\"epoch\": 1", "\"epoch\": 3"),
        ("size", "\"size\": 7", "\"size\": 8"),
        ("at_micros", "\"at_micros\": 9", "\"at_micros\": 10"),
        ("lsn", "A/B", "A/C"),
    ] {
        assert!(json().contains(from), "{from}");
        match SignedHead::from_json(json().replace(from, to).as_bytes()) {
            Err(HeadError::CopyDisagrees { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    let unknown = json().replace("\"log\": 1,", "\"log\": 1, \"note\": \"all well\",");
    assert!(matches!(
        SignedHead::from_json(unknown.as_bytes()),
        Err(HeadError::Json(_))
    ));
    let lacking = json().replace("\"log\": 1,", "");
    assert!(matches!(
        SignedHead::from_json(lacking.as_bytes()),
        Err(HeadError::Json(_))
    ));
}

#[test]
fn no_changed_byte_of_the_payload_verifies() {
    let head = Log::with(7, &[]).chain.head(9, 11).unwrap();
    let key = key();
    let payload = head.payload(key.key_id());
    let signature = key.sign_bytes(&payload);
    for at in 0..payload.len() {
        let mut changed = payload.clone();
        changed[at] ^= 1;
        let Ok((claimed, key_id)) = Head::parse(&changed) else {
            continue;
        };
        let forged = SignedHead::from_parts(claimed, key_id, changed, signature);
        assert!(key.verifying_key().verify(&forged).is_err(), "byte {at}");
    }
    for len in 0..payload.len() {
        assert!(Head::parse(&payload[..len]).is_err(), "length {len}");
    }
}

#[test]
fn signatures_of_others_are_refused() {
    let other = SigningKey::generate().unwrap();
    let signed = signed();
    let unknown = other.verifying_key().verify(&signed).unwrap_err();
    assert!(matches!(unknown, HeadError::UnknownKey { key_id, .. } if key_id == key().key_id()));
    let payload = signed.claimed().payload(key().key_id());
    let signature = other.sign_bytes(&payload);
    let forged =
        SignedHead::from_parts(signed.claimed().clone(), key().key_id(), payload, signature);
    let error = forged.verify(&[other.verifying_key().clone(), key().verifying_key().clone()]);
    assert!(
        matches!(error, Err(HeadError::Signature { size: 7, .. })),
        "{error:?}"
    );
}

#[test]
fn a_head_needs_peaks_that_fit() {
    let head = Log::with(7, &[]).chain.head(9, 11).unwrap();
    for (change, says) in [
        ((|h| h.size = 8) as fn(&mut Head), "peaks do not fit"),
        (|h| h.size = 0, "size is outside"),
        (|h| h.epoch = 0, "epoch is outside"),
        (|h| h.root = Hash::ZERO, "root does not follow"),
        (|h| h.peaks.reverse(), "root does not follow"),
        (
            |h| {
                h.peaks.pop();
            },
            "peaks do not fit",
        ),
    ] {
        let mut changed = head.clone();
        change(&mut changed);
        let error = Head::parse(&changed.payload(key().key_id())).unwrap_err();
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
}
