//! Where internal HTTP is asked for what.

pub(crate) const HEALTH: &str = "/health";
pub(crate) const HEALTH_DETAILED: &str = "/health/detailed";
pub(crate) const METRICS: &str = "/metrics";
pub(crate) const STATE: &str = "/internal/state";
pub(crate) const RATES: &str = "/internal/rates/{ticker}";
pub(crate) const RECORD_QUOTE: &str = "/internal/record/quote";
pub(crate) const RECORD_ENTRY: &str = "/internal/record/entry";
pub(crate) const RECORD_LOCATE: &str = "/internal/record/locate";
pub(crate) const INCLUSION: &str = "/internal/audit/inclusion/{epoch}/{position}";
pub(crate) const CALCULATE: &str = "/internal/calculate";
pub(crate) const CACHE_MARKET: &str = "/internal/cache/market";
pub(crate) const CACHE_STATS: &str = "/internal/cache/stats";
pub(crate) const CACHE_WARM: &str = "/internal/cache/warm";
pub(crate) const CACHE_INVALIDATE: &str = "/internal/cache/invalidate";
