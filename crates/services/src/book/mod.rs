//! Whole books: a file of positions priced in one call, each line answered, one entry on record.
//!
//! [`price`] goes through the file twice. The first pass prices everything and hashes what the second will send, so that the summary
//! entry is durable before the first byte leaves and nothing has to be kept in between: pricing a line again costs less than
//! storing it. [`diff()`] explains what changed between two results. Absent: reading requests (`api_gateway::book`).

mod diff;
mod input;
mod parquet;
mod pass;
mod position;
mod result;
#[cfg(test)]
mod typed_tests;

pub use diff::{BookDiff, Change, DiffError, Names, Side, diff};
pub(crate) use input::BookError;
pub(crate) use pass::{Book, Summary, price};
pub(crate) use position::Position;
