//! The tree of a backup while it is written: paths in, nodes out, leaves first.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::manifest::{
    Child, DirEntry, Extent, FileLayout, INLINE_EXTENTS_MAX, LEAF_BYTES, Node, encode,
};
use crate::pack::BlobId;

const UNDIVIDED_ENTRIES_MAX: usize = 128;
/// One name of 64.
const CUT_BELOW: u32 = 1 << 26;

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
    /// What is in it is known later, under this number.
    File {
        meta: Meta,
        slot: usize,
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

    pub(super) fn add_file(&mut self, path: &str, meta: Meta, slot: usize) -> Result<()> {
        self.add(path, Item::File { meta, slot })
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

    pub(super) fn has_file(&self, path: &str) -> bool {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut at = self;
        for name in parent.split('/').filter(|name| !name.is_empty()) {
            match at.children.get(name) {
                Some(Item::Directory(directory)) => at = directory,
                _ => return false,
            }
        }
        matches!(at.children.get(name), Some(Item::File { .. }))
    }

    fn add(&mut self, path: &str, item: Item) -> Result<()> {
        let (parent, name) = self.parent_of(path)?;
        match parent.children.entry(name) {
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(item);
                Ok(())
            }
            std::collections::btree_map::Entry::Occupied(_) => Err(twice(path)),
        }
    }

    /// The folder that `path` goes into, made when missing, and the last name.
    fn parent_of(&mut self, path: &str) -> Result<(&mut Self, String)> {
        let mut names: Vec<&str> = path.split('/').collect();
        let bad =
            |name: &&str| name.is_empty() || *name == "." || *name == ".." || name.len() > 4096;
        if names.iter().any(bad) || path.len() > usize::from(u16::MAX) {
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

    /// Stores all nodes through `put` and returns the root's id. `layouts` are those of files, by slot.
    pub(super) fn store(
        &self,
        layouts: &[Option<(u64, FileLayout)>],
        put: &mut dyn FnMut(Vec<u8>) -> Result<BlobId>,
    ) -> Result<BlobId> {
        let mut entries = Vec::with_capacity(self.children.len());
        for (name, item) in &self.children {
            let (meta, child) = match item {
                Item::Directory(directory) => (
                    directory.meta,
                    Child::Directory(directory.store(layouts, put)?),
                ),
                Item::File { meta, slot } => {
                    let Some((size, layout)) = layouts.get(*slot).cloned().flatten() else {
                        return Err(Error::Input(format!("the file `{name}` was lost")));
                    };
                    (*meta, Child::File { size, layout })
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
        store_directory(entries, put)
    }
}

/// Divided when it is long, so that one changed file does not store all names again.
fn store_directory(
    mut entries: Vec<DirEntry>,
    put: &mut dyn FnMut(Vec<u8>) -> Result<BlobId>,
) -> Result<BlobId> {
    if entries.len() <= UNDIVIDED_ENTRIES_MAX {
        return put(encode(&Node::Directory(entries)));
    }
    let mut parts = Vec::new();
    while !entries.is_empty() {
        let next = entries.iter().skip(1).position(|entry| is_cut(&entry.name));
        let rest = entries.split_off(next.map_or(entries.len(), |at| at + 1));
        let part = std::mem::replace(&mut entries, rest);
        parts.push((part[0].name.clone(), put(encode(&Node::Directory(part)))?));
    }
    put(encode(&Node::Divided(parts)))
}

/// Depends on the name alone: a file more or less moves no other cut.
fn is_cut(name: &str) -> bool {
    let hash = blake3::hash(name.as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    u32::from_be_bytes([a, b, c, d]) < CUT_BELOW
}

/// How a file's extents are written down: in its folder while they are few, else as a map of leaves.
pub(super) fn store_layout(
    extents: Vec<Extent>,
    put: &mut dyn FnMut(Vec<u8>) -> Result<BlobId>,
) -> Result<FileLayout> {
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

fn twice(path: &str) -> Error {
    Error::Input(format!("`{path}` was given twice"))
}
