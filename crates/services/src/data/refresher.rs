//! Keeps what is in memory equal to what is in the database: reads everything on connecting, again when notified, and falls
//! back to the shared cache while there is no database. Others read through its connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use connection::Landing;
use tokio::sync::watch;
use tokio_postgres::Client;

use super::database::{DatabaseError, SessionParts, check_session, connect};
use super::feeds::FeedBoard;
use super::past::PastViews;
use super::reading;
use crate::domain::keys::KeyTable;
use crate::domain::time::now_micros;
use crate::market::{BrokerTerms, CalendarInForce, Market, MarketCache, MarketData, MarketView};

#[derive(Debug)]
pub(crate) struct MarketRefresher {
    database: watch::Sender<String>,
    client: ArcSwapOption<Client>,
    pub(crate) market: Arc<Market>,
    /// `None` until they were read once: until then no key can be judged.
    pub(crate) keys: ArcSwapOption<KeyTable>,
    cache: Arc<dyn MarketCache>,
    /// What was last read, for writing it to the cache again before it expires there.
    last: ArcSwap<MarketData>,
    reading: tokio::sync::Mutex<()>,
    /// How long the last complete read took, up to its end in the cache; 0 before the first.
    read_millis: AtomicU64,
    /// Counts complete reads.
    reads: watch::Sender<u64>,
    /// How the feeds are doing that are loaded here.
    pub(crate) board: FeedBoard,
    pub(super) past: PastViews,
}

/// The connection is asked whether it still answers, and the cache's entries are renewed.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// It is asked whether it is still the session that listens: behind a pooler that began to share sessions no change
/// would be told any more.
const CHECK_SESSION_EVERY: Duration = Duration::from_secs(5);
/// The channels that changes are told on.
pub(super) const MARKET: &str = "bre_market";
pub(super) const KEYS: &str = "bre_keys";
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(2);

/// A server that hangs is as good as away.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

async fn in_time(
    reading: impl Future<Output = Result<(), DatabaseError>>,
) -> Result<(), DatabaseError> {
    tokio::time::timeout(READ_TIMEOUT, reading)
        .await
        .unwrap_or(Err(DatabaseError::Away("it does not answer")))
}

impl MarketRefresher {
    pub(crate) fn new(
        database: String,
        market: Arc<Market>,
        cache: Arc<dyn MarketCache>,
    ) -> MarketRefresher {
        MarketRefresher {
            database: watch::channel(database).0,
            client: ArcSwapOption::empty(),
            market,
            keys: ArcSwapOption::empty(),
            cache,
            last: ArcSwap::default(),
            reading: tokio::sync::Mutex::default(),
            read_millis: AtomicU64::new(0),
            reads: watch::channel(0).0,
            board: FeedBoard::default(),
            past: PastViews::default(),
        }
    }

    /// Terms in force, as last read.
    pub(crate) fn brokers(&self) -> Vec<BrokerTerms> {
        self.last.load().brokers.clone()
    }

    /// How many names have a rate, as last read.
    pub(crate) fn rates(&self) -> usize {
        self.last.load().rates.len()
    }

    /// How long the last complete read took, up to its end in the cache.
    pub(crate) fn read_millis(&self) -> Option<u64> {
        Some(self.read_millis.load(Ordering::Relaxed)).filter(|millis| *millis > 0)
    }

    /// What was last read.
    pub(super) fn data(&self) -> Arc<MarketData> {
        self.last.load_full()
    }

    pub(crate) fn client(&self) -> Result<Arc<Client>, DatabaseError> {
        self.client
            .load_full()
            .ok_or(DatabaseError::Away("it is being connected to again"))
    }

    /// The database that is read now.
    pub(crate) fn target(&self) -> String {
        self.database.borrow().clone()
    }

    pub(crate) fn set_database(&self, database: String) {
        self.database.send_replace(database);
    }

    pub(crate) fn reads(&self) -> watch::Receiver<u64> {
        self.reads.subscribe()
    }

    pub(crate) async fn run(self: Arc<Self>) {
        let mut retry = RETRY_FIRST;
        let mut database = self.database.subscribe();
        loop {
            let target = database.borrow_and_update().clone();
            let error = tokio::select! {
                _ = database.changed() => {
                    self.lose();
                    retry = RETRY_FIRST;
                    continue;
                }
                ended = self.keep(&target) => ended,
            };
            if self.market.database_up() {
                tracing::warn!(%error, "the database is away; rates are served from memory");
                retry = RETRY_FIRST;
            }
            self.lose();
            self.fall_back().await;
            tokio::select! {
                _ = database.changed() => database.mark_changed(),
                () = tokio::time::sleep(retry) => {}
            }
            retry = (retry * 2).min(RETRY_LAST);
        }
    }

