//! The RFC 6962 tree, grown leaf by leaf (format §3).

use crate::hash::Hash;

/// The roots of the perfect subtrees that make up the tree, largest first: all that growing needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    pub fn new() -> Frontier {
        Frontier::default()
    }

    /// From peaks kept in a head. `None` when their number does not fit the size.
    pub fn from_peaks(size: u64, peaks: Vec<Hash>) -> Option<Frontier> {
        (peaks.len() as u32 == size.count_ones()).then_some(Frontier { size, peaks })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn peaks(&self) -> &[Hash] {
        &self.peaks
    }

    /// Adds a leaf: one join for every one bit at the end of the old size.
    pub fn push(&mut self, leaf: Hash) {
        let mut node = leaf;
        let joins = self.size.trailing_ones();
        for _ in 0..joins {
            if let Some(left) = self.peaks.pop() {
                node = join(left, node);
            }
        }
        self.peaks.push(node);
        self.size += 1;
    }

    /// The root of the tree over all leaves so far.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            None => Hash::of(&[]),
            Some(last) => peaks.fold(*last, |right, left| join(*left, right)),
        }
    }
}

pub(crate) fn join(left: Hash, right: Hash) -> Hash {
    Hash::of(&[&[1], left.as_bytes(), right.as_bytes()])
}
