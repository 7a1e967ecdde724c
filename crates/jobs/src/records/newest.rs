//! The newest run of each job, without reading what is older: for commands that show no more than that.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{Records, compaction, files};
use crate::{
    error::Result,
    record::{Outcome, RunRecord, month_of},
};

/// Which of them are looked for, in a month.
#[derive(Default)]
struct Month {
    /// Names of records that lie by themselves, ascending by their ids.
    singles: BTreeMap<String, String>,
    compacted: Vec<String>,
}

impl Records {
    /// Of these jobs, of what started at this moment or later. Nothing is changed, nothing need be there.
    ///
    /// # Errors
    /// When the folder is there and cannot be read.
    pub fn newest_runs(
        root: &Path,
        jobs: impl IntoIterator<Item = String>,
        from_micros: i64,
    ) -> Result<BTreeMap<String, RunRecord>> {
        let mut wanted: BTreeSet<String> = jobs.into_iter().collect();
        let mut months: BTreeMap<String, Month> = BTreeMap::new();
        let first_month = month_of(from_micros);
        for name in files::names_from(root, &first_month)? {
            if let Some(compacted) = name.strip_prefix(compaction::PREFIX) {
                let month = compacted.get(..7).unwrap_or_default().to_owned();
                months.entry(month).or_default().compacted.push(name);
            } else if let Some((month, id)) = name
                .strip_prefix("runs/")
                .and_then(|name| name.split_once('/'))
            {
                let (month, id) = (month.to_owned(), id.to_owned());
                months.entry(month).or_default().singles.insert(id, name);
            }
        }
        let first_id = format!("{:016x}", from_micros.max(0));
        let mut newest = BTreeMap::new();
        for (name, month) in months.into_iter().rev() {
            if wanted.is_empty() || name < first_month {
                break;
            }
            let found = month.newest(root, &wanted, &first_id);
            wanted.retain(|job| !found.contains_key(job));
            newest.extend(found);
        }
        Ok(newest)
    }
}

impl Month {
    fn newest(
        &self,
        root: &Path,
        wanted: &BTreeSet<String>,
        first_id: &str,
    ) -> BTreeMap<String, RunRecord> {
        let mut found: BTreeMap<String, RunRecord> = BTreeMap::new();
        let mut take = |record: RunRecord| {
            let is_run = record.outcome != Outcome::Skipped && record.run_id.as_str() >= first_id;
            let is_newer = |known: &RunRecord| known.run_id < record.run_id;
            if is_run && wanted.contains(&record.job) && found.get(&record.job).is_none_or(is_newer)
            {
                found.insert(record.job.clone(), record);
            }
            found.len() == wanted.len()
        };
        let read = |name: &String| std::fs::read(root.join(name)).unwrap_or_default();
        for name in &self.compacted {
            for line in read(name).split_inclusive(|byte| *byte == b'\n') {
                if let Ok(record) = RunRecord::parse(line) {
                    take(record);
                }
            }
        }
        let is_month_whole = self.compacted.is_empty();
        for (id, name) in self.singles.iter().rev() {
            if id.as_str() < first_id {
                break;
            }
            let has_all = RunRecord::parse(&read(name)).is_ok_and(&mut take);
            // What is older by itself may be newer than what a month holds.
            if has_all && is_month_whole {
                break;
            }
        }
        found
    }
}
