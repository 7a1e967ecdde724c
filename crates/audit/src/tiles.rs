//! The tree cut into tiles of 256 hashes (C2SP tlog-tiles), and the proofs that follow from them (RFC 6962 §2.1.1,
//! §2.1.2).

use crate::hash::Hash;
use crate::merkle::join;

/// Hashes in a full tile.
pub const TILE_WIDTH: u64 = 256;
const TILE_HEIGHT: u32 = 8;
const HASH_BYTES: usize = 32;

/// Which tile: the `index`-th of its level, with its first `width` hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, std::hash::Hash)]
pub struct TileId {
    pub level: u8,
    pub index: u64,
    /// 1 … 256.
    pub width: u16,
}

impl TileId {
    pub fn full(level: u8, index: u64) -> TileId {
        TileId {
            level,
            index,
            width: TILE_WIDTH as u16,
        }
    }

    pub fn is_full(&self) -> bool {
        u64::from(self.width) == TILE_WIDTH
    }

    /// The tile that holds a hash of its level, as wide as a tree of that size makes it. `None` when the tree has no
    /// such hash.
    pub fn holding(level: u8, hash: u64, size: u64) -> Option<TileId> {
        let hashes = hashes_of(level, size);
        let index = hash / TILE_WIDTH;
        let width = (hashes.checked_sub(index * TILE_WIDTH)?).min(TILE_WIDTH);
        (hash < hashes).then_some(TileId {
            level,
            index,
            width: width as u16,
        })
    }

    /// `tile/<L>/<N>[.p/<W>]`.
    pub fn path(&self) -> String {
        let mut digits = format!("{:03}", self.index % 1000);
        let mut rest = self.index / 1000;
        while rest > 0 {
            digits = format!("x{:03}/{digits}", rest % 1000);
            rest /= 1000;
        }
        let partial = match self.is_full() {
            true => String::new(),
            false => format!(".p/{}", self.width),
        };
        format!("tile/{}/{digits}{partial}", self.level)
    }

    /// The only path of a tile, read.
    pub fn parse(path: &str) -> Option<TileId> {
        let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
        let (digits, width) = match rest.split_once(".p/") {
            Some((digits, width)) => (digits, width.parse().ok()?),
            None => (rest, TILE_WIDTH as u16),
        };
        let mut index = 0u64;
        for part in digits.split('/') {
            let part = part.strip_prefix('x').unwrap_or(part);
            let digits: u64 = part.parse().ok()?;
            index = index.checked_mul(1000)?.checked_add(digits)?;
        }
        let tile = TileId {
            level: level.parse().ok()?,
            index,
            width,
        };
        // Zeros and signs too many, widths of none: no other text is the tile's path.
        (tile.level <= 63 && (1..=TILE_WIDTH as u16).contains(&width) && tile.path() == path)
            .then_some(tile)
    }
}

/// How many perfect subtrees of that level a tree has.
fn hashes_of(level: u8, size: u64) -> u64 {
    size.checked_shr(TILE_HEIGHT * u32::from(level))
        .unwrap_or(0)
}

/// A tile as its bytes.
pub fn tile_bytes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
}

/// The hashes of a tile, when it is as long as it has to be.
pub fn read_tile(id: TileId, bytes: &[u8]) -> Option<Vec<Hash>> {
    if bytes.len() != usize::from(id.width) * HASH_BYTES {
        return None;
    }
    bytes
        .chunks_exact(HASH_BYTES)
        .map(|hash| Hash::try_from(hash).ok())
        .collect()
}

/// A tile that is there to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    pub id: TileId,
    pub hashes: Vec<Hash>,
}

/// The right edge of a tree in tiles: what growing it needs, less than 256 hashes a level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TileTree {
    size: u64,
    rows: Vec<Vec<Hash>>,
}

impl TileTree {
    pub fn new() -> TileTree {
        TileTree::default()
    }

