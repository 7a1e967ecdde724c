//! The one way in: what arrives is read, held against what was said before, and recorded, whether it is taken or refused.

use std::sync::Arc;

use audit::Kind;
use jiff::Timestamp;

use super::load::refusal_fields;
use super::{Delivery, FeedError, FeedLoad, ImportReport, known, prepare};
use crate::data::database::DatabaseError;
use crate::data::keeper::Keeper;
use crate::data::market;
use crate::data::record::Record;
use crate::data::writer::{Change, Recorded, WriteError};

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
    /// They have looked at what moved, and believe it.
    pub(crate) accept_jumps: bool,
    pub(crate) by: Option<String>,
}

/// Takes a parcel, or says why not; either is on the record.
pub(crate) async fn take(
    keeper: &Keeper,
    record: &dyn Record,
    parcel: Parcel,
) -> Result<(ImportReport, Recorded), IntakeError> {
    let client = keeper.client()?;
    let aliases = market::aliases(&client, None).await?;
    let brokers = keeper.brokers();
    let source = parcel.source.clone().unwrap_or_else(|| parcel.kind.clone());
    let limits = keeper.market.feeds().limits(&source);
    let (reading, held) = (parcel.clone(), limits.clone());
    let read = tokio::task::spawn_blocking(move || {
        prepare(&Delivery {
            kind: &reading.kind,
            source: reading.source.as_deref(),
            bytes: &reading.bytes,
            now: Timestamp::now(),
            valid_at: reading.valid_at,
            aliases: &aliases,
            limits: &held,
            brokers: &brokers,
        })
    });
    let read = read.await.map_err(|_| IntakeError::Broken)?;
    let guarded = match read {
        Err(error) => Err(error),
        Ok(mut load) => {
            let last = known::baseline(&client, load.kind(), load.source()).await?;
            load.guard(&last, &limits, parcel.accept_jumps)
                .and_then(|()| terms_exist(keeper, &load))
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
            if let Err(error) = keeper.refresh().await {
                tracing::warn!(%error, "a load is recorded but not read back yet");
            }
            Ok((report, recorded))
        }
        Err(error) => {
            refuse(
                keeper,
                record,
                &parcel.kind,
                &source,
                &parcel.bytes,
                &error,
                parcel.by.as_deref(),
            )
            .await;
            Err(error.into())
        }
    }
}

/// Records a load with its rows.
pub(super) async fn enter(
    record: &dyn Record,
    load: FeedLoad,
    by: Option<&str>,
) -> Result<Recorded, WriteError> {
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

/// Records that something was refused. When that cannot be recorded either, the log line is what is left.
pub(super) async fn refuse(
    keeper: &Keeper,
    record: &dyn Record,
    kind: &str,
    source: &str,
    bytes: &[u8],
    error: &FeedError,
    by: Option<&str>,
) {
    tracing::warn!(feed = kind, source, rule = error.rule(), %error, "a feed was refused");
    metrics::counter!("bre_feed_refusals_total", "feed" => kind.to_owned(), "source" => source.to_owned(), "rule" => error.rule())
        .increment(1);
    keeper.board.refused(source, error);
    let mut fields = refusal_fields(kind, source, bytes, error);
    if let Some(by) = by {
        fields.set("by", by);
    }
    if let Err(error) = record.entry(Kind::FeedLoaded, fields, Change::None).await {
        tracing::error!(feed = kind, source, %error, "the refusal is not on the record");
    }
}

/// Terms that name a policy or a convention that is not there would leave their client without prices.
fn terms_exist(keeper: &Keeper, load: &FeedLoad) -> Result<(), FeedError> {
    let Ok(view) = keeper.market.view() else {
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
