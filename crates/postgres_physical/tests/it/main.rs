//! Against a real PostgreSQL.
#![allow(clippy::unwrap_used)]

mod replication;
mod server;
