//! Durable quotes over HTTP: against the same server with one quote a commit, against the same server without audit
//! (see `unrecorded.rs` for what is left out), against a bare handler that prices and records nothing, and against
//! single-row inserts committed one by one on the same cluster by pgbench.

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

/// The same server committing one quote at a time, the same without a record, and a bare handler without one.
fn beside_itself(bre: &Path, rounds: usize) -> Result<Vec<Row>> {
    let ours = System::start(bre, false)?;
    let single = System::start_with(bre, false, "[database]\nbatch_quotes_max = 1")?;
    let same = Peer::start(&["unrecorded", "--database-url", &ours.ready.database_url])?;
    let bare = Peer::start(&["bare-pricing"])?;
    let script = locate_script(&ours, "quote.lua")?;
    let single_script = locate_script(&single, "quote.lua")?;
    let peers = [
        (
            "the same server, one quote a commit",
            single.pid(),
            single.ready.url.clone(),
            &single_script,
        ),
        (
            "the same server without audit",
            same.pid(),
            format!("http://{}", same.address),
            &script,
        ),
        (
            "bare axum: key, limit, price, JSON, no record",
            bare.pid(),
            format!("http://{}", bare.address),
            &script,
        ),
    ];
    let mut measured = vec![(Vec::new(), Vec::new()); peers.len()];
    for _ in 0..rounds {
        for ((_, pid, url, their_script), (rates, costs)) in peers.iter().zip(&mut measured) {
            let (rate, cost) = locates(ours.pid(), &ours.ready.url, &script)?;
            let (their_rate, their_cost) = locates(*pid, url, their_script)?;
            rates.push((rate, their_rate));
            costs.push((cost, their_cost));
        }
    }
    let case = "durable quotes over HTTP, 64 clients";
    let cost = "processor time of server and database";
    let rows = peers.iter().zip(measured);
    Ok(rows
        .flat_map(|((peer, ..), (rates, costs))| {
            [
                Row::new(case, "quotes", "1/s", peer, rates),
                Row::new(case, cost, "µs each", peer, costs),
            ]
        })
        .collect())
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
