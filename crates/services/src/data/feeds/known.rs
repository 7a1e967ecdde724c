//! What a source said last, read for the guard. Found by jumping through an index, however long the history is.

use std::collections::HashMap;

use tokio_postgres::{Client, Row};

use super::guard::HeldValue;
use super::{Baseline, LastFigure, LastRate};
use crate::data::database::DatabaseError;
use crate::domain::digits::decimal;
use crate::domain::time::{micros, system_time};

/// The newest of all, for what came in order.
const NEWEST_TIME: &str = "SELECT valid_at FROM feed_batches WHERE source = $1 AND kind = $2 \
                           ORDER BY valid_at DESC, known_at DESC LIMIT 1";
// The others each end at `$2`, the time of what is to be judged.
const NEWEST_BATCH: &str = "SELECT batch_id::text, loaded FROM feed_batches WHERE source = $1 AND kind = $3 AND valid_at <= $2 \
                            ORDER BY valid_at DESC, known_at DESC LIMIT 1";
const RATES: &str = "WITH RECURSIVE newest AS ( \
       (SELECT ticker, rate, rebate, currency, valid_at, known_at, batch_id, status FROM base_rates WHERE source = $1 AND valid_at <= $2 \
        ORDER BY ticker, valid_at DESC, known_at DESC LIMIT 1) \
     UNION ALL \
       SELECT next.* FROM newest CROSS JOIN LATERAL \
         (SELECT ticker, rate, rebate, currency, valid_at, known_at, batch_id, status FROM base_rates \
          WHERE source = $1 AND ticker > newest.ticker AND valid_at <= $2 ORDER BY ticker, valid_at DESC, known_at DESC LIMIT 1) AS next \
     ) SELECT ticker, rate::text, rebate::text, currency, valid_at, known_at, coalesce(batch_id::text = $3, false), status FROM newest";
const INDEX: &str = "SELECT volatility_index::text FROM volatility \
                     WHERE source = $1 AND subject = 'MARKET' AND volatility_index IS NOT NULL AND valid_at <= $2 \
                     ORDER BY valid_at DESC, known_at DESC LIMIT 1";

const INDICES: &str = "WITH RECURSIVE newest AS ( \
       (SELECT subject, volatility_index, valid_at, known_at FROM volatility WHERE source = $1 AND volatility_index IS NOT NULL AND valid_at <= $2 \
        ORDER BY subject, valid_at DESC, known_at DESC LIMIT 1) \
     UNION ALL \
       SELECT next.* FROM newest CROSS JOIN LATERAL \
         (SELECT subject, volatility_index, valid_at, known_at FROM volatility \
          WHERE source = $1 AND subject > newest.subject AND volatility_index IS NOT NULL AND valid_at <= $2 \
          ORDER BY subject, valid_at DESC, known_at DESC LIMIT 1) AS next \
     ) SELECT subject, volatility_index::text, valid_at, known_at FROM newest";
/// What jumped and is not believed; the figures that it is held against are read beside it.
const HELD: &str = "WITH RECURSIVE newest AS ( \
       (SELECT subject, value, valid_at, known_at, batch_id FROM held_figures WHERE figure = $3 AND source = $1 AND valid_at <= $2 \
          AND reason IN ('rate_jumped', 'index_jumped') ORDER BY subject, valid_at DESC, known_at DESC LIMIT 1) \
     UNION ALL \
       SELECT next.* FROM newest CROSS JOIN LATERAL \
         (SELECT subject, value, valid_at, known_at, batch_id FROM held_figures \
          WHERE figure = $3 AND source = $1 AND subject > newest.subject AND valid_at <= $2 AND reason IN ('rate_jumped', 'index_jumped') \
          ORDER BY subject, valid_at DESC, known_at DESC LIMIT 1) AS next \
     ) SELECT subject, value::text, newest.valid_at, newest.known_at, sha256 FROM newest JOIN feed_batches USING (batch_id)";

