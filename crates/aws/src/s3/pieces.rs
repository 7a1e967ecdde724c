//! An object that does not fit into memory: it is put part by part, and becomes visible with the last part. Its name
//! cannot collide with another writer's (`wal/`), see 0053.

use std::sync::Arc;

use aws_sdk_s3::types::CompletedPart;
use repository::StoreError;

use super::{
    put::{
        PutOutcome, abort_parts, begin_parts, complete_parts, locked_whole, random_hex, send_part,
        taken,
    },
    read,
    remote::Remote,
};

/// No server takes smaller ones, but the last; memory holds two.
pub(super) const PART_BYTES: usize = 16 << 20;

#[derive(Debug, Clone)]
pub(super) struct Upload {
    name: String,
    token: String,
    id: String,
    parts: Vec<CompletedPart>,
    bytes: usize,
}

impl Upload {
    pub(super) async fn begin(remote: Arc<Remote>, name: String) -> Result<Self, StoreError> {
        if read::seen(&remote, &name).await?.is_some() {
            return Err(taken(&name));
        }
        let token = random_hex();
        let begun = begin_parts(&remote, &name, &token).await;
        let id = begun.map_err(|sent| failure(&remote, &name, sent))?;
        Ok(Self {
            name,
            token,
            id,
            parts: Vec::new(),
            bytes: 0,
        })
    }

    pub(super) async fn part(
        mut self,
        remote: Arc<Remote>,
        bytes: Vec<u8>,
    ) -> Result<Self, StoreError> {
        let number = i32::try_from(self.parts.len() + 1).unwrap_or(i32::MAX);
        self.bytes += bytes.len();
        let sent = send_part(&remote, &self.name, (&self.id, number), bytes.into()).await;
        self.parts
            .push(sent.map_err(|sent| failure(&remote, &self.name, sent))?);
        Ok(self)
    }

    pub(super) async fn complete(self, remote: Arc<Remote>) -> Result<(), StoreError> {
        let Self {
            name,
            token,
            id,
            parts,
            bytes,
        } = self;
        match complete_parts(&remote, &name, &id, (parts, bytes)).await {
            PutOutcome::Ok => {}
            // The first attempt may have arrived without an answer.
            sent => match read::seen(&remote, &name).await? {
                Some(seen) if seen.token.as_deref() == Some(token.as_str()) => {}
                Some(_) => return Err(taken(&name)),
                None => return Err(failure(&remote, &name, sent)),
            },
        }
        locked_whole(&remote, &name, true).await
    }

    pub(super) async fn abort(self, remote: Arc<Remote>) -> Result<(), StoreError> {
        abort_parts(&remote, &self.name, &self.id).await;
        Ok(())
    }
}

fn failure(remote: &Remote, name: &str, sent: PutOutcome) -> StoreError {
    match sent {
        PutOutcome::Unknown(error) => error,
        PutOutcome::Taken => taken(name),
        PutOutcome::Ok | PutOutcome::Conflict => {
            remote.away(format!("`{name}` is being written by another"))
        }
    }
}
