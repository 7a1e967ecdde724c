//! How far a long operation is.

/// Told by the operation, shown by whoever runs it.
pub trait Progress: Send + Sync {
    /// The expected size of the whole, in bytes.
    fn total(&self, _bytes: u64) {}
    /// So many more bytes are done.
    fn advance(&self, _bytes: u64) {}
    fn message(&self, _text: &str) {}
    /// Asked often; true ends the operation cleanly. What was being written is incomplete and says so.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Shows nothing.
impl Progress for () {}
