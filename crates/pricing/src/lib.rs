//! Borrow rates and locate fees, exact to the last printed digit.
//!
//! Entry points: [`quote`] prices a [`QuoteInputs`]; [`explain`] shows how, from the same computation; [`replay`]
//! prices recorded inputs again and gives the same bytes. [`rate`] and [`locate_fee`] are the two halves. Numbers are
//! [`Fixed`]: they parse exactly, print exactly and travel as JSON numbers with exactly those digits.
//!
//! Absent: input and output, async, clocks ("now" is one of the inputs) and binary floating point. Where inputs come
//! from, and who may price what, is decided elsewhere.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::print_stdout))]

mod attribution;
mod convention;
mod error;
mod explain;
mod fee;
mod json;
mod number;
mod policy;
mod quote;
mod rate;
mod ratio;
mod status;
mod worth;

#[cfg(test)]
mod tests;

pub use attribution::{Attribution, Cause, attribute};
pub use convention::{Collateral, Convention, CurrencyBasis};
pub use error::PricingError;
pub use explain::{Explanation, Origin, Step, explain, replay};
pub use fee::{Fee, FeeInputs, FeeSteps, PerShare, locate_fee};
pub use number::{Factor, Fixed, Index, Money, NumberError, Percent, PositionValue, Price, Rate};
pub use policy::{Band, Combine, Freshness, Policy};
pub use quote::{
    DEFAULT_INDEX, Outputs, Quote, QuoteInputs, SourcedValue, StaleInput, UnconfirmedValue, quote,
    stale_inputs,
};
pub use rate::{RateInputs, RateSteps, rate};
pub use ratio::Ratio;
pub use status::{
    BorrowStatus, StatusBands, UnknownStatus, VolatilityTier, borrow_status, volatility_tier,
};
pub use worth::{Worth, WorthError};
