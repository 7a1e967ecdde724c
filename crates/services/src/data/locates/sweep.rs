//! Ends what time has ended. Whoever comes first ends it, a client's own request included; the lock and the log see to it that it
//! is ended once, by however many data-services.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;
use uuid::Uuid;

use super::request::{LocateCommand, LocateOutcome, LocateRequest};
use crate::data::AuditLog;
use crate::data::database::DatabaseError;
use crate::data::refresher::MarketRefresher;
use crate::domain::time::{as_micros, now_micros, system_time};

const EVERY: Duration = Duration::from_secs(1);
/// Clocks of several data-services differ; a locate may be written a little after its end was looked for.
const MARGIN: Duration = Duration::from_secs(3600);
const AT_ONCE: i64 = 500;

const DUE: &str = "\
SELECT locate_id::text FROM locates AS l WHERE status = 'offered' AND offer_expires_at > $1 AND offer_expires_at <= $2 \
   AND NOT EXISTS (SELECT FROM locates AS n WHERE n.locate_id = l.locate_id AND n.sequence = l.sequence + 1) \
UNION ALL \
SELECT locate_id::text FROM locates AS l WHERE status = 'filled' AND order_id IS NULL AND expires_at > $1 AND expires_at <= $2 \
   AND NOT EXISTS (SELECT FROM locates AS n WHERE n.locate_id = l.locate_id AND n.sequence > l.sequence AND n.order_id IS NULL) \
LIMIT $3";

/// Runs where the log is written, until it is dropped.
pub(crate) async fn sweep(refresher: Arc<MarketRefresher>, record: Arc<dyn AuditLog>) {
    // The first look goes through all of history, once.
    let mut from = i64::MIN;
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let now = now_micros();
        match look(&refresher, &record, from, now).await {
            Ok(true) => from = now - as_micros(MARGIN),
            // There is more, or it could not be recorded.
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "locates that ended cannot be looked for"),
        }
    }
}

/// Whether everything that was due has been ended.
async fn look(
    refresher: &MarketRefresher,
    record: &Arc<dyn AuditLog>,
    from: i64,
    now: i64,
) -> Result<bool, DatabaseError> {
    if !record.state().is_serving() {
        return Ok(false);
    }
    let due = due(&*refresher.client()?, from, now).await?;
    let all = i64::try_from(due.len()).unwrap_or(AT_ONCE) < AT_ONCE;
    let ends = due.into_iter().map(|locate_id| {
        record.locate(LocateRequest {
            client_id: None,
            actor: "engine".to_owned(),
            request_id: String::new(),
            idempotency: None,
            command: LocateCommand::Expire { locate_id },
        })
    });
    let mut ended = true;
    for outcome in futures_util::future::join_all(ends).await {
        match outcome {
            Ok(LocateOutcome::Step(_) | LocateOutcome::Refused(_)) => {}
            Err(_) => ended = false,
        }
    }
    Ok(all && ended)
}

async fn due(client: &Client, from: i64, now: i64) -> Result<Vec<Uuid>, DatabaseError> {
    // The beginning of time has no place in a SystemTime.
    let from = system_time(from.max(0));
    let rows = client
        .query(DUE, &[&from, &system_time(now), &AT_ONCE])
        .await
        .map_err(DatabaseError::query("looking for locates that ended"))?;
    let ids = rows.iter().map(|row| row.get::<_, String>(0));
    Ok(ids.filter_map(|id| id.parse().ok()).collect())
}
