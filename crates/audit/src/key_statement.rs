//! How the log's signing key is replaced and revoked, and which keys a verifier then trusts
//! (`docs/formats/audit_transparency.md` §6).

use std::fmt;

use thiserror::Error;

use crate::checkpoint::whole;
use crate::hash::Hash;
use crate::hex;
use crate::keys::{KeyId, NEVER, SignedPlace, SigningKey, VerifyingKey};
use crate::note::{Note, NoteError, NoteKey, SignatureKind};

const ROTATION: &str = "bre-audit-key-rotation-1";
const REVOCATION: &str = "bre-audit-key-revocation-1";
/// The name that keys sign statements under.
const NAME: &str = "bre-audit-key";

/// One statement, its signatures checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStatement {
    pub log: u16,
    pub says: Says,
    pub at_micros: i64,
    note: Note,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    /// `old` vouches for `new`, when the log had `after` entries.
    Rotation {
        old: VerifyingKey,
        new: VerifyingKey,
        after: u64,
    },
    /// `key` ends: what it signs for a place at or above `from` (epoch, position) is refused.
    Revocation {
        key: VerifyingKey,
        by: VerifyingKey,
        from: (u32, u64),
    },
}

#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum StatementError {
    #[error("this is not a statement about a signing key: {0}")]
    Form(&'static str),
    #[error("it is not signed by key {0}, which it needs")]
    Unsigned(KeyId),
    #[error(transparent)]
    Note(#[from] NoteError),
    #[error(
        "key {old} vouches for two keys, {one} and {other}: one of them is a thief's. Trust the right one by its \
         file, and not the old one"
    )]
    Fork {
        old: KeyId,
        one: KeyId,
        other: KeyId,
    },
}

impl KeyStatement {
    /// The old key vouches for the new one, which shows that it is held.
    pub fn rotation(
        log: u16,
        old: &SigningKey,
        new: &SigningKey,
        after: u64,
        at_micros: i64,
    ) -> Result<KeyStatement, StatementError> {
        let says = Says::Rotation {
            old: old.verifying_key().clone(),
            new: new.verifying_key().clone(),
            after,
        };
        let mut note = old.sign_note(NAME, text(log, &says, at_micros))?;
        new.sign_too(NAME, &mut note)?;
        Ok(KeyStatement {
            log,
            says,
            at_micros,
            note,
        })
    }

    pub fn revocation(
        log: u16,
        key: &VerifyingKey,
        by: &SigningKey,
        from: (u32, u64),
        at_micros: i64,
    ) -> Result<KeyStatement, StatementError> {
        let says = Says::Revocation {
            key: key.clone().for_ever(),
            by: by.verifying_key().clone(),
            from,
        };
        let note = by.sign_note(NAME, text(log, &says, at_micros))?;
        Ok(KeyStatement {
            log,
            says,
            at_micros,
            note,
        })
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        self.note.to_bytes()
    }

    /// What its object is named by: the first 16 bytes of SHA-256, in hex.
    pub fn digest(&self) -> String {
        let hash = Hash::of(&[&self.to_bytes()]);
        hex::encode(&hash.as_bytes()[..16])
    }

    /// Whether one of these keys signed it for the others to follow.
    pub fn is_by(&self, keys: &[VerifyingKey]) -> bool {
        let signer = match &self.says {
            Says::Rotation { old, .. } => old,
            Says::Revocation { by, .. } => by,
        };
        keys.iter().any(|key| key.is_same(signer))
    }

