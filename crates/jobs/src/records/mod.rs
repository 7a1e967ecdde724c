//! Records of runs: in a folder first, in an archive as soon as it can be, in memory for every question.

mod compaction;
mod exchange;
mod files;
mod index;
mod newest;
mod newest_cache;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    error::{Error, Result},
    record::RunRecord,
};

pub use compaction::CompactionReport;
pub use files::OpenRun;
use index::Index;
pub use index::Statistics;

/// Where records are kept besides: a repository. What is put is never overwritten.
pub trait Archive: Send + Sync {
    /// One of this name and these bytes that is there is no error.
    ///
    /// # Errors
    /// Why it could not be put; it is tried again.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), String>;

    /// # Errors
    /// Why it could not be listed.
    fn list(&self, prefix: &str) -> Result<Vec<String>, String>;

    /// # Errors
    /// Why it could not be read.
    fn get(&self, name: &str) -> Result<Vec<u8>, String>;

    /// # Errors
    /// Why it is still there.
    fn delete(&self, name: &str) -> Result<(), String>;
}

#[derive(Debug)]
pub struct Records {
    root: PathBuf,
    inner: Mutex<Inner>,
    /// One at a time: a driver may begin another one while a store is slow.
    exchanging: Mutex<()>,
}

#[derive(Debug, Default)]
struct Inner {
    index: Index,
    /// By name: why it cannot be read.
    unreadable: BTreeMap<String, String>,
    /// Not known to be in the archive.
    unsent: BTreeSet<String>,
    /// The archive was listed whole.
    met: bool,
    /// By the other drivers of this plan, since somebody last took them.
    learnt: Vec<RunRecord>,
}

