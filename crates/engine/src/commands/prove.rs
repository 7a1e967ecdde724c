//! `bre backup prove`: one restore proof by hand, wherever repository and private key are.

use std::{path::PathBuf, process::ExitCode};

use postgres_physical::server::{Binaries, OsUser};
use repository::backup::{BackupState, catalogue};

use super::restore::interrupted;
use crate::{
    cli::RepositoryArgs,
    config::Config,
    error::Error,
    host::{instance::Instance, progress::Steps, record::Event},
    keys::trusted,
    opened::Opened,
    proof::{self, Prover},
    terminal,
};

pub(super) fn run(
    instance: &Instance,
    json: bool,
    id: Option<&str>,
    work: Option<PathBuf>,
    args: &RepositoryArgs,
) -> Result<ExitCode, Error> {
    let opened = Opened::at(instance, args)?;
    let private = opened.private()?;
    let config = Config::load(None, instance.root())?;
    let id = match id {
        Some(id) => id.to_owned(),
        None => newest(&opened)?,
    };
    let prover = Prover {
        repository: opened.repository.clone(),
        private,
        trusted: trusted(&opened.keys, &opened.repository)?,
        binaries: Binaries::find(config.database.binaries.as_deref())?,
        user: OsUser::for_server()?,
        work: work.unwrap_or_else(|| instance.proofs()),
    };
    let steps = Steps::shown(json, "prove").cancelled_by(interrupted()?);
    let record = prover.prove(&id, &steps)?;
    drop(steps);
    let stored = record.store(&opened.repository)?;
    // On a host without the engine there is no log to write to; the record beside the backup stands by itself.
    if instance.is_locked() && args.repository.is_none() {
        let event = proof::event(Event::by_person("BackupRun"), &record, &stored);
        if let Err(error) = crate::host::runtime::wait(event.record(instance)) {
            terminal::note(&format!(
                "bre: the proof is kept but not in the audit log: {error}"
            ));
        }
    }
    terminal::result(json, &record, || record.sentences());
    Ok(if record.passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn newest(opened: &Opened) -> Result<String, Error> {
    let backups = catalogue(&opened.repository)?.backups;
    let newest = backups
        .into_iter()
        .rfind(|backup| backup.state == BackupState::Complete);
    newest
        .map(|backup| backup.id)
        .ok_or_else(|| Error::Refused {
            what: "there is nothing to prove",
            reason: format!("{} holds no complete backup", opened.location),
        })
}