    /// Reads one and checks that those signed it who have to. Whether they are trusted is [`trust`]'s affair.
    pub fn parse(bytes: &[u8]) -> Result<KeyStatement, StatementError> {
        let note = Note::parse(bytes)?;
        let form = StatementError::Form;
        let lines: Vec<&str> = note.text().split_terminator('\n').collect();
        let [kind, log, first, second, size, at] = lines.as_slice() else {
            return Err(form("it has not six lines"));
        };
        let (names, is_rotation) = match *kind {
            ROTATION => (["old", "new", "after"], true),
            REVOCATION => (["key", "by", "from"], false),
            _ => {
                return Err(form(
                    "its first line is neither a rotation's nor a revocation's",
                ));
            }
        };
        let number = |line: &str, name| field(line, name).and_then(whole);
        let key = |line: &str, name| {
            let bytes = hex::decode_array(field(line, name)?).ok()?;
            Some(VerifyingKey::from_bytes(bytes))
        };
        let log = number(log, "log").and_then(|log| u16::try_from(log).ok());
        let log = log.ok_or(form("its second line is not: log NUMBER"))?;
        let at_micros = number(at, "at").and_then(|at| i64::try_from(at).ok());
        let at_micros = at_micros.ok_or(form("its last line is not: at MICROSECONDS"))?;
        let keys = key(first, names[0]).zip(key(second, names[1]));
        let (first, second) = keys.ok_or(form("a key is not 64 hex digits"))?;
        let size = field(size, names[2]).ok_or(form("its fifth line has not the right name"))?;
        let numbers = form("its fifth line has not the numbers that it must have");
        let says = match is_rotation {
            true => Says::Rotation {
                old: first.clone(),
                new: second.clone(),
                after: whole(size).ok_or(numbers)?,
            },
            false => Says::Revocation {
                key: first.clone(),
                by: second.clone(),
                from: place(size).ok_or(numbers)?,
            },
        };
        let signers: &[&VerifyingKey] = match is_rotation {
            true => &[&first, &second],
            false => &[&second],
        };
        for signer in signers {
            let named = NoteKey::new(NAME, SignatureKind::Plain, (*signer).clone())?;
            if named.signed(&note, SignedPlace::Nowhere)?.is_none() {
                return Err(StatementError::Unsigned(signer.key_id()));
            }
        }
        Ok(KeyStatement {
            log,
            says,
            at_micros,
            note,
        })
    }
}

impl KeyStatement {
    /// The statements of a published `keys` file: verifier keys, then notes, empty lines between.
    pub fn parse_all(bytes: &[u8]) -> Result<Vec<KeyStatement>, StatementError> {
        let text = str::from_utf8(bytes).map_err(|_| StatementError::Form("it is no UTF-8"))?;
        let blocks: Vec<&str> = text.trim_end_matches('\n').split("\n\n").skip(1).collect();
        let note = |pair: &[&str]| match pair {
            [text, signatures] => {
                KeyStatement::parse(format!("{text}\n\n{signatures}\n").as_bytes())
            }
            _ => Err(StatementError::Form(
                "a text stands there without signatures",
            )),
        };
        blocks.chunks(2).map(note).collect()
    }
}

/// Epoch and position.
fn place(text: &str) -> Option<(u32, u64)> {
    let (epoch, position) = text.split_once(' ')?;
    Some((u32::try_from(whole(epoch)?).ok()?, whole(position)?))
}

fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.strip_prefix(name)?.strip_prefix(' ')
}

fn text(log: u16, says: &Says, at_micros: i64) -> String {
    let hex = |key: &VerifyingKey| hex::encode(key.as_bytes());
    let middle = match says {
        Says::Rotation { old, new, after } => format!(
            "{ROTATION}\nlog {log}\nold {}\nnew {}\nafter {after}",
            hex(old),
            hex(new)
        ),
        Says::Revocation { key, by, from } => format!(
            "{REVOCATION}\nlog {log}\nkey {}\nby {}\nfrom {} {}",
            hex(key),
            hex(by),
            from.0,
            from.1
        ),
    };
    format!("{middle}\nat {at_micros}\n")
}

impl fmt::Display for KeyStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.says {
            Says::Rotation { old, new, after } => write!(
                f,
                "key {} vouches for key {} (log {}, {after} entries then)",
                old.key_id(),
                new.key_id(),
                self.log
            ),
            Says::Revocation { key, by, from } => write!(
                f,
                "key {} ends at epoch {}, position {} of log {}, says key {}",
                key.key_id(),
                from.0,
                from.1,
                self.log,
                by.key_id()
            ),
        }
    }
}

