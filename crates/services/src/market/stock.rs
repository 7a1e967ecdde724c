//! Stocks, and their minimum rates with the time for which they are meant.

use std::sync::Arc;

use pricing::{BorrowStatus, Rate, SourcedValue};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stock {
    pub(crate) ticker: Arc<str>,
    pub(crate) status: Option<BorrowStatus>,
    /// Where no dated one counts.
    pub(crate) minimum_rate: Rate,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) dated: Vec<MinimumRate>,
}

/// A minimum rate from one moment to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MinimumRate {
    pub(crate) minimum_rate: Rate,
    pub(crate) valid_from_micros: i64,
    /// Without an end when absent.
    pub(crate) valid_to_micros: Option<i64>,
    pub(crate) known_at_micros: i64,
}

impl MinimumRate {
    fn counts_at(&self, at_micros: i64) -> bool {
        self.valid_from_micros <= at_micros
            && self.valid_to_micros.is_none_or(|end| at_micros < end)
    }
}

impl Stock {
    pub(crate) fn minimum_at(&self, at_micros: i64) -> SourcedValue<Rate> {
        let counting = self.dated.iter().filter(|rate| rate.counts_at(at_micros));
        let newest = counting.max_by_key(|rate| (rate.valid_from_micros, rate.known_at_micros));
        match newest {
            Some(rate) => SourcedValue::new(
                rate.minimum_rate,
                "minimum_rates",
                Some(rate.valid_from_micros),
            ),
            None => SourcedValue::new(self.minimum_rate, "stocks", None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_began_last_counts_while_it_lasts() {
        let rate = |text: &str, from, to, known| MinimumRate {
            minimum_rate: text.parse().unwrap(),
            valid_from_micros: from,
            valid_to_micros: to,
            known_at_micros: known,
        };
        let stock = Stock {
            ticker: "GME".into(),
            status: None,
            minimum_rate: "0.01".parse().unwrap(),
            dated: vec![
                rate("0.1", 10, None, 1),
                rate("0.3", 20, Some(30), 2),
                rate("0.2", 10, Some(40), 3),
            ],
        };
        for (at, expected, source) in [
            (9, "0.01", "stocks"),
            (10, "0.2", "minimum_rates"),
            (20, "0.3", "minimum_rates"),
            (29, "0.3", "minimum_rates"),
            (30, "0.2", "minimum_rates"),
            (40, "0.1", "minimum_rates"),
        ] {
            let found = stock.minimum_at(at);
            let expected: Rate = expected.parse().unwrap();
            assert_eq!((found.value, &*found.source), (expected, source), "{at}");
        }
    }
}
