//! The audit log that the engine writes.

/// The name of the engine's log in `heads/`.
pub const LOG: u16 = 1;

pub fn log_name() -> String {
    LOG.to_string()
}
