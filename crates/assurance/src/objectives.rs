//! The figures by which a recovery is judged. The guide's are outer limits; a drill's own are tighter.

use std::time::Duration;

/// The guide's recovery point objective: more than this may never be lost.
pub const RPO_GUIDE: Duration = Duration::from_secs(300);
/// The guide's recovery time objective.
pub const RTO_GUIDE: Duration = Duration::from_secs(900);
/// What normal mode may lose: WAL reaches the repository at least once a second.
pub const LOSS_WINDOW_NORMAL: Duration = Duration::from_secs(1);
/// The guide's alarm on ages: more than this share of the schedule since the last success.
pub const AGE_MAX_PERCENT: u64 = 125;
