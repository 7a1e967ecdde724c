//! Takes one snapshot: documents stream in, new chunks go out in packs, the manifest comes last. Where nothing
//! differs from the newest snapshot nothing is written at all. Mirror: `reader`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use zeroize::Zeroizing;

use super::manifest::{DocumentRecord, SnapshotBody, SnapshotHeader, VERSION};
use super::{check_component, check_document, folder_of, manifest_of};
use crate::Repository;
use crate::backup::new_backup_id;
use crate::error::{Error, Result, StoreError};
use crate::keys::{ChunkIdKey, DataKey, RecipientPublic, hex, new_data_key, not_sealed_to};
use crate::local_index::{DocumentHasher, DocumentTable, ParentSnapshot, SnapshotSubject};
use crate::manifest::{CHUNK_BYTES, PackRef};
use crate::pack::{BlobId, Identifier, PACK_BYTES_MAX, PackBuilder, pack_name};
use crate::pipeline::{BoxKind, Compression, ObjectHeader, ObjectKind, seal_single};
use crate::references;
use crate::repository::to_json;

/// So many packs, and two more for each pack's worth of bytes: beyond that everything is stored again in one place.
const PACKS_REFERRED_MAX: u64 = 64;

#[derive(Debug, Clone)]
pub struct SnapshotOptions {
    pub zstd_level: i32,
    /// The folder of what this host knows of the repository (local_cache.md); it may be deleted at any time. Without
    /// it every snapshot stores everything.
    pub cache: Option<PathBuf>,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self {
            zstd_level: 3,
            cache: None,
        }
    }
}

/// What differs from the newest snapshot. Names that are gone are known by their hashes alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DocumentChanges {
    pub added: Vec<String>,
    pub changed: Vec<String>,
    pub removed: u64,
}

impl DocumentChanges {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed == 0
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotOutcome {
    /// The snapshot that holds these documents now: a new one, or the newest where nothing differs.
    pub id: String,
    /// False: nothing differs, and nothing was written.
    pub is_new: bool,
    pub parent: Option<String>,
    /// Why everything was stored, although a cache was given.
    pub full_reason: Option<String>,
    pub documents: u64,
    pub bytes_source: u64,
    pub bytes_stored: u64,
    pub bytes_reused: u64,
    /// `None` when the newest snapshot is not known here.
    pub changes: Option<DocumentChanges>,
}

struct Chunk {
    pack: usize,
    raw_len: u32,
}

/// Dropped or killed before `finish` it leaves packs that nothing refers to, and no manifest.
pub struct SnapshotWriter {
    repository: Repository,
    public: RecipientPublic,
    chunk_key: ChunkIdKey,
    component: String,
    id: String,
    taken_at_micros: i64,
    options: SnapshotOptions,
    identifier: Identifier,
    hasher: DocumentHasher,
    parent: Option<(String, DocumentTable)>,
    /// No other host took one since.
    is_parent_newest: bool,
    full_reason: Option<String>,
    /// Those of the parent, then our own.
    packs: Vec<PackRef>,
    packs_of_parent: usize,
    chunks: HashMap<BlobId, Chunk>,
    /// Made when the first chunk is new.
    key: Option<Arc<DataKey>>,
    /// The last of `packs`, while it grows.
    open: Option<PackBuilder>,
    records: BTreeMap<String, DocumentRecord>,
    documents: DocumentTable,
    bytes_source: u64,
    bytes_reused: u64,
}

impl SnapshotWriter {
    pub fn begin(
        repository: &Repository,
        public: &RecipientPublic,
        chunk_key: &ChunkIdKey,
        component: &str,
        taken_at_micros: i64,
        options: SnapshotOptions,
    ) -> Result<Self> {
        check_component(component)?;
        let parent = parent_snapshot(repository, public, chunk_key, component, &options)?;
        let mut writer = Self {
            repository: repository.clone(),
            public: public.clone(),
            chunk_key: chunk_key.clone(),
            component: component.to_owned(),
            id: new_backup_id(taken_at_micros)?,
            taken_at_micros,
            identifier: Identifier::new(chunk_key),
            hasher: DocumentHasher::new(chunk_key),
            parent: None,
            is_parent_newest: false,
            full_reason: None,
            packs: Vec::new(),
            packs_of_parent: 0,
            chunks: HashMap::new(),
            key: None,
            open: None,
            records: BTreeMap::new(),
            documents: DocumentTable::new(),
            bytes_source: 0,
            bytes_reused: 0,
            options,
        };
        match parent {
            Ok(parent) => {
                let newest = newest_id(repository, component)?;
                writer.is_parent_newest = newest.as_ref() == Some(&parent.subject.snapshot_id);
                writer.base_on(parent);
            }
            Err(reason) => writer.full_reason = writer.options.cache.is_some().then_some(reason),
        }
        Ok(writer)
    }

