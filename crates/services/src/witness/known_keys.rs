//! Whose signatures count: the keys that the witness was given, and those that they vouch for. Each statement is on
//! disk before the witness says that it follows it.

use std::path::Path;

use audit::{KeyStatement, KnownLog, NoteKey, StatementError, VerifyingKey, trust};

use super::WitnessError;
use super::folder::Folder;

#[derive(Debug)]
pub(super) struct KnownKeys {
    folder: Folder,
    given: Vec<KnownLog>,
    /// The same logs with every key that counts.
    logs: Vec<KnownLog>,
    statements: Vec<KeyStatement>,
}

/// What becomes of the statements that were shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeysAnswer {
    Kept(String),
    Malformed(String),
    UnknownLog,
    /// One key vouches for two.
    Fork(String),
    NotKept(String),
}

impl KnownKeys {
    pub(super) fn open(root: &Path, keys: &[NoteKey]) -> Result<KnownKeys, WitnessError> {
        let mut given: Vec<KnownLog> = Vec::new();
        for key in keys {
            match given.iter_mut().find(|known| known.name == key.name()) {
                Some(known) => known.keys.push(key.key().clone()),
                None => given.push(KnownLog {
                    name: key.name().to_owned(),
                    keys: vec![key.key().clone()],
                }),
            }
        }
        let folder = Folder::open(root, "statements")?;
        let mut statements = Vec::new();
        for (path, bytes) in folder.files()? {
            let read = KeyStatement::parse(&bytes).map_err(|error| error.to_string());
            let read = read.and_then(|statement| match path.file_name() {
                Some(name) if *name == *statement.digest() => Ok(statement),
                _ => Err("it is not named by its digest".to_owned()),
            });
            statements.push(read.map_err(|why| WitnessError::Damaged {
                path: path.display().to_string(),
                why,
            })?);
        }
        let logs = given.iter().map(|log| {
            let keys = keys_of(log, &statements);
            let keys = keys.map_err(|source| WitnessError::Statements {
                log: log.name.clone(),
                source,
            })?;
            let name = log.name.clone();
            Ok(KnownLog { name, keys })
        });
        Ok(KnownKeys {
            folder,
            logs: logs.collect::<Result<_, WitnessError>>()?,
            given,
            statements,
        })
    }

    pub(super) fn logs(&self) -> &[KnownLog] {
        &self.logs
    }

    /// A published `keys` file. What no key that counts has signed is passed over, so a stranger fills no disk.
    pub(super) fn follow(&mut self, published: &[u8]) -> KeysAnswer {
        let shown = match KeyStatement::parse_all(published) {
            Ok(shown) => shown,
            Err(error) => return KeysAnswer::Malformed(error.to_string()),
        };
        let names = names(published);
        let Some(at) = self.given.iter().position(|log| names.contains(&log.name)) else {
            return KeysAnswer::UnknownLog;
        };
        let log = &self.given[at];
        let mut statements = self.statements.clone();
        let is_new = |known: &[KeyStatement], it: &KeyStatement| {
            Some(it.log) == log.number() && known.iter().all(|known| known.digest() != it.digest())
        };
        let first_new = statements.len();
        // A rotation leads to the key that signed the next one, in any order.
        loop {
            let keys = match keys_of(log, &statements) {
                Ok(keys) => keys,
                Err(error) => return KeysAnswer::Fork(error.to_string()),
            };
            let next = shown
                .iter()
                .find(|it| is_new(&statements, it) && it.is_by(&keys));
            let Some(next) = next else {
                for statement in &statements[first_new..] {
                    if let Err(why) = self.folder.keep(&statement.digest(), &statement.to_bytes()) {
                        return KeysAnswer::NotKept(why);
                    }
                    tracing::info!(%statement, log = log.name, "a key of this log changed");
                }
                let said = format!("{} keys of {} count", keys.len(), log.name);
                self.logs[at].keys = keys;
                self.statements = statements;
                return KeysAnswer::Kept(said);
            };
            statements.push(next.clone());
        }
    }
}

