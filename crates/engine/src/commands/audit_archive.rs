//! `bre audit archive`.

use std::process::ExitCode;

use host::{instance::Instance, signals::interrupted};

use crate::{cli::AuditArgs, error::Error};
use operations::{
    audit_archive::{ArchiveReport, NO_HEAD, pass},
    command_output::CommandOutput,
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
pub(crate) fn shown(archived: Option<&ArchiveReport>) -> Result<CommandOutput, operations::Error> {
    let archived =
        archived.ok_or_else(|| operations::Error::refused("nothing was archived", NO_HEAD))?;
    CommandOutput::of(archived, archived.sentences())
}