    fn base_on(&mut self, parent: ParentSnapshot) {
        let limit = PACKS_REFERRED_MAX + 2 * (parent.subject.bytes / PACK_BYTES_MAX as u64);
        let scattered = parent.packs.len() as u64 > limit;
        if scattered {
            let many = parent.packs.len();
            self.full_reason = Some(format!("its documents lay in {many} packs"));
        } else {
            self.packs_of_parent = parent.packs.len();
            self.packs = parent.packs;
            for (id, pack, raw_len) in parent.chunks {
                let pack = pack as usize;
                self.chunks.insert(id, Chunk { pack, raw_len });
            }
        }
        self.parent = Some((parent.subject.snapshot_id, parent.documents));
    }

    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Takes one document in. Content that fails to be read makes the snapshot unusable: it is to be dropped.
    pub fn document(
        &mut self,
        name: &str,
        attributes: BTreeMap<String, String>,
        content: &mut dyn Read,
    ) -> Result<()> {
        check_document(name)?;
        if self.records.contains_key(name) {
            return Err(Error::Input(format!(
                "the document {name:?} was handed over twice"
            )));
        }
        let (mut chunks, mut bytes) = (Vec::new(), 0);
        loop {
            let mut window = Zeroizing::new(Vec::new());
            let read = content
                .take(CHUNK_BYTES as u64)
                .read_to_end(&mut window)
                .map_err(|error: io::Error| {
                    Error::Input(format!("the document {name:?} cannot be read: {error}"))
                })?;
            if read == 0 {
                break;
            }
            bytes += read as u64;
            chunks.push(self.chunk(&window)?);
        }
        self.bytes_source += bytes;
        let hash = self.hasher.document(bytes, &attributes, &chunks);
        self.documents.insert(self.hasher.name(name), hash);
        let record = DocumentRecord {
            name: name.to_owned(),
            bytes,
            chunks: chunks.iter().map(|chunk| hex(&chunk.0)).collect(),
            attributes,
        };
        self.records.insert(name.to_owned(), record);
        Ok(())
    }

    fn chunk(&mut self, window: &[u8]) -> Result<BlobId> {
        let id = self.identifier.id(BoxKind::Chunk, window);
        if let Some(chunk) = self.chunks.get(&id) {
            if chunk.pack < self.packs_of_parent {
                self.bytes_reused += window.len() as u64;
            }
            return Ok(id);
        }
        let key = self.key()?;
        if self.open.is_none() {
            let pack = PackBuilder::new(&key, Vec::new())?;
            self.packs.push(PackRef {
                id: pack.id.clone(),
                bytes: 0,
            });
            self.open = Some(pack);
        }
        let level = Compression::Zstd(self.options.zstd_level);
        if let Some(pack) = &mut self.open {
            pack.add(BoxKind::Chunk, id, level, window)?;
        }
        let chunk = Chunk {
            pack: self.packs.len() - 1,
            // A window is at most 1 MiB.
            raw_len: u32::try_from(window.len()).unwrap_or(u32::MAX),
        };
        self.chunks.insert(id, chunk);
        if self
            .open
            .as_ref()
            .is_some_and(|pack| pack.len() >= PACK_BYTES_MAX)
        {
            self.put_pack()?;
        }
        Ok(id)
    }

    fn key(&mut self) -> Result<Arc<DataKey>> {
        if let Some(key) = &self.key {
            return Ok(Arc::clone(key));
        }
        let key = new_data_key(&self.repository, &self.public)?;
        self.key = Some(Arc::clone(&key));
        Ok(key)
    }

