//! Against real server processes.
#![allow(clippy::unwrap_used)]

mod kms;
mod kms_gate;
mod s3;
