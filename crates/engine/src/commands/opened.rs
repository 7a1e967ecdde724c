//! The repository that a command means, and the keys to it: below `--data`, where the running engine has it, or as named.

use std::{path::PathBuf, sync::Arc};

use repository::{PosixStore, RecipientPrivate, Repository};

use crate::{
    cli::RepositoryArgs, clusters, config::Config, error::Error, instance::Instance, keys,
};

#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) repository: Repository,
    pub(crate) path: PathBuf,
    pub(crate) keys: PathBuf,
}

impl Opened {
    pub(crate) fn at(instance: &Instance, args: &RepositoryArgs) -> Result<Self, Error> {
        if let Some(name) = &args.cluster {
            let cluster = clusters::find(instance, name)?;
            let path = args.repository.clone();
            let path = path.unwrap_or_else(|| cluster.repository());
            return Self::open(path, args, &cluster.instance);
        }
        let path = match (&args.repository, instance.running()) {
            (Some(path), _) => path.clone(),
            (None, Ok(running)) => running.repository,
            (None, Err(_)) => Config::load(None, instance.root())?
                .repository
                .path
                .unwrap_or_else(|| instance.repository()),
        };
        Self::open(path, args, instance)
    }

    fn open(path: PathBuf, args: &RepositoryArgs, instance: &Instance) -> Result<Self, Error> {
        let repository = Repository::open(Arc::new(PosixStore::new(&path)))?;
        Ok(Self {
            repository,
            path,
            keys: args.keys.clone().unwrap_or_else(|| instance.keys()),
        })
    }

    pub(crate) fn private(&self) -> Result<RecipientPrivate, Error> {
        keys::reading_key(&self.keys)
    }
}
