//! Services in other processes, as one process sees them: calls over internal HTTP, how they do, and the boundaries
//! (`Calculation`, `AuditLog`, `MarketCache`) over it. What such a call meets on its other side is in `internal`.

mod boundaries;
mod client;
pub(crate) mod paths;
mod peers;
mod wire;

pub(crate) use boundaries::{DataState, RemoteAuditLog, RemoteCache, RemoteCalculation};
pub(crate) use client::Peer;
pub(crate) use peers::{Peers, WatchedPeer};
pub(crate) use wire::{QuoteFailure, RecordEntry, RecordQuote, WriteFailure};
