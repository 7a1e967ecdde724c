//! Reads back everything a backup refers to and names what is damaged.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::reader::{BackupReader, EntryKind};
use crate::error::{Error, Result};
use crate::manifest::Extent;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    pub files: u64,
    pub chunks: u64,
    pub bytes: u64,
    pub damaged: Vec<DamagedObject>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedObject {
    pub object: String,
    pub reason: String,
    /// Files of the cluster that need it.
    pub files: Vec<String>,
}

impl BackupReader {
    /// `advance` is called with the bytes of each chunk that was read back. An `Err` is a repository that cannot be asked.
    pub fn verify(&self, threads: usize, advance: &(dyn Fn(u64) + Sync)) -> Result<VerifyReport> {
        let mut damaged = BTreeMap::<String, (String, BTreeSet<String>)>::new();
        for (name, error) in self.packs.broken() {
            damaged.insert(name.clone(), (error.to_string(), BTreeSet::new()));
        }
        let entries = match self.entries() {
            Err(error) if error.is_damage() => {
                note(&mut damaged, &error, "(the folder tree)");
                return Ok(report(damaged, VerifyReport::default()));
            }
            other => other?,
        };
        let mut seen = HashSet::new();
        let mut work: Vec<(&str, &Extent)> = Vec::new();
        let mut totals = VerifyReport::default();
        for entry in &entries {
            if let EntryKind::File { size, extents } = &entry.kind {
                totals.files += 1;
                totals.bytes += size;
                for extent in extents {
                    // A chunk is read once; the other extents must lie in it.
                    if seen.insert(extent.chunk) || self.is_beyond(extent) {
                        work.push((entry.path.as_str(), extent));
                    }
                }
            }
        }
        totals.chunks = seen.len() as u64;
        for (path, error) in self.read_all(&work, threads.max(1), advance)? {
            note(&mut damaged, &error, path);
        }
        Ok(report(damaged, totals))
    }

    /// A file of which a chunk lies in none of the packs that can be read; `None` when each is where the tree says. Reads no chunk.
    pub(crate) fn unindexed_chunk(&self) -> Result<Option<String>> {
        for entry in self.entries()? {
            if let EntryKind::File { extents, .. } = &entry.kind
                && extents.iter().any(|extent| self.is_beyond(extent))
            {
                return Ok(Some(entry.path));
            }
        }
        Ok(None)
    }

    fn is_beyond(&self, extent: &Extent) -> bool {
        u64::from(extent.chunk_offset) + u64::from(extent.length) > self.chunk_len(extent.chunk)
    }

    fn read_all<'a>(
        &self,
        work: &[(&'a str, &Extent)],
        threads: usize,
        advance: &(dyn Fn(u64) + Sync),
    ) -> Result<Vec<(&'a str, Error)>> {
        let next = AtomicUsize::new(0);
        let read = AtomicU64::new(0);
        let bad = Mutex::new(Vec::new());
        let fatal = Mutex::new(None);
        let worker = || {
            while let Some((path, extent)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.read_extent(extent) {
                    Ok(raw) => {
                        read.fetch_add(raw.len() as u64, Ordering::Relaxed);
                        advance(raw.len() as u64);
                    }
                    Err(error) if error.is_damage() => {
                        bad.lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner)
                            .push((*path, error));
                    }
                    Err(error) => {
                        *fatal
                            .lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                        next.store(work.len(), Ordering::Relaxed);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(worker);
            }
        });
        match fatal
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
        {
            Some(error) => Err(error),
            None => Ok(bad
                .into_inner()
                .unwrap_or_else(std::sync::PoisonError::into_inner)),
        }
    }
}

fn note(damaged: &mut BTreeMap<String, (String, BTreeSet<String>)>, error: &Error, path: &str) {
    let object = error.object().unwrap_or("a pack").to_owned();
    let found = damaged
        .entry(object)
        .or_insert_with(|| (error.to_string(), BTreeSet::new()));
    found.1.insert(path.to_owned());
}

fn report(
    damaged: BTreeMap<String, (String, BTreeSet<String>)>,
    totals: VerifyReport,
) -> VerifyReport {
    let damaged = damaged
        .into_iter()
        .map(|(object, (reason, files))| DamagedObject {
            object,
            reason,
            files: files.into_iter().collect(),
        });
    VerifyReport {
        damaged: damaged.collect(),
        ..totals
    }
}
