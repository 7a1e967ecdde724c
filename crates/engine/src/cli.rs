//! The command line, as a person types it: a noun, then a verb. Meaning lives in `commands/` and `up/`, old spellings
//! in `aliases`.

pub(crate) mod aliases;
mod audit;
mod backup;
mod drill;
mod jobs;
mod keys;
mod locate;
mod prices;
mod repository;
mod restore;
#[cfg(test)]
mod screens;
mod snapshot;
mod standby;
mod verify;

use assurance::drills::Fault;
use std::{num::NonZeroU32, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use host::location::Location;
use services::ServiceSet;

pub(crate) use audit::*;
pub(crate) use backup::*;
pub(crate) use drill::*;
pub(crate) use jobs::*;
pub(crate) use keys::*;
pub(crate) use locate::*;
use operations::exit::Exit;
pub(crate) use prices::*;
pub(crate) use repository::*;
pub(crate) use restore::*;
pub(crate) use snapshot::*;
pub(crate) use standby::*;
use supervisor::{serve::ServeOptions, up::UpOptions};
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
    /// Run everything on one machine; prints the URL and, at the first start, an API key.
    Up(UpArgs),
    /// Run one or more of the services, on a database and a cache of your own.
    Serve(ServeArgs),
    /// Show the state, the RPO now and what to do; of the instance, and of every cluster that [clusters.NAME] names.
    Status {
        /// Only of this cluster.
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
    },
    /// Price one borrow.
    Quote(QuoteArgs),
    /// Load a feed file into the running instance.
    Import(ImportArgs),
    /// Figures of feeds that are held: prices do not follow them yet.
    #[command(subcommand)]
    Feed(FeedCommand),
    /// Price recorded quotes again from their recorded inputs and compare the bytes.
    Replay(ReplayArgs),
    /// Price a whole book, or show what changed between two.
    #[command(subcommand)]
    Book(BookCommand),
    /// Ask for shares to sell short, accept or decline what is offered, record what orders do with them.
    #[command(subcommand)]
    Locate(LocateCommand),
    /// What operators set for a stock.
    #[command(subcommand)]
    Stock(StockCommand),
    /// API keys of the running instance.
    #[command(subcommand)]
    ApiKey(ApiKeyCommand),
    /// The plan: which jobs there are, when they run, how long their results are kept, how they are checked.
    #[command(subcommand)]
    Plan(PlanCommand),
    /// The jobs of the plan: how they stand, and running one now.
    #[command(subcommand)]
    Job(JobCommand),
    /// Take, list, export and expire backups.
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Documents of other components than the database, sealed in the repository: the instance's own configuration.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// The definitions of tables, functions and roles as SQL in git.
    #[command(subcommand)]
    Schema(SchemaCommand),
    /// The repository: its keys, legal holds, copies.
    #[command(subcommand)]
    Repository(RepositoryCommand),
    /// The stream of WAL into the repository, and its way back.
    #[command(subcommand)]
    Wal(WalCommand),
    /// Check how a part that the engine needs is set up.
    #[command(subcommand)]
    Check(CheckCommand),
    /// Restore a database, one table, damaged pages, or the cache.
    #[command(subcommand)]
    Restore(RestoreCommand),
    /// A standby: a restored cluster that replays what the repository gets, and is promoted on demand.
    #[command(subcommand)]
    Standby(StandbyCommand),
    /// Restore tests: a backup restored to a scratch folder, replayed and checked.
    #[command(subcommand)]
    RestoreTest(RestoreTestCommand),
    /// Check a backup, the repository, the running cluster, its database, or the audit log; changes nothing.
    #[command(subcommand)]
    Verify(VerifyCommand),
    /// The audit log: its heads, proofs of its entries, its archive and its keys.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Sign, at another site, that logs only grew.
    #[command(subcommand)]
    Witness(WitnessCommand),
    /// Run a recovery on a throw-away system under load, and count what it loses.
    #[command(subcommand)]
    Drill(DrillCommand),
    /// Print the completion script of a shell.
    Completion {
        #[arg(value_enum)]
        shell: CompletionShell,
    },
    /// Print the manual page of bre, or write one page a command into a folder.
    Man {
        /// Write the pages of all commands into this folder; it is made when it is missing.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
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
}

/// Those whose completion is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompletionShell {
    Bash,
    Zsh,
    Fish,
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
    #[arg(long = "book", value_name = "FILE")]
    pub(crate) rates_file: Option<PathBuf>,
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
    /// The database was restored: the file bre_recovery.json that `bre restore database` left in its data folder.
    #[arg(long, value_name = "FILE")]
    pub(crate) restored: Option<PathBuf>,
}

impl From<UpArgs> for UpOptions {
    fn from(args: UpArgs) -> Self {
        Self {
            port: args.port,
            strict: args.strict,
            repository: args.repository,
            rates_file: args.rates_file,
            config: args.config,
            show_key: args.show_key,
            continue_log: args.continue_log,
            yes_all_is_lost: args.yes_all_is_lost,
        }
    }
}

impl From<ServeArgs> for ServeOptions {
    fn from(args: ServeArgs) -> Self {
        Self {
            services: args.services,
            config: args.config,
            port: args.port,
            internal_port: args.internal_port,
            restored: args.restored,
        }
    }
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
        /// The cluster's name.
        #[arg(long, value_name = "NAME")]
        cluster: String,
    },
    /// Stop protecting the instance's cluster: end strict mode and drop the replication slot, which keeps WAL for
    /// ever otherwise.
    Detach {
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
    },
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use operations::exit::Exit;

    #[test]
    fn the_help_lists_every_exit_code() {
        let help = super::Cli::command().render_long_help().to_string();
        let all = [
            (Exit::Done, "done"),
            (Exit::Failed, "failed"),
            (Exit::Usage, "usage"),
            (Exit::Refused, "refused"),
            (Exit::NotRunning, "not running"),
            (Exit::Partial, "partial"),
            (Exit::SoundUpTo, "sound up to"),
            (Exit::Unanchored, "unanchored"),
            (Exit::Cut, "cut"),
            (Exit::Rewritten, "rewritten"),
            (Exit::KnownLoss, "known loss"),
        ];
        for (number, (exit, word)) in all.into_iter().enumerate() {
            assert_eq!(exit as usize, number);
            let line = format!("{number:>3}  {word}");
            assert!(help.contains(&line), "{line:?} is not in:\n{help}");
        }
    }
}
