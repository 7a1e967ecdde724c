//! Objectives, drills and verification: what was promised, and the proof that it holds.
//!
//! Entry points: [`drills::database_loss::DatabaseLoss::run`], [`verification::cluster`].
//!
//! A drill stands outside the product, as its clients and operators do: it starts the `bre` binary, speaks its
//! public HTTP, reads its command line's answers, and judges from the clients' own records. Verification asks a database, running
//! or restored, over SQL, and changes nothing in it.
//! Absent on purpose: writing to the engine's tables, the repository's bytes, the engine's memory; restoring (that is `recovery`,
//! brought together with these checks by `engine`).
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod drills;
pub mod objectives;
pub mod verification;
