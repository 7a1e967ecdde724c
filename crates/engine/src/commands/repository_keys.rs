//! `bre repository key`: who can read the repository; a new key beside the old one, and the old one let go.

use host::{
    instance::Instance,
    keys::{
        age::{self, KeyAge},
        offline_key, reading_key, reading_key_if_here,
        rotation::{BACKUPS, seal_to_offline},
        writing_key,
    },
    progress::Steps,
};
use repository::{
    Repository,
    keys::{RecipientPrivate, Vault, not_sealed_to, recipients, retire_in},
    outlook::{KeyOutlook, key_outlook},
};
use serde::Serialize;
use std::{collections::BTreeSet, path::Path, process::ExitCode};
use terminal::{self, KeyValue, instant};

use crate::{cli::RepositoryKeyCommand, error::Error, question::confirmed};
use operations::{
    config::Config,
    jobs::settings,
    key_rotation::{KeyRotation, rotate_repository_key},
    repository_handle::RepositoryHandle,
};

pub(super) fn run(
    instance: &Instance,
    json: bool,
    command: RepositoryKeyCommand,
) -> Result<ExitCode, Error> {
    match command {
        RepositoryKeyCommand::Show(args) => show(&RepositoryHandle::at(instance, &args)?, json),
        RepositoryKeyCommand::Rotate { config, repository } => {
            let config = settings::load(config.as_deref(), instance.root())?;
            rotate(
                instance,
                &RepositoryHandle::at(instance, &repository)?,
                &config,
                json,
            )
        }
        RepositoryKeyCommand::SealOffline(args) => {
            seal_offline(&RepositoryHandle::at(instance, &args)?, json)
        }
        RepositoryKeyCommand::RetireOld { yes, repository } => {
            retire_old(&RepositoryHandle::at(instance, &repository)?, json, yes)
        }
    }
}

#[derive(Debug, Serialize)]
struct KeyStatus {
    #[serde(flatten)]
    age: KeyAge,
    private_key_here: bool,
    /// Data keys that the current key does not open; a rotation was not finished.
    data_keys_not_sealed_to_it: u64,
    /// All that can read something here.
    recipients: Vec<String>,
    /// The key that is kept offline, to which everything new is sealed as well.
    offline: Option<String>,
    /// Each of them: whether it opens now, and what goes with it when it does not.
    #[serde(flatten)]
    outlook: KeyOutlook,
}

fn look(opened: &RepositoryHandle) -> Result<KeyStatus, Error> {
    let public = writing_key(&opened.keys)?;
    let private = reading_key_if_here(&opened.keys)?;
    Ok(KeyStatus {
        age: age::of(&opened.keys)?,
        private_key_here: private.is_some(),
        offline: offline_key(&opened.keys)?.map(|key| key.id()),
        outlook: key_outlook(&opened.repository, private.as_ref())?,
        data_keys_not_sealed_to_it: not_sealed_to(&opened.repository, &public)?,
        recipients: recipients(&opened.repository)?.into_iter().collect(),
    })
}

fn show(opened: &RepositoryHandle, json: bool) -> Result<ExitCode, Error> {
    let shown = look(opened)?;
    terminal::result(json, &shown, || shown.text());
    Ok(ExitCode::SUCCESS)
}

impl KeyStatus {
    fn text(&self) -> String {
        let mut facts = KeyValue::new();
        facts
            .row(
                "key",
                format!(
                    "{} of {}, {} days old",
                    self.age.recipient_id,
                    instant(&self.age.created_at),
                    self.age.days
                ),
            )
            .row(
                "private key",
                match self.private_key_here {
                    true => "here",
                    false => "not here: this host writes and cannot read",
                },
            );
        for key in &self.outlook.keys {
            let mut text = key.recipient_id.clone();
            if key.name != key.recipient_id {
                text.push_str(&format!(" ({} {})", key.provider, key.name));
            }
            if self.offline.as_ref() == Some(&key.recipient_id) {
                text.push_str(" (kept offline)");
            }
            text.push_str(&format!(": {}, {} data keys", key.state, key.data_keys));
            if let Some(detail) = &key.detail {
                text.push_str(&format!("; {detail}"));
            }
            if !key.only.is_empty() {
                text.push_str(&format!("; sealed to it alone: {}", key.only.sentence()));
            }
            facts.row("recipient", text);
        }
        if self.private_key_here && !self.outlook.closed.is_empty() {
            facts.row("closed", self.outlook.sentence());
        }
        if self.data_keys_not_sealed_to_it > 0 {
            facts.row(
                "unfinished",
                format!(
                    "{} data keys are sealed to other keys only: bre repository key rotate finishes that",
                    self.data_keys_not_sealed_to_it
                ),
            );
        }
        facts.rows("warning", &self.age.warning);
        facts.text()
    }
}

