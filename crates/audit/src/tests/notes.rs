use super::{Log, key};
use crate::*;

fn other_key() -> SigningKey {
    SigningKey::from_seed(&[7; 32]).unwrap()
}

/// A note and its key that the Go checksum database's library documents.
#[test]
fn a_note_of_somebody_else_is_read_and_verified() {
    let neumann: NoteKey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
        .parse()
        .unwrap();
    let text = "If you think cryptography is the answer to your problem,\n\
                then you don't know what your problem is.\n\n\
                \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    let note = Note::parse(text.as_bytes()).unwrap();
    assert!(
        neumann
            .signed(&note, SignedPlace::Nowhere)
            .unwrap()
            .is_some()
    );
    assert_eq!(note.to_bytes(), text.as_bytes());
    assert_eq!(
        neumann.to_string(),
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    );
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        origin: "log.example/log-1/3".to_owned(),
        size: 2,
        root: Hash::of(&[b"root"]),
        extensions: vec![
            LeftBehind {
                origin: "log.example/log-1/1".to_owned(),
                size: 9,
                root: Some(Hash::of(&[b"old"])),
            }
            .to_string(),
        ],
    }
}

#[test]
fn any_changed_byte_of_a_checkpoint_is_found() {
    let good = checkpoint().sign(&key()).unwrap().to_bytes();
    let keys = [key().verifying_key().clone()];
    let read = |bytes: &[u8]| Checkpoint::verify(&Note::parse(bytes)?, &keys);
    assert_eq!(read(&good).unwrap(), checkpoint());
    assert_eq!(read(&good).unwrap().left_behind().unwrap().unwrap().size, 9);
    for at in 0..good.len() {
        for change in [1, 0x20, 0x80] {
            let mut bad = good.clone();
            bad[at] ^= change;
            assert!(read(&bad).is_err(), "byte {at}");
        }
        assert!(read(&good[..at]).is_err(), "cut at {at}");
    }
    assert_eq!(
        Checkpoint::verify(
            &Note::parse(&good).unwrap(),
            &[other_key().verifying_key().clone()]
        ),
        Err(NoteError::Unsigned)
    );
    let revoked = [key().verifying_key().clone().until(1, 2)];
    assert_eq!(
        Checkpoint::verify(&Note::parse(&good).unwrap(), &revoked),
        Err(NoteError::Revoked {
            key_id: key().key_id(),
            from: (1, 2)
        })
    );
}

#[test]
fn a_cosignature_says_when_and_stands_beside_the_logs_own() {
    let mut note = checkpoint().sign(&key()).unwrap();
    let witness = other_key();
    let line = witness
        .cosign("witness.example/w", &note, 1_700_000_000)
        .unwrap();
    note.add(line.clone());
    note.add(line);
    let note = Note::parse(&note.to_bytes()).unwrap();
    assert_eq!(note.signatures().len(), 2);
    let known = NoteKey::new(
        "witness.example/w",
        SignatureKind::Cosignature,
        witness.verifying_key().clone(),
    )
    .unwrap();
    let read: NoteKey = known.to_string().parse().unwrap();
    assert_eq!(
        read.signed(&note, SignedPlace::Nowhere).unwrap(),
        Some(ValidSignature {
            at_seconds: Some(1_700_000_000)
        })
    );
    assert!(Checkpoint::verify(&note, &[key().verifying_key().clone()]).is_ok());
    // As another text's it is false; under a name that nobody knows it is ignored.
    let moved = Checkpoint {
        size: 3,
        ..checkpoint()
    }
    .sign(&key())
    .unwrap();
    let moved = moved.with_signatures(note.signatures().to_vec());
    assert!(matches!(
        read.signed(&moved, SignedPlace::Nowhere),
        Err(NoteError::False { .. })
    ));
    let stranger = NoteKey::new(
        "w2",
        SignatureKind::Cosignature,
        witness.verifying_key().clone(),
    )
    .unwrap();
    assert_eq!(stranger.signed(&note, SignedPlace::Nowhere), Ok(None));
}

