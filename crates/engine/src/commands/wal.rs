//! `bre wal fetch`: what `restore_command` calls. PostgreSQL takes exit code 1 for the end of WAL, so only proof gives 1.

use std::{path::Path, process::ExitCode};

use postgres_physical::lsn::parse_segment_name;
use recovery::database::{FetchOutcome, wal_fetch};
use repository::WalReader;

use super::opened::Opened;
use crate::{
    cli::{RepositoryArgs, WalCommand},
    error::Error,
    instance::Instance,
    terminal,
};

pub(crate) fn run(instance: &Instance, command: WalCommand) -> ExitCode {
    let WalCommand::Fetch {
        name,
        path,
        socket,
        repository,
    } = command;
    let outcome = match socket {
        Some(socket) => wal_fetch(&socket, &name, &path),
        None => direct(instance, &repository, &name, &path),
    };
    if let FetchOutcome::Trouble(why) = &outcome {
        terminal::note(&format!("bre wal fetch: {why}"));
    }
    ExitCode::from(u8::try_from(outcome.exit_code()).unwrap_or(200))
}

/// For a replica of one's own: from repository and key, without a restore that serves.
fn direct(instance: &Instance, args: &RepositoryArgs, name: &str, path: &Path) -> FetchOutcome {
    match read(instance, args, name) {
        Ok(None) => FetchOutcome::NotThere,
        Ok(Some(bytes)) => match std::fs::write(path, bytes) {
            Ok(()) => FetchOutcome::HandedOut,
            Err(error) => {
                // Half a segment must not stay.
                let _ = std::fs::remove_file(path);
                FetchOutcome::Trouble(format!("cannot write {}: {error}", path.display()))
            }
        },
        Err(error) => FetchOutcome::Trouble(error.to_string()),
    }
}

fn read(instance: &Instance, args: &RepositoryArgs, name: &str) -> Result<Option<Vec<u8>>, Error> {
    let opened = Opened::at(instance, args)?;
    let reader = WalReader::new(&opened.repository, &opened.private()?);
    let timeline = name
        .get(..8)
        .and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let Some(timeline) = timeline else {
        return Ok(None);
    };
    if name.get(8..) == Some(".history") {
        return Ok(reader.history(timeline)?);
    }
    let Some(segment_bytes) = reader.segment_bytes(timeline)? else {
        return Ok(None);
    };
    match parse_segment_name(name, segment_bytes) {
        Some((timeline, segment)) => Ok(reader.segment(timeline, segment)?),
        None => Ok(None),
    }
}
