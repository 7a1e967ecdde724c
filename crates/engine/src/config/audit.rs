//! `[audit]`: the log for outsiders (docs/formats/audit_transparency.md).

use std::{num::NonZeroU16, path::PathBuf};

use serde::Deserialize;

/// By which name the log is published, where, and who cosigns it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Audit {
    /// The first part of the log's origins: best the address at which the public folder is shown, without `https://`.
    pub(crate) name: Option<String>,
    /// DIR/public_log when absent.
    pub(crate) public_folder: Option<PathBuf>,
    pub(crate) witnesses: Vec<Witness>,
    /// Each is asked at most once in so long.
    pub(crate) witness_seconds: NonZeroU16,
}

/// `[[audit.witnesses]]`: who signs, at another site, that the log only grew.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Witness {
    /// `add-checkpoint` is below it.
    pub(crate) url: String,
    /// Its verifier key, as `bre witness key` prints it.
    pub(crate) key: String,
}

const MINUTE: NonZeroU16 = NonZeroU16::MIN.saturating_add(59);

impl Default for Audit {
    fn default() -> Self {
        Self {
            name: None,
            public_folder: None,
            witnesses: Vec::new(),
            witness_seconds: MINUTE,
        }
    }
}