#[test]
fn what_is_no_note_is_refused_with_words() {
    let line = "\u{2014} a AAAAAAAA\n";
    let check = |bytes: &[u8], why: &str| {
        let error = Note::parse(bytes).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    check(b"", "line end");
    check(b"text\n", "empty line");
    check(b"text\n\n", "no signature");
    check(b"text\n\n- a AAAAAAAA\n", "em dash");
    check("text\n\n\u{2014} a AAAAAA==\n".as_bytes(), "em dash");
    check("text\n\n\u{2014} a+b AAAAAAAA\n".as_bytes(), "em dash");
    check("text\n\n\u{2014} a AAAAAAAB==\n".as_bytes(), "em dash");
    check(format!("te\u{7}xt\n\n{line}").as_bytes(), "control");
    check(format!("text\r\n\n{line}").as_bytes(), "control");
    check(b"text\n\n\xff\n", "UTF-8");
    check(format!("text\n\n{}", line.repeat(65)).as_bytes(), "64");
    check(&vec![b'\n'; NOTE_BYTES_MAX + 1], "64 KiB");
    assert!(
        Note::parse(format!("a\n\nb\n\n{line}").as_bytes())
            .unwrap()
            .text()
            == "a\n\nb\n"
    );
    for text in [
        "log\n02\nAA==\n",
        "log\n-1\nAA==\n",
        "\n1\nAA==\n",
        "log\n1\n",
        "log\n1\nAA==\n",
    ] {
        let note = key().sign_note("log", text.to_owned()).unwrap();
        assert!(
            matches!(Checkpoint::read(&note), Err(NoteError::Checkpoint(_))),
            "{text}"
        );
    }
    for wrong in [
        "",
        "a",
        "a+b",
        "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ] {
        assert!(wrong.parse::<NoteKey>().is_err(), "{wrong}");
    }
    assert!(key().sign_note("a b", "text\n".to_owned()).is_err());
    assert!(key().sign_note("a", "text".to_owned()).is_err());
}

/// A signature of a head or an entry is none of a note, and the other way round: no bytes are both.
#[test]
fn what_is_signed_elsewhere_is_no_note() {
    let mut log = Log::with(3, &[3]);
    let head = log.key.sign(&log.heads.pop().unwrap());
    let json = String::from_utf8(head.to_json()).unwrap();
    let payload = json
        .split("\"payload\": \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let payload = hex::decode(payload).unwrap();
    assert!(payload.iter().any(|byte| *byte < 0x20 && *byte != b'\n'));
    assert!(
        key()
            .sign_note("a", String::from_utf8_lossy(&payload).into_owned() + "\n")
            .is_err()
    );
}

fn began(log: &Log) -> u32 {
    Origin::began_by(&log.verify().epochs)
}

#[test]
fn a_new_origin_begins_where_published_entries_are_left_behind() {
    let mut log = Log::with(9, &[4, 8]);
    assert_eq!(began(&log), 1);
    // Everything that was published came back.
    log.recover(9, 2, Some(0));
    assert_eq!(began(&log), 1);
    log.grow(14, &[14]);
    log.recover(14, 3, Some(0));
    assert_eq!(began(&log), 1);
    // Two entries of a head did not.
    log.grow(20, &[20]);
    log.recover(18, 7, Some(2));
    assert_eq!(began(&log), 7);
    log.grow(25, &[24]);
    log.recover(24, 8, Some(1));
    assert_eq!(began(&log), 7);
    // Back before the opening that began it: never the same origin again.
    log.recover(10, 9, None);
    assert_eq!(began(&log), 9);
}

#[test]
fn names_of_origins() {
    for good in ["a", "log.example/borrow", "127.0.0.1:8000/log", "bre-0123"] {
        assert!(is_origin_name(good), "{good}");
    }
    for bad in [
        "",
        "/a",
        "a/",
        "a//b",
        "a b",
        "A",
        "a+b",
        "ä",
        &"a".repeat(129),
    ] {
        assert!(!is_origin_name(bad), "{bad}");
    }
    let origin = Origin {
        name: "x".to_owned(),
        log: 1,
        began: 4,
    };
    assert_eq!(origin.to_string(), "x/log-1/4");
}