impl Records {
    /// Reads what is there, and records what an earlier process left open as interrupted.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(root: &Path) -> Result<Self> {
        let records = Self::read(root)?;
        files::sweep(root)?;
        for mut record in files::abandoned(root)? {
            let is_known = records.inner().index.contains(&record.run_id);
            if !is_known {
                record.reason.get_or_insert_with(|| {
                    "the process that ran it ended before it did; found at the next start"
                        .to_owned()
                });
                records.write(&record)?;
            }
            files::remove(&files::open_path(root, &record.run_id))?;
        }
        Ok(records)
    }

    /// Of one job in a folder, from this moment on: without reading what is older.
    ///
    /// # Errors
    /// When the folder is there and cannot be read.
    pub fn since(root: &Path, job: &str, micros: i64) -> Result<Vec<RunRecord>> {
        let from = format!("{:016x}", micros.max(0));
        let mut names = files::names(root)?;
        let is_young = |name: &String| {
            let id = name.rsplit('/').next().unwrap_or_default();
            !name.starts_with(compaction::PREFIX) && id >= from.as_str()
        };
        names.retain(is_young);
        names.sort();
        let read = |name: &String| RunRecord::parse(&std::fs::read(root.join(name)).ok()?).ok();
        let records = names.iter().filter_map(read);
        Ok(records.filter(|record| record.job == job).collect())
    }

    /// Only to look: nothing is changed, nothing need be there.
    ///
    /// # Errors
    /// When the folder is there and cannot be read.
    pub fn read(root: &Path) -> Result<Self> {
        let mut inner = Inner::default();
        for (name, content) in files::all(root)? {
            inner.take(&name, content.map_err(|error| error.to_string()));
        }
        inner.unsent = inner.index.singles();
        inner.learnt.clear();
        Ok(Self {
            root: root.to_owned(),
            inner: Mutex::new(inner),
            exchanging: Mutex::default(),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of a run that starts now; held until it ends.
    ///
    /// # Errors
    /// When it cannot be made durable: then nothing is started.
    pub fn begin(&self, record: &RunRecord) -> Result<OpenRun> {
        files::begin(&self.root, record)
    }

    /// Durable, then no longer open.
    ///
    /// # Errors
    /// When it cannot be made durable; the open run stays and is found at the next start.
    pub fn end(&self, open: OpenRun, record: &RunRecord) -> Result<()> {
        self.write(record)?;
        open.close()
    }

    /// Runs that are under way now, in any process of this folder.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn running(root: &Path) -> Result<Vec<RunRecord>> {
        files::held(root)
    }

    /// As [`begin`](Self::begin), by a process that has not read what there is.
    pub(crate) fn open_run(root: &Path, record: &RunRecord) -> Result<OpenRun> {
        files::begin(root, record)
    }

    /// As [`end`](Self::end), by a process that has not read what there is.
    pub(crate) fn close_run(root: &Path, open: OpenRun, record: &RunRecord) -> Result<()> {
        files::put(root, &record.name(), &record.to_bytes())?;
        open.close()
    }

    /// Takes what another process put into this folder.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn catch_up(&self) -> Result<()> {
        for name in files::names(&self.root)? {
            if self.has(&name) {
                continue;
            }
            let content = std::fs::read(self.root.join(&name));
            let mut inner = self.inner();
            inner.take(&name, content.map_err(|error| error.to_string()));
            inner.unsent.insert(name);
        }
        Ok(())
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// # Errors
    /// When it cannot be made durable.
    pub fn write(&self, record: &RunRecord) -> Result<()> {
        let name = record.name();
        files::put(&self.root, &name, &record.to_bytes())?;
        let mut inner = self.inner();
        inner.index.insert(record.clone(), true);
        inner.unsent.insert(name);
        Ok(())
    }

    /// Of one job, ascending.
    #[must_use]
    pub fn of(&self, job: &str) -> Vec<RunRecord> {
        self.inner().index.of(job).cloned().collect()
    }

    /// The newest of all jobs, newest first.
    #[must_use]
    pub fn newest(&self, most: usize) -> Vec<RunRecord> {
        self.inner().index.newest(most)
    }

    #[must_use]
    pub fn newest_of(&self, job: &str) -> Option<RunRecord> {
        self.inner().index.of(job).next_back().cloned()
    }

    /// The newest one that ran.
    #[must_use]
    pub fn newest_run(&self, job: &str) -> Option<RunRecord> {
        let inner = self.inner();
        let ran = |record: &&RunRecord| record.outcome != crate::record::Outcome::Skipped;
        inner.index.of(job).rev().find(ran).cloned()
    }

    #[must_use]
    pub fn statistics(&self, job: &str, now_micros: i64) -> Statistics {
        self.inner().index.statistics(job, now_micros)
    }

    /// What the records of one job say, looked at where they are.
    pub fn with<T>(
        &self,
        job: &str,
        look: impl FnOnce(&mut dyn DoubleEndedIterator<Item = &RunRecord>) -> T,
    ) -> T {
        look(&mut self.inner().index.of(job))
    }

    /// By name, and why.
    #[must_use]
    pub fn unreadable(&self) -> BTreeMap<String, String> {
        self.inner().unreadable.clone()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.inner().index.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many are in no archive yet.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.inner().unsent.len()
    }

    /// Of other drivers, as they came since this was last asked.
    #[must_use]
    pub fn take_learnt(&self) -> Vec<RunRecord> {
        std::mem::take(&mut self.inner().learnt)
    }
}

impl Inner {
    /// A record or a month of them, by its name.
    fn take(&mut self, name: &str, content: Result<Vec<u8>, String>) {
        let bytes = match content {
            Ok(bytes) => bytes,
            Err(reason) => {
                self.unreadable.insert(name.to_owned(), reason);
                return;
            }
        };
        if !name.starts_with(compaction::PREFIX) {
            match RunRecord::parse(&bytes).and_then(|record| match record.name() == name {
                true => Ok(record),
                false => Err(format!("it is the record of {}", record.name())),
            }) {
                Ok(record) => self.add(record, true),
                Err(reason) => {
                    self.unreadable.insert(name.to_owned(), reason);
                }
            }
            return;
        }
        if let Err(reason) = compaction::check(name, &bytes) {
            // What of it can be read is read all the same.
            self.unreadable.insert(name.to_owned(), reason);
        }
        for (number, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
            match RunRecord::parse(line) {
                Ok(record) => self.add(record, false),
                Err(reason) => {
                    let line = format!("{name} line {}", number + 1);
                    self.unreadable.insert(line, reason);
                }
            }
        }
    }

    fn add(&mut self, record: RunRecord, single: bool) {
        if !self.index.contains(&record.run_id) {
            self.learnt.push(record.clone());
        }
        self.index.insert(record, single);
    }
}

fn archived(error: String) -> Error {
    Error::Archive(error)
}

#[cfg(test)]
mod tests;
