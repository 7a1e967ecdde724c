//! A map. For tests and for models that other stores are compared with.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Appender, Lock, LockPolicy, ObjectInfo, Store, check_name, now_micros};
use crate::error::StoreError;

type Objects = BTreeMap<String, (Vec<u8>, i64)>;

/// Clones share the same objects.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    objects: Arc<Mutex<Objects>>,
    clock: Arc<Mutex<Option<i64>>>,
    locking: Arc<Mutex<Locking>>,
    zeros: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Locking {
    policy: Option<LockPolicy>,
    locks: BTreeMap<String, Lock>,
}

impl MemoryStore {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What time it gives to new objects from now on; its own clock when `None`.
    pub fn set_clock(&self, micros: Option<i64>) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = micros;
    }

    /// What will be appended to begins as so many zeros from now on, as files that were made ahead do.
    pub fn set_zeros_ahead(&self, zeros: usize) {
        self.zeros.store(zeros, Ordering::Relaxed);
    }

    /// Locks what is written from now on.
    pub fn set_lock(&self, policy: Option<LockPolicy>) {
        self.locking().policy = policy;
    }

    fn locking(&self) -> MutexGuard<'_, Locking> {
        self.locking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_new(&self, name: &str) {
        let now = self.now();
        let mut locking = self.locking();
        if let Some(policy) = locking.policy.and_then(|policy| policy.of(name)) {
            let lock = locking.locks.entry(name.to_owned()).or_insert(Lock {
                until_micros: None,
                hold: false,
                mode: None,
            });
            lock.mode = Some(policy.mode);
            lock.until_micros = lock.until_micros.max(Some(policy.until(now)));
        }
    }

    fn now(&self) -> i64 {
        let clock = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.unwrap_or_else(now_micros)
    }

    /// Changes an object behind the repository's back, as a bad disk does.
    pub fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some((bytes, _)) = self.objects().get_mut(name) {
            change(bytes);
        }
    }

    fn with<T>(&self, name: &str, read: impl FnOnce(&[u8]) -> T) -> Result<T, StoreError> {
        match self.objects().get(name) {
            Some((bytes, _)) => Ok(read(bytes)),
            None => Err(StoreError::NotFound {
                store: self.describe(),
                object: name.to_owned(),
            }),
        }
    }
}

impl Store for MemoryStore {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check_name(name)?;
        let mut objects = self.objects();
        if objects.contains_key(name) {
            return Err(StoreError::AlreadyExists {
                object: name.to_owned(),
            });
        }
        objects.insert(name.to_owned(), (bytes.to_vec(), self.now()));
        self.lock_new(name);
        Ok(())
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.with(name, <[u8]>::to_vec)
    }

    fn get_range(&self, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let range = self.with(name, |bytes| {
            let start = usize::try_from(offset).ok()?;
            bytes
                .get(start..start.checked_add(len)?)
                .map(<[u8]>::to_vec)
        })?;
        range.ok_or_else(|| StoreError::Damaged {
            object: name.to_owned(),
            what: format!("bytes {offset} to {} were asked for", offset + len as u64),
        })
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.with(name, |bytes| bytes.len() as u64)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let objects = self.objects();
        Ok(objects
            .range(prefix.to_owned()..)
            .take_while(|(name, _)| name.starts_with(prefix))
            .map(|(name, (bytes, modified))| ObjectInfo {
                name: name.clone(),
                size: bytes.len() as u64,
                modified_micros: *modified,
            })
            .collect())
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        if let Some(lock) = self.lock_of(name)? {
            return Err(StoreError::Locked {
                object: name.to_owned(),
                lock,
            });
        }
        self.locking().locks.remove(name);
        match self.objects().remove(name) {
            Some(_) => Ok(()),
            None => Err(StoreError::NotFound {
                store: self.describe(),
                object: name.to_owned(),
            }),
        }
    }

    fn appender(&self, name: &str) -> Option<Result<Box<dyn Appender>, StoreError>> {
        let appender = || -> Result<Box<dyn Appender>, StoreError> {
            self.put(name, &vec![0; self.zeros.load(Ordering::Relaxed)])?;
            Ok(Box::new(MemoryAppender {
                store: self.clone(),
                name: name.to_owned(),
                end: 0,
            }))
        };
        Some(appender())
    }

    fn keep_longer(&self, names: &[String]) -> Result<(), StoreError> {
        names.iter().for_each(|name| self.lock_new(name));
        Ok(())
    }

    fn lock_of(&self, name: &str) -> Result<Option<Lock>, StoreError> {
        let now = self.now();
        Ok(self.locking().locks.get(name).and_then(|lock| lock.at(now)))
    }

    fn set_hold(&self, names: &[String], on: bool) -> Result<(), StoreError> {
        let mut locking = self.locking();
        for name in names {
            let lock = locking.locks.entry(name.clone()).or_insert(Lock {
                until_micros: None,
                hold: on,
                mode: None,
            });
            lock.hold = on;
        }
        Ok(())
    }

    fn appends(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

#[derive(Debug)]
struct MemoryAppender {
    store: MemoryStore,
    name: String,
    end: usize,
}

impl Appender for MemoryAppender {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let (begin, end) = (self.end, self.end + bytes.len());
        // As with a file: once it is unlinked, writes go nowhere and succeed.
        self.store.tamper(&self.name, |object| {
            object.resize(object.len().max(end), 0);
            object[begin..end].copy_from_slice(bytes);
        });
        self.end = end;
        Ok(())
    }
}
