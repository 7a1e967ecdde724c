//! What the jobs of the infrastructure share: the client, the git repository, and what is said of a run.

use std::path::{Path, PathBuf};

use backup::{
    documents::GitOutcome,
    infrastructure::{InfrastructureReport, PlainInfrastructure, UnreadPart, backup_to_git},
};
use control_plane::{aws::Aws, is_program};
use host::{instance::Instance, lock::lock, progress::Steps};
use jobs::Availability;
use serde::Serialize;

use crate::{config, error::Error, schema::destination};

/// The client as the settings have it; otherwise why no service is asked here, and what mends it.
pub fn client(config: &config::Backup) -> Result<Aws, String> {
    let absent = || {
        "Amazon's services are not asked here: write [aws] region = \"…\" into bre.toml".to_owned()
    };
    let aws = config.aws.as_ref().ok_or_else(absent)?.client();
    match is_program(&aws.program) {
        true => Ok(aws),
        false => Err(format!(
            "{} is not on this host: install it, or name its path: [aws] program = \"/path/to/aws\"",
            aws.program.display()
        )),
    }
}

pub fn availability(config: &config::Backup) -> Availability {
    match client(config) {
        Ok(_) => Availability::Ready,
        Err(reason) => Availability::Unavailable(reason),
    }
}

/// For a run, which is refused without it.
pub fn client_for(config: &config::Backup) -> Result<Aws, Error> {
    client(config).map_err(|reason| Error::refused("nothing was asked", reason))
}

pub fn git_availability(config: &config::Backup) -> Availability {
    match is_program(Path::new("git")) {
        true => availability(config),
        false => Availability::Unavailable(
            "git is not on this host: install it (Debian: apt-get install git)".to_owned(),
        ),
    }
}

/// A working tree, and where its commits are pushed.
pub fn repository(instance: &Instance, config: &config::Backup) -> (PathBuf, Option<String>) {
    let to = config.infrastructure.git.as_ref().map(|to| to.0.as_str());
    destination(instance.infrastructure(), to)
}

/// What came of a run, for the person who asked and in its record.
#[derive(Debug, Serialize)]
pub struct GitRun {
    pub commit: Option<String>,
    pub changes: Vec<String>,
    pub pushed: bool,
    #[serde(flatten)]
    pub report: InfrastructureReport,
}

/// One at a time: the jobs share a working tree.
pub fn run<S: PlainInfrastructure>(
    source: &S,
    instance: &Instance,
    config: &config::Backup,
    steps: &Steps,
) -> Result<GitRun, Error> {
    let _alone = lock(&instance.infrastructure_lock())?;
    let (folder, remote) = repository(instance, config);
    let (outcome, report) = backup_to_git(source, &folder, remote.as_deref(), steps)?;
    let GitOutcome {
        commit,
        changes,
        pushed,
    } = outcome;
    Ok(GitRun {
        commit,
        changes,
        pushed,
        report,
    })
}

impl GitRun {
    pub fn summary(&self) -> String {
        match &self.commit {
            None => "nothing changed".to_owned(),
            Some(commit) => {
                let short = commit.get(..10).unwrap_or(commit);
                format!("{short}: {}", said(&self.changes))
            }
        }
    }
}

/// The first of them, and how many more there are: a record is no listing.
pub fn said(changes: &[String]) -> String {
    const SHOWN_MAX: usize = 5;
    let mut said = changes
        .iter()
        .take(SHOWN_MAX)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    if changes.len() > SHOWN_MAX {
        said.push_str(&format!(" and {} more", changes.len() - SHOWN_MAX));
    }
    said
}

/// What is not part of what was kept; none: all is.
pub fn lack(not_read: &[UnreadPart]) -> Option<String> {
    let parts: Vec<String> = not_read.iter().map(ToString::to_string).collect();
    (!parts.is_empty()).then(|| format!("not all could be read: {}", parts.join("; ")))
}
