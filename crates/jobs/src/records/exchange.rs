//! Records go to the archive, and those of other drivers come from it.

use std::{collections::BTreeSet, sync::PoisonError};

use super::{Archive, Records, archived, compaction, files};
use crate::{error::Result, record::month_of};

const ALL: &str = "runs/";
/// Records that one exchange puts: what other drivers did, and jobs that are due, do not wait for very many.
const PUT_MAX: usize = 1000;

impl Records {
    /// What a driver does in the background from time to time. True when something is left for the next time.
    ///
    /// # Errors
    /// The first trouble; what was done stays done.
    pub(crate) fn keep(&self, archive: Option<&dyn Archive>, now_micros: i64) -> Result<bool> {
        if let Err(error) = self.catch_up() {
            tracing::warn!(%error, "what other processes ran cannot be read");
        }
        if let Some(archive) = archive {
            self.exchange(archive, now_micros)?;
        }
        let compacted = self.compact(archive, now_micros)?;
        let is_sent = archive.is_none() || self.unsent() == 0;
        Ok(compacted.is_partial || !is_sent)
    }

    /// Takes what is new in the archive: at first all of it, then of this month and the last one; and puts what it has
    /// not got, as many as it may at a time. The newest go first. It may take as long as the store does: call it where
    /// nothing waits.
    ///
    /// # Errors
    /// The first trouble with the archive; what was done stays done, the rest is for the next time.
    pub fn exchange(&self, archive: &dyn Archive, now_micros: i64) -> Result<()> {
        let _alone = self
            .exchanging
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let met = self.inner().met;
        let prefixes = match met {
            false => vec![ALL.to_owned()],
            true => {
                let months = [now_micros - 40 * 86_400_000_000, now_micros].map(month_of);
                let months: BTreeSet<String> = months.into_iter().collect();
                months
                    .into_iter()
                    .map(|month| format!("{ALL}{month}/"))
                    .collect()
            }
        };
        let mut there = BTreeSet::new();
        for prefix in prefixes {
            there.extend(archive.list(&prefix).map_err(archived)?);
        }
        for name in there.iter().rev() {
            if !self.has(name) {
                self.fetch(archive, name)?;
            }
        }
        if !met {
            let mut inner = self.inner();
            inner.unsent = inner.index.singles().difference(&there).cloned().collect();
            inner.met = true;
        }
        let unsent: Vec<String> = {
            let inner = self.inner();
            inner.unsent.iter().rev().take(PUT_MAX).cloned().collect()
        };
        for name in unsent {
            let run_id = name.rsplit('/').next().unwrap_or_default().to_owned();
            let record = self.inner().index.by_id(&run_id).cloned();
            if let Some(record) = record {
                archive.put(&name, &record.to_bytes()).map_err(archived)?;
            }
            self.inner().unsent.remove(&name);
        }
        Ok(())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        let inner = self.inner();
        let run_id = name.rsplit('/').next().unwrap_or_default();
        let is_month_here =
            || name.starts_with(compaction::PREFIX) && self.root.join(name).is_file();
        inner.index.contains(run_id) || inner.unreadable.contains_key(name) || is_month_here()
    }

    /// Kept here as well: the next start need not ask for it.
    fn fetch(&self, archive: &dyn Archive, name: &str) -> Result<()> {
        let bytes = archive.get(name).map_err(archived)?;
        let is_whole = match name.starts_with(compaction::PREFIX) {
            true => compaction::check(name, &bytes).is_ok(),
            false => {
                crate::record::RunRecord::parse(&bytes).is_ok_and(|record| record.name() == name)
            }
        };
        if is_whole {
            files::put(&self.root, name, &bytes)?;
        }
        self.inner().take(name, Ok(bytes));
        Ok(())
    }
}