fn rotate(
    instance: &Instance,
    opened: &RepositoryHandle,
    config: &Config,
    json: bool,
) -> Result<ExitCode, Error> {
    let steps = Steps::shown(json, "rotate");
    let wanted = &config.repository_key;
    let rotation =
        rotate_repository_key(instance, &opened.keys, &opened.repository, wanted, &steps)?;
    drop(steps);
    terminal::result(json, &rotation, || sentences(&rotation, &opened.keys));
    let good = rotation.not_sealed == 0 && rotation.engine_took_it != Some(false);
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn sentences(rotation: &KeyRotation, keys: &Path) -> String {
    let mut text = format!(
        "{} the repository's key is {} now; {} data keys are sealed to it, no data were rewritten\n",
        if rotation.resumed {
            "finished a rotation that was interrupted:"
        } else {
            "rotated:"
        },
        rotation.recipient_id,
        rotation.data_keys - rotation.not_sealed
    );
    if rotation.engine_took_it == Some(false) {
        text.push_str(
            "the running engine has not taken the new key yet: look at its log, then repeat this\n",
        );
    }
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
            "keep a copy of {} elsewhere, and bring {} to hosts that only write\n\
             the old key still opens everything up to now; when all is well: bre repository key retire-old\n",
            keys.join("recipient.key").display(),
            keys.join("recipient.pub").display()
        ));
    text
}

#[derive(Debug, Serialize)]
struct SealedOffline {
    recipient_id: String,
    data_keys: u64,
    sealed_now: u64,
    not_sealed: u64,
    closed_because: Option<String>,
}

fn seal_offline(opened: &RepositoryHandle, json: bool) -> Result<ExitCode, Error> {
    let current = reading_key(&opened.keys)?;
    let steps = Steps::shown(json, "seal-offline");
    let done = seal_to_offline(&opened.keys, &opened.repository, &current, &steps)?;
    drop(steps);
    let (Some(done), Some(offline)) = (done, offline_key(&opened.keys)?) else {
        return Err(Error::refused(
            "there is no key to seal to",
            format!(
                "put the public key of the one that is kept offline at {}",
                opened.keys.join("offline.pub").display()
            ),
        ));
    };
    let sealed = SealedOffline {
        recipient_id: offline.id(),
        data_keys: done.data_keys,
        sealed_now: done.wrapped,
        not_sealed: done.foreign + done.closed,
        closed_because: done.closed_because,
    };
    terminal::result(json, &sealed, || {
        let mut text = format!(
            "{} of {} data keys are sealed to {} as well ({} just now)\n",
            sealed.data_keys - sealed.not_sealed,
            sealed.data_keys,
            sealed.recipient_id,
            sealed.sealed_now
        );
        if let Some(why) = &sealed.closed_because {
            text.push_str(&format!("not opened: {why}\n"));
        }
        text
    });
    Ok(match sealed.not_sealed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

fn retire_old(opened: &RepositoryHandle, json: bool, yes: bool) -> Result<ExitCode, Error> {
    let current = reading_key(&opened.keys)?;
    let mut old = recipients(&opened.repository)?;
    // Sealed to on purpose, and by nobody here to be proven: it stays.
    if let Some(offline) = offline_key(&opened.keys)? {
        old.remove(&offline.id());
    }
    let retiring = Retiring {
        vault: BACKUPS.vault,
        place: "the repository",
        files: "recipient-<id>.key",
        current,
        old,
    };
    retiring.run(&opened.repository, json, yes)
}

/// Keys of a vault that go, once the current one opens everything.
pub(super) struct Retiring {
    pub(super) vault: Vault,
    /// What they open, in words.
    pub(super) place: &'static str,
    /// Where the replaced keys lie.
    pub(super) files: &'static str,
    pub(super) current: RecipientPrivate,
    /// The current one is left out.
    pub(super) old: BTreeSet<String>,
}

#[derive(Debug, Serialize)]
struct KeyRetirement {
    recipient_id: String,
    retired: Vec<String>,
    wraps_deleted: u64,
}

impl Retiring {
    pub(super) fn run(
        mut self,
        repository: &Repository,
        json: bool,
        yes: bool,
    ) -> Result<ExitCode, Error> {
        let (id, place) = (self.current.public().id(), self.place);
        self.old.remove(&id);
        let question = format!(
            "This deletes all wraps of {} from {place}, once every data key was opened with {id}.\n\
             Whoever has only those older keys reads nothing of it any more.",
            self.old.iter().cloned().collect::<Vec<_>>().join(", ")
        );
        if !self.old.is_empty() && !yes && !confirmed(&question) {
            return Err(Error::refused(
                "nothing was changed",
                "give --yes to do it without asking",
            ));
        }
        let steps = Steps::shown(json, "retire");
        let mut wraps_deleted = 0;
        for recipient in &self.old {
            wraps_deleted += retire_in(repository, self.vault, recipient, &self.current, &steps)?;
        }
        drop(steps);
        let retired = KeyRetirement {
            recipient_id: id,
            retired: self.old.into_iter().collect(),
            wraps_deleted,
        };
        terminal::result(json, &retired, || match retired.retired.as_slice() {
            [] => format!("no older key opens anything of {place}"),
            old => format!(
                "{wraps_deleted} wraps deleted; only {} opens {place} now. The files {} of {} are needed only for \
                 copies of the repository that are older than this: delete them when there is none",
                retired.recipient_id,
                self.files,
                old.join(", ")
            ),
        });
        Ok(ExitCode::SUCCESS)
    }
}
