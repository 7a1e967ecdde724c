//! Against a real PostgreSQL.
#![allow(clippy::unwrap_used)]

mod server;
