//! The commands, one file each: read the arguments, call a library, print.

mod api_key;
mod audit;
pub(crate) mod audit_archive;
mod audit_follow;
mod audit_from_archive;
mod audit_keys;
mod audit_prove;
mod audit_tables;
pub(crate) mod backup;
mod book;
mod cache_origin;
mod check_redis;
mod cluster_state;
mod completion;
pub(crate) mod detach;
mod drill;
mod expire;
mod feed;
pub(crate) mod import;
mod job;
mod locate;
mod pages;
pub(crate) mod plan;
mod public;
mod quote;
mod replay;
mod repository;
mod repository_keys;
pub(crate) mod restore;
pub(crate) mod restore_audit_log;
mod restore_cache;
mod restore_infrastructure;
mod restore_preview;
pub(crate) mod restore_test;
pub(crate) mod schema;
#[cfg(test)]
mod screens;
mod secrets_manager;
mod serve;
mod signing_keys;
pub(crate) mod snapshot;
mod snapshot_diff;
mod standby;
pub(crate) mod status;
mod stock;
mod table;
#[cfg(test)]
mod throw_away_job;
mod up;
mod verify;
mod verify_repository;
mod wal;
mod window;
mod witness;
use host::{instance::Instance, runtime::wait};
use std::process::ExitCode;

use crate::{
    cli::{CheckCommand, Cli, Command, PlanCommand, RestoreCommand},
    error::Error,
};
use operations::{exit::Exit, read_book};

pub(crate) fn run(cli: Cli) -> Result<ExitCode, Error> {
    if let Command::ReadBook { limited } = cli.command {
        return Ok(decode_book(limited).into());
    }
    let instance = Instance::at(&cli.data)?;
    let json = cli.json;
    match cli.command {
        Command::Up(args) => return up::run(&instance, json, args),
        Command::Serve(args) => return serve::run(&instance, json, args),
        Command::Drill(command) => return drill::run(json, command),
        Command::Standby(command) => return standby::run(&instance, json, command),
        Command::Wal(command) => return wal::run(&instance, json, command),
        Command::Backup(command) => return backup::run(&instance, json, command),
        Command::Snapshot(command) => return snapshot::run(&instance, json, &command),
        Command::Repository(command) => return repository::run(&instance, json, command),
        Command::Verify(command) => return verify::run(&instance, json, command),
        Command::Plan(PlanCommand::Show(args)) => {
            return plan::show(&instance, json, args.cluster.as_deref());
        }
        Command::Plan(PlanCommand::Check(args)) => return plan::check(&instance, json, &args),
        Command::Job(command) => return job::run(&instance, json, command),
        Command::Schema(command) => return schema::run(&instance, json, &command),
        Command::Restore(RestoreCommand::Database(args)) => {
            return restore::run(&instance, json, &args);
        }
        Command::Restore(RestoreCommand::Table(args)) => {
            return table::run(&instance, json, &args);
        }
        Command::Restore(RestoreCommand::Pages(args)) => {
            return pages::restore(&instance, json, args);
        }
        Command::Restore(RestoreCommand::Cache(args)) => {
            return restore_cache::run(&instance, json, &args);
        }
        Command::Restore(RestoreCommand::AuditLog(args)) => {
            return wait(restore_audit_log::run(&instance, json, &args));
        }
        Command::Check(CheckCommand::Redis(args)) => {
            return check_redis::run(&instance, json, &args);
        }
        Command::Restore(RestoreCommand::Iam(args)) => {
            return restore_infrastructure::iam(&instance, json, &args);
        }
        Command::Restore(RestoreCommand::Snapshot(args)) => {
            return snapshot::restore(&instance, json, &args);
        }
        Command::RestoreTest(command) => return restore_test::command(&instance, json, command),
        Command::Completion { shell } => completion::print(shell),
        Command::Man { out } => completion::manual(json, out.as_deref())?,
        Command::Feed(command) => wait(feed::run(&instance, json, command))?,
        Command::Import(args) => wait(import::run(&instance, json, &args))?,
        Command::Quote(args) => wait(quote::run(&instance, json, &args))?,
        Command::Stock(command) => wait(stock::run(&instance, json, &command))?,
        Command::Locate(command) => wait(locate::run(&instance, json, &command))?,
        Command::ApiKey(command) => wait(api_key::run(&instance, json, command))?,
        Command::DrillClient(args) => wait(drill::client(args))?,
        Command::ReadBook { .. } => {}
        Command::Witness(command) => return wait(witness::run(json, command)),
        Command::Audit(command) => return wait(audit::run(&instance, json, command)),
        Command::Book(command) => return wait(book::run(&instance, json, command)),
        Command::Replay(args) => return wait(replay::run(&instance, json, &args)),
        Command::Status { cluster } => {
            return wait(status::run(&instance, json, cluster.as_deref()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn decode_book(limited: bool) -> Exit {
    match read_book::run(limited) {
        Ok(()) => Exit::Done,
        Err(why) => {
            terminal::note(&why);
            Exit::Failed
        }
    }
}

/// A moment that a person typed, in microseconds.
fn moment(text: &str) -> Result<i64, Error> {
    let time: jiff::Timestamp = text.parse().map_err(|error: jiff::Error| {
        Error::argument(
            "moment",
            text.to_owned(),
            format!(
                "{error}. Give it with its offset, for example 2026-04-01T10:31:00-04:00 or …Z"
            ),
        )
    })?;
    Ok(time.as_microsecond())
}
