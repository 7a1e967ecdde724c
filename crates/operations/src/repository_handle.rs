//! The repository that a command means, and the keys to it: below `--data`, where the running engine has it, or as named.

use host::{instance::Instance, keys, location::Location};
use repository::{Repository, keys::RecipientPrivate};
use std::path::{Path, PathBuf};

use crate::{
    clusters,
    config::{ObjectLock, location},
    error::Error,
    jobs::settings,
};

/// Which repository is meant, and where its keys are; below the instance's folder when nothing is said.
#[derive(Clone, Debug, Default)]
pub struct RepositorySelection {
    /// A folder, `s3://BUCKET/PREFIX`, or the name of one that `[repositories.NAME]` describes.
    pub repository: Option<String>,
    /// The folder with the repository's keys.
    pub keys: Option<PathBuf>,
    /// Those of a cluster that `[clusters.NAME]` names.
    pub cluster: Option<String>,
}

#[derive(Debug)]
pub struct RepositoryHandle {
    pub repository: Repository,
    pub location: Location,
    pub keys: PathBuf,
}

impl RepositoryHandle {
    /// Where the log's heads and keys lie.
    pub fn log(&self) -> (&Repository, &Path) {
        (&self.repository, &self.keys)
    }

    pub fn at(
        instance: &Instance,
        selection: impl Into<RepositorySelection>,
    ) -> Result<Self, Error> {
        let args = &selection.into();
        if let Some(name) = &args.cluster {
            let cluster = clusters::find(instance, name)?;
            let location = match &args.repository {
                Some(named) => location(named)?,
                None => cluster.repository(),
            };
            return Self::open(location, None, args, &cluster.instance);
        }
        let running = || instance.announced().map(|running| running.repository);
        let settings = settings::load(None, instance.root());
        // Its own repository does not need the settings; what was named in them does.
        let (lock, configured) = match &settings {
            Ok(config) => (config.repository.lock, config.repository.path.clone()),
            Err(_) => (None, None),
        };
        let own = || -> Result<Location, Error> {
            match running() {
                Some(location) => Ok(location),
                None => {
                    settings::load(None, instance.root())?;
                    Ok(configured.unwrap_or_else(|| instance.repository().into()))
                }
            }
        };
        let further = |name: &String| settings.as_ref().ok()?.repositories.get(name);
        match &args.repository {
            Some(name) if further(name).is_some() => {
                let (path, lock) = further(name).map(|f| (f.path.clone(), f.lock)).unzip();
                let path = path.unwrap_or_else(|| instance.repository().into());
                Self::open(path, lock.flatten(), args, instance)
            }
            None => Self::open(own()?, lock, args, instance),
            Some(named) => {
                let named = location(named)?;
                let is_own = own().is_ok_and(|own| own == named);
                Self::open(named, lock.filter(|_| is_own), args, instance)
            }
        }
    }

    fn open(
        location: Location,
        lock: Option<ObjectLock>,
        args: &RepositorySelection,
        instance: &Instance,
    ) -> Result<Self, Error> {
        let repository = Repository::open(location.open(lock.map(ObjectLock::policy))?)?;
        Ok(Self {
            repository,
            location,
            keys: args.keys.clone().unwrap_or_else(|| instance.keys()),
        })
    }

    pub fn private(&self) -> Result<RecipientPrivate, Error> {
        Ok(keys::reading_key(&self.keys)?)
    }
}
