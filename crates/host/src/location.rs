//! Where a repository lies: a folder, or `s3://…`. Everything that opens one comes through here.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use aws::s3::{S3Location, S3Store};
use repository::{
    StoreError,
    store::{LockPolicy, MARKER, PosixStore, Store},
};
use serde::{Deserialize, Serialize};

use crate::error::Error;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Location {
    Folder(PathBuf),
    S3(S3Location),
}

impl Location {
    /// Names it; a folder is not touched and a server not asked yet.
    pub fn open(&self, lock: Option<LockPolicy>) -> Result<Arc<dyn Store>, Error> {
        Ok(match self {
            Self::Folder(path) if lock.is_some() => {
                return Err(Error::Refused {
                    what: "a folder locks nothing",
                    reason: format!(
                        "{} has no object lock: take [repository.lock] away, or name a bucket that has one. \
                         `bre repository hold` works on both",
                        path.display()
                    ),
                });
            }
            Self::Folder(path) => Arc::new(PosixStore::new(path)),
            Self::S3(location) => {
                Arc::new(S3Store::open(location, lock).map_err(repository::Error::from)?)
            }
        })
    }

    /// Whether a repository is there already. A folder that is missing holds none; a bucket that is missing is an
    /// error.
    pub fn holds_one(&self, store: &dyn Store) -> Result<bool, Error> {
        match (self, store.get(MARKER)) {
            (_, Ok(_)) => Ok(true),
            (_, Err(StoreError::NotFound { .. }))
            | (Self::Folder(_), Err(StoreError::Away { .. })) => Ok(false),
            (_, Err(error)) => Err(repository::Error::from(error).into()),
        }
    }

    /// A place of its own below it, which nothing else uses.
    pub fn below(&self, name: &str) -> Self {
        match self {
            Self::Folder(path) => Self::Folder(path.join(name)),
            Self::S3(location) => {
                let mut location = location.clone();
                location.prefix = match location.prefix.as_str() {
                    "" => name.to_owned(),
                    prefix => format!("{prefix}/{name}"),
                };
                Self::S3(location)
            }
        }
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Self::Folder(path)
    }
}

impl From<Location> for String {
    fn from(location: Location) -> Self {
        location.to_string()
    }
}

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("s3:") {
            return text
                .parse()
                .map(Self::S3)
                .map_err(|error: aws::s3::LocationError| error.to_string());
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(format!(
                "{scheme}:// is not known: a folder or s3://BUCKET/PREFIX"
            ));
        }
        if text.is_empty() {
            return Err("it is empty: a folder or s3://BUCKET/PREFIX".to_owned());
        }
        Ok(Self::Folder(PathBuf::from(text)))
    }
}

impl TryFrom<String> for Location {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::S3(location) => write!(f, "{location}"),
        }
    }
}
