//! Writes one backup: files stream in, packs go out, the manifest comes last. Mirror: `reader`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::tree::{Directory, Meta};
use super::workers::Workers;
use super::{BackupFacts, BackupStop};
use crate::Repository;
use crate::error::{Error, Result, StoreError};
use crate::keys::{ChunkIdKey, DataKey, RecipientPublic, hex, new_data_key};
use crate::manifest::{CHUNK_BYTES, ManifestBody, ManifestHeader, manifest_name};
use crate::pack::Identifier;
use crate::pipeline::{BoxKind, Compression, ObjectHeader, ObjectKind, seal_single};
use crate::repository::to_json;
use crate::retention;

#[derive(Debug, Clone, Copy)]
pub struct BackupOptions {
    pub threads: usize,
    pub zstd_level: i32,
}

impl Default for BackupOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self {
            threads: cores.clamp(1, 4),
            zstd_level: 1,
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
    taken: Mutex<Taken>,
}

/// What was handed over so far.
#[derive(Default)]
struct Taken {
    tree: Directory,
    files: u64,
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
        facts: BackupFacts,
        options: BackupOptions,
    ) -> Result<Self> {
        let name = manifest_name(&facts.id);
        repository.bind_cluster(facts.system_identifier, &name)?;
        match repository.store().size(&name) {
            Ok(_) => return Err(StoreError::AlreadyExists { object: name }.into()),
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let key = new_data_key(repository, public)?;
        let identifier = Identifier::new(chunk_key);
        let workers = Workers::start(
            repository,
            Arc::clone(&key),
            identifier,
            options.threads.max(1),
            options.zstd_level,
        );
        Ok(Self {
            repository: repository.clone(),
            key,
            chunk_key: chunk_key.clone(),
            facts,
            workers,
            taken: Mutex::default(),
        })
    }

    #[must_use]
    pub fn id(&self) -> &str {
        &self.facts.id
    }

    /// Bytes of files taken so far.
    #[must_use]
    pub fn bytes_source(&self) -> u64 {
        self.taken().bytes_source
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
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

    /// Enters the tree when its writer is finished; until then `finish` of the backup refuses.
    pub fn file(&self, path: &str, mode: u32, mtime_micros: i64) -> Result<FileWriter<'_>> {
        if !self.taken().open.insert(path.to_owned()) {
            return Err(Error::Input(format!("`{path}` is being written already")));
        }
        Ok(FileWriter {
            writer: self,
            path: path.to_owned(),
            meta: Meta { mode, mtime_micros },
            size: 0,
            chunks: Vec::new(),
            buffer: self.workers.buffer(),
        })
    }

    /// A small file in one call.
    pub fn blob(&self, path: &str, mode: u32, mtime_micros: i64, bytes: &[u8]) -> Result<()> {
        let mut file = self.file(path, mode, mtime_micros)?;
        file.write(bytes)?;
        file.finish()
    }

    /// Stores the tree and, last, the manifest. `Ok` means that the backup exists.
    pub fn finish(self, stop: BackupStop) -> Result<String> {
        let taken = self
            .taken
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = taken.open.first() {
            return Err(Error::Input(format!(
                "`{path}` was begun and not finished: this backup is unusable"
            )));
        }
        let ids = self.workers.chunk_ids()?;
        let root = taken
            .tree
            .store(&ids, &mut |node| self.workers.node(node))?;
        let packs = self.workers.finish()?;
        let facts = self.facts;
        let header = ManifestHeader {
            backup_id: facts.id.clone(),
            kind: facts.kind,
            parent: facts.parent,
            label: facts.label,
            system_identifier: facts.system_identifier,
            timeline: facts.timeline,
            start_lsn: facts.start_lsn,
            stop_lsn: stop.stop_lsn,
            pg_version: facts.pg_version,
            wal_segment_bytes: facts.wal_segment_bytes,
            started_at_micros: facts.started_at_micros,
            finished_at_micros: stop.finished_at_micros,
            bytes_source: taken.bytes_source,
            bytes_stored: packs.iter().map(|pack| pack.bytes).sum(),
            files: taken.files,
            damaged_pages: stop.damaged.len() as u64,
        };
        let body = ManifestBody {
            chunk_id_key: self.chunk_key.to_hex().to_string(),
            root: hex(&root.0),
            packs,
            damaged: stop.damaged,
            facts: stop.facts,
        };
        put_manifest(&self.repository, &self.key, &header, &body)?;
        Ok(facts.id)
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
    retention::refer(repository, &header.backup_id, &packs)?;
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

/// Takes the bytes of one file in order. May be used on any thread.
pub struct FileWriter<'a> {
    writer: &'a BackupWriter,
    path: String,
    meta: Meta,
    size: u64,
    chunks: Vec<usize>,
    buffer: Vec<u8>,
}

impl FileWriter<'_> {
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = CHUNK_BYTES - self.buffer.len();
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(now);
            bytes = rest;
            if self.buffer.len() == CHUNK_BYTES {
                self.send()?;
            }
        }
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        let next = self.writer.workers.buffer();
        let full = std::mem::replace(&mut self.buffer, next);
        self.size += full.len() as u64;
        self.chunks.push(self.writer.workers.chunk(full)?);
        Ok(())
    }

    /// Without it the file, and with it the backup, is incomplete and `BackupWriter::finish` refuses.
    pub fn finish(mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.send()?;
        }
        let chunks = std::mem::take(&mut self.chunks);
        let mut taken = self.writer.taken();
        taken
            .tree
            .add_file(&self.path, self.meta, self.size, chunks)?;
        taken.open.remove(&self.path);
        taken.files += 1;
        taken.bytes_source += self.size;
        Ok(())
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

impl std::fmt::Debug for FileWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileWriter({}, {} bytes)", self.path, self.size)
    }
}
