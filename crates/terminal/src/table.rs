//! The one table of every command: headings, columns side by side, sentences broken within their column.

use super::{COLUMNS, fill, width, word};

/// Between two columns.
const GAP: usize = 2;
/// A column of sentences is no narrower.
const LEAST: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// Many things, a line each. Where a row is wider than the screen, its words go on in the next line, in their own
/// column.
#[derive(Debug)]
pub struct Table {
    headings: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A heading that begins with `>` stands above figures: its column is aligned to the right.
    pub fn new(headings: &[&'static str]) -> Self {
        let side = |heading: &&'static str| match heading.strip_prefix('>') {
            Some(heading) => (heading, Side::Right),
            None => (*heading, Side::Left),
        };
        Self {
            headings: headings.iter().map(side).collect(),
            rows: Vec::new(),
        }
    }

    /// An empty cell is shown as a dash: nothing is known, or nothing is there.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.headings.len(), "a cell under every heading");
        let shown = cells.into_iter().map(|cell| match cell.trim() {
            "" => "-".to_owned(),
            cell => word(cell).into_owned(),
        });
        self.rows.push(shown.collect());
    }

    /// With a line break after each row; nothing but the headings where there is no row.
    pub fn text(&self) -> String {
        let headings: Vec<String> = self
            .headings
            .iter()
            .map(|(heading, _)| heading.to_uppercase())
            .collect();
        let widths = self.widths(&headings);
        let mut text = String::new();
        for row in [&headings].into_iter().chain(&self.rows) {
            let cells: Vec<Vec<String>> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| fill(cell, *width))
                .collect();
            let height = cells.iter().map(Vec::len).max().unwrap_or(0);
            for at in 0..height {
                let mut line = String::new();
                for ((cell, room), (_, side)) in cells.iter().zip(&widths).zip(&self.headings) {
                    let cell = cell.get(at).map_or("", String::as_str);
                    let blank = " ".repeat(room.saturating_sub(width(cell)));
                    line.push_str(&match side {
                        Side::Left => format!("{cell}{blank}"),
                        Side::Right => format!("{blank}{cell}"),
                    });
                    line.push_str(&" ".repeat(GAP));
                }
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        text
    }

    /// As wide as what they hold. Where that is wider than the screen, the widest columns of words give way, down to
    /// their longest word.
    fn widths(&self, headings: &[String]) -> Vec<usize> {
        let cells = |column: usize| {
            let rows = self.rows.iter().map(move |row| &row[column]);
            rows.chain([&headings[column]])
        };
        let columns = 0..self.headings.len();
        let mut widths: Vec<usize> = columns
            .clone()
            .map(|column| cells(column).map(|cell| width(cell)).max().unwrap_or(0))
            .collect();
        let least: Vec<usize> = columns
            .map(|column| match self.headings[column].1 {
                Side::Left => {
                    let words = cells(column).flat_map(|cell| cell.split_whitespace());
                    words.map(width).max().unwrap_or(0).max(LEAST)
                }
                // Figures are not broken.
                Side::Right => widths[column],
            })
            .collect();
        let gaps = GAP * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > COLUMNS {
            let may = |column: &usize| widths[*column] > least[*column];
            let widest = (0..widths.len())
                .filter(may)
                .max_by_key(|column| widths[*column]);
            let Some(widest) = widest else { break };
            widths[widest] -= 1;
        }
        widths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headings: &[&'static str], rows: &[[&str; 3]], expected: &str) {
        let mut table = Table::new(headings);
        for row in rows {
            table.row(row.map(str::to_owned));
        }
        assert_eq!(table.text(), expected.trim_start_matches('\n'));
    }

    #[test]
    fn columns_stand_below_their_headings() {
        let rows = [
            ["a", "7", "first"],
            ["längerer", "1200", ""],
            ["東京", "", "wide characters"],
        ];
        check(
            &["name", ">count", "note"],
            &rows,
            "
NAME      COUNT  NOTE
a             7  first
längerer   1200  -
東京          -  wide characters
",
        );
        check(&["a", "b", "c"], &[], "A  B  C\n");
        check(
            &["a", "b", ">c"],
            &[["x", "y", "7"], ["x", "y", "1200"]],
            "A  B     C\nx  y     7\nx  y  1200\n",
        );
    }

    #[test]
    fn a_sentence_goes_on_below_itself_and_no_line_is_longer_than_the_screen() {
        let sentence = "a reason that is told in many words ".repeat(4);
        let mut table = Table::new(&["id", "why", ">count", "what next"]);
        table.row(["20260401T013000Z-0a1b2c3d", &sentence, "1200", &sentence].map(str::to_owned));
        let text = table.text();
        assert!(text.lines().all(|line| width(line) <= COLUMNS), "{text}");
        let told: Vec<&str> = text.lines().skip(1).collect();
        assert!(
            told.len() > 2 && told[1].starts_with(&" ".repeat(27)),
            "{text}"
        );
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(
            words.iter().filter(|word| **word == "reason").count(),
            8,
            "{text}"
        );
    }

    #[test]
    fn a_name_from_outside_neither_breaks_a_line_nor_speaks_to_the_terminal() {
        let mut table = Table::new(&["name", "note"]);
        table.row(["odd\n\u{1b}[31mname".to_owned(), "\u{202e}".to_owned()]);
        assert_eq!(table.text().lines().count(), 2);
        assert!(!table.text().contains(['\u{1b}', '\u{202e}']));
    }
}
