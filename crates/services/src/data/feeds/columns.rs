//! Columns of a feed's file, found by their names wherever they stand: feeds add, rename and move them, and people save files again with
//! programs that put a sentence before the header, another separator, or rows of nothing at the end.

use super::{FeedError, head};

/// A column that is read, and the names that it has had. Names are compared without case, blanks and signs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    /// The feed's own name for it.
    pub(super) name: &'static str,
    pub(super) also: &'static [&'static str],
    pub(super) required: bool,
}

pub(super) const fn required(name: &'static str, also: &'static [&'static str]) -> Column {
    Column {
        name,
        also,
        required: true,
    }
}

pub(super) const fn optional(name: &'static str, also: &'static [&'static str]) -> Column {
    Column {
        name,
        also,
        required: false,
    }
}

/// So many lines before the header are passed over.
const PREAMBLE_LINES_MAX: usize = 20;
const SEPARATORS: [char; 3] = [',', ';', '\t'];

/// Where each column is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    separator: char,
    /// Of the header, and so of every row.
    pub(super) width: usize,
    at: Vec<Option<usize>>,
    /// Names that none of the columns has.
    pub(super) others: Vec<String>,
    /// Of the header.
    pub(super) line: usize,
}

impl Layout {
    /// Takes the lines up to and including the header.
    pub(super) fn find<'a>(
        lines: &mut impl Iterator<Item = (usize, &'a str)>,
        columns: &[Column],
    ) -> Result<Layout, FeedError> {
        Layout::find_with(lines, columns, None)
    }

    /// In a file whose separator is known.
    pub(super) fn find_with<'a>(
        lines: &mut impl Iterator<Item = (usize, &'a str)>,
        columns: &[Column],
        separator: Option<char>,
    ) -> Result<Layout, FeedError> {
        let mut separators: Vec<char> = separator.map_or(SEPARATORS.to_vec(), |one| vec![one]);
        // The line that has most of the names is what was meant for a header.
        let mut closest: Option<(usize, FeedError)> = None;
        for (line, text) in lines.take(PREAMBLE_LINES_MAX) {
            if let Some(named) = separator_of(text) {
                separators = vec![named];
                continue;
            }
            for separator in &separators {
                let layout = Layout::of(line, text, columns, *separator)?;
                let missing: Vec<&str> = columns
                    .iter()
                    .zip(&layout.at)
                    .filter(|(column, at)| column.required && at.is_none())
                    .map(|(column, _)| column.name)
                    .collect();
                if missing.is_empty() {
                    return Ok(layout);
                }
                let found = layout.at.iter().flatten().count();
                if closest.as_ref().is_none_or(|(most, _)| found > *most) {
                    let error = FeedError::Columns {
                        line,
                        missing: missing.join(", "),
                        found: head(text),
                    };
                    closest = Some((found, error));
                }
            }
        }
        Err(closest.map_or(FeedError::Empty, |(_, error)| error))
    }

    fn of(
        line: usize,
        text: &str,
        columns: &[Column],
        separator: char,
    ) -> Result<Layout, FeedError> {
        let cells = split(text, separator).unwrap_or_default();
        let mut layout = Layout {
            separator,
            width: cells.len(),
            at: vec![None; columns.len()],
            others: Vec::new(),
            line,
        };
        for (index, cell) in cells.iter().enumerate() {
            let name = plain(cell);
            let is = |column: &Column| {
                plain(column.name) == name || column.also.iter().any(|also| plain(also) == name)
            };
            match columns.iter().position(is) {
                Some(ours) if layout.at[ours].is_some() => {
                    return Err(FeedError::Line {
                        line,
                        message: format!("two columns are {}", columns[ours].name),
                    });
                }
                Some(ours) => layout.at[ours] = Some(index),
                None => layout.others.push(cell.trim().to_owned()),
            }
        }
        Ok(layout)
    }

    /// A row's cells, one for each of the columns; empty where the file has none. `None`: it has another number of cells than the header,
    /// or a quote is left open.
    pub(super) fn row<const N: usize>(&self, text: &str) -> Option<[String; N]> {
        self.cells(split(text, self.separator)?)
    }

    pub(super) fn cells<const N: usize>(&self, cells: Vec<String>) -> Option<[String; N]> {
        if cells.len() != self.width {
            return None;
        }
        let cell = |ours: usize| {
            let at = self.at.get(ours).copied().flatten();
            at.and_then(|at| cells.get(at))
                .map_or("", |cell| cell.trim())
                .to_owned()
        };
        Some(std::array::from_fn(cell))
    }
}

/// `sep=;`, as Excel reads and writes it.
fn separator_of(line: &str) -> Option<char> {
    let rest = line.trim().strip_prefix("sep=")?;
    let mut characters = rest.chars();
    let separator = characters.next().unwrap_or('\t');
    characters.next().is_none().then_some(separator)
}

fn plain(name: &str) -> String {
    name.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|character| character.to_ascii_lowercase())
        .collect()
}

/// One record without line breaks; `None` when a quote is left open.
pub(super) fn split(row: &str, separator: char) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut chars = row.chars().peekable();
    let mut quoted = false;
    while let Some(char) = chars.next() {
        match char {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                fields.last_mut()?.push('"');
            }
            '"' => quoted = !quoted,
            char if char == separator && !quoted => fields.push(String::new()),
            char => fields.last_mut()?.push(char),
        }
    }
    (!quoted).then_some(fields)
}

