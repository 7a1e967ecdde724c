#![allow(dead_code)]
use std::path::Path;
pub trait Progress {
    fn total(&self, _: u64) {}
    fn advance(&self, _: u64) {}
    fn message(&self, _: &str) {}
}
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct RecoveryError;
pub mod database {
    use super::*;
    pub enum Target {
        Latest,
    }
    pub struct Restored {
        pub restore_id: String,
        pub timeline: u32,
        pub end_lsn: u64,
        pub backup_id: String,
    }
    pub fn restore_and_recover(
        _: &repository::Repository,
        _: &repository::RecipientPrivate,
        _: &Target,
        _: Option<u32>,
        _: &Path,
        _: &postgres_physical::server::Binaries,
        _: &postgres_physical::server::OsUser,
        _: &dyn Progress,
    ) -> Result<Restored, RecoveryError> {
        Err(RecoveryError)
    }
    pub fn export(
        _: &repository::Repository,
        _: &repository::RecipientPrivate,
        _: &str,
        _: &Path,
        _: &dyn Progress,
    ) -> Result<u32, RecoveryError> {
        Err(RecoveryError)
    }
}
