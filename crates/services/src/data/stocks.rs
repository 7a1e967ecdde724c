//! Stocks, and their minimum rates with the time for which they are meant.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use pricing::{BorrowStatus, Rate, Sourced};
use serde::{Deserialize, Serialize};
use tokio_postgres::{Client, Row, Transaction};

use super::database::DatabaseError;
use super::market::decimal;
use super::tables::{Statement, covered};
use crate::time::{micros, rfc3339, system_time};

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
    pub(crate) fn minimum_at(&self, at_micros: i64) -> Sourced<Rate> {
        let counting = self.dated.iter().filter(|rate| rate.counts_at(at_micros));
        let newest = counting.max_by_key(|rate| (rate.valid_from_micros, rate.known_at_micros));
        match newest {
            Some(rate) => Sourced::new(
                rate.minimum_rate,
                "minimum_rates",
                Some(rate.valid_from_micros),
            ),
            None => Sourced::new(self.minimum_rate, "stocks", None),
        }
    }
}

/// What is to be set, for one stock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StockTerms {
    pub(crate) ticker: String,
    /// Only the stock itself is named when absent.
    pub(crate) minimum: Option<MinimumRate>,
}

impl StockTerms {
    pub(crate) async fn insert(
        &self,
        transaction: &Transaction<'_>,
        statement: &mut Statement,
    ) -> Result<(), tokio_postgres::Error> {
        let sql = "INSERT INTO stocks (ticker) VALUES ($1) ON CONFLICT DO NOTHING";
        statement
            .run(transaction, &covered::STOCKS, sql, &[&self.ticker])
            .await?;
        let Some(minimum) = &self.minimum else {
            return Ok(());
        };
        let sql = "INSERT INTO minimum_rates (ticker, valid_from, valid_to, known_at, minimum_rate) VALUES ($1, $2, $3, $4, $5::text::numeric)";
        statement
            .run(
                transaction,
                &covered::MINIMUM_RATES,
                sql,
                &[
                    &self.ticker,
                    &system_time(minimum.valid_from_micros),
                    &minimum.valid_to_micros.map(system_time),
                    &system_time(minimum.known_at_micros),
                    &minimum.minimum_rate.to_string(),
                ],
            )
            .await
    }

    /// For the record: as a person reads it.
    pub(crate) fn words(&self) -> serde_json::Value {
        let minimum = self.minimum.as_ref();
        serde_json::json!({
            "ticker": self.ticker,
            "minimum_rate": minimum.map(|minimum| minimum.minimum_rate.to_string()),
            "valid_from": minimum.map(|minimum| rfc3339(minimum.valid_from_micros)),
            "valid_to": minimum.and_then(|minimum| minimum.valid_to_micros).map(rfc3339),
        })
    }
}

const STOCKS: &str = "SELECT ticker, status, minimum_rate::text FROM stocks";
/// Of two that begin together the one that was known last.
const MINIMUMS: &str = "\
    SELECT DISTINCT ON (ticker, valid_from) ticker, minimum_rate::text, valid_from, valid_to, known_at FROM minimum_rates \
    WHERE known_at <= coalesce($1::timestamptz, 'infinity') ORDER BY ticker, valid_from, known_at DESC";

/// As they stand, or with what was known of their minimum rates then.
pub(super) async fn stocks(
    client: &Client,
    known_at: Option<SystemTime>,
) -> Result<Vec<Stock>, DatabaseError> {
    let failed = DatabaseError::query("reading the stocks");
    let mut dated: HashMap<String, Vec<MinimumRate>> = HashMap::new();
    let rows = client
        .query(MINIMUMS, &[&known_at])
        .await
        .map_err(&failed)?;
    for (ticker, minimum) in super::market::keep(rows, minimum) {
        dated.entry(ticker).or_default().push(minimum);
    }
    let rows = client.query(STOCKS, &[]).await.map_err(&failed)?;
    let mut stocks = super::market::keep(rows, stock);
    for stock in &mut stocks {
        stock.dated = dated.remove(&*stock.ticker).unwrap_or_default();
    }
    Ok(stocks)
}

/// Every minimum rate that was set for a ticker, the one set last first.
pub(crate) async fn minimum_rates(
    client: &Client,
    ticker: &str,
) -> Result<Vec<MinimumRate>, DatabaseError> {
    let sql = "SELECT ticker, minimum_rate::text, valid_from, valid_to, known_at FROM minimum_rates \
               WHERE ticker = $1 ORDER BY known_at DESC, valid_from DESC LIMIT 100";
    let rows = client
        .query(sql, &[&ticker])
        .await
        .map_err(DatabaseError::query("reading a stock's minimum rates"))?;
    let rates = super::market::keep(rows, minimum);
    Ok(rates.into_iter().map(|(_, minimum)| minimum).collect())
}

fn stock(row: &Row) -> Option<Stock> {
    Some(Stock {
        ticker: row.get::<_, &str>(0).into(),
        status: super::market::status(row.get(1))?,
        minimum_rate: decimal(row.get(2))?,
        dated: Vec::new(),
    })
}

fn minimum(row: &Row) -> Option<(String, MinimumRate)> {
    let minimum = MinimumRate {
        minimum_rate: decimal(row.get(1))?,
        valid_from_micros: micros(row.get(2)),
        valid_to_micros: row.get::<_, Option<SystemTime>>(3).map(micros),
        known_at_micros: micros(row.get(4)),
    };
    Some((row.get(0), minimum))
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