    /// A tree of that size: `leaves` are the entries' hashes after the last full tile, and `tile` gives full ones.
    /// `None`: these are not so many leaves.
    pub fn resume<E>(
        size: u64,
        leaves: Vec<Hash>,
        mut tile: impl FnMut(TileId) -> Result<Vec<Hash>, E>,
    ) -> Result<Option<TileTree>, E> {
        if leaves.len() as u64 != size % TILE_WIDTH {
            return Ok(None);
        }
        let mut rows = vec![leaves];
        for level in 1u8.. {
            let hashes = hashes_of(level, size);
            if hashes == 0 {
                break;
            }
            let first = hashes - hashes % TILE_WIDTH;
            let row = (first..hashes).map(|index| {
                let below = tile(TileId::full(level - 1, index))?;
                Ok(root_of(&below))
            });
            rows.push(row.collect::<Result<_, E>>()?);
        }
        Ok(Some(TileTree { size, rows }))
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf; the tiles that it makes full come out, lowest level first.
    pub fn push(&mut self, leaf: Hash) -> Vec<Tile> {
        self.size += 1;
        let mut made = Vec::new();
        let mut hash = leaf;
        for level in 0u8.. {
            let row = usize::from(level);
            if self.rows.len() == row {
                self.rows.push(Vec::new());
            }
            let Some(hashes) = self.rows.get_mut(row) else {
                break;
            };
            hashes.push(hash);
            if (hashes.len() as u64) < TILE_WIDTH {
                break;
            }
            let hashes = std::mem::take(hashes);
            hash = root_of(&hashes);
            let index = hashes_of(level + 1, self.size) - 1;
            made.push(Tile {
                id: TileId::full(level, index),
                hashes,
            });
        }
        made
    }

    /// The tiles that are not full.
    pub fn partial(&self) -> impl Iterator<Item = Tile> {
        let rows = self.rows.iter().zip(0u8..);
        rows.filter(|(hashes, _)| !hashes.is_empty())
            .map(|(hashes, level)| Tile {
                id: TileId {
                    level,
                    index: hashes_of(level, self.size) / TILE_WIDTH,
                    width: hashes.len() as u16,
                },
                hashes: hashes.clone(),
            })
    }

    pub fn root(&self) -> Hash {
        let mut below: Option<Hash> = None;
        for row in &self.rows {
            // Of a row, largest first, the peaks; from the right they are joined.
            let mut peaks = Vec::new();
            let mut rest = row.as_slice();
            while !rest.is_empty() {
                let (peak, others) = rest.split_at(1 << rest.len().ilog2());
                peaks.push(root_of(peak));
                rest = others;
            }
            for peak in peaks.into_iter().rev() {
                below = Some(match below {
                    None => peak,
                    Some(right) => join(peak, right),
                });
            }
        }
        below.unwrap_or_else(|| Hash::of(&[]))
    }
}

/// The root over hashes whose number is a power of two.
fn root_of(hashes: &[Hash]) -> Hash {
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => join(*left, *right),
                one => one.first().copied().unwrap_or(Hash::ZERO),
            })
            .collect();
    }
    row.first().copied().unwrap_or_else(|| Hash::of(&[]))
}

/// A tree of a given size whose tiles are read as they are needed; each once.
#[derive(Debug)]
pub struct TiledTree<F> {
    size: u64,
    tile: F,
    read: std::collections::HashMap<TileId, Vec<Hash>>,
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum TreeError<E> {
    #[error("a tree of {size} entries has no such part")]
    Beyond { size: u64 },
    #[error("tile {} is not {} hashes long", .0.path(), .0.width)]
    Short(TileId),
    #[error("{0}")]
    Tile(E),
}

impl<E, F: FnMut(TileId) -> Result<Vec<Hash>, E>> TiledTree<F> {
    pub fn new(size: u64, tile: F) -> TiledTree<F> {
        TiledTree {
            size,
            tile,
            read: std::collections::HashMap::new(),
        }
    }

    /// RFC 6962 §2.1.1: from the leaf's sibling up to the one below the root. Leaves count from 0.
    pub fn inclusion(&mut self, leaf: u64) -> Result<Vec<Hash>, TreeError<E>> {
        if leaf >= self.size {
            return Err(TreeError::Beyond { size: self.size });
        }
        let mut path = Vec::new();
        let (mut from, mut to) = (0, self.size);
        while to - from > 1 {
            let middle = from + left_of(to - from);
            if leaf < middle {
                path.push(self.root_between(middle, to)?);
                to = middle;
            } else {
                path.push(self.root_between(from, middle)?);
                from = middle;
            }
        }
        path.reverse();
        Ok(path)
    }

