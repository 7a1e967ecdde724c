//! A new key to sign the log with in place of the old one, in files. Each step is durable before the next, and each
//! can be repeated: next key → the statement in the repository, by both → the entry in the log → next key becomes the
//! key → its public half.

use std::{
    fs::{self, File},
    path::Path,
};

use audit::{KeyStatement, Says, SigningKey, VerifyingKey};
use repository::Repository;

use super::{SIGNING, SIGNING_PUBLIC, statements, verifying_key};
use crate::{
    error::Error,
    files::write_whole,
    log::{LOG, log_name},
    stored_heads::newest,
};

const NEXT: &str = "audit_signing.next.key";

/// What a rotation has come to so far.
#[derive(Debug)]
pub struct Rotation {
    pub statement: KeyStatement,
    pub old: VerifyingKey,
    pub new: VerifyingKey,
    /// It went on with one that was interrupted.
    pub resumed: bool,
}

/// The new key and the statement of both keys, in the repository when this returns.
pub fn prepare(folder: &Path, repository: &Repository, now_micros: i64) -> Result<Rotation, Error> {
    let (file, next) = (folder.join(SIGNING), folder.join(NEXT));
    let old = SigningKey::load(&file)?;
    // The key was put in place, and its public half was not: that is all there is to do.
    let said = statements::published(repository)?;
    let public = verifying_key(folder)?;
    if public.key_id() != old.key_id() {
        let of_both = said.into_iter().find(|statement| {
            matches!(&statement.says, Says::Rotation { old: from, new, .. }
                if from.is_same(&public) && new.is_same(old.verifying_key()))
        });
        let statement = of_both.ok_or_else(|| Error::Refused {
            what: "the key files do not fit each other",
            reason: format!(
                "{} holds key {}, {} holds key {}, and no statement says that one followed the other",
                file.display(),
                old.key_id(),
                folder.join(SIGNING_PUBLIC).display(),
                public.key_id()
            ),
        })?;
        let new = old.verifying_key().clone();
        return Ok(Rotation {
            statement,
            old: public,
            new,
            resumed: true,
        });
    }
    let resumed = next.exists();
    let new = match resumed {
        true => SigningKey::load(&next)?,
        false => SigningKey::create(&next)?,
    };
    let made = said.into_iter().find(|statement| {
        matches!(&statement.says, Says::Rotation { old: from, new: to, .. }
            if from.is_same(old.verifying_key()) && to.is_same(new.verifying_key()))
    });
    let statement = match made {
        Some(statement) => statement,
        None => {
            let after = newest_size(repository)?;
            KeyStatement::rotation(LOG, &old, &new, after, now_micros).map_err(refused)?
        }
    };
    put(repository, &statement)?;
    Ok(Rotation {
        statement,
        old: old.verifying_key().clone(),
        new: new.verifying_key().clone(),
        resumed,
    })
}

/// The new key becomes the key. What the old one signed is verified by its public half, which stays beside it and in
/// the statement.
pub fn exchange(folder: &Path, rotation: &Rotation) -> Result<(), Error> {
    let kept = folder.join(format!("audit_signing-{}.pub", rotation.old.key_id()));
    if !kept.exists() {
        rotation.old.create(&kept)?;
    }
    let next = folder.join(NEXT);
    if next.exists() {
        let key = folder.join(SIGNING);
        fs::rename(&next, &key).map_err(Error::file("cannot exchange", &key))?;
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(Error::file("cannot exchange", folder))?;
    }
    // Whoever looks for a new key looks here, last.
    let public = fresh_public(&rotation.new);
    write_whole(&folder.join(SIGNING_PUBLIC), public.as_bytes(), 0o644)
}

fn fresh_public(key: &VerifyingKey) -> String {
    format!(
        "{} {}\n",
        audit::VERIFYING_LABEL,
        audit::hex::encode(key.as_bytes())
    )
}

/// The end of a key, said by the key that signs now; in the repository when this returns.
pub fn revoke(
    folder: &Path,
    repository: &Repository,
    key: &VerifyingKey,
    from: (u32, u64),
    now_micros: i64,
) -> Result<KeyStatement, Error> {
    let by = SigningKey::load(folder.join(SIGNING))?;
    let statement = KeyStatement::revocation(LOG, key, &by, from, now_micros).map_err(refused)?;
    put(repository, &statement)?;
    Ok(statement)
}

fn put(repository: &Repository, statement: &KeyStatement) -> Result<(), Error> {
    let bytes = statement.to_bytes();
    repository::transparency::put_key_statement(
        repository,
        &log_name(),
        &statement.digest(),
        &bytes,
    )?;
    Ok(())
}

fn newest_size(repository: &Repository) -> Result<u64, Error> {
    let sizes = newest(repository, &[])?.into_iter();
    Ok(sizes.map(|head| head.claimed().size).max().unwrap_or(0))
}

fn refused(error: audit::StatementError) -> Error {
    Error::Refused {
        what: "no statement about the key was made",
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use repository::store::MemoryStore;

    use super::*;
    use crate::keys::signing_key;

    /// Stopped after any step and begun again, it comes to the same end with one new key.
    #[test]
    fn a_rotation_goes_on_from_wherever_it_was_stopped() {
        for steps in 0..4 {
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path();
            let repository = Repository::init(Arc::new(MemoryStore::default())).unwrap();
            let first = signing_key(folder).unwrap().verifying_key().clone();
            let begun = prepare(folder, &repository, 1).unwrap();
            assert!(!begun.resumed);
            if steps > 0 {
                begun
                    .old
                    .create(folder.join(format!("audit_signing-{}.pub", begun.old.key_id())))
                    .unwrap();
            }
            if steps > 1 {
                fs::rename(folder.join(NEXT), folder.join(SIGNING)).unwrap();
            }
            let again = prepare(folder, &repository, 2).unwrap();
            assert!(again.resumed);
            assert_eq!(again.statement, begun.statement, "{steps}");
            exchange(folder, &again).unwrap();
            let signing = signing_key(folder).unwrap();
            assert_eq!(signing.verifying_key(), &begun.new);
            assert_eq!(verifying_key(folder).unwrap(), begun.new);
            // The old one is trusted as the predecessor, and ends where it is said to.
            let trusted = || super::super::trusted(folder, &repository).unwrap();
            assert_eq!(trusted(), [begun.new.clone(), first.clone()]);
            revoke(folder, &repository, &first, (2, 9), 3).unwrap();
            assert_eq!(trusted(), [begun.new.clone(), first.clone().until(2, 9)]);
            assert_eq!(statements::published(&repository).unwrap().len(), 2);
        }
    }
}
