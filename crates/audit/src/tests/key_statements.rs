use super::Log;
use crate::*;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).unwrap()
}

fn public(seed: u8) -> VerifyingKey {
    key(seed).verifying_key().clone()
}

fn rotation(old: u8, new: u8) -> KeyStatement {
    KeyStatement::rotation(1, &key(old), &key(new), 10, 5).unwrap()
}

fn revocation(of: u8, by: u8, from: u64) -> KeyStatement {
    KeyStatement::revocation(1, &public(of), &key(by), (1, from), 5).unwrap()
}

/// Which keys, and until where.
fn trusted(given: &[u8], statements: &[KeyStatement]) -> Vec<(u8, Option<u64>)> {
    let given: Vec<VerifyingKey> = given.iter().map(|seed| public(*seed)).collect();
    let keys = trust(1, &given, statements).unwrap();
    keys.iter()
        .map(|found| {
            let seed = (1..=9).find(|seed| public(*seed).is_same(found)).unwrap();
            (seed, found.revoked_from().map(|(_, position)| position))
        })
        .collect()
}

#[test]
fn trust_follows_rotations_forward_and_their_predecessors_backward() {
    let statements = [rotation(1, 2), rotation(2, 3)];
    assert_eq!(
        trusted(&[1], &statements),
        [(1, None), (2, None), (3, None)]
    );
    assert_eq!(
        trusted(&[3], &statements),
        [(3, None), (2, None), (1, None)]
    );
    assert_eq!(
        trusted(&[2], &statements),
        [(2, None), (3, None), (1, None)]
    );
    assert_eq!(trusted(&[4], &statements), [(4, None)]);
    // Of another log.
    let elsewhere = KeyStatement::rotation(2, &key(1), &key(2), 10, 5).unwrap();
    assert_eq!(trusted(&[1], &[elsewhere]), [(1, None)]);
}

#[test]
fn a_thief_with_an_old_key_gets_nobody_to_follow() {
    let (ours, theirs) = (rotation(1, 2), rotation(1, 9));
    let given = [public(1)];
    assert!(matches!(
        trust(1, &given, &[ours.clone(), theirs.clone()]),
        Err(StatementError::Fork { .. })
    ));
    // Whoever was told of the new key is not deceived: the old one is its predecessor and introduces nobody.
    assert_eq!(
        trusted(&[2], &[ours, theirs.clone()]),
        [(2, None), (1, None)]
    );
    // A revocation by somebody who does not descend from the key, or is not trusted, is nobody's.
    let statements = [rotation(1, 2), revocation(2, 1, 1), revocation(1, 9, 1)];
    assert_eq!(trusted(&[2], &statements), [(2, None), (1, None)]);
    let statements = [
        rotation(1, 2),
        theirs,
        revocation(1, 9, 1),
        revocation(1, 2, 40),
    ];
    assert_eq!(trusted(&[2], &statements), [(2, None), (1, Some(40))]);
}

#[test]
fn any_changed_byte_of_a_statement_is_found() {
    for statement in [rotation(1, 2), revocation(1, 2, 40)] {
        let good = statement.to_bytes();
        assert_eq!(KeyStatement::parse(&good).unwrap(), statement);
        for at in 0..good.len() {
            for change in [1, 0x20] {
                let mut bad = good.clone();
                bad[at] ^= change;
                assert!(KeyStatement::parse(&bad).is_err(), "byte {at}");
            }
            assert!(KeyStatement::parse(&good[..at]).is_err(), "cut at {at}");
        }
    }
    // The new key has to show that it is held.
    let text = String::from_utf8(rotation(1, 2).to_bytes()).unwrap();
    let alone: Vec<&str> = text.lines().collect();
    let alone = format!("{}\n", alone[..alone.len() - 1].join("\n"));
    assert_eq!(
        KeyStatement::parse(alone.as_bytes()),
        Err(StatementError::Unsigned(public(2).key_id()))
    );
}

#[test]
fn a_revoked_key_vouches_for_what_came_before_and_for_nothing_after() {
    let mut log = Log::with(12, &[6, 12]);
    let old = log.key.verifying_key().clone();
    let signed: Vec<SignedHead> = log.heads.iter().map(|head| log.key.sign(head)).collect();
    let keys = [old.clone().until(1, 12)];
    assert!(signed[0].verify(&keys).is_ok());
    assert!(matches!(
        signed[1].verify(&keys),
        Err(HeadError::Revoked {
            size: 12,
            from: (1, 12),
            ..
        })
    ));
    // An opening by it after the position is none either, whatever it says.
    log.recover(12, 5, Some(0));
    let report = verify(1, log.rows.clone(), &[], &[old.clone().until(5, 13)]);
    assert_eq!(report.first_bad.map(|bad| bad.position), Some(13));
    assert!(
        report
            .reason
            .unwrap()
            .contains("revoked from epoch 5, position 13")
    );
    assert!(verify(1, log.rows.clone(), &[], &[old.until(5, 14)]).is_sound());
    // What a recovery left behind was signed before, whatever its size.
    let head = &signed[1];
    assert!(head.verify(&[old_key().until(2, 3)]).is_ok());
}

fn old_key() -> VerifyingKey {
    super::key().verifying_key().clone()
}
