//! The definitions in git: where they go, and one run at a time.

use std::path::{Path, PathBuf};

use backup::schema::{SchemaBackup, SchemaOutcome, backup_schema, without_credentials};
use host::{instance::Instance, lock::lock, progress::Steps};
use postgres_physical::{
    server::{Binaries, OsUser},
    wire::ConnectOptions,
};

use crate::{config::Remote, error::Error};

/// All that it takes, for a thread of its own.
#[derive(Debug)]
pub struct Schema {
    connect: ConnectOptions,
    binaries: Binaries,
    user: OsUser,
    pub folder: PathBuf,
    remote: Option<Remote>,
    lock: PathBuf,
}

impl Schema {
    pub fn new(
        instance: &Instance,
        connect: ConnectOptions,
        binaries: &Binaries,
        user: &OsUser,
        to: Option<&str>,
    ) -> Self {
        let (folder, remote) = destination(instance.schema(), to);
        Self {
            connect,
            binaries: binaries.clone(),
            user: user.clone(),
            folder,
            remote: remote.map(Remote),
            lock: instance.schema_lock(),
        }
    }

    pub fn run(&self, steps: &Steps) -> Result<SchemaOutcome, Error> {
        let _alone = lock(&self.lock)?;
        let request = SchemaBackup {
            connect: &self.connect,
            binaries: &self.binaries,
            user: &self.user,
            folder: &self.folder,
            remote: self.remote.as_ref().map(|remote| remote.0.as_str()),
        };
        Ok(backup_schema(&request, steps)?)
    }
}

/// A working tree to commit in, and where to push it: a bare repository is a remote too. `own`: where the tree is
/// unless a folder is named.
pub(crate) fn destination(own: PathBuf, to: Option<&str>) -> (PathBuf, Option<String>) {
    let Some(to) = to else {
        return (own, None);
    };
    let path = Path::new(to);
    let bare = path.join("HEAD").is_file() && path.join("objects").is_dir();
    match is_remote(to) || bare {
        true => (own, Some(to.to_owned())),
        false => (path.to_owned(), None),
    }
}

/// `https://…`, `ssh://…`, or `host:path` as git takes it.
pub fn is_remote(to: &str) -> bool {
    let host = to.split('/').next().unwrap_or_default();
    to.contains("://") || host.contains(':')
}

/// For people.
pub fn place(instance: &Instance, to: Option<&Remote>) -> String {
    let to = to.map(|remote| remote.0.as_str());
    match destination(instance.schema(), to) {
        (folder, None) => folder.display().to_string(),
        (_, Some(remote)) => without_credentials(&remote),
    }
}

pub fn said(outcome: &SchemaOutcome) -> String {
    let mut said = match &outcome.commit {
        None => "nothing changed".to_owned(),
        Some(commit) => {
            let short = commit.get(..10).unwrap_or(commit);
            format!("{short}: {}", outcome.changes.join(", "))
        }
    };
    for not_read in &outcome.not_read {
        let word = if not_read.failed {
            "FAILED"
        } else {
            "not read"
        };
        said.push_str(&format!("; {word}: {not_read}"));
    }
    said
}

/// The definitions of some databases are not backed up; those of the others are committed.
pub fn failure(outcome: &SchemaOutcome) -> Option<Error> {
    let failed: Vec<String> = outcome
        .not_read
        .iter()
        .filter(|not_read| not_read.failed)
        .map(ToString::to_string)
        .collect();
    (!failed.is_empty()).then(|| {
        Error::failed(format!(
            "not all definitions could be read (those of {} databases are backed up): {}",
            outcome.databases.len(),
            failed.join("; ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_and_folders_are_told_apart() {
        for remote in [
            "https://git.example/x.git",
            "ssh://git@h/x",
            "git@host:team/schema.git",
        ] {
            assert!(is_remote(remote), "{remote}");
        }
        for folder in ["/srv/schema", "schema", "./a:b/c", "../x"] {
            assert!(!is_remote(folder), "{folder}");
        }
    }
}
