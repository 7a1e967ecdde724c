//! Entries and their quotes in one statement.

use std::borrow::Cow;

use audit::Sealed;
use tokio_postgres::error::SqlState;
use tokio_postgres::{GenericClient, Statement};

use super::open::{Open, log_number};
use crate::data::database::{Session, describe};
use crate::data::quotes::quote_uuid;
use crate::data::row::{Columns, Rows, Value};

/// What became of a commit.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The rows are in. With warnings, or without a standby where one was demanded, the guarantee is not.
    Committed {
        warnings: Vec<String>,
        standby: bool,
    },
    /// The server said no; nothing is in.
    RolledBack(String),
    /// The connection ended before the server's word arrived.
    Lost(String),
}

/// Row by row, as the statement takes them.
#[derive(Debug, Default)]
pub(super) struct Batch {
    entries: Rows,
    quotes: Rows,
}

impl Batch {
    /// Names no column: the rows have those of the tables, all of them and in order, which the server checks.
    pub(super) const SQL: &str = "WITH entries AS (INSERT INTO audit_log SELECT * FROM UNNEST($1::audit_log[])), \
         priced AS (INSERT INTO quotes SELECT * FROM UNNEST($2::quotes[])) \
         SELECT current_setting('synchronous_standby_names')";

    /// `row`: of a quote, its columns in `quotes`.
    pub(super) fn push(&mut self, sealed: &Sealed, row: Option<&Columns>) {
        let entry = &sealed.entry;
        let field = |name: &str| Value::Text(entry.fields.get(name).map(Cow::Borrowed));
        let [client_id, ticker, request_id, quote_id] = REPEATED;
        // The format keeps epoch and position within the signed types.
        let [log, epoch, position, recorded_at] = [
            Value::Small(log_number(entry.log)),
            Value::Integer(entry.epoch.cast_signed()),
            Value::Big(entry.position.cast_signed()),
            Value::Time(entry.recorded_at_micros),
        ];
        if let Some(row) = row {
            let place = [
                log.clone(),
                epoch.clone(),
                position.clone(),
                recorded_at.clone(),
            ];
            self.quotes.push(&place, Some(row));
        }
        let columns = [
            log,
            epoch,
            position,
            Value::Small(i16::from(entry.kind.number())),
            recorded_at,
            field(client_id),
            field(ticker),
            field(request_id),
            Value::Uuid(entry.fields.get(quote_id).and_then(quote_uuid)),
            Value::Bytes(&sealed.bytes),
            Value::Bytes(sealed.hash.as_bytes()),
        ];
        self.entries.push(&columns, None);
    }

    /// The single statement is its own transaction: one round trip.
    pub(super) async fn commit(&self, open: &Open) -> Outcome {
        let ran = self.insert(&open.session.client, &open.statement).await;
        outcome(&open.session, ran)
    }

    /// On a transaction of the caller's, or else as its own; then it has committed when this returns: `query` waits for
    /// ReadyForQuery, which follows the commit, while the rows alone arrive before it.
    pub(super) async fn insert(
        &self,
        client: &impl GenericClient,
        statement: &Statement,
    ) -> Result<bool, tokio_postgres::Error> {
        let rows = client
            .query(statement, &[&self.entries, &self.quotes])
            .await?;
        Ok(standby(&rows))
    }
}

/// The fields that `audit_log` repeats for every kind.
pub(crate) const REPEATED: [&str; 4] = ["client_id", "ticker", "request_id", "quote_id"];

fn standby(rows: &[tokio_postgres::Row]) -> bool {
    rows.first()
        .is_some_and(|row| !row.get::<_, String>(0).trim().is_empty())
}

pub(super) fn outcome(session: &Session, ran: Result<bool, tokio_postgres::Error>) -> Outcome {
    let warnings = session.take_warnings();
    match ran {
        Ok(standby) => Outcome::Committed { warnings, standby },
        Err(error) if is_final(&error) => Outcome::RolledBack(describe(&error)),
        Err(error) => Outcome::Lost(describe(&error)),
    }
}

/// Whether the server took the statement back. An ERROR does; a session that is ended (class 57P) may have committed before.
fn is_final(error: &tokio_postgres::Error) -> bool {
    let Some(db) = error.as_db_error() else {
        return false;
    };
    let ended = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
    ];
    db.severity() == "ERROR" && !ended.contains(db.code()) && !error.is_closed()
}
