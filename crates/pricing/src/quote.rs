//! A quote: rate and fee from one set of inputs. Each input names its source and its age.

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::convention::Convention;
use crate::error::PricingError;
use crate::fee::{Fee, FeeInputs, FeeSteps, PerShare, locate_fee};
use crate::number::{Index, Money, Percent, PositionValue, Rate};
use crate::policy::Policy;
use crate::rate::{RateInputs, RateSteps, rate};
use crate::status::{BorrowStatus, VolatilityTier, volatility_tier};

/// The index to assume when none is known; to be marked as a fallback.
pub const DEFAULT_INDEX: Index = Index::whole(20);

/// An input with its origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourcedValue<T> {
    pub value: T,
    /// A feed, `request`, `broker`, `default` …
    pub source: Arc<str>,
    /// When it was true, in microseconds since 1970; absent for what has no time, such as a default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_micros: Option<i64>,
    /// Not what was wanted, but what could be had.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fallback: bool,
    /// Too old for its source, whatever the policy says of its age.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
    /// What its source said later, and the price does not follow yet. It changes no price.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub unconfirmed: Option<Box<UnconfirmedValue<T>>>,
}

/// Something newer than an input that is not believed: a figure that nothing has confirmed, or a delivery that was
/// refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnconfirmedValue<T> {
    /// Absent where nothing of it could be read.
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    pub value: Option<T>,
    /// When it was true, in microseconds since 1970.
    pub at_micros: i64,
    /// The rule that it broke.
    pub reason: Arc<str>,
}

/// Without asking `T` for a default.
fn none<T>() -> Option<T> {
    None
}

impl<T> SourcedValue<T> {
    pub fn new(value: T, source: impl Into<Arc<str>>, at_micros: Option<i64>) -> SourcedValue<T> {
        SourcedValue {
            value,
            source: source.into(),
            at_micros,
            fallback: false,
            stale: false,
            unconfirmed: None,
        }
    }

    /// A newer figure says otherwise.
    pub fn is_contradicted(&self) -> bool
    where
        T: PartialEq,
    {
        let newer = self.unconfirmed.as_ref();
        newer.is_some_and(|newer| {
            newer
                .value
                .as_ref()
                .is_some_and(|value| *value != self.value)
        })
    }

    pub fn fallback(value: T, source: impl Into<Arc<str>>) -> SourcedValue<T> {
        SourcedValue {
            fallback: true,
            ..SourcedValue::new(value, source, None)
        }
    }
}

/// Everything that a price depends on. Its JSON is what is recorded and replayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuoteInputs {
    pub ticker: Arc<str>,
    pub currency: Arc<str>,
    /// The moment against which ages are counted.
    pub priced_at_micros: i64,
    pub position_value: PositionValue,
    pub loan_days: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_share: Option<PerShare>,
    pub base_rate: SourcedValue<Rate>,
    pub minimum_rate: SourcedValue<Rate>,
    pub volatility_index: SourcedValue<Index>,
    pub event_risk_factor: SourcedValue<u8>,
    pub markup_percent: SourcedValue<Percent>,
    pub fee: SourcedValue<Fee>,
    /// A feed's own word on how hard the stock is to borrow: it wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feed_status: Option<SourcedValue<BorrowStatus>>,
    pub policy: Arc<Policy>,
    pub convention: Arc<Convention>,
}

/// A priced answer with every step that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    pub rate: RateSteps,
    pub fee: FeeSteps,
    pub borrow_status: BorrowStatus,
    pub volatility_tier: VolatilityTier,
    /// Names of inputs older than the policy's ages.
    pub stale: Vec<&'static str>,
    /// Names of inputs that are fallbacks.
    pub fallback: Vec<&'static str>,
}

/// What is answered and recorded. Its JSON is compared byte for byte after a replay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outputs {
    pub total_fee: Money,
    pub borrow_cost: Money,
    pub markup: Money,
    pub transaction_fee: Money,
    pub borrow_rate: Rate,
    pub borrow_status: BorrowStatus,
    pub volatility_tier: VolatilityTier,
    pub collateral_value: PositionValue,
    pub basis_days: u32,
    pub floored: bool,
    pub stale: Vec<&'static str>,
    pub fallback: Vec<&'static str>,
}

/// Prices one set of inputs.
pub fn quote(inputs: &QuoteInputs) -> Result<Quote, PricingError> {
    let stale = stale(inputs)?;
    let rate = rate(
        &RateInputs {
            base_rate: inputs.base_rate.value,
            minimum_rate: inputs.minimum_rate.value,
            volatility_index: inputs.volatility_index.value,
            event_risk_factor: inputs.event_risk_factor.value,
        },
        &inputs.policy,
    )?;
    let fee = locate_fee(
        &FeeInputs {
            position_value: inputs.position_value,
            per_share: inputs.per_share,
            currency: &inputs.currency,
            loan_days: inputs.loan_days,
            rate: rate.rate,
            markup_percent: inputs.markup_percent.value,
            fee: inputs.fee.value,
        },
        &inputs.convention,
    )?;
    let feed_status = inputs.feed_status.as_ref().map(|status| status.value);
    Ok(Quote {
        borrow_status: feed_status.unwrap_or_else(|| inputs.policy.status.status(rate.rate)),
        volatility_tier: volatility_tier(inputs.volatility_index.value),
        stale,
        fallback: fallback(inputs),
        rate,
        fee,
    })
}

