//! Which repository is this instance's. Its id is written down beside the keys at the first start and asked for at every
//! later one: an unmounted disk leaves an empty folder behind, and beginning a new repository there would hide the real one.

use host::{
    files::{make_folder, write_whole},
    instance::Instance,
    keys::Keys,
    location::Location,
};
use repository::{Repository, store::Store};
use std::{
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    path::Path,
    sync::Arc,
};

use crate::{config::ObjectLock, error::Error};

const BOUND: &str = "repository.id";

/// The instance's own repository and the keys to it, taken for this process.
#[derive(Debug)]
pub struct PrimaryRepository {
    pub store: Arc<dyn Store>,
    pub repository: Repository,
    pub keys: Keys,
    pub claim: Claim,
}

/// Opens it, or makes it at the very first start. `named`: the setting; below the instance's folder otherwise.
pub fn open_own(
    instance: &Instance,
    named: Option<&Location>,
    lock: Option<ObjectLock>,
) -> Result<PrimaryRepository, Error> {
    let own_folder = || Location::Folder(instance.repository());
    let location = named.cloned().unwrap_or_else(own_folder);
    let store = location.open(lock.map(ObjectLock::policy))?;
    let bound = instance.keys().join(BOUND);
    // Before the keys: none are made while their repository is away.
    let known = match std::fs::read_to_string(&bound) {
        Ok(id) => Some(open_bound(&store, id.trim(), &bound)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::file("cannot read", &bound)(error)),
    };
    let described = location.to_string();
    let there = known.is_some() || location.holds_one(&*store)?;
    let keys = Keys::open_or_create(&instance.keys(), there.then_some(&*described))?;
    let repository = match known {
        Some(repository) => repository,
        None => {
            if named.is_none() {
                make_folder(&instance.repository(), 0o700)?;
            }
            let repository = Repository::init(Arc::clone(&store))?;
            write_whole(&bound, format!("{}\n", repository.id()).as_bytes(), 0o600)?;
            repository
        }
    };
    let claim = Claim::on(&repository)?;
    Ok(PrimaryRepository {
        store,
        repository,
        keys,
        claim,
    })
}

fn open_bound(store: &Arc<dyn Store>, id: &str, bound: &Path) -> Result<Repository, Error> {
    let refused = |reason: String| {
        Error::refused(
            "this instance's repository is not there",
            format!(
                "{reason}. To begin a new one on purpose, without anything that the old one holds, delete {}",
                bound.display()
            ),
        )
    };
    let repository =
        Repository::open(Arc::clone(store)).map_err(|error| refused(error.to_string()))?;
    if repository.id() == id {
        return Ok(repository);
    }
    Err(refused(format!(
        "{} holds the repository {}, this instance's is {id}. Mount the right one",
        repository.describe(),
        repository.id()
    )))
}

/// Held by the one engine of this machine that writes into a repository. It is a name, not a file: nothing stays behind,
/// however the process ends, and nothing keeps the repository's disk from being unmounted.
#[derive(Debug)]
pub struct Claim {
    _name: UnixListener,
}

impl Claim {
    fn on(repository: &Repository) -> Result<Self, Error> {
        let name = format!("bre-repository-{}", repository.id());
        let taken = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AddrInUse => Error::refused(
                "another engine on this machine writes into this repository",
                format!(
                    "{}. Stop it, or give this one a repository of its own: two databases must not share one",
                    repository.describe()
                ),
            ),
            _ => Error::failed(format!("cannot claim the repository: {error}")),
        };
        SocketAddr::from_abstract_name(name)
            .and_then(|address| UnixListener::bind_addr(&address))
            .map(|_name| Self { _name })
            .map_err(taken)
    }
}

#[cfg(test)]
mod tests {
    use repository::store::PosixStore;

    use super::*;

    fn open_own(instance: &Instance, named: Option<&Path>) -> Result<PrimaryRepository, Error> {
        let named = named.map(|path| Location::Folder(path.to_owned()));
        super::open_own(instance, named.as_ref(), None)
    }

    fn instance(folder: &Path) -> Instance {
        let instance = Instance::at(folder).unwrap();
        instance.make_folders().unwrap();
        instance
    }

    #[test]
    fn an_empty_mount_point_is_not_made_a_new_repository() {
        let folder = tempfile::tempdir().unwrap();
        let instance = instance(&folder.path().join("data"));
        let mount = folder.path().join("mount");
        std::fs::create_dir(&mount).unwrap();
        let id = open_own(&instance, Some(&mount))
            .unwrap()
            .repository
            .id()
            .to_owned();
        assert_eq!(
            open_own(&instance, Some(&mount)).unwrap().repository.id(),
            id
        );

        let disk = folder.path().join("disk");
        std::fs::rename(&mount, &disk).unwrap();
        std::fs::create_dir(&mount).unwrap();
        let error = open_own(&instance, Some(&mount)).unwrap_err().to_string();
        assert!(error.contains("Mount") && error.contains(BOUND), "{error}");
        assert_eq!(std::fs::read_dir(&mount).unwrap().count(), 0);

        Repository::init(Arc::new(PosixStore::new(&mount))).unwrap();
        let error = open_own(&instance, Some(&mount)).unwrap_err().to_string();
        assert!(error.contains(&id), "{error}");
        std::fs::remove_dir_all(&mount).unwrap();
        std::fs::rename(&disk, &mount).unwrap();
        open_own(&instance, Some(&mount)).unwrap();
    }

    #[test]
    fn a_repository_that_was_deleted_below_the_instance_is_missed() {
        let folder = tempfile::tempdir().unwrap();
        let instance = instance(folder.path());
        open_own(&instance, None).unwrap();
        std::fs::remove_dir_all(instance.repository()).unwrap();
        assert!(open_own(&instance, None).is_err());
        assert!(!instance.repository().exists());
        std::fs::remove_file(instance.keys().join(BOUND)).unwrap();
        open_own(&instance, None).unwrap();
    }

    #[test]
    fn two_engines_do_not_share_a_repository() {
        let folder = tempfile::tempdir().unwrap();
        let instance = instance(folder.path());
        let first = open_own(&instance, None).unwrap();
        let error = open_own(&instance, None).unwrap_err().to_string();
        assert!(error.contains("another engine"), "{error}");
        drop(first);
        open_own(&instance, None).unwrap();
    }
}
