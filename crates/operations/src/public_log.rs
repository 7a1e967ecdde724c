//! The log for outsiders: where its tiles, checkpoints and cosignatures are kept, and by which names it goes.

use std::{sync::Arc, time::Duration};

use audit::{NoteKey, SignatureKind, SignedHead, TileId};
use host::log::log_name;
use repository::Repository;
use services::{PublicLogConfig, PublicLogStore, WitnessConfig};

use crate::{
    config::{Audit, Config},
    error::Error,
};

/// Objects that are written once, in the instance's repository.
#[derive(Debug)]
struct WriteOnceObjects(Repository);

fn told<T>(result: Result<T, repository::Error>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

impl PublicLogStore for WriteOnceObjects {
    fn tile(&self, began: u32, id: TileId) -> Result<Option<Vec<u8>>, String> {
        told(repository::transparency::tile(
            &self.0,
            &log_name(),
            began,
            (id.level, id.index),
        ))
    }

    fn put_tile(&self, began: u32, id: TileId, bytes: &[u8]) -> Result<(), String> {
        let place = (id.level, id.index);
        told(repository::transparency::put_tile(
            &self.0,
            &log_name(),
            began,
            place,
            bytes,
        ))
    }

    fn origins(&self) -> Result<Vec<u32>, String> {
        told(repository::transparency::published_origins(
            &self.0,
            &log_name(),
        ))
    }

    fn put_first(&self, began: u32, checkpoint: &[u8]) -> Result<(), String> {
        told(repository::transparency::put_first_checkpoint(
            &self.0,
            &log_name(),
            began,
            checkpoint,
        ))
    }

    fn put_cosigned(
        &self,
        head: (u32, u64),
        witness: &NoteKey,
        checkpoint: &[u8],
    ) -> Result<(), String> {
        let id = witness.id().to_string();
        told(repository::transparency::put_cosigned(
            &self.0,
            &log_name(),
            head,
            &id,
            checkpoint,
        ))
    }

    fn head(&self, epoch: u32, size: u64) -> Result<Option<SignedHead>, String> {
        let bytes = told(repository::heads::head(&self.0, &log_name(), (epoch, size)))?;
        let read = bytes.map(|bytes| SignedHead::from_json(&bytes));
        read.transpose().map_err(|error| error.to_string())
    }

    fn keep_head(&self, epoch: u32, size: u64) -> Result<(), String> {
        told(repository::heads::keep_head(
            &self.0,
            &log_name(),
            (epoch, size),
        ))
    }

    fn statements(&self) -> Result<Vec<Vec<u8>>, String> {
        told(repository::transparency::key_statements(
            &self.0,
            &log_name(),
        ))
    }
}

/// What the log is published with.
pub fn config(config: &Config, repository: &Repository) -> Result<PublicLogConfig, Error> {
    let audit = &config.audit;
    Ok(PublicLogConfig {
        name: name(audit, repository)?,
        folder: config.public_folder(),
        store: Arc::new(WriteOnceObjects(repository.clone())),
        witnesses: witnesses(audit)?,
        witness_every: Duration::from_secs(u64::from(audit.witness_seconds.get())),
    })
}

/// The first part of the log's origins.
pub fn name(audit: &Audit, repository: &Repository) -> Result<String, Error> {
    match &audit.name {
        None => Ok(format!("bre-{}", repository.id())),
        Some(name) if audit::is_origin_name(name) => Ok(name.clone()),
        Some(name) => Err(Error::failed(format!(
            "[audit] name = {name:?}: 1 to 128 of a-z, 0-9, '.', '-', '_', '/' and ':', such as log.example/borrow"
        ))),
    }
}

fn witnesses(audit: &Audit) -> Result<Vec<WitnessConfig>, Error> {
    let read = |witness: &crate::config::Witness| {
        let wrong = |why: String| Error::failed(format!("[[audit.witnesses]] {why}"));
        let key: NoteKey = witness
            .key
            .parse()
            .map_err(|error| wrong(format!("{error}")))?;
        if key.kind() != SignatureKind::Cosignature {
            return Err(wrong(format!(
                "{key} is the key of a log, not of a witness"
            )));
        }
        let url = witness.url.trim_end_matches('/');
        if !(url.starts_with("http://") || url.starts_with("https://")) {
            return Err(wrong(format!(
                "url = {url:?} is no address such as https://witness.example"
            )));
        }
        Ok(WitnessConfig {
            url: url.to_owned(),
            key,
        })
    };
    audit.witnesses.iter().map(read).collect()
}
