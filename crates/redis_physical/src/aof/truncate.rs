//! Back to a moment, with the server's own tool (`redis-check-aof --truncate-to-timestamp`). The tool says that it
//! succeeded where it cannot go back that far, too, and it cuts the last file only: both are looked at first.

use std::fs;
use std::path::Path;

use super::{Manifest, scan_file};
use crate::error::{RedisError, Result};
use crate::scratch::Program;

/// What a truncation left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truncation {
    pub manifest: Manifest,
    /// Increments that began after the moment.
    pub dropped: usize,
}

/// The earliest moment that files can go back to; none: they have no marks before which they are complete.
pub fn first_moment_seconds(folder: &Path, manifest: &Manifest) -> Result<Option<i64>> {
    for file in &manifest.increments {
        let scan = scan_file(&folder.join(&file.name))?;
        if scan.commands > 0 || scan.first_moment_seconds.is_some() {
            return Ok(scan.first_moment_seconds);
        }
    }
    Ok(None)
}

/// All of the second stays. The folder is a copy of our own: its last increment is written to.
pub fn truncate(
    program: &Program,
    folder: &Path,
    manifest_name: &str,
    seconds: i64,
) -> Result<Truncation> {
    let path = folder.join(manifest_name);
    let text = fs::read_to_string(&path).map_err(RedisError::file("read", &path))?;
    let refused = |fault: String| RedisError::Manifest {
        path: path.clone(),
        fault,
    };
    let mut manifest = Manifest::parse(&text).map_err(refused)?;
    match first_moment_seconds(folder, &manifest)? {
        None => {
            return Err(refused(
                "it has no time marks (aof-timestamp-enabled was not yes): it goes back to its end alone"
                    .to_owned(),
            ));
        }
        Some(first) if first > seconds => {
            return Err(refused(format!(
                "it reaches back to {first} (seconds since 1970) and not to {seconds}: take an earlier copy"
            )));
        }
        Some(_) => {}
    }
    let mut dropped = 0;
    while let Some(last) = manifest.newest() {
        let scan = scan_file(&folder.join(&last.name))?;
        // One without commands says nothing, and the tool could not cut behind it.
        let begins_later = scan
            .first_moment_seconds
            .is_none_or(|first| first > seconds);
        if !begins_later || manifest.increments.len() == 1 {
            break;
        }
        manifest.increments.pop();
        dropped += 1;
    }
    fs::write(&path, manifest.to_string()).map_err(RedisError::file("write", &path))?;
    program.check_aof(&path, &["--truncate-to-timestamp", &seconds.to_string()])?;
    // What the tool says is not what counts.
    if let Some(last) = manifest.newest() {
        let left = scan_file(&folder.join(&last.name))?;
        if left.last_moment_seconds.is_some_and(|last| last > seconds) {
            return Err(refused(format!(
                "{} still holds what came after {seconds}",
                last.name
            )));
        }
    }
    Ok(Truncation { manifest, dropped })
}
