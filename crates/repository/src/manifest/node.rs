//! Nodes of the tree as bytes (repository.md §7). `encode` and `decode` are mirrors.

use super::Extent;
use crate::pack::BlobId;

const VERSION: u8 = 1;
const DIRECTORY: u8 = 1;
const LEAF: u8 = 2;
const INNER: u8 = 3;
const DIVIDED: u8 = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Directory(Vec<DirEntry>),
    Leaf(Vec<Extent>),
    /// (file offset, length, leaf)
    Inner(Vec<(u64, u64, BlobId)>),
    /// (first name, directory): a long directory in parts
    Divided(Vec<(String, BlobId)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DirEntry {
    pub(crate) name: String,
    pub(crate) mode: u32,
    pub(crate) mtime_micros: i64,
    pub(crate) child: Child,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Child {
    Directory(BlobId),
    File { size: u64, layout: FileLayout },
    Symlink(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileLayout {
    Inline(Vec<Extent>),
    Map(BlobId),
}

pub(crate) fn encode(node: &Node) -> Vec<u8> {
    let mut out = vec![VERSION];
    match node {
        Node::Directory(entries) => {
            out.push(DIRECTORY);
            put_len32(&mut out, entries.len());
            for entry in entries {
                encode_entry(&mut out, entry);
            }
        }
        Node::Leaf(extents) => {
            out.push(LEAF);
            put_len32(&mut out, extents.len());
            extents
                .iter()
                .for_each(|extent| encode_extent(&mut out, extent));
        }
        Node::Inner(children) => {
            out.push(INNER);
            put_len32(&mut out, children.len());
            for (offset, length, leaf) in children {
                out.extend_from_slice(&offset.to_be_bytes());
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(&leaf.0);
            }
        }
        Node::Divided(parts) => {
            out.push(DIVIDED);
            put_len32(&mut out, parts.len());
            for (first, part) in parts {
                put_text(&mut out, first);
                out.extend_from_slice(&part.0);
            }
        }
    }
    out
}

fn encode_entry(out: &mut Vec<u8>, entry: &DirEntry) {
    put_text(out, &entry.name);
    out.push(match entry.child {
        Child::Directory(_) => 1,
        Child::File { .. } => 2,
        Child::Symlink(_) => 3,
    });
    out.extend_from_slice(&entry.mode.to_be_bytes());
    out.extend_from_slice(&entry.mtime_micros.to_be_bytes());
    match &entry.child {
        Child::Directory(node) => out.extend_from_slice(&node.0),
        Child::File { size, layout } => {
            out.extend_from_slice(&size.to_be_bytes());
            match layout {
                FileLayout::Inline(extents) => {
                    out.push(0);
                    put_len16(out, extents.len());
                    extents.iter().for_each(|extent| encode_extent(out, extent));
                }
                FileLayout::Map(node) => {
                    out.push(1);
                    out.extend_from_slice(&node.0);
                }
            }
        }
        Child::Symlink(target) => put_text(out, target),
    }
}

fn encode_extent(out: &mut Vec<u8>, extent: &Extent) {
    out.extend_from_slice(&extent.file_offset.to_be_bytes());
    out.extend_from_slice(&extent.length.to_be_bytes());
    out.extend_from_slice(&extent.chunk_offset.to_be_bytes());
    out.extend_from_slice(&extent.chunk.0);
}

// Names, targets and counts were checked against these widths when they were taken in.
fn put_text(out: &mut Vec<u8>, text: &str) {
    put_len16(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_len16(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
}

fn put_len32(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
}

pub(crate) fn decode(bytes: &[u8]) -> Option<Node> {
    let mut input = Input(bytes);
    if input.u8()? != VERSION {
        return None;
    }
    let kind = input.u8()?;
    let count = input.u32()?;
    let node = match kind {
        DIRECTORY => Node::Directory(
            (0..count)
                .map(|_| decode_entry(&mut input))
                .collect::<Option<_>>()?,
        ),
        LEAF => Node::Leaf(
            (0..count)
                .map(|_| decode_extent(&mut input))
                .collect::<Option<_>>()?,
        ),
        INNER => {
            let mut child = || Some((input.u64()?, input.u64()?, input.id()?));
            Node::Inner((0..count).map(|_| child()).collect::<Option<_>>()?)
        }
        DIVIDED => {
            let mut part = || Some((input.text()?, input.id()?));
            Node::Divided((0..count).map(|_| part()).collect::<Option<_>>()?)
        }
        _ => return None,
    };
    input.0.is_empty().then_some(node)
}

fn decode_entry(input: &mut Input<'_>) -> Option<DirEntry> {
    let name = input.text()?;
    let kind = input.u8()?;
    let mode = input.u32()?;
    let mtime_micros = input.u64()?.cast_signed();
    let child = match kind {
        1 => Child::Directory(input.id()?),
        2 => {
            let size = input.u64()?;
            let layout = match input.u8()? {
                0 => {
                    let count = input.u16()?;
                    FileLayout::Inline(
                        (0..count)
                            .map(|_| decode_extent(input))
                            .collect::<Option<_>>()?,
                    )
                }
                1 => FileLayout::Map(input.id()?),
                _ => return None,
            };
            Child::File { size, layout }
        }
        3 => Child::Symlink(input.text()?),
        _ => return None,
    };
    Some(DirEntry {
        name,
        mode,
        mtime_micros,
        child,
    })
}

fn decode_extent(input: &mut Input<'_>) -> Option<Extent> {
    Some(Extent {
        file_offset: input.u64()?,
        length: input.u32()?,
        chunk_offset: input.u32()?,
        chunk: input.id()?,
    })
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn id(&mut self) -> Option<BlobId> {
        self.take().map(BlobId)
    }

    fn text(&mut self) -> Option<String> {
        let len = usize::from(self.u16()?);
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extent() -> impl Strategy<Value = Extent> {
        (any::<u64>(), any::<u32>(), any::<u32>(), any::<[u8; 32]>()).prop_map(
            |(file_offset, length, chunk_offset, id)| Extent {
                file_offset,
                length,
                chunk_offset,
                chunk: BlobId(id),
            },
        )
    }

    fn child() -> impl Strategy<Value = Child> {
        let layout = prop_oneof![
            prop::collection::vec(extent(), 0..5).prop_map(FileLayout::Inline),
            any::<[u8; 32]>().prop_map(|id| FileLayout::Map(BlobId(id))),
        ];
        prop_oneof![
            any::<[u8; 32]>().prop_map(|id| Child::Directory(BlobId(id))),
            (any::<u64>(), layout).prop_map(|(size, layout)| Child::File { size, layout }),
            ".{0,20}".prop_map(Child::Symlink),
        ]
    }

    fn node() -> impl Strategy<Value = Node> {
        let entry = ("[a-z]{1,9}", any::<u32>(), any::<i64>(), child()).prop_map(
            |(name, mode, mtime_micros, child)| DirEntry {
                name,
                mode,
                mtime_micros,
                child,
            },
        );
        prop_oneof![
            prop::collection::vec(entry, 0..6).prop_map(Node::Directory),
            prop::collection::vec(extent(), 0..40).prop_map(Node::Leaf),
            prop::collection::vec(
                (
                    any::<u64>(),
                    any::<u64>(),
                    any::<[u8; 32]>().prop_map(BlobId)
                ),
                0..40
            )
            .prop_map(Node::Inner),
            prop::collection::vec(("[a-z]{1,9}", any::<[u8; 32]>().prop_map(BlobId)), 0..9)
                .prop_map(Node::Divided),
        ]
    }

    proptest! {
        #[test]
        fn decode_mirrors_encode(node in node()) {
            let bytes = encode(&node);
            prop_assert_eq!(decode(&bytes), Some(node));
            prop_assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
