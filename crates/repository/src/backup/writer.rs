//! Writes one backup: files stream in, packs go out, the manifest comes last. Mirror: `reader`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::file_writer::FileWriter;
use super::open_file::OpenFile;
use super::table::Table;
use super::tree::{Directory, Meta};
use super::workers::{SharedState, Workers, lock};
use super::{BackupFacts, BackupKind, BackupStop};
use crate::Repository;
use crate::error::{Error, Result, StoreError};
use crate::keys::{ChunkIdKey, DataKey, RecipientPublic, hex, new_data_key};
use crate::local_index::{
    CacheFolder, Fingerprinter, IndexWriter, Journal, ParentIndex, UnfinishedPacks, unfinished,
};
use crate::manifest::{CHUNK_BYTES, ManifestBody, ManifestHeader, manifest_name};
use crate::pack::Identifier;
use crate::pipeline::{BoxKind, Compression, ObjectHeader, ObjectKind, seal_single};
use crate::references;
use crate::repository::to_json;

/// Files are cut at multiples of this.
pub const WINDOW_BYTES: usize = CHUNK_BYTES;

#[derive(Debug, Clone)]
pub struct BackupOptions {
    pub threads: usize,
    pub zstd_level: i32,
    /// The folder of what this host knows of the repository (local_cache.md); it may be deleted at any time. Without it every
    /// backup is a full one, and a killed one is begun anew.
    pub cache: Option<PathBuf>,
}

impl Default for BackupOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self {
            threads: cores.clamp(1, 4),
            zstd_level: 1,
            cache: None,
        }
    }
}

/// Shared by threads: all methods but the last take `&self`, and several files may be open at once.
///
/// Dropped or killed before `finish`, it leaves packs that nothing refers to, and no manifest.
pub struct BackupWriter {
    repository: Repository,
    key: Arc<DataKey>,
    chunk_key: ChunkIdKey,
    facts: BackupFacts,
    workers: Workers,
    taken: Mutex<WriterState>,
    parent: Option<ParentIndex>,
    why_full: Option<String>,
    unfinished: UnfinishedPacks,
}

/// What was handed over so far.
#[derive(Default)]
struct WriterState {
    tree: Directory,
    /// Also the number of slots given out.
    files: usize,
    bytes_source: u64,
    /// Begun and not finished.
    open: BTreeSet<String>,
}

impl BackupWriter {
    pub fn begin(
        repository: &Repository,
        public: &RecipientPublic,
        chunk_key: &ChunkIdKey,
        facts: BackupFacts,
    ) -> Result<Self> {
        Self::begin_with(
            repository,
            public,
            chunk_key,
            facts,
            BackupOptions::default(),
        )
    }