/// What the source said last, of what was true by `at_micros`: a file that comes late is judged by what was before it.
pub(crate) async fn baseline(
    client: &Client,
    kind: &str,
    source: &str,
    at_micros: i64,
) -> Result<Baseline, DatabaseError> {
    let failed = DatabaseError::query("reading what a feed said last");
    let at = system_time(at_micros);
    let newest = client
        .query_opt(NEWEST_TIME, &[&source, &kind])
        .await
        .map_err(&failed)?;
    let batch = client
        .query_opt(NEWEST_BATCH, &[&source, &at, &kind])
        .await
        .map_err(&failed)?;
    let mut last = Baseline {
        valid_at_micros: newest.map(|row| micros(row.get(0))),
        ..Baseline::default()
    };
    let mut before: Option<String> = None;
    if let Some(row) = batch {
        before = Some(row.get(0));
        if kind == "events" {
            last.events = usize::try_from(row.get::<_, i32>(1)).unwrap_or_default();
        }
    }
    let held = async |figure: &str| -> Result<HashMap<String, (HeldValue, i64)>, DatabaseError> {
        let rows = client
            .query(HELD, &[&source, &at, &figure])
            .await
            .map_err(&failed)?;
        Ok(rows.iter().filter_map(held_of).collect())
    };
    if matches!(kind, "ibkr" | "seclend" | "clearstreet") {
        let rows = client
            .query(RATES, &[&source, &at, &before])
            .await
            .map_err(&failed)?;
        let mut held = held("rate").await?;
        last.rates = rows.iter().filter_map(|row| rate(row, &mut held)).collect();
    }
    if kind == "vix" {
        let row = client
            .query_opt(INDEX, &[&source, &at])
            .await
            .map_err(&failed)?;
        last.index = row.and_then(|row| units(row.get(0)));
    }
    if kind == "volatility" {
        let rows = client
            .query(INDICES, &[&source, &at])
            .await
            .map_err(&failed)?;
        let mut held = held("volatility_index").await?;
        last.indices = rows
            .iter()
            .filter_map(|row| index(row, &mut held))
            .collect();
    }
    Ok(last)
}

/// With when it was known.
fn held_of(row: &Row) -> Option<(String, (HeldValue, i64))> {
    let held = HeldValue {
        value: units(row.get(1))?,
        valid_at_micros: micros(row.get(2)),
        sha256: row.get(4),
    };
    Some((row.get(0), (held, micros(row.get(3)))))
}

/// What was said after the figure that is in force.
fn later(
    held: &mut HashMap<String, (HeldValue, i64)>,
    subject: &str,
    valid_at_micros: i64,
    known_at_micros: i64,
) -> Option<HeldValue> {
    let (held, held_known_at) = held.remove(subject)?;
    let is_later = (held.valid_at_micros, held_known_at) > (valid_at_micros, known_at_micros);
    is_later.then_some(held)
}

fn rate(row: &Row, held: &mut HashMap<String, (HeldValue, i64)>) -> Option<(String, LastRate)> {
    let ticker: String = row.get(0);
    let valid_at_micros = micros(row.get(4));
    let last = LastRate {
        rate: units(row.get(1))?,
        rebate: row.get::<_, Option<&str>>(2).and_then(units),
        currency: row.get(3),
        status: row.get(7),
        valid_at_micros,
        in_last_batch: row.get(6),
        held: later(held, &ticker, valid_at_micros, micros(row.get(5))),
    };
    Some((ticker, last))
}

fn index(row: &Row, held: &mut HashMap<String, (HeldValue, i64)>) -> Option<(String, LastFigure)> {
    let subject: String = row.get(0);
    let valid_at_micros = micros(row.get(2));
    let last = LastFigure {
        value: units(row.get(1))?,
        valid_at_micros,
        held: later(held, &subject, valid_at_micros, micros(row.get(3))),
    };
    Some((subject, last))
}

/// A column's text as a count of 10^-8.
fn units(text: &str) -> Option<i64> {
    decimal::<8>(text).map(pricing::Fixed::units)
}
