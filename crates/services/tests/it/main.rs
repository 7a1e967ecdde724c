//! The services against a real PostgreSQL and Redis.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_debug_implementations,
    unreachable_pub
)]

mod api;
mod audit_log;
mod bad_input;
mod book;
mod bounds;
mod cache;
mod calendars;
mod clients;
mod connections;
mod feed_guard;
mod feed_polling;
mod feeds;
mod harness;
mod hosts;
mod limits;
mod locates;
mod locates_under_fire;
mod many_rates;
mod older_clients;
mod operators;
mod outages;
mod past;
mod poolers;
mod public_log;
mod quotes;
mod secured;
mod stocks;
mod tamper;
mod telling;
mod uses;
mod uses_under_fire;
