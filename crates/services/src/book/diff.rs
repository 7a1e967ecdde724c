//! What changed between two priced books, and why.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pricing::{Attribution, Cause, Convention, Money, Policy, attribute};
use serde::Serialize;

use super::pass::printed;
use super::result::{Answer, Header, PricedLine, RefusedLine, Trailer, VERSION};

#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    #[error("{path}: {error}")]
    Io {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error(
        "{path}: line {line} is not a line of a priced book ({reason}); give what `bre book price` wrote"
    )]
    Line {
        path: PathBuf,
        line: u64,
        reason: String,
    },
    #[error("{path}: the last line, which ends a priced book, is missing; was the file cut short?")]
    CutShort { path: PathBuf },
    #[error("{path}: written in form {found} of a priced book; this engine reads form {VERSION}")]
    Version { path: PathBuf, found: u32 },
}

/// The same position in both books, priced differently, or in one of them only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    pub ticker: String,
    pub client_id: String,
    pub currency: Option<String>,
    pub from: Side,
    pub to: Side,
    /// By how much each cause moved the total; empty unless both sides are priced.
    pub causes: Vec<(Cause, Money)>,
}

/// What one book says of a position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Total(Money),
    Refused(String),
    Absent,
}

/// The whole of it; amounts by currency.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BookDiff {
    pub as_of: (String, String),
    pub lines: (u64, u64),
    /// Of them, those with a price.
    pub priced: (u64, u64),
    pub unchanged: u64,
    pub changed: u64,
    /// Priced in one book only, or refused in one of them.
    pub one_sided: u64,
    pub totals: BTreeMap<String, (String, String)>,
    /// Currency, then cause: how many lines it moved, and by how much in all.
    pub causes: BTreeMap<String, BTreeMap<Cause, (u64, String)>>,
    /// Sums of lines that are in one book only.
    pub only: BTreeMap<String, (String, String)>,
}

/// Names of causes as a person reads them.
#[derive(Debug)]
pub struct Names;

impl Names {
    pub fn of(cause: Cause) -> &'static str {
        match cause {
            Cause::Position => "position",
            Cause::BaseRate => "base rate",
            Cause::Volatility => "volatility",
            Cause::Event => "event",
            Cause::ClientSettings => "client settings",
            Cause::Convention => "convention",
            Cause::Policy => "policy",
        }
    }
}

/// Compares book `b` with book `a`; `each` hears every change. Positions are the same when ticker and client are, in their order.
pub fn diff(a: &Path, b: &Path, each: &mut dyn FnMut(&Change)) -> Result<BookDiff, DiffError> {
    let (mut a, mut b) = (Reader::open(a)?, Reader::open(b)?);
    let mut report = Report::default();
    report.diff.as_of = (a.header.as_of.clone(), b.header.as_of.clone());
    report.diff.lines = (a.trailer.lines, b.trailer.lines);
    report.diff.priced = (a.trailer.priced, b.trailer.priced);
    let mut waiting = (Waiting::default(), Waiting::default());
    loop {
        let (left, right) = (a.next()?, b.next()?);
        if left.is_none() && right.is_none() {
            break;
        }
        // Most books keep their order: then nothing waits.
        match (left, right) {
            (Some(left), Some(right))
                if left.key() == right.key() && waiting.0.none(&left) && waiting.1.none(&right) =>
            {
                report.compare(&a, &b, left, right, each);
            }
            (left, right) => {
                if let Some(left) = left {
                    waiting.0.add(left);
                }
                if let Some(right) = right {
                    match waiting.0.take(&right) {
                        Some(left) => report.compare(&a, &b, left, right, each),
                        None => waiting.1.add(right),
                    }
                }
            }
        }
        waiting.meet(|left, right| report.compare(&a, &b, left, right, each));
    }
    for line in waiting.0.rest() {
        report.alone(line, true, each);
    }
    for line in waiting.1.rest() {
        report.alone(line, false, each);
    }
    Ok(report.finish())
}

type Key = (String, String);

impl Answer {
    fn key(&self) -> Key {
        match self {
            Answer::Priced(priced) => (priced.ticker.to_string(), priced.client_id.clone()),
            Answer::Refused(refused) => (
                refused.ticker.clone().unwrap_or_default(),
                refused.client_id.clone().unwrap_or_default(),
            ),
        }
    }
}

/// Lines whose twin has not come yet.
#[derive(Default)]
struct Waiting {
    lines: HashMap<Key, VecDeque<Answer>>,
    newest: Option<Key>,
}

impl Waiting {
    fn none(&self, like: &Answer) -> bool {
        self.lines.is_empty() || !self.lines.contains_key(&like.key())
    }

