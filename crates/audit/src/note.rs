//! Signed notes (C2SP signed-note, tlog-cosignature): a text and the signatures under it. How they are used here:
//! `docs/formats/audit_transparency.md` §3.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use crate::hash::Hash;
use crate::hex;
use crate::keys::{KeyId, Refusal, SignedPlace, SigningKey, VerifyingKey};

/// Longest note that is read, in bytes.
pub const NOTE_BYTES_MAX: usize = 64 << 10;
/// Most signature lines of a note that is read.
pub(crate) const SIGNATURES_MAX: usize = 64;

const DASH: &str = "\u{2014} ";

/// A text that ends with a line end, and who signed it. Reading one proves nothing: ask a [`NoteKey`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

/// One line below the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    name: String,
    id: NoteKeyId,
    bytes: Vec<u8>,
}

/// The first 4 bytes of SHA-256 over name, kind and key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, std::hash::Hash)]
pub struct NoteKeyId([u8; 4]);

impl fmt::Display for NoteKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for NoteKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a key's signature is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureKind {
    /// The text.
    Plain,
    /// A time and the text: a witness says what it saw, and when.
    Cosignature,
}

impl SignatureKind {
    fn byte(self) -> u8 {
        match self {
            SignatureKind::Plain => 1,
            SignatureKind::Cosignature => 4,
        }
    }
}

#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum NoteError {
    #[error("this is not a signed note: {0}")]
    Form(&'static str),
    #[error("this is not a checkpoint: {0}")]
    Checkpoint(&'static str),
    #[error("{0:?} is not a name of a key or an origin: without spaces and '+', and not empty")]
    Name(String),
    #[error(
        "{0:?} is not a verifier key (NAME+8 hex digits+base64) of an Ed25519 key or an Ed25519 cosigner"
    )]
    VerifierKey(String),
    #[error("the signature by {name} (key {id}) is false")]
    False { name: String, id: NoteKeyId },
    #[error("no trusted key signed it")]
    Unsigned,
    #[error("it is a checkpoint of {found}, and not of {wanted}")]
    OtherOrigin { found: String, wanted: String },
    #[error(
        "it is signed by key {key_id}, which is revoked from epoch {}, position {} on", from.0, from.1
    )]
    Revoked { key_id: KeyId, from: (u32, u64) },
}

/// A public key with the name that it signs notes under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteKey {
    name: String,
    kind: SignatureKind,
    key: VerifyingKey,
}

impl NoteKey {
    pub fn new(
        name: impl Into<String>,
        kind: SignatureKind,
        key: VerifyingKey,
    ) -> Result<NoteKey, NoteError> {
        let name = name.into();
        match is_name(&name) {
            true => Ok(NoteKey { name, kind, key }),
            false => Err(NoteError::Name(name)),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn kind(&self) -> SignatureKind {
        self.kind
    }

    pub fn key(&self) -> &VerifyingKey {
        &self.key
    }

    pub fn id(&self) -> NoteKeyId {
        let kind = [self.kind.byte()];
        let hash = Hash::of(&[self.name.as_bytes(), b"\n", &kind, self.key.as_bytes()]);
        let mut id = [0; 4];
        id.copy_from_slice(&hash.as_bytes()[..4]);
        NoteKeyId(id)
    }

    /// Whether it signed the note, which is about that place; of a cosigner, when, in seconds since 1970. A false
    /// signature under its name and id is an error, and so is one by a key that had ended there.
    pub fn signed(
        &self,
        note: &Note,
        place: SignedPlace,
    ) -> Result<Option<ValidSignature>, NoteError> {
        let id = self.id();
        let mut ours = note
            .signatures
            .iter()
            .filter(|line| line.name == self.name && line.id == id)
            .peekable();
        if ours.peek().is_none() {
            return Ok(None);
        }
        let mut newest = None;
        for line in ours {
            let signed = self.check(&note.text, &line.bytes, place);
            let signed = signed.map_err(|refusal| match refusal {
                Refusal::Revoked(from) => NoteError::Revoked {
                    key_id: self.key.key_id(),
                    from,
                },
                Refusal::UnknownKey | Refusal::False => NoteError::False {
                    name: self.name.clone(),
                    id,
                },
            })?;
            newest = newest.max(Some(signed));
        }
        Ok(newest)
    }

    fn check(
        &self,
        text: &str,
        bytes: &[u8],
        place: SignedPlace,
    ) -> Result<ValidSignature, Refusal> {
        match self.kind {
            SignatureKind::Plain => {
                let signature = bytes.try_into().map_err(|_| Refusal::False)?;
                self.key.accept(text.as_bytes(), signature, place)?;
                Ok(ValidSignature { at_seconds: None })
            }
            SignatureKind::Cosignature => {
                let (time, signature) = bytes.split_at_checked(8).ok_or(Refusal::False)?;
                let time = time.try_into().map_err(|_| Refusal::False)?;
                let signature = signature.try_into().map_err(|_| Refusal::False)?;
                let at = u64::from_be_bytes(time);
                let at_seconds = i64::try_from(at).map_err(|_| Refusal::False)?;
                self.key
                    .accept(cosigned(at, text).as_bytes(), signature, place)?;
                Ok(ValidSignature {
                    at_seconds: Some(at_seconds),
                })
            }
        }
    }
}

/// A signature that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ValidSignature {
    /// Of a cosigner.
    pub at_seconds: Option<i64>,
}

/// `NAME+8 hex digits+base64(kind, public key)`.
impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[self.kind.byte()], self.key.as_bytes().as_slice()].concat();
        write!(f, "{}+{}+{}", self.name, self.id(), encode(&key))
    }
}

