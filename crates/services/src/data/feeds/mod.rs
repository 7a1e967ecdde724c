//! Files that others send us. Nothing in them is believed before it is checked; a file that fails as a whole changes
//! nothing, a row that fails alone is quarantined with its line and its reason. Rows = loaded + quarantined, always.

mod board;
mod calendar;
mod check;
mod clearstreet;
mod columns;
mod earnings;
mod guard;
mod held;
mod http;
mod ibkr;
mod insert;
mod intake;
mod json;
mod known;
mod load;
mod names;
mod operator;
mod seclend;
mod stocks;
mod vix;

pub(crate) use board::{FeedBoard, FeedState};
pub(crate) use calendar::read_calendar;
pub use check::check_feed;
pub(crate) use guard::Accept;
use guard::{Baseline, LastFigure, LastRate};
pub(crate) use held::{accept_held, held_now};
pub(crate) use http::run as poll;
pub(crate) use insert::FeedRefusal;
pub(crate) use intake::{IntakeError, Parcel, take};
pub use load::ImportReport;
pub(crate) use load::{Alias, Delivery, FeedLoad, KINDS, prepare};
pub(crate) use stocks::{MINIMUM_RULE, MOMENT_RULE, minimum, moment};

use std::collections::BTreeMap;

use jiff::Timestamp;
use pricing::BorrowStatus;

use crate::market::FeedLimits;

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
    #[error(
        "line {line}: the columns {missing} are missing; found: {found:?}. Columns are found by name, in any order, others beside them"
    )]
    Columns {
        line: usize,
        missing: String,
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
    /// It reads well, but is too far from what the feed said before.
    #[error(
        "{report}; the file as a whole is not believed. If this is what the market did, import it again with --accept-jumps"
    )]
    Moved { rule: &'static str, report: String },
    /// Nothing is wrong with it but its time.
    #[error(
        "its time {at} lies before the newest loaded batch's, {newest}: it changes no price of now. If it is to complete the past, import \
         it again with --accept-older; it is judged against the batch before its own time"
    )]
    Older { at: String, newest: String },
    #[error("no figure of {source_name} for {subject} is held; see `bre feed held`")]
    NotHeld {
        source_name: String,
        subject: String,
    },
    #[error("line {line}: {message}; correct the file, nothing of it was taken")]
    Line { line: usize, message: String },
    #[error("the answer is not what this feed sends: {0}")]
    Answer(String),
    #[error("feed kind {0:?} is not known; use one of {kinds}", kinds = KINDS.join(", "))]
    Kind(String),
}

impl FeedError {
    /// The broken rule, by the name that the record and the metrics use.
    pub(crate) fn rule(&self) -> &'static str {
        match self {
            FeedError::Empty => "empty",
            FeedError::Header { .. } | FeedError::Columns { .. } => "header",
            FeedError::NoEnd(_) => "cut_short",
            FeedError::Count { .. } => "count",
            FeedError::AfterEnd { .. } => "after_end",
            FeedError::Future(_) => "clock_ahead",
            FeedError::MostlyBad { .. } => "mostly_bad",
            FeedError::Moved { rule, .. } => rule,
            FeedError::Older { .. } => "older_than_loaded",
            FeedError::NotHeld { .. } => "not_held",
            FeedError::Line { .. } => "line",
            FeedError::Answer(_) => "answer",
            FeedError::Kind(_) => "kind",
        }
    }
}

/// A rate as a feed gave it, whichever feed it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RateRow {
    pub(crate) line: usize,
    /// As it came.
    pub(crate) row: String,
    pub(crate) ticker: String,
    /// The feed's own name for it.
    pub(crate) symbol: String,
    pub(crate) currency: String,
    pub(crate) name: String,
    pub(crate) isin: String,
    pub(crate) figi: String,
    /// In 10^-8 of a fraction.
    pub(crate) rate: i64,
    pub(crate) rebate: Option<i64>,
    pub(crate) available: Option<i64>,
    pub(crate) available_or_more: bool,
    pub(crate) status: Option<BorrowStatus>,
}

/// An index for the market as a whole, or for one ticker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolatilityRow {
    pub(crate) subject: String,
    pub(crate) valid_at: Timestamp,
    /// In 10^-8.
    pub(crate) index: i64,
}

/// A day on which something will be announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventRow {
    pub(crate) ticker: String,
    pub(crate) date: jiff::civil::Date,
}

/// How risky a feed says that a ticker's coming events are: 0 to 10.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RiskRow {
    pub(crate) ticker: String,
    pub(crate) factor: u8,
}

/// A row that is kept aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QuarantinedRow {
    pub(crate) line: usize,
    pub(crate) reason: &'static str,
    pub(crate) row: String,
    /// What it says, where it can be read and is only not believed.
    pub(crate) held: Option<HeldFigure>,
}

/// A figure that is not believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HeldFigure {
    Rate(Box<RateRow>),
    Index(VolatilityRow),
    /// Its row is there and says no rate that can be used: for this ticker (the feed's symbol, until it is translated).
    Silent(String),
}

impl HeldFigure {
    pub(super) fn rate(&self) -> Option<&RateRow> {
        match self {
            HeldFigure::Rate(row) => Some(row),
            _ => None,
        }
    }

    pub(super) fn index(&self) -> Option<&VolatilityRow> {
        match self {
            HeldFigure::Index(row) => Some(row),
            _ => None,
        }
    }

    pub(super) fn silent(&self) -> Option<&str> {
        match self {
            HeldFigure::Silent(ticker) => Some(ticker),
            _ => None,
        }
    }
}

impl QuarantinedRow {
    /// It says nothing that could be used.
    pub(crate) fn unread(
        line: usize,
        reason: &'static str,
        row: impl Into<String>,
    ) -> QuarantinedRow {
        QuarantinedRow {
            line,
            reason,
            row: row.into(),
            held: None,
        }
    }

    /// It is about a stock, and its rate cannot be used.
    pub(crate) fn silent(
        line: usize,
        reason: &'static str,
        row: impl Into<String>,
        symbol: Option<String>,
    ) -> QuarantinedRow {
        QuarantinedRow {
            held: symbol.map(HeldFigure::Silent),
            ..QuarantinedRow::unread(line, reason, row)
        }
    }

    pub(crate) fn rate(row: RateRow, reason: &'static str) -> QuarantinedRow {
        QuarantinedRow {
            line: row.line,
            reason,
            row: row.row.clone(),
            held: Some(HeldFigure::Rate(Box::new(row))),
        }
    }
}

pub(crate) fn count_reasons(rows: &[QuarantinedRow]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(row.reason).or_default() += 1;
    }
    counts
}

/// More than half bad, or nothing good at all: the file is not what it says it is.
fn refuse_mostly_bad(loaded: usize, quarantined: &[QuarantinedRow]) -> Result<(), FeedError> {
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

/// Enough of a line to recognise it.
fn head(line: &str) -> String {
    line.chars().take(80).collect()
}

fn not_ahead(at: Timestamp, now: Timestamp, limits: &FeedLimits) -> Result<(), FeedError> {
    if at.as_second() > now.as_second() + i64::from(limits.clock_ahead_seconds_max) {
        return Err(FeedError::Future(at.to_string()));
    }
    Ok(())
}

/// A file's lines with their numbers from 1, without a byte order mark, line ends and rows of nothing.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.trim_start_matches('\u{feff}')
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_end()))
        .filter(|(_, line)| !columns::is_blank(line))
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
