//! What a source said last, read for the guard. Found by jumping through an index, however long the history is.

use tokio_postgres::{Client, Row};

use super::{Baseline, LastRate};
use crate::data::database::DatabaseError;
use crate::data::market::decimal;
use crate::time::micros;

const NEWEST_BATCH: &str = "SELECT batch_id::text, valid_at, loaded FROM feed_batches WHERE source = $1 AND kind = $2 \
                            ORDER BY valid_at DESC, known_at DESC LIMIT 1";
const RATES: &str = "WITH RECURSIVE newest AS ( \
       (SELECT ticker, rate, rebate, currency, valid_at, batch_id, status FROM base_rates WHERE source = $1 \
        ORDER BY ticker, valid_at DESC, known_at DESC LIMIT 1) \
     UNION ALL \
       SELECT next.* FROM newest CROSS JOIN LATERAL \
         (SELECT ticker, rate, rebate, currency, valid_at, batch_id, status FROM base_rates WHERE source = $1 AND ticker > newest.ticker \
          ORDER BY ticker, valid_at DESC, known_at DESC LIMIT 1) AS next \
     ) SELECT ticker, rate::text, rebate::text, currency, valid_at, coalesce(batch_id::text = $2, false), status FROM newest";
const INDEX: &str = "SELECT volatility_index::text FROM volatility \
                     WHERE source = $1 AND subject = 'MARKET' AND volatility_index IS NOT NULL \
                     ORDER BY valid_at DESC, known_at DESC LIMIT 1";

const INDICES: &str = "WITH RECURSIVE newest AS ( \
       (SELECT subject, volatility_index, valid_at FROM volatility WHERE source = $1 AND volatility_index IS NOT NULL \
        ORDER BY subject, valid_at DESC, known_at DESC LIMIT 1) \
     UNION ALL \
       SELECT next.* FROM newest CROSS JOIN LATERAL \
         (SELECT subject, volatility_index, valid_at FROM volatility \
          WHERE source = $1 AND subject > newest.subject AND volatility_index IS NOT NULL \
          ORDER BY subject, valid_at DESC, known_at DESC LIMIT 1) AS next \
     ) SELECT subject, volatility_index::text, valid_at FROM newest WHERE subject <> 'MARKET'";

pub(crate) async fn baseline(
    client: &Client,
    kind: &str,
    source: &str,
) -> Result<Baseline, DatabaseError> {
    let failed = DatabaseError::query("reading what a feed said last");
    let batch = client
        .query_opt(NEWEST_BATCH, &[&source, &kind])
        .await
        .map_err(&failed)?;
    let mut last = Baseline::default();
    let mut newest: Option<String> = None;
    if let Some(row) = batch {
        newest = Some(row.get(0));
        last.valid_at_micros = Some(micros(row.get(1)));
        if kind == "events" {
            last.events = usize::try_from(row.get::<_, i32>(2)).unwrap_or_default();
        }
    }
    if matches!(kind, "ibkr" | "seclend" | "clearstreet") {
        let rows = client
            .query(RATES, &[&source, &newest])
            .await
            .map_err(&failed)?;
        last.rates = rows.iter().filter_map(rate).collect();
    }
    if matches!(kind, "vix" | "volatility") {
        let row = client.query_opt(INDEX, &[&source]).await.map_err(&failed)?;
        last.index = row.and_then(|row| units(row.get(0)));
    }
    if kind == "volatility" {
        let rows = client.query(INDICES, &[&source]).await.map_err(&failed)?;
        last.indices = rows
            .iter()
            .filter_map(|row| Some((row.get(0), (units(row.get(1))?, micros(row.get(2))))))
            .collect();
    }
    Ok(last)
}

fn rate(row: &Row) -> Option<(String, LastRate)> {
    let last = LastRate {
        rate: units(row.get(1))?,
        rebate: row.get::<_, Option<&str>>(2).and_then(units),
        currency: row.get(3),
        status: row.get(6),
        valid_at_micros: micros(row.get(4)),
        in_last_batch: row.get(5),
    };
    Some((row.get(0), last))
}

/// A column's text as a count of 10^-8.
fn units(text: &str) -> Option<i64> {
    decimal::<8>(text).map(pricing::Fixed::units)
}
