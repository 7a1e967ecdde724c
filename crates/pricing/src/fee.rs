//! The locate fee: borrow cost, markup and transaction fee, each rounded once; the total is their sum as printed.

use serde::{Deserialize, Serialize};

use crate::convention::{Collateral, Convention};
use crate::error::{PricingError, check_range};
use crate::number::{Money, Percent, PositionValue, Price, Rate};
use crate::ratio::{Ratio, round_half_up, round_up};

/// A broker's transaction fee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Fee {
    Flat(Money),
    /// Of the position's value.
    Percentage(Percent),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerShare {
    pub shares: u64,
    pub price: Price,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeeInputs<'a> {
    pub position_value: PositionValue,
    /// Needed by conventions that price per share.
    pub per_share: Option<PerShare>,
    pub currency: &'a str,
    pub loan_days: u32,
    pub rate: Rate,
    pub markup_percent: Percent,
    pub fee: Fee,
}

/// Every step of the computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeeSteps {
    pub collateral_value: PositionValue,
    pub basis_days: u32,
    pub borrow_cost_unrounded: Ratio,
    pub markup_unrounded: Ratio,
    pub transaction_fee_unrounded: Ratio,
    pub borrow_cost: Money,
    pub markup: Money,
    pub transaction_fee: Money,
    pub total_fee: Money,
}

/// Units of cents × rate in one unit of money: 10⁻¹⁰ to 10⁻⁴.
const COST_UNITS: u128 = 10_u128.pow(6);
/// Units of percent in 1: six decimals, and the percent itself.
const PERCENT_ONE: u128 = 10_u128.pow(8);
/// The same without the percent's last four decimals.
const PERCENT_ONE_SHORT: u128 = 10_u128.pow(4);

pub fn locate_fee(
    inputs: &FeeInputs<'_>,
    convention: &Convention,
) -> Result<FeeSteps, PricingError> {
    check(inputs)?;
    convention.check()?;
    let collateral_value = collateral(inputs, convention)?;
    let basis_days = convention.basis_days(inputs.currency);
    let basis = u128::from(basis_days);

    // At most 10¹⁴ cents of collateral × 10¹⁴ of rate × 365 days: far below 2¹²⁸.
    let cost = unsigned(collateral_value.units())
        * unsigned(inputs.rate.units())
        * u128::from(inputs.loan_days);
    let (percent, percent_one) = shortened(unsigned(inputs.markup_percent.units()));
    let marked = cost.checked_mul(percent);
    let marked = marked.ok_or(PricingError::Overflow { field: "markup" })?;
    let (rounded_cost, rounded_markup) =
        match within_64_bits(cost, basis * COST_UNITS, percent, percent_one) {
            Some((cost, markup)) => (i64::try_from(cost).ok(), i64::try_from(markup).ok()),
            None => (
                round_half_up(cost, basis * COST_UNITS),
                round_half_up(marked, basis * COST_UNITS * percent_one),
            ),
        };
    let borrow_cost = money("borrow_cost", rounded_cost)?;
    let markup = money("markup", rounded_markup)?;

    let (charged, charged_one) = match inputs.fee {
        Fee::Flat(amount) => (unsigned(amount.units()), 1),
        Fee::Percentage(percent) => {
            let charged = unsigned(inputs.position_value.units()) * unsigned(percent.units());
            (charged, PERCENT_ONE / 100)
        }
    };
    let rounded = match inputs.fee {
        Fee::Flat(amount) => Some(amount.units()),
        Fee::Percentage(_) => round_half_up(charged, charged_one),
    };
    let transaction_fee = money("transaction_fee", rounded)?;

    let total = borrow_cost
        .checked_add(markup)
        .and_then(|sum| sum.checked_add(transaction_fee));
    Ok(FeeSteps {
        collateral_value,
        basis_days,
        borrow_cost_unrounded: Ratio::new(cost, basis * COST_UNITS * 10_000),
        markup_unrounded: Ratio::new(marked, basis * COST_UNITS * percent_one * 10_000),
        transaction_fee_unrounded: Ratio::new(charged, charged_one * 10_000),
        borrow_cost,
        markup,
        transaction_fee,
        total_fee: total.ok_or(PricingError::Overflow { field: "total_fee" })?,
    })
}

