//! A new pair of repository keys in place of the old one, in files. Each step is durable before the next, and each can
//! be repeated: next key → its wraps → old key kept aside → next key becomes the key → its public half → its age.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use repository::{
    Repository,
    keys::{
        RecipientPrivate, RecipientPublic, RewrapReport, Vault, not_sealed_to_in, rewrap_in,
        seal_also,
    },
};

use super::{
    AUDIT_RECIPIENT, AUDIT_RECIPIENT_PUBLIC, RECIPIENT, RECIPIENT_PUBLIC, age, audit_reading_key,
    offline_key, providers, reading_key,
};
use crate::{error::Error, keys::settings::RepositoryKey, progress::Steps};

const NEXT: &str = "recipient.next.key";

/// Which pair: the files of a folder that hold it, and what it opens.
#[derive(Debug)]
pub struct Pair {
    pub vault: Vault,
    key: &'static str,
    public: &'static str,
    next: &'static str,
    /// `<prefix><id>.key`: a key that was replaced.
    replaced: &'static str,
    /// When the key was taken.
    created: &'static str,
    /// For people.
    pub title: &'static str,
    /// Replaces it.
    pub command: &'static str,
    /// Where the settings say which key comes next.
    setting: &'static str,
    reading: fn(&Path) -> Result<RecipientPrivate, Error>,
}

/// Of the repository: backups, WAL and histories.
pub const BACKUPS: Pair = Pair {
    vault: Vault::Backups,
    key: RECIPIENT,
    public: RECIPIENT_PUBLIC,
    next: NEXT,
    replaced: "recipient-",
    created: "recipient.created",
    title: "the repository's key",
    command: "bre repository key rotate",
    setting: "repository_key",
    reading: reading_key,
};

pub const AUDIT: Pair = Pair {
    vault: Vault::Audit,
    key: AUDIT_RECIPIENT,
    public: AUDIT_RECIPIENT_PUBLIC,
    next: "audit_recipient.next.key",
    replaced: "audit_recipient-",
    created: "audit_recipient.created",
    title: "the audit archive's key",
    command: "bre audit key rotate",
    setting: "audit_key",
    reading: audit_reading_key,
};

/// What a rotation has to do, from what lies in the folder and in the repository.
#[derive(Debug)]
pub enum Rotation {
    /// Nothing was begun.
    Fresh { current: RecipientPrivate },
    /// The next key was made; data keys may be sealed to it already.
    Begun {
        current: RecipientPrivate,
        next: RecipientPrivate,
    },
    /// The keys were exchanged; some data keys are sealed to earlier ones only.
    Unfinished {
        current: RecipientPrivate,
        replaced: Vec<RecipientPrivate>,
    },
}

impl Pair {
    fn replaced_path(&self, folder: &Path, id: &str) -> PathBuf {
        folder.join(format!("{}{id}.key", self.replaced))
    }

    /// Those that were replaced and are still here.
    pub fn replaced(&self, folder: &Path) -> Result<Vec<RecipientPrivate>, Error> {
        keys_named(folder, self.replaced)
    }

    pub(super) fn public_path(&self, folder: &Path) -> PathBuf {
        folder.join(self.public)
    }

    pub(super) fn created_path(&self, folder: &Path) -> PathBuf {
        folder.join(self.created)
    }

    /// False before the first pass of the audit archive made it, and on a host that does not write it.
    pub fn is_here(&self, folder: &Path) -> bool {
        self.public_path(folder).exists()
    }

    pub fn public(&self, folder: &Path) -> Result<RecipientPublic, Error> {
        providers::load_public(&self.public_path(folder))
    }

    /// Whether the private half, or the way to it, is in the folder.
    pub fn can_read(&self, folder: &Path) -> bool {
        folder.join(self.key).exists()
    }

    /// After how many days the key's provider replaces its material by itself; none where it does not.
    pub fn provider_rotation_days(&self, folder: &Path) -> Result<Option<u32>, Error> {
        providers::rotation_period_days(&self.public_path(folder))
    }

