//! Redis and Valkey without our keys: how a server is reached ([`RedisSettings`], [`RedisSession`]), the process
//! ([`ScratchRedis`], a server that loads files and goes away again), the files of its persistence ([`aof`], [`rdb`]),
//! its persistence settings ([`PersistenceFinding`]) and what it holds ([`Contents`]).
//!
//! Absent on purpose: to copy (`backup::cache`), to restore (`recovery::cache`), and what our own keys mean
//! (`services::cache`).
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod aof;
mod contents;
mod error;
mod persistence;
pub mod rdb;
mod scratch;
mod session;
mod settings;

pub use contents::{Contents, Entry, KeyName, Value};
pub use error::{RedisError, Result};
pub use persistence::{PersistenceFinding, SETTINGS, Setting, apply, check};
/// What a server answers, before it is taken for something.
pub use redis::Value as Answer;
pub use scratch::{LoadFault, Program, ScratchFiles, ScratchRedis, end_leftovers, is_in_use};
pub use session::{Info, RedisSession, ServerKind};
pub use settings::{RedisSettings, RedisSettingsError};
