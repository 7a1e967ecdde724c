//! The engine's online services: api-gateway, calculation, data, cache; all in one process, or apart (`wiring`).
//!
//! Entry point: [`Services::start`]. A quote runs from `api_gateway` (key, limit, validation) through `calculation`
//! (market view, `pricing`) to `data` (one group-committed transaction for quote and audit entry) before it is
//! answered. [`verify`] and [`replay`] read a log back, for the command line and for drills.
//!
//! Absent: starting or restoring PostgreSQL, the WAL stream and the repository. What is needed of them comes in as
//! [`HeadPublisher`], [`StreamHealth`] and [`RecoveryFact`].
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::print_stdout))]

mod api_gateway;
mod book;
mod cache;
mod calculation;
mod config;
mod data;
mod digits;
mod internal;
mod known;
mod peer;
mod public_log;
mod refusals;
mod reload;
mod running;
mod server;
mod service;
mod text_number;
mod time;
mod trusted_proxies;
mod unrecorded;
mod wiring;
mod witness;

pub use api_gateway::{Role, Tier};
pub use book::{
    BookDiff, BookReader, Change as BookChange, DiffError, Names as CauseNames, ReaderLimits, Side,
    check_book, decode_book, diff as diff_books,
};
pub use cache::{RedisSettings, RedisSettingsError};
pub use calculation::{Mismatch, Period, ReplayReport, entry, export, export_from, replay};
pub use config::{
    AuditConfig, BookSettings, DatabaseConfig, Elsewhere, HeadPublisher, MetricsDoor, RecoveryFact,
    RequestsPerMinute, SampleBook, ServicesConfig, Settings, StreamHealth, StreamReport, Tls,
    TrustedProxies,
};
pub use connection::Password;
pub use data::{
    AuditReport, ConfigurationChange, CoverageStart, DatabaseError, Difference, FeedError,
    FeedLimits, FeedSettings, Finding, HttpSettings, ImportReport, LocateSettings, Loss,
    NEWEST_RATES, Place, Recorded, SchemaReport, SeedError, TablesReport, WriteError, WriterState,
    check_feed, check_schema, configuration_changes, losses, openings, periods, places, verify,
};
pub use internal::InternalSecret;
pub use known::{Claim, Evidence, KnownLog};
pub use public_log::{PublicLogConfig, PublicLogStore, WitnessConfig};
pub use reload::ReloadReport;
pub use running::{Running, ServiceError, Services};
pub use service::{Service, ServiceSet};
pub use witness::{Witness, WitnessError};

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
