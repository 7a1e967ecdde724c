//! `bre locate`.

use super::*;

#[derive(Debug, Subcommand)]
pub(crate) enum LocateCommand {
    /// Ask for shares: priced now, or from a quote that the client has. The answer is an offer, or a rejection with
    /// its reason.
    Request(LocateRequestArgs),
    /// Accept an offer: shares are set aside, as many as there are, up to what was asked for.
    Accept(LocateStepArgs),
    /// Decline an offer.
    Decline(LocateStepArgs),
    /// Give shares back that are not needed any more.
    Return {
        #[command(flatten)]
        locate: LocateStepArgs,
        /// All that no order reserves or has used when absent.
        #[arg(long)]
        shares: Option<u64>,
    },
    /// A client's locates, the newest first.
    List(LocateListArgs),
    /// What may be sold short, what orders at the market reserve, what was sold: of a locate, of a ticker, or of all
    /// tickers.
    Availability {
        /// A locate's id or a ticker; every ticker with locates in force when absent.
        of: Option<String>,
        #[command(flatten)]
        public: PublicArgs,
    },
    /// One locate as it is now.
    Show {
        /// The locate's id.
        locate: String,
        #[command(flatten)]
        public: PublicArgs,
    },
    /// Record what an order does with a locate's shares, once for each order.
    Use(LocateUseArgs),
    /// Serve locates again for a trade date of which a recovery may have lost grants: you have compared them with
    /// what clients hold. On the
    /// record.
    Reopen {
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
    },
}

/// What is checked by the server is text here: its digits reach it as they were typed.
#[derive(Debug, Args)]
pub(crate) struct LocateRequestArgs {
    /// The ticker to sell short.
    #[arg(long, required_unless_present = "quote", conflicts_with = "quote")]
    pub(crate) ticker: Option<String>,
    /// Number of shares, in whole lots; as the quote says when absent.
    #[arg(long, required_unless_present = "quote")]
    pub(crate) shares: Option<String>,
    /// Price of one share, for example 25.50
    #[arg(long, required_unless_present = "quote", conflicts_with = "quote")]
    pub(crate) price: Option<String>,
    /// Loan days, 1 to 365.
    #[arg(long, required_unless_present = "quote", conflicts_with = "quote")]
    pub(crate) days: Option<String>,
    /// Client id; the API key must belong to it.
    #[arg(
        long = "client",
        value_name = "CLIENT",
        required_unless_present = "quote"
    )]
    pub(crate) client_id: Option<String>,
    /// Make the locate from this quote, which is not older than its end.
    #[arg(long, value_name = "QUOTE-ID")]
    pub(crate) quote: Option<String>,
    /// single_use, reusable or pre_borrow; single_use when absent.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<String>,
    /// Nothing rather than a part.
    #[arg(long)]
    pub(crate) all_or_none: bool,
    /// Reject it when the borrow rate is above this; a fraction a year: 0.05 is 5 %.
    #[arg(long, value_name = "RATE")]
    pub(crate) limit_rate: Option<String>,
    /// Sent again with the same key, the request is answered again and made once.
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    #[command(flatten)]
    pub(crate) public: PublicArgs,
}

/// A step of a locate that needs no more than its id.
#[derive(Debug, Args)]
pub(crate) struct LocateStepArgs {
    /// The locate's id.
    pub(crate) locate: String,
    /// Sent again with the same key, the step is answered again and made once.
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    #[command(flatten)]
    pub(crate) public: PublicArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LocateListArgs {
    /// Only those of this ticker.
    #[arg(long)]
    pub(crate) ticker: Option<String>,
    /// Only those that are offered, filled, rejected, declined, expired or cancelled.
    #[arg(long, value_name = "STATUS")]
    pub(crate) status: Option<String>,
    /// Only those of this trade date, for example 2026-04-01
    #[arg(long, value_name = "DATE")]
    pub(crate) trade_date: Option<String>,
    /// Leave out this many of the newest.
    #[arg(long, default_value_t = 0)]
    pub(crate) skip: u32,
    /// Show at most this many.
    #[arg(long, default_value_t = 100)]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) public: PublicArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LocateUseArgs {
    /// The locate's id.
    pub(crate) locate: String,
    /// The order's own id; sent again, it is answered again.
    #[arg(long, value_name = "ID")]
    pub(crate) order: String,
    /// How many.
    #[arg(long)]
    pub(crate) shares: u64,
    /// sell_short or buy_to_cover.
    #[arg(long, default_value = "sell_short")]
    pub(crate) side: String,
    /// used, reserved while the order is at the market, or released when it ended without an execution.
    #[arg(long, default_value = "used")]
    pub(crate) state: String,
    #[command(flatten)]
    pub(crate) public: PublicArgs,
}
