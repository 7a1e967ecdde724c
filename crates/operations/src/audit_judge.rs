//! What the audit log's formats say of the objects of a repository: heads, the archive, and what is published. For
//! `bre verify repository`, which reads all of it back.

use audit::{
    Checkpoint, Entry, Hash, Head, HeadError, KeyStatement, Note, NoteError, Says, SignedHead,
    SignedPlace, StatementError, Thinning, ThinningError, TileId, VerifyingKey, read_tile,
};
use host::{
    keys::statements,
    log::{LOG, log_name},
};
use repository::{
    Repository,
    archive::{ArchivePart, ArchivedEntries},
    read_back::{AuditReader, Evidence, EvidenceSource, HeadSaid, ObjectClass},
};

/// It may be sound, and this host cannot tell.
const UNKNOWN_KEY: &str = "it is signed by a key that is not here, and that no statement below signing-keys/ leads \
                           to: it proves nothing";

#[derive(Debug)]
pub struct AuditJudge {
    /// All that the key here leads to, each as far as no revocation ends it. None where there is no key.
    trusted: Vec<VerifyingKey>,
    /// Why only the key that is here is trusted.
    fork: Option<StatementError>,
}

impl AuditJudge {
    /// With the statements that the repository holds: an old key vouches for a new one, and each counts to where it
    /// ends.
    pub fn new(given: Option<VerifyingKey>, repository: &Repository) -> Self {
        let given = Vec::from_iter(given);
        // One that cannot be read is found with all other objects.
        let said = statements::published(repository).unwrap_or_default();
        match audit::trust(LOG, &given, &said) {
            Ok(trusted) => Self {
                trusted,
                fork: None,
            },
            Err(fork) => Self {
                trusted: given,
                fork: Some(fork),
            },
        }
    }

