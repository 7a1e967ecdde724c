//! The tree of a backup while it is written: paths in, nodes out, leaves first.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::manifest::{
    CHUNK_BYTES, Child, DirEntry, Extent, FileLayout, INLINE_EXTENTS_MAX, LEAF_BYTES, Node, encode,
};
use crate::pack::BlobId;

#[derive(Debug, Clone, Copy)]
pub(super) struct Meta {
    pub(super) mode: u32,
    pub(super) mtime_micros: i64,
}

#[derive(Debug)]
pub(super) struct Directory {
    meta: Meta,
    children: BTreeMap<String, Item>,
}

#[derive(Debug)]
enum Item {
    Directory(Directory),
    /// Chunks are numbered; all but the last are full.
    File {
        meta: Meta,
        size: u64,
        chunks: Vec<usize>,
    },
    Symlink {
        meta: Meta,
        target: String,
    },
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            meta: Meta {
                mode: 0o700,
                mtime_micros: 0,
            },
            children: BTreeMap::new(),
        }
    }
}

impl Directory {
    pub(super) fn add_directory(&mut self, path: &str, meta: Meta) -> Result<()> {
        let (parent, name) = self.parent_of(path)?;
        match parent
            .children
            .entry(name)
            .or_insert_with(|| Item::Directory(Self::default()))
        {
            Item::Directory(directory) => {
                directory.meta = meta;
                Ok(())
            }
            _ => Err(twice(path)),
        }
    }

    pub(super) fn add_file(
        &mut self,
        path: &str,
        meta: Meta,
        size: u64,
        chunks: Vec<usize>,
    ) -> Result<()> {
        self.add(path, Item::File { meta, size, chunks })
    }

    pub(super) fn add_symlink(&mut self, path: &str, meta: Meta, target: &str) -> Result<()> {
        if target.len() > usize::from(u16::MAX) {
            return Err(Error::Input(format!(
                "the link `{path}` has too long a target"
            )));
        }
        self.add(
            path,
            Item::Symlink {
                meta,
                target: target.to_owned(),
            },
        )
    }

    fn add(&mut self, path: &str, item: Item) -> Result<()> {
        let (parent, name) = self.parent_of(path)?;
        match parent.children.insert(name, item) {
            None => Ok(()),
            Some(_) => Err(twice(path)),
        }
    }

    /// The folder that `path` goes into, made when missing, and the last name.
    fn parent_of(&mut self, path: &str) -> Result<(&mut Self, String)> {
        let mut names: Vec<&str> = path.split('/').collect();
        let bad =
            |name: &&str| name.is_empty() || *name == "." || *name == ".." || name.len() > 4096;
        if names.iter().any(bad) {
            return Err(Error::Input(format!(
                "`{path}` is not a relative path of plain names"
            )));
        }
        // `split` yields at least one name.
        let last = names.pop().unwrap_or_default().to_owned();
        let mut at = self;
        for name in names {
            let next = at
                .children
                .entry(name.to_owned())
                .or_insert_with(|| Item::Directory(Self::default()));
            at = match next {
                Item::Directory(directory) => directory,
                _ => {
                    return Err(Error::Input(format!(
                        "`{path}` lies below something that is no folder"
                    )));
                }
            };
        }
        Ok((at, last))
    }

    /// Stores all nodes through `put` and returns the root's id.
    pub(super) fn store(
        &self,
        ids: &[BlobId],
        put: &mut dyn FnMut(Vec<u8>) -> Result<BlobId>,
    ) -> Result<BlobId> {
        let mut entries = Vec::with_capacity(self.children.len());
        for (name, item) in &self.children {
            let (meta, child) = match item {
                Item::Directory(directory) => {
                    (directory.meta, Child::Directory(directory.store(ids, put)?))
                }
                Item::File { meta, size, chunks } => {
                    let layout = store_layout(*size, chunks, ids, put)?;
                    (
                        *meta,
                        Child::File {
                            size: *size,
                            layout,
                        },
                    )
                }
                Item::Symlink { meta, target } => (*meta, Child::Symlink(target.clone())),
            };
            entries.push(DirEntry {
                name: name.clone(),
                mode: meta.mode,
                mtime_micros: meta.mtime_micros,
                child,
            });
        }
        put(encode(&Node::Directory(entries)))
    }
}

fn store_layout(
    size: u64,
    chunks: &[usize],
    ids: &[BlobId],
    put: &mut dyn FnMut(Vec<u8>) -> Result<BlobId>,
) -> Result<FileLayout> {
    let extents = extents_of(size, chunks, ids)?;
    if extents.len() <= INLINE_EXTENTS_MAX {
        return Ok(FileLayout::Inline(extents));
    }
    let mut leaves = Vec::new();
    for leaf in extents.chunk_by(|a, b| a.file_offset / LEAF_BYTES == b.file_offset / LEAF_BYTES) {
        let offset = leaf[0].file_offset;
        let length = leaf.iter().map(|extent| u64::from(extent.length)).sum();
        leaves.push((offset, length, put(encode(&Node::Leaf(leaf.to_vec())))?));
    }
    match leaves.as_slice() {
        [(_, _, only)] => Ok(FileLayout::Map(*only)),
        _ => Ok(FileLayout::Map(put(encode(&Node::Inner(leaves)))?)),
    }
}

fn extents_of(size: u64, chunks: &[usize], ids: &[BlobId]) -> Result<Vec<Extent>> {
    let mut file_offset = 0;
    let mut extents = Vec::with_capacity(chunks.len());
    for number in chunks {
        let length = (size - file_offset).min(CHUNK_BYTES as u64);
        extents.push(Extent {
            file_offset,
            // At most `CHUNK_BYTES`.
            length: u32::try_from(length).unwrap_or(u32::MAX),
            chunk_offset: 0,
            chunk: *ids
                .get(*number)
                .ok_or_else(|| Error::Input("a chunk was lost".to_owned()))?,
        });
        file_offset += length;
    }
    Ok(extents)
}

fn twice(path: &str) -> Error {
    Error::Input(format!("`{path}` was given twice"))
}
