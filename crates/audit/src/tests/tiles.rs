use std::collections::HashMap;
use std::convert::Infallible;

use proptest::prelude::*;

use crate::*;

fn leaf(index: u64) -> Hash {
    Hash::of(&[&[0], &index.to_be_bytes()])
}

/// RFC 6962 §2.1 as it is written.
fn naive_root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::of(&[]),
        [one] => *one,
        many => {
            let (left, right) = many.split_at(split(many.len()));
            crate::merkle::join(naive_root(left), naive_root(right))
        }
    }
}

fn split(leaves: usize) -> usize {
    leaves.next_power_of_two() / 2
}

/// RFC 6962 §2.1.2 as it is written.
fn naive_consistency(old: usize, leaves: &[Hash], is_old: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return match is_old {
            true => Vec::new(),
            false => vec![naive_root(leaves)],
        };
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut proof, rest) = match old <= left.len() {
        true => (naive_consistency(old, left, is_old), right),
        false => (naive_consistency(old - left.len(), right, false), left),
    };
    proof.push(naive_root(rest));
    proof
}

/// RFC 6962 §2.1.1 as it is written.
fn naive_inclusion(index: usize, leaves: &[Hash]) -> Vec<Hash> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut path, rest) = match index < left.len() {
        true => (naive_inclusion(index, left), right),
        false => (naive_inclusion(index - left.len(), right), left),
    };
    path.push(naive_root(rest));
    path
}

/// A tree and all tiles that its readers may ask for.
struct Grown {
    leaves: Vec<Hash>,
    tree: TileTree,
    full: HashMap<TileId, Vec<Hash>>,
}

impl Grown {
    fn to(size: u64) -> Grown {
        let leaves: Vec<Hash> = (0..size).map(leaf).collect();
        let (mut tree, mut full) = (TileTree::new(), HashMap::new());
        for leaf in &leaves {
            for tile in tree.push(*leaf) {
                assert!(full.insert(tile.id, tile.hashes).is_none());
            }
        }
        Grown { leaves, tree, full }
    }

    fn tile(&self, id: TileId) -> Result<Vec<Hash>, Infallible> {
        let partial = self.tree.partial().find(|tile| tile.id == id);
        Ok(partial.map_or_else(|| self.full[&id].clone(), |tile| tile.hashes))
    }

    fn tiled(&self) -> TiledTree<impl FnMut(TileId) -> Result<Vec<Hash>, Infallible>> {
        TiledTree::new(self.leaves.len() as u64, |id| self.tile(id))
    }
}

#[test]
fn a_tiled_tree_is_the_tree_and_resumes_from_its_tiles_at_every_edge() {
    for size in [
        0, 1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 65_792, 70_000,
    ] {
        let grown = Grown::to(size);
        let frontier = grown.leaves.iter().fold(Frontier::new(), |mut f, leaf| {
            f.push(*leaf);
            f
        });
        assert_eq!(grown.tree.root(), frontier.root(), "{size}");
        assert_eq!(grown.tiled().root().unwrap(), frontier.root(), "{size}");
        let rest = grown.leaves[(size - size % TILE_WIDTH) as usize..].to_vec();
        let resumed = TileTree::resume(size, rest, |id| grown.tile(id)).unwrap();
        assert_eq!(
            resumed.as_ref(),
            Some(&grown.tree)
                .filter(|t| t.size() > 0)
                .or(resumed.as_ref()),
            "{size}"
        );
        assert_eq!(resumed.unwrap().root(), frontier.root(), "{size}");
        let widths: Vec<(u8, u64, u16)> = grown
            .tree
            .partial()
            .map(|tile| (tile.id.level, tile.id.index, tile.id.width))
            .collect();
        // The example of tlog-tiles.
        if size == 70_000 {
            assert_eq!(widths, [(0, 273, 112), (1, 1, 17), (2, 0, 1)]);
            assert_eq!(grown.full.len(), 273 + 1);
        }
        if size == 256 {
            assert_eq!(widths, [(1, 0, 1)]);
        }
    }
}

#[test]
fn a_tile_has_one_path_and_a_path_one_tile() {
    for (id, path) in [
        (TileId::full(0, 0), "tile/0/000"),
        (TileId::full(1, 999), "tile/1/999"),
        (TileId::full(0, 1000), "tile/0/x001/000"),
        (TileId::full(0, 1_234_067), "tile/0/x001/x234/067"),
        (
            TileId {
                level: 63,
                index: 67,
                width: 255,
            },
            "tile/63/067.p/255",
        ),
    ] {
        assert_eq!(id.path(), path);
        assert_eq!(TileId::parse(path), Some(id));
    }
    for wrong in [
        "tile/0/0",
        "tile/0/0000",
        "tile/00/000",
        "tile/64/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/x000/000",
        "tile/0/001/000",
        "tile/0/x001/x000",
        "tile/entries/000",
        "tile/0/+01",
        "tile/0/000/",
        "tile/0/../000",
        "tile/0",
        "tile/0/",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
        "tile/-1/000",
        "tile/0/００１",
    ] {
        assert_eq!(TileId::parse(wrong), None, "{wrong}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn proofs_from_tiles_are_those_of_the_rfc(size in 1u64..1200, a in 0u64..1200, b in 0u64..1200) {
        let grown = Grown::to(size);
        let (old, index) = (a % (size + 1), b % size);
        let proof = grown.tiled().consistency(old).unwrap();
        let naive = match old { 0 => Vec::new(), old => naive_consistency(old as usize, &grown.leaves, true) };
        prop_assert_eq!(&proof, &naive);
        let path = grown.tiled().inclusion(index).unwrap();
        prop_assert_eq!(path, naive_inclusion(index as usize, &grown.leaves));
        let (before, now) = (naive_root(&grown.leaves[..old as usize]), naive_root(&grown.leaves));
        prop_assert!(is_consistent((old, before), (size, now), &proof));
        // No other tree, size or proof.
        prop_assert!(!is_consistent((old, leaf(7)), (size, now), &proof));
        prop_assert!(old == 0 || !is_consistent((old, before), (size, leaf(7)), &proof));
        prop_assert!(!is_consistent((old, before), (size, now), &[proof.as_slice(), &[leaf(7)]].concat()));
        for at in 0..proof.len() {
            let mut other = proof.clone();
            other[at] = leaf(u64::MAX);
            prop_assert!(!is_consistent((old, before), (size, now), &other));
            other.remove(at);
            prop_assert!(!is_consistent((old, before), (size, now), &other));
        }
        prop_assert!(old == size || !is_consistent((size, now), (old, before), &proof));
    }
}

#[test]
fn what_a_tree_has_not_is_no_proof_and_no_panic() {
    let grown = Grown::to(300);
    assert_eq!(
        grown.tiled().inclusion(300),
        Err(TreeError::Beyond { size: 300 })
    );
    assert_eq!(
        grown.tiled().consistency(301),
        Err(TreeError::Beyond { size: 300 })
    );
    let mut short = TiledTree::new(300, |id: TileId| {
        Ok::<_, Infallible>(vec![leaf(1); usize::from(id.width) - 1])
    });
    assert!(matches!(short.inclusion(7), Err(TreeError::Short(_))));
    assert!(!is_consistent(
        (u64::MAX, leaf(1)),
        (u64::MAX - 1, leaf(2)),
        &[]
    ));
    assert!(!is_consistent(
        (u64::MAX - 1, leaf(1)),
        (u64::MAX, leaf(2)),
        &[]
    ));
    assert_eq!(read_tile(TileId::full(0, 0), &[0; 8191]), None);
}