    /// And why it proves nothing: signed by a key that is not here, or that had ended.
    fn signed(&self, bytes: &[u8]) -> Result<(Head, Option<String>), String> {
        let signed = SignedHead::from_json(bytes).map_err(|error| error.to_string())?;
        match signed.verify(&self.trusted) {
            Ok(head) => Ok((head, None)),
            Err(HeadError::UnknownKey { .. }) => {
                Ok((signed.claimed().clone(), Some(UNKNOWN_KEY.to_owned())))
            }
            Err(error @ HeadError::Revoked { .. }) => {
                Ok((signed.claimed().clone(), Some(not_counted(&error))))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// `began`: the epoch of its name, which is the checkpoint's or an earlier one.
    fn checkpoint(
        &self,
        began: u32,
        note: &Note,
        read: &Checkpoint,
    ) -> Result<Option<String>, String> {
        let place = SignedPlace::Log {
            epoch: began,
            position: read.size,
        };
        match Checkpoint::verify_at(note, &self.trusted, place) {
            Ok(_) => Ok(None),
            Err(NoteError::Unsigned) => Ok(Some(UNKNOWN_KEY.to_owned())),
            Err(error @ NoteError::Revoked { .. }) => Ok(Some(not_counted(&error))),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn not_counted(error: &dyn std::fmt::Display) -> String {
    format!("{error}: it does not count")
}

/// Parts of a name, the last of them without its folder.
fn named(name: &str) -> (&str, &str) {
    let mut parts = name.rsplit('/');
    let last = parts.next().unwrap_or_default();
    (parts.next().unwrap_or_default(), last)
}

fn hex(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok()
}

impl AuditJudge {
    fn origin(&self, name: &str, bytes: &[u8]) -> Result<Option<String>, String> {
        let (log, began) = named(name);
        let began = hex(began).and_then(|began| u32::try_from(began).ok());
        let began = began.ok_or("its name holds no epoch")?;
        let note = Note::parse(bytes).map_err(|error| error.to_string())?;
        let read = Checkpoint::read(&note).map_err(|error| error.to_string())?;
        match read.origin.ends_with(&format!("/log-{log}/{began}")) {
            true => self.checkpoint(began, &note, &read),
            false => Err(format!("it is a checkpoint of {}", read.origin)),
        }
    }

    fn cosigned(&self, name: &str, bytes: &[u8]) -> Result<Option<String>, String> {
        let (_, last) = named(name);
        let place = last
            .split_once('.')
            .and_then(|(place, _)| place.split_once('-'));
        let place =
            place.and_then(|(epoch, size)| Some((u32::try_from(hex(epoch)?).ok()?, hex(size)?)));
        let (epoch, size) = place.ok_or("its name holds no epoch and size")?;
        let note = Note::parse(bytes).map_err(|error| error.to_string())?;
        let read = Checkpoint::read(&note).map_err(|error| error.to_string())?;
        match read.size == size {
            true => self.checkpoint(epoch, &note, &read),
            false => Err(format!("it is a checkpoint of size {}", read.size)),
        }
    }

    fn statement(&self, name: &str, bytes: &[u8]) -> Result<Option<String>, String> {
        let statement = KeyStatement::parse(bytes).map_err(|error| error.to_string())?;
        let (_, last) = named(name);
        if statement.digest() != last {
            return Err("it is another statement than its name says".to_owned());
        }
        match (&self.fork, &statement.says) {
            (Some(fork @ StatementError::Fork { old, .. }), Says::Rotation { old: from, .. })
                if from.key_id() == *old =>
            {
                Err(fork.to_string())
            }
            _ => Ok(None),
        }
    }
}

impl AuditReader for AuditJudge {
    fn head(&self, log: &str, epoch: u32, size: u64, bytes: &[u8]) -> Result<HeadSaid, String> {
        let (head, unproved) = self.signed(bytes)?;
        if (head.log.to_string().as_str(), head.epoch, head.size) != (log, epoch, size) {
            return Err("it is the head of another place than its name".to_owned());
        }
        // Of another log than the engine's nothing says where it was written.
        let lsn = if log == log_name() { head.lsn } else { 0 };
        Ok(match unproved {
            Some(why) => HeadSaid::Nothing(why),
            None => HeadSaid::Evidence(Evidence {
                source: EvidenceSource::SignedHead,
                object: None,
                timeline: None,
                epoch,
                lsn,
                at_micros: head.at_micros,
            }),
        })
    }

    fn record(
        &self,
        class: ObjectClass,
        name: &str,
        bytes: &[u8],
    ) -> Result<Option<String>, String> {
        match class {
            ObjectClass::Thinning => match Thinning::read(bytes, &self.trusted) {
                Ok(_) => Ok(None),
                Err(ThinningError::UnknownKey(_)) => Ok(Some(UNKNOWN_KEY.to_owned())),
                Err(error @ ThinningError::Revoked { .. }) => Ok(Some(not_counted(&error))),
                Err(error) => Err(error.to_string()),
            },
            ObjectClass::Tile => {
                let place = named(name).1.split_once('-');
                let tile = place.and_then(|(level, index)| {
                    let level = u8::try_from(hex(level)?).ok()?;
                    read_tile(TileId::full(level, hex(index)?), bytes)
                });
                tile.map(|_| None)
                    .ok_or_else(|| "it is no full tile".to_owned())
            }
            ObjectClass::Origin => self.origin(name, bytes),
            ObjectClass::Cosigned => self.cosigned(name, bytes),
            ObjectClass::KeyStatement => self.statement(name, bytes),
            _ => Ok(None),
        }
    }

    fn stretch(&self, part: &ArchivePart, content: &ArchivedEntries) -> Result<(), String> {
        let (head, _) = self.signed(&content.signed_head)?;
        if head.log != part.log || head.size < part.to {
            return Err("its signed head does not cover it".to_owned());
        }
        let mut before = part.previous.clone();
        for (position, bytes) in (part.from..).zip(&content.entries) {
            let entry = Entry::parse(bytes).map_err(|error| error.to_string())?;
            if entry.position != position || entry.previous.to_string() != before {
                return Err(format!("the chain is broken at position {position}"));
            }
            before = Entry::hash_of(bytes).to_string();
        }
        let end: Hash = before.parse().map_err(|_| "it holds no entry".to_owned())?;
        match end.to_string() == part.last {
            true => Ok(()),
            false => Err("its last entry is another than its header says".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use audit::{Chain, EpochOpening, SigningKey};
    use repository::store::MemoryStore;

    use super::*;

    struct World {
        repository: Repository,
        keys: [SigningKey; 3],
    }

    impl World {
        fn new() -> Self {
            let key = |_| SigningKey::generate().unwrap();
            Self {
                repository: Repository::init(Arc::new(MemoryStore::default())).unwrap(),
                keys: [0, 1, 2].map(key),
            }
        }

        fn public(&self, key: usize) -> VerifyingKey {
            self.keys[key].verifying_key().clone()
        }

        fn put(&self, statement: &KeyStatement) {
            let (log, bytes) = (log_name(), statement.to_bytes());
            repository::transparency::put_key_statement(
                &self.repository,
                &log,
                &statement.digest(),
                &bytes,
            )
            .unwrap();
        }

        fn rotates(&self, old: usize, new: usize) {
            let (old, new) = (&self.keys[old], &self.keys[new]);
            self.put(&KeyStatement::rotation(LOG, old, new, 5, 6).unwrap());
        }

        /// Whether the head of that size is read as signed, with that key here.
        fn head(&self, given: usize, signer: usize, size: u64) -> Result<bool, String> {
            let judge = AuditJudge::new(Some(self.public(given)), &self.repository);
            let mut chain = Chain::new(LOG);
            let opening = EpochOpening::Created { timeline: 1 };
            chain.open_epoch(0, &opening, &self.keys[0]).unwrap();
            while chain.position() < size {
                let fields = audit::Fields::new();
                chain.append(audit::Kind::BackupRun, 1, fields).unwrap();
            }
            let bytes = self.keys[signer].sign(&chain.head(1, 2).unwrap()).to_json();
            match judge.head(&log_name(), 1, size, &bytes)? {
                HeadSaid::Evidence(_) => Ok(true),
                HeadSaid::Nothing(why) if why.contains("revoked") => Err(why),
                HeadSaid::Nothing(_) => Ok(false),
            }
        }

        fn checkpoint(&self, given: usize, signer: usize, size: u64) -> Result<bool, String> {
            let judge = AuditJudge::new(Some(self.public(given)), &self.repository);
            let checkpoint = Checkpoint {
                origin: "log.example/log-1/1".to_owned(),
                size,
                root: Hash::ZERO,
                extensions: Vec::new(),
            };
            let bytes = checkpoint.sign(&self.keys[signer]).unwrap().to_bytes();
            let name = format!("cosigned/1/00000001-{size:016x}.0a0b0c0d");
            let first = judge.record(ObjectClass::Origin, "origins/1/00000001", &bytes)?;
            let cosigned = judge.record(ObjectClass::Cosigned, &name, &bytes)?;
            assert_eq!(first, cosigned);
            match cosigned {
                Some(why) if why.contains("revoked") => Err(why),
                other => Ok(other.is_none()),
            }
        }
    }

    #[test]
    fn a_replaced_key_counts_to_where_it_ends_whichever_key_is_here() {
        let world = World::new();
        // Before anything is said of the second key, this host cannot tell.
        assert_eq!(world.head(0, 0, 3), Ok(true));
        assert_eq!(world.head(0, 1, 4), Ok(false));
        assert_eq!(world.checkpoint(0, 1, 4), Ok(false));
        world.rotates(0, 1);
        for given in [0, 1] {
            assert_eq!(world.head(given, 0, 3), Ok(true));
            assert_eq!(world.head(given, 1, 4), Ok(true));
            assert_eq!(world.checkpoint(given, 0, 3), Ok(true));
            assert_eq!(world.checkpoint(given, 1, 4), Ok(true));
            assert_eq!(world.head(given, 2, 4), Ok(false), "a stranger's");
        }
        let (old, from) = (world.public(0), (1, 5));
        let ends = KeyStatement::revocation(LOG, &old, &world.keys[1], from, 7).unwrap();
        world.put(&ends);
        for given in [0, 1] {
            assert_eq!(world.head(given, 0, 4), Ok(true));
            assert_eq!(world.checkpoint(given, 0, 4), Ok(true));
            let refused = world.head(given, 0, 5).unwrap_err();
            assert!(
                refused.contains("revoked from epoch 1, position 5"),
                "{refused}"
            );
            let refused = world.checkpoint(given, 0, 5).unwrap_err();
            assert!(
                refused.contains("revoked from epoch 1, position 5"),
                "{refused}"
            );
            assert_eq!(world.head(given, 1, 9), Ok(true));
        }
        // A thief's rotation beside ours: it is named, and what the key here signed is still read.
        world.rotates(0, 2);
        let judge = AuditJudge::new(Some(world.public(0)), &world.repository);
        let rotation = KeyStatement::rotation(LOG, &world.keys[0], &world.keys[2], 5, 6).unwrap();
        let name = format!("signing-keys/1/{}", rotation.digest());
        let told = judge.record(ObjectClass::KeyStatement, &name, &rotation.to_bytes());
        assert!(told.unwrap_err().contains("vouches for two keys"));
        assert_eq!(world.head(0, 0, 4), Ok(true));
    }

    #[test]
    fn a_checkpoint_of_another_place_than_its_name_is_found() {
        let world = World::new();
        let judge = AuditJudge::new(Some(world.public(0)), &world.repository);
        let checkpoint = Checkpoint {
            origin: "log.example/log-1/2".to_owned(),
            size: 9,
            root: Hash::ZERO,
            extensions: Vec::new(),
        };
        let bytes = checkpoint.sign(&world.keys[0]).unwrap().to_bytes();
        let check = |class, name: &str, words: Option<&str>| {
            let told = judge.record(class, name, &bytes).err();
            assert_eq!(told.is_some(), words.is_some(), "{name}: {told:?}");
            let words = words.unwrap_or_default();
            assert!(told.unwrap_or_default().contains(words), "{name}");
        };
        check(ObjectClass::Origin, "origins/1/00000002", None);
        check(ObjectClass::Origin, "origins/1/00000003", Some("log-1/2"));
        check(ObjectClass::Origin, "origins/2/00000002", Some("log-1/2"));
        let cosigned = |size: u64| format!("cosigned/1/00000002-{size:016x}.0a0b0c0d");
        check(ObjectClass::Cosigned, &cosigned(9), None);
        check(ObjectClass::Cosigned, &cosigned(8), Some("size 9"));
    }
}
