//! Reading a file or an answer without a database: what an import would make of it by itself.

use jiff::Timestamp;

use super::{Delivery, FeedError, ImportReport, http, prepare};
use crate::market::FeedLimits;

/// Reads the bytes as a feed of that kind, with the default limits. Kinds are those of an import, and what is asked over HTTP:
/// `seclend_one`, `volatility`, `event_risk`; these have no report.
pub fn check_feed(
    kind: &str,
    bytes: &[u8],
    now: Timestamp,
) -> Result<Option<ImportReport>, FeedError> {
    let limits = FeedLimits::default();
    match kind {
        "seclend_one" => super::seclend::parse(bytes, Some("GME")).map(|_| None),
        "volatility" => http::index(bytes, &limits).map(|_| None),
        "event_risk" => http::risk(bytes, now).map(|_| None),
        kind => {
            let load = prepare(&Delivery {
                kind,
                source: None,
                bytes,
                now,
                valid_at: None,
                aliases: &[],
                limits: &limits,
                brokers: &[],
            })?;
            Ok(Some(load.report()))
        }
    }
}

#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod tests;
