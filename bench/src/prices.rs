//! Prices alone: against the same quote in rust_decimal, a million on two cores, every one of them compared with exact
//! fractions, and a whole book for four clients.

use std::{hint::black_box, path::PathBuf, sync::Arc, time::Instant};

use num_bigint::BigInt;
use pricing::{
    Convention, Fee, FeeInputs, Index, Money, PerShare, Percent, Policy, PositionValue, Price,
    QuoteInputs, Rate, RateInputs, SourcedValue,
};
use rust_decimal::{Decimal, RoundingStrategy};

use crate::{reference, system::Result, table::Row};

const QUOTES: usize = 1_000_000;
/// Goals of the project, where there is no peer.
const MILLION_MILLIS: f64 = 40.0;
const BOOK_MILLIS: f64 = 1000.0;

/// One quote to price; policy and convention by number.
#[derive(Clone, Debug)]
struct Case {
    rate: RateInputs,
    position_value: PositionValue,
    per_share: PerShare,
    currency: &'static str,
    loan_days: u32,
    markup_percent: Percent,
    fee: Fee,
    policy: usize,
    convention: usize,
}

/// What is printed of a price: rate, borrow cost, markup, transaction fee, total, in units.
type Answer = [i64; 5];

struct Terms {
    policies: Vec<(String, Policy)>,
    conventions: Vec<(String, Convention)>,
}

impl Terms {
    fn shipped() -> Terms {
        let (policies, conventions) = (Policy::shipped(), Convention::shipped());
        Terms {
            policies: policies.into_iter().map(|p| (p.id(), p)).collect(),
            conventions: conventions.into_iter().map(|c| (c.id(), c)).collect(),
        }
    }
}

pub(crate) fn run(rounds: usize) -> Result<Vec<Row>> {
    let terms = Terms::shipped();
    let any = cases(5, 4);
    let usual = cases(1, 1);
    let mut against_decimal = Vec::new();
    let (mut on_two_cores, mut of_all_kinds) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let ours = nanoseconds_each(&usual, |case| black_box(price(case, &terms)).is_some());
        let decimals: Vec<InDecimal> = usual.iter().map(InDecimal::of).collect();
        let theirs = nanoseconds_each(&decimals, |case| black_box(case.price()).is_some());
        against_decimal.push((ours, theirs));
        on_two_cores.push((millis_on_two_cores(&usual, &terms), MILLION_MILLIS));
        of_all_kinds.push((millis_on_two_cores(&any, &terms), MILLION_MILLIS));
    }
    let mut rows = vec![
        Row::new(
            "a price (standard-1, act365-1)",
            "time",
            "ns",
            "rust_decimal",
            against_decimal,
        ),
        Row::new(
            "a million prices (standard-1, act365-1) on two cores",
            "wall",
            "ms",
            "goal",
            on_two_cores,
        ),
        Row::new(
            "a million prices (all policies and conventions) on two cores",
            "wall",
            "ms",
            "goal",
            of_all_kinds,
        ),
        equal(
            "a million random quotes, all policies and conventions",
            &any,
            &terms,
        )?,
    ];
    rows.extend(book(rounds, &terms)?);
    Ok(rows)
}

fn fee_inputs<'a>(case: &'a Case, rate: Rate) -> FeeInputs<'a> {
    FeeInputs {
        position_value: case.position_value,
        per_share: Some(case.per_share),
        currency: case.currency,
        loan_days: case.loan_days,
        rate,
        markup_percent: case.markup_percent,
        fee: case.fee,
    }
}

fn price(case: &Case, terms: &Terms) -> Option<Answer> {
    let rate = pricing::rate(&case.rate, &terms.policies[case.policy].1)
        .ok()?
        .rate;
    let convention = &terms.conventions[case.convention].1;
    let fee = pricing::locate_fee(&fee_inputs(case, rate), convention).ok()?;
    let parts = [
        fee.borrow_cost,
        fee.markup,
        fee.transaction_fee,
        fee.total_fee,
    ];
    let [cost, markup, charged, total] = parts.map(Money::units);
    Some([rate.units(), cost, markup, charged, total])
}

/// The same quote by the usual decimal type: standard-1 and act365-1.
struct InDecimal {
    base: Decimal,
    floor: Decimal,
    index: Decimal,
    event: Decimal,
    value: Decimal,
    days: Decimal,
    markup: Decimal,
    flat: Option<Decimal>,
    percent: Decimal,
}

impl InDecimal {
    fn of(case: &Case) -> InDecimal {
        let (flat, percent) = match case.fee {
            Fee::Flat(amount) => (Some(Decimal::new(amount.units(), 4)), Decimal::ZERO),
            Fee::Percentage(percent) => (None, Decimal::new(percent.units(), 6)),
        };
        InDecimal {
            base: Decimal::new(case.rate.base_rate.units(), 8).normalize(),
            floor: Decimal::new(case.rate.minimum_rate.units(), 8).normalize(),
            index: Decimal::new(case.rate.volatility_index.units(), 6).normalize(),
            event: Decimal::new(case.rate.event_risk_factor.into(), 0),
            value: Decimal::new(case.position_value.units(), 2),
            days: case.loan_days.into(),
            markup: Decimal::new(case.markup_percent.units(), 6).normalize(),
            flat,
            percent: percent.normalize(),
        }
    }

