//! The boundary in front of the shared cache.

use futures_util::future::BoxFuture;

use super::rows::MarketData;
use crate::domain::keys::StoredKey;

/// Keeps the newest market data for those who start while the database is away.
pub(crate) trait MarketCache: Send + Sync + std::fmt::Debug {
    fn put<'a>(&'a self, data: &'a MarketData, keys: &'a [StoredKey]) -> BoxFuture<'a, ()>;
    fn get(&self) -> BoxFuture<'_, Option<(MarketData, Vec<StoredKey>)>>;
}
