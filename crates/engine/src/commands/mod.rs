//! One short file a command: read the arguments, call a library, print.

mod audit;
mod backup;
mod detach;
mod drill;
pub(crate) mod import;
mod keys;
pub(crate) mod opened;
pub(crate) mod progress;
mod quote;
mod replay;
mod restore;
mod status;
mod wal;

use std::{future::Future, process::ExitCode};

use crate::{
    cli::{Cli, Command},
    error::Error,
    instance::Instance,
    serve, up,
};

pub(crate) fn run(cli: Cli) -> Result<ExitCode, Error> {
    let instance = Instance::at(&cli.data)?;
    let json = cli.json;
    match cli.command {
        Command::Up(args) => return up::run(&instance, json, &args),
        Command::Serve(args) => return serve::run(&instance, json, &args),
        Command::Drill(command) => return drill::run(json, command),
        Command::Wal(command) => return Ok(wal::run(&instance, command)),
        Command::Backup(command) => return backup::run(&instance, json, command),
        Command::Restore(args) => restore::run(&instance, json, &args)?,
        Command::Detach { yes } => detach::run(&instance, json, yes)?,
        Command::Import(args) => wait(import::run(&instance, json, &args))?,
        Command::Quote(args) => wait(quote::run(&instance, json, &args))?,
        Command::Keys(command) => wait(keys::run(&instance, json, command))?,
        Command::DrillClient(args) => wait(drill::client(args))?,
        Command::Audit(command) => return wait(audit::run(&instance, json, command)),
        Command::Replay => return wait(replay::run(&instance, json)),
        Command::Status => return wait(status::run(&instance, json)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Commands talk to one thing at a time: one thread is enough.
fn wait<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Failed(format!("cannot start: {error}")))?
        .block_on(work)
}
