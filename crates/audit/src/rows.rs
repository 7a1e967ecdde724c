//! Rows of a table as leaves of a tree (format §12): an entry's digest of rows that are too many to repeat, so that all
//! of them can be compared with it, and a single one proved.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::hash::Hash;
use crate::inclusion_proof;
use crate::merkle::{Frontier, join};

/// The bytes of one row, and their hash. Keeps its memory from row to row.
#[derive(Debug, Default)]
pub struct RowBytes(Vec<u8>);

impl RowBytes {
    /// Begins a row of that table.
    pub fn begin(&mut self, table: &str) {
        self.0.clear();
        self.value(Some(table));
    }

    /// The next column.
    pub fn value(&mut self, value: Option<&str>) {
        let Some(value) = value else {
            self.0.push(0);
            return;
        };
        self.0.push(1);
        // A value of PostgreSQL has less than 1 GiB.
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(value.as_bytes());
    }

    /// The leaf's hash.
    pub fn hash(&self) -> Hash {
        Hash::of(&[&[0], &self.0])
    }
}

/// How many rows, and the root of the tree over them. Printed as `ROWS ROOT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowDigest {
    pub rows: u64,
    pub root: Hash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it is not a number of rows, a space and 64 hex digits")]
pub struct RowDigestError;

impl fmt::Display for RowDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.rows, self.root)
    }
}

impl FromStr for RowDigest {
    type Err = RowDigestError;

    fn from_str(text: &str) -> Result<RowDigest, RowDigestError> {
        let (rows, root) = text.split_once(' ').ok_or(RowDigestError)?;
        Ok(RowDigest {
            rows: rows.parse().map_err(|_| RowDigestError)?,
            root: root.parse().map_err(|_| RowDigestError)?,
        })
    }
}

/// Leaves of rows, in whatever order they come: the tree has them in the ascending order of their hashes.
#[derive(Clone, Debug, Default)]
pub struct RowLeaves(Vec<Hash>);

impl RowLeaves {
    pub fn push(&mut self, leaf: Hash) {
        self.0.push(leaf);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keeps its memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn digest(&mut self) -> RowDigest {
        self.0.sort_unstable();
        let mut tree = Frontier::new();
        for leaf in &self.0 {
            tree.push(*leaf);
        }
        RowDigest {
            rows: tree.size(),
            root: tree.root(),
        }
    }

    /// Where a leaf is in the tree, and the way from its sibling up to the one below the root. `None`: it is not
    /// among them.
    pub fn path(&mut self, leaf: Hash) -> Option<(u64, Vec<Hash>)> {
        self.0.sort_unstable();
        let index = self.0.binary_search(&leaf).ok()?;
        let mut path = Vec::new();
        walk(&self.0, index, &mut path);
        Some((index as u64, path))
    }
}

impl RowDigest {
    /// Whether the row with this hash is the one at `index` of those that the digest was made of.
    pub fn holds(&self, leaf: Hash, index: u64, path: &[Hash]) -> bool {
        inclusion_proof::root(leaf, index, self.rows, path) == Some(self.root)
    }
}

/// RFC 6962 §2.1.1, from the bottom up: the root of these leaves, with the path of the one at `index` added to `path`.
fn walk(leaves: &[Hash], index: usize, path: &mut Vec<Hash>) -> Hash {
    if let [only] = leaves {
        return *only;
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    match index.checked_sub(left.len()) {
        None => {
            let (below, sibling) = (walk(left, index, path), root(right));
            path.push(sibling);
            join(below, sibling)
        }
        Some(index) => {
            let (sibling, below) = (root(left), walk(right, index, path));
            path.push(sibling);
            join(sibling, below)
        }
    }
}

fn root(leaves: &[Hash]) -> Hash {
    let mut tree = Frontier::new();
    for leaf in leaves {
        tree.push(*leaf);
    }
    tree.root()
}

/// The largest power of two below the number of leaves, of two or more.
fn split(leaves: usize) -> usize {
    (leaves.next_power_of_two() / 2).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(number: usize) -> Hash {
        let mut row = RowBytes::default();
        row.begin("base_rates");
        row.value(Some(&number.to_string()));
        row.hash()
    }

    #[test]
    fn the_order_in_which_rows_come_does_not_matter_and_their_number_does() {
        let of = |numbers: &[usize]| {
            let mut leaves = RowLeaves::default();
            numbers.iter().for_each(|number| leaves.push(leaf(*number)));
            leaves.digest()
        };
        assert_eq!(of(&[1, 2, 3]), of(&[3, 1, 2]));
        assert_ne!(of(&[1, 2, 3]), of(&[1, 2, 3, 3]));
        assert_ne!(of(&[1, 2, 3]), of(&[1, 2, 4]));
        assert_eq!(of(&[1]).root, leaf(1));
        assert_eq!(of(&[2, 1]).to_string().parse(), Ok(of(&[1, 2])));
        for bad in ["", "1", "x 00", "1  00", "-1 00"] {
            assert_eq!(bad.parse::<RowDigest>(), Err(RowDigestError), "{bad:?}");
        }
    }

    #[test]
    fn where_one_value_ends_and_whether_it_is_there_is_part_of_a_row() {
        let of = |values: &[Option<&str>]| {
            let mut row = RowBytes::default();
            row.begin("t");
            values.iter().for_each(|value| row.value(*value));
            row.hash()
        };
        assert_ne!(of(&[Some("ab"), Some("c")]), of(&[Some("a"), Some("bc")]));
        assert_ne!(of(&[Some(""), None]), of(&[None, Some("")]));
        assert_ne!(of(&[None]), of(&[]));
    }

    #[test]
    fn every_row_of_a_load_can_be_proved_and_no_other() {
        for rows in 1..40 {
            let mut leaves = RowLeaves::default();
            (0..rows).for_each(|number| leaves.push(leaf(number)));
            let digest = leaves.digest();
            for number in 0..rows {
                let (index, path) = leaves.path(leaf(number)).unwrap();
                assert!(
                    digest.holds(leaf(number), index, &path),
                    "{number} of {rows}"
                );
                assert!(!digest.holds(leaf(rows), index, &path));
                assert!(rows == 1 || !digest.holds(leaf(number), (index + 1) % rows as u64, &path));
            }
            assert_eq!(leaves.path(leaf(rows)), None);
        }
    }
}
