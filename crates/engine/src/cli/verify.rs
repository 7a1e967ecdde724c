use clap::Subcommand;

use super::RepositoryArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum VerifyCommand {
    /// Connectivity, invalid indexes, amcheck, row counts, orphan rows, sequences, the slot, the stream, the ages of backup and proof.
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
}
