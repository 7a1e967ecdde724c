//! `[audit]`: the log for outsiders (docs/formats/audit_transparency.md), and how often its own engine looks at it.

use std::{num::NonZeroU16, path::PathBuf, time::Duration};

use serde::Deserialize;

/// By which name the log is published, where, and who cosigns it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// The first part of the log's origins: best the address at which the public folder is shown, without `https://`.
    pub name: Option<String>,
    /// DIR/public_log when absent.
    pub public_folder: Option<PathBuf>,
    pub witnesses: Vec<Witness>,
    /// Each is asked at most once in so long.
    pub witness_seconds: NonZeroU16,
    /// Between two looks whether the log and its heads are still there.
    pub look_seconds: LookSeconds,
    /// Whether the gateway shows the log at `/log/`.
    pub show_at_gateway: bool,
}

/// What is gone is told within a minute: a look, and time to act on it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "u16")]
pub struct LookSeconds(u16);

impl LookSeconds {
    const MAX: u16 = 30;

    pub fn every(self) -> Duration {
        Duration::from_secs(u64::from(self.0))
    }
}

impl TryFrom<u16> for LookSeconds {
    type Error = String;

    fn try_from(seconds: u16) -> Result<Self, String> {
        match seconds {
            1..=Self::MAX => Ok(Self(seconds)),
            other => Err(format!(
                "[audit] look_seconds = {other}: from 1 to {}, so that damage is told within a minute",
                Self::MAX
            )),
        }
    }
}

/// `[[audit.witnesses]]`: who signs, at another site, that the log only grew.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// `add-checkpoint` is below it.
    pub url: String,
    /// Its verifier key, as `bre witness key` prints it.
    pub key: String,
}

const MINUTE: NonZeroU16 = NonZeroU16::MIN.saturating_add(59);

impl Default for Audit {
    fn default() -> Self {
        Self {
            name: None,
            public_folder: None,
            witnesses: Vec::new(),
            witness_seconds: MINUTE,
            look_seconds: LookSeconds(15),
            show_at_gateway: true,
        }
    }
}
