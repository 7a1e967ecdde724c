//! What is to be priced: the parameters that every request with a position has, by their names.

use pricing::{PerShare, Price, Worth};

use super::parameters::Parameters;
use crate::domain::position::{DAYS_RULE, PRICE_RULE, VALUE_RULE, days, price, value};

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