    fn lose(&self) {
        self.client.store(None);
        self.market.set_database_up(false, now_micros());
    }

    /// One connection, as long as it lasts.
    async fn keep(&self, database: &str) -> DatabaseError {
        let connected = connect(database, "bre market view", Landing::Primary).await;
        let SessionParts {
            client,
            notifications: mut notified,
            mut driver,
            word,
        } = match connected {
            Ok(session) => session.share(),
            Err(error) => return error,
        };
        if let Err(error) = in_time(self.begin(&client)).await {
            return error;
        }
        let mut check = tokio::time::interval(CHECK_EVERY);
        check.tick().await;
        let mut check_own = tokio::time::interval(CHECK_SESSION_EVERY);
        loop {
            let everything = tokio::select! {
                () = driver.ended() => return DatabaseError::Away("the server closed the connection"),
                notification = notified.recv() => match notification {
                    // Many changes in a row are read once.
                    Some(first) => {
                        let mut channels = vec![first.channel().to_owned()];
                        while let Ok(next) = notified.try_recv() {
                            channels.push(next.channel().to_owned());
                        }
                        channels.iter().any(|channel| channel == MARKET)
                    }
                    None => return DatabaseError::Away("the server closed the connection"),
                },
                _ = check.tick() => false,
                _ = check_own.tick() => {
                    if let Err(error) = in_time(check_session(&client, &word)).await {
                        return error;
                    }
                    continue;
                }
            };
            let read = in_time(async {
                match everything {
                    true => self.read(&client).await,
                    false => self.confirm(&client).await,
                }
            });
            if let Err(error) = read.await {
                return error;
            }
        }
    }

    /// Listens first and reads then, so that nothing falls in between.
    async fn begin(&self, client: &Arc<Client>) -> Result<(), DatabaseError> {
        let listen =
            format!("SET default_transaction_read_only = on; LISTEN {MARKET}; LISTEN {KEYS}");
        client
            .batch_execute(&listen)
            .await
            .map_err(DatabaseError::query("listening for changes"))?;
        self.read(client).await?;
        self.client.store(Some(Arc::clone(client)));
        Ok(())
    }

    /// Reads again, so that what was just changed is seen by the next request.
    pub(crate) async fn refresh(&self) -> Result<(), DatabaseError> {
        self.read(&*self.client()?).await
    }

    /// The keys alone.
    pub(crate) async fn refresh_keys(&self) -> Result<(), DatabaseError> {
        self.confirm(&*self.client()?).await
    }

    async fn read(&self, client: &Client) -> Result<(), DatabaseError> {
        // One after the other: an older reading must not replace a newer one.
        let turn = self.reading.lock().await;
        let began = Instant::now();
        let data = reading::load(client, None).await?;
        self.market
            .set(MarketView::new(&data, &self.market.feeds()));
        self.last.store(Arc::new(data));
        let known = self.market.calendar_in_force();
        let calendar = CalendarInForce::read(client, known.as_deref()).await?;
        self.market.set_calendar(calendar);
        drop(turn);
        self.confirm(client).await?;
        let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.read_millis.store(millis.max(1), Ordering::Relaxed);
        self.reads.send_modify(|reads| *reads += 1);
        Ok(())
    }

    /// Reads the keys, which also shows that the database answers; renews the cache.
    async fn confirm(&self, client: &Client) -> Result<(), DatabaseError> {
        let _turn = self.reading.lock().await;
        let stored = reading::keys(client).await?;
        let renewed = self
            .keys
            .load_full()
            .unwrap_or_default()
            .renewed(stored.clone());
        self.keys.store(Some(Arc::new(renewed)));
        self.market.set_database_up(true, now_micros());
        self.cache.put(&self.last.load_full(), &stored).await;
        Ok(())
    }

    /// What the shared cache still holds serves until the database has answered for the first time.
    async fn fall_back(&self) {
        if self.market.is_loaded() {
            return;
        }
        if let Some((data, keys)) = self.cache.get().await {
            tracing::warn!(
                rates = data.rates.len(),
                "the database has not answered yet; the market view comes from the cache"
            );
            self.market
                .set(MarketView::new(&data, &self.market.feeds()));
            self.keys
                .store(Some(Arc::new(KeyTable::default().renewed(keys))));
        }
    }
}
