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
}

/// A state of the log as somebody shows it.
#[derive(Clone)]
struct Shown {
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

impl Shown {
    /// The entry at `position` in the log's first `size`, to a witness that signed its first `old`.
    fn of(log: &Log, size: u64, position: u64, old: u64) -> Shown {
        let mut chain = Chain::new(1);
        for row in &log.rows[..size as usize] {
            chain.follow(row, &[key().verifying_key().clone()]).unwrap();
        }
        let head = chain.head(5, 7).unwrap();
        Shown {
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
            seen: (old > 0).then(|| (old, tree(log, old).root().unwrap())),
            old,
            consistency: tree(log, size).consistency(old).unwrap(),
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Shown)) -> Shown {
        change(&mut self);
        self
    }

    fn proof(&self) -> String {
        let head = Head {
            log: self.log,
            epoch: 1,
            size: self.size,
            last_hash: self.last_hash,
            root: self.root,
            peaks: self.peaks.clone(),
            at_micros: 5,
            lsn: 7,
        };
        let text = |signed: SignedHead| String::from_utf8(signed.to_json()).unwrap();
        let mut signed = text(pair(self.signer).sign(&head));
        if let Some(forger) = self.forger {
            let signature = |json: &str| {
                let json: serde_json::Value = serde_json::from_str(json).unwrap();
                json["signature"].as_str().unwrap().to_owned()
            };
            let forged = signature(&text(pair(forger).sign(&head)));
            signed = signed.replace(&signature(&signed), &forged);
        }
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

    fn request(&self) -> String {
        let checkpoint = Checkpoint {
            origin: self.origin.clone(),
            size: self.size,
            root: self.root,
            extensions: Vec::new(),
        };
        let mut note = checkpoint.sign(&pair(self.signer)).unwrap();
        if let Some(forger) = self.forger {
            let other = checkpoint.sign(&pair(forger)).unwrap().to_bytes();
            let forged = Note::parse(&other).unwrap();
            let line = |note: &Note| {
                let text = note.signatures()[0].to_string();
                let (before, base64) = text.trim_end().rsplit_once(' ').unwrap();
                (before.to_owned(), base64.to_owned())
            };
            // The first four bytes are the key's id.
            let ((before, ours), (_, theirs)) = (line(&note), line(&forged));
            let bytes = |text: &str| crate::note::decode(text).unwrap();
            let mixed = [&bytes(&ours)[..4], &bytes(&theirs)[4..]].concat();
            let text = format!(
                "{}\n{before} {}\n",
                note.text(),
                crate::note::encode(&mixed)
            );
            note = Note::parse(text.as_bytes()).unwrap();
        }
        let request = AddCheckpoint {
            old: self.old,
            proof: self.consistency.clone(),
            checkpoint: note,
        };
        String::from_utf8(request.to_bytes()).unwrap()
    }
}

fn cases() -> Vec<Case> {
    let logs = Logs::new();
    let mut cases = Vec::new();
    let mut add = |name: &str, shown: &Shown, answer: u16| {
        cases.push(Case {
            name: name.to_owned(),
            proof: shown.proof(),
            holds: answer == 200,
            request: shown.request(),
            seen: shown.seen,
            answer,
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
        add(&name, &Shown::of(&logs.one, size, position, old), 200);
    }
    let good = || Shown::of(&logs.one, 23, 6, 7);
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
        &Shown::of(&logs.one, 1, 1, 0).with(|it| {
            it.path.push(it.root);
            it.consistency.push(it.root);
        }),
        422,
    );
    let other = Shown::of(&logs.other, 23, 17, 9);
    add(
        "another tree that has grown from the same beginning",
        &other,
        200,
    );
    let before = Shown::of(&logs.one, 23, 17, 16);
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
            it.path = Shown::of(&logs.other, 23, 6, 7).path;
            it.consistency = Shown::of(&logs.other, 23, 6, 16).consistency;
        }),
        422,
    );
    add(
        "the root is another than the one that was signed by then",
        &Shown::of(&logs.one, 23, 6, 23).with(|it| {
            let other = Shown::of(&logs.other, 23, 6, 23);
            (it.root, it.peaks, it.last_hash) = (other.root, other.peaks, other.last_hash);
        }),
        409,
    );
    add(
        "it ends before the entry",
        &Shown::of(&logs.one, 16, 6, 7).with(|it| {
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
    // Bytes that are not in their one form.
    let (proof, request) = (good().proof(), good().request());
    let mut bytes = |name: &str, change: &dyn Fn(&str) -> String| {
        cases.push(Case {
            name: name.to_owned(),
            proof: change(&proof),
            holds: false,
            request: change(&request),
            seen: good().seen,
            answer: 400,
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
    bytes(
        "a number with a zero before it",
        &|text| match text.contains("\"log\": 1,") {
            true => text.replacen("\"log\": 1,", "\"log\": 01,", 1),
            false => text.replacen("old ", "old 0", 1),
        },
    );
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
        (origin == ORIGIN).then_some(Seen { size, root })
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
    for case in &cases {
        let proof = InclusionProof::from_json(case.proof.as_bytes());
        let holds = proof.and_then(|proof| proof.verify(&keys));
        assert_eq!(holds.is_ok(), case.holds, "{}: {holds:?}", case.name);
        assert_eq!(answer(case), case.answer, "{}", case.name);
        assert_eq!(case.holds, case.answer == 200, "{}", case.name);
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
}
