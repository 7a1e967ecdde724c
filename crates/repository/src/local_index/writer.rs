//! Writes what the next backup will want to know of this one. Mirror: `parent`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};

use super::records::{Kind, MAGIC_INDEX, append_record, file_header};
use super::window::{Window, merge};
use super::{CacheFolder, create};
use crate::keys::from_hex;
use crate::manifest::PackRef;
use crate::pack::BlobId;
use crate::repository::to_json;

/// Rows of a table in one record.
const ROWS_MAX: usize = 16_384;
const NONE: u32 = u32::MAX;

/// A temporary file until `commit`. Numbers of blobs and packs are given anew, so that what is not used any more is forgotten.
pub(crate) struct IndexWriter {
    folder: CacheFolder,
    backup_id: String,
    output: BufWriter<File>,
    files: u64,
    blobs: Numbers,
    record: Vec<u8>,
    body: Vec<u8>,
}

/// The numbers of this session → those in the file, in the order of their first use.
#[derive(Default)]
struct Numbers {
    given: Vec<u32>,
    order: Vec<u32>,
}

impl Numbers {
    fn number(&mut self, session: u32) -> u32 {
        let at = session as usize;
        if self.given.len() <= at {
            self.given.resize(at + 1, NONE);
        }
        if self.given[at] == NONE {
            // As many as there are blobs, which fit an `u32`.
            self.given[at] = u32::try_from(self.order.len()).unwrap_or(NONE);
            self.order.push(session);
        }
        self.given[at]
    }
}

impl IndexWriter {
    pub(crate) fn begin(folder: &CacheFolder, backup_id: &str) -> io::Result<Self> {
        let file = create(&folder.temporary(backup_id))?;
        let mut output = BufWriter::with_capacity(1 << 18, file);
        output.write_all(&file_header(MAGIC_INDEX))?;
        Ok(Self {
            folder: folder.clone(),
            backup_id: backup_id.to_owned(),
            output,
            files: 0,
            blobs: Numbers::default(),
            record: Vec::new(),
            body: Vec::new(),
        })
    }

    pub(crate) fn file<'a>(
        &mut self,
        path: &str,
        size: u64,
        windows: impl Iterator<Item = &'a Window>,
    ) -> io::Result<()> {
        self.body.clear();
        put_text(&mut self.body, path);
        self.body.extend_from_slice(&size.to_be_bytes());
        for window in windows {
            let runs = merge(&window.pieces);
            // At most one a piece, 128.
            let count = u16::try_from(runs.len()).unwrap_or(u16::MAX);
            self.body.extend_from_slice(&count.to_be_bytes());
            for run in runs {
                for field in [run.length, run.offset, self.blobs.number(run.blob)] {
                    self.body.extend_from_slice(&field.to_be_bytes());
                }
            }
            self.body
                .extend_from_slice(window.fingerprints.as_flattened());
        }
        self.files += 1;
        self.put(Kind::File)
    }

    fn put(&mut self, kind: Kind) -> io::Result<()> {
        self.record.clear();
        append_record(&mut self.record, &self.folder.key, kind, &self.body);
        self.output.write_all(&self.record)
    }

    /// The tables: `blobs` and `packs` by their numbers in this session; `extra` are blobs used beyond those of files.
    pub(crate) fn tables(
        &mut self,
        blobs: &dyn Fn(u32) -> (BlobId, u32, u32),
        packs: &dyn Fn(u32) -> PackRef,
        extra: impl Iterator<Item = u32>,
        remembered: BTreeMap<String, String>,
    ) -> io::Result<()> {
        for blob in extra {
            self.blobs.number(blob);
        }
        let mut used = Numbers::default();
        let order = std::mem::take(&mut self.blobs.order);
        for rows in order.chunks(ROWS_MAX) {
            self.body.clear();
            for row in rows {
                let (id, pack, raw_len) = blobs(*row);
                self.body.extend_from_slice(&id.0);
                self.body
                    .extend_from_slice(&used.number(pack).to_be_bytes());
                self.body.extend_from_slice(&raw_len.to_be_bytes());
            }
            self.put(Kind::Blobs)?;
        }
        for rows in used.order.chunks(ROWS_MAX) {
            self.body.clear();
            for row in rows {
                let pack = packs(*row);
                let id = from_hex(&pack.id).unwrap_or_default();
                self.body.extend_from_slice(&id);
                self.body.extend_from_slice(&pack.bytes.to_be_bytes());
            }
            self.put(Kind::Packs)?;
        }
        let mut subject = self.folder.subject(&self.backup_id);
        subject.files = self.files;
        subject.blobs = order.len() as u64;
        subject.packs = used.order.len() as u64;
        subject.remembered = remembered;
        self.body = to_json(&subject);
        self.put(Kind::End)?;
        self.output.flush()?;
        self.output.get_ref().sync_all()
    }

    /// To be called after the manifest was put, and after `tables`.
    pub(crate) fn commit(self) -> io::Result<()> {
        fs::rename(
            self.folder.temporary(&self.backup_id),
            self.folder.index_path(),
        )?;
        self.folder.sync()
    }
}

impl Drop for IndexWriter {
    /// A backup that did not become one leaves nothing; after `commit` there is nothing of this name.
    fn drop(&mut self) {
        let _ = fs::remove_file(self.folder.temporary(&self.backup_id));
    }
}

/// Paths were checked to be shorter when they were taken in.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}
