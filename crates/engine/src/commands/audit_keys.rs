//! `bre audit key`: who can read the audit archive; a new key beside the old one, and the old one let go. As `bre
//! repository key`, for a
//! pair that opens nothing else.

use std::process::ExitCode;

use repository::keys::recipients_in;
use serde::Serialize;

use super::repository_keys::Retiring;
use host::{instance::Instance, keys::rotation::AUDIT, progress::Steps, signals::interrupted};
use terminal::{self, KeyValue};

use crate::{cli::AuditKeyCommand, error::Error};
use operations::{
    config::Config,
    jobs::settings,
    key_rotation::{KeyRotation, rotate_archive_key},
    repository_handle::RepositoryHandle,
};

pub(super) fn run(
    instance: &Instance,
    json: bool,
    command: AuditKeyCommand,
) -> Result<ExitCode, Error> {
    match command {
        AuditKeyCommand::Show(args) => show(&RepositoryHandle::at(instance, &args)?, json),
        AuditKeyCommand::Rotate { config, repository } => {
            let config = settings::load(config.as_deref(), instance.root())?;
            rotate(&RepositoryHandle::at(instance, &repository)?, &config, json)
        }
        AuditKeyCommand::RetireOld { yes, repository } => {
            retire_old(&RepositoryHandle::at(instance, &repository)?, json, yes)
        }
    }
}

#[derive(Debug, Serialize)]
struct ArchiveKeyStatus {
    recipient_id: String,
    private_key_here: bool,
    /// Stretches' data keys that the present key does not open; a rotation was not finished, or none was made after the files were exchanged.
    data_keys_not_sealed_to_it: u64,
    /// All that can read something of the archive.
    recipients: Vec<String>,
}

fn show(opened: &RepositoryHandle, json: bool) -> Result<ExitCode, Error> {
    let public = AUDIT.public(&opened.keys)?;
    let shown = ArchiveKeyStatus {
        recipient_id: public.id(),
        private_key_here: AUDIT.reading(&opened.keys).is_ok(),
        data_keys_not_sealed_to_it: AUDIT.not_sealed_to(&opened.repository, &public)?,
        recipients: recipients_in(&opened.repository, AUDIT.vault)?
            .into_iter()
            .collect(),
    };
    terminal::result(json, &shown, || shown.text());
    Ok(ExitCode::SUCCESS)
}

impl ArchiveKeyStatus {
    fn text(&self) -> String {
        let mut facts = KeyValue::new();
        facts
            .row("key", &self.recipient_id)
            .row(
                "private key",
                match self.private_key_here {
                    true => "here; whoever may read the archive should have it, and this host does not need it",
                    false => "not here: this host writes the archive and cannot read it",
                },
            )
            .rows("recipient", &self.recipients);
        if self.data_keys_not_sealed_to_it > 0 {
            facts.row(
                "unfinished",
                format!(
                    "{} data keys are sealed to other keys only: bre audit key rotate finishes that",
                    self.data_keys_not_sealed_to_it
                ),
            );
        }
        facts.text()
    }
}

fn rotate(opened: &RepositoryHandle, config: &Config, json: bool) -> Result<ExitCode, Error> {
    let steps = Steps::shown(json, "rotate").cancelled_by(interrupted()?);
    let rotation = rotate_archive_key(&opened.keys, &opened.repository, &config.audit_key, &steps)?;
    drop(steps);
    terminal::result(json, &rotation, || sentences(&rotation, opened));
    Ok(match rotation.not_sealed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn sentences(rotation: &KeyRotation, opened: &RepositoryHandle) -> String {
    let mut text = format!(
        "{} the archive's key is {} now; {} data keys are sealed to it, no data were rewritten\n",
        match rotation.resumed {
            true => "finished a rotation that was interrupted:",
            false => "rotated:",
        },
        rotation.recipient_id,
        rotation.data_keys.saturating_sub(rotation.not_sealed)
    );
    if rotation.not_sealed > 0 {
        text.push_str(&format!(
                "{} data keys are sealed to other keys only: bring the private keys they are sealed to and repeat this\n",
                rotation.not_sealed
            ));
    }
    if let Some(why) = &rotation.closed_because {
        text.push_str(&format!("not opened: {why}\n"));
    }
    text.push_str(&format!(
            "bring {} to hosts that write the archive, and {} to whoever may read it\n\
             the old key still opens everything up to now; when all is well: bre audit key retire-old\n",
            opened.keys.join("audit_recipient.pub").display(),
            opened.keys.join("audit_recipient.key").display(),
        ));
    text
}

fn retire_old(opened: &RepositoryHandle, json: bool, yes: bool) -> Result<ExitCode, Error> {
    let retiring = Retiring {
        vault: AUDIT.vault,
        place: "the audit archive",
        files: "audit_recipient-<id>.key",
        current: AUDIT.reading(&opened.keys)?,
        old: recipients_in(&opened.repository, AUDIT.vault)?,
    };
    retiring.run(&opened.repository, json, yes)
}
