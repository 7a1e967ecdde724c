//! How far a long operation is.

/// Told by the operation, shown by whoever runs it.
pub trait Progress: Send + Sync {
    /// The expected size of the whole, in bytes.
    fn total(&self, _bytes: u64) {}
    /// So many more bytes are done.
    fn advance(&self, _bytes: u64) {}
    fn message(&self, _text: &str) {}
    /// Asked often; true ends the operation, leaving a folder that cannot be started.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Shows nothing.
impl Progress for () {}
