//! One line of a book: what it says as text, and what it means.

use pricing::{PerShare, PositionValue, Price};

use crate::api_gateway::{CLIENT_RULE, TICKER_RULE, is_client_id, is_ticker, whole, written_out};

/// A line's cells under the names of the API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cells {
    pub(super) ticker: String,
    pub(super) client_id: String,
    pub(super) loan_days: String,
    pub(super) position_value: String,
    pub(super) shares: String,
    pub(super) share_price: String,
}

/// What is to be priced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) ticker: String,
    pub(crate) client_id: String,
    pub(crate) loan_days: u32,
    pub(crate) position_value: PositionValue,
    pub(crate) per_share: Option<PerShare>,
}

const VALUE_MAX: PositionValue = PositionValue::whole(1_000_000_000);

impl Cells {
    /// Everything that is wrong with the line, in one sentence.
    pub(super) fn read(&self) -> Result<Position, String> {
        let mut wrong = Vec::new();
        let mut refuse = |name: &str, rule: &str| wrong.push(format!("{name} {rule}"));
        if !is_ticker(&self.ticker) {
            refuse("ticker", TICKER_RULE);
        }
        if !is_client_id(&self.client_id) {
            refuse("client_id", CLIENT_RULE);
        }
        let loan_days = whole(&written_out(&self.loan_days))
            .filter(|days| (1..=365).contains(days))
            .and_then(|days| u32::try_from(days).ok());
        if loan_days.is_none() {
            refuse("loan_days", "must be a whole number from 1 to 365");
        }
        let per_share = self.per_share(&mut refuse);
        let position_value = match (&*self.position_value, &per_share) {
            ("", Some(per_share)) => worth(per_share),
            ("", None) => None,
            (text, _) => written_out(text).parse().ok(),
        };
        let position_value =
            position_value.filter(|value| *value > PositionValue::ZERO && *value <= VALUE_MAX);
        if position_value.is_none() && wrong.is_empty() {
            let rule = match self.position_value.is_empty() && per_share.is_some() {
                true => "(shares times share_price) must be at least a cent and at most 1000000000",
                false => {
                    "must be a plain decimal number above 0, at most 1000000000, with at most 2 decimals (or give shares and share_price)"
                }
            };
            wrong.push(format!("position_value {rule}"));
        }
        match (loan_days, position_value) {
            (Some(loan_days), Some(position_value)) if wrong.is_empty() => Ok(Position {
                ticker: self.ticker.clone(),
                client_id: self.client_id.clone(),
                loan_days,
                position_value,
                per_share,
            }),
            _ => Err(wrong.join("; ")),
        }
    }

    fn per_share(&self, refuse: &mut impl FnMut(&str, &str)) -> Option<PerShare> {
        if self.shares.is_empty() && self.share_price.is_empty() {
            return None;
        }
        let shares = whole(&written_out(&self.shares))
            .filter(|shares| (1..=10_000_000_000).contains(shares));
        if shares.is_none() {
            refuse("shares", "must be a whole number from 1 to 10000000000");
        }
        let price = written_out(&self.share_price)
            .parse::<Price>()
            .ok()
            .filter(|price| *price > Price::ZERO && *price <= Price::whole(10_000_000));
        if price.is_none() {
            refuse(
                "share_price",
                "must be a plain decimal number above 0, at most 10000000, with at most 6 decimals",
            );
        }
        Some(PerShare {
            shares: shares?,
            price: price?,
        })
    }
}

/// Shares times price, rounded half-up to the cent.
fn worth(per_share: &PerShare) -> Option<PositionValue> {
    let millionths = i128::from(per_share.shares) * i128::from(per_share.price.units());
    let cents = (millionths + 5_000) / 10_000;
    i64::try_from(cents).ok().map(PositionValue::from_units)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(value: &str, shares: &str, price: &str) -> Cells {
        Cells {
            ticker: "GME".into(),
            client_id: "standard".into(),
            loan_days: "30".into(),
            position_value: value.into(),
            shares: shares.into(),
            share_price: price.into(),
        }
    }

    #[track_caller]
    fn check(value: &str, shares: &str, price: &str, expected: Result<&str, &str>) {
        match (cells(value, shares, price).read(), expected) {
            (Ok(position), Ok(expected)) => {
                assert_eq!(position.position_value.to_string(), expected);
            }
            (Err(reason), Err(part)) => assert!(reason.contains(part), "{reason}"),
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_value_or_what_it_is_made_of() {
        check("100000", "", "", Ok("100000.00"));
        check("1e5", "", "", Ok("100000.00"));
        check("", "100", "12.345678", Ok("1234.57"));
        check("", "1", "0.005", Ok("0.01"));
        check("1234.56", "100", "12.345678", Ok("1234.56"));
        check("", "", "", Err("or give shares"));
        check("", "1", "0.004", Err("at least a cent"));
        check("", "10000000000", "10000000", Err("at most 1000000000"));
        check("", "100", "", Err("share_price must"));
        check("0", "", "", Err("position_value must"));
        check("-1", "", "", Err("position_value must"));
        check("0.001", "", "", Err("position_value must"));
        check("NaN", "", "", Err("position_value must"));
        check("1e400", "", "", Err("position_value must"));
        check("1000000000.01", "", "", Err("position_value must"));
        check("5", "1.5", "2", Err("shares must"));
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let cells = Cells {
            ticker: "gme".into(),
            client_id: "x".into(),
            loan_days: "366".into(),
            position_value: "1".into(),
            ..Cells::default()
        };
        let reason = cells.read().unwrap_err();
        for name in ["ticker", "client_id", "loan_days"] {
            assert!(reason.contains(name), "{reason}");
        }
    }
}
