//! A cache for reads of packs, which go chunk by chunk: a request for each chunk would take longer than its bytes. What
//! arrives with the first chunk is kept for a moment. Packs never change.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

pub(super) const BLOCK: u64 = 2 << 20;
const KEPT: usize = 24;
/// A verification that reads later than this asks the store again.
const FRESH: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Block {
    name: String,
    number: u64,
    read_at: Instant,
    bytes: Arc<Vec<u8>>,
}

#[derive(Debug, Default)]
pub(super) struct Blocks {
    newest_last: Mutex<VecDeque<Block>>,
}

impl Blocks {
    /// `len` bytes from `offset` on, or as many as there are; blocks that are not here come from `fetch`.
    pub(super) fn read<E>(
        &self,
        name: &str,
        offset: u64,
        len: usize,
        fetch: impl Fn(u64) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset + bytes.len() as u64;
            let block = match self.here(name, at / BLOCK) {
                Some(block) => block,
                None => self.keep(name, at / BLOCK, fetch(at / BLOCK * BLOCK)?),
            };
            let from = usize::try_from(at % BLOCK).unwrap_or(usize::MAX);
            let Some(rest) = block.get(from..).filter(|rest| !rest.is_empty()) else {
                break;
            };
            bytes.extend_from_slice(&rest[..rest.len().min(len - bytes.len())]);
        }
        Ok(bytes)
    }

    pub(super) fn forget(&self, name: &str) {
        self.kept().retain(|block| block.name != name);
    }

    fn here(&self, name: &str, number: u64) -> Option<Arc<Vec<u8>>> {
        let kept = self.kept();
        let found = kept.iter().find(|b| b.number == number && b.name == name)?;
        (found.read_at.elapsed() < FRESH).then(|| Arc::clone(&found.bytes))
    }

    fn keep(&self, name: &str, number: u64, bytes: Vec<u8>) -> Arc<Vec<u8>> {
        let bytes = Arc::new(bytes);
        let mut kept = self.kept();
        kept.retain(|block| !(block.number == number && block.name == name));
        kept.push_back(Block {
            name: name.to_owned(),
            number,
            read_at: Instant::now(),
            bytes: Arc::clone(&bytes),
        });
        if kept.len() > KEPT {
            kept.pop_front();
        }
        bytes
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Block>> {
        self.newest_last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_lies_side_by_side_is_asked_for_once() {
        let object: Vec<u8> = (0..5 << 20).map(|n: u32| (n % 253) as u8).collect();
        let (blocks, asked) = (Blocks::default(), Cell::new(0));
        let read = |offset: usize, len: usize| -> Result<Vec<u8>, ()> {
            blocks.read("packs/a", offset as u64, len, |from| {
                asked.set(asked.get() + 1);
                let from = usize::try_from(from).unwrap();
                let end = object.len().min(from + (BLOCK as usize));
                Ok(object[from.min(end)..end].to_vec())
            })
        };
        for at in (0..object.len()).step_by(100_000) {
            let len = 100_000.min(object.len() - at);
            assert_eq!(read(at, len).unwrap(), object[at..at + len]);
        }
        assert_eq!(asked.get(), 3);
        assert_eq!(
            read(object.len() - 3, 10).unwrap(),
            object[object.len() - 3..]
        );
        assert!(read(object.len(), 1).unwrap().is_empty());
        blocks.forget("packs/a");
        read(0, 1).unwrap();
        assert_eq!(asked.get(), 4);
    }
}