    pub fn reading(&self, folder: &Path) -> Result<RecipientPrivate, Error> {
        (self.reading)(folder)
    }

    pub fn not_sealed_to(
        &self,
        repository: &Repository,
        public: &RecipientPublic,
    ) -> Result<u64, Error> {
        Ok(not_sealed_to_in(repository, self.vault, public)?)
    }
}

impl Rotation {
    pub fn look(pair: &Pair, folder: &Path, repository: &Repository) -> Result<Self, Error> {
        let current = pair.reading(folder)?;
        let next = folder.join(pair.next);
        if next.exists() {
            let next = providers::load_private(&next)?;
            return Ok(Self::Begun { current, next });
        }
        let is_behind = pair.public(folder)? != *current.public()
            || pair.not_sealed_to(repository, current.public())? > 0;
        let replaced = pair.replaced(folder)?;
        if is_behind && !replaced.is_empty() {
            return Ok(Self::Unfinished { current, replaced });
        }
        Ok(Self::Fresh { current })
    }

    /// To the end of what can be done without the writers: the new pair is in place, and all that was here is sealed
    /// to it. Returns the current key and those whose wraps it stands beside.
    pub fn advance(
        self,
        pair: &Pair,
        folder: &Path,
        repository: &Repository,
        wanted: &RepositoryKey,
        steps: &Steps,
    ) -> Result<(RecipientPrivate, Vec<RecipientPrivate>), Error> {
        match self {
            Self::Fresh { current } => {
                let next = make_next(pair, folder, wanted, &current)?;
                Self::Begun { current, next }.advance(pair, folder, repository, wanted, steps)
            }
            Self::Begun { current, next } => {
                steps.step("sealing data keys to the new key");
                // What does not open now is told at the end: writers should not go on with a key that is in trouble.
                rewrap_in(repository, pair.vault, &current, &next, steps)?;
                exchange(pair, folder, &current, &next)?;
                Ok((next, vec![current]))
            }
            Self::Unfinished { current, replaced } => {
                publish(pair, folder, &current)?;
                finish(pair, repository, &current, &replaced, steps)?;
                Ok((current, replaced))
            }
        }
    }
}

/// What was written with an earlier public key meanwhile is sealed to the current one too.
pub fn finish(
    pair: &Pair,
    repository: &Repository,
    current: &RecipientPrivate,
    replaced: &[RecipientPrivate],
    steps: &Steps,
) -> Result<RewrapReport, Error> {
    let mut all = RewrapReport::default();
    for old in replaced {
        let done = rewrap_in(repository, pair.vault, old, current, steps)?;
        all.wrapped += done.wrapped;
        all.data_keys = done.data_keys;
        (all.foreign, all.closed) = (done.foreign, done.closed);
        all.closed_because = done.closed_because.or(all.closed_because);
    }
    Ok(all)
}

/// Private keys whose file names begin so.
fn keys_named(folder: &Path, prefix: &str) -> Result<Vec<RecipientPrivate>, Error> {
    let mut replaced = Vec::new();
    let entries = std::fs::read_dir(folder).map_err(Error::file("cannot read", folder))?;
    for entry in entries {
        let path = entry.map_err(Error::file("cannot read", folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let is_one = name.is_some_and(|name| name.starts_with(prefix) && name.ends_with(".key"));
        if is_one {
            replaced.push(providers::load_private(&path)?);
        }
    }
    Ok(replaced)
}

/// Everything that is here, sealed to the key that is kept offline as well; `None` where there is none.
pub fn seal_to_offline(
    folder: &Path,
    repository: &Repository,
    current: &RecipientPrivate,
    steps: &Steps,
) -> Result<Option<RewrapReport>, Error> {
    let Some(offline) = offline_key(folder)? else {
        return Ok(None);
    };
    Ok(Some(seal_also(repository, current, &offline, steps)?))
}

fn make_next(
    pair: &Pair,
    folder: &Path,
    wanted: &RepositoryKey,
    current: &RecipientPrivate,
) -> Result<RecipientPrivate, Error> {
    let next = providers::make(wanted)?;
    if next.public() == current.public() {
        return Err(Error::Refused {
            what: "nothing was rotated",
            reason: format!(
                "{} is the key in use. Name another one in bre.toml: [{}] kms_key",
                next.public().name(),
                pair.setting
            ),
        });
    }
    put(folder, pair.next, |path| next.store(path))?;
    Ok(next)
}

fn exchange(
    pair: &Pair,
    folder: &Path,
    current: &RecipientPrivate,
    next: &RecipientPrivate,
) -> Result<(), Error> {
    let (key, aside) = (
        folder.join(pair.key),
        pair.replaced_path(folder, &current.public().id()),
    );
    match std::fs::hard_link(&key, &aside) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Error::file("cannot keep the old key as", aside)(error));
        }
        _ => sync(folder)?,
    }
    std::fs::rename(folder.join(pair.next), &key)
        .map_err(Error::file("cannot put in place", &key))?;
    sync(folder)?;
    publish(pair, folder, next)
}