    fn put_pack(&mut self) -> Result<()> {
        let Some(pack) = self.open.take() else {
            return Ok(());
        };
        let (id, bytes) = pack.finish()?;
        self.repository.store().put(&pack_name(&id), &bytes)?;
        if let Some(last) = self.packs.last_mut() {
            last.bytes = bytes.len() as u64;
        }
        Ok(())
    }

    /// Puts the manifest, where something differs. `Ok` means that the snapshot exists.
    pub fn finish(
        mut self,
        facts: BTreeMap<String, String>,
        finished_at_micros: i64,
    ) -> Result<SnapshotOutcome> {
        let changes = self.changes();
        let mut outcome = SnapshotOutcome {
            id: self.id.clone(),
            is_new: true,
            parent: self.parent.as_ref().map(|(id, _)| id.clone()),
            full_reason: self.full_reason.clone(),
            documents: self.records.len() as u64,
            bytes_source: self.bytes_source,
            bytes_stored: 0,
            bytes_reused: self.bytes_reused,
            changes,
        };
        if let (Some(parent), Some(changes)) = (&outcome.parent, &outcome.changes)
            && changes.is_empty()
            && self.is_parent_newest
            && self.full_reason.is_none()
        {
            outcome.id.clone_from(parent);
            outcome.is_new = false;
            return Ok(outcome);
        }
        self.put_pack()?;
        let own = self.packs.get(self.packs_of_parent..).unwrap_or_default();
        outcome.bytes_stored = own.iter().map(|pack| pack.bytes).sum();
        let used = self.packs_used();
        self.put_manifest(&outcome, &used, facts, finished_at_micros)?;
        self.remember();
        Ok(outcome)
    }

    fn changes(&self) -> Option<DocumentChanges> {
        let (_, before) = self.parent.as_ref()?;
        let mut changes = DocumentChanges::default();
        for name in self.records.keys() {
            let key = self.hasher.name(name);
            match (before.get(&key), self.documents.get(&key)) {
                (None, _) => changes.added.push(name.clone()),
                (then, now) if then != now => changes.changed.push(name.clone()),
                _ => {}
            }
        }
        let gone = |key: &&[u8; 16]| !self.documents.contains_key(*key);
        changes.removed = before.keys().filter(gone).count() as u64;
        Some(changes)
    }

    /// In the order of their numbers.
    fn packs_used(&self) -> Vec<PackRef> {
        let all: BTreeSet<usize> = self.chunks_used().map(|(_, chunk)| chunk.pack).collect();
        all.into_iter().map(|n| self.packs[n].clone()).collect()
    }

    fn chunks_used(&self) -> impl Iterator<Item = (BlobId, &Chunk)> {
        let ids = self.records.values().flat_map(|record| &record.chunks);
        let ids: BTreeSet<BlobId> = ids
            .filter_map(|id| Some(BlobId(crate::keys::from_hex(id)?.try_into().ok()?)))
            .collect();
        ids.into_iter()
            .filter_map(|id| Some((id, self.chunks.get(&id)?)))
    }

    fn put_manifest(
        &mut self,
        outcome: &SnapshotOutcome,
        packs: &[PackRef],
        facts: BTreeMap<String, String>,
        finished_at_micros: i64,
    ) -> Result<()> {
        let key = self.key()?;
        let ids: Vec<String> = packs.iter().map(|pack| pack.id.clone()).collect();
        let folder = folder_of(&self.component, &self.id);
        references::record_references_below(&self.repository, &folder, &ids)?;
        let header = SnapshotHeader {
            snapshot_version: VERSION,
            component: self.component.clone(),
            snapshot_id: self.id.clone(),
            parent: outcome.parent.clone().filter(|_| self.packs_of_parent > 0),
            taken_at_micros: self.taken_at_micros,
            finished_at_micros,
            documents: outcome.documents,
            bytes_source: outcome.bytes_source,
            bytes_stored: outcome.bytes_stored,
            bytes_reused: outcome.bytes_reused,
        };
        let body = SnapshotBody {
            chunk_id_key: self.chunk_key.to_hex().to_string(),
            packs: packs.to_vec(),
            documents: self.records.values().cloned().collect(),
            facts,
        };
        let name = manifest_of(&self.component, &self.id);
        let clear = ObjectHeader {
            kind: ObjectKind::Snapshot,
            data_key: key.id(),
            clear: to_json(&header),
        };
        let object = seal_single(
            &key,
            &name,
            &clear,
            BoxKind::Snapshot,
            Compression::Zstd(3),
            (0, 0),
            &Zeroizing::new(to_json(&body)),
        )?;
        Ok(self.repository.store().put(&name, &object)?)
    }

