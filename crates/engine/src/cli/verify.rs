//! `bre verify`: looks, and changes nothing.

use super::*;

#[derive(Debug, Subcommand)]
pub(crate) enum VerifyCommand {
    /// Read back every byte of one backup, or of all, with the WAL that they need.
    Backup {
        /// All backups when absent.
        id: Option<String>,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Read every page of the running cluster's own files: which are damaged, and what they belong to.
    Cluster(RepositoryArgs),
    /// Check the running database: connections, indexes, amcheck, row counts, orphan rows, sequences, the slot, the
    /// stream, and how old the
    /// newest backup and the newest restore test are.
    Database {
        /// Read this database instead of the running instance's; a superuser's URL, or amcheck is skipped (and said so).
        #[arg(long, value_name = "URL")]
        database: Option<String>,
        /// A warning, and a check that does not apply here (a cluster without the engine's tables), fail it too.
        #[arg(long)]
        strict: bool,
    },
    /// Read back every object of the repository (packs, manifests, WAL to the newest, wraps, heads, …), and prove that no WAL is missing.
    /// Exit code 5: nothing is wrong, but seals could not be opened with the keys that are here.
    Repository(RepositoryArgs),
    /// Walk the audit log's chain against the signed heads; names the first bad entry.
    Audit {
        #[command(flatten)]
        road: AuditRoad,
        #[command(flatten)]
        args: AuditArgs,
    },
}
