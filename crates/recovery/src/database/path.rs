//! The path to a timeline: which part of which ancestor belongs to it.

use postgres_physical::timeline::History;
use repository::wal::WalReader;

use crate::{Error, Result};

/// A part of a timeline; `end` is where its child left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pub timeline: u32,
    pub start: u64,
    pub end: Option<u64>,
}

/// Oldest first; the last piece is `timeline` itself.
pub(crate) fn path_to(reader: &WalReader, timeline: u32) -> Result<Vec<Piece>> {
    let history = match reader.history(timeline)? {
        Some(bytes) => {
            History::parse(&String::from_utf8_lossy(&bytes)).map_err(|error| Error::Timeline {
                timeline,
                what: error.to_string(),
            })?
        }
        None if timeline == 1 => History::default(),
        None => {
            let what = "its history is not in the repository. Start the stream once on the server that runs it".to_owned();
            return Err(Error::Timeline { timeline, what });
        }
    };
    let mut pieces = Vec::new();
    let mut start = 0;
    for switch in &history.switches {
        pieces.push(Piece {
            timeline: switch.parent,
            start,
            end: Some(switch.switch.0),
        });
        start = switch.switch.0;
    }
    pieces.push(Piece {
        timeline,
        start,
        end: None,
    });
    Ok(pieces)
}
