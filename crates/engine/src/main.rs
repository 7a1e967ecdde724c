//! `bre`: the one binary. Reads the command line, does what it says, and turns errors into texts and exit codes.
//!
//! Entry point: [`cli::Cli`]; `up/` runs an instance, `serve/` the services in several processes, `commands/` holds the
//! commands. Absent on purpose: pricing, formats, and SQL on the engine's own tables. They live in the library crates.
//! SQL for administration (roles, slots, settings) is here.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod anchors;
mod audit_archive;
mod audit_outside;
mod audit_statements;
mod backup_record;
mod backup_request;
mod cache;
mod cli;
mod clusters;
mod command_output;
mod commands;
mod config;
mod copies;
mod error;
mod exit;
mod expiry;
mod heads;
mod health;
mod inclusion;
mod job_status;
mod jobs;
mod lost;
mod missing;
mod passed_over;
mod plan;
mod primary_repository;
mod public_log;
mod question;
mod read_book;
mod recovery_fact;
mod reload;
mod repository_handle;
mod restore_test;
mod restored;
mod run_by_hand;
mod schema;
mod schema_check;
mod scratch;
mod secret_file;
mod serve;
mod settings_file;
mod snapshots;
mod standby;
mod stream_evidence;
mod thinning;
mod up;

use std::process::ExitCode;

use clap::{Parser, error::ErrorKind};

use crate::{
    cli::aliases::{Spelling, suggestion},
    exit::Exit,
};

/// A quote is some two hundred small allocations, made in one thread and freed in another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The words of clap, help among them; of an old word that was mistyped, the new one as well.
fn not_understood(error: &clap::Error, spelling: &Spelling) -> ExitCode {
    let _ = error.print();
    if !error.use_stderr() {
        return Exit::Done.into();
    }
    let unknown = matches!(
        error.kind(),
        ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument
    );
    let meant = suggestion(&spelling.arguments).filter(|_| unknown);
    if let Some(meant) = meant {
        terminal::note(&format!("\n  tip: that is called `{meant}` now"));
    }
    Exit::Usage.into()
}

fn main() -> ExitCode {
    let spelling = cli::aliases::current(std::env::args_os().collect());
    let cli = match cli::Cli::try_parse_from(&spelling.arguments) {
        Ok(cli) => cli,
        Err(error) => return not_understood(&error, &spelling),
    };
    let json = cli.json;
    if let Some(note) = spelling.note(json) {
        terminal::note(&note);
    }
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) => {
            if json {
                terminal::note(
                    &serde_json::json!({ "status": "error", "error": error.to_string() })
                        .to_string(),
                );
            } else {
                terminal::note(&format!("bre: {error}"));
            }
            error.exit_code()
        }
    }
}
