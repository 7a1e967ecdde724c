//! Heads for outsiders: the size and root of a tree under the name of its log (C2SP tlog-checkpoint;
//! `docs/formats/audit_transparency.md` §2, §3).

use std::fmt;

use crate::hash::Hash;
use crate::keys::{SigningKey, VerifyingKey};
use crate::note::{Note, NoteError, NoteKey, SignatureKind, decode_hash, encode, is_name};
use crate::opening::EpochRecord;

const LEFT_BEHIND: &str = "left-behind ";

/// What the text of a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub origin: String,
    pub size: u64,
    pub root: Hash,
    /// Lines after the root.
    pub extensions: Vec<String>,
}

/// The name of one of our trees: `<name>/log-<n>/<k>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    pub name: String,
    pub log: u16,
    /// The epoch whose opening began it; 1: the log's beginning.
    pub began: u32,
}

/// What a new origin says of the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftBehind {
    pub origin: String,
    pub size: u64,
    /// `None`: the head itself is lost.
    pub root: Option<Hash>,
}

/// Whether that may be the first part of our origins.
pub fn is_origin_name(name: &str) -> bool {
    let allowed =
        |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'/' | b':');
    (1..=128).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('/')
        && !name.ends_with('/')
        && !name.contains("//")
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Origin::all(&self.name, self.log), self.began)
    }
}

impl Origin {
    /// What the origins of one log have in common, and what its keys are named by.
    pub fn all(name: &str, log: u16) -> String {
        format!("{name}/log-{log}")
    }

    /// The epoch that began the origin which the openings of a log lead to.
    pub fn began_by(openings: &[EpochRecord]) -> u32 {
        let mut began = 1;
        let mut epoch = 1;
        for opening in openings {
            let left = |head: &crate::LostHead| {
                head.size > 0 && (head.size > opening.recovered_size || head.epoch > epoch)
            };
            // A log that begins again from its first entry is another tree, whatever is known of the one before.
            if opening.position == 1 || opening.old_heads.iter().any(left) {
                began = opening.epoch;
            }
            epoch = opening.epoch;
        }
        began
    }
}

impl fmt::Display for LeftBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = match self.root {
            Some(root) => encode(root.as_bytes()),
            None => "unknown".to_owned(),
        };
        write!(f, "{LEFT_BEHIND}{} {} {root}", self.origin, self.size)
    }
}

impl LeftBehind {
    fn parse(line: &str) -> Option<Result<LeftBehind, NoteError>> {
        let rest = line.strip_prefix(LEFT_BEHIND)?;
        let parse = || {
            let mut parts = rest.split(' ');
            let (origin, size, root) = (parts.next()?, parts.next()?, parts.next()?);
            let left = LeftBehind {
                origin: origin.to_owned(),
                size: whole(size)?,
                root: match root {
                    "unknown" => None,
                    root => Some(decode_hash(root)?),
                },
            };
            (is_name(origin) && parts.next().is_none()).then_some(left)
        };
        Some(parse().ok_or(NoteError::Checkpoint(
            "its line left-behind is not: origin, size, root",
        )))
    }
}

impl Checkpoint {
    /// The text that is signed.
    pub fn text(&self) -> String {
        let root = encode(self.root.as_bytes());
        let mut text = format!("{}\n{}\n{root}\n", self.origin, self.size);
        for line in &self.extensions {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// What a note says, not verified.
    pub fn read(note: &Note) -> Result<Checkpoint, NoteError> {
        let wrong = NoteError::Checkpoint;
        let mut lines = note.text().split_terminator('\n');
        let origin = lines.next().filter(|origin| !origin.is_empty());
        let origin = origin.ok_or(wrong("it has no origin"))?;
        let size = lines.next().and_then(whole);
        let size = size.ok_or(wrong("its size is not a whole number"))?;
        if size == 0 || i64::try_from(size).is_err() {
            return Err(wrong("its size is not from 1 to 2^63-1"));
        }
        let root = lines.next().and_then(decode_hash);
        let root = root.ok_or(wrong("its root is not 32 bytes in base64"))?;
        let extensions: Vec<String> = lines.map(ToOwned::to_owned).collect();
        if extensions.iter().any(String::is_empty) {
            return Err(wrong("it has an empty line"));
        }
        Ok(Checkpoint {
            origin: origin.to_owned(),
            size,
            root,
            extensions,
        })
    }

    /// What the origin says of the one before, when it says something.
    pub fn left_behind(&self) -> Result<Option<LeftBehind>, NoteError> {
        let mut said = self
            .extensions
            .iter()
            .filter_map(|line| LeftBehind::parse(line));
        let first = said.next().transpose()?;
        match said.next() {
            None => Ok(first),
            Some(_) => Err(NoteError::Checkpoint("it has two lines left-behind")),
        }
    }

    /// Signed by the log: the key's name is the origin.
    pub fn sign(&self, key: &SigningKey) -> Result<Note, NoteError> {
        key.sign_note(&self.origin, self.text())
    }

    /// What a note says that one of these keys of its log signed.
    pub fn verify(note: &Note, keys: &[VerifyingKey]) -> Result<Checkpoint, NoteError> {
        let checkpoint = Checkpoint::read(note)?;
        let mut signed = false;
        // A checkpoint does not say its epoch.
        let vouches = |key: &&VerifyingKey| {
            key.revoked_from()
                .is_none_or(|(_, position)| checkpoint.size < position)
        };
        for key in keys.iter().filter(vouches) {
            let key = NoteKey::new(&checkpoint.origin, SignatureKind::Plain, key.clone())?;
            signed |= key.signed(note)?.is_some();
        }
        match signed {
            true => Ok(checkpoint),
            false => Err(NoteError::Unsigned),
        }
    }
}

/// A number in its only decimal form.
pub(crate) fn whole(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}
