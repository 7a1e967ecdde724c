//! Against real server processes.
#![allow(clippy::unwrap_used)]

mod faults;
mod kms;
mod kms_gate;
mod outage;
mod s3;
