//! What a client saw: one JSON line a request, written only after the whole answer was read.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::DrillError;

/// How a request ended, as its client can know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub(crate) enum RequestOutcome {
    /// The whole answer arrived: from here on, losing it is a loss.
    Acknowledged {
        quote_id: String,
        epoch: u32,
        position: u64,
        total_fee: String,
    },
    /// The engine said no, or could not be reached at all.
    Refused { status: u16 },
    /// The request was sent and the answer did not arrive whole, or the engine said that it does not know.
    InDoubt,
}

/// One line of a client's ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RequestRecord {
    pub(crate) request_id: String,
    pub(crate) sent_at_micros: i64,
    pub(crate) ended_at_micros: i64,
    #[serde(flatten)]
    pub(crate) outcome: RequestOutcome,
}

impl RequestRecord {
    /// Writes the record as one line, in one call, so that a reader never sees half of one.
    pub(crate) fn append(&self, ledger: &mut File) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        ledger.write_all(&line)
    }
}

/// Reads all whole lines of a ledger.
pub(crate) fn read(path: &Path) -> Result<Vec<RequestRecord>, DrillError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened.map_err(DrillError::file("cannot read the ledger", path))?,
    };
    let mut records = Vec::new();
    for line in BufReader::new(file).lines() {
        let line = line.map_err(DrillError::file("cannot read the ledger", path))?;
        // Only the last line can be short, while its client is writing it.
        let Ok(record) = serde_json::from_str(&line) else {
            break;
        };
        records.push(record);
    }
    Ok(records)
}

pub(crate) fn now_micros() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
