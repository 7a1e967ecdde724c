//! Checks the clock before anything expires: after a jump forward everything would.

use serde::Serialize;

use super::survey::Survey;
use crate::Repository;
use crate::error::{Error, Result};
use crate::keys::random_hex;

/// Two clocks that are further apart than this are not both right.
const APART_MAX_MICROS: i64 = 5 * 60 * 1_000_000;

/// What the clocks say, read at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Clock {
    pub now_micros: i64,
    /// The time that the store gave to an object that was just put.
    pub store_micros: i64,
    /// `None` when no PostgreSQL could be asked.
    pub postgres_micros: Option<i64>,
}

impl Clock {
    /// Puts an object, looks at its time, and takes it away again.
    pub fn read(repository: &Repository, postgres_micros: Option<i64>) -> Result<Self> {
        let name = format!("probes/{}", random_hex(8)?);
        repository.store().put(&name, b"")?;
        let listed = repository.store().list(&name)?;
        let now_micros = crate::store::now_micros();
        // A probe that the store does not let go (a lock of its own, a policy) is swept as a leftover some day. The clock is read all the same.
        if let Err(error) = repository.store().delete(&name) {
            tracing::debug!(%error, "a probe stays");
        }
        let probe = listed.first().ok_or_else(|| Error::Clock {
            what: format!("the store does not list `{name}`, which was just put"),
        })?;
        Ok(Self {
            now_micros,
            store_micros: probe.modified_micros,
            postgres_micros,
        })
    }

    /// Refuses a clock that somebody else's clock, or what is in the repository already, contradicts.
    pub(super) fn check(&self, survey: &Survey) -> Result<()> {
        let refuse = |what: String| Err(Error::Clock { what });
        let others = [
            ("the store's", Some(self.store_micros)),
            ("PostgreSQL's", self.postgres_micros),
        ];
        for (whose, other) in others {
            let Some(other) = other else { continue };
            let apart = self.now_micros.abs_diff(other);
            if apart > APART_MAX_MICROS.unsigned_abs() {
                return refuse(format!(
                    "this machine's clock and {whose} are {} s apart",
                    apart / 1_000_000
                ));
            }
        }
        let newest_manifest = survey.newest_manifest_micros();
        let newest_tombstone = survey.newest_tombstone_micros();
        for (what, at) in [
            ("the newest manifest", newest_manifest),
            ("the newest tombstone", newest_tombstone),
        ] {
            if at.is_some_and(|at| at > self.now_micros) {
                return refuse(format!("this machine's clock is before {what}"));
            }
        }
        Ok(())
    }
}
