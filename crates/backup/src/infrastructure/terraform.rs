//! States of Terraform: each version that its bucket keeps, or a file. A state holds secrets, so it goes into sealed
//! snapshots only, one for each version, oldest first. Beside it is what came and went with it, who wrote it and when.
//!
//! Which versions were kept is remembered in a file of this host: names of resources and ids of versions, no value.
//! Where that file is lost everything is kept once more, and nothing is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use control_plane::aws::{AwsError, AwsRound};
use control_plane::kubernetes::bytes;
use control_plane::terraform::{STATE_BYTES_MAX, StateOrigin, TerraformState};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{InfrastructureError, InfrastructureReport, UnreadPart};
use crate::Progress;
use crate::documents::{
    Collection, Document, DocumentSource, Documents, SealedDocuments, SealedOutcome, take,
};

pub const STATE: &str = "state.json";
/// Made from others.
pub const CHANGE: &str = "change.json";

/// As snapshots of it are called.
#[must_use]
pub fn component_of(name: &str) -> String {
    format!("terraform_{name}")
}

/// What one version of a state is, and what it changed: without a value of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StateChange {
    pub origin: String,
    /// Of the bucket; empty of a file.
    pub version_id: String,
    pub serial: u64,
    pub lineage: String,
    pub terraform_version: String,
    /// As the store has it.
    pub written_at: String,
    /// Who held the lock that it was written under, or who owns the object.
    pub written_by: Option<String>,
    pub resources: usize,
    pub came: Vec<String>,
    pub went: Vec<String>,
}

impl std::fmt::Display for StateChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "serial {}", self.serial)?;
        for (word, resources) in [("came", &self.came), ("went", &self.went)] {
            match resources.as_slice() {
                [] => {}
                [one] => write!(f, ", {one} {word}")?,
                [first, ..] => write!(f, ", {first} and {} more {word}", resources.len() - 1)?,
            }
        }
        match &self.written_by {
            Some(who) => write!(f, ", by {who}"),
            None => Ok(()),
        }
    }
}

#[derive(Debug)]
pub struct StateOutcome {
    pub change: StateChange,
    pub sealed: SealedOutcome,
}

#[derive(Debug, Default)]
pub struct StateBackup {
    /// Those that are new, oldest first.
    pub outcomes: Vec<StateOutcome>,
    /// Versions that the next run takes.
    pub left: usize,
    pub report: InfrastructureReport,
}

/// What this host knows of the newest version that was kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Memory {
    /// Its id in the bucket, or the digest of nothing for a file.
    version_id: String,
    written_at: String,
    serial: u64,
    lineage: String,
    resources: BTreeSet<String>,
}

/// One version as its store lists it.
#[derive(Debug, Clone)]
struct Version {
    id: String,
    written_at: String,
    owner: Option<String>,
}

