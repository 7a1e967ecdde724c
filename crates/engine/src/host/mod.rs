//! An instance on this machine: its folder and what is where in it, its locks and sockets, how a command speaks to the
//! running engine, what it puts on record, and the names that its database knows. Everything else builds on it; it
//! knows no command and no supervisor.

pub(crate) mod control;
pub(crate) mod database;
pub(crate) mod fact;
pub(crate) mod instance;
pub(crate) mod location;
pub(crate) mod lock;
pub(crate) mod log;
pub(crate) mod person;
pub(crate) mod progress;
pub(crate) mod record;
pub(crate) mod runtime;
pub(crate) mod secret_file;
pub(crate) mod signals;
pub(crate) mod sockets;
