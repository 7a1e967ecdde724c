//! What prices and who asks, as the log says it (format §12): the tables that entries speak of, what a change says of its rows in its
//! entry, and the comparison of the tables with what all entries said.

mod batches;
mod compare;
pub(crate) mod covered;
mod followed;
mod keys;
mod prints;
mod row;
mod statement;

pub use compare::{CoverageStart, Difference, TablesReport};
pub(crate) use followed::FollowedLog;
pub(crate) use statement::{Statement, is_own_field};
