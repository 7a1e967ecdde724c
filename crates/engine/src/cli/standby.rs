//! `bre standby`.

use super::*;

#[derive(Debug, Subcommand)]
pub(crate) enum StandbyCommand {
    /// Keep a standby until stopped: restore the newest backup once, then replay what comes. `bre up` does it with
    /// [spare] enabled = true.
    Run {
        #[command(flatten)]
        repository: RepositoryArgs,
        /// Settings file; DIR/bre.toml when it is there.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Show how far it is behind the repository and whether it could be promoted; exit code 0 only when it could.
    Status {
        /// Of a cluster that [clusters.NAME] names.
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
    },
    /// Make it the primary: it replays all that the repository holds, claims a new timeline and takes writes. Shows
    /// what it will do, and asks.
    Promote {
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
        /// Promote although the old primary still runs: what that one commits from now on is lost.
        #[arg(long)]
        even_if_alive: bool,
        /// The standby of a cluster that [clusters.NAME] names.
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
        /// Settings file; DIR/bre.toml when it is there.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Stop the process that keeps it; the next one goes on from where it stopped.
    Stop {
        /// Of a cluster that [clusters.NAME] names.
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
    },
}
