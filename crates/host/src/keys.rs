//! The instance's keys: made once, in a folder of mode 0700, and needed for ever.

pub mod age;
mod providers;
pub mod rotation;
pub mod settings;
pub mod signing;
pub mod statements;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use audit::{SigningKey, VerifyingKey};
use repository::{
    Repository,
    keys::{ChunkIdKey, RecipientPrivate, RecipientPublic},
};

use crate::{
    error::Error,
    files::{make_folder, write_whole},
    keys::settings::{KeyProvider, RepositoryKey},
};

const RECIPIENT: &str = "recipient.key";
const RECIPIENT_PUBLIC: &str = "recipient.pub";
/// One more recipient of everything, whose private key is kept away from here.
const OFFLINE_PUBLIC: &str = "offline.pub";
/// The audit archive is not for those who read backups.
const AUDIT_RECIPIENT: &str = "audit_recipient.key";
const AUDIT_RECIPIENT_PUBLIC: &str = "audit_recipient.pub";
const CHUNK_ID: &str = "chunk_id.key";
const SIGNING: &str = "audit_signing.key";
const SIGNING_PUBLIC: &str = "audit_signing.pub";
const FIRST_API_KEY: &str = "first_api_key";

/// What the engine holds while it runs.
#[derive(Debug)]
pub struct Keys {
    folder: PathBuf,
    /// Absent on a host that may write backups but not read them; recovery then waits for a person who has it.
    pub private: Option<RecipientPrivate>,
    pub public: RecipientPublic,
    pub chunk_id: ChunkIdKey,
    pub signing: Arc<SigningKey>,
}

impl Keys {
    /// Opens the keys, or makes them beside a repository that does not exist yet. Keys are never made beside an
    /// existing repository: new ones would read nothing in it.
    pub fn open_or_create(folder: &Path, existing: Option<&str>) -> Result<Self, Error> {
        if let Some(repository) = existing {
            for name in [RECIPIENT_PUBLIC, CHUNK_ID, SIGNING] {
                if !folder.join(name).exists() {
                    return Err(Error::KeysMissing {
                        repository: repository.into(),
                        missing: folder.join(name),
                    });
                }
            }
        } else {
            create_missing(folder)?;
        }
        Ok(Self {
            folder: folder.into(),
            private: private_key(folder)?,
            public: writing_key(folder)?,
            chunk_id: ChunkIdKey::load(&folder.join(CHUNK_ID))?,
            signing: Arc::new(SigningKey::load(folder.join(SIGNING))?),
        })
    }

    /// True when the public key in the folder is another one since: it was rotated, here or where the private key is.
    /// What is written from then on is sealed to it.
    pub fn take_new_recipient(&mut self) -> Result<bool, Error> {
        let public = writing_key(&self.folder)?;
        if public == self.public {
            return Ok(false);
        }
        self.private = private_key(&self.folder)?;
        self.public = public;
        Ok(true)
    }

    /// True when the key that signs the log is another one since: it was rotated.
    pub fn take_new_signing_key(&mut self) -> Result<bool, Error> {
        let public = verifying_key(&self.folder)?;
        if public.key_id() == self.signing.key_id() {
            return Ok(false);
        }
        let key = SigningKey::load(self.folder.join(SIGNING))?;
        let is_whole = key.key_id() == public.key_id();
        if is_whole {
            self.signing = Arc::new(key);
        }
        Ok(is_whole)
    }

    pub fn age(&self) -> Result<age::KeyAge, Error> {
        age::of(&self.folder)
    }

    pub fn first_api_key_file(&self) -> PathBuf {
        first_api_key_file(&self.folder)
    }

    /// `None` before it was made.
    pub fn first_api_key(&self) -> Result<Option<String>, Error> {
        let path = self.first_api_key_file();
        match path.exists() {
            true => Ok(Some(secrets::read_text(&path)?.trim().to_owned())),
            false => Ok(None),
        }
    }

    pub fn keep_first_api_key(&self, key: &str) -> Result<(), Error> {
        write_whole(
            &self.folder.join(FIRST_API_KEY),
            format!("{key}\n").as_bytes(),
            0o600,
        )
    }
}

pub fn first_api_key_file(keys: &Path) -> PathBuf {
    keys.join(FIRST_API_KEY)
}

