//! Going through a book with one market: every line answered, and the sums of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use pricing::{Convention, Money, Policy};

use super::bounds::{CPU_SECONDS_MAX, Halt, Meter};
use super::flat;
use super::input::{self, BookError, Line};
use super::position::Cell;
use super::result::{Answer, Header, PricedLine, RefusedLine, Status, Trailer, VERSION};
use crate::calculation::{Calculator, MarketAt, QuoteError};
use crate::domain::position::Position;
use crate::domain::time::rfc3339;

/// A book and everything that its prices are made from.
#[derive(Debug, Clone)]
pub(crate) struct Book {
    pub(crate) lines: Lines,
    /// Of the file as it was sent.
    pub(crate) input_sha256: String,
    pub(crate) halt: Halt,
    /// What decoding it cost.
    pub(crate) spent: Duration,
    pub(crate) at: MarketAt,
    pub(crate) known_at_micros: i64,
    /// The only client whose lines are priced; every client's when absent.
    pub(crate) client_id: Option<String>,
}

/// As they can be read again and again.
#[derive(Debug, Clone)]
pub(crate) enum Lines {
    Csv(Bytes),
    /// What a decoder wrote.
    Decoded(Arc<File>),
}

impl Lines {
    fn read(&self, each: &mut dyn FnMut(Line) -> bool) -> Result<Vec<String>, BookError> {
        match self {
            Lines::Csv(bytes) => input::csv(bytes, each),
            Lines::Decoded(file) => flat::read(file, each),
        }
    }
}

/// What a pass found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) lines: u64,
    pub(crate) priced: u64,
    pub(crate) refused: u64,
    pub(crate) totals: BTreeMap<String, String>,
    pub(crate) policies: Vec<String>,
    pub(crate) input_sha256: String,
    /// Of everything that is sent.
    pub(crate) results_sha256: String,
    pub(crate) result_bytes: u64,
}