    fn add(&mut self, line: Answer) {
        let key = line.key();
        self.lines.entry(key.clone()).or_default().push_back(line);
        self.newest = Some(key);
    }

    fn take(&mut self, like: &Answer) -> Option<Answer> {
        self.take_key(&like.key())
    }

    fn take_key(&mut self, key: &Key) -> Option<Answer> {
        let lines = self.lines.get_mut(key)?;
        let line = lines.pop_front();
        if lines.is_empty() {
            self.lines.remove(key);
        }
        line
    }

    /// In the order of the file.
    fn rest(self) -> Vec<Answer> {
        let mut rest: Vec<Answer> = self.lines.into_values().flatten().collect();
        rest.sort_by_key(|line| match line {
            Answer::Priced(priced) => priced.line,
            Answer::Refused(refused) => refused.line,
        });
        rest
    }
}

trait Meet {
    fn meet(&mut self, compare: impl FnMut(Answer, Answer));
}

impl Meet for (Waiting, Waiting) {
    /// The line that was added last may be what the other side waits for.
    fn meet(&mut self, mut compare: impl FnMut(Answer, Answer)) {
        let newest = [self.0.newest.take(), self.1.newest.take()];
        for key in newest.into_iter().flatten() {
            while self.0.lines.contains_key(&key)
                && let Some(right) = self.1.take_key(&key)
                && let Some(left) = self.0.take_key(&key)
            {
                compare(left, right);
            }
        }
    }
}

/// A priced book on disk: its last line first, then line by line.
struct Reader {
    path: PathBuf,
    lines: BufReader<File>,
    number: u64,
    header: Header,
    trailer: Trailer,
    priced_at_micros: i64,
    policies: BTreeMap<String, Arc<Policy>>,
    conventions: BTreeMap<String, Arc<Convention>>,
    buffer: String,
}

/// A trailer holds a few policies and conventions.
const TRAILER_BYTES_MAX: u64 = 4 << 20;

impl Reader {
    fn open(path: &Path) -> Result<Reader, DiffError> {
        let io = |error| DiffError::Io {
            path: path.to_owned(),
            error,
        };
        let mut file = File::open(path).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        file.seek(SeekFrom::Start(bytes.saturating_sub(TRAILER_BYTES_MAX)))
            .map_err(io)?;
        let mut end = Vec::new();
        file.read_to_end(&mut end).map_err(io)?;
        let cut_short = || DiffError::CutShort {
            path: path.to_owned(),
        };
        let end = end.strip_suffix(b"\n").ok_or_else(cut_short)?;
        let last = end.rsplit(|byte| *byte == b'\n').next().unwrap_or(end);
        let trailer: Trailer = serde_json::from_slice(last).map_err(|_| cut_short())?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        let mut lines = BufReader::with_capacity(1 << 20, file);
        let mut buffer = String::new();
        lines.read_line(&mut buffer).map_err(io)?;
        let wrong = |reason: String| DiffError::Line {
            path: path.to_owned(),
            line: 1,
            reason,
        };
        let header: Header =
            serde_json::from_str(&buffer).map_err(|error| wrong(error.to_string()))?;
        if header.book != VERSION {
            return Err(DiffError::Version {
                path: path.to_owned(),
                found: header.book,
            });
        }
        let as_of: jiff::Timestamp = header
            .as_of
            .parse()
            .map_err(|error: jiff::Error| wrong(error.to_string()))?;
        Ok(Reader {
            path: path.to_owned(),
            lines,
            number: 1,
            priced_at_micros: as_of.as_microsecond(),
            policies: shared(&trailer.policies),
            conventions: shared(&trailer.conventions),
            header,
            trailer,
            buffer,
        })
    }

    fn next(&mut self) -> Result<Option<Answer>, DiffError> {
        if self.number > self.trailer.lines {
            return Ok(None);
        }
        self.buffer.clear();
        self.number += 1;
        let read = self.lines.read_line(&mut self.buffer);
        read.map_err(|error| DiffError::Io {
            path: self.path.clone(),
            error,
        })?;
        let answer = Answer::read(&self.buffer).map_err(|error| DiffError::Line {
            path: self.path.clone(),
            line: self.number,
            reason: error.to_string(),
        })?;
        Ok(Some(answer))
    }
}

fn shared<T: Clone>(own: &BTreeMap<String, T>) -> BTreeMap<String, Arc<T>> {
    let share = |(id, value): (&String, &T)| (id.clone(), Arc::new(value.clone()));
    own.iter().map(share).collect()
}