/// Each file by itself, so that a crash between two of them is mended by the next start.
fn create_missing(folder: &Path) -> Result<(), Error> {
    let (recipient, public) = (folder.join(RECIPIENT), folder.join(RECIPIENT_PUBLIC));
    // A public key alone was brought here on purpose: this host shall write and not read.
    if !public.exists() {
        if !recipient.exists() {
            RecipientPrivate::generate()?.store(&recipient)?;
        }
        let private = providers::load_private(&recipient)?;
        private.public().store(&public)?;
        age::note(&rotation::BACKUPS, folder, private.public())?;
    }
    let chunk_id = folder.join(CHUNK_ID);
    if !chunk_id.exists() {
        ChunkIdKey::generate()?.store(&chunk_id)?;
    }
    let signing = folder.join(SIGNING);
    if !signing.exists() {
        SigningKey::create(&signing)?;
    }
    let verifying = folder.join(SIGNING_PUBLIC);
    if !verifying.exists() {
        SigningKey::load(&signing)?
            .verifying_key()
            .create(&verifying)?;
    }
    Ok(())
}

/// Before the keys are opened: where the settings want a key that others keep, and this instance has none yet, that
/// one is put down. The files hold no secret, only where it is kept.
pub fn prepare(folder: &Path, wanted: &RepositoryKey) -> Result<(), Error> {
    let (recipient, public) = (folder.join(RECIPIENT), folder.join(RECIPIENT_PUBLIC));
    if wanted.provider == KeyProvider::File || public.exists() || recipient.exists() {
        return Ok(());
    }
    make_folder(folder, 0o700)?;
    let key = providers::make(wanted)?;
    key.store(&recipient)?;
    key.public().store(&public)?;
    age::note(&rotation::BACKUPS, folder, key.public())
}

/// To whom new data keys are sealed: the present key, and the one that is kept offline where there is one.
pub fn writing_key(folder: &Path) -> Result<RecipientPublic, Error> {
    let public = providers::load_public(&folder.join(RECIPIENT_PUBLIC))?;
    Ok(match offline_key(folder)? {
        Some(offline) => public.and(&offline),
        None => public,
    })
}

pub fn offline_key(folder: &Path) -> Result<Option<RecipientPublic>, Error> {
    let path = folder.join(OFFLINE_PUBLIC);
    if !path.exists() {
        return Ok(None);
    }
    Ok(Some(providers::load_public(&path)?))
}

/// The present key; keys that were replaced and are still here open what it does not.
fn private_key(folder: &Path) -> Result<Option<RecipientPrivate>, Error> {
    let path = folder.join(RECIPIENT);
    if !path.exists() {
        return Ok(None);
    }
    let mut private = providers::load_private(&path)?;
    match rotation::BACKUPS.replaced(folder) {
        Ok(replaced) => {
            for old in &replaced {
                private = private.and(old);
            }
        }
        Err(error) => tracing::warn!(%error, "a replaced key is not used"),
    }
    Ok(Some(private))
}

/// The key that reads, where it is here.
pub fn reading_key_if_here(folder: &Path) -> Result<Option<RecipientPrivate>, Error> {
    private_key(folder)
}

/// The key that reads, for commands that cannot do without it.
pub fn reading_key(folder: &Path) -> Result<RecipientPrivate, Error> {
    private_key(folder)?.ok_or_else(|| Error::Refused {
        what: "this needs the repository's private key",
        reason: format!(
            "{} is not there{}. Bring it, or name its folder with --keys-dir DIR",
            folder.join(RECIPIENT).display(),
            writing_key(folder).map_or_else(
                |_| String::new(),
                |public| format!(
                    " (the private key of recipient {}; this host writes to it and cannot read)",
                    public.id()
                )
            )
        ),
    })
}

/// To whom the audit archive is sealed; a pair is made at the first use, and then where its private key lies.
pub fn audit_writing_key(folder: &Path) -> Result<(RecipientPublic, Option<PathBuf>), Error> {
    let (private, public) = (
        folder.join(AUDIT_RECIPIENT),
        folder.join(AUDIT_RECIPIENT_PUBLIC),
    );
    let mut made = None;
    if !public.exists() {
        if !private.exists() {
            RecipientPrivate::generate()?.store(&private)?;
            made = Some(private.clone());
        }
        providers::load_private(&private)?.public().store(&public)?;
    }
    Ok((providers::load_public(&public)?, made))
}

/// Whether a pair would be made for the archive; a host that lost the public key must not go on with one of its own.
pub fn lacks_audit_writing_key(folder: &Path) -> bool {
    !folder.join(AUDIT_RECIPIENT_PUBLIC).exists() && !folder.join(AUDIT_RECIPIENT).exists()
}

