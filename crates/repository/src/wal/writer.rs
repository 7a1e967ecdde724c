//! Takes WAL as the server sends it. An append is one frame: sealed, written, on disk, then acknowledged.

use std::collections::VecDeque;
use std::sync::Arc;

use super::sealer::{SealJob, SealStatus, SealerHandle};
use super::segment_boxes::box_bytes;
use super::{WalFacts, tail_prefix};
use crate::Repository;
use crate::error::{Error, Result};
use crate::keys::{DataKey, RecipientPublic, new_data_key};
use crate::pipeline::{BoxKind, Compression, ObjectHeader, ObjectKind, ObjectSealer};
use crate::store::Appender;

const HEARTBEAT_MICROS: i64 = 1_000_000;
/// Where each is an object of its own.
const HEARTBEAT_OBJECT_MICROS: i64 = 10_000_000;
const HEARTBEAT_KEPT_MICROS: i64 = 60_000_000;
/// A longer segment is read from its tails when it is sealed.
const KEPT_BYTES_MAX: u64 = 32 << 20;
/// Of WAL in one frame.
const FRAME_BYTES_MAX: usize = 4 << 20;
/// Where each is an object.
const OBJECT_BYTES_MAX: usize = 16 << 20;
/// A tail that holds WAL is not appended to for longer: what copies the repository takes tails that grow no more.
const TAIL_MICROS_MAX: i64 = 30_000_000;

/// Best started at the start of a segment: only segments that one writer saw whole are sealed by it. Earlier bytes of the first
/// segment stay as tails until [`crate::wal::WalReader::compact`].
pub struct WalWriter {
    repository: Repository,
    public: RecipientPublic,
    facts: WalFacts,
    streamer_id: String,
    /// `None` after a failed append: what was written with it in part must never be written again differently.
    key: Option<Arc<DataKey>>,
    tail: Option<OpenTail>,
    /// Tails of the current segment, with the LSN where this writer entered it.
    tails: Vec<(String, Arc<DataKey>)>,
    entered_at: u64,
    /// The present segment's WAL so far, where every frame is an object: to seal it, each would be a request, on the way that the
    /// stream needs.
    kept: Option<Vec<u8>>,
    durable_lsn: u64,
    last_time_micros: i64,
    last_heartbeat_micros: i64,
    /// Where each is an object of its own: those of the present segment, oldest first, with the server's time.
    heartbeat_tails: VecDeque<(i64, String)>,
    serial: u64,
    frame: Vec<u8>,
    sealer: SealerHandle,
}

struct OpenTail {
    sealer: ObjectSealer,
    appender: Box<dyn Appender>,
    /// Bytes of the object written so far; 0: not even its header.
    len: u64,
    wal_bytes: u64,
    /// The server's time with its first WAL.
    since_micros: Option<i64>,
}

impl WalWriter {
    pub fn new(
        repository: &Repository,
        public: &RecipientPublic,
        system_identifier: u64,
        timeline: u32,
        segment_bytes: u64,
        streamer_id: &str,
        start_lsn: u64,
    ) -> Result<Self> {
        if !segment_bytes.is_power_of_two() || timeline == 0 {
            return Err(Error::Input(format!(
                "{segment_bytes} is not a WAL segment size, or {timeline} not a timeline"
            )));
        }
        repository.bind_cluster(system_identifier, &format!("WAL of timeline {timeline}"))?;
        let segment = start_lsn / segment_bytes;
        let facts = WalFacts {
            system_identifier,
            timeline,
            segment_bytes,
            segment,
            start_lsn,
            server_time_micros: 0,
        };
        Ok(Self {
            key: Some(new_data_key(repository, public)?),
            sealer: SealerHandle::start(repository, public),
            repository: repository.clone(),
            public: public.clone(),
            facts,
            streamer_id: streamer_id.to_owned(),
            tail: None,
            tails: Vec::new(),
            entered_at: start_lsn,
            kept: keeps(repository, segment_bytes).then(Vec::new),
            durable_lsn: start_lsn,
            last_time_micros: 0,
            last_heartbeat_micros: 0,
            heartbeat_tails: VecDeque::new(),
            serial: 0,
            frame: Vec::new(),
        })
    }

