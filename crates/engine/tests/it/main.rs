//! The binary, end to end: real processes, real PostgreSQL and Redis that `bre up` starts by itself, real files.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test has nothing better to do with an error than to stop, and may say what it skips"
)]

mod anchors;
mod application_state;
mod audit;
mod audit_logs;
mod backup;
mod cache;
mod check_proof;
mod clusters;
mod drills;
mod first_start;
mod hostile;
mod import;
mod infrastructure;
mod install;
mod instance;
mod kms;
mod losses;
mod many_records;
mod passed_over;
mod plan;
mod process;
mod public_log;
mod quote;
mod repository_away;
mod repository_keys;
mod restore;
mod restore_test;
mod revocation;
mod roads;
mod s3;
mod services;
mod snapshots;
mod standby;
mod start_and_stop;
mod table;
mod tamper;
