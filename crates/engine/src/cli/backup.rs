//! `bre backup`.

use super::*;
use operations::{backup_request::ReadingSelection, config::BackupSource};

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum BackupKind {
    /// Stores everything.
    Full,
    /// Stores what changed since the last one; restores in one step like any other.
    Incremental,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Component {
    Database,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackupCommand {
    /// Take a backup of the running instance.
    Run {
        /// What to back up.
        #[arg(long, value_enum, default_value = "database")]
        component: Component,
        /// How much of it.
        #[arg(long, value_enum, default_value = "full")]
        kind: BackupKind,
        #[command(flatten)]
        reading: ReadingArgs,
        /// Of a cluster that [clusters.NAME] names, instead of the instance's own.
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
    },
    /// All backups, newest last.
    List(RepositoryArgs),
    /// Everything about one backup.
    Show {
        /// As `bre backup list` shows it.
        id: String,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Delete what is older than the rules keep; explains every decision, and asks.
    Expire(ExpireArgs),
    /// Write a backup as a plain data folder that pg_verifybackup accepts.
    Export {
        /// As `bre backup list` shows it.
        id: String,
        /// An empty or absent folder.
        dir: PathBuf,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ExpireArgs {
    /// Decide and explain; change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do it without asking.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Delete WAL that nothing needs without a mark and a grace, for a repository that is full. Packs and wraps keep
    /// their grace.
    #[arg(long)]
    pub(crate) now: bool,
    /// Settings file with the rules; DIR/bre.toml when it is there.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
}

/// How the bytes of a backup are read; as [backup] says when absent.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct ReadingArgs {
    /// local reads the server's files, protocol asks the server for them, auto reads them where it can.
    #[arg(long)]
    pub(crate) source: Option<Source>,
    /// Read no more than this, in MiB a second.
    #[arg(long, value_name = "MIB")]
    pub(crate) throttle: Option<NonZeroU32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Source {
    Auto,
    Local,
    Protocol,
}

impl From<ReadingArgs> for ReadingSelection {
    fn from(args: ReadingArgs) -> Self {
        let source = |source| match source {
            Source::Auto => BackupSource::Auto,
            Source::Local => BackupSource::Local,
            Source::Protocol => BackupSource::Protocol,
        };
        Self {
            source: args.source.map(source),
            throttle_mib: args.throttle,
        }
    }
}
