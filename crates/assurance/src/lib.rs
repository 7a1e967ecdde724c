//! Objectives and drills: what was promised, and the proof that it holds.
//!
//! Entry point: [`drills::database_loss::DatabaseLoss::run`].
//!
//! A drill stands outside the product, as its clients and operators do: it starts the `bre` binary, speaks its
//! public HTTP, reads its command line's answers, and judges from the clients' own records.
//! Absent on purpose: any access to the engine's tables, to the repository's bytes or to the engine's memory.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod drills;
pub mod objectives;
