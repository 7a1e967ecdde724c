//! The borrow rate: combine(base, v, e), at least the floor, rounded half-even to 8 decimals.

use crate::error::{PricingError, check_range};
use crate::number::{Index, Rate};
use crate::policy::{Combine, Policy};
use crate::ratio::{Ratio, round_half_even};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateInputs {
    pub base_rate: Rate,
    /// The stock's own minimum.
    pub minimum_rate: Rate,
    pub volatility_index: Index,
    /// 0 to 10.
    pub event_risk_factor: u8,
}

/// Every step of the computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateSteps {
    pub volatility: Ratio,
    pub event: Ratio,
    pub adjusted: Ratio,
    pub floor: Rate,
    /// The floor was higher than the adjusted rate.
    pub floored: bool,
    /// The result: the rounded rate is the rate.
    pub rate: Rate,
}

/// Units of `v` in 1: index (6 decimals) × slope (8) × percent of the slope (2).
const V_ONE: u128 = 10_u128.pow(16);
/// Units of `e` in 1: weight (8 decimals) × factor ÷ 10.
const E_ONE: u128 = 10_u128.pow(9);
const RATE_ONE: u128 = 10_u128.pow(8);

pub fn rate(inputs: &RateInputs, policy: &Policy) -> Result<RateSteps, PricingError> {
    check(inputs)?;
    policy.check()?;
    let v = volatility(inputs.volatility_index, policy);
    let e = inputs.event_risk_factor as u128 * unsigned(policy.weight.units());
    let adjusted = combine(unsigned(inputs.base_rate.units()), v, e, policy.combine)?;
    let floor = inputs.minimum_rate.max(policy.minimum_rate);
    let rounded = adjusted
        .round()
        .map(Rate::from_units)
        .ok_or_else(overflow)?;
    // Rounding keeps the order, and the floor has no further decimals: comparing after it is comparing before it.
    Ok(RateSteps {
        volatility: Ratio::new(v, V_ONE),
        event: Ratio::new(e, E_ONE),
        adjusted: adjusted.ratio(),
        floor,
        floored: adjusted.is_below(floor),
        rate: rounded.max(floor),
    })
}

fn check(inputs: &RateInputs) -> Result<(), PricingError> {
    let rate_max = Rate::whole(1_000);
    check_range("base_rate", inputs.base_rate, Rate::ZERO, rate_max)?;
    check_range("minimum_rate", inputs.minimum_rate, Rate::ZERO, rate_max)?;
    check_range(
        "volatility_index",
        inputs.volatility_index,
        Index::ZERO,
        Index::whole(1_000),
    )?;
    check_range("event_risk_factor", inputs.event_risk_factor, 0, 10)
}

/// In units of 10⁻¹⁶.
fn volatility(index: Index, policy: &Policy) -> u128 {
    let slope = unsigned(policy.slope.units());
    let above = |from: Index| unsigned((index.units() - from.units()).max(0)) * slope;
    let mut v = above(policy.threshold) * 100;
    for band in &policy.bands {
        if index >= band.from && band.to.is_none_or(|to| index < to) {
            v += above(band.from) * u128::from(band.slope_percent);
        }
    }
    v
}

/// A value in units of 10⁻⁸ ÷ `one`.
struct ScaledValue {
    units: u128,
    one: u128,
}

impl ScaledValue {
    #[inline]
    fn round(&self) -> Option<i64> {
        round_half_even(self.units, self.one)
    }

    fn ratio(&self) -> Ratio {
        Ratio::new(self.units, self.one * RATE_ONE)
    }

    fn is_below(&self, floor: Rate) -> bool {
        // `one` is at most 10²⁵ and a floor at most 10¹¹ units.
        self.units < unsigned(floor.units()) * self.one
    }
}

fn combine(base: u128, v: u128, e: u128, how: Combine) -> Result<ScaledValue, PricingError> {
    const E_TO_V: u128 = V_ONE / E_ONE;
    let (units, one) = match how {
        Combine::Additive => return Ok(scale(base, V_ONE + v + e * E_TO_V)),
        Combine::AbsoluteEvent => (
            (base * (V_ONE + v)).checked_add(e * E_TO_V * RATE_ONE),
            V_ONE,
        ),
        Combine::Sequential => ((base * (V_ONE + v)).checked_mul(E_ONE + e), V_ONE * E_ONE),
    };
    Ok(ScaledValue {
        units: units.ok_or_else(overflow)?,
        one,
    })
}

#[cold]
fn overflow() -> PricingError {
    PricingError::Overflow {
        field: "borrow_rate",
    }
}

/// base × factor, where the factor is in units of 10⁻¹⁶; with eight of its decimals zero, which is usual, everything
/// stays within 64 bits.
fn scale(base: u128, factor: u128) -> ScaledValue {
    const EIGHT: u64 = 10_u64.pow(8);
    if let Ok(short) = u64::try_from(factor)
        && short % EIGHT == 0
    {
        return ScaledValue {
            units: base * u128::from(short / EIGHT),
            one: u128::from(EIGHT),
        };
    }
    ScaledValue {
        units: base * factor,
        one: V_ONE,
    }
}

/// Of a value that was checked to be 0 or more.
fn unsigned(units: i64) -> u128 {
    u128::from(units.unsigned_abs())
}
