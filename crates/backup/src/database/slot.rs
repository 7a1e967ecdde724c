//! The replication slot: how much WAL it holds back, and how near it is to its limit.

use crate::Result;
use postgres_physical::lsn::Lsn;
use postgres_physical::server::sql::{Client, quote_literal};
use postgres_physical::wire::{ConnectOptions, WireError};

/// `pg_replication_slots.wal_status`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalStatus {
    /// Within `max_wal_size`.
    Reserved,
    /// Beyond `max_wal_size`, still kept.
    Extended,
    /// Beyond the limit: gone at the next checkpoint.
    Unreserved,
    /// WAL that was needed is gone.
    Lost,
    /// The slot keeps nothing (yet).
    None,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotStatus {
    pub active: bool,
    pub wal_status: WalStatus,
    pub restart_lsn: Option<Lsn>,
    /// WAL on the server that the slot has not let go of.
    pub retained_bytes: u64,
    /// `max_slot_wal_keep_size`; `None`: no limit.
    pub limit_bytes: Option<u64>,
    /// How much more may be written before the slot is in danger; `None` without a limit or when lost.
    pub safe_bytes: Option<i64>,
}

impl SlotStatus {
    /// How full the allowance is, in percent; `None` without a limit.
    pub fn fill_percent(&self) -> Option<u64> {
        let limit = self.limit_bytes?.max(1);
        let percent = u128::from(self.retained_bytes) * 100 / u128::from(limit);
        Some(u64::try_from(percent).unwrap_or(u64::MAX))
    }
}

/// `None` when there is no such slot. Works with any login.
pub fn slot_status(connect: &ConnectOptions, slot: &str) -> Result<Option<SlotStatus>> {
    let mut client = Client::connect(connect)?;
    let rows = client.query(&format!(
        "SELECT active, wal_status, restart_lsn, \
                pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, restart_lsn)::int8, \
                (SELECT CASE WHEN setting::int8 < 0 THEN NULL ELSE setting::int8 * 1048576 END FROM pg_settings WHERE name = 'max_slot_wal_keep_size'), \
                safe_wal_size \
         FROM pg_replication_slots WHERE slot_name = {}",
        quote_literal(slot)
    ))?;
    let Some(row) = rows.rows.first() else {
        return Ok(None);
    };
    let field = |index: usize| row.get(index).and_then(Option::as_deref);
    Ok(Some(SlotStatus {
        active: field(0) == Some("t"),
        wal_status: match field(1) {
            Some("reserved") => WalStatus::Reserved,
            Some("extended") => WalStatus::Extended,
            Some("unreserved") => WalStatus::Unreserved,
            Some("lost") => WalStatus::Lost,
            _ => WalStatus::None,
        },
        restart_lsn: field(2).and_then(|text| text.parse().ok()),
        retained_bytes: field(3)
            .and_then(|text| text.parse::<i64>().ok())
            .unwrap_or_default()
            .max(0)
            .cast_unsigned(),
        limit_bytes: field(4).and_then(|text| text.parse().ok()),
        safe_bytes: field(5).and_then(|text| text.parse().ok()),
    }))
}

/// Lets go of the cluster. True when there was a slot.
pub fn drop_slot(connect: &ConnectOptions, slot: &str) -> Result<bool> {
    let mut client = Client::connect(connect)?;
    let sql = format!(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {}",
        quote_literal(slot)
    );
    match client.query(&sql) {
        Ok(rows) => Ok(!rows.rows.is_empty()),
        Err(error @ WireError::Server { .. }) if error.sqlstate() == Some("42704") => Ok(false),
        Err(error) => Err(error.into()),
    }
}
