//! The repository that a command means, and the keys to it: below `--data`, where the running engine has it, or as named.

use std::{path::PathBuf, sync::Arc};

use repository::{PosixStore, RecipientPrivate, Repository};

use crate::{cli::RepositoryArgs, config::Config, error::Error, instance::Instance, keys};

#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) repository: Repository,
    pub(crate) path: PathBuf,
    pub(crate) keys: PathBuf,
}

impl Opened {
    pub(crate) fn at(instance: &Instance, args: &RepositoryArgs) -> Result<Self, Error> {
        let path = match (&args.repository, instance.running()) {
            (Some(path), _) => path.clone(),
            (None, Ok(running)) => running.repository,
            (None, Err(_)) => Config::load(None, instance.root())?
                .repository
                .path
                .unwrap_or_else(|| instance.repository()),
        };
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