/// The keys to verify a log with: those given, those that rotations lead to from them and those that they followed,
/// each as far as no revocation ends it. In the order in which they were found, the given ones first.
pub fn trust(
    log: u16,
    given: &[VerifyingKey],
    statements: &[KeyStatement],
) -> Result<Vec<VerifyingKey>, StatementError> {
    let statements: Vec<&KeyStatement> = statements.iter().filter(|s| s.log == log).collect();
    let rotations: Vec<(&VerifyingKey, &VerifyingKey)> = statements
        .iter()
        .filter_map(|statement| match &statement.says {
            Says::Rotation { old, new, .. } => Some((old, new)),
            Says::Revocation { .. } => None,
        })
        .collect();
    let mut trusted: Vec<VerifyingKey> = Vec::new();
    let add = |trusted: &mut Vec<VerifyingKey>, key: &VerifyingKey| {
        if !trusted.iter().any(|known| known.is_same(key)) {
            trusted.push(key.clone());
        }
    };
    given.iter().for_each(|key| add(&mut trusted, key));
    // Forward first: only these may introduce others.
    let mut at = 0;
    while let Some(old) = trusted.get(at).cloned() {
        let mut next: Option<&VerifyingKey> = None;
        for (_, new) in rotations.iter().filter(|(from, _)| from.is_same(&old)) {
            match next {
                Some(other) if !other.is_same(new) => {
                    return Err(StatementError::Fork {
                        old: old.key_id(),
                        one: other.key_id(),
                        other: new.key_id(),
                    });
                }
                _ => next = Some(new),
            }
        }
        next.into_iter().for_each(|new| add(&mut trusted, new));
        at += 1;
    }
    let in_charge = trusted.clone();
    let mut at = 0;
    while let Some(new) = trusted.get(at).cloned() {
        for (old, _) in rotations.iter().filter(|(_, to)| to.is_same(&new)) {
            add(&mut trusted, old);
        }
        at += 1;
    }
    for statement in &statements {
        if let Says::Revocation { key, by, from } = &statement.says
            && in_charge.iter().any(|known| known.is_same(by))
            && descends(by, key, &rotations)
            && let Some(ended) = trusted.iter_mut().find(|known| known.is_same(key))
        {
            *ended = ended.clone().until(from.0, from.1);
        }
    }
    end_predecessors(&mut trusted, &in_charge, &rotations);
    Ok(trusted)
}

/// The thief of a key that ended can make it the successor of another key. So one that is trusted as a predecessor
/// alone ends where the last of the keys ends that followed it.
fn end_predecessors(
    trusted: &mut [VerifyingKey],
    in_charge: &[VerifyingKey],
    rotations: &[(&VerifyingKey, &VerifyingKey)],
) {
    let at = |key: &VerifyingKey| trusted.iter().position(|known| known.is_same(key));
    let follows: Vec<(usize, usize)> = rotations
        .iter()
        .filter_map(|(old, new)| at(old).zip(at(new)))
        .collect();
    let is_in_charge = |key: &VerifyingKey| in_charge.iter().any(|one| one.is_same(key));
    let own: Vec<(u32, u64)> = trusted.iter().map(VerifyingKey::end).collect();
    // From nothing upward, as far as a key that is in charge lends it: a ring of keys lends itself nothing.
    let mut lent: Vec<(u32, u64)> = trusted
        .iter()
        .map(|key| if is_in_charge(key) { NEVER } else { (0, 0) })
        .collect();
    let mut changed = true;
    while changed {
        changed = false;
        for (old, new) in &follows {
            let lends = own[*new].min(lent[*new]);
            changed |= lends > lent[*old];
            lent[*old] = lent[*old].max(lends);
        }
    }
    for (key, (epoch, position)) in trusted.iter_mut().zip(lent) {
        *key = key.clone().until(epoch, position);
    }
}

/// Whether rotations lead from `old` to `key`.
fn descends(
    key: &VerifyingKey,
    old: &VerifyingKey,
    rotations: &[(&VerifyingKey, &VerifyingKey)],
) -> bool {
    let mut reached = vec![old];
    let mut at = 0;
    while let Some(from) = reached.get(at).copied() {
        for (_, new) in rotations.iter().filter(|(old, _)| old.is_same(from)) {
            if new.is_same(key) {
                return true;
            }
            if !reached.iter().any(|known| known.is_same(new)) {
                reached.push(new);
            }
        }
        at += 1;
    }
    false
}
