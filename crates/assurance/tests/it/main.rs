//! The verification of databases against real PostgreSQL, with the engine's real tables, healthy and hurt.
#![allow(clippy::unwrap_used)]

mod verification;