    /// Everything before it is on disk in the repository.
    #[must_use]
    pub fn durable_lsn(&self) -> u64 {
        self.durable_lsn
    }

    #[must_use]
    pub fn timeline(&self) -> u32 {
        self.facts.timeline
    }

    /// Durable when it returns. After an error the same bytes may be handed over again; what is known already is skipped.
    pub fn append(&mut self, lsn: u64, bytes: &[u8], server_time_micros: i64) -> Result<()> {
        if lsn > self.durable_lsn {
            return Err(Error::WalPosition {
                expected: self.durable_lsn,
                got: lsn,
            });
        }
        let known = usize::try_from(self.durable_lsn - lsn).unwrap_or(usize::MAX);
        let mut rest = bytes.get(known..).unwrap_or(&[]);
        while !rest.is_empty() {
            let room = self.facts.segment_end() - self.durable_lsn;
            let room = usize::try_from(room).unwrap_or(usize::MAX);
            let room = room.min(match self.repository.store().appends() {
                true => FRAME_BYTES_MAX,
                false => OBJECT_BYTES_MAX,
            });
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.put_frame(BoxKind::WalFrame, now, server_time_micros)?;
            rest = later;
        }
        Ok(())
    }

    /// Records that the server had nothing newer at this time; at most once a second (where objects do not grow, once in ten),
    /// otherwise it does nothing.
    pub fn heartbeat(&mut self, server_time_micros: i64) -> Result<()> {
        let last = self.last_time_micros.max(self.last_heartbeat_micros);
        let pause = match self.repository.store().appends() {
            true => HEARTBEAT_MICROS,
            false => HEARTBEAT_OBJECT_MICROS,
        };
        if server_time_micros - last < pause {
            return Ok(());
        }
        self.put_frame(BoxKind::WalHeartbeat, &[], server_time_micros)?;
        self.last_heartbeat_micros = server_time_micros;
        Ok(())
    }

    /// How sealing of finished segments goes; their bytes are safe in tails meanwhile.
    #[must_use]
    pub fn seal_status(&self) -> SealStatus {
        self.sealer.status()
    }

    /// Ends the writer and waits until finished segments are sealed. An error leaves them in tails, readable as before.
    pub fn finish(self) -> Result<()> {
        self.sealer.finish()
    }

