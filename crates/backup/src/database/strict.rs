//! Strict mode: a commit returns only when the repository holds it. It is PostgreSQL's synchronous replication with our
//! stream as the one standby.

use crate::{BackupError, Result};
use postgres_physical::server::sql::{Client, quote_identifier, quote_literal};
use postgres_physical::wire::ConnectOptions;
use std::time::{Duration, Instant};

/// Switches strict mode on (once the stream named `application_name` is attached) or off, and returns when every later
/// commit obeys. Needs a superuser. `synchronous_standby_names` must not be given on the server's command line, which
/// would win over this.
pub fn set_strict(connect: &ConnectOptions, application_name: &str, on: bool) -> Result<()> {
    let mut client = Client::connect(connect)?;
    if on {
        let streaming = format!(
            "SELECT 1 FROM pg_stat_replication WHERE application_name = {} AND state = 'streaming'",
            quote_literal(application_name)
        );
        if client.value(&streaming)?.is_none() {
            return Err(BackupError::Setting(format!(
                "the stream {application_name} is not attached; every commit would wait for it, so strict mode stays off: start the stream first"
            )));
        }
    }
    let names = if on {
        quote_identifier(application_name)
    } else {
        String::new()
    };
    client.query(&format!(
        "ALTER SYSTEM SET synchronous_standby_names = {}",
        quote_literal(&names)
    ))?;
    client.query("SELECT pg_reload_conf()")?;
    wait_until_set(connect, &names)?;
    // New sessions see the setting now, so the checkpointer was told. It is the one who makes commits wait, and it looks
    // at its settings before it serves this request.
    Client::connect(connect)?.query("CHECKPOINT")?;
    Ok(())
}

fn wait_until_set(connect: &ConnectOptions, names: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if is_set(connect, names)? {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(BackupError::Setting(
                "synchronous_standby_names did not change; it is set on the server's command line or in a file that wins: remove it there".into(),
            ));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_set(connect: &ConnectOptions, names: &str) -> Result<bool> {
    Ok(Client::connect(connect)?
        .value("SHOW synchronous_standby_names")?
        .as_deref()
        == Some(names))
}

/// Whether commits wait for the stream of that name.
pub fn is_strict(connect: &ConnectOptions, application_name: &str) -> Result<bool> {
    is_set(connect, &quote_identifier(application_name))
}
