//! The verifier in Python, which needs nothing else, compared with ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Log, key};
use crate::*;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../clients/python/src/borrow_rate_engine/check_proof.py")
}

/// Says `1` or `0` for each proof of a folder, in the order of their names, under the keys of the given files; of
/// checkpoints, after the words `cosigned`, an origin and a witness's key.
const LOOK: &str = "import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location('check_proof', sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules['check_proof'] = module
spec.loader.exec_module(module)
files, more = sys.argv[3:], []
if files[0] == 'cosigned':
    files, more = files[3:], files[1:3]
keys = [module.read_key(pathlib.Path(name).read_text()) for name in files]
look = module.check_cosigned if more else module.check
for file in sorted(pathlib.Path(sys.argv[2]).iterdir()):
    try:
        look(file.read_bytes(), keys, *more)
        print(1)
    except module.NotProved:
        print(0)
";

fn log_of(seed: [u8; 32], size: u64) -> Log {
    let mut log = Log::new();
    log.key = SigningKey::from_seed(&seed).unwrap();
    log.grow(size, &[]);
    log
}

/// From tiles, as the gateway makes it.
fn prove(log: &Log, size: u64, position: u64, key: &SigningKey) -> InclusionProof {
    let rows = &log.rows[..size as usize];
    let hash = |row: &StoredEntry| Hash::try_from(row.hash.as_slice()).unwrap();
    let mut chain = Chain::new(1);
    for row in rows {
        chain
            .follow(row, &[super::key().verifying_key().clone()])
            .unwrap();
    }
    let head = key.sign(&chain.head(5, 7).unwrap());
    let mut tree = TiledTree::new(size, |id: TileId| {
        let first = (id.index * TILE_WIDTH) as usize;
        Ok::<_, String>(
            rows[first..first + usize::from(id.width)]
                .iter()
                .map(hash)
                .collect(),
        )
    });
    let path = tree.inclusion(position - 1).unwrap();
    InclusionProof::assemble(rows[position as usize - 1].bytes.clone(), path, head).unwrap()
}

/// The JSON with one part replaced by another.
fn edited(proof: &[u8], part: &str, by: &str) -> Vec<u8> {
    let text = String::from_utf8(proof.to_vec()).unwrap();
    assert!(text.contains(part), "{part}");
    text.replacen(part, by, 1).into_bytes()
}

fn table() -> Vec<Vec<u8>> {
    let log = log_of([7; 32], 23);
    let mut table = Vec::new();
    for (size, position) in [
        (1, 1),
        (2, 1),
        (3, 3),
        (8, 5),
        (16, 16),
        (23, 1),
        (23, 17),
        (23, 23),
    ] {
        table.push(prove(&log, size, position, &key()).to_json());
        table.push(
            prove(
                &log,
                size,
                position,
                &SigningKey::from_seed(&[9; 32]).unwrap(),
            )
            .to_json(),
        );
    }
    let good = prove(&log, 23, 6, &key()).to_json();
    let other = prove(&log, 23, 7, &key()).to_json();
    let smaller = prove(&log, 8, 6, &key()).to_json();
    for at in (0..good.len()).step_by(19) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        table.push(bad);
    }
    for at in (0..good.len()).step_by(211) {
        table.push(good[..at].to_vec());
    }
    let field = |json: &[u8], name: &str| {
        let value: serde_json::Value = serde_json::from_slice(json).unwrap();
        let found = match name {
            "head" => value["head"]["payload"].clone(),
            "signature" => value["head"]["signature"].clone(),
            name => value[name].clone(),
        };
        found.as_str().unwrap().to_owned()
    };
    // Parts that are well formed by themselves.
    for part in ["entry", "hash"] {
        table.push(edited(&good, &field(&good, part), &field(&other, part)));
    }
    for part in ["head", "signature"] {
        table.push(edited(&good, &field(&good, part), &field(&smaller, part)));
    }
    table.push(edited(
        &edited(&good, &field(&good, "entry"), &field(&other, "entry")),
        &field(&good, "hash"),
        &field(&other, "hash"),
    ));
    for (part, by) in [
        ("\"log\": 1", "\"log\": 1.0"),
        ("\"log\": 1", "\"log\": 01"),
        ("\"log\": 1", "\"log\": 1, \"log\": 1"),
        ("\"Quote\"", "\"Q\\u0075ote\""),
        ("\"Quote\"", "\"Other\""),
        ("proof-1", "proof-2"),
        ("{\n", "{"),
        ("\"path\": [", "\"path\": [[],"),
        ("\"path\": [", "\"path\": [NaN,"),
        ("\"path\"", "\"paths\""),
    ] {
        table.push(edited(&good, part, by));
    }
    // A signature that is the right one in another form: S + the group's order.
    let signature = hex::decode(&field(&good, "signature")).unwrap();
    let order =
        hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap();
    let mut shifted = signature.clone();
    let mut carry = 0u16;
    for (byte, more) in shifted[32..].iter_mut().zip(&order) {
        carry += u16::from(*byte) + u16::from(*more);
        *byte = carry as u8;
        carry >>= 8;
    }
    table.push(edited(
        &good,
        &field(&good, "signature"),
        &hex::encode(&shifted),
    ));
    table.push([&good[..], b"\n"].concat());
    table.extend([
        b"".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        b"\xff\xfe".to_vec(),
        vec![b'['; 5000],
    ]);
    table.push(good);
    table
}

/// Which of these proofs the verifier in Python takes under [`key`]; `None`, said, where there is no Python.
pub(super) fn holds(proofs: &[Vec<u8>]) -> Option<Vec<bool>> {
    look(proofs, &[])
}

/// Which of these checkpoints it takes as ones of that origin that the witness signed.
pub(super) fn cosigned(notes: &[Vec<u8>], origin: &str, witness: &NoteKey) -> Option<Vec<bool>> {
    look(notes, &["cosigned", origin, &witness.to_string()])
}

fn look(proofs: &[Vec<u8>], more: &[&str]) -> Option<Vec<bool>> {
    let folder = tempfile::tempdir().unwrap();
    let public = folder.path().join("audit_signing.pub");
    key().verifying_key().create(&public).unwrap();
    let files = folder.path().join("proofs");
    std::fs::create_dir(&files).unwrap();
    for (number, proof) in proofs.iter().enumerate() {
        std::fs::write(files.join(format!("{number:05}")), proof).unwrap();
    }
    let python = Command::new("python3")
        .args(["-I", "-B", "-c", LOOK])
        .args([&script(), &files])
        .args(more)
        .arg(&public)
        .output();
    let Ok(python) = python else {
        testkit::skip!("python3", "it is not installed");
        return None;
    };
    assert!(
        python.status.success(),
        "{}",
        String::from_utf8_lossy(&python.stderr)
    );
    let said = String::from_utf8(python.stdout).unwrap();
    let said: Vec<bool> = said.lines().map(|line| line == "1").collect();
    assert_eq!(said.len(), proofs.len());
    Some(said)
}

#[test]
fn the_verifier_in_python_agrees_on_good_and_mutated_proofs() {
    let table = table();
    let Some(theirs) = holds(&table) else {
        return;
    };
    let keys = [key().verifying_key().clone()];
    let ours = |proof: &Vec<u8>| {
        InclusionProof::from_json(proof).is_ok_and(|proof| proof.verify(&keys).is_ok())
    };
    let ours: Vec<bool> = table.iter().map(ours).collect();
    assert_eq!(ours, theirs);
    let good = ours.iter().filter(|holds| **holds).count();
    assert_eq!(good, 9, "the good ones, and no other");
}
