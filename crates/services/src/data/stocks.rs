//! Stocks and their minimum rates, as they are kept.

use std::collections::HashMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio_postgres::{Client, Row, Transaction};

use super::database::DatabaseError;
use super::tables::{Statement, covered};
use crate::domain::digits::decimal;
use crate::domain::time::{micros, rfc3339, system_time};
use crate::market::{MinimumRate, Stock};

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
    for (ticker, minimum) in super::reading::keep(rows, minimum) {
        dated.entry(ticker).or_default().push(minimum);
    }
    let rows = client.query(STOCKS, &[]).await.map_err(&failed)?;
    let mut stocks = super::reading::keep(rows, stock);
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
    let rates = super::reading::keep(rows, minimum);
    Ok(rates.into_iter().map(|(_, minimum)| minimum).collect())
}

fn stock(row: &Row) -> Option<Stock> {
    Some(Stock {
        ticker: row.get::<_, &str>(0).into(),
        status: super::reading::status(row.get(1))?,
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
