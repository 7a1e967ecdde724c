//! Which row of a delivery was changed: a digest tells that one was. The entry has a few digits of each row beside it,
//! or of each few neighbours where there are many, and then of the rows at each place in these runs: the two together
//! name one row. They prove nothing, and are looked at only when the digest is another; that a row is one too many, the
//! digest itself proves.

use std::fmt;

use audit::{Frontier, Hash, RowDigest, RowLeaves, hex};

/// Of a table and delivery: an entry gets at most eight times as many characters.
const PRINTS_MAX: usize = 256;
const PRINT_BYTES: usize = 4;
/// A place in a run is written in digits of this base; there is a print of the rows with each digit.
const BASE: usize = 16;
/// Hashes that may be computed to find one row. More take seconds, and the run is told instead.
const WORK_MAX: usize = 20_000_000;

/// Rows with their names.
#[derive(Debug, Default)]
pub(super) struct Prints(Vec<(String, Hash)>);

/// What an entry says of the rows of one table and delivery.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said<'a> {
    pub(super) digest: RowDigest,
    /// Of the runs.
    pub(super) runs: &'a str,
    /// Of the places in them; entries of older engines, and of few rows, have none.
    pub(super) places: Option<&'a str>,
}

/// How the rows that are there differ first from those that the entry was written with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unlike {
    /// It was changed.
    Row(String),
    /// Without it, they are the rows of the entry.
    Added(String),
    /// One is gone that stood behind the first of these and before the second.
    Gone(Option<String>, Option<String>),
    /// It is one of these, both included, or stood among them.
    Among(String, String),
}

/// Which row it is, or how to find out.
impl fmt::Display for Unlike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unlike::Row(row) => write!(f, "it is {row}"),
            Unlike::Added(row) => write!(
                f,
                "{row} is one too many, without it they are the rows of the entry"
            ),
            Unlike::Gone(Some(after), Some(before)) => {
                write!(f, "one is gone that stood between {after} and {before}")
            }
            Unlike::Gone(Some(after), None) => {
                write!(f, "one is gone that stood last, behind {after}")
            }
            Unlike::Gone(None, Some(before)) => {
                write!(f, "one is gone that stood first, before {before}")
            }
            Unlike::Gone(None, None) => f.write_str("the only one is gone"),
            Unlike::Among(first, last) => write!(
                f,
                "the first difference is in the rows from {first} to {last}; compare these with the delivered file \
                 (its SHA-256 is in the entry), or with the same rows of an earlier backup"
            ),
        }
    }
}

impl Prints {
    pub(super) fn push(&mut self, name: String, hash: Hash) {
        self.0.push((name, hash));
    }

    /// Of each run, in the order of the rows' names.
    pub(super) fn runs(&mut self) -> String {
        self.0.sort();
        let rows = run_length(self.0.len());
        self.0.chunks(rows).map(print_of_run).collect()
    }

    /// Of each place in the runs; `None` where each row has a print of its own.
    pub(super) fn places(&mut self) -> Option<String> {
        self.0.sort();
        let rows = run_length(self.0.len());
        let hashes = self.0.iter().map(|(_, hash)| *hash).enumerate();
        (rows > 1).then(|| Places::of(rows, hashes).text())
    }

    pub(super) fn unlike(&mut self, said: Said<'_>) -> Option<Unlike> {
        self.0.sort();
        let before = usize::try_from(said.digest.rows).ok()?;
        let rows = run_length(before);
        let mut prints = said.runs.as_bytes().chunks(2 * PRINT_BYTES);
        let mut runs = self.0.chunks(rows);
        // Nothing is found behind the last that is there: then it was the end that went.
        let first = runs.position(|run| prints.next() != Some(print_of_run(run).as_bytes()));
        let first = match first {
            Some(run) => run * rows,
            None if prints.next().is_some() => self.0.len(),
            None => return None,
        };
        let one = match before.cmp(&self.0.len()) {
            std::cmp::Ordering::Equal => self.changed(rows, first, said),
            std::cmp::Ordering::Less => self.added(rows, first, said),
            std::cmp::Ordering::Greater => self.gone(rows, first, before, said),
        };
        one.or_else(|| {
            let last = (first + rows).min(self.0.len()).checked_sub(1)?;
            let first = first.min(last);
            Some(Unlike::Among(self.name(first)?, self.name(last)?))
        })
    }