/// The key that reads the audit archive, and those that it replaced (`audit_recipient-*.key`).
pub fn audit_reading_key(folder: &Path) -> Result<RecipientPrivate, Error> {
    let path = folder.join(AUDIT_RECIPIENT);
    if !path.exists() {
        return Err(Error::Refused {
            what: "this needs the audit archive's private key",
            reason: format!(
                "{} is not there; the key of the backups does not open the archive. Bring it, or name its folder with --keys-dir DIR",
                path.display()
            ),
        });
    }
    let mut key = providers::load_private(&path)?;
    for old in rotation::AUDIT.replaced(folder)? {
        key = key.and(&old);
    }
    Ok(key)
}

/// The same, where it is here.
pub fn audit_reading_key_if_here(folder: &Path) -> Result<Option<RecipientPrivate>, Error> {
    match folder.join(AUDIT_RECIPIENT).exists() {
        true => audit_reading_key(folder).map(Some),
        false => Ok(None),
    }
}

/// The key that vouches for the log, where it is here.
pub fn verifying_key_if_here(folder: &Path) -> Result<Option<VerifyingKey>, Error> {
    match folder.join(SIGNING_PUBLIC).exists() {
        true => verifying_key(folder).map(Some),
        false => Ok(None),
    }
}

/// The key that signs the log, made on the first start, for a data-service without a repository of its own.
pub fn signing_key(folder: &Path) -> Result<Arc<SigningKey>, Error> {
    let path = folder.join(SIGNING);
    let key = match path.exists() {
        true => SigningKey::load(&path)?,
        false => SigningKey::create(&path)?,
    };
    let public = folder.join(SIGNING_PUBLIC);
    if !public.exists() {
        key.verifying_key().create(&public)?;
    }
    Ok(Arc::new(key))
}

/// The key that vouches for the audit log.
pub fn verifying_key(folder: &Path) -> Result<VerifyingKey, Error> {
    Ok(VerifyingKey::load(folder.join(SIGNING_PUBLIC))?)
}

/// The keys that the log is verified with: the one here, those that rotations lead to from it and those that it
/// followed, each as far as no revocation ends it.
pub fn trusted(folder: &Path, repository: &Repository) -> Result<Vec<VerifyingKey>, Error> {
    statements::trusted(&[verifying_key(folder)?], repository)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_alone_makes_a_host_that_cannot_read() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = RecipientPrivate::generate().unwrap();
        let public = folder.path().join(RECIPIENT_PUBLIC);
        elsewhere.public().store(&public).unwrap();
        let mut keys = Keys::open_or_create(folder.path(), None).unwrap();
        assert!(keys.private.is_none() && keys.public == *elsewhere.public());
        let error = reading_key(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains(&elsewhere.public().id()) && error.contains("recipient.key"),
            "{error}"
        );
        // Rotated where the private key is, and brought here.
        assert!(!keys.take_new_recipient().unwrap());
        let next = RecipientPrivate::generate().unwrap();
        std::fs::remove_file(&public).unwrap();
        next.public().store(&public).unwrap();
        assert!(keys.take_new_recipient().unwrap());
        assert_eq!(keys.public, *next.public());
    }

    fn there(repository: &Path) -> Option<String> {
        let marker = repository.join("format");
        marker.exists().then(|| repository.display().to_string())
    }

    #[test]
    fn made_once_and_never_beside_an_existing_repository() {
        let folder = tempfile::tempdir().unwrap();
        let (keys, repository) = (folder.path().join("keys"), folder.path().join("repository"));
        std::fs::create_dir_all(&keys).unwrap();
        std::fs::create_dir_all(&repository).unwrap();
        let first = Keys::open_or_create(&keys, there(&repository).as_deref()).unwrap();
        std::fs::write(repository.join("format"), "x").unwrap();
        let again = Keys::open_or_create(&keys, there(&repository).as_deref()).unwrap();
        assert_eq!(first.signing.key_id(), again.signing.key_id());
        std::fs::remove_file(keys.join(SIGNING)).unwrap();
        let error = Keys::open_or_create(&keys, there(&repository).as_deref())
            .unwrap_err()
            .to_string();
        assert!(error.contains(SIGNING), "{error}");
        std::fs::remove_file(keys.join(RECIPIENT)).unwrap();
        let error = reading_key(&keys).unwrap_err().to_string();
        assert!(error.contains("--keys-dir"), "{error}");
    }
}
