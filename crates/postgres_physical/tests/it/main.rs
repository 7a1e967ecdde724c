//! Against a real PostgreSQL.
#![allow(clippy::unwrap_used)]

mod physical;
mod replication;
mod server;
