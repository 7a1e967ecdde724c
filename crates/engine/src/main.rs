//! `bre`: the one binary. Reads the command line, does what it says, and turns errors into texts and exit codes.
//!
//! Entry point: [`cli::Cli`]; `commands/` holds the commands: they read arguments, call `operations` or `supervisor`,
//! and print. Absent on purpose: what can be done without a terminal. That is in the library crates.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cli;
mod commands;
mod error;
mod question;

use std::process::ExitCode;

use clap::{Parser, error::ErrorKind};

use crate::cli::aliases::{Spelling, suggestion};
use operations::exit::Exit;

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