impl Quote {
    pub fn outputs(&self) -> Outputs {
        Outputs {
            total_fee: self.fee.total_fee,
            borrow_cost: self.fee.borrow_cost,
            markup: self.fee.markup,
            transaction_fee: self.fee.transaction_fee,
            borrow_rate: self.rate.rate,
            borrow_status: self.borrow_status,
            volatility_tier: self.volatility_tier,
            collateral_value: self.fee.collateral_value,
            basis_days: self.fee.basis_days,
            floored: self.rate.floored,
            stale: self.stale.clone(),
            fallback: self.fallback.clone(),
        }
    }

    /// The bytes to record and to compare with after a replay.
    pub fn outputs_json(&self) -> String {
        text(|bytes| self.write_outputs_json(bytes))
    }

    /// The same bytes, to where they are wanted.
    pub fn write_outputs_json(&self, to: impl io::Write) -> io::Result<()> {
        Ok(serde_json::to_writer(to, &self.outputs())?)
    }
}

impl QuoteInputs {
    /// The bytes to record: [`crate::replay`] prices them again.
    pub fn to_json(&self) -> String {
        text(|bytes| self.write_json(bytes))
    }

    /// The same bytes, to where they are wanted.
    pub fn write_json(&self, to: impl io::Write) -> io::Result<()> {
        Ok(serde_json::to_writer(to, self)?)
    }
}

/// Numbers, names and lists, with text keys: nothing here that serde_json could fail on.
fn text(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut bytes = Vec::with_capacity(JSON_BYTES);
    match write(&mut bytes) {
        Ok(()) => String::from_utf8(bytes).unwrap_or_default(),
        Err(_) => String::new(),
    }
}

/// More than most have.
const JSON_BYTES: usize = 1536;

/// An input that is older than the policy allows, or that its source calls stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleInput {
    pub field: &'static str,
    pub age_seconds: i64,
    pub age_seconds_max: i64,
}

/// The rule of staleness, for a quote and for a rate alike. What has no time has no age.
pub fn stale_inputs(
    policy: &Policy,
    priced_at_micros: i64,
    base_rate: &SourcedValue<Rate>,
    volatility_index: &SourcedValue<Index>,
    event_risk_factor: &SourcedValue<u8>,
) -> Vec<StaleInput> {
    let limits = &policy.freshness;
    let aged = [
        (
            "base_rate",
            base_rate.at_micros,
            base_rate.stale,
            limits.base_rate_age_seconds_max,
        ),
        (
            "volatility_index",
            volatility_index.at_micros,
            volatility_index.stale,
            limits.volatility_age_seconds_max,
        ),
        (
            "event_risk_factor",
            event_risk_factor.at_micros,
            event_risk_factor.stale,
            limits.event_age_seconds_max,
        ),
    ];
    let judge = |(field, at_micros, is_stale, age_seconds_max)| {
        let age_seconds = age_seconds(priced_at_micros, at_micros)?;
        (age_seconds > age_seconds_max || is_stale).then_some(StaleInput {
            field,
            age_seconds,
            age_seconds_max,
        })
    };
    aged.into_iter().filter_map(judge).collect()
}

/// Names of the inputs that are stale, unless the policy refuses such.
fn stale(inputs: &QuoteInputs) -> Result<Vec<&'static str>, PricingError> {
    let found = stale_inputs(
        &inputs.policy,
        inputs.priced_at_micros,
        &inputs.base_rate,
        &inputs.volatility_index,
        &inputs.event_risk_factor,
    );
    match found.first() {
        Some(first) if inputs.policy.freshness.refuse_stale => Err(PricingError::Stale {
            field: first.field,
            policy: inputs.policy.id(),
            age_seconds: first.age_seconds,
            age_seconds_max: first.age_seconds_max,
        }),
        _ => Ok(found.into_iter().map(|input| input.field).collect()),
    }
}

/// Whole seconds, rounded down; negative for what is true only later.
pub(crate) fn age_seconds(priced_at_micros: i64, at_micros: Option<i64>) -> Option<i64> {
    at_micros.map(|at| priced_at_micros.saturating_sub(at).div_euclid(1_000_000))
}

fn fallback(inputs: &QuoteInputs) -> Vec<&'static str> {
    let marks = [
        ("base_rate", inputs.base_rate.fallback),
        ("minimum_rate", inputs.minimum_rate.fallback),
        ("volatility_index", inputs.volatility_index.fallback),
        ("event_risk_factor", inputs.event_risk_factor.fallback),
        ("markup_percent", inputs.markup_percent.fallback),
        ("fee", inputs.fee.fallback),
    ];
    marks
        .into_iter()
        .filter(|mark| mark.1)
        .map(|mark| mark.0)
        .collect()
}
