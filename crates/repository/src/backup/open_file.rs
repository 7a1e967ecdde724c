//! A file between its first byte and its place in the tree: its windows are done in any order, by any worker.

use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::local_index::{PIECE_BYTES, Window};

pub(super) struct OpenFile {
    pub(super) path: String,
    /// Its place in the tree.
    pub(super) slot: usize,
    /// As the parent had it.
    parent: Vec<Mutex<Option<Window>>>,
    /// How many whole pieces that was, from the start; `None`: it was not there.
    pub(super) pieces_before: Option<usize>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    windows: Vec<Option<Window>>,
    done: usize,
    /// Known once all bytes were handed over.
    end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) windows: usize,
    pub(super) size: u64,
}

/// All windows of a file, in order.
pub(super) struct WholeFile {
    pub(super) windows: Vec<Window>,
    pub(super) size: u64,
}

impl OpenFile {
    pub(super) fn new(path: &str, slot: usize, parent: Option<Vec<Window>>) -> Self {
        let whole = |windows: &Vec<Window>| {
            let pieces = windows.iter().flat_map(|window| &window.pieces);
            pieces
                .take_while(|piece| piece.length as usize == PIECE_BYTES)
                .count()
        };
        let pieces_before = parent.as_ref().map(whole);
        let parent = parent.unwrap_or_default();
        Self {
            pieces_before,
            path: path.to_owned(),
            slot,
            parent: parent
                .into_iter()
                .map(|window| Mutex::new(Some(window)))
                .collect(),
            state: Mutex::default(),
        }
    }

    /// For the one worker that does this window.
    pub(super) fn parent(&self, number: usize) -> Option<Window> {
        let window = self.parent.get(number)?;
        window.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Notes what was done; whoever brings the last part gets the whole.
    pub(super) fn note(
        &self,
        done: Option<(usize, Window)>,
        end: Option<End>,
    ) -> Result<Option<WholeFile>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((number, window)) = done {
            if state.windows.len() <= number {
                state.windows.resize_with(number + 1, || None);
            }
            state.windows[number] = Some(window);
            state.done += 1;
        }
        state.end = state.end.or(end);
        match state.end {
            Some(end) if end.windows == state.done => {
                let windows: Vec<Window> = std::mem::take(&mut state.windows)
                    .into_iter()
                    .flatten()
                    .collect();
                if windows.len() != end.windows {
                    return Err(Error::Input(format!("a part of `{}` was lost", self.path)));
                }
                Ok(Some(WholeFile {
                    windows,
                    size: end.size,
                }))
            }
            _ => Ok(None),
        }
    }
}
