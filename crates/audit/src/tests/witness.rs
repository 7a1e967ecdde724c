use std::cell::RefCell;
use std::collections::HashMap;
use std::convert::Infallible;

use proptest::prelude::*;

use super::key;
use crate::*;

const ORIGIN: &str = "log.example/log-1/1";

fn leaf(tree: u8, index: u64) -> Hash {
    Hash::of(&[&[0, tree], &index.to_be_bytes()])
}

/// The tree of so many leaves: of one tree the first 40 are those of the other as well.
fn tiled(tree: u8, size: u64) -> TiledTree<impl FnMut(TileId) -> Result<Vec<Hash>, Infallible>> {
    let hash = move |index| leaf(if index < 40 { 0 } else { tree }, index);
    TiledTree::new(size, move |id: TileId| {
        Ok((0..u64::from(id.width))
            .map(|at| hash(id.index * TILE_WIDTH + at))
            .collect())
    })
}

fn request(tree: u8, old: u64, size: u64) -> AddCheckpoint {
    let checkpoint = Checkpoint {
        origin: ORIGIN.to_owned(),
        size,
        root: tiled(tree, size).root().unwrap(),
        extensions: Vec::new(),
    };
    AddCheckpoint {
        old,
        proof: tiled(tree, size).consistency(old.min(size)).unwrap(),
        checkpoint: checkpoint.sign(&key()).unwrap(),
    }
}

fn logs() -> Vec<KnownLog> {
    vec![KnownLog {
        name: "log.example/log-1".to_owned(),
        keys: vec![key().verifying_key().clone()],
    }]
}

fn at(size: u64, tree: u8) -> impl Fn(&str) -> Option<KnownTree> {
    let root = tiled(tree, size).root().unwrap();
    move |origin| (origin == ORIGIN && size > 0).then_some(KnownTree { size, root })
}

#[test]
fn a_request_is_judged_in_the_words_of_the_protocol() {
    let check = |request: &AddCheckpoint, seen: u64, expected: &str| {
        let bytes = request.to_bytes();
        assert_eq!(AddCheckpoint::parse(&bytes).as_ref(), Ok(request));
        let judged = judge(request, &logs(), at(seen, 0));
        assert!(format!("{judged:?}").starts_with(expected), "{judged:?}");
    };
    check(&request(0, 0, 7), 0, "Sign");
    check(&request(0, 7, 50), 7, "Sign");
    check(&request(0, 7, 7), 7, "Sign");
    check(&request(0, 6, 50), 7, "Conflict(7)");
    check(&request(0, 0, 50), 7, "Conflict(7)");
    check(&request(0, 9, 7), 9, "Malformed");
    check(&request(1, 45, 60), 45, "Inconsistent");
    check(&request(1, 45, 45), 45, "Conflict(45)");
    let mut unproved = request(0, 7, 50);
    unproved.proof.pop();
    check(&unproved, 7, "Inconsistent");
    let mut proved = request(0, 0, 7);
    proved.proof.push(leaf(0, 1));
    check(&proved, 0, "Inconsistent");
    let stranger = SigningKey::from_seed(&[9; 32]).unwrap();
    let mut forged = request(0, 0, 7);
    forged.checkpoint = stranger
        .sign_note(ORIGIN, forged.checkpoint.text().to_owned())
        .unwrap();
    check(&forged, 0, "Untrusted");
    let nobody = judge(&request(0, 0, 7), &[], at(0, 0));
    assert_eq!(nobody, Judgement::UnknownOrigin);
    for origin in ["log.example/log-1", "log.example/log-1/7"] {
        assert!(logs()[0].has(origin), "{origin}");
    }
    for origin in [
        "log.example/log-10",
        "log.example/log-1/",
        "log.example/log-1/07",
        "log.example/log-1/x",
        "log.example",
    ] {
        assert!(!logs()[0].has(origin), "{origin}");
    }
    for bytes in [
        "",
        "old 1\n",
        "new 1\n\n",
        "old 01\n\n",
        "old 1\nAA==\n\n",
        "old -1\n\n",
    ] {
        assert!(AddCheckpoint::parse(bytes.as_bytes()).is_err(), "{bytes:?}");
    }
}

#[test]
fn a_log_cannot_leave_behind_less_than_was_seen() {
    let check = |size: u64, root: Option<Hash>, signs: bool| {
        let left = LeftBehind {
            origin: ORIGIN.to_owned(),
            size,
            root,
        };
        let checkpoint = Checkpoint {
            origin: "log.example/log-1/2".to_owned(),
            size: 5,
            root: leaf(3, 3),
            extensions: vec![left.to_string()],
        };
        let request = AddCheckpoint {
            old: 0,
            proof: Vec::new(),
            checkpoint: checkpoint.sign(&key()).unwrap(),
        };
        let judged = judge(&request, &logs(), at(45, 0));
        assert_eq!(matches!(judged, Judgement::Sign(_)), signs, "{judged:?}");
        assert!(
            signs || matches!(judged, Judgement::Inconsistent(_)),
            "{judged:?}"
        );
    };
    let seen = tiled(0, 45).root().unwrap();
    check(45, Some(seen), true);
    check(46, Some(leaf(1, 1)), true);
    check(45, None, true);
    check(44, Some(seen), false);
    check(45, Some(leaf(1, 1)), false);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is asked of it in whatever order, a witness signs one root a size and never goes back.
    #[test]
    fn a_witness_never_signs_two_trees(asks in prop::collection::vec((0u8..2, 0u64..90, 1u64..90, any::<bool>()), 1..40)) {
        let state: RefCell<Option<KnownTree>> = RefCell::new(None);
        let mut signed: HashMap<u64, Hash> = HashMap::new();
        for (tree, old, size, honest) in asks {
            let known = state.borrow().map_or(0, |seen| seen.size);
            let request = request(tree, if honest { known } else { old }, size);
            let judged = judge(&request, &logs(), |_| *state.borrow());
            if let Judgement::Sign(checkpoint) = judged {
                prop_assert!(checkpoint.size >= known);
                prop_assert_eq!(*signed.entry(checkpoint.size).or_insert(checkpoint.root), checkpoint.root);
                state.replace(Some(KnownTree { size: checkpoint.size, root: checkpoint.root }));
            }
        }
    }
}
