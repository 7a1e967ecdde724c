//! `INCREMENTAL.<name>`: some blocks of a file, and which they are. What is not in it lies in the parent, or is empty.

use super::pages::PageCheck;
use crate::{BackupError, Result};
use postgres_physical::page::{PAGE_BYTES, PAGES_PER_SEGMENT, RelationFile};
use repository::backup::FileWriter;
use std::io::Read;

const MAGIC: u32 = 0xd3ae_1f0d;
const FIELDS: usize = 3;

/// The head of such a file.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    /// Ascending, counted from the start of this file.
    blocks: Vec<u32>,
    /// Below it, blocks that are not here are the parent's.
    blocks_kept_below: u32,
}

impl Head {
    /// Reads it with its padding: what follows are the blocks.
    fn read(source: &mut dyn Read) -> std::result::Result<Head, String> {
        let mut fields = [[0; 4]; FIELDS];
        let text = |error: std::io::Error| error.to_string();
        source.read_exact(fields.as_flattened_mut()).map_err(text)?;
        let [magic, count, blocks_kept_below] = fields.map(u32::from_le_bytes);
        if magic != MAGIC || count > PAGES_PER_SEGMENT || blocks_kept_below > PAGES_PER_SEGMENT {
            return Err(format!(
                "its head is {magic:#x}, {count} blocks, {blocks_kept_below} below"
            ));
        }
        let mut numbers = vec![[0; 4]; count as usize];
        source
            .read_exact(numbers.as_flattened_mut())
            .map_err(text)?;
        let blocks: Vec<u32> = numbers.into_iter().map(u32::from_le_bytes).collect();
        if !blocks.is_sorted_by(|a, b| a < b)
            || blocks.last().is_some_and(|last| *last >= PAGES_PER_SEGMENT)
        {
            return Err("its blocks are not in order".into());
        }
        // Blocks begin at a multiple of their size.
        let used = (FIELDS + blocks.len()) * 4;
        if !blocks.is_empty() {
            let padding = used.next_multiple_of(PAGE_BYTES) - used;
            source.read_exact(&mut vec![0; padding]).map_err(text)?;
        }
        Ok(Head {
            blocks,
            blocks_kept_below,
        })
    }

    /// Of the whole file.
    fn blocks_total(&self) -> u32 {
        let after_last = self.blocks.last().map_or(0, |last| last + 1);
        after_last.max(self.blocks_kept_below)
    }
}

/// Puts a file together and returns its size. `limit`: no block of the relation from this one on was left by the shortest that the
/// relation has been since the parent.
pub(super) fn combine(
    source: &mut dyn Read,
    out: &mut FileWriter<'_>,
    (path, relation): (&str, RelationFile),
    limit: Option<u32>,
    mut suspects: Option<&mut Vec<PageCheck>>,
) -> Result<u64> {
    let damaged = |what: String| BackupError::Archive(format!("{path}: {what}"));
    let head = Head::read(source).map_err(damaged)?;
    let before = out
        .bytes_before()
        .ok_or_else(|| damaged("it builds on a file that the local cache has not".into()))?;
    let first = relation.first_block();
    let kept_below = u64::from(head.blocks_kept_below)
        .min(before / PAGE_BYTES as u64)
        .min(limit.map_or(u64::MAX, |limit| u64::from(limit.saturating_sub(first))));
    let total = head.blocks_total();
    let (mut next, mut page) = (0, [0; PAGE_BYTES]);
    for block in head.blocks {
        fill_gap(out, next, block, kept_below)?;
        source
            .read_exact(&mut page)
            .map_err(|error| damaged(error.to_string()))?;
        if let Some(suspects) = &mut suspects {
            suspects.extend(PageCheck::bad_pages(&page, path, relation, first + block));
        }
        out.write(&page)?;
        next = block + 1;
    }
    fill_gap(out, next, total, kept_below)?;
    if source
        .read(&mut page)
        .map_err(|error| damaged(error.to_string()))?
        > 0
    {
        return Err(damaged("there is more than its head says".into()));
    }
    Ok(u64::from(total) * PAGE_BYTES as u64)
}

/// Blocks `from..to`: the parent's as far as they count, then empty ones, which the server made without ever writing to them.
fn fill_gap(out: &mut FileWriter<'_>, from: u32, to: u32, kept_below: u64) -> Result<()> {
    let (from, to) = (u64::from(from), u64::from(to));
    let kept_to = to.min(kept_below).max(from);
    if kept_to > from {
        out.keep((kept_to - from) * PAGE_BYTES as u64)?;
    }
    for _ in kept_to..to {
        out.write(&[0; PAGE_BYTES])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(fields: &[u32], blocks: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = fields
            .iter()
            .flat_map(|field| field.to_le_bytes())
            .collect();
        if blocks > 0 {
            bytes.resize(bytes.len().next_multiple_of(PAGE_BYTES), 0);
        }
        bytes.resize(bytes.len() + blocks * PAGE_BYTES, 7);
        bytes
    }

    #[test]
    fn heads() {
        let check = |bytes: &[u8], left: usize, expected: Option<(Vec<u32>, u32)>| {
            let mut source = bytes;
            let head = Head::read(&mut source).ok();
            let found = head.map(|head| (head.blocks, head.blocks_kept_below));
            assert_eq!(found, expected, "{:?}", &bytes[..12]);
            assert!(expected.is_none() || source.len() == left);
        };
        // A head without blocks is not padded.
        check(&file(&[MAGIC, 0, 9], 0), 0, Some((vec![], 9)));
        check(
            &file(&[MAGIC, 2, 9, 3, 11], 2),
            2 * PAGE_BYTES,
            Some((vec![3, 11], 9)),
        );
        // 2045 numbers and the three fields are one block: no padding.
        let many: Vec<u32> = [MAGIC, 2045, 0].into_iter().chain(0..2045).collect();
        check(&file(&many, 1), PAGE_BYTES, Some(((0..2045).collect(), 0)));
        check(&file(&[MAGIC, 2, 9, 11, 3], 2), 0, None);
        check(&file(&[MAGIC, 2, 9, 3, 3], 2), 0, None);
        check(&file(&[MAGIC, 1, 9, PAGES_PER_SEGMENT], 1), 0, None);
        check(&file(&[MAGIC + 1, 0, 9], 0), 0, None);
        check(&file(&[MAGIC, 0, PAGES_PER_SEGMENT + 1], 0), 0, None);
        check(&file(&[MAGIC, 5, 9, 3], 0), 0, None);
    }
}
