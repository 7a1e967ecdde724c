//! The one place that turns key files and settings into keys, whoever keeps them: a file of ours holds the key, or
//! says where it is kept.

use std::path::Path;

use aws::kms::{KMS_LINE, KmsAccess, KmsKey, resolve};
use pkcs11::{KeyLabels, TOKEN_LINE, TokenKey, look};
use repository::keys::{KeyError, RecipientPrivate, RecipientPublic};

use crate::{
    error::Error,
    keys::settings::{KeyProvider, RepositoryKey},
};

/// The public half in a file.
pub(super) fn load_public(path: &Path) -> Result<RecipientPublic, Error> {
    // Whoever reads it as a file of ours says what is wrong with it.
    let text = std::fs::read_to_string(path).unwrap_or_default();
    match kept_elsewhere(path, &text)? {
        Some(key) => Ok(key.public().clone()),
        None => Ok(RecipientPublic::load(path)?),
    }
}

/// The private half in a file, or the way to it.
pub(super) fn load_private(path: &Path) -> Result<RecipientPrivate, Error> {
    // One that says where the key is kept holds no secret; who changes it changes the key all the same.
    let text = secrets::read_text(path)?;
    match kept_elsewhere(path, &text)? {
        Some(key) => Ok(key),
        None => Ok(RecipientPrivate::load(path)?),
    }
}

/// Nobody is asked yet.
fn kept_elsewhere(path: &Path, text: &str) -> Result<Option<RecipientPrivate>, Error> {
    let unreadable = |error: String| Error::Refused {
        what: "a key file cannot be read",
        reason: format!("{}: {error}", path.display()),
    };
    let line = text.trim_end();
    if line.starts_with(KMS_LINE) {
        let location = line.parse();
        let location = location.map_err(|e: aws::kms::LocationError| unreadable(e.to_string()))?;
        return Ok(Some(KmsKey::open(location).recipient()));
    }
    if line.starts_with(TOKEN_LINE) {
        let location = line.parse();
        let location = location.map_err(|e: pkcs11::LocationError| unreadable(e.to_string()))?;
        return Ok(Some(TokenKey::open(location).recipient()));
    }
    Ok(None)
}

/// After how many days the provider itself replaces a key's material; none where it does not, or where a file of ours
/// holds the key.
pub(super) fn rotation_period_days(public: &Path) -> Result<Option<u32>, Error> {
    let text = std::fs::read_to_string(public).unwrap_or_default();
    let line = text.trim_end();
    if !line.starts_with(KMS_LINE) {
        return Ok(None);
    }
    let location = line
        .parse()
        .map_err(|error: aws::kms::LocationError| Error::Refused {
            what: "a key file cannot be read",
            reason: format!("{}: {error}", public.display()),
        })?;
    KmsKey::open(location)
        .rotation_period_days()
        .map_err(of_provider)
}

/// A new key, as the settings want it. A KMS or a token is asked for it, so that a mistake is told before anything is
/// sealed.
pub(super) fn make(wanted: &RepositoryKey) -> Result<RecipientPrivate, Error> {
    match wanted.provider {
        KeyProvider::File => Ok(RecipientPrivate::generate()?),
        KeyProvider::Kms => in_kms(wanted),
        KeyProvider::Pkcs11 => in_token(wanted),
    }
}

fn in_kms(wanted: &RepositoryKey) -> Result<RecipientPrivate, Error> {
    let key = wanted
        .kms_key
        .as_deref()
        .ok_or_else(|| unnamed("provider = \"kms\" needs kms_key, an ARN or an alias"))?;
    let access = KmsAccess {
        endpoint: wanted.endpoint.clone(),
        profile: wanted.profile.clone(),
        credentials_file: wanted.credentials_file.clone(),
    };
    let location = resolve(key, wanted.region.as_deref(), access).map_err(of_provider)?;
    Ok(KmsKey::open(location).recipient())
}

fn in_token(wanted: &RepositoryKey) -> Result<RecipientPrivate, Error> {
    let key = wanted.pkcs11.as_ref().ok_or_else(|| {
        unnamed("provider = \"pkcs11\" needs [repository_key.pkcs11] with module, token, object and pin_file")
    })?;
    let location = look(&KeyLabels {
        module: key.module.clone(),
        token: key.token.clone(),
        object: key.object.clone(),
        pin_file: key.pin_file.clone(),
    });
    Ok(TokenKey::open(location.map_err(of_provider)?).recipient())
}

fn unnamed(reason: &str) -> Error {
    Error::Refused {
        what: "[repository_key] names no key",
        reason: reason.to_owned(),
    }
}

fn of_provider(error: KeyError) -> Error {
    repository::Error::from(error).into()
}
