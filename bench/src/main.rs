//! `make bench`: each benchmark runs ours and a peer alternately in one run, over several rounds, and prints ratios.
//!
//! Absolute figures depend on the machine and what else it does; the ratio of medians is the result.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod durable;
mod http;
mod load;
mod protection;
mod system;
mod table;

use std::path::PathBuf;

use clap::Parser;
use system::Result;

#[derive(Debug, Parser)]
struct Arguments {
    /// `all`, `http`, `durable`, `protection`; `bare-axum` is the peer of `http`.
    #[arg(default_value = "all")]
    what: String,
    /// Rounds of each comparison.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
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
    if arguments.what == "bare-axum" {
        return http::bare_axum().await;
    }
    let bre = std::env::current_exe()?.with_file_name("bre");
    let wanted = |name: &str| arguments.what == "all" || arguments.what == name;
    let rounds = arguments.rounds;
    if wanted("http") {
        let settings = "wrk, 1 thread, 64 connections, 5 s a round, keep-alive; ours with API key, limit, request id and metrics";
        table::publish("http", settings, &http::run(&bre, rounds)?, &arguments.out)?;
    }
    if wanted("durable") {
        let settings = "wrk / pgbench -M prepared -j1, 64 clients, 5 s a round; fsync on, WAL streamed to the repository";
        table::publish(
            "durable",
            settings,
            &durable::run(&bre, rounds)?,
            &arguments.out,
        )?;
    }
    if wanted("protection") {
        let settings = "one cluster, warm; ours encrypts, pg_basebackup does not";
        table::publish(
            "protection",
            settings,
            &protection::run_all(&bre, rounds)?,
            &arguments.out,
        )?;
    }
    Ok(())
}
