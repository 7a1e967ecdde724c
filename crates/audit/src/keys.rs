//! Ed25519 keys of the log and their files. Secrets appear in no error, no Debug and no log line.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Serialize, Serializer};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::hash::Hash;
use crate::head::Head;
use crate::hex::{self, HexError};
use crate::signed_head::SignedHead;

const SIGNING_LABEL: &str = "bre-audit-signing-key-1";
pub const VERIFYING_LABEL: &str = "bre-audit-verifying-key-1";

#[derive(Debug, Error)]
pub enum KeyError {
    #[error("the key file {path} cannot be read or written: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "the key file {path} exists already; a key is never overwritten. Move it away to make a new one"
    )]
    Exists { path: PathBuf },
    #[error("the key file {0}")]
    Secret(#[from] secrets::SecretFileError),
    #[error(
        "{path} is not a file of the kind '{label}' (one line: the kind, a space, 64 hex digits)"
    )]
    NotAKey { path: PathBuf, label: &'static str },
    #[error("these bytes are not an Ed25519 key")]
    Rejected,
    #[error("the system gave no randomness for a new key")]
    Randomness,
}

/// The first 8 bytes of SHA-256 of the public key.
#[derive(Clone, Copy, PartialEq, Eq, std::hash::Hash)]
pub struct KeyId([u8; 8]);

impl KeyId {
    pub const fn from_bytes(bytes: [u8; 8]) -> KeyId {
        KeyId(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }

    fn of(public: &[u8; 32]) -> KeyId {
        let mut id = [0; 8];
        id.copy_from_slice(&Hash::of(&[public]).as_bytes()[..8]);
        KeyId(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for KeyId {
    type Err = HexError;

    fn from_str(text: &str) -> Result<KeyId, HexError> {
        hex::decode_array(text).map(KeyId)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The private half: signs heads and epoch openings.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: VerifyingKey,
}

impl SigningKey {
    pub fn generate() -> Result<SigningKey, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Randomness)?;
        SigningKey::from_pair(pair)
    }

    pub fn from_seed(seed: &[u8; 32]) -> Result<SigningKey, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Rejected)?;
        SigningKey::from_pair(pair)
    }

    fn from_pair(pair: Ed25519KeyPair) -> Result<SigningKey, KeyError> {
        let public = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| KeyError::Rejected)?;
        let public = VerifyingKey::from_bytes(public);
        Ok(SigningKey { pair, public })
    }

    /// A new key in a new file of mode 0600, on disk when this returns.
    pub fn create(path: impl AsRef<Path>) -> Result<SigningKey, KeyError> {
        let key = SigningKey::generate()?;
        let seed = key.pair.seed().map_err(|_| KeyError::Rejected)?;
        let seed: Curve25519SeedBin<'static> =
            seed.as_be_bytes().map_err(|_| KeyError::Rejected)?;
        let text = Zeroizing::new(hex::encode(seed.as_ref()));
        write_new(path.as_ref(), SIGNING_LABEL, &text, 0o600)?;
        Ok(key)
    }

    /// Reads a key file; one that others can reach is refused.
    pub fn load(path: impl AsRef<Path>) -> Result<SigningKey, KeyError> {
        let path = path.as_ref();
        let bytes = secrets::read(path)?;
        let seed = Zeroizing::new(read_key(&mut &bytes[..], path, SIGNING_LABEL)?);
        SigningKey::from_seed(&seed)
    }

    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.public
    }

    pub fn key_id(&self) -> KeyId {
        self.public.id
    }

    pub fn sign(&self, head: &Head) -> SignedHead {
        let payload = head.payload(self.key_id());
        let signature = self.sign_bytes(&payload);
        SignedHead::from_parts(head.clone(), self.key_id(), payload, signature)
    }

    /// A secret that only who holds this key can make, the same every time, one for each purpose. Says nothing of the
    /// key itself.
    pub fn secret_for(&self, purpose: &str) -> [u8; 32] {
        // No head, entry or proof begins like this: nothing that is published is a signature of it.
        let signature = self.sign_bytes(format!("bre secret for {purpose}").as_bytes());
        let mut secret = [0; 32];
        secret.copy_from_slice(
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &signature).as_ref(),
        );
        secret
    }

    pub(crate) fn sign_bytes(&self, bytes: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(bytes).as_ref());
        signature
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey(id {})", self.public.id)
    }
}

/// Beyond every place in a log.
pub(crate) const NEVER: (u32, u64) = (u32::MAX, u64::MAX);

/// The place in a log that a signature is about. A revoked key counts to the place where it ends, so each reader says
/// which place that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedPlace {
    /// The log of that epoch and size, or the entry there.
    Log { epoch: u32, position: u64 },
    /// A tree of an origin, which names no epoch but the one that began it: its own is that one or a later one.
    Tree { began: u32, size: u64 },
    /// None: a statement about keys, whose worth [`crate::trust`] decides, and what a witness signs.
    Nowhere,
}

/// Why a signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    UnknownKey,
    False,
    /// It is the key's, which ends at that epoch and position or before.
    Revoked((u32, u64)),
}

