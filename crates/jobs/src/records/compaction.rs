//! A month that has been over for long becomes one object.

use std::collections::{BTreeMap, BTreeSet};

use super::{Archive, Records, archived, files};
use crate::{
    error::{Error, Result},
    record::{RunRecord, month_of},
};

pub(super) const PREFIX: &str = "runs/compacted/";
const DAY: i64 = 86_400_000_000;
/// How long a month has been over before it is compacted.
const COMPACT_AFTER: i64 = 90 * DAY;
/// Records of compacted months that are deleted at a time: jobs that are due do not wait for very many.
const DELETED_MAX: usize = 1000;
/// How long a compacted month is kept.
const YEARS_KEPT: i16 = 7;

/// The name says which bytes they are.
pub(super) fn check(name: &str, bytes: &[u8]) -> Result<(), String> {
    match name.ends_with(&digest(bytes)) {
        true => Ok(()),
        false => Err("it does not hold the bytes that its name promises".to_owned()),
    }
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..32].to_owned()
}

/// Of a record by itself.
fn month_and_id(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("runs/")?.split_once('/')
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionReport {
    pub months: usize,
    pub records: usize,
    /// More of them are left for the next time.
    pub is_partial: bool,
    /// Objects of months that are older than they are kept.
    pub expired: usize,
}

impl Records {
    /// Repeatable, and may end anywhere. With an archive only after an [`exchange`](Records::exchange) with it.
    ///
    /// # Errors
    /// The first trouble; nothing is deleted that is in no month which was read back.
    pub fn compact(
        &self,
        archive: Option<&dyn Archive>,
        now_micros: i64,
    ) -> Result<CompactionReport> {
        let mut done = CompactionReport::default();
        if archive.is_some() && !self.inner().met {
            return Ok(done);
        }
        let mut months: BTreeMap<String, Vec<RunRecord>> = BTreeMap::new();
        let last = month_of(now_micros - COMPACT_AFTER);
        {
            let inner = self.inner();
            let singles = inner.index.singles();
            let names = singles.iter().filter_map(|name| month_and_id(name));
            for (month, run_id) in names.filter(|(month, _)| *month < last.as_str()) {
                let record = inner.index.by_id(run_id).cloned();
                months.entry(month.to_owned()).or_default().extend(record);
            }
            // A month goes as a whole: in parts it would become as many objects.
            for name in inner.unsent.iter().filter(|_| archive.is_some()) {
                if let Some((month, _)) = month_and_id(name) {
                    months.remove(month);
                }
            }
        }
        for (month, records) in months {
            let left = DELETED_MAX - done.records;
            done.is_partial |= records.len() > left;
            if left > 0 {
                done.records += self.fold(archive, &month, records, left)?;
                done.months += 1;
            }
        }
        done.expired = self.expire(archive, now_micros)?;
        Ok(done)
    }

    /// `most`: of its records by themselves that go.
    fn fold(
        &self,
        archive: Option<&dyn Archive>,
        month: &str,
        records: Vec<RunRecord>,
        most: usize,
    ) -> Result<usize> {
        let held: BTreeSet<String> = self.held_in_months(month)?.into_iter().collect();
        let mut new: Vec<&RunRecord> = records
            .iter()
            .filter(|record| !held.contains(&record.run_id))
            .collect();
        new.sort_by(|a, b| a.run_id.cmp(&b.run_id));
        if !new.is_empty() {
            let bytes: Vec<u8> = new.iter().flat_map(|record| record.to_bytes()).collect();
            let name = format!("{PREFIX}{month}-{}", digest(&bytes));
            if let Some(archive) = archive {
                archive.put(&name, &bytes).map_err(archived)?;
                if archive.get(&name).map_err(archived)? != bytes {
                    return Err(Error::Archive(format!(
                        "{name} does not read back as it was written"
                    )));
                }
            }
            files::put(&self.root, &name, &bytes)?;
            let path = self.root.join(&name);
            let read = std::fs::read(&path).map_err(Error::io("cannot read back", &path))?;
            if read != bytes {
                return Err(Error::Archive(format!(
                    "{} does not read back as it was written",
                    path.display()
                )));
            }
        }
        let folded = records.iter().take(most);
        for record in folded.clone() {
            if let Some(archive) = archive {
                archive.delete(&record.name()).map_err(archived)?;
            }
            files::remove(&self.root.join(record.name()))?;
            self.inner().index.folded(&record.run_id);
        }
        Ok(folded.len())
    }

    /// Of those that a compaction which did not come to its end made here.
    fn held_in_months(&self, month: &str) -> Result<Vec<String>> {
        let mut held = Vec::new();
        let of_month = format!("{PREFIX}{month}-");
        for name in files::names(&self.root)? {
            if !name.starts_with(&of_month) {
                continue;
            }
            let path = self.root.join(&name);
            let bytes = std::fs::read(&path).map_err(Error::io("cannot read", &path))?;
            if check(&name, &bytes).is_err() {
                continue;
            }
            let lines = bytes.split_inclusive(|byte| *byte == b'\n');
            held.extend(
                lines
                    .filter_map(|line| RunRecord::parse(line).ok())
                    .map(|record| record.run_id),
            );
        }
        Ok(held)
    }

    fn expire(&self, archive: Option<&dyn Archive>, now_micros: i64) -> Result<usize> {
        let now = month_of(now_micros);
        let Some((Ok(year), month)) = now
            .split_once('-')
            .map(|(year, month)| (year.parse::<i16>(), month))
        else {
            return Ok(0);
        };
        let first_kept = format!("{PREFIX}{:04}-{month}", year - YEARS_KEPT);
        let mut names: Vec<String> = files::names(&self.root)?;
        if let Some(archive) = archive {
            names.extend(archive.list(PREFIX).map_err(archived)?);
        }
        let is_old =
            |name: &String| name.starts_with(PREFIX) && name.as_str() < first_kept.as_str();
        names.retain(is_old);
        names.sort();
        names.dedup();
        for name in &names {
            if let Ok(bytes) = std::fs::read(self.root.join(name)) {
                for record in bytes
                    .split_inclusive(|byte| *byte == b'\n')
                    .filter_map(|line| RunRecord::parse(line).ok())
                {
                    self.inner().index.forget(&record.run_id);
                }
            }
            if let Some(archive) = archive {
                archive.delete(name).map_err(archived)?;
            }
            files::remove(&self.root.join(name))?;
        }
        Ok(names.len())
    }
}
