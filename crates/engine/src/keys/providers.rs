//! The one place that turns key files and settings into keys, whoever keeps them: a file of ours holds the key, or says where it is kept.

use std::path::Path;

use aws::kms::{KMS_LINE, KmsAccess, KmsKey, KmsLocation, resolve};
use repository::{RecipientPrivate, RecipientPublic};

use crate::{
    config::{KeyProvider, RepositoryKey},
    error::Error,
};

/// The public half in a file.
pub(super) fn load_public(path: &Path) -> Result<RecipientPublic, Error> {
    match kms_line(path)? {
        Some(location) => Ok(KmsKey::open(location).recipient().public().clone()),
        None => Ok(RecipientPublic::load(path)?),
    }
}

/// The private half in a file, or the way to it.
pub(super) fn load_private(path: &Path) -> Result<RecipientPrivate, Error> {
    match kms_line(path)? {
        Some(location) => Ok(KmsKey::open(location).recipient()),
        None => Ok(RecipientPrivate::load(path)?),
    }
}

fn kms_line(path: &Path) -> Result<Option<KmsLocation>, Error> {
    let Ok(text) = std::fs::read_to_string(path) else {
        // Whoever reads it as a file of ours says what is wrong with it.
        return Ok(None);
    };
    if !text.starts_with(KMS_LINE) {
        return Ok(None);
    }
    let location = text.trim_end().parse();
    location
        .map(Some)
        .map_err(|error: aws::kms::LocationError| Error::Refused {
            what: "a key file cannot be read",
            reason: format!("{}: {error}", path.display()),
        })
}

/// A new key, as the settings want it. A KMS is asked for the key that an alias means, so that a mistake is told before anything is sealed.
pub(super) fn make(wanted: &RepositoryKey) -> Result<RecipientPrivate, Error> {
    match wanted.provider {
        KeyProvider::File => Ok(RecipientPrivate::generate()?),
        KeyProvider::Kms => {
            let key = wanted.kms_key.as_deref().ok_or_else(|| Error::Refused {
                what: "no key is named",
                reason: "[repository_key] provider = \"kms\" needs kms_key, an ARN or an alias"
                    .into(),
            })?;
            let access = KmsAccess {
                endpoint: wanted.endpoint.clone(),
                profile: wanted.profile.clone(),
                credentials_file: wanted.credentials_file.clone(),
            };
            let location =
                resolve(key, wanted.region.as_deref(), access).map_err(repository::Error::from)?;
            Ok(KmsKey::open(location).recipient())
        }
    }
}
