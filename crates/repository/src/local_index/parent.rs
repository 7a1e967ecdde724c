//! The newest backup as its writer knew it. Mirror: `writer`.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader};

use super::records::{Fields, Kind, MAGIC_INDEX, Next, Records, file_header};
use super::window::{ChunkRange, PIECE_BYTES, Window, is_scattered, split};
use super::{CacheFolder, Subject, has_manifest};
use crate::Repository;
use crate::error::Result;
use crate::keys::hex;
use crate::manifest::{CHUNK_BYTES, PackRef};
use crate::pack::BlobId;

/// Holds an index only; the pages' fingerprints stay in the file until they are asked for.
pub(crate) struct ParentIndex {
    pub(crate) backup_id: String,
    subject: Subject,
    pub(crate) packs: Vec<PackRef>,
    /// id, number of its pack, raw length; until the table of the new backup takes them
    pub(crate) blobs: Vec<(BlobId, u32, u32)>,
    raw_lens: Vec<u32>,
    /// Where the record of each file begins.
    files: HashMap<String, u64>,
    file: File,
    folder: CacheFolder,
}

/// Why a backup cannot be based on what the cache says; for people.
type Reason = String;

impl ParentIndex {
    /// The inner error says why there is none that can be used; the outer one, that the repository cannot be asked.
    pub(crate) fn open(
        folder: &CacheFolder,
        repository: &Repository,
    ) -> Result<std::result::Result<Self, Reason>> {
        let parent = match read(folder) {
            Ok(Ok(parent)) => parent,
            Ok(Err(reason)) => return Ok(Err(reason)),
            Err(error) => {
                let reason = format!("the local cache in {}: {error}", folder.describe());
                return Ok(Err(reason));
            }
        };
        let id = &parent.backup_id;
        if !has_manifest(repository, id)? {
            return Ok(Err(format!(
                "backup {id} is not in the repository any more"
            )));
        }
        if crate::references::expiring(repository)?.contains(id) {
            return Ok(Err(format!("backup {id} is expiring")));
        }
        if !folder.can_be_opened(&parent.subject, repository)? {
            return Ok(Err(format!(
                "backup {id} is sealed for another key and was not sealed to this one when the key was replaced"
            )));
        }
        let ids: Vec<String> = parent.packs.iter().map(|pack| pack.id.clone()).collect();
        match crate::references::check_present(repository, &ids) {
            Ok(()) => Ok(Ok(parent)),
            Err(error) if error.is_damage() => {
                let object = error.object().unwrap_or("a pack");
                Ok(Err(format!(
                    "`{object}` of backup {id} is missing or expiring"
                )))
            }
            Err(error) => Err(error),
        }
    }

    /// The windows of a file as they were. `None` for a file that was not there.
    pub(crate) fn windows(&self, path: &str) -> Option<Vec<Window>> {
        let offset = *self.files.get(path)?;
        let read = || -> io::Result<Option<Vec<Window>>> {
            let header = file_header(MAGIC_INDEX);
            let input = io::Read::chain(&header[..], At(&self.file, offset));
            let Some(mut records) = Records::begin(input, self.folder.key.clone(), MAGIC_INDEX)?
            else {
                return Ok(None);
            };
            Ok(match records.next()? {
                Next::Record(Kind::File) => self.parse(path, &records.body),
                _ => None,
            })
        };
        read().unwrap_or_else(|error| {
            tracing::warn!(path, %error, "the local cache cannot be read; the file is stored again");
            None
        })
    }

    fn parse(&self, path: &str, body: &[u8]) -> Option<Vec<Window>> {
        let mut fields = Fields(body);
        if fields.text()? != path {
            return None;
        }
        let size = fields.u64()?;
        let count = usize::try_from(size.div_ceil(CHUNK_BYTES as u64)).ok()?;
        let mut windows = Vec::new();
        for number in 0..count {
            let left = size - (number * CHUNK_BYTES) as u64;
            let len = usize::try_from(left.min(CHUNK_BYTES as u64)).ok()?;
            windows.push(self.window(&mut fields, len)?);
        }
        fields.0.is_empty().then_some(windows)
    }

    /// What the source of that backup wanted to find again.
    pub(crate) fn remembered(&self) -> &BTreeMap<String, String> {
        &self.subject.remembered
    }

