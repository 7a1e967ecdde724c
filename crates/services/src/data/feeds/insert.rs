//! A load's rows into their tables, in the transaction of its audit entry.

use std::time::SystemTime;

use tokio_postgres::Transaction;
use tokio_postgres::types::ToSql;

use super::load::FeedLoad;
use super::{HeldFigure, RateRow, eight_decimals};
use crate::data::tables::{Statement, covered};
use crate::domain::time::system_time;

type Result = std::result::Result<(), tokio_postgres::Error>;

impl FeedLoad {
    pub(crate) async fn insert(
        &self,
        transaction: &Transaction<'_>,
        statement: &mut Statement,
    ) -> Result {
        let (valid_at, known_at) = (
            system_time(self.valid_at_micros),
            system_time(self.known_at_micros),
        );
        let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        statement
            .run(
                transaction,
                &covered::FEED_BATCHES,
                "INSERT INTO feed_batches (batch_id, kind, source, sha256, rows, loaded, quarantined, valid_at, known_at) \
                 VALUES ($1::text::uuid, $2, $3, $4, $5, $6, $7, $8, $9)",
                &[
                    &self.batch_id.to_string(),
                    &self.kind,
                    &self.source,
                    &self.sha256,
                    &count(self.rows()),
                    &count(self.loaded()),
                    &count(self.quarantined.len()),
                    &valid_at,
                    &known_at,
                ],
            )
            .await?;
        if !self.rates.is_empty() {
            self.insert_rates(transaction, statement, valid_at, known_at)
                .await?;
        }
        if !self.volatility.is_empty() {
            self.insert_volatility(transaction, statement, known_at)
                .await?;
        }
        if !self.risks.is_empty() {
            self.insert_risks(transaction, statement, valid_at, known_at)
                .await?;
        }
        if !self.events.is_empty() {
            self.insert_events(transaction, statement).await?;
        }
        for terms in &self.brokers {
            terms.insert(transaction, statement).await?;
        }
        if !self.aliases.is_empty() {
            self.insert_aliases(transaction, statement, known_at)
                .await?;
        }
        for terms in &self.stocks {
            terms.insert(transaction, statement).await?;
        }
        if let Some((definition, _)) = &self.calendar {
            let sql = "INSERT INTO calendars (batch_id, valid_at, known_at, definition) VALUES ($1::text::uuid, $2, $3, $4)";
            statement
                .run(
                    transaction,
                    &covered::CALENDARS,
                    sql,
                    &[&self.batch_id.to_string(), &valid_at, &known_at, definition],
                )
                .await?;
        }
        self.insert_held(transaction, statement, valid_at, known_at)
            .await?;
        let lines: Vec<i32> = self.quarantined.iter().map(|row| count(row.line)).collect();
        let reasons: Vec<&str> = self.quarantined.iter().map(|row| row.reason).collect();
        // A NUL cannot be stored as text; what else a broken row holds can.
        let rows: Vec<String> = self
            .quarantined
            .iter()
            .map(|row| row.row.replace('\0', "\u{fffd}"))
            .collect();
        statement
            .run(
                transaction,
                &covered::QUARANTINE,
                "INSERT INTO quarantine (batch_id, line_number, reason, row) \
                 SELECT $1::text::uuid, * FROM UNNEST($2::integer[], $3::text[], $4::text[])",
                &[&self.batch_id.to_string(), &lines, &reasons, &rows],
            )
            .await?;
        Ok(())
    }

    async fn insert_rates(
        &self,
        transaction: &Transaction<'_>,
        statement: &mut Statement,
        valid_at: SystemTime,
        known_at: SystemTime,
    ) -> Result {
        fn column<'a, T>(rows: &'a [RateRow], read: impl Fn(&'a RateRow) -> T) -> Vec<T> {
            rows.iter().map(read).collect()
        }
        let text = |read: fn(&RateRow) -> &str| {
            column(&self.rates, |row| {
                // A NUL cannot be stored as text.
                Some(read(row).replace('\0', "\u{fffd}")).filter(|text| !text.is_empty())
            })
        };
        statement
            .run(
                transaction,
                &covered::BASE_RATES,
                "INSERT INTO base_rates (ticker, valid_at, known_at, rate, rebate, currency, available, available_or_more, source, symbol, \
                                         name, isin, figi, status, batch_id) \
                 SELECT ticker, $1, $2, rate::numeric, rebate::numeric, currency, available, or_more, $3, symbol, name, isin, figi, status, \
                        $4::text::uuid \
                 FROM UNNEST($5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[], $10::boolean[], $11::text[], $12::text[], \
                             $13::text[], $14::text[], $15::text[]) \
                      AS t (ticker, rate, rebate, currency, available, or_more, symbol, name, isin, figi, status)",
                &[
                    &valid_at,
                    &known_at,
                    &self.source,
                    &self.batch_id.to_string(),
                    &column(&self.rates, |row| row.ticker.as_str()),
                    &column(&self.rates, |row| eight_decimals(row.rate)),
                    &column(&self.rates, |row| row.rebate.map(eight_decimals)),
                    &text(|row| &row.currency),
                    &column(&self.rates, |row| row.available),
                    &column(&self.rates, |row| row.available_or_more),
                    &text(|row| &row.symbol),
                    &text(|row| &row.name),
                    &text(|row| &row.isin),
                    &text(|row| &row.figi),
                    &column(&self.rates, |row| row.status.map(|status| status.as_str())),
                ],
            )
            .await?;
        Ok(())
    }

