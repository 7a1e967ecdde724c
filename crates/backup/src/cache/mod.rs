//! The cache: copies of the append-only file on this host ([`copy_aof`], every few minutes), and RDB files
//! ([`RdbSource`], sealed into the repository as documents of the component `cache`). A copy counts when a server
//! loaded it.

mod aof;
mod error;
mod files;
mod rdb;

pub use aof::{CopyOptions, DISK_RESERVE_BYTES, copy_aof, expire_copies};
pub use error::CacheError;
pub use rdb::{RdbDump, RdbPolicy, RdbSource};

use redis_physical::{Info, RedisSession, RedisSettings};

use std::path::PathBuf;
use std::time::Instant;

/// As the repository and the plan name it.
pub const COMPONENT: &str = "cache";
/// The document of a snapshot.
pub const DOCUMENT: &str = "dump.rdb";

/// Why the server's files cannot be copied from here, if they cannot: asked before a run, without one.
pub fn check_reach(settings: &RedisSettings) -> Result<(), CacheError> {
    let mut session = RedisSession::open(settings)?;
    session.primary()?;
    let folder = server_folder(&mut session)?;
    files::readable(session.place(), &folder)
}

/// The same of its append-only file.
pub fn check_aof(settings: &RedisSettings) -> Result<(), CacheError> {
    check_reach(settings)?;
    aof::check(&mut RedisSession::open(settings)?)
}

fn millis_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn server_folder(session: &mut RedisSession) -> Result<PathBuf, CacheError> {
    Ok(PathBuf::from(session.known_setting("dir")?))
}

fn databases(session: &mut RedisSession) -> Result<u32, CacheError> {
    Ok(session.known_setting("databases")?.parse().unwrap_or(16))
}

/// Of all databases of a server.
fn keys(info: &Info) -> u64 {
    let of = |database: u32| {
        let fields = info.text(&format!("db{database}")).to_owned();
        let keys = fields
            .split(',')
            .find_map(|field| field.strip_prefix("keys=")?.parse::<u64>().ok());
        keys.unwrap_or(0)
    };
    info.databases().map(of).sum()
}
