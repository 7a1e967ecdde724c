//! `bre plan` and `bre job`.

use super::*;

#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// Every job with its schedule, retention, storage and verification.
    Show(ClusterArgs),
    /// Whether the settings make a plan: every job known, no two that wait for each other.
    Check(PlanCheckArgs),
}

/// Whose jobs.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// Of a cluster that [clusters.NAME] names, instead of the instance's own.
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PlanCheckArgs {
    /// Settings file; DIR/bre.toml when absent.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobCommand {
    /// Every job with its state, its last run and its next.
    List {
        #[command(flatten)]
        of: ClusterArgs,
    },
    /// Show one job: what it is, how it stands, what its records say.
    Show {
        /// As bre job list names it, or in full: database.full.
        job: String,
        #[command(flatten)]
        of: ClusterArgs,
    },
    /// Run one job of the plan now.
    Run {
        /// full, incremental, proof, expire, schema, audit_archive, or a name as bre job show has it.
        job: String,
        #[command(flatten)]
        of: ClusterArgs,
    },
    /// What ran, newest first, with what became of it and why.
    History {
        /// Of this job alone.
        job: Option<String>,
        /// So many at most.
        #[arg(long, value_name = "N", default_value_t = 20)]
        most: usize,
        #[command(flatten)]
        of: ClusterArgs,
    },
    /// Start a job no more until it is resumed; what runs comes to its end.
    Pause {
        /// As bre job list names it, or in full.
        job: String,
        /// For whoever reads it next.
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        #[command(flatten)]
        of: ClusterArgs,
    },
    /// Let a paused job run again, from its next appointment on.
    Resume {
        /// As bre job list names it, or in full.
        job: String,
        #[command(flatten)]
        of: ClusterArgs,
    },
}
