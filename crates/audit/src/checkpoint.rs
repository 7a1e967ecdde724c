//! Heads for outsiders: the size and root of a tree under the name of its log (C2SP tlog-checkpoint;
//! `docs/formats/audit_transparency.md` §2, §3).

use std::fmt;

use crate::hash::Hash;
use crate::keys::{SignedPlace, SigningKey, VerifyingKey};
use crate::note::{
    Note, NoteError, NoteKey, SignatureKind, ValidSignature, decode_hash, encode, is_name,
};
use crate::opening::EpochRecord;

const LEFT_BEHIND: &str = "left-behind ";
const BEGINS_BEHIND: &str = "begins-behind ";

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
            // A log that begins again from its first entry is another tree. So is one whose entries are gone with
            // their hashes: its tree cannot be continued.
            let is_other = opening.position == 1 || !opening.missing_entries.is_empty();
            if is_other || opening.old_heads.iter().any(left) {
                began = opening.epoch;
            }
            epoch = opening.epoch;
        }
        began
    }

    /// The position behind which the tree of the newest origin begins: the last one that an opening names as gone.
    pub fn begins_behind(openings: &[EpochRecord]) -> u64 {
        let missing = openings.iter().flat_map(|it| &it.missing_entries);
        missing.map(|stretch| stretch.to).max().unwrap_or(0)
    }
}

/// The extension line of an origin whose tree does not begin with the log.
pub fn begins_behind_line(position: u64) -> Option<String> {
    (position > 0).then(|| format!("{BEGINS_BEHIND}{position}"))
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

    /// The position of the last entry before its tree: leaf *i* is the hash of the entry *i* + 1 places behind it.
    pub fn begins_behind(&self) -> Result<u64, NoteError> {
        let mut said = self
            .extensions
            .iter()
            .filter_map(|line| line.strip_prefix(BEGINS_BEHIND));
        match (said.next(), said.next()) {
            (None, _) => Ok(0),
            (Some(position), None) => whole(position).ok_or(NoteError::Checkpoint(
                "its line begins-behind is not: position",
            )),
            (Some(_), Some(_)) => Err(NoteError::Checkpoint("it has two lines begins-behind")),
        }
    }

    /// Signed by the log: the key's name is the origin.
    pub fn sign(&self, key: &SigningKey) -> Result<Note, NoteError> {
        key.sign_note(&self.origin, self.text())
    }

    /// What a note says that one of these keys of its log signed.
    pub fn verify(note: &Note, keys: &[VerifyingKey]) -> Result<Checkpoint, NoteError> {
        let checkpoint = Checkpoint::read(note)?;
        let (_, began) = checkpoint.origin.rsplit_once('/').unwrap_or_default();
        let began = whole(began).and_then(|began| u32::try_from(began).ok());
        let place = SignedPlace::Tree {
            began: began.unwrap_or(1),
            size: checkpoint.size,
        };
        Checkpoint::verify_at(note, keys, place)
    }

    /// The same of one that has to be of this origin and cosigned by this witness, and when he signed. A cosignature is
    /// over the whole text: one that was made for another origin is none for this.
    pub fn verify_cosigned(
        note: &Note,
        origin: &str,
        keys: &[VerifyingKey],
        witness: &NoteKey,
    ) -> Result<(Checkpoint, ValidSignature), NoteError> {
        let checkpoint = Checkpoint::verify(note, keys)?;
        if checkpoint.origin != origin {
            return Err(NoteError::OtherOrigin {
                found: checkpoint.origin,
                wanted: origin.to_owned(),
            });
        }
        let signed = witness.signed(note, SignedPlace::Nowhere)?;
        let signed = signed.filter(|_| witness.kind() == SignatureKind::Cosignature);
        signed
            .map(|signed| (checkpoint, signed))
            .ok_or(NoteError::Unsigned)
    }

    /// The same for somebody who knows more of its place than the checkpoint says.
    pub fn verify_at(
        note: &Note,
        keys: &[VerifyingKey],
        place: SignedPlace,
    ) -> Result<Checkpoint, NoteError> {
        let checkpoint = Checkpoint::read(note)?;
        let mut found = Err(NoteError::Unsigned);
        for key in keys {
            let key = NoteKey::new(&checkpoint.origin, SignatureKind::Plain, key.clone())?;
            match key.signed(note, place) {
                Ok(None) => {}
                Ok(Some(_)) => found = Ok(()),
                // One that still counts signed it too.
                Err(NoteError::Revoked { .. }) if found.is_ok() => {}
                Err(revoked @ NoteError::Revoked { .. }) => found = Err(revoked),
                Err(error) => return Err(error),
            }
        }
        found.map(|()| checkpoint)
    }
}

/// A number in its only decimal form.
pub(crate) fn whole(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}
