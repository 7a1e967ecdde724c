//! The PostgreSQL cluster: full backups through the replication protocol, its slot, strict mode.

mod archive;
mod full;
mod pages;
mod slot;
mod strict;

pub use full::{FullBackup, FullOutcome, full};
pub use slot::{SlotStatus, WalStatus, drop_slot, slot_status};
pub use strict::{is_strict, set_strict};
