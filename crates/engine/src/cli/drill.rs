//! `bre drill`, and its hidden client.

use super::*;

#[derive(Debug, Subcommand)]
pub(crate) enum DrillCommand {
    /// The drills there are.
    List,
    /// Run one drill on a throw-away system.
    #[command(subcommand)]
    Run(Box<DrillScenario>),
}

#[derive(Debug, Subcommand)]
pub(crate) enum DrillScenario {
    /// Kill PostgreSQL under load, delete everything but the repository and its keys, and count what is lost.
    DatabaseLoss(DatabaseLossArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DatabaseLossArgs {
    /// Strict mode: an answer waits until the repository holds its record.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Kill the engine and its WAL streamer in the same instant.
    #[arg(long)]
    pub(crate) and_engine: bool,
    /// Keep a standby, whose folder survives the loss, and see it take the place of the database.
    #[arg(long)]
    pub(crate) standby: bool,
    /// What goes wrong besides, from before the loss into the recovery: kills, repository-away, and on S3
    /// store-errors, store-cuts,
    /// store-slow. Strict mode only: normal mode promises nothing while the repository is away.
    #[arg(long, requires = "strict")]
    pub(crate) fault: Option<Fault>,
    /// Clients that ask for prices all the while.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(crate) clients: u16,
    /// How long they ask.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// The moment of the kill and all the clients' requests follow from it; drawn and printed when absent.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// A recovery that takes longer fails the drill; the guide's limit unless a tighter one is asked for.
    #[arg(long, default_value_t = 900)]
    pub(crate) rto_seconds_max: u64,
    /// Feed file to price from instead of the shipped sample.
    #[arg(long = "book", value_name = "FILE")]
    pub(crate) rates_file: Option<PathBuf>,
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
