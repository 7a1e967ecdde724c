//! An instance on this machine: its folder and what is where in it, its keys, locks and sockets, how a command speaks
//! to the running engine, what it puts on record, and the names that its database knows. Everything else builds on it;
//! it knows no command, no job and no supervisor.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod control;
pub mod database;
mod error;
pub mod files;
pub mod instance;
pub mod keys;
pub mod location;
pub mod lock;
pub mod log;
mod log_file;
pub mod person;
pub mod progress;
pub mod record;
pub mod runtime;
pub mod signals;
pub mod sockets;
pub mod stored_heads;
pub mod telemetry;
pub mod workers;

pub use error::Error;