/// The public half last: writers take it at once, and everything that reads must be in place by then.
fn publish(pair: &Pair, folder: &Path, key: &RecipientPrivate) -> Result<(), Error> {
    put(folder, pair.public, |path| key.public().store(path))?;
    age::note(pair, folder, key.public())
}

/// A whole key file under its name, or none: written aside, then renamed.
fn put(
    folder: &Path,
    name: &str,
    store: impl FnOnce(&Path) -> Result<(), repository::Error>,
) -> Result<(), Error> {
    let aside = folder.join(format!(".{name}.new"));
    let _ = std::fs::remove_file(&aside);
    store(&aside)?;
    let path = folder.join(name);
    std::fs::rename(&aside, &path).map_err(Error::file("cannot put in place", &path))?;
    sync(folder)
}

fn sync(folder: &Path) -> Result<(), Error> {
    let file = File::open(folder).map_err(Error::file("cannot open", folder))?;
    file.sync_all().map_err(Error::file("cannot sync", folder))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use repository::{
        keys::{not_sealed_to, recipients, retire, rewrap},
        store::MemoryStore,
        wal::{WalReader, WalWriter},
    };

    use super::*;
    use crate::keys::Keys;

    fn write_segment(repository: &Repository, public: &RecipientPublic, segment: u64) {
        let at = segment << 16;
        let mut writer = WalWriter::new(repository, public, 7, 1, 1 << 16, "s", at).unwrap();
        writer.append(at, &[7; 100], 1).unwrap();
        writer.finish().unwrap();
    }

    fn reads(repository: &Repository, key: &RecipientPrivate, segments: u64) {
        let reader = WalReader::new(repository, key);
        for segment in 1..=segments {
            let at = segment << 16;
            assert_eq!(reader.bytes(1, at, at + 100).unwrap(), [7; 100]);
        }
    }

    /// Stopped before each of its file operations; a repeat finishes the same rotation instead of beginning another.
    #[test]
    fn an_interrupted_rotation_is_finished_by_a_repeat() {
        for stopped_before in 0..6 {
            let folder = tempfile::tempdir().unwrap();
            let keys = Keys::open_or_create(folder.path(), None).unwrap();
            let (dir, steps) = (folder.path(), Steps::logged());
            let repository = Repository::init(Arc::new(MemoryStore::new())).unwrap();
            write_segment(&repository, &keys.public, 1);
            let old = keys.private.clone().unwrap();
            // By hand, as far as it came.
            let next = RecipientPrivate::generate().unwrap();
            let acts: [&dyn Fn(); 5] = [
                &|| put(dir, NEXT, |path| next.store(path)).unwrap(),
                &|| {
                    rewrap(&repository, &old, &next, &()).unwrap();
                },
                &|| {
                    let aside = BACKUPS.replaced_path(dir, &old.public().id());
                    std::fs::hard_link(dir.join(RECIPIENT), aside).unwrap();
                },
                &|| std::fs::rename(dir.join(NEXT), dir.join(RECIPIENT)).unwrap(),
                &|| put(dir, RECIPIENT_PUBLIC, |path| next.public().store(path)).unwrap(),
            ];
            for act in &acts[..stopped_before.min(5)] {
                act();
            }
            // Meanwhile the writers go on with the key that they know.
            write_segment(&repository, &keys.public, 2);
            let rotation = Rotation::look(&BACKUPS, dir, &repository).unwrap();
            let (current, replaced) = rotation
                .advance(
                    &BACKUPS,
                    dir,
                    &repository,
                    &RepositoryKey::default(),
                    &steps,
                )
                .unwrap();
            if stopped_before > 0 {
                assert_eq!(
                    current.public().id(),
                    next.public().id(),
                    "{stopped_before}"
                );
            }
            finish(&BACKUPS, &repository, &current, &replaced, &steps).unwrap();
            reads(&repository, &current, 2);
            let reopened = Keys::open_or_create(dir, None).unwrap();
            assert_eq!(reopened.public, *current.public());
            assert_eq!(reopened.private.unwrap().public(), current.public());
            assert!(!dir.join(NEXT).exists());
            assert_eq!(not_sealed_to(&repository, current.public()).unwrap(), 0);
            assert!(matches!(
                Rotation::look(&BACKUPS, dir, &repository).unwrap(),
                Rotation::Fresh { .. }
            ));
            retire(&repository, &old.public().id(), &current, &()).unwrap();
            assert_eq!(
                recipients(&repository).unwrap(),
                [current.public().id()].into()
            );
            reads(&repository, &current, 2);
            assert!(age::of(dir).unwrap().days == 0);
        }
    }

    /// The same steps for the archive's own pair, which touches neither the repository's keys nor what they open.
    #[test]
    fn the_archives_key_is_rotated_apart() {
        use repository::{
            archive::{ArchivePart, ArchivedEntries, archive_parts, put_archive, read_archive},
            keys::{recipients_in, retire_in},
        };
        let folder = tempfile::tempdir().unwrap();
        let (dir, steps) = (folder.path(), Steps::logged());
        let keys = Keys::open_or_create(dir, None).unwrap();
        let repository = Repository::init(Arc::new(MemoryStore::new())).unwrap();
        write_segment(&repository, &keys.public, 1);
        let archive = |from: u64| {
            let (public, _) = crate::keys::audit_writing_key(dir).unwrap();
            let ends = (from, from);
            let hash = |n: u64| format!("{n:064x}");
            let part = ArchivePart::new(1, 1, ends, hash(from - 1), hash(from));
            let content = ArchivedEntries {
                signed_head: b"head".to_vec(),
                entries: vec![b"entry".to_vec()],
            };
            put_archive(&repository, &public, &part, &content).unwrap();
            public.id()
        };
        let old = archive(1);
        let settings = RepositoryKey::default();
        let (current, replaced) = Rotation::look(&AUDIT, dir, &repository)
            .unwrap()
            .advance(&AUDIT, dir, &repository, &settings, &steps)
            .unwrap();
        finish(&AUDIT, &repository, &current, &replaced, &steps).unwrap();
        let new = archive(2);
        assert_eq!(new, current.public().id());
        assert_ne!(new, old);
        // Whoever has the new key alone reads what was sealed before and after.
        for part in archive_parts(&repository, 1).unwrap() {
            read_archive(&repository, &current, &part).unwrap();
        }
        assert!(matches!(
            Rotation::look(&AUDIT, dir, &repository).unwrap(),
            Rotation::Fresh { .. }
        ));
        retire_in(&repository, Vault::Audit, &old, &current, &()).unwrap();
        assert_eq!(
            recipients_in(&repository, Vault::Audit).unwrap(),
            [new].into()
        );
        let reopened = Keys::open_or_create(dir, None).unwrap();
        assert_eq!(reopened.public, keys.public);
        assert_eq!(recipients(&repository).unwrap(), [keys.public.id()].into());
        reads(&repository, &reopened.private.unwrap(), 1);
    }
}
