//! Clusters that this host protects and does not run: `[clusters.NAME]`. Each has a repository, keys and a cache of its own below
//! `DIR/clusters/NAME`, laid out as an instance's: a repository belongs to one cluster.

mod figures;

use std::path::PathBuf;

use host::{
    files::write_whole, instance::Instance, keys::settings::RepositoryKey, location::Location,
};
use postgres_physical::wire::ConnectOptions;
use repository::read_back::{Evidence, EvidenceSource};
use serde::{Deserialize, Serialize};
use services::StreamReport;

pub use figures::ClusterFigures;

use crate::{
    config,
    error::Error,
    jobs::settings,
    primary_repository::{PrimaryRepository, open_own},
};

#[derive(Debug)]
pub struct NamedCluster {
    pub name: String,
    /// Its folder below ours.
    pub instance: Instance,
    pub connect: ConnectOptions,
    pub slot: String,
    /// When its jobs run.
    pub plan: config::Backup,
    /// Folder of PostgreSQL's programs, where the settings name one.
    pub binaries: Option<PathBuf>,
    key: RepositoryKey,
    repository: Option<Location>,
}

pub fn find(instance: &Instance, name: &str) -> Result<NamedCluster, Error> {
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
    if !is_name(name) {
        return Err(refused("letters, digits, _ and - make a name".to_owned()));
    }
    Ok(NamedCluster {
        name: name.to_owned(),
        instance: home(instance, name)?,
        connect: ConnectOptions::from_url(&cluster.url.0)
            .map_err(|error| refused(error.to_string()))?,
        slot: cluster.slot.clone().unwrap_or_else(|| "bre".to_owned()),
        repository: cluster.repository.clone(),
        plan: config
            .backup
            .clusters
            .get(name)
            .cloned()
            .unwrap_or_default(),
        binaries: config.database.binaries.clone(),
        key: config.repository_key.clone(),
    })
}

fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    name.bytes().all(is_plain)
}

fn home(instance: &Instance, name: &str) -> Result<Instance, host::Error> {
    Instance::at(&instance.root().join("clusters").join(name))
}

/// The names of all of them.
pub fn names(instance: &Instance) -> Vec<String> {
    settings::load(None, instance.root())
        .map(|config| config.clusters.into_keys().collect())
        .unwrap_or_default()
}

/// How the stream of a named cluster stands, as the process that streams leaves it for other commands: the report that a running engine
/// gives of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamStanding {
    #[serde(flatten)]
    pub report: StreamReport,
    pub timeline: u32,
    /// When it was last looked at.
    pub at_micros: i64,
}

impl NamedCluster {
    fn stream_file(&self) -> std::path::PathBuf {
        self.instance.run().join("stream.json")
    }

    pub fn note_stream(&self, standing: &StreamStanding) -> Result<(), Error> {
        let path = self.stream_file();
        let text = serde_json::to_vec_pretty(standing)
            .map_err(|error| Error::file("cannot write", &path)(error.into()))?;
        self.instance.make_folders()?;
        Ok(write_whole(&path, &text, 0o600)?)
    }

    /// How far the repository held WAL when a process on this host last streamed.
    pub fn last_stream(&self) -> Option<Evidence> {
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
    pub fn stream(&self) -> Option<StreamStanding> {
        if !self.instance.is_locked() {
            return None;
        }
        let text = std::fs::read(self.stream_file()).unwrap_or_default();
        Some(serde_json::from_slice(&text).unwrap_or_default())
    }

    pub fn repository(&self) -> Location {
        self.repository
            .clone()
            .unwrap_or_else(|| self.instance.repository().into())
    }

    /// Its repository and keys, made at the first use; for the one process that streams.
    pub fn open(&self) -> Result<PrimaryRepository, Error> {
        self.instance.make_folders()?;
        host::keys::prepare(&self.instance.keys(), &self.key)?;
        open_own(&self.instance, Some(&self.repository()), None)
    }

    /// For a process beside the one that streams: makes repository and keys where none has yet.
    pub fn prepare(&self) -> Result<(), Error> {
        match self.instance.keys().join("repository.id").exists() {
            true => Ok(()),
            false => self.open().map(drop),
        }
    }
}