    fn name(&self, index: usize) -> Option<String> {
        self.0.get(index).map(|(name, _)| name.clone())
    }

    /// As many rows as there were: the run that differs, at the place that differs.
    fn changed(&self, rows: usize, first: usize, said: Said<'_>) -> Option<Unlike> {
        if rows == 1 {
            return self.name(first).map(Unlike::Row);
        }
        let hashes = self.0.iter().map(|(_, hash)| *hash).enumerate();
        let place = Places::of(rows, hashes).only_unlike(said.places?)?;
        self.name(first + place).map(Unlike::Row)
    }

    /// One more: the one without which the digest is that of the entry.
    fn added(&self, rows: usize, first: usize, said: Said<'_>) -> Option<Unlike> {
        let is_one = self.0.len() as u64 == said.digest.rows + 1;
        if !is_one || rows.saturating_mul(self.0.len()) > WORK_MAX {
            return None;
        }
        let found = (first..(first + rows).min(self.0.len())).find(|without| {
            let mut leaves = RowLeaves::default();
            let others = self
                .0
                .iter()
                .enumerate()
                .filter(|(index, _)| index != without);
            others.for_each(|(_, (_, hash))| leaves.push(*hash));
            leaves.digest() == said.digest
        });
        found.and_then(|index| self.name(index)).map(Unlike::Added)
    }

    /// One less: where a row belongs in for the others to stand at their places again.
    fn gone(&self, rows: usize, first: usize, before: usize, said: Said<'_>) -> Option<Unlike> {
        if self.0.len() + 1 != before {
            return None;
        }
        let between = |index: usize| {
            let after = index.checked_sub(1).and_then(|index| self.name(index));
            Unlike::Gone(after, self.name(index))
        };
        if rows == 1 {
            return Some(between(first));
        }
        let text = said.places?;
        if rows.saturating_mul(self.0.len()) > WORK_MAX {
            return None;
        }
        let mut fitting = (first..(first + rows).min(before)).filter(|gap| {
            let hashes = self.0.iter().map(|(_, hash)| *hash).enumerate();
            let moved = hashes.map(|(index, hash)| (index + usize::from(index >= *gap), hash));
            Places::of(rows, moved).only_unlike(text) == Some(gap % rows)
        });
        let gap = fitting.next()?;
        fitting.next().is_none().then(|| between(gap))
    }
}

/// At most so many rows stand in one run.
fn run_length(rows: usize) -> usize {
    rows.div_ceil(PRINTS_MAX).max(1)
}

fn print_of_run(rows: &[(String, Hash)]) -> String {
    let mut leaves = RowLeaves::default();
    rows.iter().for_each(|(_, hash)| leaves.push(*hash));
    short(leaves.digest().root)
}

fn short(hash: Hash) -> String {
    let (print, _) = hash.as_bytes().split_at(PRINT_BYTES);
    hex::encode(print)
}

/// For each digit of a place in a run, from the last one on, and each of its values: the tree over the rows with that
/// digit.
struct Places(Vec<Vec<Frontier>>);

impl Places {
    /// `hashes`: of the rows in the order of their names, with their numbers.
    fn of(run: usize, hashes: impl Iterator<Item = (usize, Hash)>) -> Places {
        let mut levels = Vec::new();
        let mut left = run;
        while left > 1 {
            levels.push(vec![Frontier::new(); BASE.min(left)]);
            left = left.div_ceil(BASE);
        }
        for (number, hash) in hashes {
            let mut place = number % run;
            for level in &mut levels {
                if let Some(tree) = level.get_mut(place % BASE) {
                    tree.push(hash);
                }
                place /= BASE;
            }
        }
        Places(levels)
    }

    fn text(self) -> String {
        let trees = self.0.into_iter().flatten();
        trees.map(|tree| short(tree.root())).collect()
    }

    /// The place, where the prints of just one differ.
    fn only_unlike(self, text: &str) -> Option<usize> {
        let mut said = text.as_bytes().chunks(2 * PRINT_BYTES);
        let (mut place, mut worth) = (0, 1);
        for level in self.0 {
            let mut only = None;
            for (digit, tree) in level.into_iter().enumerate() {
                let is_unlike = said.next() != Some(short(tree.root()).as_bytes());
                if is_unlike && only.replace(digit).is_some() {
                    return None;
                }
            }
            let digit = only?;
            place += digit * worth;
            worth *= BASE;
        }
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: usize, other: bool) -> Hash {
        let mut bytes = [7; 32];
        let byte = |shift: usize| (number >> shift) as u8;
        bytes[..4].copy_from_slice(&[byte(0), byte(8), byte(16), u8::from(other)]);
        Hash::from_bytes(bytes)
    }

