//! The one way in: what arrives is read, held against what was said before, and recorded, whether it is taken or refused.

use std::sync::Arc;

use audit::Kind;
use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;

use super::insert::FeedRefusal;
use super::load::refusal_fields;
use super::{Accept, Delivery, FeedError, FeedLoad, ImportReport, known, prepare};
use crate::data::audit_log::AuditLog;
use crate::data::database::DatabaseError;
use crate::data::reading;
use crate::data::refresher::MarketRefresher;
use crate::data::writer::{Change, LogPosition, WriteError};
use crate::domain::time::now_micros;

#[derive(Debug, thiserror::Error)]
pub(crate) enum IntakeError {
    #[error(transparent)]
    Refused(#[from] FeedError),
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("reading it failed")]
    Broken,
}

/// A file that somebody hands over.
#[derive(Debug, Clone)]
pub(crate) struct Parcel {
    pub(crate) kind: String,
    pub(crate) source: Option<String>,
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) valid_at: Option<Timestamp>,
    /// They have looked, and believe it.
    pub(crate) accept: Accept,
    pub(crate) by: Option<String>,
    /// When it arrived.
    pub(crate) now: Timestamp,
}

/// Takes a parcel, or says why not; either is on the record.
pub(crate) async fn take(
    refresher: &MarketRefresher,
    record: &dyn AuditLog,
    parcel: Parcel,
) -> Result<(ImportReport, LogPosition), IntakeError> {
    let client = refresher.client()?;
    let aliases = reading::aliases(&client, None).await?;
    let brokers = refresher.brokers();
    let source = parcel.source.clone().unwrap_or_else(|| parcel.kind.clone());
    let limits = refresher.market.feeds().limits(&source);
    let (reading, held) = (parcel.clone(), limits.clone());
    let read = tokio::task::spawn_blocking(move || {
        prepare(&Delivery {
            kind: &reading.kind,
            source: reading.source.as_deref(),
            bytes: &reading.bytes,
            now: reading.now,
            valid_at: reading.valid_at,
            aliases: &aliases,
            limits: &held,
            brokers: &brokers,
        })
    });
    let read = read.await.map_err(|_| IntakeError::Broken)?;
    let mut valid_at = None;
    let guarded = match read {
        Err(error) => Err(error),
        Ok(mut load) => {
            let at = load.valid_at_micros();
            valid_at = Some(at);
            let last = known::baseline(&client, load.kind(), load.source(), at).await?;
            load.guard(&last, &limits, parcel.accept)
                .and_then(|()| terms_exist(refresher, &load))
                .map(|()| load)
        }
    };
    match guarded {
        Ok(load) => {
            let report = load.report();
            let recorded = enter(record, load, parcel.by.as_deref()).await?;
            tracing::info!(
                feed = report.kind,
                source = report.source,
                loaded = report.loaded,
                quarantined = report.quarantined,
                "a feed was loaded"
            );
            // The next price is of the new book.
            if let Err(error) = refresher.refresh().await {
                tracing::warn!(%error, "a load is recorded but not read back yet");
            }
            Ok((report, recorded))
        }
        Err(error) => {
            let delivery = RefusedBytes {
                kind: &parcel.kind,
                source: &source,
                bytes: &parcel.bytes,
                valid_at,
                whole: true,
                by: parcel.by.as_deref(),
            };
            refuse(refresher, record, &delivery, &error).await;
            Err(error.into())
        }
    }
}

/// Records a load with its rows.
pub(super) async fn enter(
    record: &dyn AuditLog,
    load: FeedLoad,
    by: Option<&str>,
) -> Result<LogPosition, WriteError> {
    let mut fields = load.fields();
    if let Some(by) = by {
        fields.set("by", by);
    }
    let (kind, source) = (load.kind(), load.source().to_owned());
    let audit_kind = load.audit_kind();
    let recorded = record
        .entry(audit_kind, fields, Change::Feed(Box::new(load)))
        .await?;
    metrics::counter!("bre_feed_loads_total", "feed" => kind, "source" => source).increment(1);
    Ok(recorded)
}

/// What was refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct RefusedBytes<'a> {
    pub(super) kind: &'a str,
    pub(super) source: &'a str,
    pub(super) bytes: &'a [u8],
    /// In microseconds since 1970, where it could be read.
    pub(super) valid_at: Option<i64>,
    /// A delivery, and not one answer of many.
    pub(super) whole: bool,
    pub(super) by: Option<&'a str>,
}

/// Records that something was refused. When that cannot be recorded either, the log line is what is left.
pub(super) async fn refuse(
    refresher: &MarketRefresher,
    record: &dyn AuditLog,
    refused: &RefusedBytes<'_>,
    error: &FeedError,
) {
    let RefusedBytes {
        kind,
        source,
        bytes,
        by,
        ..
    } = *refused;
    tracing::warn!(feed = kind, source, rule = error.rule(), %error, "a feed was refused");
    metrics::counter!("bre_feed_refusals_total", "feed" => kind.to_owned(), "source" => source.to_owned(), "rule" => error.rule())
        .increment(1);
    refresher.board.refused(source, error);
    let mut fields = refusal_fields(kind, source, bytes, error);
    if let Some(by) = by {
        fields.set("by", by);
    }
    let now = now_micros();
    // What operators write is corrected by them at once, and a file that came late takes no newer figure away.
    let counts =
        refused.whole && MARKET_FEEDS.contains(&kind) && error.rule() != "older_than_loaded";
    let change = match counts {
        true => Change::FeedRefused(FeedRefusal {
            kind: kind.to_owned(),
            source: source.to_owned(),
            rule: error.rule(),
            sha256: digest(&SHA256, bytes).as_ref().to_vec(),
            valid_at_micros: refused.valid_at.unwrap_or(now),
            known_at_micros: now,
        }),
        false => Change::None,
    };
    match record.entry(Kind::FeedLoaded, fields, change).await {
        Err(error) => {
            tracing::error!(feed = kind, source, %error, "the refusal is not on the record");
        }
        Ok(_) if counts => {
            if let Err(error) = refresher.refresh().await {
                tracing::warn!(%error, "a refusal is recorded but not read back yet");
            }
        }
        Ok(_) => {}
    }
}

/// Kinds that prices are made from.
const MARKET_FEEDS: [&str; 6] = [
    "ibkr",
    "seclend",
    "clearstreet",
    "vix",
    "events",
    "volatility",
];

/// Terms that name a policy or a convention that is not there would leave their client without prices.
fn terms_exist(refresher: &MarketRefresher, load: &FeedLoad) -> Result<(), FeedError> {
    let Ok(view) = refresher.market.view() else {
        return Ok(());
    };
    for (index, terms) in load.brokers().iter().enumerate() {
        let line = index + 2;
        if !view.has_policy(&terms.policy) {
            let message = format!(
                "{} has the policy {:?}, which is not known",
                terms.client_id, terms.policy
            );
            return Err(FeedError::Line { line, message });
        }
        if !view.has_convention(&terms.convention) {
            let message = format!(
                "{} has the convention {:?}, which is not known",
                terms.client_id, terms.convention
            );
            return Err(FeedError::Line { line, message });
        }
    }
    Ok(())
}