/// Each version that was not kept yet, as far as the round's calls reach.
pub fn backup_states(
    name: &str,
    origin: &StateOrigin,
    round: &AwsRound<'_>,
    sink: &mut SealedDocuments,
    memory: &Path,
    progress: &dyn Progress,
) -> Result<StateBackup, InfrastructureError> {
    let component = component_of(name);
    let mut known = read_memory(memory);
    let mut backup = StateBackup::default();
    match origin {
        StateOrigin::File(path) => {
            progress.message(&format!("reading {origin}"));
            let content = read_file(path)?;
            let written = fs::metadata(path).and_then(|it| it.modified());
            let written = written.map_err(InfrastructureError::file("look at", path))?;
            let written_at = jiff::Timestamp::try_from(written)
                .map(|at| at.to_string())
                .unwrap_or_default();
            let version = Version {
                id: String::new(),
                written_at,
                owner: None,
            };
            let state = parse(origin, &content)?;
            let kept = keep(
                &component, origin, &version, &content, state, &known, sink, progress,
            )?;
            known = kept.1;
            if kept.0.sealed.snapshot.is_new {
                backup.outcomes.push(kept.0);
            }
            write_memory(memory, &known)?;
        }
        StateOrigin::Bucket { bucket, key } => {
            progress.message(&format!("looking for versions of {origin}"));
            let (versions, locks) = versions(round, bucket, key)?;
            if versions.is_empty() {
                let reason = "there is no such object. Look at [terraform] bucket and key";
                return Err(InfrastructureError::State {
                    origin: origin.to_string(),
                    reason: reason.to_owned(),
                });
            }
            let after = versions.iter().position(|it| it.id == known.version_id);
            let new = &versions[after.map_or(0, |place| place + 1)..];
            for (done, version) in new.iter().enumerate() {
                // One for the state, one for who held its lock.
                if round.calls_left() < 2 {
                    backup.left = new.len() - done;
                    break;
                }
                let content = round.object(bucket, key, Some(&version.id))?;
                let state = match TerraformState::parse(&content) {
                    Ok(state) => state,
                    // Later versions are not to wait for one that cannot be read.
                    Err(reason) => {
                        backup.report.not_read.push(UnreadPart {
                            part: format!("version {} of {origin}", version.id),
                            why: reason,
                        });
                        known.version_id.clone_from(&version.id);
                        write_memory(memory, &known)?;
                        continue;
                    }
                };
                let mut version = version.clone();
                let holder = holder(round, bucket, key, &locks, &version.written_at)?;
                version.owner = holder.or(version.owner);
                let kept = keep(
                    &component, origin, &version, &content, state, &known, sink, progress,
                )?;
                known = kept.1;
                if kept.0.sealed.snapshot.is_new {
                    backup.outcomes.push(kept.0);
                }
                write_memory(memory, &known)?;
            }
        }
    }
    backup.report.objects = known.resources.len();
    backup.report.calls = round.calls();
    Ok(backup)
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, InfrastructureError> {
    let size = fs::metadata(path)
        .map_err(InfrastructureError::file("read", path))?
        .len();
    if size > STATE_BYTES_MAX {
        let too_large = std::io::Error::from(ErrorKind::FileTooLarge);
        return Err(InfrastructureError::file("read", path)(too_large));
    }
    let content = fs::read(path).map_err(InfrastructureError::file("read", path))?;
    Ok(Zeroizing::new(content))
}

fn parse(origin: &StateOrigin, content: &[u8]) -> Result<TerraformState, InfrastructureError> {
    TerraformState::parse(content).map_err(|reason| InfrastructureError::State {
        origin: origin.to_string(),
        reason,
    })
}

/// Of the state and of its lock file, each oldest first.
fn versions(
    round: &AwsRound<'_>,
    bucket: &str,
    key: &str,
) -> Result<(Vec<Version>, Vec<Version>), AwsError> {
    let answer = round.json(&[
        "s3api",
        "list-object-versions",
        "--bucket",
        bucket,
        "--prefix",
        key,
    ])?;
    let lock = format!("{key}.tflock");
    let of = |wanted: &str| {
        let all = answer["Versions"].as_array().into_iter().flatten();
        let version = |it: &Value| Version {
            id: it["VersionId"].as_str().unwrap_or("null").to_owned(),
            written_at: it["LastModified"].as_str().unwrap_or_default().to_owned(),
            owner: it["Owner"]["DisplayName"].as_str().map(str::to_owned),
        };
        let found: Vec<Version> = all.filter(|it| it["Key"] == *wanted).map(version).collect();
        // The store lists the newest first; two of one second stay in its order.
        found.into_iter().rev().collect::<Vec<_>>()
    };
    Ok((of(key), of(&lock)))
}

/// Who held the lock when this was written, where Terraform kept it beside the state (`use_lockfile`).
fn holder(
    round: &AwsRound<'_>,
    bucket: &str,
    key: &str,
    locks: &[Version],
    written_at: &str,
) -> Result<Option<String>, AwsError> {
    let before = |lock: &&Version| lock.written_at.as_str() <= written_at;
    let Some(lock) = locks.iter().rfind(before) else {
        return Ok(None);
    };
    match round.object(bucket, &format!("{key}.tflock"), Some(&lock.id)) {
        Ok(info) => {
            let info: Value = serde_json::from_slice(&info).unwrap_or_default();
            Ok(info["Who"].as_str().map(str::to_owned))
        }
        Err(error) if error.is_of_one_call() => Ok(None),
        Err(error) => Err(error),
    }
}

#[allow(clippy::too_many_arguments, reason = "two callers, in this file")]
fn keep(
    component: &str,
    origin: &StateOrigin,
    version: &Version,
    content: &[u8],
    state: TerraformState,
    known: &Memory,
    sink: &mut SealedDocuments,
    progress: &dyn Progress,
) -> Result<(StateOutcome, Memory), InfrastructureError> {
    let missing = |these: &BTreeSet<String>, those: &BTreeSet<String>| -> Vec<String> {
        these.difference(those).cloned().collect()
    };
    let change = StateChange {
        origin: origin.to_string(),
        version_id: version.id.clone(),
        serial: state.serial,
        lineage: state.lineage.clone(),
        terraform_version: state.terraform_version.clone(),
        written_at: version.written_at.clone(),
        written_by: version.owner.clone(),
        resources: state.resources.len(),
        came: missing(&state.resources, &known.resources),
        went: missing(&known.resources, &state.resources),
    };
    progress.message(&format!("keeping {change}"));
    let source = OneVersion {
        component,
        change: &change,
        content,
        // A file that did not change is the same snapshot, also where this host forgot it.
        has_change: !version.id.is_empty(),
    };
    let (sealed, ()) = take::<_, _, InfrastructureError>(&source, sink, progress)?;
    let memory = Memory {
        version_id: version.id.clone(),
        written_at: version.written_at.clone(),
        serial: state.serial,
        lineage: state.lineage,
        resources: state.resources,
    };
    Ok((StateOutcome { change, sealed }, memory))
}

struct OneVersion<'a> {
    component: &'a str,
    change: &'a StateChange,
    content: &'a [u8],
    has_change: bool,
}

