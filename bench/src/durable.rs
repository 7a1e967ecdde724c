//! Durable quotes over HTTP, against single-row inserts committed one by one on the same cluster by pgbench.

use std::path::Path;

use crate::{
    load::{pgbench, wrk, wrk_script},
    system::{Result, System},
    table::Row,
};

const CLIENTS: u32 = 64;
const SECONDS: u32 = 5;

/// A row like ours: the entry's bytes in one table, the quote's columns in another, both in one commit.
const TABLES: &str = "CREATE TABLE peer_log (position bigserial PRIMARY KEY, recorded_at timestamptz DEFAULT now(), \
     client_id text, canonical bytea, hash bytea); \
     CREATE TABLE peer_quotes (position bigserial PRIMARY KEY, ticker text, value numeric(20,2), total numeric(20,4))";
const INSERT: &str = "WITH logged AS (INSERT INTO peer_log (client_id, canonical, hash) VALUES ('standard', \
     decode(repeat('ab', 1500), 'hex'), decode(repeat('cd', 32), 'hex')) RETURNING position) \
     INSERT INTO peer_quotes (ticker, value, total) SELECT 'GME', 100000.00, 456.5068 FROM logged;\n";

pub(crate) fn run(bre: &Path, rounds: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for strict in [false, true] {
        let system = System::start(bre, strict)?;
        let mode = if strict { "strict" } else { "normal" };
        let case = format!("durable quotes over HTTP, 64 clients, {mode} mode");
        let measured = measure(&system, rounds)?;
        rows.push(Row::new(
            &case,
            "quotes",
            "1/s",
            "pgbench, single-row commits, same cluster and mode",
            measured,
        ));
    }
    Ok(rows)
}

fn measure(system: &System, rounds: usize) -> Result<Vec<(f64, f64)>> {
    let folder = system.folder.path();
    let body = format!(
        r#"{{"ticker":"GME","position_value":"100000.00","loan_days":30,"client_id":"{}"}}"#,
        system.ready.client_id
    );
    let script = wrk_script(folder, "quote.lua", &system.ready.api_key, &body)?;
    let script = script.to_string_lossy().into_owned();
    system.psql(TABLES)?;
    let insert = folder.join("insert.sql");
    std::fs::write(&insert, INSERT)?;
    let url = format!("{}/api/v1/calculate-locate", system.ready.url);
    let mut measured = Vec::new();
    for _ in 0..rounds {
        let ours = wrk(&url, CLIENTS, SECONDS, &["-s", &script])?;
        let theirs = pgbench(&system.ready.database_url, &insert, CLIENTS, SECONDS)?;
        measured.push((ours, theirs));
    }
    Ok(measured)
}
