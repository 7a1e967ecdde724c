//! Entries in their stored forms: each form gives the same entry back, or none.

use super::Log;
use crate::stored::{PACKED_MAGIC, compress};
use crate::*;

/// Like a quote's: most of it is in the dictionary.
fn quote() -> Fields {
    let policy = r#"{"name":"standard","version":1,"combine":"additive","threshold":0.000000,"slope":0.01000000,"weight":0.05000000,"minimum_rate":0.00010000,"status":{"easy_max":0.00500000,"medium_max":0.03000000},"freshness":{"base_rate_age_seconds_max":86400,"volatility_age_seconds_max":345600,"event_age_seconds_max":604800,"refuse_stale":false}}"#;
    Fields::new()
        .with("client_id", "standard")
        .with("inputs", format!(r#"{{"ticker":"GME","policy":{policy}}}"#))
        .with("request_id", "019df6d0-35b1-7290-91c4-02182d137c77")
}

fn kept(fields: &Fields) -> (Vec<u8>, SealedEntry) {
    let mut log = Log::with(3, &[]);
    let mut other = log.chain.clone();
    let mut encoded = EncodedFields::try_from(fields).unwrap();
    encoded.pack();
    let sealed = log.chain.append(Kind::Quote, 7, fields.clone()).unwrap();
    let mut kept = b"before".to_vec();
    let placed = other
        .append_encoded(Kind::Quote, 7, &encoded, &mut kept)
        .unwrap();
    assert_eq!(placed.hash, sealed.hash);
    assert_eq!(other, log.chain);
    (kept.split_off(6), sealed)
}

#[test]
fn a_packed_entry_is_the_same_entry() {
    let (kept, sealed) = kept(&quote());
    assert!(kept.starts_with(PACKED_MAGIC));
    assert!(kept.len() * 3 < sealed.bytes.len(), "{}", kept.len());
    assert_eq!(*expand(&kept), sealed.bytes);
    // As it is kept it is none: who forgets to expand it is told.
    assert_eq!(Entry::parse(&kept), Err(EntryError::Packed));
    // One that is kept as it is stays what it is.
    assert_eq!(*expand(&sealed.bytes), sealed.bytes);
}

#[test]
fn what_compression_does_not_shorten_is_kept_as_it_is() {
    let (kept, sealed) = kept(&Fields::new().with("a", "7"));
    assert_eq!(kept, sealed.bytes);
}

#[test]
fn a_field_that_is_added_later_is_packed_too_or_nothing_is() {
    let mut log = Log::with(1, &[]);
    let mut encoded = EncodedFields::try_from(&quote()).unwrap();
    encoded.pack();
    encoded.push("ticker", "GME").unwrap();
    let mut kept = Vec::new();
    log.chain
        .append_encoded(Kind::Quote, 7, &encoded, &mut kept)
        .unwrap();
    assert_eq!(
        Entry::parse(&expand(&kept)).unwrap().fields.get("ticker"),
        Some("GME")
    );
}

/// Whatever is done to the bytes: the same entry, another hash, or no entry.
#[test]
fn changed_bytes_never_pass() {
    let (kept, sealed) = kept(&quote());
    for at in 0..kept.len() {
        for flip in [1, 0x80, 0xff] {
            let mut changed = kept.clone();
            changed[at] ^= flip;
            let bytes = expand(&changed);
            let passes = Entry::parse(&bytes).is_ok() && Entry::hash_of(&bytes) == sealed.hash;
            assert!(!passes || *bytes == sealed.bytes, "byte {at}");
        }
        let cut = expand(&kept[..at]);
        assert!(
            Entry::parse(&cut).is_err() || Entry::hash_of(&cut) != sealed.hash,
            "cut at {at}"
        );
    }
}

/// A frame of a few bytes may claim any length.
#[test]
fn a_length_that_no_entry_has_is_not_believed() {
    let (kept, _) = kept(&quote());
    let zeros = compress(&vec![0; ENTRY_BYTES_MAX]).unwrap();
    let mut bomb = kept[..66].to_vec();
    bomb.extend_from_slice(&zeros);
    assert_eq!(Entry::parse(&expand(&bomb)), Err(EntryError::Packed));
    // A single segment of so many bytes, of which nothing follows.
    for length in [1 << 63, u64::MAX - 8, u64::MAX - 2] {
        bomb.truncate(66);
        bomb.extend_from_slice(&[0x28, 0xb5, 0x2f, 0xfd, 0xe0]);
        bomb.extend_from_slice(&length.to_le_bytes());
        assert_eq!(Entry::parse(&expand(&bomb)), Err(EntryError::Packed));
    }
}