    fn price(&self) -> Option<[Decimal; 5]> {
        const ENGINE_FLOOR: Decimal = Decimal::from_parts(1, 0, 0, false, 4);
        const SLOPE: Decimal = Decimal::from_parts(1, 0, 0, false, 2);
        const WEIGHT: Decimal = Decimal::from_parts(5, 0, 0, false, 3);
        let money = |value: Decimal| {
            value.round_dp_with_strategy(4, RoundingStrategy::MidpointAwayFromZero)
        };
        let factor = Decimal::ONE
            .checked_add(self.index.checked_mul(SLOPE)?)?
            .checked_add(self.event.checked_mul(WEIGHT)?)?;
        let floor = self.floor.max(ENGINE_FLOOR);
        let rate = self.base.checked_mul(factor)?.max(floor);
        let rate = rate.round_dp_with_strategy(8, RoundingStrategy::MidpointNearestEven);
        let yearly = self.value.checked_mul(rate)?.checked_mul(self.days)?;
        let cost = yearly.checked_div(Decimal::from(365))?;
        let markup = cost
            .checked_mul(self.markup)?
            .checked_div(Decimal::ONE_HUNDRED)?;
        let charged = match self.flat {
            Some(flat) => flat,
            None => self
                .value
                .checked_mul(self.percent)?
                .checked_div(Decimal::ONE_HUNDRED)?,
        };
        let [cost, markup, charged] = [cost, markup, charged].map(money);
        Some([rate, cost, markup, charged, cost + markup + charged])
    }
}

#[allow(clippy::float_arithmetic, reason = "a measurement")]
fn nanoseconds_each<T>(cases: &[T], work: impl Fn(&T) -> bool) -> f64 {
    let began = Instant::now();
    black_box(cases.iter().all(work));
    began.elapsed().as_secs_f64() * 1e9 / QUOTES as f64
}

#[allow(clippy::float_arithmetic, reason = "a measurement")]
fn millis_on_two_cores(cases: &[Case], terms: &Terms) -> f64 {
    let began = Instant::now();
    std::thread::scope(|scope| {
        for half in cases.chunks(cases.len().div_ceil(2)) {
            scope.spawn(move || {
                for case in half {
                    black_box(price(case, terms));
                }
            });
        }
    });
    began.elapsed().as_secs_f64() * 1e3
}

/// How many of the quotes are what exact fractions give: fewer than all is an error.
fn equal(what: &str, cases: &[Case], terms: &Terms) -> Result<Row> {
    let differs = |case: &&Case| !is_equal(case, terms);
    let halves = cases.chunks(cases.len().div_ceil(2).max(1));
    let wrong = std::thread::scope(|scope| {
        let threads: Vec<_> = halves
            .map(|half| scope.spawn(move || half.iter().find(differs).cloned()))
            .collect();
        threads
            .into_iter()
            .find_map(|thread| thread.join().ok().flatten())
    });
    if let Some(case) = wrong {
        return Err(format!("not what exact fractions give: {case:?}").into());
    }
    let count = u32::try_from(cases.len()).map(f64::from)?;
    Ok(Row::new(
        what,
        "equal to the last digit",
        "quotes",
        "exact fractions",
        vec![(count, count)],
    ))
}

fn is_equal(case: &Case, terms: &Terms) -> bool {
    let Some(found) = price(case, terms) else {
        return false;
    };
    let rate = reference::rate(&case.rate, &terms.policies[case.policy].0);
    let inputs = fee_inputs(case, Rate::from_units(found[0]));
    let [cost, markup, charged, total] =
        reference::fee(&inputs, &terms.conventions[case.convention].0);
    found.map(BigInt::from) == [rate, cost, markup, charged, total]
}

/// Reproducible: the same quotes in every run.
struct Numbers(u64);

impl Numbers {
    fn up_to(&mut self, max: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 1).cast_signed() % (max + 1)
    }
}

