//! Object stores. Each implementation must pass `suite`; `FaultyStore` wraps one and injects faults.

#[cfg(any(test, feature = "testing"))]
mod faulty;
mod lock;
#[cfg(any(test, feature = "testing"))]
mod memory;
mod posix;
#[cfg(any(test, feature = "testing"))]
pub mod suite;

#[cfg(any(test, feature = "testing"))]
pub use faulty::FaultyStore;
pub use lock::{Lock, LockMode, LockPolicy};
#[cfg(any(test, feature = "testing"))]
pub use memory::MemoryStore;
pub use posix::PosixStore;

use crate::error::StoreError;

/// The marker that proves that the place is the repository and that it is there.
pub const MARKER: &str = "format";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    pub name: String,
    pub size: u64,
    pub modified_micros: i64,
}

/// An object in a storage class that hands nothing out before it was restored, which takes hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColdObject {
    pub storage_class: String,
    pub bytes: u64,
    /// As the store keeps it, with its kind.
    pub checksum: Option<String>,
}

/// Named write-once objects. All calls block; a call that returns `Ok` is durable.
pub trait Store: Send + Sync + std::fmt::Debug {
    /// Writes a new object; `AlreadyExists` when the name is taken, and then nothing is changed.
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError>;
    /// The same for an object that need not fit into memory: `next` gives its pieces in their order, `None` at its end. Nothing of it is
    /// there when `next` fails.
    fn put_pieces(&self, name: &str, next: &mut NextPiece<'_>) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        while let Some(mut piece) = next()? {
            bytes.append(&mut piece);
        }
        self.put(name, &bytes)
    }
    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError>;
    /// Exactly `len` bytes; `Damaged` when the object ends earlier.
    fn get_range(&self, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, StoreError>;
    fn size(&self, name: &str) -> Result<u64, StoreError>;
    /// All objects whose names start with `prefix`, by name. Complete, or an error.
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError>;
    fn delete(&self, name: &str) -> Result<(), StoreError>;
    /// Those that are gone already count as deleted. After an error some may be left.
    fn delete_all(&self, names: &[String]) -> Result<(), StoreError> {
        for name in names {
            match self.delete(name) {
                Ok(()) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
    /// Sets room aside into which marks of expiry can still be written when nothing else finds any (repository.md §11). Does nothing twice,
    /// and nothing where the store has no end.
    fn make_reserve(&self) -> Result<(), StoreError> {
        Ok(())
    }
    /// A new, empty object that grows at its end; `None` when the store has no such thing.
    fn appender(&self, name: &str) -> Option<Result<Box<dyn Appender>, StoreError>>;
    /// Whether objects may grow after they were listed.
    fn appends(&self) -> bool {
        false
    }
    /// Extends the locks of these objects to what objects written now would get; never shortens one. Nothing where nothing is locked.
    fn keep_longer(&self, _names: &[String]) -> Result<(), StoreError> {
        Ok(())
    }
    /// What the store itself would say against deleting it now.
    fn lock_of(&self, _name: &str) -> Result<Option<Lock>, StoreError> {
        Ok(None)
    }
    /// What the store says of an object that it does not hand out ([`StoreError::Cold`]).
    fn cold(&self, _name: &str) -> Result<Option<ColdObject>, StoreError> {
        Ok(None)
    }
    /// Sets or clears the store's own legal hold, where it has such a thing; what is on record is below `holds/`.
    fn set_hold(&self, _names: &[String], _on: bool) -> Result<(), StoreError> {
        Ok(())
    }
    fn describe(&self) -> String;
}

/// The next piece of an object that is being put.
pub type NextPiece<'a> = dyn FnMut() -> Result<Option<Vec<u8>>, StoreError> + 'a;

/// The open end of one object. After an error it must not be used again: bytes may be there in part.
pub trait Appender: Send + std::fmt::Debug {
    /// Durable when it returns.
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError>;
}

/// Names are relative paths of plain components, so that no store has to escape anything.
pub fn check_name(name: &str) -> Result<(), StoreError> {
    let plain = |c: &str| {
        let first = c.as_bytes().first();
        first.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b == b'-')
            && c.bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
    };
    if name.len() <= 400 && name.split('/').all(plain) {
        return Ok(());
    }
    Err(StoreError::Io {
        store: String::new(),
        object: name.to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a valid object name"),
    })
}

pub(crate) fn now_micros() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}
