//! What `bre` can do, without a terminal: settings, the repository and its keys as a command or an engine means them,
//! backups, restores and their tests, expiry, copies, the audit log's heads, anchors and archive, scratch clusters,
//! and the jobs of the plan with what runs them. It knows no argument of a command line and no screen: a command shows
//! what comes back.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod anchors;
pub mod application_state;
pub mod audit_archive;
pub mod audit_compliance;
pub mod audit_gaps;
pub mod audit_judge;
pub mod audit_logs;
pub mod audit_outside;
pub mod audit_statements;
pub mod backup_record;
pub mod backup_request;
pub mod cache;
mod change_look;
pub mod cluster_protection;
pub mod clusters;
pub mod command_output;
pub mod config;
pub mod copies;
mod error;
pub mod exit;
pub mod expiry;
pub mod gap_report;
pub mod heads;
pub mod health;
pub mod inclusion;
pub mod infrastructure;
pub mod infrastructure_restore;
pub mod job_status;
pub mod jobs;
pub mod key_rotation;
pub mod lost;
pub mod missing;
pub mod passed_over;
pub mod plan;
pub mod primary_repository;
pub mod provider_check;
pub mod public_log;
pub mod read_book;
pub mod recovery_fact;
pub mod repository_handle;
pub mod restore_test;
pub mod restored;
pub mod run_by_hand;
pub mod schema;
pub mod schema_check;
pub mod scratch;
pub mod secret_file;
pub mod settings_file;
pub mod snapshots;
pub mod standby;
pub mod strategy;
pub mod stream_evidence;
pub mod stream_report;
pub mod thinning;

pub use error::Error;
