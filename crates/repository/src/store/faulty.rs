//! A wrapper that fails on purpose: by switch, at a chosen write, or at random from a seed that can be replayed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Appender, Lock, MARKER, ObjectInfo, Store};
use crate::error::StoreError;

#[derive(Debug, Default)]
struct Faults {
    seed: u64,
    away: bool,
    full: bool,
    read_only: bool,
    without_appender: bool,
    writes: u64,
    crash_at_write: Option<u64>,
    write_fault_percent: u64,
    deny_delete: bool,
    deny_put: Option<String>,
    /// By the first part of the name.
    reads: BTreeMap<String, u64>,
}

/// Clones share the same faults.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    faults: Arc<Mutex<Faults>>,
}

impl FaultyStore {
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, seed: u64) -> Self {
        let faults = Faults {
            seed: seed | 1,
            ..Faults::default()
        };
        Self {
            inner,
            faults: Arc::new(Mutex::new(faults)),
        }
    }

    pub fn set_away(&self, away: bool) {
        self.faults().away = away;
    }

    pub fn set_full(&self, full: bool) {
        self.faults().full = full;
    }

    pub fn set_read_only(&self, read_only: bool) {
        self.faults().read_only = read_only;
    }

    /// Behaves like a store that cannot append (S3).
    pub fn set_without_appender(&self, without: bool) {
        self.faults().without_appender = without;
    }

    pub fn set_deny_delete(&self, deny: bool) {
        self.faults().deny_delete = deny;
    }

    /// Puts of names that begin so are refused.
    pub fn set_deny_put(&self, prefix: Option<&str>) {
        self.faults().deny_put = prefix.map(str::to_owned);
    }

    /// The write with this number (from 0) is torn and every later call fails, as after a power cut.
    pub fn crash_at_write(&self, number: Option<u64>) {
        let mut faults = self.faults();
        faults.writes = 0;
        faults.crash_at_write = number;
    }

    /// Each write fails with this probability; a failed append may leave part of its bytes.
    pub fn set_write_fault_percent(&self, percent: u64) {
        self.faults().write_fault_percent = percent;
    }

    /// Writes seen so far: put, append and delete.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.faults().writes
    }

    /// How often bytes or sizes of objects below this folder were asked for.
    #[must_use]
    pub fn reads_of(&self, folder: &str) -> u64 {
        let folder = folder.trim_end_matches('/');
        self.faults().reads.get(folder).copied().unwrap_or(0)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn io(&self, name: &str, what: &str) -> StoreError {
        StoreError::Io {
            store: self.describe(),
            object: name.to_owned(),
            source: std::io::Error::other(what.to_owned()),
        }
    }

    fn before_read(&self, name: &str) -> Result<(), StoreError> {
        let faults = self.faults();
        if faults.away {
            let what = format!("its marker `{MARKER}` cannot be found");
            return Err(StoreError::Away {
                store: self.describe(),
                what,
            });
        }
        if faults.crash_at_write.is_some_and(|at| faults.writes > at) {
            return Err(self.io(name, "crashed"));
        }
        Ok(())
    }

    fn before_look(&self, name: &str) -> Result<(), StoreError> {
        self.before_read(name)?;
        let folder = name.split('/').next().unwrap_or_default();
        *self.faults().reads.entry(folder.to_owned()).or_default() += 1;
        Ok(())
    }

    /// `Err` carries the fault and how many of `len` bytes get through before it.
    fn before_write(&self, name: &str, len: usize) -> Result<(), (StoreError, usize)> {
        self.before_read(name).map_err(|error| (error, 0))?;
        let mut faults = self.faults();
        let number = faults.writes;
        faults.writes += 1;
        // What takes no room finds it.
        if faults.full && len > 0 {
            let (store, object) = (self.describe(), name.to_owned());
            let wanted = Some(len as u64);
            return Err((
                StoreError::Full {
                    store,
                    object,
                    wanted,
                },
                len / 2,
            ));
        }
        if faults.read_only {
            let error = StoreError::ReadOnly {
                store: self.describe(),
                object: name.to_owned(),
                what: "read-only file system".to_owned(),
            };
            return Err((error, 0));
        }
        let random = faults.next_random();
        if faults.crash_at_write == Some(number) {
            return Err((self.io(name, "crashed"), part(random, len)));
        }
        if random % 100 < faults.write_fault_percent {
            return Err((self.io(name, "injected fault"), part(random / 100, len)));
        }
        Ok(())
    }
}

fn part(random: u64, len: usize) -> usize {
    usize::try_from(random % (len as u64 + 1)).unwrap_or(0)
}

impl Faults {
    /// xorshift64*: enough to spread faults, and the same on every machine.
    fn next_random(&mut self) -> u64 {
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        self.seed.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 8
    }
}

impl Store for FaultyStore {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        // A put is all or nothing, whatever happens.
        self.before_write(name, bytes.len())
            .map_err(|(error, _)| error)?;
        let denied = self.faults().deny_put.clone();
        if denied.is_some_and(|prefix| name.starts_with(&prefix)) {
            return Err(self.io(name, "put denied"));
        }
        self.inner.put(name, bytes)
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.before_look(name)?;
        self.inner.get(name)
    }

    fn get_range(&self, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        self.before_look(name)?;
        self.inner.get_range(name, offset, len)
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.before_look(name)?;
        self.inner.size(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.before_read(prefix)?;
        self.inner.list(prefix)
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.before_write(name, 0).map_err(|(error, _)| error)?;
        if self.faults().deny_delete {
            return Err(StoreError::ReadOnly {
                store: self.describe(),
                object: name.to_owned(),
                what: "deletion denied".to_owned(),
            });
        }
        self.inner.delete(name)
    }

    fn appender(&self, name: &str) -> Option<Result<Box<dyn Appender>, StoreError>> {
        if self.faults().without_appender {
            return None;
        }
        if let Err((error, _)) = self.before_write(name, 0) {
            return Some(Err(error));
        }
        let inner = self.inner.appender(name)?;
        Some(inner.map(|inner| -> Box<dyn Appender> {
            let (store, name) = (self.clone(), name.to_owned());
            Box::new(FaultyAppender { store, name, inner })
        }))
    }

    fn keep_longer(&self, names: &[String]) -> Result<(), StoreError> {
        self.before_read("locks")?;
        self.inner.keep_longer(names)
    }

    fn lock_of(&self, name: &str) -> Result<Option<Lock>, StoreError> {
        self.before_read(name)?;
        self.inner.lock_of(name)
    }

    fn set_hold(&self, names: &[String], on: bool) -> Result<(), StoreError> {
        self.before_read("holds")?;
        self.inner.set_hold(names, on)
    }

    fn appends(&self) -> bool {
        !self.faults().without_appender && self.inner.appends()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[derive(Debug)]
struct FaultyAppender {
    store: FaultyStore,
    name: String,
    inner: Box<dyn Appender>,
}

impl Appender for FaultyAppender {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        match self.store.before_write(&self.name, bytes.len()) {
            Ok(()) => self.inner.append(bytes),
            Err((error, through)) => {
                // What a torn write leaves behind; whether even that worked changes nothing.
                let _ = self.inner.append(&bytes[..through]);
                Err(error)
            }
        }
    }
}
