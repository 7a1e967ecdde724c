//! A store whose appends wait at a gate.

use repository::{
    StoreError,
    store::{Appender, MemoryStore, ObjectInfo, Store},
};
use std::sync::{Arc, Condvar, Mutex};

#[derive(Debug, Default)]
struct Gate {
    closed: Mutex<bool>,
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(crate) struct GatedStore {
    inner: MemoryStore,
    gate: Arc<Gate>,
}

impl GatedStore {
    pub(crate) fn set_closed(&self, closed: bool) {
        *self.gate.closed.lock().unwrap() = closed;
        self.gate.changed.notify_all();
    }
}

/// Opens the gate when a test ends, however it ends: nobody may wait at it for ever.
pub(crate) struct OpenAtEnd(pub(crate) Arc<GatedStore>);

impl Drop for OpenAtEnd {
    fn drop(&mut self) {
        self.0.set_closed(false);
    }
}

#[derive(Debug)]
struct GatedAppender {
    inner: Box<dyn Appender>,
    gate: Arc<Gate>,
}

impl Appender for GatedAppender {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let mut closed = self.gate.closed.lock().unwrap();
        while *closed {
            closed = self.gate.changed.wait(closed).unwrap();
        }
        drop(closed);
        self.inner.append(bytes)
    }
}

impl Store for GatedStore {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner.put(name, bytes)
    }
    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.inner.get(name)
    }
    fn get_range(&self, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        self.inner.get_range(name, offset, len)
    }
    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.inner.size(name)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.inner.list(prefix)
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.inner.delete(name)
    }
    fn appender(&self, name: &str) -> Option<Result<Box<dyn Appender>, StoreError>> {
        let gate = Arc::clone(&self.gate);
        let inner = self.inner.appender(name)?;
        Some(inner.map(|inner| Box::new(GatedAppender { inner, gate }) as Box<dyn Appender>))
    }
    fn describe(&self) -> String {
        "memory behind a gate".into()
    }
}
