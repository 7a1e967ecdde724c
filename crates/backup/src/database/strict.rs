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
        wait_until_streaming(&mut client, application_name)?;
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

/// A stream that still catches up is waited for; one that is not there is an error at once.
fn wait_until_streaming(client: &mut Client, application_name: &str) -> Result<()> {
    let name = quote_literal(application_name);
    let sql = format!(
        "SELECT state FROM pg_stat_replication WHERE application_name = {name} ORDER BY state = 'streaming' DESC"
    );
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match client.value(&sql)?.as_deref() {
            Some("streaming") => return Ok(()),
            Some(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            state => {
                let state = state.unwrap_or("not attached");
                return Err(BackupError::Setting(format!(
                    "the stream {application_name} is {state}; every commit would wait for it, so strict mode stays off: \
                     see to the stream first"
                )));
            }
        }
    }
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
