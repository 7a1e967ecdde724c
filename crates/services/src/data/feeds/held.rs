//! Figures that were read and are not believed yet: what they are, and how an operator accepts one.

use jiff::Timestamp;
use serde::Serialize;
use tokio_postgres::Client;

use super::intake::enter;
use super::load::FeedLoad;
use super::{FeedError, ImportReport, IntakeError, RateRow, VolatilityRow, eight_decimals};
use crate::data::audit_log::AuditLog;
use crate::data::database::DatabaseError;
use crate::data::refresher::MarketRefresher;
use crate::data::writer::LogPosition;
use crate::domain::digits::decimal;
use crate::domain::time::{micros, rfc3339};

/// A figure that prices do not follow yet, beside the one that they follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct HeldLine {
    pub(crate) source: String,
    /// A ticker, or `MARKET`.
    pub(crate) subject: String,
    /// `rate` (a fraction a year) or `volatility_index` (points).
    pub(crate) figure: &'static str,
    pub(crate) in_force: String,
    pub(crate) held: String,
    pub(crate) valid_at: String,
    pub(crate) reason: String,
}

/// All of them, as last read.
pub(crate) fn held_now(refresher: &MarketRefresher) -> Vec<HeldLine> {
    let data = refresher.data();
    let rates = data.rates.iter().filter_map(|rate| {
        let held = rate.held.as_ref()?;
        let value = held.value?;
        Some(HeldLine {
            source: rate.source.to_string(),
            subject: rate.ticker.to_string(),
            figure: "rate",
            in_force: rate.rate.to_string(),
            held: value.to_string(),
            valid_at: rfc3339(held.valid_at_micros),
            reason: held.reason.to_string(),
        })
    });
    let indices = data.volatility.iter().filter_map(|index| {
        let held = index.held.as_ref()?;
        let value = held.value?;
        Some(HeldLine {
            source: index.source.to_string(),
            subject: index.subject.to_string(),
            figure: "volatility_index",
            in_force: index.index.to_string(),
            held: value.to_string(),
            valid_at: rfc3339(held.valid_at_micros),
            reason: held.reason.to_string(),
        })
    });
    rates.chain(indices).collect()
}

const NEWEST: &str = "\
SELECT h.figure, h.value::text, h.rebate::text, h.currency, h.available, h.available_or_more, h.symbol, h.name, h.isin, h.figi, \
       h.status, h.valid_at, h.reason \
FROM held_figures AS h WHERE h.source = $1 AND h.subject = $2 AND h.value IS NOT NULL \
  AND NOT EXISTS (SELECT FROM base_rates AS r WHERE h.figure = 'rate' AND r.source = $1 AND r.ticker = $2 \
                  AND (r.valid_at, r.known_at) >= (h.valid_at, h.known_at)) \
  AND NOT EXISTS (SELECT FROM volatility AS v WHERE h.figure <> 'rate' AND v.volatility_index IS NOT NULL AND v.source = $1 \
                  AND v.subject = $2 AND (v.valid_at, v.known_at) >= (h.valid_at, h.known_at)) \
ORDER BY h.valid_at DESC, h.known_at DESC LIMIT 1";

/// Believes the held figure of `source` for `subject`, in the name of whoever has looked; on the record.
pub(crate) async fn accept_held(
    refresher: &MarketRefresher,
    record: &dyn AuditLog,
    source: &str,
    subject: &str,
    by: Option<&str>,
    now: Timestamp,
) -> Result<(ImportReport, LogPosition), IntakeError> {
    let client = refresher.client()?;
    let load = read(&client, source, subject, now)
        .await?
        .ok_or_else(|| FeedError::NotHeld {
            source_name: source.to_owned(),
            subject: subject.to_owned(),
        })?;
    let report = load.report();
    let recorded = enter(record, load, by).await?;
    tracing::info!(source, subject, by, "a held figure was accepted");
    if let Err(error) = refresher.refresh().await {
        tracing::warn!(%error, "a held figure is accepted but not read back yet");
    }
    Ok((report, recorded))
}

/// As a load of one row, true since it was said.
async fn read(
    client: &Client,
    source: &str,
    subject: &str,
    now: Timestamp,
) -> Result<Option<FeedLoad>, DatabaseError> {
    let row = client
        .query_opt(NEWEST, &[&source, &subject])
        .await
        .map_err(DatabaseError::query("reading a held figure"))?;
    let Some(row) = row else { return Ok(None) };
    let units = |column: usize| {
        let text: Option<&str> = row.get(column);
        text.and_then(decimal::<8>).map(pricing::Fixed::units)
    };
    let text = |column: usize| row.get::<_, Option<String>>(column).unwrap_or_default();
    let at_micros = micros(row.get(11));
    let is_rate = row.get::<_, &str>(0) == "rate";
    let Some(value) = units(1) else {
        return Ok(None);
    };
    let line = format!(
        "{source},{subject},{},{}",
        eight_decimals(value),
        rfc3339(at_micros)
    );
    let mut load = FeedLoad::empty("accepted", source, line.as_bytes(), now);
    load.valid_at_micros = at_micros;
    load.accepted = vec![match row.get(12) {
        "rate_jumped" => "rate_jumped",
        "rate_too_high" => "rate_too_high",
        "index_jumped" => "index_jumped",
        "ticker_contradicted" => "ticker_contradicted",
        _ => "benchmark",
    }];
    if is_rate {
        load.rates.push(RateRow {
            line: 1,
            row: line,
            ticker: subject.to_owned(),
            symbol: text(6),
            currency: text(3),
            name: text(7),
            isin: text(8),
            figi: text(9),
            rate: value,
            rebate: units(2),
            available: row.get(4),
            available_or_more: row.get(5),
            status: text(10).parse().ok(),
        });
    } else if let Ok(valid_at) = Timestamp::from_microsecond(at_micros) {
        load.volatility.push(VolatilityRow {
            subject: subject.to_owned(),
            valid_at,
            index: value,
        });
    }
    Ok(Some(load))
}
