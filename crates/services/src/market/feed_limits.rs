//! How far the market may move between two batches of a feed before somebody has to look. Every limit is a named setting.

use serde::Deserialize;

/// `[feeds.limits.SOURCE]`; what is absent there keeps these defaults, which the feeds' real files pass with room to spare.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FeedLimits {
    /// A name has moved when its rate grew or fell by more than this factor since the last good batch.
    pub moved_factor: u32,
    /// More names moved than this: the batch is refused.
    pub moved_share_max_percent: u32,
    /// The middle of all movements may not exceed this factor either way.
    pub median_factor_max: u32,
    /// More names of the last batch missing than this: refused.
    pub missing_share_max_percent: u32,
    /// More rows for a ticker that another row has already than this: refused.
    pub repeated_share_max_percent: u32,
    /// Below so many names in common, shares and middles say nothing and are not looked at.
    pub names_min: u32,
    /// A single rate that moved by more is quarantined ...
    pub row_factor_max: u32,
    /// ... for so long after the last good one; then it is believed.
    pub row_hold_seconds: u32,
    /// A rate above it is quarantined.
    pub rate_max_percent: u32,
    /// The middle of a batch's rates above it: refused.
    pub median_rate_max_percent: u32,
    /// A currency's benchmark (rebate + fee) above it, or further from the last one than the second: its rows are quarantined.
    pub benchmark_max_percent: u32,
    pub benchmark_move_max_percent: u32,
    /// A volatility index above it is quarantined.
    pub index_max: u32,
    /// The newest index may not differ by more than this factor from the last good one.
    pub index_factor_max: u32,
    /// A feed's clock may be ahead of ours by so much.
    pub clock_ahead_seconds_max: u32,
}

impl Default for FeedLimits {
    fn default() -> FeedLimits {
        FeedLimits {
            moved_factor: 5,
            moved_share_max_percent: 20,
            median_factor_max: 2,
            missing_share_max_percent: 25,
            repeated_share_max_percent: 1,
            names_min: 20,
            row_factor_max: 50,
            row_hold_seconds: 72 * 3600,
            rate_max_percent: 5000,
            median_rate_max_percent: 50,
            benchmark_max_percent: 25,
            benchmark_move_max_percent: 2,
            index_max: 200,
            index_factor_max: 3,
            clock_ahead_seconds_max: 3600,
        }
    }
}