/// As a desk sees them: rates in 0.0001 %, an index with two decimals, values to the cent, markups of half a percent,
/// and one in eight with every decimal in use.
fn cases(policies: i64, conventions: i64) -> Vec<Case> {
    let mut n = Numbers(0x9e37_79b9_7f4a_7c15);
    let case = |_| {
        let odd = n.up_to(7) == 0;
        let mut number = |max: i64, round: i64| match odd {
            true => n.up_to(max),
            false => n.up_to(max / round) * round,
        };
        let rate = RateInputs {
            base_rate: Rate::from_units(number(200_000_000, 100)),
            minimum_rate: Rate::from_units(number(2_000_000, 10_000)),
            volatility_index: Index::from_units(number(80_000_000, 10_000)),
            event_risk_factor: u8::try_from(number(10, 1)).unwrap_or(0),
        };
        let flat = number(1, 1) == 0;
        Case {
            rate,
            position_value: PositionValue::from_units(1 + number(1_000_000_000, 1)),
            per_share: PerShare {
                shares: 1 + number(100_000, 100).unsigned_abs(),
                price: Price::from_units(1 + number(1_000_000_000, 10_000)),
            },
            currency: if number(9, 1) == 0 { "GBP" } else { "USD" },
            loan_days: 1 + u32::try_from(number(364, 1)).unwrap_or(0),
            markup_percent: Percent::from_units(number(10_000_000, 500_000)),
            fee: match flat {
                true => Fee::Flat(Money::from_units(number(1_000_000, 2_500))),
                false => Fee::Percentage(Percent::from_units(number(1_000_000, 10_000))),
            },
            policy: usize::try_from(number(policies - 1, 1)).unwrap_or(0),
            convention: usize::try_from(number(conventions - 1, 1)).unwrap_or(0),
        }
    };
    (0..QUOTES).map(case).collect()
}

/// Ticker, currency, rate.
type Name = (Arc<str>, Arc<str>, Rate);

/// Names with their rates: the market's own file where it is at hand, else the shipped sample.
fn names() -> Result<(&'static str, Vec<Name>)> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let real = here.join("../../shared/data/ibkr_usa_2025-12-28.txt");
    let (what, path) = match real.exists() {
        true => ("the real book", real),
        false => (
            "the sample book",
            here.join("../crates/services/sample/book.txt"),
        ),
    };
    let bytes = std::fs::read(&path)?;
    let text = String::from_utf8_lossy(&bytes);
    let name = |line: &str| {
        let fields: Vec<&str> = line.split('|').collect();
        let rate = Rate::from_percent(fields.get(6)?.parse().ok()?);
        (!rate.is_negative()).then_some(((*fields.first()?).into(), (*fields.get(1)?).into(), rate))
    };
    Ok((
        what,
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(name)
            .collect(),
    ))
}

fn book(rounds: usize, terms: &Terms) -> Result<Vec<Row>> {
    let (what, names) = names()?;
    let mut cases = Vec::new();
    for (_, currency, rate) in &names {
        for client in 0..4 {
            cases.push(Case {
                rate: RateInputs {
                    base_rate: *rate,
                    minimum_rate: Rate::ZERO,
                    volatility_index: Index::from_units(13_600_000),
                    event_risk_factor: 0,
                },
                position_value: PositionValue::whole(100_000),
                per_share: PerShare {
                    shares: 1_000,
                    price: Price::whole(100),
                },
                currency: if **currency == *"GBP" { "GBP" } else { "USD" },
                loan_days: 30,
                markup_percent: Percent::whole(client + 1),
                fee: Fee::Flat(Money::whole(25)),
                policy: 0,
                convention: usize::try_from(client)?,
            });
        }
    }
    let inputs: Vec<QuoteInputs> = cases
        .iter()
        .zip(names.iter().flat_map(|name| std::iter::repeat_n(name, 4)))
        .map(|(case, (ticker, currency, _))| quote_inputs(case, ticker, currency, terms))
        .collect();
    let mut measured = Vec::new();
    for _ in 0..rounds {
        let began = Instant::now();
        for inputs in &inputs {
            black_box(pricing::quote(inputs)?);
        }
        measured.push((millis(began), BOOK_MILLIS));
    }
    let case = format!(
        "{what} ({} names) × 4 clients, with explanations' steps",
        names.len()
    );
    Ok(vec![
        Row::new(&case, "wall, one core", "ms", "goal", measured),
        equal(&format!("{what} × 4 conventions"), &cases, terms)?,
    ])
}

#[allow(clippy::float_arithmetic, reason = "a measurement")]
fn millis(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

fn quote_inputs(case: &Case, ticker: &Arc<str>, currency: &Arc<str>, terms: &Terms) -> QuoteInputs {
    QuoteInputs {
        ticker: Arc::clone(ticker),
        currency: Arc::clone(currency),
        priced_at_micros: 0,
        position_value: case.position_value,
        loan_days: case.loan_days,
        per_share: Some(case.per_share),
        base_rate: SourcedValue::new(case.rate.base_rate, "ibkr", Some(0)),
        minimum_rate: SourcedValue::new(case.rate.minimum_rate, "none", None),
        volatility_index: SourcedValue::new(case.rate.volatility_index, "vix", Some(0)),
        event_risk_factor: SourcedValue::new(case.rate.event_risk_factor, "none", None),
        markup_percent: SourcedValue::new(case.markup_percent, "broker", None),
        fee: SourcedValue::new(case.fee, "broker", None),
        feed_status: None,
        policy: Arc::new(terms.policies[case.policy].1.clone()),
        convention: Arc::new(terms.conventions[case.convention].1.clone()),
    }
}
