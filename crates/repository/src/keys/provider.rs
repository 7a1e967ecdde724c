//! Who can have data keys sealed to them: a key pair of ours (`recipient.rs`), or a key that never leaves its provider (a KMS, a token),
//! which lives in a crate of its own behind these two traits. Providers know data keys and what they are bound to, and no repository.

use std::fmt;

use zeroize::Zeroizing;

use super::wrap::WrapHeader;
use super::{DataKeyId, random_secret};
use crate::error::Result;

/// The plain bytes of a data key; wiped when dropped.
pub type DataKeySecret = Zeroizing<[u8; 32]>;

/// What a wrap is bound to: the data key, and the repository that it was made in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrapBinding {
    /// 32 hex digits.
    pub repository_id: String,
    /// 32 hex digits.
    pub data_key_id: String,
}

impl WrapBinding {
    pub(crate) fn new(repository_id: &str, id: DataKeyId) -> Self {
        Self {
            repository_id: repository_id.to_owned(),
            data_key_id: id.to_string(),
        }
    }
}

/// The writing side: can seal, cannot open.
pub trait WrapKeys: Send + Sync + fmt::Debug {
    /// 32 hex digits, the last part of a wrap's name. Known without asking anybody.
    fn recipient_id(&self) -> String;
    /// What a person calls this key.
    fn name(&self) -> String;
    /// The line that stands for it in a file of public keys.
    fn line(&self) -> String;
    /// Seals a data key that exists: for a rotation, and for every recipient after the first.
    fn wrap(
        &self,
        binding: &WrapBinding,
        secret: &DataKeySecret,
    ) -> std::result::Result<Vec<u8>, KeyError>;

    /// A fresh data key and its wrap. Providers that make data keys themselves do it here, so that a writer needs no more
    /// than that permission.
    fn generate(
        &self,
        binding: &WrapBinding,
    ) -> std::result::Result<(DataKeySecret, Vec<u8>), KeyError> {
        let secret = random_secret().map_err(|error| KeyError {
            key: self.name(),
            trouble: KeyTrouble::Failed {
                what: error.to_string(),
            },
        })?;
        let wrap = self.wrap(binding, &secret)?;
        Ok((secret, wrap))
    }
}

/// The reading side. Mirror of [`WrapKeys`].
pub trait UnwrapKeys: Send + Sync + fmt::Debug {
    /// Whose wraps are its own.
    fn recipient_id(&self) -> String;
    /// Whether it may try this wrap: a key pair its own alone, a KMS those of each of its keys.
    fn opens(&self, wrap: &WrapHeader) -> bool;
    fn unwrap(
        &self,
        binding: &WrapBinding,
        wrap: &[u8],
    ) -> std::result::Result<DataKeySecret, KeyError>;
}

/// What a provider answered, about which key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the key {key} {trouble}")]
pub struct KeyError {
    pub key: String,
    pub trouble: KeyTrouble,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyTrouble {
    #[error(
        "cannot be asked: its key provider is away ({what}). It is asked again; nothing is lost meanwhile"
    )]
    Away { what: String },
    #[error(
        "may not be used from here ({what}). Give this host's role the permission, or take another key"
    )]
    Denied { what: String },
    #[error(
        "is disabled. Whoever administers it can enable it again, and then everything opens as before"
    )]
    Disabled,
    #[error("will be deleted{}. Until then its deletion can be cancelled and the key enabled; after that nothing opens what is sealed only to it", at(.on))]
    PendingDeletion { on: Option<String> },
    #[error(
        "does not exist (any more): {what}. What is sealed only to it cannot be opened by anybody"
    )]
    Gone { what: String },
    #[error(
        "stays closed: {what}. Nothing is tried again by itself, so that the token does not lock for good"
    )]
    Locked { what: String },
    #[error("does not open it: {what}")]
    Wrong { what: String },
    #[error("cannot be used: {what}")]
    Failed { what: String },
}

fn at(on: &Option<String>) -> String {
    on.as_ref()
        .map_or_else(String::new, |on| format!(" on {on}"))
}

impl KeyTrouble {
    /// One word for tables and for programs.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Away { .. } => "away",
            Self::Denied { .. } => "denied",
            Self::Disabled => "disabled",
            Self::PendingDeletion { .. } => "pending deletion",
            Self::Gone { .. } => "deleted",
            Self::Locked { .. } => "locked",
            Self::Wrong { .. } => "wrong",
            Self::Failed { .. } => "failed",
        }
    }

    /// Asking again may help.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Away { .. })
    }
}

/// Two sets of data keys that share nothing: whoever opens one does not open the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vault {
    /// Of backups, WAL and histories.
    Backups,
    /// Of the audit archive, and of logs.
    Audit,
}

impl Vault {
    /// The one whose data keys seal this object.
    pub(crate) fn of(object: &str) -> Self {
        match object.starts_with("audit/") || object.starts_with("logs/") {
            true => Self::Audit,
            false => Self::Backups,
        }
    }

    pub(crate) fn wrap_name(self, id: DataKeyId, recipient_id: &str) -> String {
        format!("{}{recipient_id}", self.wraps_of(id))
    }

    pub(crate) fn wraps_of(self, id: DataKeyId) -> String {
        format!("{}{id}/", self.wraps())
    }

    /// Below which all its wraps lie.
    pub(super) fn wraps(self) -> &'static str {
        match self {
            Self::Backups => "wraps/",
            Self::Audit => "audit/wraps/",
        }
    }
}

/// The secret of a wrap that was opened, or damage of that wrap.
pub(super) fn opened_by(
    opener: &dyn UnwrapKeys,
    binding: &WrapBinding,
    object: &str,
    wrap: &[u8],
) -> Result<DataKeySecret> {
    opener
        .unwrap(binding, wrap)
        .map_err(|error| match error.trouble {
            KeyTrouble::Wrong { what } => crate::Error::damaged(object, 0, what),
            _ => error.into(),
        })
}