    /// RFC 6962 §2.1.2: that the tree of the first `old` leaves is the beginning of this one. Empty for 0 and for all
    /// of them.
    pub fn consistency(&mut self, old: u64) -> Result<Vec<Hash>, TreeError<E>> {
        if old > self.size {
            return Err(TreeError::Beyond { size: self.size });
        }
        let mut proof = Vec::new();
        if old == 0 || old == self.size {
            return Ok(proof);
        }
        let (mut from, mut to) = (0, self.size);
        // Whether the part that is looked at is the old tree from its beginning: its root is known to whoever verifies.
        let mut is_old = true;
        while old != to {
            let middle = from + left_of(to - from);
            if old <= middle {
                proof.push(self.root_between(middle, to)?);
                to = middle;
            } else {
                proof.push(self.root_between(from, middle)?);
                from = middle;
                is_old = false;
            }
        }
        if !is_old {
            proof.push(self.root_between(from, to)?);
        }
        proof.reverse();
        Ok(proof)
    }

    pub fn root(&mut self) -> Result<Hash, TreeError<E>> {
        match self.size {
            0 => Ok(Hash::of(&[])),
            size => self.root_between(0, size),
        }
    }

    fn root_between(&mut self, from: u64, to: u64) -> Result<Hash, TreeError<E>> {
        let leaves = to - from;
        if leaves.is_power_of_two() && from.is_multiple_of(leaves) {
            return self.perfect(leaves.ilog2(), from / leaves);
        }
        let middle = from + left_of(leaves);
        Ok(join(
            self.root_between(from, middle)?,
            self.root_between(middle, to)?,
        ))
    }

    /// The root of the `index`-th perfect subtree of that height.
    fn perfect(&mut self, height: u32, index: u64) -> Result<Hash, TreeError<E>> {
        let level = (height / TILE_HEIGHT) as u8;
        let above = height % TILE_HEIGHT;
        let first = index << above;
        let beyond = TreeError::Beyond { size: self.size };
        let id = TileId::holding(level, first, self.size).ok_or(beyond)?;
        if !self.read.contains_key(&id) {
            let hashes = (self.tile)(id).map_err(TreeError::Tile)?;
            if hashes.len() != usize::from(id.width) {
                return Err(TreeError::Short(id));
            }
            self.read.insert(id, hashes);
        }
        let at = (first % TILE_WIDTH) as usize;
        let part = self
            .read
            .get(&id)
            .and_then(|hashes| hashes.get(at..at + (1 << above)));
        part.map(root_of).ok_or(TreeError::Short(id))
    }
}

/// Leaves of the left part of a tree: the largest power of two below its size, which is at least 2.
fn left_of(leaves: u64) -> u64 {
    1 << (leaves - 1).ilog2()
}

/// RFC 9162 §2.1.4.2: whether the tree of `old` leaves with its root is the beginning of the one of `new` leaves with
/// its.
#[must_use]
pub fn is_consistent(old: (u64, Hash), new: (u64, Hash), proof: &[Hash]) -> bool {
    let ((old, old_root), (new, new_root)) = (old, new);
    if old > new {
        return false;
    }
    if old == 0 || old == new {
        let same = if old == 0 {
            old_root == Hash::of(&[])
        } else {
            old_root == new_root
        };
        return proof.is_empty() && same;
    }
    let (mut node, mut last) = (old - 1, new - 1);
    let shift = node.trailing_ones();
    (node, last) = (node >> shift, last >> shift);
    // A perfect old tree is its own first part.
    let (first, rest) = match (old.is_power_of_two(), proof.split_first()) {
        (true, _) => (old_root, proof),
        (false, Some((first, rest))) => (*first, rest),
        (false, None) => return false,
    };
    let (mut of_old, mut of_new) = (first, first);
    for part in rest {
        if last == 0 {
            return false;
        }
        if node % 2 == 1 || node == last {
            of_old = join(*part, of_old);
            of_new = join(*part, of_new);
            while node % 2 == 0 && node != 0 {
                (node, last) = (node / 2, last / 2);
            }
        } else {
            of_new = join(of_new, *part);
        }
        (node, last) = (node / 2, last / 2);
    }
    of_old == old_root && of_new == new_root && last == 0
}