    pub fn begin_with(
        repository: &Repository,
        public: &RecipientPublic,
        chunk_key: &ChunkIdKey,
        mut facts: BackupFacts,
        options: BackupOptions,
    ) -> Result<Self> {
        let name = manifest_name(&facts.id);
        repository.bind_cluster(facts.system_identifier, &name)?;
        match repository.store().size(&name) {
            Ok(_) => return Err(StoreError::AlreadyExists { object: name }.into()),
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let mut local = LocalState::open(
            repository,
            (public, chunk_key),
            &facts,
            options.cache.as_deref(),
        )?;
        facts.kind = local.kind();
        facts.parent = local.parent.as_ref().map(|parent| parent.backup_id.clone());
        let table = local.table();
        let help = local.help_for_next(chunk_key, &facts.id);
        let key = new_data_key(repository, public)?;
        let shared = SharedState::new(
            repository,
            Arc::clone(&key),
            Identifier::new(chunk_key),
            options.zstd_level,
            table,
            help,
        );
        Ok(Self {
            repository: repository.clone(),
            key,
            chunk_key: chunk_key.clone(),
            facts,
            workers: Workers::start(shared, options.threads.max(1)),
            taken: Mutex::default(),
            parent: local.parent,
            why_full: local.why_full,
            unfinished: local.unfinished,
        })
    }

    #[must_use]
    pub fn id(&self) -> &str {
        &self.facts.id
    }

    /// Full also when an incremental was asked for and there is nothing to base it on.
    #[must_use]
    pub fn kind(&self) -> BackupKind {
        self.facts.kind
    }

    /// The backup that an incremental one is based on.
    #[must_use]
    pub fn parent(&self) -> Option<&str> {
        self.facts.parent.as_deref()
    }

    /// Why this one is full although an incremental was asked for.
    #[must_use]
    pub fn why_full(&self) -> Option<&str> {
        self.why_full.as_deref()
    }

    /// Bytes of files taken so far.
    #[must_use]
    pub fn bytes_source(&self) -> u64 {
        self.taken().bytes_source
    }

    /// To be called before `finish` when the server told only now where the backup begins.
    pub fn begins_at(&mut self, timeline: u32, start_lsn: u64) {
        (self.facts.timeline, self.facts.start_lsn) = (timeline, start_lsn);
    }

    /// What the parent's source put into [`BackupStop::remember`]; `None` without a parent.
    #[must_use]
    pub fn remembered(&self) -> Option<&BTreeMap<String, String>> {
        self.parent.as_ref().map(ParentIndex::remembered)
    }

    /// The files of the parent of which [`FileWriter::keep`] may keep pieces. Not all: what lies in too many chunks has to be read
    /// again, so that it is stored in one piece.
    pub fn keepable(&self) -> Result<Vec<String>> {
        let paths = self.parent.as_ref().map(ParentIndex::keepable);
        paths
            .unwrap_or_else(|| Ok(Vec::new()))
            .map_err(|error| Error::Input(format!("the local cache cannot be read: {error}")))
    }

    pub(super) fn workers(&self) -> &Workers {
        &self.workers
    }

    /// All of a file of `size` bytes was handed over.
    pub(super) fn file_taken(&self, path: &str, size: u64) {
        let mut taken = self.taken();
        taken.open.remove(path);
        taken.bytes_source += size;
    }

    fn taken(&self) -> MutexGuard<'_, WriterState> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Paths are relative, with `/`; missing parents are added with mode 0700.
    pub fn dir(&self, path: &str, mode: u32, mtime_micros: i64) -> Result<()> {
        self.taken()
            .tree
            .add_directory(path, Meta { mode, mtime_micros })
    }

    pub fn symlink(&self, path: &str, target: &str, mtime_micros: i64) -> Result<()> {
        self.taken().tree.add_symlink(
            path,
            Meta {
                mode: 0o777,
                mtime_micros,
            },
            target,
        )
    }

    /// Whether a file of this path was handed over.
    #[must_use]
    pub fn has_file(&self, path: &str) -> bool {
        self.taken().tree.has_file(path)
    }

    /// Until its writer is finished, `finish` of the backup refuses.
    pub fn file(&self, path: &str, mode: u32, mtime_micros: i64) -> Result<FileWriter<'_>> {
        let slot = {
            let mut taken = self.taken();
            let slot = taken.files;
            taken
                .tree
                .add_file(path, Meta { mode, mtime_micros }, slot)?;
            taken.files += 1;
            taken.open.insert(path.to_owned());
            slot
        };
        let windows = self.parent.as_ref().and_then(|parent| parent.windows(path));
        Ok(FileWriter::new(self, OpenFile::new(path, slot, windows)))
    }

    /// Room for [`WINDOW_BYTES`], empty: to read into, and to [`FileWriter::push`].
    #[must_use]
    pub fn buffer(&self) -> Vec<u8> {
        self.workers.buffer()
    }

    /// A small file in one call.
    pub fn blob(&self, path: &str, mode: u32, mtime_micros: i64, bytes: &[u8]) -> Result<()> {
        let mut file = self.file(path, mode, mtime_micros)?;
        file.write(bytes)?;
        file.finish()
    }

    /// Stores the tree and, last, the manifest. `Ok` means that the backup exists.
    pub fn finish(mut self, stop: BackupStop) -> Result<String> {
        let taken = std::mem::take(&mut *self.taken());
        if let Some(path) = taken.open.first() {
            return Err(Error::Input(format!(
                "`{path}` was begun and not finished: this backup is unusable"
            )));
        }
        self.workers.drain()?;
        let layouts = std::mem::take(&mut *lock(&self.workers.shared().layouts));
        let root = taken
            .tree
            .store(&layouts, &mut |node| self.workers.node(node))?;
        self.workers.finish()?;
        let table = std::mem::take(&mut *lock(&self.workers.shared().table));
        let saved = *lock(&self.workers.shared().reused_bytes);
        let facts = &self.facts;
        let header = ManifestHeader {
            backup_id: facts.id.clone(),
            kind: facts.kind,
            parent: facts.parent.clone(),
            label: facts.label.clone(),
            system_identifier: facts.system_identifier,
            timeline: facts.timeline,
            start_lsn: facts.start_lsn,
            stop_lsn: stop.stop_lsn,
            pg_version: facts.pg_version,
            wal_segment_bytes: facts.wal_segment_bytes,
            started_at_micros: facts.started_at_micros,
            finished_at_micros: stop.finished_at_micros,
            bytes_source: taken.bytes_source,
            bytes_stored: table.bytes_own(),
            bytes_reused: saved.reused,
            bytes_resumed: saved.resumed,
            files: taken.files as u64,
            damaged_pages: stop.damaged.len() as u64,
        };
        let body = ManifestBody {
            chunk_id_key: self.chunk_key.to_hex().to_string(),
            root: hex(&root.0),
            packs: table.packs_used(),
            damaged: stop.damaged,
            facts: stop.facts,
        };
        put_manifest(&self.repository, &self.key, &header, &body)?;
        self.remember(&table, stop.remember);
        Ok(self.facts.id.clone())
    }

