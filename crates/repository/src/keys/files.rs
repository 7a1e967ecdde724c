//! Key files: one line, `<what it is> <64 hex digits>`, or `<what it is> <where its provider keeps it>`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::{from_hex, hex};
use crate::error::{Error, Result};

/// A secret: refused where others can reach the file.
pub(super) fn load(path: &Path, prefix: &str) -> Result<Zeroizing<[u8; 32]>> {
    parse(path, &secrets::read_text(path)?, prefix)
}

/// What everybody may know.
pub(super) fn load_public(path: &Path, prefix: &str) -> Result<Zeroizing<[u8; 32]>> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::Key {
        what: path.display().to_string(),
        reason: error.to_string(),
    })?;
    parse(path, &text, prefix)
}

fn parse(path: &Path, text: &str, prefix: &str) -> Result<Zeroizing<[u8; 32]>> {
    let fail = |reason: String| Error::Key {
        what: path.display().to_string(),
        reason,
    };
    let digits = text.trim_end().strip_prefix(prefix).map(str::trim);
    let bytes = digits.and_then(from_hex).map(Zeroizing::new);
    bytes
        .and_then(|b| b.as_slice().try_into().ok())
        .map(Zeroizing::new)
        .ok_or_else(|| {
            fail(format!(
                "is not a line `{prefix} <64 hex digits>`; give the right file"
            ))
        })
}

pub(super) fn line(prefix: &str, bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(format!("{prefix} {}", hex(bytes)))
}

pub(super) fn store(path: &Path, line: &str, mode: u32) -> Result<()> {
    let line = Zeroizing::new(format!("{line}\n"));
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(line.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|e: std::io::Error| Error::Key {
        what: path.display().to_string(),
        reason: e.to_string(),
    })
}
