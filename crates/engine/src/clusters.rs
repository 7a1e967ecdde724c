//! Clusters that this host protects and does not run: `[clusters.NAME]`. Each has a repository, keys and a cache of its own below
//! `DIR/clusters/NAME`, laid out as an instance's: a repository belongs to one cluster.

use backup::database::BackupOutcome;
use host::{
    files::write_whole, instance::Instance, keys::settings::RepositoryKey, location::Location,
    progress::Steps,
};
use postgres_physical::wire::ConnectOptions;
use repository::{
    Repository,
    backup::BackupKind,
    keys::ChunkIdKey,
    read_back::{Evidence, EvidenceSource},
};
use serde::{Deserialize, Serialize};
use services::StreamReport;

use crate::{
    backup_request::{OwnedRequest, Reading},
    error::Error,
    jobs::settings,
    primary_repository::{PrimaryRepository, open_own},
};

#[derive(Debug)]
pub(crate) struct NamedCluster {
    pub(crate) name: String,
    /// Its folder below ours.
    pub(crate) instance: Instance,
    pub(crate) connect: ConnectOptions,
    pub(crate) slot: String,
    key: RepositoryKey,
    repository: Option<Location>,
}

pub(crate) fn find(instance: &Instance, name: &str) -> Result<NamedCluster, Error> {
    let config = settings::load(None, instance.root())?;
    let refused = |reason: String| Error::argument("cluster", name.to_owned(), reason);
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
        name: name.to_owned(),
        instance: Instance::at(&instance.root().join("clusters").join(name))?,
        connect: ConnectOptions::from_url(&cluster.url.0)
            .map_err(|error| refused(error.to_string()))?,
        slot: cluster.slot.clone().unwrap_or_else(|| "bre".to_owned()),
        repository: cluster.repository.clone(),
        key: config.repository_key.clone(),
    })
}

/// The names of all of them.
pub(crate) fn names(instance: &Instance) -> Vec<String> {
    settings::load(None, instance.root())
        .map(|config| config.clusters.into_keys().collect())
        .unwrap_or_default()
}

/// How the stream of a named cluster stands, as the process that streams leaves it for other commands: the report that a running engine
/// gives of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct StreamStanding {
    #[serde(flatten)]
    pub(crate) report: StreamReport,
    pub(crate) timeline: u32,
    /// When it was last looked at.
    pub(crate) at_micros: i64,
}

impl NamedCluster {
    fn stream_file(&self) -> std::path::PathBuf {
        self.instance.run().join("stream.json")
    }

    pub(crate) fn note_stream(&self, standing: &StreamStanding) -> Result<(), Error> {
        let path = self.stream_file();
        let text = serde_json::to_vec_pretty(standing)
            .map_err(|error| Error::file("cannot write", &path)(error.into()))?;
        self.instance.make_folders()?;
        Ok(write_whole(&path, &text, 0o600)?)
    }

    /// How far the repository held WAL when a process on this host last streamed.
    pub(crate) fn last_stream(&self) -> Option<Evidence> {
        let file = self.stream_file();
        let text = std::fs::read(&file).ok()?;
        let standing: StreamStanding = serde_json::from_slice(&text).ok()?;
        Some(Evidence {
            source: EvidenceSource::Stream,
            object: Some(file.display().to_string()),
            timeline: Some(standing.timeline).filter(|timeline| *timeline > 0),
            epoch: 0,
            lsn: standing.report.durable_lsn?,
            at_micros: standing.at_micros,
        })
    }

    /// `None` when no process on this host streams.
    pub(crate) fn stream(&self) -> Option<StreamStanding> {
        if !self.instance.is_locked() {
            return None;
        }
        let text = std::fs::read(self.stream_file()).unwrap_or_default();
        Some(serde_json::from_slice(&text).unwrap_or_default())
    }

    pub(crate) fn repository(&self) -> Location {
        self.repository
            .clone()
            .unwrap_or_else(|| self.instance.repository().into())
    }

    /// Its repository and keys, made at the first use; for the one process that streams.
    pub(crate) fn open(&self) -> Result<PrimaryRepository, Error> {
        self.instance.make_folders()?;
        host::keys::prepare(&self.instance.keys(), &self.key)?;
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
            public: host::keys::writing_key(&keys)?,
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