/// Whether the trusted key of that id signed these bytes, and counts at that place. Every signature by a key of the
/// log, and by a witness, is accepted here or nowhere: heads and their links, openings, thinnings, checkpoints,
/// statements.
pub(crate) fn accept(
    keys: &[VerifyingKey],
    id: KeyId,
    bytes: &[u8],
    signature: &[u8; 64],
    place: SignedPlace,
) -> Result<(), Refusal> {
    let key = keys.iter().find(|key| key.key_id() == id);
    key.ok_or(Refusal::UnknownKey)?
        .accept(bytes, signature, place)
}

/// The public half: no secret, but whoever verifies must have it from a place that the writer's host does not rule.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifyingKey {
    bytes: [u8; 32],
    id: KeyId,
    /// It vouches for nothing at or above this epoch and position: it was revoked from there on.
    until: (u32, u64),
}

impl VerifyingKey {
    pub fn from_bytes(bytes: [u8; 32]) -> VerifyingKey {
        let id = KeyId::of(&bytes);
        let until = NEVER;
        VerifyingKey { bytes, id, until }
    }

    /// The same key, revoked from that epoch and position on; of several revocations the earliest counts.
    #[must_use]
    pub fn until(mut self, epoch: u32, position: u64) -> VerifyingKey {
        self.until = self.until.min((epoch, position));
        self
    }

    /// The same key, as if it had not been revoked.
    #[must_use]
    pub fn for_ever(self) -> VerifyingKey {
        VerifyingKey::from_bytes(self.bytes)
    }

    /// Whether its signature counts there. Epochs come first: what a recovery left behind was signed before. Of a tree
    /// neither the epoch that began it nor its size may be beyond the end: its own epoch is not known.
    fn vouches_for(&self, place: SignedPlace) -> bool {
        match place {
            SignedPlace::Log { epoch, position } => (epoch, position) < self.until,
            SignedPlace::Tree { began, size } => began <= self.until.0 && size < self.until.1,
            SignedPlace::Nowhere => true,
        }
    }

    /// [`accept`] with this key alone.
    pub(crate) fn accept(
        &self,
        bytes: &[u8],
        signature: &[u8; 64],
        place: SignedPlace,
    ) -> Result<(), Refusal> {
        let is_signed = UnparsedPublicKey::new(&ED25519, &self.bytes)
            .verify(bytes, signature)
            .is_ok();
        match (is_signed, self.vouches_for(place)) {
            (false, _) => Err(Refusal::False),
            (true, false) => Err(Refusal::Revoked(self.until)),
            (true, true) => Ok(()),
        }
    }

    /// The first place that it does not vouch for.
    pub(crate) fn end(&self) -> (u32, u64) {
        self.until
    }

    /// From which epoch and position on it is revoked.
    pub fn revoked_from(&self) -> Option<(u32, u64)> {
        (self.until < NEVER).then_some(self.until)
    }

    /// Whether the two are one key, revoked or not.
    pub fn is_same(&self, other: &VerifyingKey) -> bool {
        self.bytes == other.bytes
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    pub fn key_id(&self) -> KeyId {
        self.id
    }

    /// Writes a new file of mode 0644, on disk when this returns.
    pub fn create(&self, path: impl AsRef<Path>) -> Result<(), KeyError> {
        write_new(
            path.as_ref(),
            VERIFYING_LABEL,
            &hex::encode(&self.bytes),
            0o644,
        )
    }

    pub fn load(path: impl AsRef<Path>) -> Result<VerifyingKey, KeyError> {
        let path = path.as_ref();
        let mut file = File::open(path).map_err(|e| io_error(path, e))?;
        read_key(&mut file, path, VERIFYING_LABEL).map(VerifyingKey::from_bytes)
    }

    /// Checks the signature and hands out what it covers.
    pub fn verify(&self, signed: &SignedHead) -> Result<Head, crate::HeadError> {
        signed.verify(std::slice::from_ref(self))
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey(id {})", self.id)
    }
}

fn io_error(path: &Path, source: io::Error) -> KeyError {
    let path = path.to_owned();
    KeyError::Io { path, source }
}

/// Temporary file, fsync, hard link (which refuses an existing name), fsync of the folder: the name never shows half a
/// key.
fn write_new(path: &Path, label: &str, digits: &str, mode: u32) -> Result<(), KeyError> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.new", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let line = Zeroizing::new(format!("{label} {digits}\n"));
    let written = write_synced(&temporary, line.as_bytes(), mode)
        .and_then(|()| fs::hard_link(&temporary, path));
    let removed = fs::remove_file(&temporary);
    match written
        .and(removed)
        .and_then(|()| File::open(folder)?.sync_all())
    {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(KeyError::Exists {
            path: path.to_owned(),
        }),
        Err(e) => Err(io_error(path, e)),
    }
}

fn write_synced(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn read_key(file: &mut impl Read, path: &Path, label: &'static str) -> Result<[u8; 32], KeyError> {
    let mut text = Zeroizing::new(String::new());
    let not_a_key = || KeyError::NotAKey {
        path: path.to_owned(),
        label,
    };
    match file.take(256).read_to_string(&mut text) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::InvalidData => return Err(not_a_key()),
        Err(e) => return Err(io_error(path, e)),
    }
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let digits = line
        .strip_prefix(label)
        .and_then(|rest| rest.strip_prefix(' '));
    digits
        .and_then(|digits| hex::decode_array(digits).ok())
        .ok_or_else(not_a_key)
}
