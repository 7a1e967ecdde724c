//! `bre audit archive`.

use std::process::ExitCode;

use host::{instance::Instance, signals::interrupted};

use crate::{
    audit_archive::{ArchiveReport, NO_HEAD, pass},
    cli::AuditArgs,
    command_output::CommandOutput,
    error::Error,
    repository_handle::RepositoryHandle,
};

pub(super) async fn archive(
    instance: &Instance,
    json: bool,
    database: &str,
    args: &AuditArgs,
) -> Result<ExitCode, Error> {
    let opened = RepositoryHandle::at(instance, &args.repository)?;
    let stop = interrupted()?;
    let archived = pass(&opened.repository, &opened.keys, database, &stop).await?;
    Ok(shown(archived.as_ref())?.print(json))
}

/// What a person sees of it.
pub(crate) fn shown(archived: Option<&ArchiveReport>) -> Result<CommandOutput, Error> {
    let archived = archived.ok_or_else(|| Error::refused("nothing was archived", NO_HEAD))?;
    CommandOutput::of(archived, archived.sentences())
}
