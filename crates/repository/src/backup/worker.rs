//! One worker of the pool, with the pack that it fills.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::open_file::{OpenFile, WholeFile};
use super::table::Origin;
use super::tree::store_layout;
use super::workers::{Job, SharedState, lock};
use crate::error::{Error, Result};
use crate::local_index::{
    ChunkRange, CompletedPack, Fingerprint, PIECE_BYTES, Window, changed, merge, to_store,
    with_kept,
};
use crate::manifest::{CHUNK_BYTES, Extent, PackRef};
use crate::pack::{BlobId, PACK_BYTES_MAX, PackBuilder, pack_name};
use crate::pipeline::{BoxKind, Compression};

pub(super) struct Worker {
    shared: Arc<SharedState>,
    /// Where full packs go.
    putters: Sender<OpenPack>,
    pack: Option<OpenPack>,
    /// The pieces of a window that are stored again.
    scratch: Vec<u8>,
}

/// A pack that is being filled, or is on its way into the store.
pub(super) struct OpenPack {
    builder: PackBuilder,
    number: u32,
    blobs: Vec<(BlobId, u32)>,
}

impl Worker {
    pub(super) fn new(shared: Arc<SharedState>, putters: Sender<OpenPack>) -> Self {
        Self {
            shared,
            putters,
            pack: None,
            scratch: Vec::new(),
        }
    }

    pub(super) fn run(mut self, queue: &Receiver<Job>, spent: &Sender<Vec<u8>>) {
        // After a failure jobs are still taken, so that nobody blocks, and dropped.
        for job in queue {
            let outcome = if self.shared.has_failed() {
                Ok(Vec::new())
            } else {
                self.take(job)
            };
            match outcome {
                Ok(mut raw) => {
                    raw.clear();
                    if raw.capacity() >= CHUNK_BYTES {
                        let _ = spent.send(raw);
                    }
                }
                Err(error) => self.shared.fail(error),
            }
            self.shared.job_done();
        }
        self.hand_over();
    }

    fn take(&mut self, job: Job) -> Result<Vec<u8>> {
        match job {
            Job::Node { id, raw } => {
                self.put(BoxKind::Node, id, &raw)?;
                Ok(raw)
            }
            Job::Window {
                file,
                number,
                raw,
                kept,
                end,
            } => {
                let done = if raw.is_empty() && kept.is_empty() {
                    None
                } else {
                    Some((number, self.window(&file, number, &raw, &kept)?))
                };
                if let Some(completed) = file.note(done, end)? {
                    self.complete(&file, &completed)?;
                }
                Ok(raw)
            }
        }
    }

    /// Stores what changed of a window, as one chunk.
    fn window(
        &mut self,
        file: &OpenFile,
        number: usize,
        raw: &[u8],
        kept: &[bool],
    ) -> Result<Window> {
        let parent = file.parent(number);
        let (fingerprints, store) = self.compare(file, parent.as_ref(), raw, kept)?;
        let is_given = |at: usize| kept.get(at) != Some(&true);
        let given = store.iter().enumerate().filter(|(at, _)| is_given(*at));
        let mut next = self.store(raw, &given.map(|(_, again)| *again).collect::<Vec<_>>())?;
        let was = parent.map(|parent| parent.pieces).unwrap_or_default();
        let mut pieces = Vec::with_capacity(store.len());
        let mut given = raw.chunks(PIECE_BYTES);
        for (at, again) in store.iter().enumerate() {
            let piece = match is_given(at) {
                true => given.next().unwrap_or_default(),
                false => &[],
            };
            pieces.push(match was.get(at) {
                Some(place) if !again => *place,
                _ => {
                    // A piece is never longer than 8 KiB.
                    let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
                    let place = ChunkRange { length, ..next };
                    next.offset += length;
                    place
                }
            });
        }
        let mut table = lock(&self.shared.table);
        for run in merge(&pieces) {
            table.note_use(run.blob);
        }
        drop(table);
        Ok(Window {
            fingerprints,
            pieces,
        })
    }

    /// The fingerprint of every piece, and which have to be stored. What was not read cannot be tidied.
    fn compare(
        &self,
        file: &OpenFile,
        parent: Option<&Window>,
        raw: &[u8],
        kept: &[bool],
    ) -> Result<(Vec<Fingerprint>, Vec<bool>)> {
        let Some(fingerprinter) = &self.shared.fingerprinter else {
            let pieces = raw.len().div_ceil(PIECE_BYTES);
            return Ok((Vec::new(), vec![true; pieces]));
        };
        let given = fingerprinter.all(raw);
        if kept.is_empty() {
            let table = lock(&self.shared.table);
            let store = to_store(parent, &given, &|blob| table.raw_len(blob));
            return Ok((given, store));
        }
        let all = parent.and_then(|parent| Some((parent, with_kept(parent, kept, given)?)));
        let (parent, all) = all.ok_or_else(|| {
            Error::Input(format!(
                "`{}`: the parent backup has no copy of a page that the source skipped",
                file.path
            ))
        })?;
        let store = changed(parent, &all);
        Ok((all, store))
    }

