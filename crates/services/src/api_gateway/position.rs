//! What is to be priced: the parameters that every request with a position has, and their bounds, which a book's lines share.

use pricing::{PerShare, PositionValue, Price, Worth};

use super::parameters::Parameters;
use crate::digits::Digits;

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

impl Parameters {
    pub(super) fn loan_days(&mut self) -> Option<u32> {
        self.required_number("loan_days", DAYS_RULE, days)
    }

    pub(super) fn share_price(&mut self) -> Option<Price> {
        self.number("share_price", PRICE_RULE, price)
    }

    /// The worth of so many shares at that price, or of the value that was sent, or of both where they agree. What was refused
    /// already is not refused again.
    pub(super) fn worth(&mut self, shares: Option<u64>, price: Option<Price>) -> Option<Worth> {
        let value = self.number("position_value", VALUE_RULE, value);
        let refused = |name: &&str| self.is_refused(name);
        if ["position_value", "shares", "share_price"]
            .iter()
            .any(refused)
        {
            return None;
        }
        if self.is_sent("shares") != self.is_sent("share_price") {
            self.refuse("shares", "shares and share_price go together");
            return None;
        }
        let per_share = shares
            .zip(price)
            .map(|(shares, price)| PerShare { shares, price });
        match Worth::new(value, per_share) {
            Ok(worth) => Some(worth),
            Err(error) => {
                self.refuse("position_value", &error.to_string());
                None
            }
        }
    }
}
