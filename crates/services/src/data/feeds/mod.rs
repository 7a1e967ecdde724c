//! Files that others send us. Nothing in them is believed before it is checked; a file that fails as a whole changes
//! nothing, a row that fails alone is quarantined with its line and its reason. Rows = loaded + quarantined, always.

mod ibkr;
mod load;
mod vix;

pub use load::ImportReport;
pub(crate) use load::{Alias, FeedLoad, prepare};

use std::collections::BTreeMap;

/// Why a whole file was refused. Nothing was changed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FeedError {
    #[error("the file is empty; send the feed's own file unchanged")]
    Empty,
    #[error(
        "line {line}: expected {expected}, found {found:?}; send the feed's own file unchanged"
    )]
    Header {
        line: usize,
        expected: &'static str,
        found: String,
    },
    #[error("the file has no {0} line at its end: it was cut short; fetch it again")]
    NoEnd(&'static str),
    #[error("the file announces {declared} rows and holds {found}; fetch it again")]
    Count { declared: u64, found: u64 },
    #[error("line {line} follows the end marker; fetch the file again")]
    AfterEnd { line: usize },
    #[error("the file's time {0} lies in the future; check the feed's clock")]
    Future(String),
    #[error(
        "{quarantined} of {rows} rows failed their checks ({reasons}), more than half: the file as a whole is not believed"
    )]
    MostlyBad {
        rows: usize,
        quarantined: usize,
        reasons: String,
    },
    #[error("feed kind {0:?} is not known; use ibkr or vix")]
    Kind(String),
}

/// A row that is kept aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quarantined {
    pub(crate) line: usize,
    pub(crate) reason: &'static str,
    pub(crate) row: String,
}

pub(crate) fn count_reasons(rows: &[Quarantined]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(row.reason).or_default() += 1;
    }
    counts
}

/// More than half bad, or nothing good at all: the file is not what it says it is.
fn refuse_mostly_bad(loaded: usize, quarantined: &[Quarantined]) -> Result<(), FeedError> {
    let rows = loaded + quarantined.len();
    if rows == 0 {
        return Err(FeedError::Empty);
    }
    if quarantined.len() * 2 > rows {
        let reasons = count_reasons(quarantined)
            .iter()
            .map(|(reason, count)| format!("{reason}: {count}"))
            .collect::<Vec<_>>()
            .join(", ");
        return Err(FeedError::MostlyBad {
            rows,
            quarantined: quarantined.len(),
            reasons,
        });
    }
    Ok(())
}

/// Exact decimal text to an integer count of 10^-`scale`; nothing is rounded: digits that do not fit are an error.
fn scaled(text: &str, scale: usize) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = match digits.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (digits, ""),
    };
    let fraction = fraction.trim_end_matches('0');
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty()
        || whole.len() > 9
        || fraction.len() > scale
        || !all_digits(whole)
        || !all_digits(fraction)
    {
        return None;
    }
    let mut value: i64 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        value = value
            .checked_mul(10)?
            .checked_add(i64::from(digit - b'0'))?;
    }
    for _ in fraction.len()..scale {
        value = value.checked_mul(10)?;
    }
    Some(if negative { -value } else { value })
}

/// 10^-8 units as decimal text with 8 digits.
fn eight_decimals(value: i64) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let magnitude = value.unsigned_abs();
    format!(
        "{sign}{}.{:08}",
        magnitude / 100_000_000,
        magnitude % 100_000_000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, scale: usize, expected: Option<i64>) {
        assert_eq!(scaled(text, scale), expected, "{text:?}");
    }

    #[test]
    fn decimal_text_is_read_exactly_or_not_at_all() {
        check("0.25", 6, Some(250_000));
        check("1016.5848", 6, Some(1_016_584_800));
        check("-95.4037", 6, Some(-95_403_700));
        check("3.390000000", 6, Some(3_390_000));
        check("7", 8, Some(700_000_000));
        for bad in [
            "",
            ".",
            "-",
            "NA",
            "1e3",
            "1.",
            "+1",
            "1.0000001",
            " 1",
            "1,5",
            "9999999999",
            "１２",
        ] {
            check(bad, 6, None);
        }
    }

    #[test]
    fn units_print_all_their_digits() {
        assert_eq!(eight_decimals(250_000), "0.00250000");
        assert_eq!(eight_decimals(-1), "-0.00000001");
        assert_eq!(eight_decimals(1_016_584_800), "10.16584800");
    }
}
