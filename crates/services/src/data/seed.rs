//! What a first run starts with: the four brokers, the thirteen stocks, and a sample book if one is given.

use audit::{Fields, Kind};
use aws_lc_rs::digest::{SHA256, digest};
use connection::Landing;
use jiff::Timestamp;

use super::database::{DatabaseError, connect};
use super::feeds::{Delivery, prepare};
use super::reading;
use super::stocks::StockTerms;
use super::writer::{Change, Writer};
use super::{FeedError, WriteError};
use crate::market::{BrokerTerms, FeedLimits};

/// Files in the feeds' own formats.
#[derive(Debug, Clone, Copy)]
pub struct SampleRates {
    pub rates: &'static [u8],
    pub volatility: &'static [u8],
}

impl SampleRates {
    /// A small book with invented rates, shipped with the engine.
    pub const fn shipped() -> SampleRates {
        SampleRates {
            rates: include_bytes!("../../sample/book.txt"),
            volatility: include_bytes!("../../sample/vix.csv"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("recording the starting set: {0}")]
    Write(#[from] WriteError),
    #[error("the sample book is not valid: {0}")]
    Sample(#[from] FeedError),
}

const STOCKS: [&str; 13] = [
    "AAPL", "MSFT", "AMZN", "GOOGL", "META", "TSLA", "BRK.A", "JPM", "JNJ", "V", "NFLX", "GME",
    "AMC",
];

/// The sample's own name as a source, so that nobody takes its rates for real ones.
pub(crate) const SAMPLE: &str = "sample";
const SHIPPED: SampleRates = SampleRates::shipped();

fn starting_stocks() -> Vec<StockTerms> {
    let stock = |ticker: &str| StockTerms {
        ticker: ticker.to_owned(),
        minimum: None,
    };
    STOCKS.into_iter().map(stock).collect()
}

fn own_fields(name: &'static str) -> Fields {
    Fields::new().with("actor", "engine").with("name", name)
}

/// Adds what is missing; a database that has brokers or a book keeps them.
pub(crate) async fn seed(
    database: &str,
    writer: &Writer,
    sample: Option<SampleRates>,
) -> Result<(), SeedError> {
    let failed = DatabaseError::query("looking for the starting set");
    let session = connect(database, "bre seed", Landing::ReadWrite).await?;
    let client = &session.client;
    let counts = "SELECT (SELECT count(*) FROM brokers), (SELECT count(*) FROM stocks)";
    let row = client.query_one(counts, &[]).await.map_err(&failed)?;
    let mut stocks = match row.get::<_, i64>(1) {
        0 => starting_stocks(),
        _ => Vec::new(),
    };
    if row.get::<_, i64>(0) == 0 {
        for terms in BrokerTerms::starting_set() {
            let fields = terms.fields().with("reason", "starting_set");
            let change = Change::Start {
                terms: Some(terms),
                stocks: std::mem::take(&mut stocks),
            };
            writer.entry(Kind::BrokerChanged, fields, change).await?;
        }
    }
    if !stocks.is_empty() {
        let change = Change::Start {
            terms: None,
            stocks,
        };
        let fields = own_fields("stocks").with("reason", "starting_set");
        writer
            .entry(Kind::ConfigurationChanged, fields, change)
            .await?;
    }
    // The first start after an upgrade: what an older engine put into the tables is stated once, as it stands now.
    let due = "SELECT EXISTS (SELECT FROM baseline_due)";
    let due = client.query_one(due, &[]).await.map_err(&failed)?;
    if due.get(0) {
        let fields = own_fields("tables").with("reason", "upgrade");
        writer
            .entry(Kind::ConfigurationChanged, fields, Change::Baseline)
            .await?;
    }
    if let Some(sample) = sample {
        let files = [("ibkr", sample.rates), ("vix", sample.volatility)];
        let digests = files.map(|(_, bytes)| digest(&SHA256, bytes).as_ref().to_vec());
        // An engine that was killed between the two has recorded the first.
        let recorded = "SELECT EXISTS (SELECT FROM feed_batches WHERE sha256 <> ALL ($1)), \
                        ARRAY(SELECT sha256 FROM feed_batches WHERE sha256 = ANY ($1))";
        let recorded = client
            .query_one(recorded, &[&&digests[..]])
            .await
            .map_err(&failed)?;
        let (others, loaded): (bool, Vec<Vec<u8>>) = (recorded.get(0), recorded.get(1));
        if others {
            return Ok(());
        }
        let aliases = reading::aliases(client, None).await?;
        for ((kind, bytes), digest) in files.into_iter().zip(digests) {
            if loaded.contains(&digest) {
                continue;
            }
            // A file that somebody named instead keeps its feed's own name.
            let shipped = [SHIPPED.rates, SHIPPED.volatility].contains(&bytes);
            let source = shipped.then_some(SAMPLE);
            let load = prepare(&Delivery {
                kind,
                source,
                bytes,
                now: Timestamp::now(),
                valid_at: None,
                aliases: &aliases,
                limits: &FeedLimits::default(),
                brokers: &[],
            })?;
            writer
                .entry(
                    Kind::FeedLoaded,
                    load.fields(),
                    Change::Feed(Box::new(load)),
                )
                .await?;
        }
    }
    Ok(())
}
