//! Files into a server of our own: whether they load at all, and what they hold.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use redis_physical::aof::{AofCopy, copies, truncate};
use redis_physical::{
    Contents, Program, RedisError, RedisSession, ScratchFiles, ScratchRedis, end_leftovers,
};

use super::{CacheRestoreError, DOCUMENT};

type Result<T, E = CacheRestoreError> = std::result::Result<T, E>;

/// As every server has them that was not told otherwise.
const DATABASES: u32 = 16;

#[derive(Debug)]
pub struct LoadedCache {
    server: ScratchRedis,
    pub contents: Contents,
    /// Keys of the files that had expired when they were loaded, where the server counts them.
    pub expired: u64,
}

impl LoadedCache {
    pub fn from_rdb(
        program: &Program,
        content: &[u8],
        scratch: &Path,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<LoadedCache> {
        prepare(scratch)?;
        let path = scratch.join(DOCUMENT);
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        let written = written.and_then(|mut file| file.write_all(content));
        written.map_err(RedisError::file("write", &path))?;
        program.check_rdb(&path)?;
        let server = ScratchRedis::start(
            program,
            scratch,
            ScratchFiles::Rdb(DOCUMENT),
            DATABASES,
            cancelled,
        )?;
        LoadedCache::of(server, cancelled)
    }

    /// With `until_seconds`, as it was at the end of that second.
    pub fn from_aof(
        program: &Program,
        copy: &AofCopy,
        until_seconds: Option<i64>,
        scratch: &Path,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<LoadedCache> {
        prepare(scratch)?;
        let facts = &copy.facts;
        let (from, to) = (copy.aof_folder(), scratch.join(&facts.folder));
        make_folder(&to)?;
        let manifest = copy.manifest()?;
        let increments = manifest.increments.iter().map(|file| file.name.clone());
        // A server writes to its increments, and a truncation does; the base is only read.
        for name in increments.chain([copy.manifest_name()]) {
            let (from, to) = (from.join(&name), to.join(&name));
            fs::copy(&from, &to).map_err(RedisError::file("write", &to))?;
        }
        if let Some(base) = &manifest.base {
            let (from, to) = (from.join(&base.name), to.join(&base.name));
            let placed = fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop));
            placed.map_err(RedisError::file("write", &to))?;
        }
        if let Some(seconds) = until_seconds {
            truncate(program, &to, &copy.manifest_name(), seconds)?;
        }
        let files = ScratchFiles::Aof {
            folder: &facts.folder,
            name: &facts.name,
        };
        let server = ScratchRedis::start(program, scratch, files, facts.databases, cancelled)?;
        LoadedCache::of(server, cancelled)
    }

    fn of(server: ScratchRedis, cancelled: &dyn Fn() -> bool) -> Result<LoadedCache> {
        let mut session = server.session()?;
        let expired = session.persistence()?.number("rdb_last_load_keys_expired");
        Ok(LoadedCache {
            contents: Contents::read(&mut session, cancelled)?,
            expired: expired.and_then(|it| u64::try_from(it).ok()).unwrap_or(0),
            server,
        })
    }

    pub(super) fn session(&self) -> Result<RedisSession> {
        Ok(self.server.session()?)
    }

    /// Ends the server and deletes its files.
    pub fn end(self) -> Result<()> {
        let folder = self.server.folder().to_owned();
        self.server.end();
        Ok(fs::remove_dir_all(&folder).map_err(RedisError::file("delete", &folder))?)
    }
}

fn prepare(scratch: &Path) -> Result<()> {
    end_leftovers(scratch);
    if scratch.exists() {
        fs::remove_dir_all(scratch).map_err(RedisError::file("delete", scratch))?;
    }
    make_folder(scratch)
}

fn make_folder(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    Ok(made.map_err(RedisError::file("make", path))?)
}

/// The copy to restore from: the newest, or the first one that was taken at or after a moment and reaches back to it.
pub fn copy_for(folder: &Path, at_seconds: Option<i64>) -> Result<AofCopy> {
    let (mut all, faults) = copies(folder)?;
    let none = |why: String| CacheRestoreError::NoCopy {
        folder: folder.to_owned(),
        why,
    };
    if all.is_empty() {
        let why = faults
            .first()
            .cloned()
            .unwrap_or_else(|| "there is none (bre job run cache.aof)".to_owned());
        return Err(none(why));
    }
    let Some(at) = at_seconds else {
        return all.pop().ok_or_else(|| none("there is none".to_owned()));
    };
    let reaches = |copy: &AofCopy| {
        let taken_seconds = copy.facts.taken_at_micros.div_euclid(1_000_000);
        taken_seconds >= at
            && copy
                .facts
                .first_moment_seconds
                .is_some_and(|first| first <= at)
    };
    let newest = all.last().map(|copy| {
        (
            copy.facts.taken_at_micros.div_euclid(1_000_000),
            copy.facts.clone(),
        )
    });
    if let Some(at) = all.iter().position(reaches) {
        return Ok(all.swap_remove(at));
    }
    Err(none(match newest {
        Some((taken, _)) if taken < at => "the newest was taken before it".to_owned(),
        Some((_, facts)) if facts.first_moment_seconds.is_none() => {
            "they have no time marks (CONFIG SET aof-timestamp-enabled yes)".to_owned()
        }
        _ => "each copy that was taken later begins after it (the file was rewritten in between)"
            .to_owned(),
    }))
}
