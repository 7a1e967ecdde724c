//! The PostgreSQL cluster: plan → restore → recover, and plain exports.

mod aside;
mod delta;
mod destination;
mod direct;
mod export;
mod fault;
mod fetch;
mod layout;
mod marker;
mod occupied;
mod path;
mod plan;
mod points;
mod recover;
mod remains;
mod resolve;
mod restore;
mod settings;
mod start;
mod window;
mod work;
mod writing;

pub(crate) use marker::{Marker, is_half_restored};
pub(crate) use path::path_to;
pub(crate) use remains::remove;

pub use delta::{Survey, restore_over, survey};
pub use destination::{Room, is_occupied};
pub use export::export;
pub use fetch::{FetchCommand, FetchOutcome, FetchServer, Scope, place_segment, wal_fetch};
pub use path::Piece;
pub use plan::{
    Beyond, Plan, Point, StopPoint, Target, beyond_a_hole, plan, plan_sound, plan_starting,
    plan_watched,
};
pub use points::{NamedPoint, named_points};
pub use recover::{DatabasesHere, Recover, RecoveryReport, databases_here, enter_cluster, recover};
pub use remains::{Foreign, Surplus};
pub use restore::{Outlook, RestoreOptions, RestoreReport, outlook, restore};
pub use settings::{Omissions, RECOVERY_OFF};
pub use start::Start;
pub use window::{Gap, Link, Span, TimelineWindow, Windows, window, windows};

use postgres_physical::lsn::Lsn;

/// For people: RFC 3339 in UTC.
pub(crate) fn show_time(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros)
        .map_or_else(|_| micros.to_string(), |at| at.to_string())
}

pub(crate) fn show_lsn(lsn: u64) -> String {
    Lsn(lsn).to_string()
}
