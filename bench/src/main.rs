//! `make bench`: each benchmark runs ours and a peer alternately in one run, over several rounds, and prints ratios.
//!
//! Absolute figures depend on the machine and what else it does; the ratio of medians is the result.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bare;
mod cpu;
mod durable;
mod http;
mod load;
mod prices;
mod protection;
mod reference;
mod secured;
mod sql;
mod system;
mod table;
mod unrecorded;

/// The same for ours and for every peer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use std::path::PathBuf;

use clap::Parser;
use system::Result;

#[derive(Debug, Parser)]
struct Arguments {
    /// `all`, `prices`, `http`, `sql`, `durable`, `secured`, `protection`; `bare-axum`, `bare-pricing` and `unrecorded`
    /// are peers.
    #[arg(default_value = "all")]
    what: String,
    /// Rounds of each comparison.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Of the instance that the peer `unrecorded` reads keys and market from.
    #[arg(long, default_value = "")]
    database_url: String,
    /// Where the JSON goes.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

#[allow(clippy::print_stdout, reason = "a benchmark prints")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.what.as_str() {
        "bare-axum" => return bare::axum_alone().await,
        "bare-pricing" => return bare::pricing_alone().await,
        "unrecorded" => return unrecorded::serve(&arguments.database_url).await,
        _ => {}
    }
    let bre = std::env::current_exe()?.with_file_name("bre");
    let wanted = |name: &str| arguments.what == "all" || arguments.what == name;
    let rounds = arguments.rounds;
    let mut sections = Vec::new();
    let mut keep = |name, settings, rows| {
        let section = table::Section {
            name,
            settings,
            rows,
        };
        section.keep(&arguments.out)?;
        sections.push(section);
        Ok::<_, std::io::Error>(())
    };
    if wanted("prices") {
        let settings = "in-process; rate and fee by the five shipped policies and four conventions; each round prices the same million";
        keep("prices", settings, prices::run(rounds)?)?;
    }
    if wanted("http") {
        let settings = "wrk, 1 thread, 64 keep-alive connections, 5 s a round; ours with API key, limit, request id and metrics; \
             the peer in a process of its own, same allocator";
        keep("http", settings, http::run(&bre, rounds)?)?;
    }
    if wanted("sql") {
        let settings = "64 clients, 3 s a round, fsync on, prepared statements, the same two tables in the cluster of `bre up`; a round that is \
             not counted first, a checkpoint before each turn, whose order changes from round to round";
        keep("sql", settings, sql::run(&bre, rounds).await?)?;
    }
    if wanted("durable") {
        let settings = "wrk, or pgbench -M prepared -j1, 64 clients, 5 s a round; fsync on, WAL streamed to the encrypted repository; \
             \"without audit\" is our own server with the record step left out (bench/src/unrecorded.rs)";
        keep("durable", settings, durable::run(&bre, rounds)?)?;
    }
    if wanted("secured") {
        let settings = "wrk, 1 thread, 64 clients, 5 s a round; `bre serve`, its database on the same machine over TCP, fsync on, no stream; with \
             TLS 1.3, verify-full, an ECDSA certificate; printed, not judged";
        keep("secured", settings, secured::run(&bre, rounds)?)?;
    }
    if wanted("protection") {
        let settings = "one cluster, warm; ours encrypts, pg_basebackup does not";
        keep("protection", settings, protection::run_all(&bre, rounds)?)?;
    }
    table::print(&sections, rounds);
    Ok(())
}
