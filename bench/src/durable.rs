//! Durable quotes over HTTP: against the same server with one quote a commit, against a handler that prices and records nothing,
//! and against single-row inserts committed one by one on the same cluster by pgbench.

use std::path::{Path, PathBuf};

use crate::{
    bare::Peer,
    load::{pgbench, wrk_cost, wrk_script},
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
    let mut rows = beside_itself(bre, rounds)?;
    for strict in [false, true] {
        let system = System::start(bre, strict)?;
        let mode = if strict { "strict" } else { "normal" };
        let case = format!("durable quotes over HTTP, 64 clients, {mode} mode");
        let script = locate_script(&system, "quote.lua")?;
        system.psql(TABLES)?;
        let insert = system.folder.path().join("insert.sql");
        std::fs::write(&insert, INSERT)?;
        let mut measured = Vec::new();
        for _ in 0..rounds {
            let (ours, _) = locates(system.pid(), &system.ready.url, &script)?;
            let theirs = pgbench(&system.ready.database_url, &insert, CLIENTS, SECONDS)?;
            measured.push((ours, theirs));
        }
        let peer = "pgbench, single-row commits, same cluster and mode";
        rows.push(Row::new(&case, "quotes", "1/s", peer, measured));
    }
    Ok(rows)
}

/// The same server committing one quote at a time, and a handler that does everything but record.
fn beside_itself(bre: &Path, rounds: usize) -> Result<Vec<Row>> {
    let ours = System::start(bre, false)?;
    let single = System::start_with(bre, false, "[database]\nbatch_quotes_max = 1")?;
    let unrecorded = Peer::start("bare-pricing")?;
    let (script, single_script) = (
        locate_script(&ours, "quote.lua")?,
        locate_script(&single, "quote.lua")?,
    );
    let unrecorded_url = format!("http://{}", unrecorded.address);
    let (mut single_rates, mut single_costs) = (Vec::new(), Vec::new());
    let (mut bare_rates, mut bare_costs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (rate, cost) = locates(ours.pid(), &ours.ready.url, &script)?;
        let (their_rate, their_cost) = locates(single.pid(), &single.ready.url, &single_script)?;
        single_rates.push((rate, their_rate));
        single_costs.push((cost, their_cost));
        let (rate, cost) = locates(ours.pid(), &ours.ready.url, &script)?;
        let (their_rate, their_cost) = locates(unrecorded.pid(), &unrecorded_url, &script)?;
        bare_rates.push((rate, their_rate));
        bare_costs.push((cost, their_cost));
    }
    let case = "durable quotes over HTTP, 64 clients";
    let (one, bare) = (
        "the same server, one quote a commit",
        "bare axum: key, limit, price, JSON, no record",
    );
    let cost = "processor time of server and database";
    Ok(vec![
        Row::new(case, "quotes", "1/s", one, single_rates),
        Row::new(case, cost, "µs each", one, single_costs),
        Row::new(case, "quotes", "1/s", bare, bare_rates),
        Row::new(case, cost, "µs each", bare, bare_costs),
    ])
}

fn locates(pid: u32, url: &str, script: &Path) -> Result<(f64, f64)> {
    let url = format!("{url}/api/v1/calculate-locate");
    let script = script.to_string_lossy();
    wrk_cost(pid, &url, CLIENTS, SECONDS, &["-s", &script])
}

fn locate_script(system: &System, name: &str) -> Result<PathBuf> {
    let body = format!(
        r#"{{"ticker":"GME","position_value":"100000.00","loan_days":30,"client_id":"{}"}}"#,
        system.ready.client_id
    );
    wrk_script(system.folder.path(), name, &system.ready.api_key, &body)
}
