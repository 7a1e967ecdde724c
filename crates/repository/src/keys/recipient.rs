//! What the rest of the repository holds of its recipients: the writing half ([`RecipientPublic`]), to whom every new data key is sealed, and
//! the reading half ([`RecipientPrivate`]), which opens wraps with whatever keys are at hand.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::files;
use super::pair::{PairPrivate, PairPublic};
use super::provider::{UnwrapKeys, WrapKeys};
use super::wrap::WrapHeader;
use crate::error::Result;

/// One recipient, or several: every data key is sealed to all of them. The first is the one by whose id writers are known; further ones are
/// kept against the day when the first cannot be used.
#[derive(Clone)]
pub struct RecipientPublic {
    first: Arc<dyn WrapKeys>,
    also: Vec<Arc<dyn WrapKeys>>,
}

/// Whoever can open. The first key is the mirror of a [`RecipientPublic`]; the others are asked where it has no wrap, or cannot be used.
#[derive(Clone)]
pub struct RecipientPrivate {
    public: RecipientPublic,
    first: Arc<dyn UnwrapKeys>,
    also: Vec<Arc<dyn UnwrapKeys>>,
    /// What its file says: a secret of ours, or where a provider keeps it.
    line: Zeroizing<String>,
}

impl RecipientPublic {
    /// A key pair of ours.
    pub fn load(path: &Path) -> Result<Self> {
        Ok(Self::of(Arc::new(PairPublic::load(path)?)))
    }

    /// A key of any provider.
    #[must_use]
    pub fn of(first: Arc<dyn WrapKeys>) -> Self {
        Self {
            first,
            also: Vec::new(),
        }
    }

    /// Seals to those recipients too.
    #[must_use]
    pub fn and(mut self, others: &Self) -> Self {
        for other in others.all() {
            if !self.ids().contains(&other.recipient_id()) {
                self.also.push(Arc::clone(other));
            }
        }
        self
    }

    /// Writes a new file; refuses to replace one.
    pub fn store(&self, path: &Path) -> Result<()> {
        files::store(path, &self.first.line(), 0o644)
    }

    /// 32 hex digits that name this recipient in `wraps/`.
    #[must_use]
    pub fn id(&self) -> String {
        self.first.recipient_id()
    }

    /// Of all its recipients.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.all().map(|one| one.recipient_id()).collect()
    }

    /// What a person calls the first key: a provider's name of it, or the id of a pair of ours.
    #[must_use]
    pub fn name(&self) -> String {
        self.first.name()
    }

    pub(super) fn first(&self) -> &dyn WrapKeys {
        &*self.first
    }

    pub(super) fn also(&self) -> impl Iterator<Item = &dyn WrapKeys> {
        self.also.iter().map(|one| &**one)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<dyn WrapKeys>> {
        std::iter::once(&self.first).chain(&self.also)
    }
}

impl PartialEq for RecipientPublic {
    fn eq(&self, other: &Self) -> bool {
        self.ids() == other.ids()
    }
}

impl Eq for RecipientPublic {}

impl RecipientPrivate {
    /// A new key pair of ours.
    pub fn generate() -> Result<Self> {
        Ok(Self::of_pair(PairPrivate::generate()?))
    }

    /// A key pair of ours.
    pub fn load(path: &Path) -> Result<Self> {
        Ok(Self::of_pair(PairPrivate::load(path)?))
    }

    fn of_pair(pair: PairPrivate) -> Self {
        Self {
            public: RecipientPublic::of(Arc::new(pair.public().clone())),
            line: pair.line(),
            first: Arc::new(pair),
            also: Vec::new(),
        }
    }

    /// A key of any provider; its line says where to find it and holds no secret.
    #[must_use]
    pub fn of<K: WrapKeys + UnwrapKeys + 'static>(key: Arc<K>) -> Self {
        Self {
            line: Zeroizing::new(key.line()),
            public: RecipientPublic::of(Arc::clone(&key) as Arc<dyn WrapKeys>),
            first: key,
            also: Vec::new(),
        }
    }

    /// Opens with those keys too.
    #[must_use]
    pub fn and(mut self, others: &Self) -> Self {
        self.also.extend(others.all().cloned());
        self
    }

    /// Writes a new file (mode 0600); refuses to replace one.
    pub fn store(&self, path: &Path) -> Result<()> {
        files::store(path, &self.line, 0o600)
    }

    #[must_use]
    pub fn public(&self) -> &RecipientPublic {
        &self.public
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<dyn UnwrapKeys>> {
        std::iter::once(&self.first).chain(&self.also)
    }

    /// The key to try a wrap with: the one that it was sealed to, or one of the same provider.
    pub(crate) fn opener(&self, wrap: &WrapHeader) -> Option<&dyn UnwrapKeys> {
        let own = self
            .all()
            .find(|key| key.recipient_id() == wrap.recipient_id && key.opens(wrap));
        own.or_else(|| self.all().find(|key| key.opens(wrap)))
            .map(|key| &**key)
    }
}

impl fmt::Debug for RecipientPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecipientPublic({})", self.ids().join(", "))
    }
}

impl fmt::Debug for RecipientPrivate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecipientPrivate({}, ..)", self.public.id())
    }
}