    /// For the next backup. The manifest is there: nothing may fail any more.
    fn remember(&mut self, table: &Table, remember: BTreeMap<String, String>) {
        let shared = self.workers.shared();
        if let Some(mut index) = lock(&shared.index).take() {
            let written = index.tables(
                &|blob| table.blob_row(blob),
                &|pack| table.pack_row(pack),
                table.blobs_used(),
                remember,
            );
            if let Err(error) = written.and_then(|()| index.commit()) {
                tracing::warn!(%error, "the local cache was not renewed; the next incremental backup stores more than it has to");
            }
        }
        if let Some(journal) = lock(&shared.journal).take() {
            journal.remove();
        }
        std::mem::take(&mut self.unfinished).remove();
    }

    /// Gives the backup up. The packs written so far are left to expiry.
    pub fn abort(self) {
        drop(self);
    }
}

fn put_manifest(
    repository: &Repository,
    key: &DataKey,
    header: &ManifestHeader,
    body: &ManifestBody,
) -> Result<()> {
    let packs: Vec<String> = body.packs.iter().map(|pack| pack.id.clone()).collect();
    references::record_references(repository, &header.backup_id, &packs)?;
    let name = manifest_name(&header.backup_id);
    let clear = ObjectHeader {
        kind: ObjectKind::Manifest,
        data_key: key.id(),
        clear: to_json(header),
    };
    let raw = zeroize::Zeroizing::new(to_json(body));
    let object = seal_single(
        key,
        &name,
        &clear,
        BoxKind::Manifest,
        Compression::Zstd(3),
        (0, 0),
        &raw,
    )?;
    Ok(repository.store().put(&name, &object)?)
}

/// What this host knows of the repository when a backup begins.
struct LocalState {
    folder: Option<CacheFolder>,
    parent: Option<ParentIndex>,
    why_full: Option<String>,
    unfinished: UnfinishedPacks,
}

impl LocalState {
    fn open(
        repository: &Repository,
        (public, chunk_key): (&RecipientPublic, &ChunkIdKey),
        facts: &BackupFacts,
        cache: Option<&Path>,
    ) -> Result<Self> {
        let incremental = facts.kind == BackupKind::Incremental;
        let mut local = Self {
            folder: None,
            parent: None,
            why_full: incremental.then(|| "no local cache is kept".to_owned()),
            unfinished: UnfinishedPacks::default(),
        };
        let Some(cache) = cache else {
            return Ok(local);
        };
        let folder = match CacheFolder::new(
            cache,
            repository,
            facts.system_identifier,
            public,
            chunk_key,
        ) {
            Ok(folder) => folder,
            Err(error) => {
                tracing::warn!(%error, folder = %cache.display(), "there is no local cache: the next backup will be a full one");
                local.why_full = incremental.then(|| format!("no local cache: {error}"));
                return Ok(local);
            }
        };
        local.unfinished = unfinished(&folder, repository)?;
        if incremental {
            match ParentIndex::open(&folder, repository)? {
                Ok(parent) => (local.parent, local.why_full) = (Some(parent), None),
                Err(reason) => local.why_full = Some(reason),
            }
        }
        local.folder = Some(folder);
        Ok(local)
    }

    fn kind(&self) -> BackupKind {
        match self.parent {
            Some(_) => BackupKind::Incremental,
            None => BackupKind::Full,
        }
    }

    /// A full backup stands alone: it refers to no pack of an earlier one.
    fn table(&mut self) -> Table {
        let mut table = self
            .parent
            .as_mut()
            .map(Table::with_parent)
            .unwrap_or_default();
        for done in &self.unfinished.packs {
            table.add_unfinished(done);
        }
        self.unfinished.packs = Vec::new();
        table
    }

    fn help_for_next(
        &self,
        chunk_key: &ChunkIdKey,
        backup_id: &str,
    ) -> (Option<Fingerprinter>, Option<IndexWriter>, Option<Journal>) {
        let Some(folder) = &self.folder else {
            return (None, None, None);
        };
        let warn = |error: &std::io::Error| {
            tracing::warn!(%error, "the local cache cannot be written; the next backup will know less");
        };
        let index = IndexWriter::begin(folder, backup_id).inspect_err(warn);
        let journal = Journal::begin(folder, backup_id).inspect_err(warn);
        let fingerprinter = Fingerprinter::new(chunk_key);
        (Some(fingerprinter), index.ok(), journal.ok())
    }
}

impl std::fmt::Debug for BackupWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "BackupWriter({}, {} files)",
            self.facts.id,
            self.taken().files
        )
    }
}
