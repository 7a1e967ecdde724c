use super::{Log, key};
use crate::*;

fn signed(log: &Log, size: u64) -> SignedHead {
    let head = log.heads.iter().find(|head| head.size == size).unwrap();
    log.key.sign(head)
}

/// As it is made from a database: only what it asks for.
fn prove(log: &Log, size: u64, position: u64) -> InclusionProof {
    let mut prover = InclusionProver::new(signed(log, size), position).unwrap();
    let (from, to) = prover.needs();
    assert!(from <= position && position <= to && to <= size);
    for at in from..=to {
        let bytes = log.rows[usize::try_from(at).unwrap() - 1].bytes.clone();
        assert_eq!(prover.push(bytes), at == to);
    }
    prover.finish().unwrap()
}

#[test]
fn every_entry_of_every_size_to_40_is_proved_and_no_other() {
    let sizes: Vec<u64> = (1..=40).collect();
    let log = Log::with(40, &sizes);
    for &size in &sizes {
        for position in 1..=size {
            let proof = prove(&log, size, position);
            let read = InclusionProof::from_json(&proof.to_json()).unwrap();
            let proved = read.verify(&log.keys()).unwrap();
            assert_eq!(proved.entry.position, position);
            let row = &log.rows[usize::try_from(position).unwrap() - 1];
            assert_eq!(proved.hash.as_bytes().as_slice(), row.hash);
            assert_eq!(proved.head.size, size);
        }
        assert!(InclusionProver::new(signed(&log, size), size + 1).is_none());
        assert!(InclusionProver::new(signed(&log, size), 0).is_none());
    }
}

#[test]
fn any_changed_byte_is_found() {
    let log = Log::with(11, &[11]);
    let good = prove(&log, 11, 6).to_json();
    let verified = |bytes: &[u8]| InclusionProof::from_json(bytes)?.verify(&log.keys());
    assert!(verified(&good).is_ok());
    for at in 0..good.len() {
        for change in [1, 0x20] {
            let mut bad = good.clone();
            bad[at] ^= change;
            assert!(verified(&bad).is_err(), "byte {at}");
        }
        assert!(verified(&good[..at]).is_err(), "cut at {at}");
    }
    assert!(verified(&[&good[..], b"\n"].concat()).is_err());
}

/// Put together by somebody who knows the format: each part is well formed, together they are false.
#[test]
fn parts_of_other_proofs_do_not_fit() {
    let log = Log::with(11, &[7, 11]);
    let text = |proof: &InclusionProof| String::from_utf8(proof.to_json()).unwrap();
    let field = |text: &str, name: &str| -> serde_json::Value {
        serde_json::from_str::<serde_json::Value>(text).unwrap()[name].clone()
    };
    let (mine, other) = (text(&prove(&log, 11, 6)), text(&prove(&log, 11, 5)));
    // Another entry in this one's place.
    let mut forged = mine.clone();
    for name in ["entry", "hash"] {
        let (from, to) = (field(&mine, name), field(&other, name));
        forged = forged.replace(from.as_str().unwrap(), to.as_str().unwrap());
    }
    let forged = forged
        .replacen("\"position\": 6", "\"position\": 5", 1)
        .replacen(
            &field(&mine, "at_micros").to_string(),
            &field(&other, "at_micros").to_string(),
            1,
        );
    let read = InclusionProof::from_json(forged.as_bytes()).unwrap();
    let error = read.verify(&log.keys()).unwrap_err();
    assert!(
        matches!(error, InclusionProofError::NotIncluded { position: 5, .. }),
        "{error}"
    );
    // Somebody else's key.
    let read = InclusionProof::from_json(mine.as_bytes()).unwrap();
    let stranger = SigningKey::generate().unwrap();
    let error = read
        .verify(&[stranger.verifying_key().clone()])
        .unwrap_err();
    assert!(
        matches!(
            error,
            InclusionProofError::Head(HeadError::UnknownKey { .. })
        ),
        "{error}"
    );
    assert_eq!(key().key_id(), log.key.key_id());
}

#[test]
fn a_log_that_was_rewritten_makes_no_proof() {
    let log = Log::with(8, &[8]);
    let mut prover = InclusionProver::new(signed(&log, 8), 3).unwrap();
    for (at, row) in log.rows.iter().enumerate() {
        let mut bytes = row.bytes.clone();
        if at == 6 {
            // Valid bytes that are not those that were signed.
            let mut entry = Entry::parse(&bytes).unwrap();
            entry.recorded_at_micros += 1;
            bytes = entry.to_bytes().unwrap();
        }
        prover.push(bytes);
    }
    let error = prover.finish().unwrap_err();
    assert!(
        matches!(error, InclusionProofError::NotIncluded { .. }),
        "{error}"
    );
    // And one whose entries did not all come.
    let mut prover = InclusionProver::new(signed(&log, 8), 3).unwrap();
    assert!(!prover.push(log.rows[0].bytes.clone()));
    assert!(matches!(
        prover.finish(),
        Err(InclusionProofError::Leaves { given: 1, .. })
    ));
}
