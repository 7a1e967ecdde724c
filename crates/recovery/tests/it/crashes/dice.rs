//! Chance that repeats: the same from the same seed, on every machine.

use std::sync::{Arc, Mutex, PoisonError};

/// Clones throw the same dice.
#[derive(Debug, Clone)]
pub(super) struct Dice(Arc<Mutex<u64>>);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(
            seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        )))
    }

    /// Others that only this seed and number decide.
    pub(super) fn apart(seed: u64, number: u64) -> Self {
        Self::new(seed ^ number.wrapping_mul(0xD134_2543_DE82_EF95))
    }

    /// xorshift64*
    pub(super) fn below(&self, limit: usize) -> usize {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        let drawn = state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16;
        usize::try_from(drawn % limit.max(1) as u64).unwrap()
    }

    pub(super) fn percent(&self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<'a, T>(&self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Bytes that do not compress, a function of number and place.
pub(super) fn noise(number: u64, from: u64, len: usize) -> Vec<u8> {
    let skip = usize::try_from(from % 8).unwrap();
    let mut bytes = vec![0; (skip + len).next_multiple_of(8)];
    // Plain loops: unoptimised, iterators would take a fifth of the whole test.
    let (mut word, mut at) = (from / 8, 0);
    while at < bytes.len() {
        let mut mixed = (word ^ number.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes[at..at + 8].copy_from_slice(&(mixed ^ (mixed >> 31)).to_be_bytes());
        (word, at) = (word + 1, at + 8);
    }
    bytes.truncate(skip + len);
    bytes.drain(..skip);
    bytes
}
