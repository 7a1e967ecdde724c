//! The command line, as a person types it. Meaning lives in `commands/` and `up/`.

mod audit;
mod prices;
mod snapshot;
mod verify;

use assurance::drills::Fault;
use std::{num::NonZeroU32, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;
use services::ServiceSet;

use crate::{exit::Exit, host::location::Location};
pub(crate) use audit::*;
pub(crate) use prices::*;
pub(crate) use snapshot::*;
pub(crate) use verify::*;

/// Prices every short-sale borrow and locate exactly, keeps a provable record of each answer, and gets all of it back after any failure.
#[derive(Debug, Parser)]
#[command(name = "bre", version, propagate_version = true, after_help = Exit::HELP)]
pub(crate) struct Cli {
    /// The instance's folder.
    #[arg(long, global = true, default_value = "./bre-data", value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Print JSON for machines.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything on one machine; prints the URL and a first API key.
    Up(UpArgs),
    /// Run one or more of the services, on a database and a cache of your own.
    Serve(ServeArgs),
    /// Load a feed file into the running instance.
    Import(ImportArgs),
    /// What feeds say and prices do not follow yet.
    #[command(subcommand)]
    Feed(FeedCommand),
    /// Price one locate.
    Quote(QuoteArgs),
    /// What is set for a stock.
    #[command(subcommand)]
    Stock(StockCommand),
    /// Locates of a client, and what its orders do with them.
    #[command(subcommand)]
    Locate(LocateCommand),
    /// Price a whole book, or see what changed between two.
    #[command(subcommand)]
    Book(BookCommand),
    /// API keys of the running instance.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Take, list and check backups.
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Documents of other components than the database, sealed in the repository: the instance's own configuration.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Who can read the repository: its key's age, a new key, an old one let go.
    #[command(subcommand)]
    RepositoryKey(RepositoryKeyCommand),
    /// Legal holds, and copies of the repository.
    #[command(subcommand)]
    Repository(RepositoryCommand),
    /// Bring a database back into an empty folder, or over a broken one, ready to start.
    Restore(RestoreArgs),
    /// One table, or a few of its rows, back into the database that runs.
    #[command(subcommand)]
    Table(TableCommand),
    /// A warm spare: a restored cluster that replays whatever the repository gets, and is promoted on demand.
    #[command(subcommand)]
    Spare(SpareCommand),
    /// The definitions of tables, functions and roles as SQL in git.
    #[command(subcommand)]
    Schema(SchemaCommand),
    /// What PostgreSQL's restore_command calls.
    #[command(subcommand)]
    Wal(WalCommand),
    /// Let go of the cluster: stop streaming and drop the replication slot.
    Detach {
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
    },
    /// Watch logs from another site: sign that they only grew.
    #[command(subcommand)]
    Witness(WitnessCommand),
    /// Prove a recovery on a throw-away system under load.
    #[command(subcommand)]
    Drill(DrillCommand),
    /// One client of a drill; started by `bre drill`.
    #[command(hide = true)]
    DrillClient(DrillClientArgs),
    /// Decodes a book in Parquet from standard input; started by the engine, under limits.
    #[command(hide = true)]
    ReadBook {
        /// The limits are set already.
        #[arg(long)]
        limited: bool,
    },
    /// The provable record.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Price recorded quotes again from their recorded inputs and compare the bytes.
    Replay(ReplayArgs),
    /// Check what runs, as after a recovery, or read back all that the repository holds.
    #[command(subcommand)]
    Verify(VerifyCommand),
    /// The table of jobs: what runs when, how long it is kept, how it is checked.
    #[command(subcommand)]
    Plan(PlanCommand),
    /// What runs, how far the stream is, what could be restored; of the instance and of every cluster that [clusters.NAME] names.
    Status {
        /// Of this cluster alone.
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Port of the public API; 0 takes a free one.
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Answer a locate only when the repository holds its record (RPO 0).
    #[arg(long)]
    pub(crate) strict: bool,
    /// The repository: a folder or s3://BUCKET/PREFIX; as [repository] says, or DIR/repository, when absent. Commands find it while
    /// the engine runs; bre.toml tells them afterwards.
    #[arg(long, value_name = "WHERE")]
    pub(crate) repository: Option<Location>,
    /// Feed file (Interactive Brokers format) to load on the first start instead of the shipped sample.
    #[arg(long, value_name = "FILE")]
    pub(crate) book: Option<PathBuf>,
    /// Settings file; DIR/bre.toml when it is there.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the first API key. Without this only the start that makes it does, and later ones name its file.
    #[arg(long)]
    pub(crate) show_key: bool,
    /// All of the audit log is truly lost: let another take its place, in an epoch above every one that is known, with the loss signed for. Asks again.
    #[arg(long)]
    pub(crate) continue_log: bool,
    /// With --continue-log, where there is no terminal to ask at: yes, all of it is lost.
    #[arg(long, requires = "continue_log")]
    pub(crate) yes_all_is_lost: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// all, or a comma-separated list of api-gateway, calculation-service, data-service, cache-service.
    #[arg(long, value_name = "LIST")]
    pub(crate) services: ServiceSet,
    /// Settings file; the same one may serve all processes.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Port of the public API with an api-gateway, of the internal routes otherwise; 0 takes a free one.
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Port of the internal routes beside an api-gateway.
    #[arg(long, value_name = "PORT")]
    pub(crate) internal_port: Option<u16>,
    /// The database was restored: the file bre_recovery.json that `bre restore` left in its data folder.
    #[arg(long, value_name = "FILE")]
    pub(crate) restored: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key for a client, or an operator's token; it is shown once.
    Create {
        /// The client whose locates it may price; of an operator's token, its holder's name.
        #[arg(long, required_unless_present = "operator")]
        client: Option<String>,
        /// standard, premium or internal; standard for clients, internal for operators when absent.
        #[arg(long)]
        tier: Option<String>,
        /// A token for administration over HTTP; it prices nothing.
        #[arg(long)]
        operator: bool,
    },
    /// A new key in place of this one, which goes on working until the overlap is over.
    Rotate {
        id: String,
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(0..=720))]
        overlap_hours: u16,
    },
    /// List keys (never the secrets).
    List,
    /// Revoke a key at once.
    Revoke { id: String },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum BackupKind {
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
        #[arg(long, value_enum, default_value = "database")]
        component: Component,
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
        id: String,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Read back every byte of one backup, or of all, with the WAL they need; or every page of the running cluster.
    Verify {
        id: Option<String>,
        /// The running cluster's own files instead: which pages are damaged, and what they belong to.
        #[arg(long, conflicts_with = "id")]
        live: bool,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Bring damaged pages of the running cluster back from the repository; shows them, and asks.
    RepairPages {
        /// Show what would be done; change nothing.
        #[arg(long)]
        dry_run: bool,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
        /// Where the pages are restored to for as long as it takes; DIR/beside when absent.
        #[arg(long, value_name = "DIR")]
        work: Option<PathBuf>,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Restore one backup into a scratch folder, check everything, and keep the result beside it.
    Prove {
        /// The newest complete one when absent.
        id: Option<String>,
        /// Where the scratch folder is made; DIR/proof when absent.
        #[arg(long, value_name = "DIR")]
        work: Option<PathBuf>,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Let go of what is older than the rules allow; explains every decision, and asks.
    Expire(ExpireArgs),
    /// Write a backup as a plain data folder that pg_verifybackup accepts.
    Export {
        id: String,
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
    /// Delete WAL that nothing needs without a mark and a grace, for a repository that is full. Packs and wraps keep their grace.
    #[arg(long)]
    pub(crate) now: bool,
    /// Settings file with the rules; DIR/bre.toml when it is there.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RepositoryKeyCommand {
    /// The key that backups are sealed to, its age, and who else can read.
    Show(RepositoryArgs),
    /// Put a new key beside the old one, as [repository_key] says: rewrites no data, finishes what was interrupted. Needs the old private key.
    Rotate {
        /// Settings file; DIR/bre.toml when it is there.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Seal everything that is here to the key that is kept offline (DIR/keys/offline.pub) as well; new things are anyway.
    SealOffline(RepositoryArgs),
    /// Delete the wraps of replaced keys, once everything opens with the current one.
    RetireOld {
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
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

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    #[default]
    Auto,
    Local,
    Protocol,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RepositoryCommand {
    /// Keep a backup, all that it refers to and the WAL that it needs until somebody clears that again, whatever the rules say.
    #[command(subcommand)]
    Hold(HoldCommand),
    /// Copy backups and WAL into another repository: sealed objects as they are, read back, manifests last. Goes on where it was stopped.
    Copy(CopyArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum HoldCommand {
    /// On record with its reason; told to a store that has holds of its own.
    Set {
        backup: String,
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    Clear {
        backup: String,
        #[arg(long)]
        reason: String,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    Show(RepositoryArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// The instance's own when absent.
    #[arg(long, value_name = "WHERE")]
    pub(crate) from: Option<String>,
    /// A folder, s3://BUCKET/PREFIX, or the name of one that [repositories.NAME] describes; made where there is none yet.
    #[arg(long, value_name = "WHERE")]
    pub(crate) to: String,
    /// One backup; all that the other's rules keep when absent.
    #[arg(long, value_name = "ID")]
    pub(crate) backup: Option<String>,
    /// The folder with the repository's keys; needed for backups without a pack list only.
    #[arg(long, value_name = "DIR")]
    pub(crate) keys: Option<PathBuf>,
}

/// Where the repository and its keys are; below --data when absent.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RepositoryArgs {
    /// The repository: a folder, s3://BUCKET/PREFIX, or the name of one that [repositories.NAME] describes.
    #[arg(long, value_name = "WHERE")]
    pub(crate) repository: Option<String>,
    /// The folder with the repository's keys.
    #[arg(long, value_name = "DIR")]
    pub(crate) keys: Option<PathBuf>,
    /// Those of a cluster that [clusters.NAME] names.
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// An empty or absent folder; with --delta, a data folder of the same cluster.
    #[arg(long, value_name = "DIR", required_unless_present = "list_points")]
    pub(crate) to: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Restore along this timeline; the newest when absent.
    #[arg(long, value_name = "N")]
    pub(crate) timeline: Option<u32>,
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
    /// Put a tablespace that lay at OLD (or has this oid) into NEW; without it, into DIR.tablespaces/OID. May be repeated.
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

#[derive(Debug, Subcommand)]
pub(crate) enum SchemaCommand {
    /// Commit what changed since the last time; nothing when nothing did.
    Backup {
        /// A folder (made when it is missing) or a remote of git without credentials; as [backup] schema_to says when absent.
        #[arg(long, value_name = "DIR-OR-URL")]
        to: Option<String>,
        #[command(flatten)]
        running: RunningArgs,
        /// Of a cluster that [clusters.NAME] names.
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TableCommand {
    /// Restore a moment beside the database, compare, show what would change, ask, and merge in one transaction.
    Restore(TableRestoreArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TableRestoreArgs {
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
    /// Only the rows of then for which this SQL condition holds.
    #[arg(long = "where", value_name = "SQL")]
    pub(crate) only: Option<String>,
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
    /// Where the moment is restored to for as long as it takes; DIR/beside when absent.
    #[arg(long, value_name = "DIR")]
    pub(crate) work: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) repository: RepositoryArgs,
}

/// Which database of the cluster, and as whom; the instance's own, or as [clusters.NAME] says, when absent.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RunningArgs {
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// A role that may write the tables.
    #[arg(long, value_name = "ROLE")]
    pub(crate) user: Option<String>,
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

#[derive(Debug, Subcommand)]
pub(crate) enum SpareCommand {
    /// Keep the spare until stopped: restore the newest backup once, then replay for ever. `bre up` does it with [spare] enabled = true.
    Run {
        #[command(flatten)]
        repository: RepositoryArgs,
        /// Settings file; DIR/bre.toml when it is there.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// How far it is behind the repository, what it has replayed, and whether it could be promoted; exit code 0 only when it could.
    Status {
        /// Of a cluster that [clusters.NAME] names.
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
    },
    /// Make it the primary: replays all that the repository holds, claims a new timeline, takes writes. Shows what it will do, and asks.
    Promote {
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
        /// Promote although the old primary lives: what that one commits from now on is lost.
        #[arg(long)]
        even_if_alive: bool,
        /// The spare of a cluster that [clusters.NAME] names.
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
        /// Settings file; DIR/bre.toml when it is there.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Stop the process that keeps it; the next one goes on from there.
    Stop {
        /// Of a cluster that [clusters.NAME] names.
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum WalCommand {
    /// Hand out one WAL segment or history file. Exit 0: handed out; 1: proven not to exist; above 125: anything else.
    Fetch {
        /// %f of restore_command.
        name: String,
        /// %p of restore_command.
        path: PathBuf,
        /// Ask a running restore through its socket instead of the repository.
        #[arg(long, value_name = "SOCKET")]
        socket: Option<PathBuf>,
        #[command(flatten)]
        repository: RepositoryArgs,
    },
    /// Stream the WAL of a cluster that [clusters.NAME] names into its repository, until it is stopped.
    Stream {
        #[arg(long, value_name = "NAME")]
        cluster: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DrillCommand {
    /// Kill PostgreSQL under load, delete everything but the repository and its keys, and count what is lost.
    DatabaseLoss(DatabaseLossArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DatabaseLossArgs {
    #[arg(long)]
    pub(crate) strict: bool,
    /// Kill the engine and its WAL streamer in the same instant.
    #[arg(long)]
    pub(crate) and_engine: bool,
    /// Keep a warm spare, whose folder survives the loss, and see it take the place of the database.
    #[arg(long)]
    pub(crate) spare: bool,
    /// What goes wrong besides, from before the loss into the recovery: kills, repository-away, and on S3 store-errors, store-cuts,
    /// store-slow. Strict mode only: normal mode promises nothing while the repository is away.
    #[arg(long, requires = "strict")]
    pub(crate) fault: Option<Fault>,
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(crate) clients: u16,
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// The moment of the kill and all the clients' requests follow from it; drawn and printed when absent.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// A recovery that takes longer fails the drill; the guide's limit unless a tighter one is asked for.
    #[arg(long, default_value_t = 900)]
    pub(crate) rto_seconds_max: u64,
    /// Feed file to price from instead of the shipped sample.
    #[arg(long, value_name = "FILE")]
    pub(crate) book: Option<PathBuf>,
    /// Where to build the throw-away system; the temporary folder when absent.
    #[arg(long, value_name = "DIR")]
    pub(crate) work: Option<PathBuf>,
    /// Where its repository is to lie, in a place of its own below this; with the throw-away system when absent.
    #[arg(long, value_name = "WHERE")]
    pub(crate) repository: Option<Location>,
}

#[derive(Debug, Args)]
pub(crate) struct DrillClientArgs {
    #[arg(long)]
    pub(crate) url: String,
    #[arg(long)]
    pub(crate) api_key_file: PathBuf,
    #[arg(long)]
    pub(crate) client: String,
    #[arg(long)]
    pub(crate) ledger: PathBuf,
    #[arg(long)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// Quotes recorded from this moment on, for example 2026-04-01T10:31:00-04:00; from the first one when absent.
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Quotes recorded up to and with this moment; to the last one when absent.
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
    /// Read this database instead of the running instance's.
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlannedJob {
    Full,
    Incremental,
    /// Of the newest complete backup.
    Proof,
    Expire,
    Schema,
    #[value(name = "audit_archive", alias = "audit-archive")]
    AuditArchive,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// Every job with its schedule, retention, storage and verification, its last run and its next.
    Show,
    /// Run one job of the plan now.
    Run { job: PlannedJob },
}
