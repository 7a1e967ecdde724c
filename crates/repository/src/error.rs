//! What can go wrong, to which object, and what to do next.

use std::io;

use crate::keys::KeyError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A fault of the place where the objects lie.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "the repository {store} is away: {what}. Mount or reconnect it; nothing was written elsewhere"
    )]
    Away { store: String, what: String },
    #[error(
        "the repository {store} is full: `{object}`{} was not written. Free space or extend it; `bre backup expire --now` deletes the WAL \
         that nothing needs without a grace",
        room(*wanted)
    )]
    Full {
        store: String,
        object: String,
        /// Bytes that found no room, where that is known.
        wanted: Option<u64>,
    },
    #[error(
        "the repository {store} cannot be written: `{object}`: {what}. Remount it writable or fix its permissions"
    )]
    ReadOnly {
        store: String,
        object: String,
        what: String,
    },
    #[error("`{object}` is not in the repository {store}")]
    NotFound { store: String, object: String },
    #[error("`{object}` is {lock}: the store deletes it no earlier")]
    Locked {
        object: String,
        lock: crate::store::Lock,
    },
    #[error("`{object}` exists already and objects are never overwritten")]
    AlreadyExists { object: String },
    #[error(
        "`{object}` is shorter than expected: {what}. Copy it from another copy of the repository, or do without it"
    )]
    Damaged { object: String, what: String },
    #[error("`{object}` in {store}: {source}")]
    Io {
        store: String,
        object: String,
        source: io::Error,
    },
    #[error(
        "`{object}` lies in an archive storage class of {store}, which hands it out only after a restore that takes hours. Ask the store \
         for it (of S3: aws s3api restore-object), and try again then"
    )]
    Cold { store: String, object: String },
    /// Its credentials.
    #[error(transparent)]
    SecretFile(#[from] secrets::SecretFileError),
}

fn room(wanted: Option<u64>) -> String {
    wanted.map_or_else(String::new, |bytes| format!(" ({bytes} bytes)"))
}

impl StoreError {
    /// The same, with how much room was asked for.
    pub(crate) fn wanting(mut self, bytes: usize) -> Self {
        if let Self::Full { wanted, .. } = &mut self {
            *wanted = Some(bytes as u64);
        }
        self
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] StoreError),

    #[error(transparent)]
    SecretFile(#[from] secrets::SecretFileError),

    #[error("`{object}` is damaged at byte {offset}: {what}. {remedy}")]
    Damaged {
        object: String,
        offset: u64,
        what: String,
        remedy: &'static str,
    },

    #[error("`{object}` is missing, {needed_by} needs it. {remedy}")]
    Missing {
        object: String,
        needed_by: String,
        remedy: &'static str,
    },

    #[error(transparent)]
    WrongKey(Box<WrongKey>),

    #[error(
        "`{object}` belongs to the PostgreSQL cluster {found}, this repository to {expected}. \
         A major upgrade or a new initdb makes another cluster. Use a repository of its own for each"
    )]
    ForeignCluster {
        object: String,
        found: u64,
        expected: u64,
    },

    #[error(
        "`{object}` has format version {found}, this program reads version 1. Use a newer program"
    )]
    Version { object: String, found: u64 },

    #[error(
        "WAL at {got:#X} was handed over where {expected:#X} comes next. Restart the stream at {expected:#X}"
    )]
    WalPosition { expected: u64, got: u64 },

    #[error(
        "WAL of timeline {timeline} from {from:#X} to {to:#X} is not in the repository. {remedy}"
    )]
    WalHole {
        timeline: u32,
        from: u64,
        to: u64,
        remedy: &'static str,
    },

    #[error(
        "nothing was expired: {what}. Set the clocks right (timedatectl, ntpq), then do it again; docs/operations/retention.md says \
         what to look at when a clock was wrong for a while"
    )]
    Clock { what: String },

    #[error("backup {backup} came while it was being decided what expires: decide again")]
    PlanIsOld { backup: String },

    /// Whoever keeps a key could not, or would not, use it for us.
    #[error(transparent)]
    Provider(#[from] KeyError),

    #[error(transparent)]
    KeyClosed(Box<ClosedKey>),

    #[error("key {what}: {reason}")]
    Key { what: String, reason: String },

    #[error("{0}")]
    Input(String),
}

/// An object is sealed for another key than the one that was given.
#[derive(Debug, thiserror::Error)]
#[error(
    "wrong key: `{object}` cannot be opened with it. Its data key {data_key} is sealed for recipient {sealed_for}, \
     the key given is {given}'s. Give the private key of that recipient; without it these cannot be read: {closed}"
)]
pub struct WrongKey {
    pub object: String,
    pub data_key: String,
    pub sealed_for: String,
    pub given: String,
    /// The backups that the key given does not open.
    pub closed: String,
}

/// Each key that could have opened an object is at hand and does not open: disabled, deleted, denied.
#[derive(Debug, thiserror::Error)]
#[error("`{object}` cannot be opened (its data key is {data_key}): {told}. {consequences}")]
pub struct ClosedKey {
    pub object: String,
    pub data_key: String,
    pub keys: Vec<KeyError>,
    pub told: String,
    /// What else these keys close, and what is left.
    pub consequences: String,
}

pub(crate) const REMEDY_COPY: &str =
    "Copy the object from another copy of the repository, or use another backup";
pub(crate) const REMEDY_WAL: &str = "Copy the object from another copy of the repository, restore to a point before it, or take a new full backup";

impl Error {
    pub(crate) fn damaged(object: &str, offset: u64, what: impl Into<String>) -> Self {
        let remedy = if object.starts_with("wal/") || object.starts_with("tail/") {
            REMEDY_WAL
        } else {
            REMEDY_COPY
        };
        Self::Damaged {
            object: object.to_owned(),
            offset,
            what: what.into(),
            remedy,
        }
    }

    /// True when the object itself is bad or gone: asking again cannot help.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. }
                | Self::Missing { .. }
                | Self::Store(StoreError::Damaged { .. } | StoreError::NotFound { .. })
        )
    }

    /// True when the repository is unmounted, full or read-only, or the key provider away: it may come back.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        if let Self::Provider(error) = self {
            return error.trouble.may_pass();
        }
        matches!(
            self,
            Self::Store(
                StoreError::Away { .. }
                    | StoreError::Full { .. }
                    | StoreError::ReadOnly { .. }
                    | StoreError::Io { .. }
            )
        )
    }

    /// The object that is concerned, where there is one.
    #[must_use]
    pub fn object(&self) -> Option<&str> {
        match self {
            Self::Damaged { object, .. }
            | Self::Missing { object, .. }
            | Self::ForeignCluster { object, .. }
            | Self::Version { object, .. } => Some(object),
            Self::WrongKey(wrong) => Some(&wrong.object),
            Self::KeyClosed(closed) => Some(&closed.object),
            Self::Store(error) => error.object(),
            _ => None,
        }
    }
}

impl StoreError {
    #[must_use]
    pub fn object(&self) -> Option<&str> {
        match self {
            Self::Away { .. } | Self::SecretFile(_) => None,
            Self::Full { object, .. }
            | Self::ReadOnly { object, .. }
            | Self::NotFound { object, .. }
            | Self::AlreadyExists { object }
            | Self::Locked { object, .. }
            | Self::Cold { object, .. }
            | Self::Damaged { object, .. }
            | Self::Io { object, .. } => Some(object),
        }
    }
}
