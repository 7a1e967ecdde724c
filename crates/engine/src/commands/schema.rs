//! `bre schema backup`: what the plan does by itself, now, and for clusters that are not the instance's own.

use std::{path::Path, process::ExitCode};

use ::backup::schema::SchemaOutcome;
use postgres_physical::server::{Binaries, OsUser};
use serde::Serialize;

use super::table::live;
use host::{instance::Instance, progress::Steps, signals::interrupted};

use crate::{
    cli::{RepositoryArgs, RunningArgs, SchemaCommand},
    error::Error,
};
use operations::{
    clusters,
    command_output::CommandOutput,
    exit::Exit,
    jobs::settings,
    schema::{Schema, failure, is_remote, said},
};

#[derive(Debug, Serialize)]
struct SchemaRunReport<'a> {
    folder: String,
    /// None: nothing changed.
    commit: Option<&'a str>,
    changes: &'a [String],
    pushed: bool,
    databases: &'a [String],
    not_read: Vec<UnreadDatabase<'a>>,
}

#[derive(Debug, Serialize)]
struct UnreadDatabase<'a> {
    database: &'a str,
    why: &'a str,
    failed: bool,
}

pub(crate) fn run(
    instance: &Instance,
    json: bool,
    command: &SchemaCommand,
) -> Result<ExitCode, Error> {
    let SchemaCommand::Backup {
        to,
        running,
        cluster,
    } = command;
    if let Some(to) = to
        && let Some((_, rest)) = to.split_once("://")
        && rest
            .split('/')
            .next()
            .is_some_and(|host| host.contains('@') && host.contains(':'))
    {
        return Err(Error::argument(
            "remote",
            "…",
            "it holds a password, which everybody on this machine could read from the command line. Leave it to git's credential helper, or \
                     write the remote into bre.toml: [backup] schema_to",
        ));
    }
    back_up(instance, json, to.as_deref(), running, cluster.clone())
}

fn back_up(
    instance: &Instance,
    json: bool,
    to: Option<&str>,
    running: &RunningArgs,
    cluster: Option<String>,
) -> Result<ExitCode, Error> {
    let config = settings::load(None, instance.root())?;
    let whose = match &cluster {
        Some(name) => clusters::find(instance, name)?.instance,
        None => instance.clone(),
    };
    let own = config
        .backup
        .schema_to
        .as_ref()
        .filter(|_| cluster.is_none());
    let to = to.or(own.map(|remote| remote.0.as_str()));
    // From where it was typed: git itself runs in the repository.
    let to = match to {
        Some(to) if !is_remote(to) => {
            let path = std::path::absolute(to).map_err(Error::file("cannot find", to))?;
            Some(path.display().to_string())
        }
        to => to.map(str::to_owned),
    };
    let repository = RepositoryArgs {
        cluster,
        ..RepositoryArgs::default()
    };
    let schema = Schema::new(
        &whose,
        live(instance, &repository, running)?,
        &Binaries::find(config.database.binaries.as_deref())?,
        &OsUser::for_server()?,
        to.as_deref(),
    );
    let steps = Steps::shown(json, "schema").cancelled_by(interrupted()?);
    let outcome = schema.run(&steps)?;
    drop(steps);
    Ok(shown(&schema.folder, &outcome)?.print(json))
}

/// What a person sees of it.
pub(crate) fn shown(
    folder: &Path,
    outcome: &SchemaOutcome,
) -> Result<CommandOutput, operations::Error> {
    let report = SchemaRunReport {
        folder: folder.display().to_string(),
        commit: outcome.commit.as_deref(),
        changes: &outcome.changes,
        pushed: outcome.pushed,
        databases: &outcome.databases,
        not_read: outcome
            .not_read
            .iter()
            .map(|it| UnreadDatabase {
                database: &it.database,
                why: &it.why,
                failed: it.failed,
            })
            .collect(),
    };
    let pushed = if outcome.pushed { ", pushed" } else { "" };
    let text = format!("{} in {}{pushed}", said(outcome), report.folder);
    let shown = CommandOutput::of(&report, text)?;
    Ok(match failure(outcome) {
        None => shown,
        Some(error) => shown.noted(format!("bre: {error}")).exits(Exit::Partial),
    })
}
