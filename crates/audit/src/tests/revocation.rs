//! A key that ended at a place: each reader of what it signed asks for the end.

use super::Log;
use crate::*;

const END: (u32, u64) = (1, 8);

fn ended() -> [VerifyingKey; 1] {
    [super::key().verifying_key().clone().until(END.0, END.1)]
}

fn whole() -> [VerifyingKey; 1] {
    [super::key().verifying_key().clone()]
}

fn head(size: u64) -> SignedHead {
    let mut log = Log::with(size, &[]);
    log.sign_head();
    log.key.sign(&log.heads[0])
}

fn opening(size: u64) -> Entry {
    let mut log = Log::with(size - 1, &[]);
    let opening = EpochOpening::Recovery {
        timeline: 1,
        known_heads: &[],
        restore_id: "r",
        target_lsn: 0,
        known_lost: None,
        missing_heads: &[],
    };
    let sealed = log.chain.open_epoch(5, &opening, &log.key).unwrap();
    Entry {
        epoch: 1,
        ..sealed.entry
    }
}

fn thinning(from: u64, to: u64, kept: &[u64]) -> Vec<u8> {
    let thinning = Thinning {
        log: 1,
        epoch: 1,
        from,
        to,
        at_micros: 9,
        kept: kept.to_vec(),
    };
    thinning.sign(&super::key())
}

fn checkpoint(began: u32, size: u64) -> Note {
    let checkpoint = Checkpoint {
        origin: format!("log.example/log-1/{began}"),
        size,
        root: Hash::ZERO,
        extensions: Vec::new(),
    };
    checkpoint.sign(&super::key()).unwrap()
}

fn proof(size: u64) -> InclusionProof {
    let log = Log::with(size, &[]);
    let mut prover = InclusionProver::new(head(size), 1).unwrap();
    let (from, _) = prover.needs();
    for row in &log.rows[from as usize - 1..] {
        if prover.push(row.bytes.clone()) {
            break;
        }
    }
    prover.finish().unwrap()
}

fn status(keys: &[VerifyingKey], note: Note) -> u16 {
    let log = KnownLog {
        name: "log.example/log-1".to_owned(),
        keys: keys.to_vec(),
    };
    let request = AddCheckpoint {
        old: 0,
        proof: Vec::new(),
        checkpoint: note,
    };
    judge(&request, &[log], |_| None).status()
}

/// Of the last place before the end and the first one behind it: what a reader says under the whole key, and under the
/// one that ended.
#[test]
fn each_reader_of_a_signature_asks_where_its_key_ended() {
    let check = |what: &str, reads: &dyn Fn(&[VerifyingKey], u64) -> bool| {
        for size in [7, 8] {
            assert!(reads(&whole(), size), "{what} at {size}, by a good key");
            let told = reads(&ended(), size);
            assert_eq!(told, size < END.1, "{what} at {size}, by the ended key");
        }
    };
    check("head", &|keys, size| head(size).verify(keys).is_ok());
    check("linked head", &|keys, size| {
        let previous = LostHead {
            epoch: 1,
            size: 3,
            hash: Hash::ZERO,
        };
        let head = head(size).after(previous, &super::key());
        head.verify(keys).is_ok()
    });
    check("proof", &|keys, size| proof(size).verify(keys).is_ok());
    check("thinning", &|keys, size| {
        Thinning::read(&thinning(size, size + 4, &[size]), keys).is_ok()
    });
    check("checkpoint", &|keys, size| {
        Checkpoint::verify(&checkpoint(1, size), keys).is_ok()
    });
    check("request to a witness", &|keys, size| {
        status(keys, checkpoint(1, size)) == 200
    });
    // Its epoch is a later one than that of the end.
    assert!(Checkpoint::verify(&checkpoint(2, 3), &whole()).is_ok());
    assert!(matches!(
        Checkpoint::verify(&checkpoint(2, 3), &ended()),
        Err(NoteError::Revoked { from: END, .. })
    ));
    assert_eq!(status(&ended(), checkpoint(2, 3)), 403);
}

#[test]
fn an_opening_at_the_end_of_its_key_or_behind_it_is_none() {
    for (size, counts) in [(7, true), (8, false)] {
        // Of the same epoch as the end: only the position tells.
        let mut entry = opening(size);
        entry.fields.remove("signature");
        let signature = super::key().sign_bytes(&entry.to_bytes().unwrap());
        entry.fields.set("signature", hex::encode(&signature));
        let refused = |keys: &[VerifyingKey]| match EpochRecord::read(&entry, keys) {
            Err(OpeningError::Revoked(..)) => true,
            Err(OpeningError::Field("old_epoch")) | Ok(_) => false,
            Err(error) => panic!("{error}"),
        };
        assert!(!refused(&whole()));
        assert_eq!(refused(&ended()), !counts, "at {size}");
    }
}

