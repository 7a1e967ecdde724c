//! The audit log that the engine writes.

/// The name of the engine's log in `heads/`.
pub(crate) const LOG: u16 = 1;

pub(crate) fn log_name() -> String {
    LOG.to_string()
}
