use proptest::prelude::*;

use crate::*;

/// RFC 6962 §2.1, word for word.
fn reference(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::of(&[]),
        [leaf] => *leaf,
        _ => {
            let mut k = 1;
            while k * 2 < leaves.len() {
                k *= 2;
            }
            let (left, right) = (reference(&leaves[..k]), reference(&leaves[k..]));
            Hash::of(&[&[1], left.as_bytes(), right.as_bytes()])
        }
    }
}

fn leaf(n: u64) -> Hash {
    Entry::hash_of(&n.to_be_bytes())
}

#[test]
fn every_size_to_200() {
    let mut frontier = Frontier::new();
    let mut leaves = Vec::new();
    assert_eq!(frontier.root(), reference(&leaves));
    for n in 0..200 {
        leaves.push(leaf(n));
        frontier.push(leaf(n));
        assert_eq!(frontier.root(), reference(&leaves), "size {}", n + 1);
        assert_eq!(frontier.size(), n + 1);
    }
}

/// The test vectors that certificate transparency logs share: leaves "", 00, 10, 2021, 3031, 40414243, …
#[test]
fn known_roots() {
    let leaves = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
    ];
    let mut frontier = Frontier::new();
    for leaf in leaves {
        frontier.push(Entry::hash_of(&hex::decode(leaf).unwrap()));
    }
    assert_eq!(
        frontier.root().to_string(),
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"
    );
    assert_eq!(
        Frontier::new().root().to_string(),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
}

proptest! {
    #[test]
    fn going_on_from_peaks_is_going_on(size in 0_u64..300, more in 0_u64..100) {
        let mut straight = Frontier::new();
        (0..size).for_each(|n| straight.push(leaf(n)));
        let mut resumed = Frontier::from_peaks(size, straight.peaks().to_vec()).unwrap();
        for n in size..size + more {
            straight.push(leaf(n));
            resumed.push(leaf(n));
        }
        prop_assert_eq!(resumed, straight);
    }
}

#[test]
fn peaks_must_fit_the_size() {
    assert_eq!(Frontier::from_peaks(3, vec![leaf(1)]), None);
    assert_eq!(Frontier::from_peaks(4, vec![leaf(1), leaf(2)]), None);
}
