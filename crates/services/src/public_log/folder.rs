//! The folder that anybody may read. Derived: nothing here is needed to get it back.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use audit::TileId;

/// Files by their names in the format; a reader never sees half of one.
#[derive(Debug, Clone)]
pub(crate) struct PublicFolder {
    path: PathBuf,
}

/// What can stand in it, and nothing else can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resource {
    log: u16,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Origins,
    Keys,
    Checkpoint(u32),
    Cosigned(u32),
    Tile(u32, TileId),
}

impl Resource {
    pub(crate) fn origins(log: u16) -> Resource {
        Resource::of(log, What::Origins)
    }

    pub(crate) fn keys(log: u16) -> Resource {
        Resource::of(log, What::Keys)
    }

    pub(crate) fn checkpoint(log: u16, began: u32) -> Resource {
        Resource::of(log, What::Checkpoint(began))
    }

    pub(crate) fn cosigned(log: u16, began: u32) -> Resource {
        Resource::of(log, What::Cosigned(began))
    }

    pub(crate) fn tile(log: u16, began: u32, id: TileId) -> Resource {
        Resource::of(log, What::Tile(began, id))
    }

    fn of(log: u16, what: What) -> Resource {
        Resource { log, what }
    }

    pub(crate) fn full_tile(&self) -> Option<(u16, u32, TileId)> {
        match self.what {
            What::Tile(began, id) if id.is_full() => Some((self.log, began, id)),
            _ => None,
        }
    }

    /// Whether its bytes never change.
    pub(crate) fn is_immutable(&self) -> bool {
        matches!(self.what, What::Tile(..))
    }

    /// Below the folder, and below `/log/`.
    pub(crate) fn path(&self) -> String {
        let log = self.log;
        match &self.what {
            What::Origins => format!("log-{log}/origins"),
            What::Keys => format!("log-{log}/keys"),
            What::Checkpoint(began) => format!("log-{log}/{began}/checkpoint"),
            What::Cosigned(began) => format!("log-{log}/{began}/cosigned"),
            What::Tile(began, id) => format!("log-{log}/{began}/{}", id.path()),
        }
    }

    /// Only what `path` writes: nothing that leads out of the folder is a resource.
    pub(crate) fn parse(path: &str) -> Option<Resource> {
        let (log, rest) = path.strip_prefix("log-")?.split_once('/')?;
        let what = match rest {
            "origins" => What::Origins,
            "keys" => What::Keys,
            _ => {
                let (began, rest) = rest.split_once('/')?;
                let began = began.parse().ok()?;
                match rest {
                    "checkpoint" => What::Checkpoint(began),
                    "cosigned" => What::Cosigned(began),
                    tile => What::Tile(began, TileId::parse(tile)?),
                }
            }
        };
        let resource = Resource::of(log.parse().ok()?, what);
        (resource.path() == path).then_some(resource)
    }
}

/// Of files that are not renamed yet; no two writers share a name.
static NEXT: AtomicU64 = AtomicU64::new(0);

impl PublicFolder {
    pub(crate) fn new(path: PathBuf) -> PublicFolder {
        PublicFolder { path }
    }

    fn at(&self, resource: &Resource) -> PathBuf {
        self.path.join(resource.path())
    }

    fn failed(&self, what: &str, path: &Path, error: &io::Error) -> String {
        format!(
            "the public folder: cannot {what} {}: {error}",
            path.display()
        )
    }

    pub(crate) fn has(&self, resource: &Resource) -> bool {
        self.at(resource).is_file()
    }

    pub(crate) fn read(&self, resource: &Resource) -> Result<Option<Vec<u8>>, String> {
        let path = self.at(resource);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
                _ => Err(self.failed("read", &path, &error)),
            },
        }
    }

    /// Replaces what stood there. Not synced: after a crash it is written again from what is durable elsewhere.
    pub(crate) fn put(&self, resource: &Resource, bytes: &[u8]) -> Result<(), String> {
        let path = self.at(resource);
        let folder = path.parent().unwrap_or(&self.path);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let beside = folder.join(format!(".{}-{number}.new", std::process::id()));
        let write = || {
            std::fs::create_dir_all(folder)?;
            std::fs::File::create(&beside)?.write_all(bytes)?;
            std::fs::rename(&beside, &path)
        };
        write().map_err(|error| {
            let _ = std::fs::remove_file(&beside);
            self.failed("write", &path, &error)
        })
    }

    /// The partial tiles that a full one makes needless.
    pub(crate) fn drop_partial(&self, resource: &Resource) {
        let mut path = self.at(resource).into_os_string();
        path.push(".p");
        match std::fs::remove_dir_all(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::debug!(%error, "partial tiles stay in the public folder"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_resource_or_nothing() {
        for good in [
            "log-1/origins",
            "log-1/keys",
            "log-1/1/checkpoint",
            "log-65535/4294967295/cosigned",
            "log-1/7/tile/0/x001/234",
            "log-1/7/tile/1/000.p/255",
        ] {
            assert_eq!(Resource::parse(good).unwrap().path(), good);
        }
        for bad in [
            "",
            "log-1",
            "log-1/",
            "log-1/1",
            "log-01/origins",
            "log-1/01/checkpoint",
            "log-1/1/checkpoint/",
            "log-1/../../etc/passwd",
            "log-1/1/tile/0/../../checkpoint",
            "log-1/1/tile/entries/000",
            "log-1//checkpoint",
            "/log-1/origins",
            "log-1/+1/checkpoint",
            "log-1/1/.1-2.new",
        ] {
            assert_eq!(Resource::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn files_are_replaced_and_partial_tiles_go_with_the_full_one() {
        let folder = tempfile::tempdir().unwrap();
        let public = PublicFolder::new(folder.path().join("made/here"));
        let checkpoint = Resource::checkpoint(1, 2);
        assert_eq!(public.read(&checkpoint), Ok(None));
        for text in ["one", "two"] {
            public.put(&checkpoint, text.as_bytes()).unwrap();
            assert_eq!(public.read(&checkpoint).unwrap().unwrap(), text.as_bytes());
        }
        let (full, partial) = (
            TileId::full(0, 3),
            TileId {
                width: 9,
                ..TileId::full(0, 3)
            },
        );
        let (full, partial) = (Resource::tile(1, 2, full), Resource::tile(1, 2, partial));
        public.put(&partial, b"x").unwrap();
        public.put(&full, b"y").unwrap();
        public.drop_partial(&full);
        assert!(public.has(&full) && !public.has(&partial));
    }
}
