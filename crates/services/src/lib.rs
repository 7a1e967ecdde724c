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
mod domain;
mod error;
mod http_error_bodies;
mod internal;
mod market;
mod peer;
mod public_log;
mod reload;
mod remote;
mod running;
mod secret;
mod server;
mod service;
mod trusted_proxies;
mod unrecorded;
mod wiring;
mod witness;

pub use book::{
    BookDiff, BookReader, Change as BookChange, DiffError, Names as CauseNames, ReaderLimits, Side,
    check_book, decode_book, diff as diff_books,
};
pub use cache::{RedisSettings, RedisSettingsError};
pub use calculation::{Mismatch, ReplayReport, entry, export, export_from, replay};
pub use config::{
    AuditConfig, BookSettings, DatabaseConfig, Elsewhere, MetricsDoor, RequestsPerMinute,
    ServicesConfig, Settings, Tls, TrustedProxies,
};
pub use connection::Password;
pub use data::{
    AuditReport, ConfigurationChange, CoverageStart, DatabaseError, Difference, EntryRef,
    FeedError, Finding, ImportReport, LocateSettings, LogPosition, Loss, NEWEST_RATES, SampleRates,
    SchemaReport, SeedError, TablesReport, WriteError, WriterState, check_feed, check_schema,
    configuration_changes, losses, opened_with, openings, periods, places, verify,
};
pub use domain::keys::{Role, Tier};
pub use domain::known_log::{Claim, Evidence, KnownLog};
pub use domain::moment::Period;
pub use domain::protection::{HeadPublisher, JobReport, RecoveryFact, StreamHealth, StreamReport};
pub use error::ServiceError;
pub use market::{FeedLimits, FeedSettings, HttpSettings};
pub use public_log::{PublicLogConfig, PublicLogStore, WitnessConfig};
pub use reload::ReloadReport;
pub use running::{Running, Services};
pub use secret::InternalSecret;
pub use service::{Service, ServiceSet};
pub use witness::{Witness, WitnessError};
