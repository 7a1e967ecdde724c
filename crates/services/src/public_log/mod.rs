//! The log for outsiders: checkpoints, hash tiles and cosignatures of witnesses (docs/formats/audit_transparency.md). Runs beside the
//! writer, behind it, and never in its way: it follows the heads that were published.
//!
//! Entry points: [`PublicLog::run`] follows, [`PublicLog::inclusion`] proves, [`PublicFolder`] is what a gateway shows.

mod folder;
mod follow;
mod witnesses;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use audit::{Hash, NoteKey, Origin, SignedHead, TileId, TiledTree};
use tokio::sync::watch;

use crate::data::{HeadSigner, Inclusion};

pub(crate) use folder::{PublicFolder, Resource};
use witnesses::Witness;

/// What the data-service publishes the log with.
#[derive(Debug)]
pub struct PublicLogConfig {
    /// The first part of its origins.
    pub name: String,
    pub folder: PathBuf,
    pub store: Arc<dyn PublicLogStore>,
    pub witnesses: Vec<WitnessConfig>,
    /// Each witness is asked at most once in so long.
    pub witness_every: Duration,
}

/// Somebody elsewhere who signs that the log only grew.
#[derive(Debug, Clone)]
pub struct WitnessConfig {
    /// `add-checkpoint` is below it.
    pub url: String,
    pub key: NoteKey,
}

/// Where what is written once is kept. Called from threads of their own; an object that is there already is no error.
pub trait PublicLogStore: Send + Sync + fmt::Debug {
    fn tile(&self, began: u32, id: TileId) -> Result<Option<Vec<u8>>, String>;
    fn put_tile(&self, began: u32, id: TileId, bytes: &[u8]) -> Result<(), String>;
    /// The epochs that began an origin which was published, ascending.
    fn origins(&self) -> Result<Vec<u32>, String>;
    fn put_first(&self, began: u32, checkpoint: &[u8]) -> Result<(), String>;
    fn put_cosigned(
        &self,
        head: (u32, u64),
        witness: &NoteKey,
        checkpoint: &[u8],
    ) -> Result<(), String>;
    /// A signed head, for what a new origin says of the one before.
    fn head(&self, epoch: u32, size: u64) -> Result<Option<SignedHead>, String>;
    /// A proof is made with this head: it is kept for ever.
    fn keep_head(&self, epoch: u32, size: u64) -> Result<(), String>;
    /// Statements about the keys that sign, as they are published.
    fn statements(&self) -> Result<Vec<Vec<u8>>, String>;
}

/// What proofs are made from.
#[derive(Debug)]
pub(crate) struct PublishedTree {
    origin: Origin,
    head: SignedHead,
    /// The position behind which the tree begins.
    behind: u64,
    note: audit::Note,
    partial: HashMap<TileId, Vec<Hash>>,
}

impl PublishedTree {
    /// Of the tree.
    fn size(&self) -> u64 {
        self.head.claimed().size.saturating_sub(self.behind)
    }

    fn covers(&self, epoch: u32, position: u64) -> bool {
        let head = self.head.claimed();
        position <= head.size && epoch <= head.epoch
    }
}

#[derive(Debug)]
pub(crate) struct PublicLog {
    log: u16,
    name: String,
    store: Arc<dyn PublicLogStore>,
    folder: PublicFolder,
    heads: Arc<HeadSigner>,
    published: ArcSwapOption<PublishedTree>,
    /// What proofs were made from last; its head is kept, so proofs use it as long as it covers what is asked for.
    proved: ArcSwapOption<PublishedTree>,
    /// The size that was published last.
    told: watch::Sender<u64>,
    trouble: Mutex<Option<String>>,
    witnesses: Vec<Arc<Witness>>,
    witness_every: Duration,
}

/// How one of the parts stands: its name, and what is wrong.
pub(crate) type Trouble = (String, String);

impl PublicLog {
    pub(crate) fn new(log: u16, config: PublicLogConfig, heads: Arc<HeadSigner>) -> PublicLog {
        let witnesses = config.witnesses.into_iter();
        PublicLog {
            log,
            name: config.name,
            store: config.store,
            folder: PublicFolder::new(config.folder),
            heads,
            published: ArcSwapOption::empty(),
            proved: ArcSwapOption::empty(),
            told: watch::channel(0).0,
            trouble: Mutex::default(),
            witnesses: witnesses.map(|one| Arc::new(Witness::new(one))).collect(),
            witness_every: config.witness_every,
        }
    }

