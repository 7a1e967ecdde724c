//! One list of cases, good and bad, that all who check something of a log agree on: our check of a proof, the verifier
//! that needs Python alone, and a witness. Each case is one state of a log, shown as a proof of an entry and as a
//! request to a witness, with the same thing wrong in both. The list is `proof_cases.json`, for the engine's own test
//! of its command and for verifiers of others.

use serde::{Deserialize, Serialize};

use super::{Log, key, python};
use crate::*;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proof_cases.json");
const ORIGIN: &str = "log.example/log-1/1";
const STRANGER: [u8; 32] = [9; 32];
/// RFC 8032, test 2.
const WITNESS: [u8; 32] = [
    0x4c, 0xcd, 0x08, 0x9b, 0x28, 0xff, 0x96, 0xda, 0x9d, 0xb6, 0xc3, 0x46, 0xec, 0x11, 0x4e, 0x0f,
    0x5b, 0x8a, 0x31, 0x9f, 0x35, 0xab, 0xa6, 0x24, 0xda, 0x8c, 0xf6, 0xed, 0x4f, 0xb8, 0xa6, 0xfb,
];
const WITNESS_NAME: &str = "witness.example/w";
const BEFORE_THE_ENTRY: &str = "it ends before the entry";

fn pair(seed: [u8; 32]) -> SigningKey {
    SigningKey::from_seed(&seed).unwrap()
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Case {
    name: String,
    /// An entry's proof, and whether it holds under the key of RFC 8032, test 1.
    proof: String,
    holds: bool,
    /// A body of add-checkpoint to a witness that knows `log.example/log-1` by that key, what it signed last of the
    /// origin, and its answer's status.
    request: String,
    seen: Option<(u64, Hash)>,
    answer: u16,
    /// The checkpoint with a witness's cosignature, and whether it is one of the origin `log.example/log-1/1` that the
    /// witness of RFC 8032, test 2, signed.
    cosigned: String,
    is_cosigned: bool,
}

/// A state of the log as somebody shows it.
#[derive(Clone)]
struct ShownLog {
    entry: Vec<u8>,
    /// Of the head.
    log: u16,
    size: u64,
    last_hash: Hash,
    root: Hash,
    peaks: Vec<Hash>,
    path: Vec<Hash>,
    signer: [u8; 32],
    /// Signs in the place of the signer, under his name.
    forger: Option<[u8; 32]>,
    origin: String,
    /// The signatures are those of a checkpoint of this origin, and of a head of this log.
    signed_for: Option<(u16, &'static str)>,
    /// The cosignature alone is that of a checkpoint of this origin.
    cosigned_for: Option<&'static str>,
    /// What the witness signed last, and what it is asked with.
    seen: Option<(u64, Hash)>,
    old: u64,
    consistency: Vec<Hash>,
}

/// 23 entries, and another chain of as many of which the first 9 are the same.
struct Logs {
    one: Log,
    other: Log,
}

impl Logs {
    fn new() -> Logs {
        let one = Log::with(23, &[]);
        let mut other = Log::with(9, &[]);
        other.clock += 1;
        other.grow(23, &[]);
        Logs { one, other }
    }
}

fn tree(log: &Log, size: u64) -> TiledTree<impl FnMut(TileId) -> Result<Vec<Hash>, String> + '_> {
    let hash = |row: &StoredEntry| Hash::try_from(row.hash.as_slice()).unwrap();
    TiledTree::new(size, move |id: TileId| {
        let first = (id.index * TILE_WIDTH) as usize;
        let rows = &log.rows[first..first + usize::from(id.width)];
        Ok(rows.iter().map(hash).collect())
    })
}

impl ShownLog {
    /// The entry at `position` in the log's first `size`, to a witness that signed its first `old`.
    fn of(log: &Log, size: u64, position: u64, old: u64) -> ShownLog {
        let mut chain = Chain::new(1);
        for row in &log.rows[..size as usize] {
            chain.follow(row, &[key().verifying_key().clone()]).unwrap();
        }
        let head = chain.head(5, 7).unwrap();
        ShownLog {
            entry: log.rows[position as usize - 1].bytes.clone(),
            log: 1,
            size,
            last_hash: head.last_hash,
            root: head.root,
            peaks: head.peaks,
            path: tree(log, size).inclusion(position - 1).unwrap(),
            signer: super::SEED,
            forger: None,
            origin: ORIGIN.to_owned(),
            signed_for: None,
            cosigned_for: None,
            seen: (old > 0).then(|| (old, tree(log, old).root().unwrap())),
            old,
            consistency: tree(log, size).consistency(old).unwrap(),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut ShownLog)) -> ShownLog {
        change(&mut self);
        self
    }

    fn head(&self, log: u16) -> Head {
        Head {
            log,
            epoch: 1,
            size: self.size,
            last_hash: self.last_hash,
            root: self.root,
            peaks: self.peaks.clone(),
            at_micros: 5,
            lsn: 7,
        }
    }

    fn proof(&self) -> String {
        let text = |signed: SignedHead| String::from_utf8(signed.to_json()).unwrap();
        let mut signed = text(pair(self.signer).sign(&self.head(self.log)));
        let (forger, log) = (self.forger.unwrap_or(self.signer), self.signed_for);
        let other = text(pair(forger).sign(&self.head(log.map_or(self.log, |(log, _)| log))));
        let signature = |json: &str| {
            let json: serde_json::Value = serde_json::from_str(json).unwrap();
            json["signature"].as_str().unwrap().to_owned()
        };
        signed = signed.replace(&signature(&signed), &signature(&other));
        let entry = Entry::parse(&self.entry).unwrap();
        let path: Vec<String> = self
            .path
            .iter()
            .map(|it| format!("\n    \"{it}\""))
            .collect();
        let path = match path.as_slice() {
            [] => "[]".to_owned(),
            path => format!("[{}\n  ]", path.join(",")),
        };
        format!(
            "{{\n  \"format\": \"bre-audit-proof-1\",\n  \"log\": {},\n  \"epoch\": {},\n  \"position\": {},\n  \
             \"kind\": \"{}\",\n  \"at_micros\": {},\n  \
             \"hash\": \"{}\",\n  \"entry\": \"{}\",\n  \"path\": {path},\n  \"head\": {}\n}}\n",
            entry.log,
            entry.epoch,
            entry.position,
            entry.kind.name(),
            entry.recorded_at_micros,
            Entry::hash_of(&self.entry),
            hex::encode(&self.entry),
            signed.trim_end().replace('\n', "\n  "),
        )
    }

    fn checkpoint(&self, origin: &str) -> Checkpoint {
        Checkpoint {
            origin: origin.to_owned(),
            size: self.size,
            root: self.root,
            extensions: Vec::new(),
        }
    }

    /// The checkpoint as the log signed it: by its signer or a forger, for its origin or another.
    fn note(&self) -> Note {
        let note = self.checkpoint(&self.origin);
        let note = note.sign(&pair(self.signer)).unwrap();
        let origin = self.signed_for.map_or(&*self.origin, |(_, origin)| origin);
        let other = self.checkpoint(origin);
        let other = other
            .sign(&pair(self.forger.unwrap_or(self.signer)))
            .unwrap();
        let mixed = mix(&note.signatures()[0], &other.signatures()[0]);
        note.with_signatures(vec![mixed])
    }

    fn cosigned(&self) -> String {
        let mut note = self.note();
        let origin = self.signed_for.map_or(&*self.origin, |(_, origin)| origin);
        let origin = self.cosigned_for.unwrap_or(origin);
        let seen = self.checkpoint(origin).sign(&pair(self.signer)).unwrap();
        note.add(pair(WITNESS).cosign(WITNESS_NAME, &seen, 7).unwrap());
        String::from_utf8(note.to_bytes()).unwrap()
    }

    fn request(&self) -> String {
        let request = AddCheckpoint {
            old: self.old,
            proof: self.consistency.clone(),
            checkpoint: self.note(),
        };
        String::from_utf8(request.to_bytes()).unwrap()
    }
}

/// Name and key id of the one, and the signature of the other.
fn mix(name: &NoteSignature, signature: &NoteSignature) -> NoteSignature {
    let parts = |line: &NoteSignature| {
        let text = line.to_string();
        let (before, base64) = text.trim_end().rsplit_once(' ').unwrap();
        (before.to_owned(), crate::note::decode(base64).unwrap())
    };
    let ((before, ours), (_, theirs)) = (parts(name), parts(signature));
    // The first four bytes are the key's id.
    let mixed = [&ours[..4], &theirs[4..]].concat();
    NoteSignature::parse(&format!("{before} {}", crate::note::encode(&mixed))).unwrap()
}

fn cases() -> Vec<Case> {
    let logs = Logs::new();
    let mut cases = Vec::new();
    let mut add = |name: &str, shown: &ShownLog, answer: u16| {
        cases.push(Case {
            name: name.to_owned(),
            proof: shown.proof(),
            holds: answer == 200,
            request: shown.request(),
            seen: shown.seen,
            answer,
            cosigned: shown.cosigned(),
            // What only the request has wrong is no fault of the checkpoint.
            is_cosigned: shown.cosigned_for.is_none()
                && (matches!(answer, 200 | 409 | 422) || name == BEFORE_THE_ENTRY),
        });
    };
    for (size, position, old) in [
        (1, 1, 0),
        (2, 1, 1),
        (3, 3, 2),
        (8, 5, 3),
        (16, 16, 8),
        (23, 1, 16),
        (23, 17, 5),
        (23, 23, 23),
    ] {
        let name = format!("entry {position} of {size}, to a witness at {old}");
        add(&name, &ShownLog::of(&logs.one, size, position, old), 200);
    }
    let good = || ShownLog::of(&logs.one, 23, 6, 7);
    add(
        "signed by a key that is not trusted",
        &good().with(|it| it.signer = STRANGER),
        403,
    );
    add(
        "signed by another key in the trusted one's name",
        &good().with(|it| it.forger = Some(STRANGER)),
        403,
    );
    add(
        "the last hash is left out",
        &good().with(|it| {
            it.path.pop();
            it.consistency.pop();
        }),
        422,
    );
    add(
        "the first hash is left out",
        &good().with(|it| {
            it.path.remove(0);
            it.consistency.remove(0);
        }),
        422,
    );
    add(
        "no hashes",
        &good().with(|it| {
            it.path.clear();
            it.consistency.clear();
        }),
        422,
    );
    add(
        "two hashes are exchanged",
        &good().with(|it| {
            it.path.swap(0, 1);
            it.consistency.swap(0, 1);
        }),
        422,
    );
    add(
        "the hashes are in the other order",
        &good().with(|it| {
            it.path.reverse();
            it.consistency.reverse();
        }),
        422,
    );
    add(
        "one hash more",
        &good().with(|it| {
            it.path.push(it.root);
            it.consistency.push(it.root);
        }),
        422,
    );
    add(
        "one hash twice",
        &good().with(|it| {
            it.path.insert(1, it.path[1]);
            it.consistency.insert(1, it.consistency[1]);
        }),
        422,
    );
    add(
        "a hash of another tree",
        &good().with(|it| {
            it.path[1] = it.root;
            it.consistency[1] = it.root;
        }),
        422,
    );
    add(
        "a hash where none belongs",
        &ShownLog::of(&logs.one, 1, 1, 0).with(|it| {
            it.path.push(it.root);
            it.consistency.push(it.root);
        }),
        422,
    );
    let other = ShownLog::of(&logs.other, 23, 17, 9);
    add(
        "another tree that has grown from the same beginning",
        &other,
        200,
    );
    let before = ShownLog::of(&logs.one, 23, 17, 16);
    add(
        "the log was rewritten, and its head is of the new tree",
        &other.clone().with(|it| {
            it.entry = before.entry.clone();
            it.path = before.path.clone();
            it.seen = before.seen;
            it.old = before.old;
        }),
        422,
    );
    add(
        "the path is that of another tree",
        &good().with(|it| {
            it.path = ShownLog::of(&logs.other, 23, 6, 7).path;
            it.consistency = ShownLog::of(&logs.other, 23, 6, 16).consistency;
        }),
        422,
    );
    add(
        "the root is another than the one that was signed by then",
        &ShownLog::of(&logs.one, 23, 6, 23).with(|it| {
            let other = ShownLog::of(&logs.other, 23, 6, 23);
            (it.root, it.peaks, it.last_hash) = (other.root, other.peaks, other.last_hash);
        }),
        409,
    );
    add(
        BEFORE_THE_ENTRY,
        &ShownLog::of(&logs.one, 16, 6, 7).with(|it| {
            it.entry = logs.one.rows[16].bytes.clone();
            it.old = 17;
        }),
        400,
    );
    add(
        "no entries",
        &good().with(|it| {
            (it.size, it.peaks, it.seen, it.old) = (0, Vec::new(), None, 0);
            (it.root, it.last_hash) = (Hash::of(&[]), Hash::ZERO);
            it.consistency.clear();
            it.path.clear();
        }),
        400,
    );
    add(
        "2^63 entries",
        &good().with(|it| {
            (it.size, it.seen, it.old) = (1 << 63, None, 0);
            it.peaks = vec![it.root];
            it.path = vec![it.root; 63];
            it.consistency.clear();
        }),
        400,
    );
    add(
        "another log of the same name",
        &good().with(|it| {
            it.log = 2;
            it.origin = "log.example/log-2/1".to_owned();
            (it.seen, it.old) = (None, 0);
            it.consistency.clear();
        }),
        404,
    );
    add(
        "a log that the witness does not know",
        &good().with(|it| {
            it.log = 3;
            it.origin = "other.example/log-1/1".to_owned();
            (it.seen, it.old) = (None, 0);
            it.consistency.clear();
        }),
        404,
    );
    add(
        "signature and cosignature are those of another origin",
        &good().with(|it| it.signed_for = Some((2, "log.example/log-1/2"))),
        403,
    );
    add(
        "the cosignature alone is that of another origin",
        &good().with(|it| it.cosigned_for = Some("log.example/log-1/2")),
        200,
    );
    // Bytes that are not in their one form.
    let (proof, request, cosigned) = (good().proof(), good().request(), good().cosigned());
    let mut bytes = |name: &str, change: &dyn Fn(&str) -> String| {
        cases.push(Case {
            name: name.to_owned(),
            proof: change(&proof),
            holds: false,
            request: change(&request),
            seen: good().seen,
            answer: 400,
            cosigned: change(&cosigned),
            is_cosigned: false,
        });
    };
    bytes("nothing", &|_| String::new());
    bytes("it ends in the middle", &|text| {
        text[..text.len() / 2].to_owned()
    });
    bytes("it ends one byte early", &|text| {
        text[..text.len() - 1].to_owned()
    });
    bytes("one line end more", &|text| format!("{text}\n"));
    bytes("a control character", &|text| {
        text.replacen('1', "1\u{1}", 1)
    });
    bytes("a number with a zero before it", &|text| {
        let text = text.replacen("\"log\": 1,", "\"log\": 01,", 1);
        match text.starts_with("old ") {
            true => text.replacen("old ", "old 0", 1),
            false => text.replacen("\n23\n", "\n023\n", 1),
        }
    });
    cases
}

fn answer(case: &Case) -> u16 {
    let logs = [KnownLog {
        name: "log.example/log-1".to_owned(),
        keys: vec![key().verifying_key().clone()],
    }];
    let Ok(request) = AddCheckpoint::parse(case.request.as_bytes()) else {
        return 400;
    };
    let seen = |origin: &str| {
        let (size, root) = case.seen?;
        (origin == ORIGIN).then_some(KnownTree { size, root })
    };
    judge(&request, &logs, seen).status()
}

#[test]
fn all_who_check_agree_on_every_case() {
    let cases = cases();
    let text = serde_json::to_string_pretty(&cases).unwrap() + "\n";
    if std::env::var_os("RENEW_CASES").is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    let kept = std::fs::read_to_string(FILE).unwrap();
    assert!(kept == text, "RENEW_CASES=1 writes {FILE}");
    let keys = [key().verifying_key().clone()];
    let witness = pair(WITNESS).verifying_key().clone();
    let witness = NoteKey::new(WITNESS_NAME, SignatureKind::Cosignature, witness).unwrap();
    for case in &cases {
        let proof = InclusionProof::from_json(case.proof.as_bytes());
        let holds = proof.and_then(|proof| proof.verify(&keys));
        assert_eq!(holds.is_ok(), case.holds, "{}: {holds:?}", case.name);
        assert_eq!(answer(case), case.answer, "{}", case.name);
        assert_eq!(case.holds, case.answer == 200, "{}", case.name);
        let note = Note::parse(case.cosigned.as_bytes());
        let cosigned =
            note.and_then(|note| Checkpoint::verify_cosigned(&note, ORIGIN, &keys, &witness));
        assert_eq!(
            cosigned.is_ok(),
            case.is_cosigned,
            "{}: {cosigned:?}",
            case.name
        );
    }
    let proofs: Vec<Vec<u8>> = cases
        .iter()
        .map(|case| case.proof.clone().into_bytes())
        .collect();
    let Some(theirs) = python::holds(&proofs) else {
        return;
    };
    for (case, theirs) in cases.iter().zip(theirs) {
        assert_eq!(theirs, case.holds, "{}", case.name);
    }
    let notes = cases.iter().map(|case| case.cosigned.clone().into_bytes());
    let notes: Vec<Vec<u8>> = notes.collect();
    let Some(theirs) = python::cosigned(&notes, ORIGIN, &witness) else {
        return;
    };
    for (case, theirs) in cases.iter().zip(theirs) {
        assert_eq!(theirs, case.is_cosigned, "{}", case.name);
    }
}
