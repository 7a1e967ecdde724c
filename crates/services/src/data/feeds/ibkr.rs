//! The Interactive Brokers short-stock file, raw (`|`, `#BOF`, header, rows, `#EOF|count`) and as a CSV snapshot
//! (lower-case header, last row `#EOF,count`); columns by their names. Its numbers are percent a year; ours are fractions.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::columns::{Column, Layout, is_blank, optional, required};
use super::{FeedError, QuarantinedRow, RateRow, head, names, refuse_mostly_bad, scaled};
use crate::domain::identifiers::is_currency;
use crate::domain::text_number::ambiguity;
use crate::market::FeedLimits;

/// Percent with 6 decimals is a fraction with 8: the same integer.
const PERCENT_DECIMALS: usize = 6;
/// rebate + fee may differ from the currency's benchmark by 0.0001 percent.
const BENCHMARK_TOLERANCE: i64 = 100;

#[derive(Debug, Default)]
pub(super) struct ParsedFile {
    /// The file's own time; it names no zone and is read as UTC. A snapshot has none.
    pub(super) valid_at: Option<Timestamp>,
    pub(super) rows: Vec<RateRow>,
    pub(super) quarantined: Vec<QuarantinedRow>,
    /// Percent × 10^6, by currency.
    pub(super) benchmarks: BTreeMap<String, i64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Raw,
    Snapshot,
}

/// In the order in which a row is taken apart. Names are compared without signs: `#SYM` is `sym`.
const COLUMNS: [Column; 8] = [
    required("SYM", &["symbol", "ticker"]),
    required("CUR", &["currency"]),
    optional("NAME", &[]),
    optional("ISIN", &[]),
    required("REBATERATE", &["rebate"]),
    required("FEERATE", &["fee"]),
    required("AVAILABLE", &[]),
    optional("FIGI", &[]),
];
const SEPARATOR: char = '|';
/// So many lines before `#BOF` are passed over.
const PREAMBLE_LINES_MAX: usize = 20;

pub(super) fn parse(
    bytes: &[u8],
    now: Timestamp,
    limits: &FeedLimits,
) -> Result<ParsedFile, FeedError> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text
        .trim_start_matches('\u{feff}')
        .lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim_end_matches('\r')))
        .filter(|(_, line)| !is_blank(line));
    let mut parsed = ParsedFile::default();
    let begins = |line: &&(usize, &str)| line.1.starts_with("#BOF");
    let first = lines
        .clone()
        .take(PREAMBLE_LINES_MAX)
        .find(|line| begins(&line));
    let (form, layout) = match first {
        None => (Form::Snapshot, Layout::find(&mut lines, &COLUMNS)?),
        Some((line, found)) => {
            parsed.valid_at = Some(file_time(line, found, now, limits)?);
            let mut lines = lines.by_ref().skip_while(|(at, _)| *at <= line);
            let layout = Layout::find_with(&mut lines, &COLUMNS, Some(SEPARATOR))?;
            (Form::Raw, layout)
        }
    };
    let mut end: Option<u64> = None;
    let mut found = 0u64;
    for (line, row) in lines {
        if end.is_some() {
            return Err(FeedError::AfterEnd { line });
        }
        if row.starts_with("#EOF") {
            let declared = row
                .split(['|', ',', ';', '\t'])
                .nth(1)
                .and_then(|count| count.trim().parse().ok());
            end = Some(declared.ok_or(FeedError::Header {
                line,
                expected: "#EOF and a count",
                found: head(row),
            })?);
            continue;
        }
        found += 1;
        match read_row(form, &layout, line, row) {
            Ok(rate) => parsed.rows.push(rate),
            Err(reason) => {
                let symbol = symbol_of(form, &layout, row);
                parsed
                    .quarantined
                    .push(QuarantinedRow::silent(line, reason, row, symbol));
            }
        }
    }
    let declared = end.ok_or(FeedError::NoEnd("#EOF"))?;
    if declared != found {
        return Err(FeedError::Count { declared, found });
    }
    hold_to_benchmark(&mut parsed);
    refuse_mostly_bad(parsed.rows.len(), &parsed.quarantined)?;
    Ok(parsed)
}

/// `#BOF|2025.12.28|15:14:44`
fn file_time(
    line: usize,
    found: &str,
    now: Timestamp,
    limits: &FeedLimits,
) -> Result<Timestamp, FeedError> {
    let malformed = || FeedError::Header {
        line,
        expected: "#BOF|YYYY.MM.DD|HH:MM:SS",
        found: head(found),
    };
    let mut parts = found.split('|').skip(1);
    let (date, time) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let text = format!("{}T{time}", date.replace('.', "-"));
    let time: DateTime = text.parse().map_err(|_| malformed())?;
    let at = time
        .to_zoned(TimeZone::UTC)
        .map_err(|_| malformed())?
        .timestamp();
    super::not_ahead(at, now, limits)?;
    Ok(at)
}