/// Borrow cost and markup, both rounded half up, where nothing on the way passes 64 bits, which is usual and several
/// times quicker.
///
/// With cost = q × yearly + r, the markup is (q × percent + r × percent ÷ yearly) ÷ one. Half of one is whole, so
/// adding it and rounding down rounds half up; and rounding the inner division down first changes nothing, because the
/// rest of the sum is whole.
#[inline]
fn within_64_bits(cost: u128, yearly: u128, percent: u128, one: u128) -> Option<(u64, u64)> {
    let [cost, yearly, percent] = [
        u64::try_from(cost).ok()?,
        u64::try_from(yearly).ok()?,
        u64::try_from(percent).ok()?,
    ];
    let (q, r) = (cost / yearly, cost % yearly);
    let whole = q.checked_mul(percent)?;
    let sum = whole.checked_add(r.checked_mul(percent)? / yearly)?;
    // Divided by constants: no division at all.
    let markup = match one {
        PERCENT_ONE_SHORT => sum.checked_add(5_000)? / 10_000,
        _ => sum.checked_add(50_000_000)? / 100_000_000,
    };
    Some((q + u64::from(r >= yearly - r), markup))
}

fn check(inputs: &FeeInputs<'_>) -> Result<(), PricingError> {
    let (cent, billion) = (
        PositionValue::from_units(1),
        PositionValue::whole(1_000_000_000),
    );
    check_range("position_value", inputs.position_value, cent, billion)?;
    check_range("loan_days", inputs.loan_days, 1, 365)?;
    check_range(
        "borrow_rate",
        inputs.rate,
        Rate::ZERO,
        Rate::whole(1_000_000),
    )?;
    check_range(
        "markup_percent",
        inputs.markup_percent,
        Percent::ZERO,
        Percent::whole(1_000),
    )?;
    match inputs.fee {
        Fee::Flat(amount) => check_range(
            "transaction_fee",
            amount,
            Money::ZERO,
            Money::whole(1_000_000_000),
        ),
        Fee::Percentage(percent) => check_range(
            "transaction_fee",
            percent,
            Percent::ZERO,
            Percent::whole(100),
        ),
    }
}

fn collateral(
    inputs: &FeeInputs<'_>,
    convention: &Convention,
) -> Result<PositionValue, PricingError> {
    let Collateral::PerShare { percent, step } = convention.collateral else {
        return Ok(inputs.position_value);
    };
    let missing = |field| PricingError::Missing {
        field,
        convention: convention.id(),
    };
    let PerShare { shares, price } = inputs.per_share.ok_or_else(|| missing("shares"))?;
    check_range("shares", shares, 1, 10_000_000_000)?;
    check_range(
        "price",
        price,
        Price::from_units(1),
        Price::whole(10_000_000),
    )?;
    // Price (6 decimals) × percent (8 with the percent itself) over the step's cents.
    let marked = unsigned(price.units()) * unsigned(percent.units());
    let cent = PERCENT_ONE * 10_000;
    let overflow = PricingError::Overflow {
        field: "collateral_value",
    };
    let steps = round_up(marked, cent * unsigned(step.units())).ok_or(overflow.clone())?;
    let per_share = steps.checked_mul(step.units()).ok_or(overflow.clone())?;
    let all = i64::try_from(shares)
        .ok()
        .and_then(|shares| per_share.checked_mul(shares));
    // A thousand times what a position may be worth: beyond it something is wrong with the inputs.
    match all.map(PositionValue::from_units) {
        Some(value) if value <= PositionValue::whole(1_000_000_000_000) => Ok(value),
        _ => Err(overflow),
    }
}

/// The same percentage in units as large as keep it exact: with two decimals, which is usual, everything stays within
/// 64 bits.
fn shortened(percent_units: u128) -> (u128, u128) {
    match u64::try_from(percent_units) {
        Ok(units) if units % 10_000 == 0 => (u128::from(units / 10_000), PERCENT_ONE_SHORT),
        _ => (percent_units, PERCENT_ONE),
    }
}

fn money(field: &'static str, rounded: Option<i64>) -> Result<Money, PricingError> {
    rounded
        .map(Money::from_units)
        .ok_or(PricingError::Overflow { field })
}

/// Of a value that was checked to be 0 or more.
fn unsigned(units: i64) -> u128 {
    u128::from(units.unsigned_abs())
}