    fn put_frame(&mut self, kind: BoxKind, bytes: &[u8], time: i64) -> Result<()> {
        if let Err(error) = self.write_frame(kind, bytes, time) {
            (self.tail, self.key) = (None, None);
            return Err(error);
        }
        self.durable_lsn += bytes.len() as u64;
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(bytes);
        }
        self.last_time_micros = self.last_time_micros.max(time);
        if self.durable_lsn == self.facts.segment_end() {
            self.end_segment();
        }
        Ok(())
    }

    fn write_frame(&mut self, kind: BoxKind, bytes: &[u8], time: i64) -> Result<()> {
        let bytes_max = box_bytes(self.facts.segment_bytes);
        let is_left = |tail: &OpenTail| {
            let old = tail
                .since_micros
                .is_some_and(|since| time - since > TAIL_MICROS_MAX);
            old || tail.wal_bytes + bytes.len() as u64 > bytes_max
        };
        if kind == BoxKind::WalFrame && self.tail.as_ref().is_some_and(is_left) {
            self.tail = None;
        }
        let mut tail = match self.tail.take() {
            Some(tail) => tail,
            None => match self.open_tail()? {
                Some(tail) => tail,
                None => return self.put_tail(kind, bytes, time),
            },
        };
        self.frame.clear();
        if tail.len == 0 {
            self.frame.extend_from_slice(tail.sealer.header());
        }
        let offset = tail.len + self.frame.len() as u64;
        tail.sealer.seal(
            &mut self.frame,
            offset,
            kind,
            Compression::Stored,
            (self.durable_lsn, time),
            bytes,
        )?;
        tail.appender.append(&self.frame)?;
        if kind == BoxKind::WalFrame {
            tail.since_micros.get_or_insert(time);
            tail.wal_bytes += bytes.len() as u64;
        }
        tail.len += self.frame.len() as u64;
        self.tail = Some(tail);
        Ok(())
    }

    /// A new tail at the current position; `None` when the store cannot append.
    fn open_tail(&mut self) -> Result<Option<OpenTail>> {
        let (name, key, header) = self.next_tail()?;
        let Some(appender) = self.repository.store().appender(&name) else {
            return Ok(None);
        };
        let sealer = ObjectSealer::new(&key, &name, &header)?;
        let tail = OpenTail {
            sealer,
            appender: appender?,
            len: 0,
            wal_bytes: 0,
            since_micros: None,
        };
        self.tails.push((name, key));
        Ok(Some(tail))
    }

    /// Without appending, each frame is an object.
    fn put_tail(&mut self, kind: BoxKind, bytes: &[u8], time: i64) -> Result<()> {
        let (name, key, header) = self.next_tail()?;
        let labels = (self.durable_lsn, time);
        let object = crate::pipeline::seal_single(
            &key,
            &name,
            &header,
            kind,
            Compression::Stored,
            labels,
            bytes,
        )?;
        self.repository.store().put(&name, &object)?;
        self.drop_old_heartbeats(time);
        if kind == BoxKind::WalHeartbeat {
            self.heartbeat_tails.push_back((time, name.clone()));
        }
        self.tails.push((name, key));
        Ok(())
    }

    /// What was put now says all that heartbeats before it said, and later: an idle server would leave objects for ever. Whoever
    /// has listed one has a while to read it.
    fn drop_old_heartbeats(&mut self, now: i64) {
        while let Some((at, _)) = self.heartbeat_tails.front()
            && now - at > HEARTBEAT_KEPT_MICROS
        {
            let Some((_, older)) = self.heartbeat_tails.pop_front() else {
                return;
            };
            // It holds no WAL: sealing does without it, deleted or not.
            self.tails.retain(|(name, _)| *name != older);
            self.sealer.delete(older);
        }
    }

    fn next_tail(&mut self) -> Result<(String, Arc<DataKey>, ObjectHeader)> {
        let key = match &self.key {
            Some(key) => Arc::clone(key),
            None => Arc::clone(
                self.key
                    .insert(new_data_key(&self.repository, &self.public)?),
            ),
        };
        let prefix = tail_prefix(self.facts.timeline, self.facts.segment);
        let span = span(&self.streamer_id, &key);
        let name = format!("{prefix}{:016x}.{span}-{:x}", self.durable_lsn, self.serial);
        self.serial += 1;
        let facts = WalFacts {
            start_lsn: self.durable_lsn,
            ..self.facts
        };
        let header = ObjectHeader {
            kind: ObjectKind::WalTail,
            data_key: key.id(),
            clear: facts.encode(),
        };
        Ok((name, key, header))
    }

    fn end_segment(&mut self) {
        self.tail = None;
        self.heartbeat_tails.clear();
        let tails = std::mem::take(&mut self.tails);
        let wal = self.kept.take();
        // One that waits and the present one: where sealing falls behind, memory does not grow.
        let keeps = keeps(&self.repository, self.facts.segment_bytes);
        self.kept = (keeps && self.sealer.status().pending == 0).then(Vec::new);
        if self.entered_at == self.facts.segment_start() {
            let facts = WalFacts {
                start_lsn: self.facts.segment_start(),
                server_time_micros: self.last_time_micros,
                ..self.facts
            };
            self.sealer.seal(SealJob {
                facts,
                tails,
                wal,
                streamer_id: self.streamer_id.clone(),
            });
        }
        self.facts.segment += 1;
        self.entered_at = self.durable_lsn;
    }
}

fn keeps(repository: &Repository, segment_bytes: u64) -> bool {
    !repository.store().appends() && segment_bytes <= KEPT_BYTES_MAX
}

pub(super) fn span(streamer_id: &str, key: &DataKey) -> String {
    format!("{streamer_id}-{}", &key.id().to_string()[..8])
}

impl std::fmt::Debug for WalWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "WalWriter(timeline {}, durable {:#X})",
            self.facts.timeline, self.durable_lsn
        )
    }
}
