//! A segment of WAL as a file, written as it comes: however large the server's segments are, no more than a few MiB of
//! one are in memory.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use repository::wal::{SegmentPiece, WalReader};

use crate::{Error, Result};

/// Writes a whole segment, the newest one padded with zeros, as [`WalReader::segment_until`] hands it out; its length.
/// Nothing is left of a file where there is none, or after an error.
pub fn place_segment(
    reader: &WalReader,
    (timeline, segment): (u32, u64),
    until: u64,
    path: &Path,
) -> Result<Option<u64>> {
    let (mut file, mut failed) = (None, None);
    let mut take = |piece: SegmentPiece<'_>| {
        if failed.is_none() {
            failed = write(&mut file, path, piece).err();
        }
    };
    let found = reader.segment_in_pieces(timeline, segment, until, &mut take);
    let found = match (found, failed) {
        (found, None) => found.map_err(Error::from),
        (_, Some(error)) => Err(Error::io("write", path)(error)),
    };
    if !matches!(found, Ok(Some(_))) && file.is_some() {
        // Half a segment must not stay.
        let _ = std::fs::remove_file(path);
    }
    found
}

/// The file is made for the first byte: of a segment that is not here there is none.
fn write(file: &mut Option<File>, path: &Path, piece: SegmentPiece<'_>) -> io::Result<()> {
    match (piece, file) {
        (SegmentPiece::Restart, None) => Ok(()),
        (SegmentPiece::Restart, Some(file)) => {
            file.set_len(0)?;
            file.rewind()
        }
        (SegmentPiece::Wal(bytes), Some(file)) => file.write_all(bytes),
        (SegmentPiece::Wal(bytes), file) => {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            file.insert(options.open(path)?).write_all(bytes)
        }
    }
}
