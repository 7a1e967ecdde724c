//! The least that any backup of this kind must do: read every file, compress it, seal it, write it, sync it.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::Result;

const CHUNK_BYTES: usize = 1 << 20;
const PACK_BYTES: usize = 32 << 20;

pub(super) fn run(from: &Path, to: &Path, threads: usize, level: i32) -> Result<()> {
    let mut files = Vec::new();
    walk(from, &mut files)?;
    // Large ones first: otherwise the last of them keeps one thread alone.
    files.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    let next = AtomicUsize::new(0);
    let (files, next) = (&files, &next);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|number| {
                scope.spawn(move || {
                    worker(number, files, next, to, level).map_err(|error| error.to_string())
                })
            })
            .collect();
        for worker in workers {
            worker
                .join()
                .map_err(|_| "a worker of the floor panicked".to_owned())??;
        }
        Ok::<(), String>(())
    })?;
    File::open(to)?.sync_all()?;
    Ok(())
}

fn walk(folder: &Path, files: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        if meta.is_dir() && entry.file_name() != "pg_wal" {
            walk(&entry.path(), files)?;
        } else if meta.is_file() {
            files.push((entry.path(), meta.len()));
        }
    }
    Ok(())
}

fn worker(
    number: usize,
    files: &[(PathBuf, u64)],
    next: &AtomicUsize,
    to: &Path,
    level: i32,
) -> Result<()> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(|_| "key")?);
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    let mut pack = Vec::with_capacity(PACK_BYTES + CHUNK_BYTES);
    let (mut boxes, mut packs) = (0_u64, 0);
    while let Some((path, _)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
        let mut file = File::open(path)?;
        loop {
            chunk.clear();
            (&mut file)
                .take(CHUNK_BYTES as u64)
                .read_to_end(&mut chunk)?;
            if chunk.is_empty() {
                break;
            }
            let mut sealed = compressor.compress(&chunk)?;
            boxes += 1;
            let mut nonce = [0; 12];
            nonce[..8].copy_from_slice(&boxes.to_be_bytes());
            nonce[8..].copy_from_slice(&u32::try_from(number)?.to_be_bytes());
            key.seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::empty(),
                &mut sealed,
            )
            .map_err(|_| "seal")?;
            pack.extend_from_slice(&sealed);
            if pack.len() >= PACK_BYTES {
                write(to, number, &mut packs, &mut pack)?;
            }
        }
    }
    write(to, number, &mut packs, &mut pack)
}

fn write(to: &Path, number: usize, packs: &mut u64, pack: &mut Vec<u8>) -> Result<()> {
    let mut file = File::create(to.join(format!("{number}-{packs}")))?;
    file.write_all(pack)?;
    file.sync_all()?;
    *packs += 1;
    pack.clear();
    Ok(())
}