impl DocumentSource for OneVersion<'_> {
    type Error = InfrastructureError;
    type Report = ();

    fn component(&self) -> &str {
        self.component
    }

    fn collect(&self, _: &dyn Progress) -> Result<(Collection, ()), InfrastructureError> {
        let mut attributes = BTreeMap::new();
        for (name, value) in [
            ("serial", self.change.serial.to_string()),
            ("lineage", self.change.lineage.clone()),
            ("origin", self.change.origin.clone()),
        ] {
            attributes.insert(name.to_owned(), value);
        }
        let content = Zeroizing::new(self.content.to_vec());
        let state = Document {
            content,
            attributes,
        };
        let mut documents = Documents::from([(STATE.to_owned(), state)]);
        if self.has_change {
            let change = Document {
                content: Zeroizing::new(bytes(&json!(self.change))),
                attributes: BTreeMap::from([("derived".to_owned(), "true".to_owned())]),
            };
            documents.insert(CHANGE.to_owned(), change);
        }
        let not_read = Vec::new();
        Ok((
            Collection {
                documents,
                not_read,
            },
            (),
        ))
    }

    fn redacted(&self, name: &str, content: &[u8]) -> String {
        redacted(name, content)
    }
}

/// Of a state: what it says of itself, and its resources without their values.
#[must_use]
pub fn redacted(name: &str, content: &[u8]) -> String {
    if name == CHANGE {
        return super::text_of(content);
    }
    match TerraformState::parse(content) {
        Ok(state) => String::from_utf8_lossy(&bytes(&json!(state))).into_owned(),
        Err(_) => format!("({} bytes)", content.len()),
    }
}

/// A file that cannot be read is none: everything is kept once more.
fn read_memory(path: &Path) -> Memory {
    let text = fs::read(path).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn write_memory(path: &Path, memory: &Memory) -> Result<(), InfrastructureError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(InfrastructureError::file("make", folder))?;
    let unfinished = path.with_extension("unfinished");
    let written = File::create(&unfinished).and_then(|mut file| {
        file.write_all(&serde_json::to_vec_pretty(memory)?)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(folder)?.sync_all()
    });
    written.map_err(InfrastructureError::file("write", path))
}