/// A row of nothing, as spreadsheets leave them at the end of a file.
pub(super) fn is_blank(row: &str) -> bool {
    row.chars()
        .all(|character| character.is_whitespace() || matches!(character, ',' | ';' | '"'))
}

/// In which order a file writes the parts of a date with slashes. The file says it: a month is at most 12.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slashes {
    MonthFirst,
    DayFirst,
    /// No row tells, or they contradict each other.
    Unknown,
}

impl Slashes {
    pub(super) fn of<'a>(dates: impl Iterator<Item = &'a str>) -> Slashes {
        let (mut month_first, mut day_first) = (false, false);
        for [first, second, _] in dates.filter_map(slashed) {
            month_first |= second > 12;
            day_first |= first > 12;
        }
        match (month_first, day_first) {
            (true, false) => Slashes::MonthFirst,
            (false, true) => Slashes::DayFirst,
            _ => Slashes::Unknown,
        }
    }
}

/// `2025-06-30`, or with slashes (`6/30/2025`, `06/30/2025`) in the file's order.
pub(super) fn date(text: &str, slashes: Slashes) -> Option<jiff::civil::Date> {
    let text = text.trim();
    let Some([first, second, year]) = slashed(text) else {
        return (text.len() == 10).then(|| text.parse().ok())?;
    };
    let (month, day) = match slashes {
        Slashes::MonthFirst => (first, second),
        Slashes::DayFirst => (second, first),
        Slashes::Unknown => return None,
    };
    let small = |part: u16| i8::try_from(part).ok();
    jiff::civil::Date::new(i16::try_from(year).ok()?, small(month)?, small(day)?).ok()
}

fn slashed(text: &str) -> Option<[u16; 3]> {
    let parts: Vec<&str> = text.trim().split('/').collect();
    let [first, second, year] = parts[..] else {
        return None;
    };
    let number = |text: &str, lengths: std::ops::RangeInclusive<usize>| {
        let digits =
            lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok())?
    };
    Some([
        number(first, 1..=2)?,
        number(second, 1..=2)?,
        number(year, 4..=4)?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        required("DATE", &[]),
        required("CLOSE", &["VIX Close"]),
        optional("HIGH", &["VIX High"]),
    ];

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let mut lines = text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line));
        let found = match Layout::find(&mut lines, &COLUMNS) {
            Err(error) => error.to_string(),
            Ok(layout) => lines
                .map(|(_, line)| match layout.row::<3>(line) {
                    Some(cells) => cells.join(" "),
                    None => "?".to_owned(),
                })
                .collect::<Vec<_>>()
                .join("; "),
        };
        assert!(found.starts_with(expected), "{found}");
    }

    #[test]
    fn columns_are_found_by_name_wherever_the_feed_or_a_spreadsheet_put_them() {
        check("DATE,OPEN,HIGH,LOW,CLOSE\nd,1,3,0,2", "d 2 3");
        // Renamed, moved, added, left out.
        check(
            "Date,VIX Open,VIX High,VIX Low,VIX Close\nd,1,3,0,2",
            "d 2 3",
        );
        check("close,VOLUME,date\n2,9,d\n", "d 2 ");
        // A sentence before it, quoted or with commas.
        check("Provided as is, see the terms.\n\nDATE,CLOSE\nd,2", "d 2 ");
        check("sep=;\nDATE;CLOSE\nd;\"1;5\"", "d 1;5 ");
        check("sep=,\nDATE,CLOSE\nd,2", "d 2 ");
        check("DATE\tCLOSE\nd\t2", "d 2 ");
        check("DATE,CLOSE\nd\nd,\"2", "?; ?");
        check(
            "hello\nDATE,OPEN\nd,2",
            "line 2: the columns CLOSE are missing; found: \"DATE,OPEN\"",
        );
        check("<html>", "line 1: the columns DATE, CLOSE are missing");
        check("DATE,CLOSE,VIX Close\n", "line 1: two columns are CLOSE");
        check("", "the file is empty");
    }

    #[test]
    fn the_order_of_a_date_is_what_its_file_shows() {
        let read = |dates: &[&str]| {
            let slashes = Slashes::of(dates.iter().copied());
            dates
                .iter()
                .map(|text| date(text, slashes).map_or("?".to_owned(), |date| date.to_string()))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(read(&["6/26/2025", "7/1/2025"]), "2025-06-26 2025-07-01");
        assert_eq!(read(&["26/06/2025", "1/7/2025"]), "2025-06-26 2025-07-01");
        assert_eq!(read(&["7/1/2025", "2025-07-02"]), "? 2025-07-02");
        assert_eq!(read(&["26/6/2025", "6/26/2025"]), "? ?");
        assert_eq!(
            read(&["6/26/25", "2025-6-26", "6/31/2025", "6/26/2025"]),
            "? ? ? 2025-06-26"
        );
    }

    #[test]
    fn rows_of_nothing_are_no_rows() {
        for blank in ["", "  ", ",,,,", "\"\",\"\"", ";;", " , "] {
            assert!(is_blank(blank), "{blank:?}");
        }
        for row in ["a,,", "0", ",-,"] {
            assert!(!is_blank(row), "{row:?}");
        }
    }
}
