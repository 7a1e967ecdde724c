//! Recorded quotes priced again from their recorded inputs: the same bytes, or it is said which differ.

use std::ops::ControlFlow;

use audit::{Entry, Kind, StoredEntry};
use futures_util::{TryStreamExt, pin_mut};
use serde::Serialize;

use crate::data::{DatabaseError, Verifying, entries_from, entries_of};
use crate::domain::moment::Period;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReplayReport {
    /// Quotes priced again.
    pub checked: u64,
    pub mismatches: Vec<Mismatch>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    pub epoch: i64,
    pub position: i64,
    pub reason: String,
}

/// Every quote of a log that was recorded in the period. `progress` hears how many were priced again, now and then.
pub async fn replay(
    database: &str,
    log: u16,
    period: Period,
    mut progress: impl FnMut(u64),
) -> Result<ReplayReport, DatabaseError> {
    let failed = DatabaseError::query("reading the audit log");
    let session = Verifying::begin(database).await?;
    let table = session.table("audit_log");
    let rows = entries_of(session.client(), &table, log, period)
        .await
        .map_err(&failed)?;
    pin_mut!(rows);
    let mut report = ReplayReport::default();
    while let Some(stored) = rows.try_next().await.map_err(&failed)? {
        let mismatch = |reason: String| Mismatch {
            epoch: stored.epoch,
            position: stored.position,
            reason,
        };
        match Entry::parse(&stored.bytes) {
            Ok(entry) if entry.kind == Kind::Quote => {
                report.checked += 1;
                if let Err(reason) = price_again(&entry) {
                    report.mismatches.push(mismatch(reason));
                }
                if report.checked.is_multiple_of(PROGRESS_EVERY) {
                    progress(report.checked);
                }
            }
            Ok(_) => {}
            Err(error) => report.mismatches.push(mismatch(error.to_string())),
        }
    }
    Ok(report)
}

const PROGRESS_EVERY: u64 = 10_000;

/// One entry of a log, if there is one at this position.
pub async fn entry(
    database: &str,
    log: u16,
    position: u64,
) -> Result<Option<StoredEntry>, DatabaseError> {
    let failed = DatabaseError::query("reading the audit log");
    let session = Verifying::begin(database).await?;
    let table = session.table("audit_log");
    let rows = entries_from(session.client(), &table, log, position)
        .await
        .map_err(&failed)?;
    pin_mut!(rows);
    let first = rows.try_next().await.map_err(&failed)?;
    Ok(first.filter(|entry| u64::try_from(entry.position) == Ok(position)))
}

/// Hands every entry of a log to `each`, in the order of positions.
pub async fn export(
    database: &str,
    log: u16,
    mut each: impl FnMut(&StoredEntry),
) -> Result<(), DatabaseError> {
    let all = export_from(database, log, 1, |stored| {
        each(&stored);
        ControlFlow::<()>::Continue(())
    });
    all.await.map(drop)
}

/// The same from a position on, until `each` has enough; then what it ended with.
pub async fn export_from<B>(
    database: &str,
    log: u16,
    from: u64,
    mut each: impl FnMut(StoredEntry) -> ControlFlow<B>,
) -> Result<Option<B>, DatabaseError> {
    let failed = DatabaseError::query("reading the audit log");
    let session = Verifying::begin(database).await?;
    let table = session.table("audit_log");
    let rows = entries_from(session.client(), &table, log, from)
        .await
        .map_err(&failed)?;
    pin_mut!(rows);
    while let Some(stored) = rows.try_next().await.map_err(&failed)? {
        if let ControlFlow::Break(end) = each(stored) {
            return Ok(Some(end));
        }
    }
    Ok(None)
}

fn price_again(entry: &Entry) -> Result<(), String> {
    let field = |name: &str| {
        entry
            .fields
            .get(name)
            .ok_or_else(|| format!("its field {name} is missing"))
    };
    let outputs = pricing::replay(field("inputs")?).map_err(|error| error.to_string())?;
    let recorded = field("outputs")?;
    if outputs == recorded {
        Ok(())
    } else {
        Err(format!("recorded {recorded}, priced again {outputs}"))
    }
}
