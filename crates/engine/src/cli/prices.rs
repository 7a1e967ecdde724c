//! Feeds in, prices out: import, one quote, whole books.

use super::*;

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    pub(crate) kind: FeedKind,
    pub(crate) file: PathBuf,
    /// The name under which it counts as a source; the kind's own when absent.
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// When a file without a time of its own was true, for example 2026-04-01T13:23:00Z; now when absent.
    #[arg(long, value_name = "TIME")]
    pub(crate) valid_at: Option<String>,
    /// Take it although it is further from the batch before it than the limits allow: you have looked, and the market did that. On the record.
    #[arg(long)]
    pub(crate) accept_jumps: bool,
    /// Take it although it says itself that it is older than what is loaded: it is to complete the past. On the record.
    #[arg(long)]
    pub(crate) accept_older: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FeedCommand {
    /// Figures that jumped and that prices do not follow until a later delivery, or you, confirm them.
    Held,
    /// Believe a held figure: you have looked, and the market did that. On the record.
    Accept {
        /// The source, as `bre feed held` names it.
        source: String,
        /// The ticker, or MARKET for the index of the market.
        subject: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum FeedKind {
    /// Interactive Brokers short-stock file, raw or as CSV.
    Ibkr,
    /// A SecLend-type API's answer for many tickers (JSON).
    Seclend,
    /// Clear Street's indicative rates (CSV).
    Clearstreet,
    /// Cboe VIX history (CSV).
    Vix,
    /// Earnings calendar (CSV).
    Events,
    /// Terms of clients (CSV).
    Brokers,
    /// Feeds' and clients' other names for tickers, with dates (CSV).
    Aliases,
    /// Stocks and their minimum rates, with dates (CSV).
    Stocks,
    /// Trading and settlement days of the exchange (CSV with its range; docs/formats/calendar.md).
    Calendar,
}

impl FeedKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            FeedKind::Ibkr => "ibkr",
            FeedKind::Seclend => "seclend",
            FeedKind::Clearstreet => "clearstreet",
            FeedKind::Vix => "vix",
            FeedKind::Events => "events",
            FeedKind::Brokers => "brokers",
            FeedKind::Aliases => "aliases",
            FeedKind::Stocks => "stocks",
            FeedKind::Calendar => "calendar",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct QuoteArgs {
    #[arg(long)]
    pub(crate) ticker: String,
    /// Position value, for example 100000.00; not needed with --shares and --price.
    #[arg(long, required_unless_present = "shares")]
    pub(crate) value: Option<String>,
    /// Number of shares, with --price: the position is worth their product.
    #[arg(long, requires = "price")]
    pub(crate) shares: Option<String>,
    /// Price of one share, for example 25.50
    #[arg(long, requires = "shares")]
    pub(crate) price: Option<String>,
    /// Loan days, 1 to 365.
    #[arg(long)]
    pub(crate) days: String,
    /// Client id; the API key must belong to it.
    #[arg(long = "client", value_name = "CLIENT")]
    pub(crate) client_id: String,
    /// Print every input and every step.
    #[arg(long)]
    pub(crate) explain: bool,
    #[command(flatten)]
    pub(crate) public: PublicArgs,
}

/// Asking over the public port, as any client would.
#[derive(Debug, Args)]
pub(crate) struct PublicArgs {
    /// File that holds the API key; the instance's first key when absent.
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// The public port by the name in its certificate, such as https://bre.example:8000; the instance's own address when absent.
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// Certificates, as PEM, to believe for https instead of the system's own.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StockCommand {
    /// The rate below which a stock is lent to nobody: shown, or set on the record. Many at once, and new stocks: bre import stocks FILE.
    MinimumRate(MinimumRateArgs),
}

#[derive(Debug, Args)]
pub(crate) struct MinimumRateArgs {
    pub(crate) ticker: String,
    /// A fraction a year: 0.05 is 5 %. What counts and what was set is shown when absent.
    pub(crate) rate: Option<String>,
    /// From when on, for example 2026-04-01T09:30:00-04:00; now when absent.
    #[arg(long, value_name = "TIME", requires = "rate")]
    pub(crate) valid_from: Option<String>,
    /// Until when; without an end when absent.
    #[arg(long, value_name = "TIME", requires = "rate")]
    pub(crate) valid_to: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BookCommand {
    /// Price a file of positions, CSV or Parquet, for all its clients; one line of JSON for each, a summary last.
    Price(BookPriceArgs),
    /// What changed between two priced books, by cause.
    Diff(BookDiffArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BookPriceArgs {
    /// Columns ticker, client, days, and value or shares and price.
    pub(crate) file: PathBuf,
    /// Where to write the result; standard output when absent.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Price as of a moment of the past, for example 2026-04-01T10:31:00-04:00
    #[arg(long, value_name = "TIME")]
    pub(crate) as_of: Option<String>,
    /// With what was known by then; --as-of itself when absent.
    #[arg(long, value_name = "TIME", requires = "as_of")]
    pub(crate) known_at: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BookDiffArgs {
    /// What `bre book price` wrote before.
    pub(crate) a: PathBuf,
    /// What it wrote later.
    pub(crate) b: PathBuf,
    /// How many of the largest changes to show; with --json all are printed, one a line.
    #[arg(long, default_value_t = 10)]
    pub(crate) top: usize,
}
