//! Which row of a delivery was changed: a digest tells that one was. The entry has a few digits of each row beside it, or of each few
//! neighbours where there are many; they prove nothing, and are looked at only when the digest is another.

use audit::{Hash, RowLeaves, hex};

/// Of a table and delivery: an entry gets at most eight times as many characters.
const PRINTS_MAX: usize = 256;
const PRINT_BYTES: usize = 4;

/// Rows with their names.
#[derive(Debug, Default)]
pub(super) struct Prints(Vec<(String, Hash)>);

impl Prints {
    pub(super) fn push(&mut self, name: String, hash: Hash) {
        self.0.push((name, hash));
    }

    /// In the order of the rows' names.
    pub(super) fn text(&mut self) -> String {
        self.groups().map(|(_, print)| print).collect()
    }

    /// The first and the last name of the first rows that are not those that the text was made of; the same where it is one row.
    pub(super) fn first_unlike(&mut self, text: &str) -> Option<(String, String)> {
        let mut said = text.as_bytes().chunks(2 * PRINT_BYTES);
        let mut groups = self.groups();
        let (rows, _) = groups.find(|(_, print)| said.next() != Some(print.as_bytes()))?;
        let name = |row: Option<&(String, Hash)>| row.map(|(name, _)| name.clone());
        Some((name(rows.first())?, name(rows.last())?))
    }

    fn groups(&mut self) -> impl Iterator<Item = (&[(String, Hash)], String)> {
        self.0.sort();
        let rows = self.0.len().div_ceil(PRINTS_MAX).max(1);
        self.0.chunks(rows).map(|rows| {
            let mut leaves = RowLeaves::default();
            rows.iter().for_each(|(_, hash)| leaves.push(*hash));
            let root = leaves.digest().root;
            let (print, _) = root.as_bytes().split_at(PRINT_BYTES);
            (rows, hex::encode(print))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prints(rows: usize, other: Option<usize>) -> Prints {
        let mut prints = Prints::default();
        // In whatever order they come.
        for number in (0..rows).rev() {
            let byte = |shift: usize| (number >> shift) as u8;
            let last = u8::from(other == Some(number));
            let mut bytes = [7; 32];
            bytes[..3].copy_from_slice(&[byte(0), byte(8), last]);
            prints.push(format!("ticker T{number:05}"), Hash::from_bytes(bytes));
        }
        prints
    }

    #[test]
    fn a_changed_row_is_named_or_the_few_that_it_is_one_of() {
        for (rows, other, first, last) in [
            (20, 7, "ticker T00007", "ticker T00007"),
            (256, 255, "ticker T00255", "ticker T00255"),
            (1000, 999, "ticker T00996", "ticker T00999"),
            (20_000, 4321, "ticker T04266", "ticker T04344"),
        ] {
            let text = prints(rows, None).text();
            assert!(text.len() <= PRINTS_MAX * PRINT_BYTES * 2);
            assert_eq!(prints(rows, None).first_unlike(&text), None);
            let found = prints(rows, Some(other)).first_unlike(&text).unwrap();
            assert_eq!(found, (first.to_owned(), last.to_owned()), "{rows}");
        }
    }

    #[test]
    fn a_row_too_many_is_the_first_that_differs_and_one_too_few_is_before_it() {
        let text = prints(20, None).text();
        let mut more = prints(20, None);
        more.push("ticker T00003x".to_owned(), Hash::from_bytes([9; 32]));
        assert_eq!(more.first_unlike(&text).unwrap().0, "ticker T00003x");
        let mut fewer = prints(20, None);
        fewer.0.retain(|(name, _)| name != "ticker T00003");
        assert_eq!(fewer.first_unlike(&text).unwrap().0, "ticker T00004");
        assert_eq!(Prints::default().first_unlike(&text), None);
    }
}
