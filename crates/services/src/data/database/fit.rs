//! Whether what answers can keep a record at all: a PostgreSQL whose session locks lock, reached as a session of our own. A pooler that
//! gives a session's transactions to different servers loses the log's lock, and two data-services would both believe they hold it.

use std::time::Duration;

use connection::{Address, ConnectOptions};
use tokio_postgres::{Client, SimpleQueryMessage};

use super::{DatabaseError, Raw};

/// The name of our setting, in which a session's own word is kept.
pub(super) const SETTING: &str = "bre.session";
/// Of a second session through a pooler: where it does not come in time, the first one keeps its server to itself.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// A pooler that takes its servers in turn shows itself at the second round.
const PROBE_ROUNDS: usize = 3;

/// Engines that speak the protocol, by what their `version()` holds, whose `pg_advisory_lock` is a stub or locks nothing beyond one node.
const STUBS: [(&str, &str); 5] = [
    ("CockroachDB", "CockroachDB"),
    ("YugabyteDB", "-YB-"),
    ("YugabyteDB", "Yugabyte"),
    ("Redshift", "Redshift"),
    ("Materialize", "Materialize"),
];

/// What a session says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) word: String,
    pub(super) process: String,
    pub(super) in_recovery: bool,
    pub(super) read_only: bool,
}

async fn first_row(client: &Client, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
    for message in client.simple_query(sql).await? {
        if let SimpleQueryMessage::Row(row) = message {
            let field = |index| row.get(index).unwrap_or_default().to_owned();
            return Ok((0..row.len()).map(field).collect());
        }
    }
    Ok(Vec::new())
}

/// Refuses engines on which a lock is none.
pub(super) async fn check_engine(client: &Client) -> Result<(), DatabaseError> {
    let row = first_row(client, "SELECT pg_catalog.version()").await;
    let row = row.map_err(DatabaseError::query("asking for the server's version"))?;
    let version = row.first().map(String::as_str).unwrap_or_default();
    match STUBS.iter().find(|(_, sign)| version.contains(sign)) {
        None => Ok(()),
        Some((name, _)) => Err(DatabaseError::Unfit(format!(
            "it is {name} ({version}), whose session locks (pg_advisory_lock) do not lock, so two data-services could write one log; use PostgreSQL"
        ))),
    }
}

pub(super) async fn ask(client: &Client) -> Result<Said, tokio_postgres::Error> {
    let sql = format!(
        "SELECT coalesce(pg_catalog.current_setting('{SETTING}', true), ''), pg_catalog.pg_backend_pid(), pg_catalog.pg_is_in_recovery(), \
         pg_catalog.current_setting('transaction_read_only')"
    );
    let mut row = first_row(client, &sql).await?.into_iter();
    let mut next = || row.next().unwrap_or_default();
    Ok(Said {
        word: next(),
        process: next(),
        in_recovery: next() == "t",
        read_only: next() == "on",
    })
}

/// A pooler stands in between; does it keep a session on one server? Proved by a second session that looks for the first one's server,
/// as often as it takes a pooler that takes servers in turn to show itself. Each batch asks again, for all that this could not see.
pub(super) async fn keeps_sessions(
    client: &Client,
    word: &str,
    options: &ConnectOptions,
    address: &Address,
) -> Result<bool, DatabaseError> {
    let set = format!("SELECT pg_catalog.set_config('{SETTING}', '{word}', false)");
    let failed = DatabaseError::query("looking at a pooler");
    client.simple_query(&set).await.map_err(&failed)?;
    let own = ask(client).await.map_err(&failed)?;
    for _ in 0..PROBE_ROUNDS {
        let second = tokio::time::timeout(PROBE_TIMEOUT, async {
            let raw: Raw = super::connect_raw(options, address, None).await?;
            // A pooler in statement mode refuses this.
            if raw.client.simple_query("BEGIN").await.is_err() {
                return Ok(None);
            }
            let said = ask(&raw.client).await.map_err(&failed)?;
            Ok::<_, DatabaseError>(Some((raw, said)))
        });
        let (second, said) = match second.await {
            // The pool has no other server while the first one is ours, or no place for a second session: one is kept.
            Err(_) | Ok(Err(_)) => return Ok(ask(client).await.is_ok_and(|said| said == own)),
            Ok(Ok(None)) => return Ok(false),
            Ok(Ok(Some(second))) => second,
        };
        let shared = said.process == own.process || said.word == word;
        // In this order: where the pool has one server, the second session's transaction has it, and the first one
        // would wait for it for ever.
        if shared || ask(client).await.map_err(&failed)? != own {
            return Ok(false);
        }
        drop(second);
    }
    Ok(true)
}

/// How PgBouncer begins its word about a start-up parameter that it does not pass on.
pub(super) fn is_poolers_word(error: &tokio_postgres::Error) -> bool {
    error
        .as_db_error()
        .is_some_and(|db| db.message().starts_with("unsupported startup parameter"))
}

pub(super) fn pooler(address: &Address) -> DatabaseError {
    DatabaseError::Unfit(format!(
        "what answers at {address} is a connection pooler that gives a session's transactions to different servers (pool_mode = transaction or \
         statement): session locks, prepared statements and settings are lost or leak there. Name the server's own address, or a pool with pool_mode = session"
    ))
}
