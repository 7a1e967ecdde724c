//! Whole books: a file of positions priced in one call, each line answered, one entry on record.
//!
//! [`price`] goes through the lines twice. The first pass prices everything and hashes what the second will send, so that the summary
//! entry is durable before the first byte leaves and nothing has to be kept in between: pricing a line again costs less than
//! storing it. [`diff()`] explains what changed between two results. What a book may cost: `bounds`; Parquet is decoded once, by a
//! child with limits: `decode`. Absent: reading requests (`api_gateway::book`).

mod bounds;
mod decode;
mod diff;
mod flat;
mod footer;
mod input;
mod parquet;
mod pass;
mod position;
mod result;
#[cfg(test)]
mod typed_tests;

pub(crate) use bounds::{FILE_BYTES_MAX, Halt, HaltOnDrop};
pub use decode::{BookReader, ReaderLimits, check_book, decode_book};
pub(crate) use decode::{decode, decode_csv};
pub use diff::{BookDiff, Change, DiffError, Names, Side, diff};
pub(crate) use input::BookError;
pub(crate) use parquet::is_one as is_parquet;
pub(crate) use pass::{Book, Lines, Summary, hex, price};
