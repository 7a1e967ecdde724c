//! What is kept: the schema, the market data, the API keys, the record of every quote. The only module that knows SQL.

mod audit_log;
mod calendar;
mod cell;
mod configured;
mod database;
mod entries;
mod entry_ref;
mod feeds;
mod locates;
mod losses;
mod migrations;
mod newest;
mod openings;
mod past;
mod quotes;
mod reading;
mod refresher;
mod row;
mod schema;
mod seed;
mod stocks;
mod stored_quotes;
mod tables;
mod terms;
mod verify;
mod verifying;
mod writer;

pub(crate) use audit_log::{AuditLog, Inclusion};
pub use configured::{ConfigurationChange, configuration_changes};
pub use database::DatabaseError;
pub(crate) use database::{Session, connect, describe};
pub(crate) use entries::{
    COUNTED_MAX, EntryFilter, EntryId, StoredEntry, find_entries, find_entry,
};
pub use entry_ref::{EntryRef, places};
pub(crate) use feeds::{
    Accept, FeedState, IntakeError, KINDS, MINIMUM_RULE, MOMENT_RULE, Parcel, accept_held,
    held_now, minimum, moment, poll, take,
};
pub use feeds::{FeedError, ImportReport, check_feed};
pub use locates::LocateSettings;
pub(crate) use locates::{
    DecisionContext, Idempotency, Locate, LocateCommand, LocateFilter, LocateKind, LocateOutcome,
    LocateRequest, OrderUse, Refusal, Side, Status, StoredLocate, UseRoom, UseState, UseTotals,
    available, find_locates, find_uses, made_for, steps_of, sweep, use_totals,
};
pub use losses::{Loss, losses};
pub(crate) use losses::{losses_in, openings_in};
pub(crate) use migrations::migrate;
pub use newest::RATES as NEWEST_RATES;
pub use openings::{opened_with, openings, periods};
pub(crate) use quotes::{QuoteEntry, QuoteFacts, QuoteRow};
pub(crate) use reading::keys as read_keys;
pub(crate) use refresher::MarketRefresher;
pub use schema::{Finding, SchemaReport, check_schema};
pub(crate) use seed::{SAMPLE, seed};
pub use seed::{SampleRates, SeedError};
pub(crate) use stocks::{StockTerms, minimum_rates};
pub(crate) use stored_quotes::{StoredQuote, find_by_id, find_by_request};
pub(crate) use tables::is_own_field;
pub use tables::{CoverageStart, Difference, TablesReport};
pub(crate) use terms::read_terms;
pub use verify::{AuditReport, verify};
pub(crate) use verifying::Verifying;
pub(crate) use writer::{
    Change, HeadSigner, LOG_DAMAGED, Writer, WriterConfig, entries_from, entries_of,
};
pub use writer::{LogPosition, WriteError, WriterState};
