//! What can go wrong with a plan.

use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("the plan has two jobs called {0:?}; each needs a name of its own")]
    TwoOfOneName(String),
    #[error(
        "{0:?} is no name of a job: small letters, digits, _ and -, with a dot between component and kind"
    )]
    Name(String),
    #[error("the job {job} runs after {after:?}, and no job is called so{}", there_are(.known))]
    UnknownAfter {
        job: String,
        after: String,
        known: Vec<String>,
    },
    #[error("jobs wait for each other in a circle: {}. One of them needs a schedule of its own", .0.join(" after "))]
    Circle(Vec<String>),
    #[error("no job is called {name:?}{}", there_are(.known))]
    UnknownJob { name: String, known: Vec<String> },
    #[error("{job} is not started: {reason}")]
    Refused { job: String, reason: String },
    /// Never on this host, as it is.
    #[error("{job} is not started: {reason}")]
    Unavailable { job: String, reason: String },
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: {reason}", .path.display())]
    State { path: PathBuf, reason: String },
    /// Of the repository, or of another keeper of records.
    #[error("{0}")]
    Archive(String),
}

fn there_are(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!("; there are: {}", names.join(", ")),
    }
}

impl Error {
    pub(crate) fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
