//! Entries and their quotes in one statement.

use std::convert::Infallible;

use audit::{Chain, ChainError, ChainLink, Entry, Hash, Kind, SealedEntry};
use tokio_postgres::error::SqlState;
use tokio_postgres::{GenericClient, Statement};

use super::open::LogSession;
use super::rows::log_number;
use crate::data::database::{Session, describe};
use crate::data::quotes::{QuoteRow, repeated};
use crate::data::row::{Columns, RowWriter, Rows, Value};

/// What became of a commit.
#[derive(Debug)]
pub(super) enum CommitOutcome {
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

/// An expression that ends the statement, and takes back all of it, where it runs in another session of the server than the one that was
/// opened (and holds the log's lock): behind a pooler it may. The parameter is [`Session::word`].
macro_rules! own_session {
    ($parameter:literal) => {
        concat!(
            "CASE WHEN current_setting('bre.session', true) = ",
            $parameter,
            "::text THEN pg_backend_pid() ELSE ('this is another session than the one that holds the lock: process ' || pg_backend_pid())::integer END"
        )
    };
}
pub(super) use own_session;

/// Row by row, as the statement takes them.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) entries: Rows,
    quotes: Rows,
}

impl Batch {
    /// Names no column: the rows have those of the tables, all of them and in order, which the server checks.
    pub(super) const SQL: &str = concat!(
        "WITH entries AS (INSERT INTO audit_log SELECT * FROM UNNEST($1::audit_log[])), \
         priced AS (INSERT INTO quotes SELECT * FROM UNNEST($2::quotes[])) \
         SELECT current_setting('synchronous_standby_names'), ",
        own_session!("$3")
    );

    /// An entry alone.
    pub(super) fn push(&mut self, sealed: &SealedEntry) {
        let entry = &sealed.entry;
        let repeated: Columns = repeated(|name| entry.fields.get(name))
            .into_iter()
            .collect();
        let pushed = self.entries.row(|row| {
            entry_row(row, &place(entry), entry.kind, &repeated, |bytes| {
                bytes.extend_from_slice(&sealed.bytes);
                Ok::<_, Infallible>(((), sealed.hash))
            })
        });
        match pushed {
            Ok(()) => {}
        }
    }

    /// The chain's next entry, written where it is sent from.
    pub(super) fn quote(
        &mut self,
        chain: &mut Chain,
        at_micros: i64,
        quote: &QuoteRow,
    ) -> Result<ChainLink, ChainError> {
        let place = place_of(chain.log(), chain.epoch(), chain.position() + 1, at_micros);
        let placed = self.entries.row(|row| {
            entry_row(row, &place, Kind::Quote, &quote.repeated, |bytes| {
                let placed = chain.append_encoded(Kind::Quote, at_micros, &quote.fields, bytes)?;
                Ok::<_, ChainError>((placed, placed.hash))
            })
        })?;
        self.quotes.push(&place, Some(&quote.row));
        Ok(placed)
    }

    /// Keeps its memory for the next commit.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.quotes.clear();
    }

    /// The single statement is its own transaction: one round trip.
    pub(super) async fn commit(&self, open: &LogSession) -> CommitOutcome {
        let session = &open.session;
        let ran = self
            .insert(&session.client, &open.statement, &session.word)
            .await;
        outcome(&open.session, ran)
    }

    /// On a transaction of the caller's, or else as its own; then it has committed when this returns: `query` waits for
    /// ReadyForQuery, which follows the commit, while the rows alone arrive before it.
    pub(super) async fn insert(
        &self,
        client: &impl GenericClient,
        statement: &Statement,
        word: &str,
    ) -> Result<bool, tokio_postgres::Error> {
        let rows = client
            .query(statement, &[&self.entries, &self.quotes, &word])
            .await?;
        Ok(standby(&rows))
    }
}

/// The columns of `audit_log`, in their order. `canonical` appends the entry's bytes and tells their hash.
fn entry_row<T, E>(
    row: &mut RowWriter<'_>,
    place: &[Value<'_>; 4],
    kind: Kind,
    repeated: &Columns,
    canonical: impl FnOnce(&mut Vec<u8>) -> Result<(T, Hash), E>,
) -> Result<T, E> {
    let [log, epoch, position, recorded_at] = place;
    row.value(log);
    row.value(epoch);
    row.value(position);
    row.value(&Value::Small(i16::from(kind.number())));
    row.value(recorded_at);
    row.columns(repeated);
    let (made, hash) = row.bytes(canonical)?;
    row.value(&Value::Bytes(hash.as_bytes()));
    Ok(made)
}

/// Where an entry stands: the first columns of every table of the record.
pub(super) fn place(entry: &Entry) -> [Value<'static>; 4] {
    place_of(
        entry.log,
        entry.epoch,
        entry.position,
        entry.recorded_at_micros,
    )
}

/// The format keeps epoch and position within the signed types.
fn place_of(log: u16, epoch: u32, position: u64, recorded_at_micros: i64) -> [Value<'static>; 4] {
    [
        Value::Small(log_number(log)),
        Value::Integer(epoch.cast_signed()),
        Value::Big(position.cast_signed()),
        Value::Time(recorded_at_micros),
    ]
}

pub(super) fn standby(rows: &[tokio_postgres::Row]) -> bool {
    rows.first()
        .is_some_and(|row| !row.get::<_, String>(0).trim().is_empty())
}

pub(super) fn outcome(
    session: &Session,
    ran: Result<bool, tokio_postgres::Error>,
) -> CommitOutcome {
    let warnings = session.take_warnings();
    match ran {
        Ok(standby) => CommitOutcome::Committed { warnings, standby },
        Err(error) if is_final(&error) => CommitOutcome::RolledBack(describe(&error)),
        Err(error) => CommitOutcome::Lost(describe(&error)),
    }
}

/// Whether the server took the statement back. An ERROR does; a session that is ended (classes 57P and 08) may have committed before. One
/// that has become read-only (25006) has not: it refused to write.
fn is_final(error: &tokio_postgres::Error) -> bool {
    let Some(db) = error.as_db_error() else {
        return false;
    };
    let read_only = *db.code() == SqlState::READ_ONLY_SQL_TRANSACTION;
    let ended = !read_only && connection::is_away(db.code().code());
    db.severity() == "ERROR" && !ended && !error.is_closed()
}