    fn name(number: usize) -> String {
        format!("ticker T{number:07}")
    }

    fn prints(rows: usize, other: &[usize]) -> Prints {
        let mut prints = Prints::default();
        // In whatever order they come.
        for number in (0..rows).rev() {
            prints.push(name(number), hash(number, other.contains(&number)));
        }
        prints
    }

    fn digest(prints: &Prints) -> RowDigest {
        let mut leaves = RowLeaves::default();
        prints.0.iter().for_each(|(_, hash)| leaves.push(*hash));
        leaves.digest()
    }

    /// What is found of these rows by what an entry says of so many sound ones; first with all of it, then as older
    /// engines wrote it.
    fn found(rows: usize, mut there: Prints) -> [Option<Unlike>; 2] {
        let mut sound = prints(rows, &[]);
        let (runs, places) = (sound.runs(), sound.places());
        assert!(runs.len() <= PRINTS_MAX * PRINT_BYTES * 2);
        let digest = digest(&sound);
        [places.as_deref(), None].map(|places| {
            there.unlike(Said {
                digest,
                runs: &runs,
                places,
            })
        })
    }

    #[test]
    fn a_changed_row_is_named_however_many_there_are() {
        for (rows, other, first, last) in [
            (20, 7, 7, 7),
            (256, 255, 255, 255),
            (257, 0, 0, 1),
            (1000, 999, 996, 999),
            (20_000, 4321, 4266, 4344),
            (100_000, 77_777, 77_418, 77_808),
        ] {
            assert_eq!(found(rows, prints(rows, &[])), [None, None]);
            let row = Some(Unlike::Row(name(other)));
            let [all, old] = found(rows, prints(rows, &[other]));
            assert_eq!(all, row, "{rows}");
            let run = Some(Unlike::Among(name(first), name(last)));
            assert_eq!(old, if first == last { row } else { run }, "{rows}");
        }
        // At one place of several runs: the first. At several places: one of the run.
        let [all, _] = found(20_000, prints(20_000, &[79 * 3 + 5, 79 * 200 + 5]));
        assert_eq!(all, Some(Unlike::Row(name(79 * 3 + 5))));
        let [all, _] = found(20_000, prints(20_000, &[5, 7]));
        assert_eq!(all, Some(Unlike::Among(name(0), name(78))));
    }

    #[test]
    fn a_row_too_many_is_proved_by_the_digest_of_the_others() {
        // 256 and 512: with one more, runs would have another length.
        for (rows, at) in [(20, 3), (256, 3), (512, 511), (5000, 4321)] {
            let mut there = prints(rows, &[]);
            let more = format!("{}x", name(at));
            there.push(more.clone(), Hash::from_bytes([9; 32]));
            let added = Some(Unlike::Added(more));
            assert_eq!(found(rows, there), [added.clone(), added], "{rows}");
        }
        let mut there = prints(1000, &[]);
        for more in ["a", "b"] {
            there.push(format!("ticker T0000500{more}"), Hash::from_bytes([9; 32]));
        }
        let run = Some(Unlike::Among(name(500), name(501)));
        assert_eq!(found(1000, there)[0], run);
    }

    #[test]
    fn between_which_rows_one_is_gone_is_told() {
        let without = |rows: usize, gone: usize| {
            let mut there = prints(rows, &[]);
            there.0.retain(|(it, _)| *it != name(gone));
            found(rows, there)
        };
        let between =
            |after: usize, before: usize| Some(Unlike::Gone(Some(name(after)), Some(name(before))));
        assert_eq!(without(20, 3), [between(2, 4), between(2, 4)]);
        assert_eq!(without(20, 0)[0], Some(Unlike::Gone(None, Some(name(1)))));
        assert_eq!(without(20, 19)[0], Some(Unlike::Gone(Some(name(18)), None)));
        // Their names stand between those of the run that it was in.
        let run = Some(Unlike::Among(name(2133), name(2212)));
        assert_eq!(without(20_000, 2150), [between(2149, 2151), run]);
        assert_eq!(
            without(1000, 999)[0],
            Some(Unlike::Gone(Some(name(998)), None))
        );
        assert_eq!(found(20, Prints::default()), [None, None]);
    }
}
