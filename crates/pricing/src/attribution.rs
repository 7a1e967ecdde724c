//! Explains the difference between two quotes for the same position, cause by cause: the inputs change from old to new
//! one at a time, in one fixed order, and each step is priced. The parts add up to the difference, to the last printed
//! digit.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::PricingError;
use crate::number::Money;
use crate::quote::{QuoteInputs, quote};

/// In the order in which they are exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Value, shares, price or days.
    Position,
    /// The base rate, or the stock's minimum rate.
    BaseRate,
    Volatility,
    Event,
    /// Markup and transaction fee.
    ClientSettings,
    Convention,
    Policy,
}

impl Cause {
    pub const ALL: [Cause; 7] = [
        Cause::Position,
        Cause::BaseRate,
        Cause::Volatility,
        Cause::Event,
        Cause::ClientSettings,
        Cause::Convention,
        Cause::Policy,
    ];

    fn exchange(self, inputs: &mut QuoteInputs, to: &QuoteInputs) {
        match self {
            Cause::Position => {
                inputs.position_value = to.position_value;
                inputs.loan_days = to.loan_days;
                inputs.per_share = to.per_share;
            }
            Cause::BaseRate => {
                inputs.base_rate = to.base_rate.clone();
                inputs.minimum_rate = to.minimum_rate.clone();
                inputs.feed_status.clone_from(&to.feed_status);
                inputs.currency = Arc::clone(&to.currency);
            }
            Cause::Volatility => inputs.volatility_index = to.volatility_index.clone(),
            Cause::Event => inputs.event_risk_factor = to.event_risk_factor.clone(),
            Cause::ClientSettings => {
                inputs.markup_percent = to.markup_percent.clone();
                inputs.fee = to.fee.clone();
            }
            Cause::Convention => inputs.convention = Arc::clone(&to.convention),
            Cause::Policy => inputs.policy = Arc::clone(&to.policy),
        }
    }
}

/// What changed between two totals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attribution {
    pub from: Money,
    pub to: Money,
    /// Causes that made a difference. Their changes add up to `to - from`.
    pub causes: Vec<(Cause, Money)>,
}

/// Both must be priceable. A mixture of them that is not (a policy that refuses an old input, say) passes its part on
/// to the next cause.
pub fn attribute(from: &QuoteInputs, to: &QuoteInputs) -> Result<Attribution, PricingError> {
    let total = |inputs: &QuoteInputs| quote(inputs).map(|quote| quote.fee.total_fee);
    let (first, last) = (total(from)?, total(to)?);
    let (mut inputs, mut before, mut causes) = (from.clone(), first, Vec::new());
    // Ages count against one clock, so that time alone is no cause.
    inputs.priced_at_micros = to.priced_at_micros;
    for cause in Cause::ALL {
        cause.exchange(&mut inputs, to);
        let now = match cause {
            Cause::Policy => last,
            _ => match total(&inputs) {
                Ok(now) => now,
                Err(_) => continue,
            },
        };
        let overflow = PricingError::Overflow { field: "total_fee" };
        let change = now.checked_sub(before).ok_or(overflow)?;
        if change != Money::ZERO {
            causes.push((cause, change));
        }
        before = now;
    }
    Ok(Attribution {
        from: first,
        to: last,
        causes,
    })
}