fn read_row(form: Form, layout: &Layout, line: usize, row: &str) -> Result<RateRow, &'static str> {
    let cells = match form {
        Form::Raw => {
            let cells = split_raw(row);
            // Every cell is followed by a separator, the last one too.
            if cells.last().is_none_or(|last| !last.is_empty()) {
                return Err("row_cut_short");
            }
            layout.cells(cells)
        }
        Form::Snapshot => layout.row(row),
    };
    let [symbol, currency, name, isin, rebate, fee, available, figi] =
        cells.ok_or("row_malformed")?;
    let symbol = names::symbol(&symbol)?;
    if !is_currency(&currency) {
        return Err("currency_malformed");
    }
    let rebate = percent(&rebate)?;
    let rate = percent(&fee)?;
    if rate < 0 {
        return Err("rate_negative");
    }
    let (available, available_or_more) = availability(&available)?;
    Ok(RateRow {
        line,
        row: row.to_owned(),
        ticker: symbol.to_owned(),
        symbol: symbol.to_owned(),
        currency,
        name: unescape(&name),
        isin,
        figi,
        rate,
        rebate: Some(rebate),
        available,
        available_or_more,
        status: None,
    })
}

/// Of a row whose other cells cannot be used.
fn symbol_of(form: Form, layout: &Layout, row: &str) -> Option<String> {
    let cells: Option<[String; 1]> = match form {
        Form::Raw => layout.cells(split_raw(row)),
        Form::Snapshot => layout.row(row),
    };
    let [symbol] = cells?;
    names::symbol(&symbol).ok().map(str::to_owned)
}

/// The raw form knows no quotes.
fn split_raw(row: &str) -> Vec<String> {
    row.split(SEPARATOR).map(str::to_owned).collect()
}

fn percent(text: &str) -> Result<i64, &'static str> {
    match text {
        "NA" | "" => Err("rate_not_available"),
        text => scaled(text, PERCENT_DECIMALS).ok_or("rate_malformed"),
    }
}

fn availability(text: &str) -> Result<(Option<i64>, bool), &'static str> {
    if matches!(text, "" | "NA") {
        return Ok((None, false));
    }
    let (digits, or_more) = match text.strip_prefix('>') {
        Some(digits) => (digits, true),
        None => (text, false),
    };
    if ambiguity(digits).is_some() {
        return Err("availability_ambiguous");
    }
    scaled(digits, 0)
        .filter(|count| *count >= 0)
        .map(|count| (Some(count), or_more))
        .ok_or("availability_malformed")
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#39;", "'")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}

fn sum(row: &RateRow) -> i64 {
    row.rate + row.rebate.unwrap_or_default()
}

/// rebate + fee is one number per currency. The most frequent one is taken for it, provided most rows agree.
fn hold_to_benchmark(parsed: &mut ParsedFile) {
    let mut sums: HashMap<String, HashMap<i64, usize>> = HashMap::new();
    for row in &parsed.rows {
        *sums
            .entry(row.currency.clone())
            .or_default()
            .entry(sum(row))
            .or_default() += 1;
    }
    for (currency, sums) in sums {
        let total: usize = sums.values().sum();
        let Some(benchmark) = sums
            .iter()
            .max_by_key(|(sum, count)| (**count, -**sum))
            .map(|(sum, _)| *sum)
        else {
            continue;
        };
        let agreeing: usize = sums
            .iter()
            .filter(|(sum, _)| (**sum - benchmark).abs() <= BENCHMARK_TOLERANCE)
            .map(|(_, count)| count)
            .sum();
        if agreeing * 2 > total {
            parsed.benchmarks.insert(currency, benchmark);
        }
    }
    let benchmarks = &parsed.benchmarks;
    let verdict = |row: &RateRow| match benchmarks.get(&row.currency) {
        None => Some("benchmark_unclear"),
        Some(benchmark) if (sum(row) - benchmark).abs() > BENCHMARK_TOLERANCE => {
            Some("benchmark_mismatch")
        }
        Some(_) => None,
    };
    let rows = std::mem::take(&mut parsed.rows);
    for row in rows {
        match verdict(&row) {
            None => parsed.rows.push(row),
            Some(reason) => parsed.quarantined.push(QuarantinedRow::rate(row, reason)),
        }
    }
}

#[cfg(test)]
#[path = "ibkr_tests.rs"]
mod tests;