    /// The start of the chunk that holds the chosen pieces.
    fn store(&mut self, raw: &[u8], store: &[bool]) -> Result<ChunkRange> {
        let chosen = store.iter().filter(|again| **again).count();
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let bytes = if chosen == store.len() {
            raw
        } else {
            let pieces = raw.chunks(PIECE_BYTES).zip(store);
            for (piece, _) in pieces.filter(|(_, again)| **again) {
                scratch.extend_from_slice(piece);
            }
            &scratch[..]
        };
        let mut place = ChunkRange {
            blob: 0,
            offset: 0,
            length: 0,
        };
        if !bytes.is_empty() {
            let id = self.shared.identifier.id(BoxKind::Chunk, bytes);
            place.blob = self.put(BoxKind::Chunk, id, bytes)?;
        }
        self.scratch = scratch;
        Ok(place)
    }

    fn complete(&mut self, file: &OpenFile, completed: &WholeFile) -> Result<()> {
        let mut extents = Vec::new();
        {
            let table = lock(&self.shared.table);
            let mut reused_bytes = lock(&self.shared.reused_bytes);
            for (number, window) in completed.windows.iter().enumerate() {
                let runs = merge(&window.pieces);
                let reused = table.reused_bytes(&runs);
                reused_bytes.reused += reused.reused;
                reused_bytes.resumed += reused.resumed;
                let mut file_offset = (number * CHUNK_BYTES) as u64;
                for run in runs {
                    extents.push(Extent {
                        file_offset,
                        length: run.length,
                        chunk_offset: run.offset,
                        chunk: table.id(run.blob),
                    });
                    file_offset += u64::from(run.length);
                }
            }
        }
        let layout = store_layout(extents, &mut |raw| {
            let id = self.shared.identifier.id(BoxKind::Node, &raw);
            self.put(BoxKind::Node, id, &raw)?;
            Ok(id)
        })?;
        let mut layouts = lock(&self.shared.layouts);
        if layouts.len() <= file.slot {
            layouts.resize(file.slot + 1, None);
        }
        layouts[file.slot] = Some((completed.size, layout));
        drop(layouts);
        let mut index = lock(&self.shared.index);
        if let Some(writer) = index.as_mut()
            && let Err(error) = writer.file(&file.path, completed.size, completed.windows.iter())
        {
            tracing::warn!(%error, "the local cache cannot be written; the next backup will not know this one");
            *index = None;
        }
        Ok(())
    }

    /// The number of a chunk or node that is in the repository now, or will be when the open pack is put.
    fn put(&mut self, kind: BoxKind, id: BlobId, raw: &[u8]) -> Result<u32> {
        let find = |shared: &SharedState| {
            let mut table = lock(&shared.table);
            table.find(id).inspect(|blob| table.note_use(*blob))
        };
        if let Some(blob) = find(&self.shared) {
            return Ok(blob);
        }
        let pack = match &mut self.pack {
            Some(pack) => pack,
            none => none.insert(OpenPack::new(&self.shared)?),
        };
        // At most 1 MiB, or a node, which is far below 4 GiB.
        let raw_len = u32::try_from(raw.len()).unwrap_or(u32::MAX);
        let mut table = lock(&self.shared.table);
        if let Some(blob) = table.find(id) {
            table.note_use(blob);
            return Ok(blob);
        }
        let blob = table.add(id, pack.number, raw_len);
        table.note_use(blob);
        drop(table);
        pack.blobs.push((id, raw_len));
        pack.builder
            .add(kind, id, Compression::Zstd(self.shared.level), raw)?;
        if pack.builder.len() >= PACK_BYTES_MAX {
            self.hand_over();
        }
        Ok(blob)
    }

    /// The pack goes to a putter. Those end after all workers, so that there is always one who takes it.
    fn hand_over(&mut self) {
        if let Some(pack) = self.pack.take().filter(|pack| !pack.blobs.is_empty()) {
            let _ = self.putters.send(pack);
        }
    }
}

/// Puts full packs, so that no worker waits for a disk.
pub(super) fn put_packs(shared: &SharedState, packs: &Receiver<OpenPack>) {
    for pack in packs {
        if !shared.has_failed()
            && let Err(error) = pack.put(shared)
        {
            shared.fail(error);
        }
    }
}

impl OpenPack {
    fn put(self, shared: &SharedState) -> Result<()> {
        let pack = self;
        let (id, bytes) = pack.builder.finish()?;
        shared.repository.store().put(&pack_name(&id), &bytes)?;
        let (bytes, room) = (bytes.len() as u64, bytes);
        lock(&shared.free_buffers).push(room);
        lock(&shared.table).set_pack_bytes(pack.number, bytes);
        let done = CompletedPack {
            pack: PackRef { id, bytes },
            blobs: pack.blobs,
        };
        let mut journal = lock(&shared.journal);
        if let Some(open) = journal.as_mut()
            && let Err(error) = open.append(&done)
        {
            tracing::warn!(%error, "the journal of this backup cannot be written; a killed one cannot be resumed");
            *journal = None;
        }
        Ok(())
    }

    fn new(shared: &SharedState) -> Result<Self> {
        // New room costs more than filling it: each page of it is cleared first.
        let room = lock(&shared.free_buffers).pop().unwrap_or_default();
        let builder = PackBuilder::new(&shared.key, room)?;
        let pack = PackRef {
            id: builder.id.clone(),
            bytes: 0,
        };
        Ok(Self {
            number: lock(&shared.table).add_pack(pack, Origin::Own),
            builder,
            blobs: Vec::new(),
        })
    }
}
