//! Entries and their quotes in one statement.

use std::fmt::Write;
use std::time::SystemTime;

use audit::Sealed;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::open::{Open, log_number};
use crate::data::database::{Session, describe};
use crate::data::quotes::COLUMNS;

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

/// Column by column, as the statement takes them.
#[derive(Debug, Default)]
pub(super) struct Batch<'a> {
    epoch: i32,
    position: Vec<i64>,
    kind: Vec<i16>,
    recorded_at: Vec<SystemTime>,
    canonical: Vec<&'a [u8]>,
    hash: Vec<&'a [u8]>,
    /// One more per column of a quote, in the order of [`COLUMNS`]; entries of other kinds leave most of them empty.
    fields: Vec<Vec<Option<&'a str>>>,
}

const QUOTE_KIND: i16 = 1;

impl<'a> Batch<'a> {
    /// `row`: of a quote, the texts of [`COLUMNS`].
    pub(super) fn push(&mut self, sealed: &'a Sealed, row: Option<&'a [Option<String>]>) {
        let entry = &sealed.entry;
        // The format keeps both within the signed types.
        self.epoch = entry.epoch.cast_signed();
        self.position.push(entry.position.cast_signed());
        self.kind.push(i16::from(entry.kind.number()));
        self.recorded_at
            .push(crate::time::system_time(entry.recorded_at_micros));
        self.canonical.push(&sealed.bytes);
        self.hash.push(sealed.hash.as_bytes());
        self.fields.resize_with(COLUMNS.len(), Vec::new);
        for (index, (column, values)) in COLUMNS.iter().zip(&mut self.fields).enumerate() {
            values.push(match row {
                Some(row) => row.get(index).and_then(Option::as_deref),
                // Of other kinds only what audit_log repeats is stored.
                None if REPEATED.contains(&column.name) => entry.fields.get(column.name),
                None => None,
            });
        }
    }

    pub(super) fn sql() -> String {
        let mut sql = String::from(
            "WITH batch AS MATERIALIZED (SELECT * FROM UNNEST($3::bigint[], $4::smallint[], $5::timestamptz[], $6::bytea[], $7::bytea[]",
        );
        for number in 0..COLUMNS.len() {
            let _ = write!(sql, ", ${}::text[]", number + 8);
        }
        sql.push_str(") AS t (position, kind, recorded_at, canonical, hash");
        for column in COLUMNS {
            let _ = write!(sql, ", {}", column.name);
        }
        sql.push_str(
            ")), entries AS (INSERT INTO audit_log (log, epoch, position, kind, recorded_at, client_id, ticker, request_id, quote_id, canonical, hash) \
             SELECT $1::smallint, $2::integer, position, kind, recorded_at, client_id, ticker, request_id, quote_id::uuid, canonical, hash FROM batch), \
             priced AS (INSERT INTO quotes (log, epoch, position, recorded_at",
        );
        for column in COLUMNS {
            let _ = write!(sql, ", {}", column.name);
        }
        sql.push_str(") SELECT $1::smallint, $2::integer, position, recorded_at");
        for column in COLUMNS {
            let _ = write!(sql, ", {}::{}", column.name, column.sql_type);
        }
        let _ = write!(
            sql,
            " FROM batch WHERE kind = {QUOTE_KIND}) SELECT current_setting('synchronous_standby_names')"
        );
        sql
    }

    /// The single statement is its own transaction: one round trip.
    pub(super) async fn commit(&self, open: &Open, log: u16) -> Outcome {
        let ran = self
            .execute(&open.session.client, &open.statement, log)
            .await;
        outcome(&open.session, ran)
    }

    /// Inside a transaction of the caller's.
    pub(super) async fn insert(
        &self,
        client: &impl tokio_postgres::GenericClient,
        statement: &tokio_postgres::Statement,
        log: u16,
    ) -> Result<bool, tokio_postgres::Error> {
        let rows = client
            .query(statement, &self.parameters(&log_number(log)))
            .await?;
        Ok(standby(&rows))
    }

    async fn execute(
        &self,
        client: &Client,
        statement: &tokio_postgres::Statement,
        log: u16,
    ) -> Result<bool, tokio_postgres::Error> {
        // `query` returns only at ReadyForQuery, which follows the commit; the rows alone arrive before it.
        let rows = client
            .query(statement, &self.parameters(&log_number(log)))
            .await?;
        Ok(standby(&rows))
    }

    fn parameters<'b>(&'b self, log: &'b i16) -> Vec<&'b (dyn ToSql + Sync)> {
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![
            log,
            &self.epoch,
            &self.position,
            &self.kind,
            &self.recorded_at,
            &self.canonical,
            &self.hash,
        ];
        parameters.extend(
            self.fields
                .iter()
                .map(|values| values as &(dyn ToSql + Sync)),
        );
        parameters
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

#[cfg(test)]
mod tests {
    #[test]
    fn the_statement_numbers_every_parameter_once() {
        let sql = super::Batch::sql();
        for number in 1..=super::COLUMNS.len() + 7 {
            assert!(sql.contains(&format!("${number}::")), "${number}");
        }
    }
}