#[test]
fn a_thinning_by_an_ended_key_excuses_no_head_behind_the_end() {
    let read = |bytes: &[u8]| Thinning::read(bytes, &ended());
    // Wholly before, across, wholly behind.
    let before = read(&thinning(2, 6, &[4])).unwrap();
    assert_eq!((before.to, before.kept.as_slice()), (6, &[4][..]));
    let across = read(&thinning(2, 20, &[4, 12])).unwrap();
    assert_eq!(
        (across.from, across.to, across.kept.as_slice()),
        (2, 7, &[4][..])
    );
    assert!(matches!(
        read(&thinning(8, 20, &[12])),
        Err(ThinningError::Revoked { from: END, .. })
    ));
    let gone = [LostHead {
        epoch: 1,
        size: 9,
        hash: Hash::ZERO,
    }];
    assert_eq!(missing_heads(&[head(4)], &[], &[across], &gone), [(1, 9)]);
    let unended = Thinning::read(&thinning(2, 20, &[4, 12]), &whole()).unwrap();
    assert_eq!(
        missing_heads(&[head(4), head(12)], &[], &[unended], &gone),
        []
    );
    // Of a later epoch nothing counts, of an earlier one all does.
    let of_epoch = |epoch| {
        let thinning = Thinning {
            log: 1,
            epoch,
            from: 2,
            to: 20,
            at_micros: 9,
            kept: vec![12],
        };
        thinning.sign(&super::key())
    };
    assert!(read(&of_epoch(2)).is_err());
    let keys = [super::key().verifying_key().clone().until(2, 8)];
    assert_eq!(Thinning::read(&of_epoch(1), &keys).unwrap().to, 20);
}

#[test]
fn a_head_that_does_not_count_stands_for_one_that_is_named_only_with_its_hash() {
    let named = |hash| {
        [LostHead {
            epoch: 1,
            size: 9,
            hash,
        }]
    };
    let late = head(9);
    let hash = late.claimed().last_hash;
    let missing = |uncounted: &[SignedHead], hash| missing_heads(&[], uncounted, &[], &named(hash));
    assert_eq!(missing(&[], hash), [(1, 9)]);
    assert_eq!(missing(std::slice::from_ref(&late), hash), []);
    assert_eq!(missing(&[late], Hash::ZERO), [(1, 9)]);
}

fn pair(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).unwrap()
}

fn public(seed: u8) -> VerifyingKey {
    pair(seed).verifying_key().clone()
}

/// The thief of a key that ended makes it the successor of another key: that one is worth no more.
#[test]
fn a_key_that_ended_lends_nobody_more_than_it_has() {
    let rotation =
        |old: u8, new: u8| KeyStatement::rotation(1, &pair(old), &pair(new), 1, 5).unwrap();
    let ends = |key: u8, by: u8, from| {
        KeyStatement::revocation(1, &public(key), &pair(by), from, 5).unwrap()
    };
    let check = |given: u8, statements: &[KeyStatement], expected: &[(u8, Option<(u32, u64)>)]| {
        let keys = trust(1, &[public(given)], statements).unwrap();
        let found: Vec<(u8, Option<(u32, u64)>)> = keys
            .iter()
            .map(|key| {
                let seed = (1..=9).find(|seed| public(*seed).is_same(key)).unwrap();
                (seed, key.revoked_from())
            })
            .collect();
        assert_eq!(found, expected);
    };
    let (ours, end) = ([rotation(1, 2), ends(1, 2, (1, 40))], Some((1, 40)));
    check(2, &ours, &[(2, None), (1, end)]);
    // The thief's 9, and his 8 before it.
    let with = |more: &[KeyStatement]| [&ours[..], more].concat();
    check(
        2,
        &with(&[rotation(9, 1)]),
        &[(2, None), (1, end), (9, end)],
    );
    let chain = with(&[rotation(9, 1), rotation(8, 9)]);
    check(2, &chain, &[(2, None), (1, end), (9, end), (8, end)]);
    // A ring of his lends itself nothing.
    let ring = with(&[rotation(9, 1), rotation(8, 9), rotation(9, 8)]);
    check(2, &ring, &[(2, None), (1, end), (9, end), (8, end)]);
    // One that was replaced without an end, before: it is good as long as what followed it.
    let longer = [rotation(1, 2), rotation(2, 3), ends(2, 3, (4, 7))];
    let end = Some((4, 7));
    check(3, &longer, &[(3, None), (2, end), (1, end)]);
    // The first key, given by itself, is trusted by itself.
    check(1, &longer, &[(1, None), (2, end), (3, None)]);
}