/// Prices the book; `emit` takes the result's bytes in order, and says whether to go on.
pub(crate) fn price(
    book: &Book,
    emit: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<Summary, BookError> {
    // The second pass costs as much as the first: half of what is left is for each.
    let left = Duration::from_secs(CPU_SECONDS_MAX).saturating_sub(book.spent);
    let meter = Meter::new(&book.halt, left / 2);
    let mut stopped = None;
    let mut out = Output {
        emit,
        hash: Context::new(&SHA256),
        bytes: 0,
        line: Vec::with_capacity(2048),
    };
    out.write(&Header {
        book: VERSION,
        as_of: rfc3339(book.at.micros),
        known_at: rfc3339(book.known_at_micros),
        engine_version: crate::domain::VERSION.to_owned(),
        input_sha256: book.input_sha256.clone(),
    });
    let mut sums = Sums::default();
    let ignored_columns = book.lines.read(&mut |line| {
        if let Err(error) = meter.line() {
            stopped = Some(error);
            return false;
        }
        let answer = answer(book, line, &mut sums);
        out.write(&answer)
    })?;
    if let Some(error) = stopped {
        return Err(error);
    }
    let totals: BTreeMap<String, String> = sums
        .totals
        .iter()
        .map(|(currency, units)| (currency.to_string(), printed(*units)))
        .collect();
    out.write(&Trailer {
        lines: sums.lines,
        priced: sums.priced,
        refused: sums.lines - sums.priced,
        totals: totals.clone(),
        ignored_columns,
        policies: owned(&sums.policies),
        conventions: owned(&sums.conventions),
    });
    Ok(Summary {
        lines: sums.lines,
        priced: sums.priced,
        refused: sums.lines - sums.priced,
        totals,
        policies: sums.policies.into_keys().collect(),
        input_sha256: book.input_sha256.clone(),
        result_bytes: out.bytes,
        results_sha256: hex(out.hash.finish().as_ref()),
    })
}

fn owned<T: Clone>(shared: &BTreeMap<String, Arc<T>>) -> BTreeMap<String, T> {
    let own = |(id, value): (&String, &Arc<T>)| (id.clone(), T::clone(value));
    shared.iter().map(own).collect()
}

fn answer(book: &Book, line: Line, sums: &mut Sums) -> Answer {
    sums.lines += 1;
    let number = line.number;
    let (ticker, client_id) = match &line.cells {
        Ok(cells) => {
            let owned = |cell: &Cell| Some(cell.text().to_owned());
            (owned(&cells.ticker), owned(&cells.client_id))
        }
        Err(_) => (None, None),
    };
    let refused = |(error_code, error): (&str, String)| {
        Answer::Refused(RefusedLine {
            status: Status::Refused,
            line: number,
            ticker: ticker.clone().filter(|text| text.len() <= 64),
            client_id: client_id.clone().filter(|text| text.len() <= 64),
            error_code: error_code.to_owned(),
            error,
        })
    };
    let position = match line.cells.and_then(|cells| cells.read()) {
        Ok(position) => position,
        Err(reason) => return refused(("INVALID_PARAMETER", reason)),
    };
    match one(book, number, position, sums) {
        Ok(priced) => Answer::Priced(Box::new(priced)),
        Err(refusal) => refused(refusal),
    }
}

fn one(
    book: &Book,
    line: u64,
    position: Position,
    sums: &mut Sums,
) -> Result<PricedLine, (&'static str, String)> {
    if book
        .client_id
        .as_ref()
        .is_some_and(|own| *own != position.client_id)
    {
        let reason = "this API key may price only for its own client_id";
        return Err(("FORBIDDEN", reason.to_owned()));
    }
    let (inputs, quote) = Calculator::price(&book.at, &position).map_err(|error| {
        let code = match &error {
            QuoteError::Ticker(_) => "TICKER_NOT_FOUND",
            QuoteError::Client(_) => "CLIENT_NOT_FOUND",
            QuoteError::Invalid { .. } => "INVALID_PARAMETER",
            QuoteError::Stale { .. } | QuoteError::NoView | QuoteError::Record(_) => {
                "EXTERNAL_API_UNAVAILABLE"
            }
            QuoteError::Pricing(_) => "CALCULATION_ERROR",
        };
        (code, error.to_string())
    })?;
    sums.add(&inputs.currency, quote.fee.total_fee);
    sums.used(&inputs.policy, &inputs.convention);
    Ok(PricedLine::new(line, position.client_id, &inputs, &quote))
}

/// Totals go beyond what one amount can hold.
#[derive(Debug, Default)]
struct Sums {
    lines: u64,
    priced: u64,
    totals: BTreeMap<Arc<str>, i128>,
    policies: BTreeMap<String, Arc<Policy>>,
    conventions: BTreeMap<String, Arc<Convention>>,
    last: Option<(Arc<Policy>, Arc<Convention>)>,
}

impl Sums {
    fn add(&mut self, currency: &Arc<str>, fee: Money) {
        self.priced += 1;
        let total = match self.totals.get_mut(currency) {
            Some(total) => total,
            None => self.totals.entry(Arc::clone(currency)).or_default(),
        };
        *total += i128::from(fee.units());
    }

    fn used(&mut self, policy: &Arc<Policy>, convention: &Arc<Convention>) {
        // Most lines have what the line before had.
        let same = |(last, other): &(Arc<Policy>, Arc<Convention>)| {
            Arc::ptr_eq(last, policy) && Arc::ptr_eq(other, convention)
        };
        if self.last.as_ref().is_some_and(same) {
            return;
        }
        self.policies.insert(policy.id(), Arc::clone(policy));
        self.conventions
            .insert(convention.id(), Arc::clone(convention));
        self.last = Some((Arc::clone(policy), Arc::clone(convention)));
    }
}

/// Four decimals, like every amount.
pub(super) fn printed(units: i128) -> String {
    let sign = if units < 0 { "-" } else { "" };
    let units = units.unsigned_abs();
    format!("{sign}{}.{:04}", units / 10_000, units % 10_000)
}

struct Output<'a> {
    emit: &'a mut dyn FnMut(&[u8]) -> bool,
    hash: Context,
    bytes: u64,
    line: Vec<u8>,
}

impl Output<'_> {
    /// One line; false when nobody listens any more.
    fn write(&mut self, value: &impl serde::Serialize) -> bool {
        self.line.clear();
        // Names, texts and numbers of ours: there is nothing that could fail to be written.
        if serde_json::to_writer(&mut self.line, value).is_err() {
            return false;
        }
        self.line.push(b'\n');
        self.hash.update(&self.line);
        self.bytes += self.line.len() as u64;
        (self.emit)(&self.line)
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
