//! The shared cache as others see it, and what only the cache-service does with it: look inside, empty it.

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::{Cache, CachedKey, KINDS, Operation, PREFIX, TIMEOUT};
use crate::domain::keys::StoredKey;
use crate::market::{MarketCache, MarketData};

impl MarketCache for Cache {
    fn put<'a>(&'a self, data: &'a MarketData, keys: &'a [StoredKey]) -> BoxFuture<'a, ()> {
        Box::pin(Cache::put(self, data, keys))
    }

    fn get(&self) -> BoxFuture<'_, Option<(MarketData, Vec<StoredKey>)>> {
        Box::pin(Cache::get(self))
    }
}

/// The same, on its way between services.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CachedMarket {
    data: MarketData,
    keys: Vec<CachedKey>,
}

impl From<(MarketData, Vec<StoredKey>)> for CachedMarket {
    fn from((data, keys): (MarketData, Vec<StoredKey>)) -> CachedMarket {
        let keys = keys.into_iter().map(|stored| CachedKey {
            hash: stored.hash,
            stored,
        });
        CachedMarket {
            data,
            keys: keys.collect(),
        }
    }
}

impl From<CachedMarket> for (MarketData, Vec<StoredKey>) {
    fn from(market: CachedMarket) -> (MarketData, Vec<StoredKey>) {
        let keys = market.keys.into_iter().map(|key| StoredKey {
            hash: key.hash,
            ..key.stored
        });
        (market.data, keys.collect())
    }
}

/// One kind of data in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct KindStats {
    pub(crate) kind: &'static str,
    pub(crate) bytes: u64,
    /// Until it expires; absent when nothing is there.
    pub(crate) seconds_left: Option<u64>,
}

impl Cache {
    /// `None`: it does not answer.
    pub(crate) async fn stats(&self) -> Option<Vec<KindStats>> {
        let mut pipe = redis::pipe();
        for kind in KINDS {
            pipe.cmd("STRLEN").arg(format!("{PREFIX}{kind}"));
            pipe.cmd("TTL").arg(format!("{PREFIX}{kind}"));
        }
        let numbers: Vec<i64> = self.ask(&pipe).await?;
        let kinds = KINDS.into_iter().zip(numbers.chunks_exact(2));
        Some(
            kinds
                .map(|(kind, numbers)| KindStats {
                    kind,
                    bytes: u64::try_from(numbers[0]).unwrap_or(0),
                    // Redis says -2 of what is not there.
                    seconds_left: u64::try_from(numbers[1]).ok(),
                })
                .collect(),
        )
    }

    /// How many kinds were there; `None`: it does not answer.
    pub(crate) async fn invalidate(&self) -> Option<u64> {
        let mut pipe = redis::pipe();
        let command = pipe.cmd("DEL");
        for kind in KINDS {
            command.arg(format!("{PREFIX}{kind}"));
        }
        let deleted: Vec<u64> = self.ask(&pipe).await?;
        deleted.first().copied()
    }

    async fn ask<T: redis::FromRedisValue>(&self, pipe: &redis::Pipeline) -> Option<T> {
        let mut connection = self.connect().await?;
        let asked = tokio::time::timeout(TIMEOUT, pipe.query_async::<T>(&mut connection)).await;
        self.heard(asked, Operation::Read).await
    }
}