    /// The files of which pieces may be kept without being looked at: all whose windows need no tidying. Nothing is tidied that
    /// is not read, so the others have to be read as a whole.
    pub(crate) fn keepable(&self) -> io::Result<Vec<String>> {
        let input = BufReader::with_capacity(1 << 20, At(&self.file, 0));
        let mut found = Vec::new();
        let Some(mut records) = Records::begin(input, self.folder.key.clone(), MAGIC_INDEX)? else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        loop {
            match records.next()? {
                Next::Record(Kind::File) => {
                    let file = self.is_keepable(&records.body);
                    found.extend(file.ok_or(io::ErrorKind::InvalidData)?);
                }
                // Files come first.
                Next::Record(_) => return Ok(found),
                Next::NoMore | Next::Damaged => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    /// The inner `None`: it is not; the outer one: the record is damaged.
    fn is_keepable(&self, body: &[u8]) -> Option<Option<String>> {
        let mut fields = Fields(body);
        let path = fields.text()?.to_owned();
        let mut left = fields.u64()?;
        let chunk_len = |blob: u32| self.raw_lens.get(blob as usize).copied().unwrap_or(0);
        let mut scattered = false;
        while left > 0 {
            let len = left.min(CHUNK_BYTES as u64);
            scattered |= is_scattered(&self.runs(&mut fields)?, &chunk_len);
            let fingerprints = usize::try_from(len).ok()?.div_ceil(PIECE_BYTES) * 16;
            fields.0 = fields.0.get(fingerprints..)?;
            left -= len;
        }
        Some((!scattered).then_some(path))
    }

    fn runs(&self, fields: &mut Fields<'_>) -> Option<Vec<ChunkRange>> {
        let mut runs = Vec::new();
        for _ in 0..fields.u16()? {
            let (length, offset, blob) = (fields.u32()?, fields.u32()?, fields.u32()?);
            let raw_len = self.raw_lens.get(usize::try_from(blob).ok()?)?;
            offset.checked_add(length).filter(|end| end <= raw_len)?;
            runs.push(ChunkRange {
                blob,
                offset,
                length,
            });
        }
        Some(runs)
    }

    fn window(&self, fields: &mut Fields<'_>, len: usize) -> Option<Window> {
        let runs = self.runs(fields)?;
        let fingerprints = (0..len.div_ceil(PIECE_BYTES))
            .map(|_| fields.array())
            .collect::<Option<_>>()?;
        Some(Window {
            fingerprints,
            pieces: split(&runs, len)?,
        })
    }
}

/// Reads a file from a place of its own: its position is shared by all who have it open.
struct At<'a>(&'a File, u64);

impl io::Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = std::os::unix::fs::FileExt::read_at(self.0, buffer, self.1)?;
        self.1 += count as u64;
        Ok(count)
    }
}

/// The whole file once: every record matches its check, or nothing of it is used.
fn read(folder: &CacheFolder) -> io::Result<std::result::Result<ParentIndex, Reason>> {
    let file = match File::open(folder.index_path()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Err(format!(
                "there is no earlier backup of this cluster in the local cache {}",
                folder.describe()
            )));
        }
        other => other?,
    };
    let damaged = || {
        Ok(Err(format!(
            "the local cache {} is damaged, or of another chunk id key",
            folder.index_path().display()
        )))
    };
    let input = BufReader::with_capacity(1 << 20, &file);
    let Some(mut records) = Records::begin(input, folder.key.clone(), MAGIC_INDEX)? else {
        return damaged();
    };
    let (mut files, mut packs, mut blobs) = (HashMap::new(), Vec::new(), Vec::new());
    let subject = loop {
        let offset = records.offset;
        let Next::Record(kind) = records.next()? else {
            return damaged();
        };
        let parsed = match kind {
            Kind::File => Fields(&records.body).text().map(|path| {
                files.insert(path.to_owned(), offset);
            }),
            Kind::Packs => parse_packs(&records.body, &mut packs),
            Kind::Blobs => parse_blobs(&records.body, &mut blobs),
            Kind::End => break serde_json::from_slice::<Subject>(&records.body).ok(),
            Kind::JournalHead | Kind::CompletedPack | Kind::Documents => None,
        };
        if parsed.is_none() {
            return damaged();
        }
    };
    let Some(subject) = subject.filter(|_| records.next().is_ok_and(|next| next == Next::NoMore))
    else {
        return damaged();
    };
    if !folder.is_ours(&subject) {
        return Ok(Err(format!(
            "the local cache {} is of another repository or cluster",
            folder.index_path().display()
        )));
    }
    let counts = [files.len(), packs.len(), blobs.len()].map(|count| count as u64);
    let in_range = |(_, pack, _): &(BlobId, u32, u32)| u64::from(*pack) < counts[1];
    if counts != [subject.files, subject.packs, subject.blobs] || !blobs.iter().all(in_range) {
        return damaged();
    }
    drop(records);
    Ok(Ok(ParentIndex {
        backup_id: subject.backup_id.clone(),
        subject,
        packs,
        raw_lens: blobs.iter().map(|(_, _, raw_len)| *raw_len).collect(),
        blobs,
        files,
        file,
        folder: folder.clone(),
    }))
}

pub(super) fn parse_packs(body: &[u8], packs: &mut Vec<PackRef>) -> Option<()> {
    let mut fields = Fields(body);
    while !fields.0.is_empty() {
        packs.push(PackRef {
            id: hex(&fields.array::<16>()?),
            bytes: fields.u64()?,
        });
    }
    Some(())
}

pub(super) fn parse_blobs(body: &[u8], blobs: &mut Vec<(BlobId, u32, u32)>) -> Option<()> {
    let mut fields = Fields(body);
    while !fields.0.is_empty() {
        blobs.push((BlobId(fields.array()?), fields.u32()?, fields.u32()?));
    }
    Some(())
}