    /// For the next snapshot. The manifest is there: nothing may fail any more.
    fn remember(&self) {
        let Some(folder) = &self.options.cache else {
            return;
        };
        let (mut packs, mut numbers) = (Vec::new(), HashMap::new());
        let chunks: Vec<(BlobId, u32, u32)> = self
            .chunks_used()
            .map(|(id, chunk)| {
                let number = *numbers.entry(chunk.pack).or_insert_with(|| {
                    packs.push(self.packs[chunk.pack].clone());
                    u32::try_from(packs.len() - 1).unwrap_or(u32::MAX)
                });
                (id, number, chunk.raw_len)
            })
            .collect();
        let subject = SnapshotSubject {
            snapshot_id: self.id.clone(),
            repository_id: self.repository.id().to_owned(),
            component: self.component.clone(),
            recipient: self.public.id(),
            documents: self.documents.len() as u64,
            blobs: chunks.len() as u64,
            packs: packs.len() as u64,
            bytes: self.bytes_source,
        };
        let next = ParentSnapshot {
            subject,
            documents: self.documents.clone(),
            packs,
            chunks,
        };
        if let Err(error) = next.write(folder, &self.chunk_key) {
            tracing::warn!(%error, "the local cache was not renewed; the next snapshot stores more than it has to");
        }
    }
}

/// From names alone, in any format. Two of one second count in the order of their random parts: at worst one
/// more is taken.
fn newest_id(repository: &Repository, component: &str) -> Result<Option<String>> {
    let objects = repository
        .store()
        .list(&format!("snapshots/{component}/"))?;
    let manifests = objects.iter().filter(|it| it.name.ends_with("/manifest"));
    let ids = manifests.filter_map(|it| super::place_of(&it.name).map(|(_, id)| id.to_owned()));
    Ok(ids.max())
}

/// What the newest snapshot held, where this host knows it and its objects stay. The inner error says why not.
fn parent_snapshot(
    repository: &Repository,
    public: &RecipientPublic,
    chunk_key: &ChunkIdKey,
    component: &str,
    options: &SnapshotOptions,
) -> Result<std::result::Result<ParentSnapshot, String>> {
    let Some(folder) = &options.cache else {
        return Ok(Err("no local cache is kept".to_owned()));
    };
    let parent = match ParentSnapshot::read(folder, component, chunk_key) {
        Ok(Ok(parent)) => parent,
        Ok(Err(reason)) => return Ok(Err(reason)),
        Err(error) => {
            let reason = format!("the local cache in {}: {error}", folder.display());
            return Ok(Err(reason));
        }
    };
    let subject = &parent.subject;
    let id = &subject.snapshot_id;
    if subject.repository_id != repository.id() || subject.component != component {
        return Ok(Err("the local cache is of another repository".to_owned()));
    }
    match repository.store().size(&manifest_of(component, id)) {
        Ok(_) => {}
        Err(StoreError::NotFound { .. }) => {
            return Ok(Err(format!(
                "snapshot {id} is not in the repository any more"
            )));
        }
        Err(error) => return Err(error.into()),
    }
    let place = (component.to_owned(), id.clone());
    if references::expiring_snapshots(repository)?.contains(&place) {
        return Ok(Err(format!("snapshot {id} is expiring")));
    }
    if subject.recipient != public.id() && not_sealed_to(repository, public)? != 0 {
        return Ok(Err(format!(
            "snapshot {id} is sealed for another key and was not sealed to this one when the key was replaced"
        )));
    }
    let ids: Vec<String> = parent.packs.iter().map(|pack| pack.id.clone()).collect();
    match references::check_present(repository, &ids) {
        Ok(()) => Ok(Ok(parent)),
        Err(error) if error.is_damage() => {
            let object = error.object().unwrap_or("a pack");
            Ok(Err(format!(
                "`{object}` of snapshot {id} is missing or expiring"
            )))
        }
        Err(error) => Err(error),
    }
}

impl std::fmt::Debug for SnapshotWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "SnapshotWriter({} {}, {} documents)",
            self.component,
            self.id,
            self.records.len()
        )
    }
}
