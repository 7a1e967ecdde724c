//! The calendar in force: one is shipped with the program; the newest that was imported takes its place.

use std::sync::{Arc, LazyLock};

use tokio_postgres::Client;

use super::database::DatabaseError;
use super::feeds::read_calendar;
use crate::market::{Calendar, CalendarInForce};

static SHIPPED: LazyLock<Arc<Calendar>> = LazyLock::new(|| {
    let file = include_bytes!("../../calendars/us_equities.csv");
    let read = read_calendar(file);
    // A test reads it. One without days answers nothing, and says so.
    Arc::new(read.unwrap_or_default())
});

impl Calendar {
    /// The one that comes with the program.
    pub(crate) fn shipped() -> Arc<Calendar> {
        Arc::clone(&SHIPPED)
    }
}

impl CalendarInForce {
    /// The newest import, or the shipped one. What is known already is not read again.
    pub(crate) async fn read(
        client: &Client,
        known: Option<&CalendarInForce>,
    ) -> Result<CalendarInForce, DatabaseError> {
        let batch_id = known.and_then(|known| known.batch_id.as_deref());
        let sql = "SELECT batch_id::text, CASE WHEN batch_id::text = $1 THEN NULL ELSE definition END FROM calendars \
                   ORDER BY valid_at DESC, known_at DESC LIMIT 1";
        let row = client
            .query_opt(sql, &[&batch_id])
            .await
            .map_err(DatabaseError::query("reading the calendar"))?;
        let Some(row) = row else {
            return Ok(CalendarInForce {
                batch_id: None,
                calendar: Calendar::shipped(),
            });
        };
        let definition: Option<&str> = row.get(1);
        let calendar = match (definition, known) {
            (None, Some(known)) => Arc::clone(&known.calendar),
            (definition, _) => {
                let read = read_calendar(definition.unwrap_or_default().as_bytes());
                Arc::new(read.unwrap_or_else(|error| {
                    tracing::error!(%error, "the imported calendar cannot be read: no locates until another one is imported");
                    Calendar::default()
                }))
            }
        };
        Ok(CalendarInForce {
            batch_id: Some(row.get(0)),
            calendar,
        })
    }
}

#[cfg(test)]
#[path = "calendar_tests.rs"]
mod tests;