/// A log whose name has no number has no statements.
fn keys_of(
    log: &KnownLog,
    statements: &[KeyStatement],
) -> Result<Vec<VerifyingKey>, StatementError> {
    match log.number() {
        Some(number) => trust(number, &log.keys, statements),
        None => Ok(log.keys.clone()),
    }
}

/// Of the logs whose verifier keys the file begins with.
fn names(published: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(published);
    let keys = text.split("\n\n").next().unwrap_or_default().lines();
    let keys = keys.filter_map(|line| line.parse::<NoteKey>().ok());
    keys.map(|key| key.name().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use audit::{SignatureKind, SigningKey};

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).unwrap()
    }

    fn named(seed: u8) -> NoteKey {
        let public = key(seed).verifying_key().clone();
        NoteKey::new("log.example/log-1", SignatureKind::Plain, public).unwrap()
    }

    fn published(statements: &[&KeyStatement]) -> Vec<u8> {
        let mut text = format!("{}\n\n", named(1));
        for statement in statements {
            text.push_str(&String::from_utf8(statement.to_bytes()).unwrap());
            text.push('\n');
        }
        text.into_bytes()
    }

    fn rotation(old: u8, new: u8) -> KeyStatement {
        KeyStatement::rotation(1, &key(old), &key(new), 7, 9).unwrap()
    }

    fn counts(known: &KnownKeys, seed: u8) -> bool {
        let wanted = key(seed);
        known.logs()[0]
            .keys
            .iter()
            .any(|key| key.is_same(wanted.verifying_key()))
    }

    #[test]
    fn keys_that_are_vouched_for_count_and_are_there_again() {
        let root = tempfile::tempdir().unwrap();
        let mut known = KnownKeys::open(root.path(), &[named(1)]).unwrap();
        let kept = |answer: KeysAnswer| matches!(answer, KeysAnswer::Kept(_));
        // What strangers sign, and what is of another log, leads nowhere and is not kept.
        let of_other = KeyStatement::rotation(2, &key(1), &key(5), 7, 9).unwrap();
        assert!(kept(
            known.follow(&published(&[&rotation(8, 9), &of_other]))
        ));
        assert!(!counts(&known, 9) && !counts(&known, 5));
        assert_eq!(
            fs::read_dir(root.path().join("statements"))
                .unwrap()
                .count(),
            0
        );
        // The second leads on from the first, whichever comes first.
        let ended =
            KeyStatement::revocation(1, key(1).verifying_key(), &key(2), (1, 5), 9).unwrap();
        assert!(kept(known.follow(&published(&[
            &rotation(2, 3),
            &ended,
            &rotation(1, 2)
        ]))));
        assert!(counts(&known, 2) && counts(&known, 3));
        let has_ended = |known: &KnownKeys| known.logs()[0].keys[0] != *key(1).verifying_key();
        assert!(has_ended(&known));
        drop(known);
        let mut known = KnownKeys::open(root.path(), &[named(1)]).unwrap();
        assert!(counts(&known, 3) && has_ended(&known));
        // A thief's new key for the old one is a fork, and changes nothing.
        let thief = known.follow(&published(&[&rotation(1, 6)]));
        assert!(matches!(thief, KeysAnswer::Fork(_)), "{thief:?}");
        assert!(counts(&known, 3) && !counts(&known, 6));
        drop(known);
        KnownKeys::open(root.path(), &[named(1)]).unwrap();

        let mut other = KnownKeys::open(&root.path().join("other"), &[]).unwrap();
        assert_eq!(
            other.follow(&published(&[&rotation(1, 2)])),
            KeysAnswer::UnknownLog
        );
        assert!(matches!(other.follow(b"\xff"), KeysAnswer::Malformed(_)));
        let file = fs::read_dir(root.path().join("statements")).unwrap().next();
        fs::write(file.unwrap().unwrap().path(), "").unwrap();
        assert!(matches!(
            KnownKeys::open(root.path(), &[named(1)]),
            Err(WitnessError::Damaged { .. })
        ));
    }
}
