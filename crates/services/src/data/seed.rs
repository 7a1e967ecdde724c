//! What a first run starts with: the four brokers, the thirteen stocks, and a sample book if one is given.

use audit::Kind;
use connection::Landing;
use jiff::Timestamp;

use super::database::{DatabaseError, connect};
use super::feeds::{Delivery, FeedLimits, prepare};
use super::market;
use super::terms::BrokerTerms;
use super::writer::{Change, Writer};
use super::{FeedError, WriteError};
use crate::config::SampleBook;

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
const SHIPPED: SampleBook = SampleBook::shipped();

/// Adds what is missing; a database that has brokers or a book keeps them.
pub(crate) async fn seed(
    database: &str,
    writer: &Writer,
    sample: Option<SampleBook>,
) -> Result<(), SeedError> {
    let failed = DatabaseError::query("looking for the starting set");
    let session = connect(database, "bre seed", Landing::ReadWrite).await?;
    let client = &session.client;
    let row = client
        .query_one("SELECT (SELECT count(*) FROM brokers), (SELECT count(*) FROM stocks), (SELECT count(*) FROM feed_batches)", &[])
        .await
        .map_err(&failed)?;
    if row.get::<_, i64>(0) == 0 {
        for terms in BrokerTerms::starting_set() {
            let fields = terms.fields().with("reason", "starting_set");
            writer
                .entry(Kind::BrokerChanged, fields, Change::Broker(terms))
                .await?;
        }
    }
    if row.get::<_, i64>(1) == 0 {
        let sql =
            "INSERT INTO stocks (ticker) SELECT * FROM UNNEST($1::text[]) ON CONFLICT DO NOTHING";
        client
            .execute(sql, &[&STOCKS.as_slice()])
            .await
            .map_err(&failed)?;
    }
    if let Some(sample) = sample
        && row.get::<_, i64>(2) == 0
    {
        let aliases = market::aliases(client, None).await?;
        for (kind, bytes) in [("ibkr", sample.book), ("vix", sample.volatility)] {
            // A file that somebody named instead keeps its feed's own name.
            let shipped = [SHIPPED.book, SHIPPED.volatility].contains(&bytes);
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