impl FromStr for NoteKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<NoteKey, NoteError> {
        let parse = || {
            let (name, rest) = text.split_once('+')?;
            let (id, key) = rest.split_once('+')?;
            let (kind, bytes) = decode(key)?.split_first().map(|(k, b)| (*k, b.to_vec()))?;
            let kind = match kind {
                1 => SignatureKind::Plain,
                4 => SignatureKind::Cosignature,
                _ => return None,
            };
            let key = VerifyingKey::from_bytes(bytes.try_into().ok()?);
            let key = NoteKey::new(name, kind, key).ok()?;
            (key.id().to_string() == id).then_some(key)
        };
        parse().ok_or_else(|| NoteError::VerifierKey(text.to_owned()))
    }
}

impl SigningKey {
    /// Signs a text as `name`.
    pub fn sign_note(&self, name: &str, text: String) -> Result<Note, NoteError> {
        let mut note = Note {
            text,
            signatures: Vec::new(),
        };
        if !is_text(&note.text) {
            return Err(NoteError::Form(
                "a text ends with a line end and has no control characters",
            ));
        }
        self.sign_too(name, &mut note)?;
        Ok(note)
    }

    /// Adds its signature to a note.
    pub fn sign_too(&self, name: &str, note: &mut Note) -> Result<(), NoteError> {
        let key = NoteKey::new(name, SignatureKind::Plain, self.verifying_key().clone())?;
        note.signatures.push(NoteSignature {
            id: key.id(),
            name: key.name,
            bytes: self.sign_bytes(note.text.as_bytes()).to_vec(),
        });
        Ok(())
    }

    /// The signature of a witness named `name`, who saw this text's tree at that moment.
    pub fn cosign(
        &self,
        name: &str,
        note: &Note,
        at_seconds: u64,
    ) -> Result<NoteSignature, NoteError> {
        let key = NoteKey::new(
            name,
            SignatureKind::Cosignature,
            self.verifying_key().clone(),
        )?;
        let signature = self.sign_bytes(cosigned(at_seconds, &note.text).as_bytes());
        Ok(NoteSignature {
            id: key.id(),
            name: key.name,
            bytes: [at_seconds.to_be_bytes().as_slice(), &signature].concat(),
        })
    }
}

fn cosigned(at_seconds: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {at_seconds}\n{text}")
}

impl Note {
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// With one more line, unless the very line is there.
    pub fn add(&mut self, signature: NoteSignature) {
        if !self.signatures.contains(&signature) {
            self.signatures.push(signature);
        }
    }

    /// With the given lines alone.
    #[must_use]
    pub fn with_signatures(&self, signatures: Vec<NoteSignature>) -> Note {
        Note {
            text: self.text.clone(),
            signatures,
        }
    }

    pub fn parse(bytes: &[u8]) -> Result<Note, NoteError> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(NoteError::Form("it is longer than 64 KiB"));
        }
        let whole = str::from_utf8(bytes).map_err(|_| NoteError::Form("it is no UTF-8"))?;
        if !is_text(whole) {
            return Err(NoteError::Form(
                "it has control characters, or does not end with a line end",
            ));
        }
        // The last empty line divides.
        let (text, lines) = whole
            .rsplit_once("\n\n")
            .ok_or(NoteError::Form("no empty line divides text and signatures"))?;
        let signatures = lines
            .split_terminator('\n')
            .map(NoteSignature::parse)
            .collect::<Result<Vec<_>, _>>()?;
        match signatures.len() {
            0 => Err(NoteError::Form("it has no signature")),
            1..=SIGNATURES_MAX => Ok(Note {
                text: format!("{text}\n"),
                signatures,
            }),
            _ => Err(NoteError::Form("it has more than 64 signatures")),
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let lines: String = self.signatures.iter().map(ToString::to_string).collect();
        format!("{}\n{lines}", self.text).into_bytes()
    }
}

impl NoteSignature {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn id(&self) -> NoteKeyId {
        self.id
    }

    /// A line without its line end.
    pub fn parse(line: &str) -> Result<NoteSignature, NoteError> {
        let parse = || {
            let (name, bytes) = line.strip_prefix(DASH)?.split_once(' ')?;
            let bytes = decode(bytes)?;
            let (id, rest) = bytes.split_at_checked(4)?;
            let id = NoteKeyId(id.try_into().ok()?);
            (is_name(name) && !rest.is_empty()).then(|| NoteSignature {
                name: name.to_owned(),
                id,
                bytes: rest.to_vec(),
            })
        };
        parse().ok_or(NoteError::Form(
            "a signature line is not: em dash, name, base64 of key id and signature",
        ))
    }
}

/// With its line end.
impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.id.0.as_slice(), &self.bytes].concat();
        writeln!(f, "{DASH}{} {}", self.name, encode(&bytes))
    }
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// In the one form that the bytes have.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let bytes = STANDARD.decode(text).ok()?;
    (STANDARD.encode(&bytes) == text).then_some(bytes)
}

pub(crate) fn decode_hash(text: &str) -> Option<Hash> {
    let bytes: [u8; 32] = decode(text)?.try_into().ok()?;
    Some(Hash::from_bytes(bytes))
}

pub(crate) fn is_name(name: &str) -> bool {
    let wrong = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    !name.is_empty() && !name.contains(wrong)
}

fn is_text(text: &str) -> bool {
    text.ends_with('\n') && !text.bytes().any(|byte| byte < 0x20 && byte != b'\n')
}