#[derive(Default)]
struct Report {
    diff: BookDiff,
    totals: BTreeMap<String, (i128, i128)>,
    only: BTreeMap<String, (i128, i128)>,
    causes: BTreeMap<(String, Cause), (u64, i128)>,
}

impl Report {
    fn compare(
        &mut self,
        a: &Reader,
        b: &Reader,
        left: Answer,
        right: Answer,
        each: &mut dyn FnMut(&Change),
    ) {
        match (left, right) {
            (Answer::Priced(left), Answer::Priced(right)) => self.priced(a, b, &left, &right, each),
            (Answer::Refused(left), Answer::Refused(right))
                if left.error_code == right.error_code =>
            {
                self.diff.unchanged += 1;
            }
            (left, right) => {
                self.diff.one_sided += 1;
                let (ticker, client_id) = left.key();
                each(&Change {
                    ticker,
                    client_id,
                    currency: currency(&left).or(currency(&right)),
                    from: self.side(&left, true),
                    to: self.side(&right, false),
                    causes: Vec::new(),
                });
            }
        }
    }

    fn priced(
        &mut self,
        a: &Reader,
        b: &Reader,
        left: &PricedLine,
        right: &PricedLine,
        each: &mut dyn FnMut(&Change),
    ) {
        let currency = right.currency.to_string();
        let totals = self.totals.entry(currency.clone()).or_default();
        totals.0 += i128::from(left.total_fee.units());
        totals.1 += i128::from(right.total_fee.units());
        if left.total_fee == right.total_fee {
            self.diff.unchanged += 1;
            return;
        }
        self.diff.changed += 1;
        let attribution = explained(a, b, left, right);
        for (cause, change) in &attribution.causes {
            let sum = self.causes.entry((currency.clone(), *cause)).or_default();
            sum.0 += 1;
            sum.1 += i128::from(change.units());
        }
        each(&Change {
            ticker: right.ticker.to_string(),
            client_id: right.client_id.clone(),
            currency: Some(currency),
            from: Side::Total(attribution.from),
            to: Side::Total(attribution.to),
            causes: attribution.causes,
        });
    }

    fn alone(&mut self, line: Answer, in_a: bool, each: &mut dyn FnMut(&Change)) {
        self.diff.one_sided += 1;
        let (ticker, client_id) = line.key();
        let side = self.side(&line, in_a);
        let (from, to) = match in_a {
            true => (side, Side::Absent),
            false => (Side::Absent, side),
        };
        each(&Change {
            ticker,
            client_id,
            currency: currency(&line),
            from,
            to,
            causes: Vec::new(),
        });
    }

    /// Adds a one-sided line to its book's sums.
    fn side(&mut self, line: &Answer, in_a: bool) -> Side {
        match line {
            Answer::Priced(priced) => {
                let sums = self.only.entry(priced.currency.to_string()).or_default();
                let sum = if in_a { &mut sums.0 } else { &mut sums.1 };
                *sum += i128::from(priced.total_fee.units());
                Side::Total(priced.total_fee)
            }
            Answer::Refused(RefusedLine {
                error_code, error, ..
            }) => Side::Refused(format!("{error_code}: {error}")),
        }
    }

    fn finish(mut self) -> BookDiff {
        let both = |sums: BTreeMap<String, (i128, i128)>| {
            let text =
                |(currency, (a, b)): (String, (i128, i128))| (currency, (printed(a), printed(b)));
            sums.into_iter().map(text).collect()
        };
        self.diff.totals = both(self.totals);
        self.diff.only = both(self.only);
        for ((currency, cause), (count, units)) in self.causes {
            let causes = self.diff.causes.entry(currency).or_default();
            causes.insert(cause, (count, printed(units)));
        }
        self.diff
    }
}

fn currency(line: &Answer) -> Option<String> {
    match line {
        Answer::Priced(priced) => Some(priced.currency.to_string()),
        Answer::Refused(_) => None,
    }
}

/// Both were priced once; should that not be repeatable (another engine's formula, say), nothing is claimed of the causes.
fn explained(a: &Reader, b: &Reader, left: &PricedLine, right: &PricedLine) -> Attribution {
    let inputs = |reader: &Reader, line: &PricedLine| {
        line.quote_inputs(
            reader.priced_at_micros,
            &reader.policies,
            &reader.conventions,
        )
    };
    let pair = inputs(a, left).zip(inputs(b, right));
    let attribution = pair.and_then(|(from, to)| attribute(&from, &to).ok());
    attribution
        .filter(|found| (found.from, found.to) == (left.total_fee, right.total_fee))
        .unwrap_or(Attribution {
            from: left.total_fee,
            to: right.total_fee,
            causes: Vec::new(),
        })
}
