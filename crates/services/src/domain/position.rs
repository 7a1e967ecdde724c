//! What is to be priced, and the bounds of its numbers, which requests and the lines of a book share.

use pricing::{PositionValue, Price, Worth};

use super::digits::Digits;

pub(crate) const SHARES_MAX: u64 = 10_000_000_000;
pub(crate) const DAYS_RULE: &str = "must be a whole number from 1 to 365";
pub(crate) const SHARES_RULE: &str = "must be a whole number from 1 to 10000000000";
pub(crate) const PRICE_RULE: &str =
    "must be a plain decimal number above 0, at most 10000000, with at most 6 decimals";
pub(crate) const VALUE_RULE: &str =
    "must be a plain decimal number above 0, at most 1000000000, with at most 2 decimals";

pub(crate) fn days(digits: &Digits) -> Option<u32> {
    let days = digits.whole().filter(|days| (1..=365).contains(days))?;
    u32::try_from(days).ok()
}

pub(crate) fn shares(digits: &Digits, max: u64) -> Option<u64> {
    digits.whole().filter(|shares| (1..=max).contains(shares))
}

pub(crate) fn price(digits: &Digits) -> Option<Price> {
    let price: Price = digits.parse()?;
    (price > Price::ZERO && price <= Price::whole(10_000_000)).then_some(price)
}

pub(crate) fn value(digits: &Digits) -> Option<PositionValue> {
    let value: PositionValue = digits.parse()?;
    (value > PositionValue::ZERO && value <= PositionValue::whole(1_000_000_000)).then_some(value)
}

/// What is to be priced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) ticker: String,
    pub(crate) client_id: String,
    pub(crate) loan_days: u32,
    pub(crate) worth: Worth,
}
