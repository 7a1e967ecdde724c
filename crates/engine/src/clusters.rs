//! Clusters that this host protects and does not run: `[clusters.NAME]`. Each has a repository, keys and a cache of its own below
//! `DIR/clusters/NAME`, laid out as an instance's: a repository belongs to one cluster.

use backup::database::BackupOutcome;
use postgres_physical::wire::ConnectOptions;
use repository::{BackupKind, ChunkIdKey, Repository};

use crate::{
    commands::progress::Steps,
    config::{Config, RepositoryKey},
    error::Error,
    instance::Instance,
    location::Location,
    up::{
        backups::{OwnedRequest, Reading},
        repository::{Own, open_own},
    },
};

#[derive(Debug)]
pub(crate) struct NamedCluster {
    /// Its folder below ours.
    pub(crate) instance: Instance,
    pub(crate) connect: ConnectOptions,
    pub(crate) slot: String,
    key: RepositoryKey,
    repository: Option<Location>,
}

pub(crate) fn find(instance: &Instance, name: &str) -> Result<NamedCluster, Error> {
    let config = Config::load(None, instance.root())?;
    let refused = |reason: String| Error::Argument {
        what: "cluster",
        value: name.to_owned(),
        reason,
    };
    let cluster = config.clusters.get(name).ok_or_else(|| {
        let names: Vec<_> = config.clusters.keys().cloned().collect();
        refused(format!(
            "{} names no [clusters.{name}]; it names: {}",
            instance.root().join("bre.toml").display(),
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        ))
    })?;
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
    {
        return Err(refused("letters, digits, _ and - make a name".to_owned()));
    }
    Ok(NamedCluster {
        instance: Instance::at(&instance.root().join("clusters").join(name))?,
        connect: ConnectOptions::from_url(&cluster.url.0)
            .map_err(|error| refused(error.to_string()))?,
        slot: cluster.slot.clone().unwrap_or_else(|| "bre".to_owned()),
        repository: cluster.repository.clone(),
        key: config.repository_key.clone(),
    })
}

impl NamedCluster {
    pub(crate) fn repository(&self) -> Location {
        self.repository
            .clone()
            .unwrap_or_else(|| self.instance.repository().into())
    }

    /// Its repository and keys, made at the first use; for the one process that streams.
    pub(crate) fn open(&self) -> Result<Own, Error> {
        self.instance.make_folders()?;
        crate::keys::prepare(&self.instance.keys(), &self.key)?;
        open_own(&self.instance, Some(&self.repository()), None)
    }

    /// Beside a stream that may run.
    pub(crate) fn backup(
        &self,
        kind: BackupKind,
        reading: Reading,
        steps: &Steps,
    ) -> Result<BackupOutcome, Error> {
        let keys = self.instance.keys();
        if !keys.join("repository.id").exists() {
            drop(self.open()?);
        }
        let store = self.repository().open(None)?;
        let request = OwnedRequest {
            connect: self.connect.clone(),
            repository: Repository::open(store)?,
            public: crate::keys::writing_key(&keys)?,
            chunk_id: ChunkIdKey::load(&keys.join("chunk_id.key"))?,
            label: "by hand",
            kind,
            reading,
            cache: self.instance.cache(),
            lock: self.instance.backup_lock(),
        };
        request.run(steps)
    }
}
