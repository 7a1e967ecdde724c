//! Against real server processes.
#![allow(clippy::unwrap_used)]

mod s3;
