//! Whether a session is ours alone. A pooler that gives a session's transactions to different servers lets settings and
//! locks leak from one client to the next: what we set for ourselves would be in force for an application, and its
//! settings for us.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::sql::Client;
use crate::wire::{ConnectOptions, Wire, WireError};

/// The name of our setting, in which a session's own word is kept.
const SETTING: &str = "bre.session";
/// Of a second session through a pooler: where it does not come in time, the first one keeps its server to itself.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// A pooler that takes its servers in turn shows itself at the second round.
const PROBE_ROUNDS: usize = 3;

/// The word that the session was told, and the server's process.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    word: Option<String>,
    process: Option<String>,
}

/// The server is told a word at the start, in a parameter that poolers refuse or lose. Behind one of them it is looked
/// whether it keeps the session on one server.
pub(super) fn connect(options: &ConnectOptions) -> Result<Client, WireError> {
    let word = word();
    let told = format!("-c {SETTING}={word}");
    let (mut client, mut pooled) = match Wire::connect(options, &[("options", &told)]) {
        Ok(wire) => (client(wire), false),
        Err(error) if error.is_of_a_pooler() => (client(Wire::connect(options, &[])?), true),
        Err(error) => return Err(error),
    };
    pooled = pooled || ask(&mut client, None)?.word.as_deref() != Some(&word);
    if pooled && !keeps_sessions(&mut client, &word, options)? {
        let target = options.target();
        return Err(WireError::SharedSession { target });
    }
    Ok(client)
}

fn client(wire: Wire) -> Client {
    let notices = Vec::new();
    Client { wire, notices }
}

/// No other session has it.
fn word() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = since.unwrap_or_default().as_nanos();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{nanos:x}-{:x}-{count:x}", std::process::id())
}

fn ask(client: &mut Client, deadline: Option<Instant>) -> Result<Said, WireError> {
    let sql = format!(
        "SELECT pg_catalog.current_setting('{SETTING}', true), pg_catalog.pg_backend_pid()"
    );
    let rows = client.query_before(&sql, deadline)?.rows;
    let mut row = rows.into_iter().next().unwrap_or_default().into_iter();
    Ok(Said {
        word: row.next().flatten(),
        process: row.next().flatten(),
    })
}

/// Proved by a second session that looks for the first one's server, as often as it takes a pooler that takes servers
/// in turn to show itself.
fn keeps_sessions(
    client: &mut Client,
    word: &str,
    options: &ConnectOptions,
) -> Result<bool, WireError> {
    client.query(&format!(
        "SELECT pg_catalog.set_config('{SETTING}', '{word}', false)"
    ))?;
    let own = ask(client, None)?;
    for _ in 0..PROBE_ROUNDS {
        let deadline = Instant::now() + PROBE_TIMEOUT;
        let mut second = match second(options, deadline) {
            Ok(second) => second,
            // A pooler in statement mode refuses a transaction.
            Err(WireError::Server { .. }) => return Ok(false),
            // No other server while the first one is ours, or no place for a second session: one is kept.
            Err(_) => return Ok(ask(client, None).is_ok_and(|said| said == own)),
        };
        let said = ask(&mut second, Some(deadline))?;
        let shared = said.process == own.process || said.word.as_deref() == Some(word);
        if shared || ask(client, None)? != own {
            return Ok(false);
        }
    }
    Ok(true)
}

/// In a transaction, which it is in for as long as it lives.
fn second(options: &ConnectOptions, deadline: Instant) -> Result<Client, WireError> {
    let mut options = options.clone();
    options.timeout = options.timeout.min(PROBE_TIMEOUT);
    let mut second = client(Wire::connect(&options, &[])?);
    second.query_before("BEGIN", Some(deadline))?;
    Ok(second)
}