    pub(crate) fn witnesses(&self) -> impl Iterator<Item = Arc<Witness>> + '_ {
        self.witnesses.iter().cloned()
    }

    pub(crate) fn folder(&self) -> PublicFolder {
        self.folder.clone()
    }

    fn set_trouble(&self, trouble: Option<String>) {
        let mut now = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = trouble.as_ref().filter(|why| now.as_ref() != Some(why)) {
            tracing::warn!(why, "the public log stands still");
        }
        *now = trouble;
    }

    /// What an operator should look at.
    pub(crate) fn troubles(&self) -> Vec<Trouble> {
        let own = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let own = own.clone().map(|why| ("public_log".to_owned(), why));
        let theirs = self.witnesses.iter().filter_map(|witness| {
            let name = format!("witness.{}", witness.name());
            Some((name, witness.trouble()?))
        });
        own.into_iter().chain(theirs).collect()
    }

    /// The path of the entry at that place in the newest published tree.
    pub(crate) async fn inclusion(
        self: &Arc<Self>,
        epoch: u32,
        position: u64,
    ) -> Result<Inclusion, String> {
        let Some(published) = self.published.load_full() else {
            return match self.troubles().into_iter().next() {
                Some((_, why)) => Err(why),
                None => Ok(Inclusion::Pending { covered_to: 0 }),
            };
        };
        if !published.covers(epoch, position) {
            return Ok(Inclusion::Pending {
                covered_to: published.head.claimed().size,
            });
        }
        if published.behind > 0 {
            return Err(format!(
                "entries up to position {} are gone with their hashes, so the published tree proves nothing under \
                 a head: bre audit prove looks for a head that does",
                published.behind
            ));
        }
        let proved = self.proved.load_full();
        let proved = proved
            .filter(|proved| proved.origin == published.origin && proved.covers(epoch, position));
        let log = Arc::clone(self);
        let made = tokio::task::spawn_blocking(move || {
            let published = match proved {
                Some(proved) => proved,
                None => {
                    // Before the proof is handed out.
                    let head = published.head.claimed();
                    log.store.keep_head(head.epoch, head.size)?;
                    log.proved.store(Some(Arc::clone(&published)));
                    published
                }
            };
            let leaf = position.saturating_sub(1);
            let path = log.tree(&published).inclusion(leaf);
            let path = path.map_err(|error| error.to_string())?;
            let head = String::from_utf8_lossy(&published.head.to_json()).into_owned();
            Ok(Inclusion::Path { path, head })
        });
        made.await.map_err(|error| error.to_string())?
    }

    /// The tree that was published, by its tiles.
    fn tree<'a>(
        &'a self,
        published: &'a PublishedTree,
    ) -> TiledTree<impl FnMut(TileId) -> Result<Vec<Hash>, String> + 'a> {
        let began = published.origin.began;
        TiledTree::new(published.size(), move |id| {
            match published.partial.get(&id) {
                Some(hashes) => Ok(hashes.clone()),
                None => self.full_tile(began, id),
            }
        })
    }

    /// From the folder, or, where that has lost it, from the store and put back.
    fn full_tile(&self, began: u32, id: TileId) -> Result<Vec<Hash>, String> {
        let resource = Resource::tile(self.log, began, id);
        let read = |bytes: Vec<u8>| audit::read_tile(id, &bytes);
        if let Ok(Some(bytes)) = self.folder.read(&resource)
            && let Some(hashes) = read(bytes)
        {
            return Ok(hashes);
        }
        let bytes = self.store.tile(began, id)?;
        let bytes = bytes.ok_or_else(|| format!("{} is not in the repository", id.path()))?;
        self.folder.put(&resource, &bytes)?;
        read(bytes).ok_or_else(|| format!("{} in the repository is no tile", id.path()))
    }

    /// What a gateway shows below `/log/`.
    pub(crate) fn show(&self, resource: &Resource) -> Result<Option<Vec<u8>>, String> {
        if let Some(bytes) = self.folder.read(resource)? {
            return Ok(Some(bytes));
        }
        match resource.full_tile() {
            Some((log, began, id)) if log == self.log => {
                let bytes = self.store.tile(began, id)?;
                if let Some(bytes) = &bytes {
                    self.folder.put(resource, bytes)?;
                }
                Ok(bytes)
            }
            _ => Ok(None),
        }
    }
}
