//! `bre plan` and `bre job`.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlannedJob {
    /// A full backup.
    Full,
    /// An incremental backup.
    Incremental,
    /// A restore test of the newest complete backup.
    Proof,
    /// The expiry of what is older than the rules keep.
    Expire,
    /// The definitions into git.
    Schema,
    /// What is new in the audit log, into its archive.
    #[value(name = "audit_archive", alias = "audit-archive")]
    AuditArchive,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// Every job with its schedule, retention, storage and verification.
    Show,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Every job with its state, its last run and its next.
    List,
    /// Run one job of the plan now.
    Run { job: PlannedJob },
}
