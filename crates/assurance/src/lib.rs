//! Objectives, drills and verification: what was promised, and the proof that it holds.
//!
//! Entry points: [`drills::database_loss::DatabaseLoss::run`], [`verification::cluster`].
//!
//! A drill stays outside the product, as clients and operators do: it starts the `bre` binary, uses its public HTTP and
//! its command line, and judges from the clients' own records. Verification reads a database, running or restored, over
//! SQL, and changes nothing in it.
//!
//! Absent on purpose: writes to the engine's tables, the repository's bytes, the engine's memory, and restores (crate
//! `recovery`; the engine combines them with these checks).
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod drills;
pub mod objectives;
pub mod verification;
