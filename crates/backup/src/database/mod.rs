//! The PostgreSQL cluster: backups ([`backup`] runs one from a [`Source`]), its slot, strict mode.

mod archive;
mod block_file;
mod changes;
mod local;
mod manifest;
mod pages;
mod protocol;
mod run;
mod settings_outside;
mod slot;
mod source;
mod strict;
mod unpack;
mod whole;

pub use changes::ChangedPages;
pub use local::{LivePage, LivePages, Local, Owner, verify_live};
pub use protocol::Protocol;
pub use run::{BackupOutcome, DatabaseBackup, SourceChoice, backup, backup_from};
pub use slot::{SlotStatus, WalStatus, drop_slot, slot_status};
pub use source::{BackupEnd, BackupStart, Identity, Source, Suspects};
pub use strict::{is_strict, set_strict};
