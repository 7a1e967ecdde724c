//! `bre restore` and `bre restore-test`.

use ::repository::log_stretches::LogKind;
use serde::Serialize;

use super::*;

#[derive(Debug, Subcommand)]
pub(crate) enum RestoreCommand {
    /// Restore a database cluster into an empty folder, or over a broken one, ready to start.
    Database(RestoreDatabaseArgs),
    /// Restore one table, or a few of its rows, into the running database: the chosen moment is restored to a scratch
    /// folder and compared;
    /// what would change is shown, and merged in one transaction.
    Table(RestoreTableArgs),
    /// Restore damaged pages of the running cluster; shows them, and asks.
    Pages(RestorePagesArgs),
    /// Restore the cache from an RDB file, from a copy of its append-only file, or from the database: shows what would
    /// change, and asks. What is newer in the cache stays.
    Cache(RestoreCacheArgs),
    /// Restore roles, policies, groups and users of the account from a commit: shows each call that it would make, and
    /// asks. What is only in the account stays.
    Iam(RestoreIamArgs),
    /// Bring the logs that an audit asks for back from their archives, into a folder beside the live ones, and write
    /// the gap report for compliance. Needs the archive's private key; exit code 5: something is missing, and named.
    AuditLog(RestoreAuditLogArgs),
    /// Write a snapshot's documents into a folder, or to where they came from: shows what it would do, and asks.
    /// Needs the private key.
    Snapshot(SnapshotRestoreArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AuditLogKind {
    /// The engine's own chain of quotes and changes: the entries that the running database lacks, or all where none
    /// runs, as bre audit export writes them.
    Database,
    Application,
    Postgres,
    System,
}

impl AuditLogKind {
    pub(crate) const ALL: [Self; 4] = [
        Self::Database,
        Self::Application,
        Self::Postgres,
        Self::System,
    ];

    pub(crate) fn of_log(self) -> Option<LogKind> {
        match self {
            Self::Database => None,
            Self::Application => Some(LogKind::Application),
            Self::Postgres => Some(LogKind::Postgres),
            Self::System => Some(LogKind::System),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RestoreAuditLogArgs {
    /// A new or empty folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
    /// One kind; all when absent.
    #[arg(long, value_enum)]
    pub(crate) kind: Option<AuditLogKind>,
    /// One log by its name in the repository, such as journal-web1.
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// From this moment on; for example 2026-04-01T10:31:00-04:00
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Up to this moment.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CacheOrigin {
    /// A snapshot of the repository: works on any host. Needs the private key.
    Rdb,
    /// A copy on this host: at most five minutes old, or any second between two copies.
    Aof,
    /// The running engine reads the whole market again: the newest there is.
    Database,
}

impl CacheOrigin {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rdb => "rdb",
            Self::Aof => "aof",
            Self::Database => "database",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RestoreIamArgs {
    /// Such as role/api or policy/audit; all of the commit when absent.
    #[arg(value_name = "KIND/NAME")]
    pub(crate) names: Vec<String>,
    /// Of the git repository that iam.policies keeps; the newest when absent.
    #[arg(long, value_name = "COMMIT")]
    pub(crate) commit: Option<String>,
    /// Show what would be done; change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do it without asking.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) configuration: ConfigurationArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreCacheArgs {
    /// The quickest that there is, by what was measured on this host, when absent.
    #[arg(long, value_enum)]
    pub(crate) from: Option<CacheOrigin>,
    /// As it was at this moment (aof), or the newest snapshot that is not later (rdb); for example
    /// 2026-04-01T10:31:00-04:00
    #[arg(long, value_name = "TIME")]
    pub(crate) time: Option<String>,
    /// With rdb: this snapshot; the newest when absent.
    #[arg(long, value_name = "ID", conflicts_with = "time")]
    pub(crate) snapshot: Option<String>,
    /// Into the folder of a Redis that does not run; the running one when absent.
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
    /// Show what would be done; change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do it without asking.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CheckCommand {
    /// Whether Redis persists as it should, and whether its files can be copied here. Exit code 1: a setting is not as
    /// wanted.
    Redis(CheckRedisArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CheckRedisArgs {
    /// Set what is not as wanted (CONFIG SET), and keep it (CONFIG REWRITE).
    #[arg(long)]
    pub(crate) apply: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RestoreTestCommand {
    /// Restore one backup to a scratch folder, check everything, and keep the result beside the backup.
    Run {
        /// The newest complete backup when absent.
        id: Option<String>,
        /// Where the scratch folder is made; DIR/proof when absent.
        #[arg(long, value_name = "DIR")]
        work: Option<PathBuf>,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// The restore tests that the repository knows, the newest last.
    List(RepositoryArgs),
    /// The newest restore test of one backup, with every check.
    Show {
        /// The backup's id; the newest restore test of all when absent.
        id: Option<String>,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RestorePagesArgs {
    /// Show what would be done; change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do it without asking.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Where the pages are restored to first; DIR/beside when absent.
    #[arg(long, value_name = "DIR")]
    pub(crate) work: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreDatabaseArgs {
    /// An empty or absent folder; with --delta, a data folder of the same cluster.
    #[arg(long, value_name = "DIR", required_unless_present = "list_points")]
    pub(crate) to: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Restore along this timeline; the newest when absent.
    #[arg(long, value_name = "N")]
    pub(crate) timeline: Option<u32>,
    /// Begin with this backup, as `bre backup list` shows it; the newest that leads to the target when absent. The
    /// result is the same: WAL replays from each.
    #[arg(long, value_name = "ID")]
    pub(crate) backup: Option<String>,
    /// Restore over what is in the folder, writing only the pages that differ. Shows what it will do, and asks.
    #[arg(long)]
    pub(crate) delta: bool,
    /// With --delta: do it without asking.
    #[arg(long, requires = "delta")]
    pub(crate) yes: bool,
    /// With --delta: WAL and logs that are kept may be copied where another file system lies between.
    #[arg(long, requires = "delta")]
    pub(crate) copy_across: bool,
    /// Set the copy to this, whatever its own files say, as shared_buffers=1GB on a smaller machine. May be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
    /// Look and show what would be done; change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Put a tablespace that lay at OLD (or has this oid) into NEW; without it, into DIR.tablespaces/OID. May be
    /// repeated.
    #[arg(long, value_name = "OLD=NEW")]
    pub(crate) tablespace_mapping: Vec<String>,
    /// List the named restore points that can be restored to, and end.
    #[arg(long)]
    pub(crate) list_points: bool,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
}

/// Exactly one of these; `--latest` when none is given.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct TargetArgs {
    /// Everything that the repository holds (the default).
    #[arg(long)]
    pub(crate) latest: bool,
    /// A moment with its offset, for example 2026-04-01T10:31:00-04:00
    #[arg(long, value_name = "TIME")]
    pub(crate) time: Option<String>,
    /// A WAL position, for example 0/3000148
    #[arg(long, value_name = "LSN")]
    pub(crate) lsn: Option<String>,
    /// A restore point that pg_create_restore_point made; --list-points shows them.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// The end of a transaction, as pg_current_xact_id() gave it.
    #[arg(long, value_name = "XID")]
    pub(crate) xid: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreTableArgs {
    /// One table or several: orders, sales.orders, "Sales"."Order Lines". Without a schema: public.
    #[arg(
        long,
        value_name = "SCHEMA.NAME",
        required = true,
        value_delimiter = ','
    )]
    pub(crate) table: Vec<String>,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Of this timeline; the newest when absent.
    #[arg(long, value_name = "N")]
    pub(crate) timeline: Option<u32>,
    /// Only rows for which this SQL condition held at that moment.
    #[arg(long = "where", value_name = "SQL")]
    pub(crate) only: Option<String>,
    /// How far the table goes back.
    #[arg(long, value_enum, default_value = "missing")]
    pub(crate) mode: TableMode,
    /// Let the table's triggers fire for the rows that are merged.
    #[arg(long)]
    pub(crate) fire_triggers: bool,
    /// Show what would change; change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do it without asking.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) running: RunningArgs,
    /// Where the moment is restored to first; DIR/beside when absent.
    #[arg(long, value_name = "DIR")]
    pub(crate) work: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum TableMode {
    /// Put back what is missing; keep everything written since.
    Missing,
    /// And give rows that differ their old content.
    Changed,
    /// And delete what was written since: the table as it was.
    Exact,
}

/// Which database of the cluster, and as whom; the instance's own, or as [clusters.NAME] says, when absent.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RunningArgs {
    /// The database's name.
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// The role to connect as; it must be allowed to write the tables.
    #[arg(long, value_name = "ROLE")]
    pub(crate) user: Option<String>,
}