    /// What was said and is not believed. A ticker without a rate of this source has nothing that could be contradicted by silence.
    async fn insert_held(
        &self,
        transaction: &Transaction<'_>,
        statement: &mut Statement,
        valid_at: SystemTime,
        known_at: SystemTime,
    ) -> Result {
        let batch = self.batch_id.to_string();
        for row in &self.quarantined {
            let Some(index) = row.held.as_ref().and_then(HeldFigure::index) else {
                continue;
            };
            let sql = "INSERT INTO held_figures (figure, source, subject, valid_at, known_at, reason, value, batch_id) \
                       VALUES ('volatility_index', $1, $2, $3, $4, $5, $6::text::numeric, $7::text::uuid)";
            let (at, value) = (
                system_time(index.valid_at.as_microsecond()),
                eight_decimals(index.index),
            );
            let values: [&(dyn ToSql + Sync); 7] = [
                &self.source,
                &index.subject,
                &at,
                &known_at,
                &row.reason,
                &value,
                &batch,
            ];
            statement
                .run(transaction, &covered::HELD_FIGURES, sql, &values)
                .await?;
        }
        let (reasons, tickers): (Vec<&str>, Vec<&str>) = self
            .quarantined
            .iter()
            .filter_map(|row| Some((row.reason, row.held.as_ref()?.silent()?)))
            .unzip();
        if !tickers.is_empty() {
            let sql = "INSERT INTO held_figures (figure, source, subject, valid_at, known_at, reason, batch_id) \
                       SELECT 'rate', $1, t.ticker, $2, $3, t.reason, $4::text::uuid FROM UNNEST($5::text[], $6::text[]) AS t (reason, ticker) \
                       WHERE EXISTS (SELECT FROM base_rates AS r WHERE r.source = $1 AND r.ticker = t.ticker)";
            let values: [&(dyn ToSql + Sync); 6] = [
                &self.source,
                &valid_at,
                &known_at,
                &batch,
                &reasons,
                &tickers,
            ];
            statement
                .run(transaction, &covered::HELD_FIGURES, sql, &values)
                .await?;
        }
        let (reasons, rows): (Vec<&str>, Vec<&RateRow>) = self
            .quarantined
            .iter()
            .filter_map(|row| Some((row.reason, row.held.as_ref()?.rate()?)))
            .unzip();
        if rows.is_empty() {
            return Ok(());
        }
        fn column<'a, T>(rows: &[&'a RateRow], read: impl Fn(&'a RateRow) -> T) -> Vec<T> {
            rows.iter().copied().map(read).collect()
        }
        let text = |read: fn(&RateRow) -> &str| {
            column(&rows, |row| {
                // A NUL cannot be stored as text.
                Some(read(row).replace('\0', "\u{fffd}")).filter(|text| !text.is_empty())
            })
        };
        let sql = "INSERT INTO held_figures (figure, source, subject, valid_at, known_at, reason, value, rebate, currency, available, \
                       available_or_more, symbol, name, isin, figi, status, batch_id) \
                   SELECT 'rate', $1, ticker, $2, $3, reason, value::numeric, rebate::numeric, currency, available, or_more, symbol, name, isin, \
                          figi, status, $4::text::uuid \
                   FROM UNNEST($5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::bigint[], $11::boolean[], $12::text[], \
                               $13::text[], $14::text[], $15::text[], $16::text[]) \
                        AS t (reason, ticker, value, rebate, currency, available, or_more, symbol, name, isin, figi, status)";
        let values: [&(dyn ToSql + Sync); 16] = [
            &self.source,
            &valid_at,
            &known_at,
            &batch,
            &reasons,
            &column(&rows, |row| row.ticker.as_str()),
            &column(&rows, |row| eight_decimals(row.rate)),
            &column(&rows, |row| row.rebate.map(eight_decimals)),
            &text(|row| &row.currency),
            &column(&rows, |row| row.available),
            &column(&rows, |row| row.available_or_more),
            &text(|row| &row.symbol),
            &text(|row| &row.name),
            &text(|row| &row.isin),
            &text(|row| &row.figi),
            &column(&rows, |row| row.status.map(|status| status.as_str())),
        ];
        statement
            .run(transaction, &covered::HELD_FIGURES, sql, &values)
            .await
    }

    /// Rows that are there already, unchanged, are not stored again: the history comes whole every day.
    async fn insert_volatility(
        &self,
        transaction: &Transaction<'_>,
        statement: &mut Statement,
        known_at: SystemTime,
    ) -> Result {
        let subjects: Vec<&str> = self
            .volatility
            .iter()
            .map(|row| row.subject.as_str())
            .collect();
        let times: Vec<SystemTime> = self
            .volatility
            .iter()
            .map(|row| system_time(row.valid_at.as_microsecond()))
            .collect();
        let values: Vec<String> = self
            .volatility
            .iter()
            .map(|row| eight_decimals(row.index))
            .collect();
        statement
            .run(
                transaction,
                &covered::VOLATILITY,
                "INSERT INTO volatility (subject, valid_at, known_at, volatility_index, source, batch_id) \
                 SELECT t.subject, t.valid_at, $1, t.value::numeric, $2, $3::text::uuid \
                 FROM UNNEST($4::text[], $5::timestamptz[], $6::text[]) AS t (subject, valid_at, value) \
                 WHERE NOT EXISTS (SELECT FROM volatility AS known WHERE known.subject = t.subject AND known.valid_at = t.valid_at \
                                   AND known.source = $2 AND known.volatility_index = t.value::numeric)",
                &[
                    &known_at,
                    &self.source,
                    &self.batch_id.to_string(),
                    &subjects,
                    &times,
                    &values,
                ],
            )
            .await?;
        Ok(())
    }

    async fn insert_risks(
        &self,
        transaction: &Transaction<'_>,
        statement: &mut Statement,
        valid_at: SystemTime,
        known_at: SystemTime,
    ) -> Result {
        let tickers: Vec<&str> = self.risks.iter().map(|row| row.ticker.as_str()).collect();
        let factors: Vec<i16> = self.risks.iter().map(|row| i16::from(row.factor)).collect();
        statement
            .run(
                transaction,
                &covered::VOLATILITY,
                "INSERT INTO volatility (subject, valid_at, known_at, event_risk_factor, source, batch_id) \
                 SELECT t.subject, $1, $2, t.factor, $3, $4::text::uuid FROM UNNEST($5::text[], $6::smallint[]) AS t (subject, factor)",
                &[
                    &valid_at,
                    &known_at,
                    &self.source,
                    &self.batch_id.to_string(),
                    &tickers,
                    &factors,
                ],
            )
            .await?;
        Ok(())
    }

    async fn insert_events(
        &self,
        transaction: &Transaction<'_>,
        statement: &mut Statement,
    ) -> Result {
        let tickers: Vec<&str> = self.events.iter().map(|row| row.ticker.as_str()).collect();
        let dates: Vec<String> = self.events.iter().map(|row| row.date.to_string()).collect();
        // Two symbols of a calendar may be one ticker of ours.
        statement
            .run(
                transaction,
                &covered::EVENTS,
                "INSERT INTO events (batch_id, ticker, event_date, kind, source) \
                 SELECT $1::text::uuid, t.ticker, t.event_date::date, 'earnings', $2 FROM UNNEST($3::text[], $4::text[]) AS t (ticker, event_date) \
                 ON CONFLICT DO NOTHING",
                &[&self.batch_id.to_string(), &self.source, &tickers, &dates],
            )
            .await?;
        Ok(())
    }

    async fn insert_aliases(
        &self,
        transaction: &Transaction<'_>,
        statement: &mut Statement,
        known_at: SystemTime,
    ) -> Result {
        let column = |read: fn(&super::operator::AliasRow) -> &str| -> Vec<&str> {
            self.aliases.iter().map(read).collect()
        };
        statement
            .run(
                transaction,
                &covered::ALIASES,
                "INSERT INTO aliases (source, symbol, ticker, valid_from, valid_to, known_at) \
                 SELECT source, symbol, ticker, valid_from::date, valid_to::date, $6 \
                 FROM UNNEST($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) AS t (source, symbol, ticker, valid_from, valid_to)",
                &[
                    &column(|row| &row.source),
                    &column(|row| &row.symbol),
                    &column(|row| &row.ticker),
                    &column(|row| &row.valid_from),
                    &column(|row| &row.valid_to),
                    &known_at,
                ],
            )
            .await?;
        Ok(())
    }
}

/// A delivery that was not believed as a whole: until a later one is, prices rest on what came before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FeedRefusal {
    pub(super) kind: String,
    pub(super) source: String,
    pub(super) rule: &'static str,
    pub(super) sha256: Vec<u8>,
    pub(super) valid_at_micros: i64,
    pub(super) known_at_micros: i64,
}

impl FeedRefusal {
    pub(crate) async fn insert(
        &self,
        transaction: &Transaction<'_>,
        statement: &mut Statement,
    ) -> Result {
        let sql = "INSERT INTO feed_refusals (source, kind, rule, sha256, valid_at, known_at) VALUES ($1, $2, $3, $4, $5, $6)";
        let (valid_at, known_at) = (
            system_time(self.valid_at_micros),
            system_time(self.known_at_micros),
        );
        let values: [&(dyn ToSql + Sync); 6] = [
            &self.source,
            &self.kind,
            &self.rule,
            &self.sha256,
            &valid_at,
            &known_at,
        ];
        statement
            .run(transaction, &covered::FEED_REFUSALS, sql, &values)
            .await
    }
}
