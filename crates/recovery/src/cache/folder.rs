//! The cache of a server that does not run: a server of ours works in its folder for the time of the restore, with the
//! append-only file on, and leaves it as the usual start reads it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use redis_physical::{Program, RedisError, RedisSession, ScratchFiles, ScratchRedis, is_in_use};

use super::CacheRestoreError;

type Result<T, E = CacheRestoreError> = std::result::Result<T, E>;

/// `appenddirname` and `appendfilename` as no configuration changes them.
const FOLDER: &str = "appendonlydir";
const NAME: &str = "appendonly.aof";
const DATABASES: u32 = 16;

#[derive(Debug)]
pub struct StoppedCache {
    server: ScratchRedis,
    folder: PathBuf,
    /// What was there and does not load, and why.
    pub set_aside: Option<(PathBuf, RedisError)>,
}

impl StoppedCache {
    /// An append-only file that is there counts as the cache; one that no server loads is set aside, never deleted.
    pub fn open(
        program: &Program,
        folder: &Path,
        now_micros: i64,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<StoppedCache> {
        if is_in_use(folder) {
            let folder = folder.to_owned();
            return Err(CacheRestoreError::InUse { folder });
        }
        let files = ScratchFiles::Aof {
            folder: FOLDER,
            name: NAME,
        };
        let start = || ScratchRedis::start(program, folder, files, DATABASES, cancelled);
        let mut set_aside = None;
        let server = match start() {
            Err(error @ RedisError::Load { .. }) if folder.join(FOLDER).exists() => {
                let aside = folder.join(format!("{FOLDER}.before-{now_micros}"));
                let moved = fs::rename(folder.join(FOLDER), &aside)
                    .and_then(|()| File::open(folder)?.sync_all());
                moved.map_err(RedisError::file("rename", &folder.join(FOLDER)))?;
                set_aside = Some((aside, error));
                start()?
            }
            other => other?,
        };
        Ok(StoppedCache {
            server,
            folder: folder.to_owned(),
            set_aside,
        })
    }

    pub fn session(&self) -> Result<RedisSession> {
        Ok(self.server.session()?)
    }

    /// Everything is on disk and belongs to the account that the folder belongs to.
    pub fn close(self) -> Result<()> {
        self.server.end_flushed()?;
        let aof = self.folder.join(FOLDER);
        let synced = (|| {
            let owner = fs::metadata(&self.folder)?;
            for entry in fs::read_dir(&aof)? {
                let path = entry?.path();
                File::open(&path)?.sync_all()?;
                give(&path, &owner)?;
            }
            give(&aof, &owner)?;
            File::open(&aof)?.sync_all()?;
            File::open(&self.folder)?.sync_all()
        })();
        Ok(synced.map_err(RedisError::file("sync", &aof))?)
    }
}

fn give(path: &Path, owner: &fs::Metadata) -> std::io::Result<()> {
    let there = fs::metadata(path)?;
    match (there.uid(), there.gid()) == (owner.uid(), owner.gid()) {
        true => Ok(()),
        false => std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())),
    }
}
