//! What a position is worth: a value, or shares times a price. One fact, whichever way the client gives it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::fee::PerShare;
use crate::number::PositionValue;

/// By how much a value may differ from its shares times their price: whoever made it may have rounded the other way.
const TOLERANCE_UNITS: u64 = 1;
const MIN: PositionValue = PositionValue::from_units(1);
const MAX: PositionValue = PositionValue::whole(1_000_000_000);
const PRICE_UNITS_IN_A_CENT: i128 = 10_000;

/// A position's value and, where they are known, its shares and their price, of which the value then is the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WorthParts", into = "WorthParts")]
pub struct Worth {
    value: PositionValue,
    per_share: Option<PerShare>,
}

#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum WorthError {
    #[error("is required, or shares and share_price in its place")]
    Missing,
    #[error("must be at least 0.01 and at most 1000000000")]
    OutOfRange,
    /// Of the product: no value was given.
    #[error("(shares times share_price) must be at least 0.01 and at most 1000000000")]
    ProductOutOfRange,
    #[error(
        "is {given}, but {shares} shares at {price} are worth {product}: leave it out, or make them agree to the cent",
        shares = .per_share.shares,
        price = .per_share.price
    )]
    Differs {
        given: PositionValue,
        product: PositionValue,
        per_share: PerShare,
    },
}

impl Worth {
    /// Of a value, or of shares and price, or of both if they agree to the cent; then the product counts.
    pub fn new(
        value: Option<PositionValue>,
        per_share: Option<PerShare>,
    ) -> Result<Worth, WorthError> {
        let within = |value: &PositionValue| *value >= MIN && *value <= MAX;
        if value.is_some_and(|value| !within(&value)) {
            return Err(WorthError::OutOfRange);
        }
        let Some(per_share) = per_share else {
            let value = value.ok_or(WorthError::Missing)?;
            return Ok(Worth {
                value,
                per_share: None,
            });
        };
        let product = per_share.value().ok_or(WorthError::ProductOutOfRange)?;
        if let Some(given) = value
            && given.units().abs_diff(product.units()) > TOLERANCE_UNITS
        {
            return Err(WorthError::Differs {
                given,
                product,
                per_share,
            });
        }
        if !within(&product) {
            return Err(WorthError::ProductOutOfRange);
        }
        Ok(Worth {
            value: product,
            per_share: Some(per_share),
        })
    }

    pub fn value(&self) -> PositionValue {
        self.value
    }

    pub fn per_share(&self) -> Option<PerShare> {
        self.per_share
    }
}

impl PerShare {
    /// Shares times price, rounded half up to the cent; `None` where that is more than can be held.
    pub fn value(&self) -> Option<PositionValue> {
        let exact = i128::from(self.shares) * i128::from(self.price.units());
        let cents = (exact + PRICE_UNITS_IN_A_CENT / 2) / PRICE_UNITS_IN_A_CENT;
        i64::try_from(cents).ok().map(PositionValue::from_units)
    }
}

/// As it travels from service to service.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorthParts {
    position_value: Option<PositionValue>,
    per_share: Option<PerShare>,
}

impl TryFrom<WorthParts> for Worth {
    type Error = WorthError;

    fn try_from(given: WorthParts) -> Result<Worth, WorthError> {
        Worth::new(given.position_value, given.per_share)
    }
}

impl From<Worth> for WorthParts {
    fn from(worth: Worth) -> WorthParts {
        WorthParts {
            position_value: Some(worth.value),
            per_share: worth.per_share,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, shares: u64, price: &str, expected: Result<&str, &str>) {
        let value = (!value.is_empty()).then(|| value.parse().unwrap());
        let per_share = (shares > 0).then(|| PerShare {
            shares,
            price: price.parse().unwrap(),
        });
        match (Worth::new(value, per_share), expected) {
            (Ok(worth), Ok(expected)) => {
                assert_eq!(worth.value().to_string(), expected);
                assert_eq!(worth.per_share(), per_share);
                let sent = serde_json::to_string(&worth).unwrap();
                assert_eq!(serde_json::from_str::<Worth>(&sent).unwrap(), worth);
            }
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{error}");
            }
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn two_inputs_for_one_fact_agree_to_the_cent() {
        check("1000000", 10_000, "100", Ok("1000000.00"));
        // The product counts, whichever way the other was rounded.
        check("1234.56", 100, "12.345678", Ok("1234.57"));
        check("1234.58", 100, "12.345678", Ok("1234.57"));
        check(
            "1",
            10_000,
            "100",
            Err("is 1.00, but 10000 shares at 100.000000 are worth 1000000.00"),
        );
        check("1234.55", 100, "12.345678", Err("are worth 1234.57"));
        check("1234.59", 100, "12.345678", Err("are worth 1234.57"));
        check("1", 100_000_100, "10", Err("are worth 1000001000.00"));
        check("1", 10_000_000_000, "10000000", Err("at most 1000000000"));
    }

    #[test]
    fn one_of_them_is_enough() {
        check("100000", 0, "", Ok("100000.00"));
        check("", 100, "12.345678", Ok("1234.57"));
        check("", 100, "0.00005", Ok("0.01"));
        check("", 100, "0.000049", Err("at least 0.01"));
        check("", 100_000_000, "10", Ok("1000000000.00"));
        check("", 100_000_100, "10", Err("at most 1000000000"));
        check("", 10_000_000_000, "10000000", Err("at most 1000000000"));
        check("", 0, "", Err("or shares and share_price"));
        check("0", 0, "", Err("at least 0.01"));
        check("1000000000.01", 0, "", Err("at most 1000000000"));
    }

    #[test]
    fn it_is_checked_again_where_it_arrives() {
        let sent = r#"{"position_value":1.00,"per_share":{"shares":10000,"price":100.000000}}"#;
        let error = serde_json::from_str::<Worth>(sent).unwrap_err();
        assert!(
            error.to_string().contains("are worth 1000000.00"),
            "{error}"
        );
    }
}
