//! The instance's keys: made once, in a folder of mode 0700, and needed for ever.

pub(crate) mod age;
pub(crate) mod rotation;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use audit::{SigningKey, VerifyingKey};
use repository::{ChunkIdKey, RecipientPrivate, RecipientPublic};

use crate::{error::Error, instance::write_whole};

const RECIPIENT: &str = "recipient.key";
const RECIPIENT_PUBLIC: &str = "recipient.pub";
const CHUNK_ID: &str = "chunk_id.key";
const SIGNING: &str = "audit_signing.key";
const SIGNING_PUBLIC: &str = "audit_signing.pub";
const FIRST_API_KEY: &str = "first_api_key";

/// What the engine holds while it runs.
#[derive(Debug)]
pub(crate) struct Keys {
    folder: PathBuf,
    /// Absent on a host that may write backups but not read them; recovery then waits for a person who has it.
    pub(crate) private: Option<RecipientPrivate>,
    pub(crate) public: RecipientPublic,
    pub(crate) chunk_id: ChunkIdKey,
    pub(crate) signing: Arc<SigningKey>,
}

impl Keys {
    /// Opens the keys, or makes them beside a repository that does not exist yet. Keys are never made beside an existing
    /// repository: new ones would read nothing in it.
    pub(crate) fn open_or_create(folder: &Path, repository: &Path) -> Result<Self, Error> {
        if repository.join("format").exists() {
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
            public: RecipientPublic::load(&folder.join(RECIPIENT_PUBLIC))?,
            chunk_id: ChunkIdKey::load(&folder.join(CHUNK_ID))?,
            signing: Arc::new(SigningKey::load(folder.join(SIGNING))?),
        })
    }

    /// True when the public key in the folder is another one since: it was rotated, here or where the private key is. What is
    /// written from then on is sealed to it.
    pub(crate) fn take_new_recipient(&mut self) -> Result<bool, Error> {
        let public = RecipientPublic::load(&self.folder.join(RECIPIENT_PUBLIC))?;
        if public == self.public {
            return Ok(false);
        }
        self.private = private_key(&self.folder)?;
        self.public = public;
        Ok(true)
    }

    pub(crate) fn age(&self) -> Result<age::KeyAge, Error> {
        age::of(&self.folder)
    }

    pub(crate) fn first_api_key(&self) -> Option<String> {
        std::fs::read_to_string(self.folder.join(FIRST_API_KEY))
            .ok()
            .map(|text| text.trim().to_owned())
    }

    pub(crate) fn keep_first_api_key(&self, key: &str) -> Result<(), Error> {
        write_whole(
            &self.folder.join(FIRST_API_KEY),
            format!("{key}\n").as_bytes(),
            0o600,
        )
    }
}

/// Each file by itself, so that a crash between two of them is mended by the next start.
fn create_missing(folder: &Path) -> Result<(), Error> {
    let (recipient, public) = (folder.join(RECIPIENT), folder.join(RECIPIENT_PUBLIC));
    // A public key alone was brought here on purpose: this host shall write and not read.
    if !public.exists() {
        if !recipient.exists() {
            RecipientPrivate::generate()?.store(&recipient)?;
        }
        let private = RecipientPrivate::load(&recipient)?;
        private.public().store(&public)?;
        age::note(folder, private.public())?;
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

fn private_key(folder: &Path) -> Result<Option<RecipientPrivate>, Error> {
    let path = folder.join(RECIPIENT);
    if !path.exists() {
        return Ok(None);
    }
    Ok(Some(RecipientPrivate::load(&path)?))
}

/// The key that reads, where it is here.
pub(crate) fn reading_key_if_here(folder: &Path) -> Result<Option<RecipientPrivate>, Error> {
    private_key(folder)
}

/// The key that reads, for commands that cannot do without it.
pub(crate) fn reading_key(folder: &Path) -> Result<RecipientPrivate, Error> {
    private_key(folder)?.ok_or_else(|| Error::Refused {
        what: "this needs the repository's private key",
        reason: format!(
            "{} is not there{}. Bring it, or name its folder with --keys DIR",
            folder.join(RECIPIENT).display(),
            RecipientPublic::load(&folder.join(RECIPIENT_PUBLIC)).map_or_else(
                |_| String::new(),
                |public| format!(
                    " (the private key of recipient {}; this host writes to it and cannot read)",
                    public.id()
                )
            )
        ),
    })
}

/// The key that signs the log, made on the first start, for a data-service without a repository of its own.
pub(crate) fn signing_key(folder: &Path) -> Result<Arc<SigningKey>, Error> {
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
pub(crate) fn verifying_key(folder: &Path) -> Result<VerifyingKey, Error> {
    Ok(VerifyingKey::load(folder.join(SIGNING_PUBLIC))?)
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
        let mut keys = Keys::open_or_create(folder.path(), Path::new("/nowhere")).unwrap();
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

    #[test]
    fn made_once_and_never_beside_an_existing_repository() {
        let folder = tempfile::tempdir().unwrap();
        let (keys, repository) = (folder.path().join("keys"), folder.path().join("repository"));
        std::fs::create_dir_all(&keys).unwrap();
        std::fs::create_dir_all(&repository).unwrap();
        let first = Keys::open_or_create(&keys, &repository).unwrap();
        std::fs::write(repository.join("format"), "x").unwrap();
        let again = Keys::open_or_create(&keys, &repository).unwrap();
        assert_eq!(first.signing.key_id(), again.signing.key_id());
        std::fs::remove_file(keys.join(SIGNING)).unwrap();
        let error = Keys::open_or_create(&keys, &repository)
            .unwrap_err()
            .to_string();
        assert!(error.contains(SIGNING), "{error}");
        std::fs::remove_file(keys.join(RECIPIENT)).unwrap();
        let error = reading_key(&keys).unwrap_err().to_string();
        assert!(error.contains("--keys"), "{error}");
    }
}
