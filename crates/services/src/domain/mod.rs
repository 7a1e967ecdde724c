//! What every other module speaks of: identifiers and their rules, numbers as they are sent, times, API keys,
//! positions, and what the services are told of their surroundings. No I/O; imports no other module.

pub(crate) mod digits;
pub(crate) mod identifiers;
pub(crate) mod keys;
pub(crate) mod known_log;
pub(crate) mod limits;
pub(crate) mod moment;
pub(crate) mod position;
pub(crate) mod protection;
pub(crate) mod text_number;
pub(crate) mod time;
pub(crate) mod whole_key;

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
