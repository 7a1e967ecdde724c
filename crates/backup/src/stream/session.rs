//! While attached: one thread receives, one makes durable.

use super::StreamerConfig;
use super::attach::Attachment;
use super::queue::{Queue, Work};
use super::state::{SharedState, Side, StreamState};
use crate::{BackupError, Result, now_micros};
use postgres_physical::lsn::Lsn;
use postgres_physical::replication::{Event, StatusSender, WalStream};
use postgres_physical::wal::Follower;
use postgres_physical::wire::WireError;
use repository::wal::WalWriter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How a session ends when nothing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionEnd {
    Stopped,
    TimelineEnded,
    /// The repository takes nothing and no more can be held here.
    LetGo,
}

/// At least this often the server hears from us and is asked for its position.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// How soon a stop is noticed.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

struct Session<'a> {
    shared: &'a SharedState,
    queue: Queue,
    status: StatusSender,
    received: AtomicU64,
    /// Confirmed to the server.
    durable: AtomicU64,
    /// Since when the flushing thread has been at the same piece.
    writing_since: Mutex<Option<Instant>>,
    append_timeout: Duration,
    append_interval_min: Duration,
    retry_pause_max: Duration,
}

pub(super) fn run(
    config: &StreamerConfig,
    shared: &SharedState,
    attached: Attachment,
) -> Result<SessionEnd> {
    let Attachment {
        mut stream,
        writer,
        segment_bytes,
        start,
        durable,
    } = attached;
    let follower = Follower::new(start, segment_bytes);
    let session = Session {
        shared,
        queue: Queue::new(start.0, config.buffer_bytes_max),
        status: stream.status_sender(),
        received: AtomicU64::new(start.0),
        durable: AtomicU64::new(durable.0),
        writing_since: Mutex::new(None),
        append_timeout: config.append_timeout,
        append_interval_min: config.append_interval_min,
        retry_pause_max: config.retry_pause_max,
    };
    let (received, flushed) = std::thread::scope(|scope| {
        let (done, finished) = std::sync::mpsc::channel::<()>();
        let flusher = scope.spawn(|| {
            // Dropped at the end, however it ends.
            let _done = done;
            session.flush(writer)
        });
        let received = session.receive(&mut stream, follower);
        // Whatever was received is still made durable, also after the server is gone.
        session.queue.close();
        // A server that ended the stream first leaves nobody else to see that the repository hangs.
        while finished.recv_timeout(LOOK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
            session.is_stuck();
        }
        let flushed = flusher
            .join()
            .unwrap_or_else(|_| Err(BackupError::Setting("the flushing thread failed".into())));
        (received, flushed)
    });
    flushed?;
    received
}

impl Session<'_> {
    fn receive(&self, stream: &mut WalStream, mut follower: Follower) -> Result<SessionEnd> {
        self.send_status(true)?;
        let mut last_status = Instant::now();
        let mut idle = Idle::default();
        loop {
            if self.shared.stopping() || self.queue.is_broken() {
                return Ok(SessionEnd::Stopped);
            }
            if last_status.elapsed() >= STATUS_INTERVAL {
                self.send_status(true)?;
                last_status = Instant::now();
            }
            let stuck = self.is_stuck();
            // With a full buffer the socket is left alone; the statuses above keep the connection alive. Not for long: the
            // server's checkpointer waits for ever for a sender that cannot send, and then no WAL is ever removed.
            if !self.queue.has_room(LOOK_INTERVAL) {
                if stuck {
                    self.status.disconnect();
                    return Ok(SessionEnd::LetGo);
                }
                continue;
            }
            let timeout = LOOK_INTERVAL.min(STATUS_INTERVAL.saturating_sub(last_status.elapsed()));
            match stream.next_event(timeout)? {
                None => {}
                Some(Event::EndOfTimeline(end)) => {
                    tracing::info!(next = end.next_timeline, switch = %end.switch, "the timeline ends");
                    return Ok(SessionEnd::TimelineEnded);
                }
                Some(Event::Wal {
                    start,
                    server_end,
                    sent_at_micros,
                    data,
                }) => {
                    let whole = follower.take(&data);
                    let sound = match &whole {
                        Ok(()) => &data[..],
                        // What is whole was perhaps answered for.
                        Err(end) => {
                            &data[..data.len().min(end.at.0.saturating_sub(start.0) as usize)]
                        }
                    };
                    self.take_wal(start, sound, server_end, sent_at_micros)?;
                    whole.map_err(|end| BackupError::NotWal(end.at, end.reason))?;
                }
                Some(Event::KeepAlive {
                    server_end,
                    sent_at_micros,
                    reply_requested,
                }) => {
                    if reply_requested {
                        self.send_status(false)?;
                    }
                    let received = self.received.load(Ordering::Acquire);
                    if let Some(time) = idle.confirm(server_end.0, sent_at_micros, received) {
                        self.queue.heartbeat(time);
                    }
                }
            }
        }
    }

    fn take_wal(
        &self,
        start: Lsn,
        data: &[u8],
        server_end: Lsn,
        sent_at_micros: i64,
    ) -> Result<()> {
        if !self.queue.push(start.0, data, sent_at_micros) {
            let expected = Lsn(self.received.load(Ordering::Acquire));
            return Err(WireError::Protocol(format!(
                "WAL of {start} came where {expected} was next"
            ))
            .into());
        }
        let end = start.0 + data.len() as u64;
        self.received.store(end, Ordering::Release);
        self.shared.update(|state| {
            state.received_lsn = end.max(state.received_lsn);
            state.server_lsn = server_end.0.max(state.server_lsn);
        });
        Ok(())
    }

    fn send_status(&self, reply_requested: bool) -> Result<(), WireError> {
        let durable = self.durable.load(Ordering::Acquire);
        let received = self.received.load(Ordering::Acquire).max(durable);
        self.status
            .send(Lsn(received), Lsn(durable), reply_requested)
    }

    fn flush(&self, mut writer: WalWriter) -> Result<()> {
        let result = self.flush_until_closed(&mut writer);
        if result.is_err() {
            self.queue.break_off();
        }
        let finished = writer.finish();
        result?;
        if let Err(error) = finished {
            // The bytes are safe in tails; only their tidy form is missing.
            tracing::warn!(%error, "some finished WAL segments stay in tails for now");
        }
        Ok(())
    }

    fn flush_until_closed(&self, writer: &mut WalWriter) -> Result<()> {
        let mut next = Instant::now();
        let mut looked_at_sealing = next;
        loop {
            if looked_at_sealing.elapsed() >= STATUS_INTERVAL {
                looked_at_sealing = Instant::now();
                let sealing = writer.seal_status();
                self.shared.update(|state| state.sealing = sealing);
            }
            match self.queue.take(next) {
                Work::Closed => return Ok(()),
                Work::Append {
                    lsn,
                    bytes,
                    server_time_micros,
                } => {
                    next = Instant::now() + self.append_interval_min;
                    self.persist(|| writer.append(lsn, &bytes, server_time_micros))?;
                    self.confirm(lsn + bytes.len() as u64, server_time_micros);
                }
                Work::Heartbeat { server_time_micros } => {
                    self.persist(|| writer.heartbeat(server_time_micros))?;
                    self.shared.update(|state| {
                        state.confirmed_at_micros =
                            state.confirmed_at_micros.max(Some(server_time_micros));
                        all_is_well(state);
                    });
                }
            }
        }
    }

    /// True when the repository has had one piece for too long. A store that hangs reports nothing by itself.
    fn is_stuck(&self) -> bool {
        let since = *self.writing_since();
        let stuck = since.is_some_and(|since| since.elapsed() >= self.append_timeout);
        if stuck && self.shared.state().error.is_none() {
            let timeout = self.append_timeout;
            self.detached(format!(
                "the repository has not answered for {timeout:?}; WAL waits in PostgreSQL. See to its disk or connection"
            ));
        }
        stuck
    }

    fn writing_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.writing_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn detached(&self, error: String) {
        self.shared.update(|state| {
            state.attached = false;
            (state.error, state.side) = (Some(error), Some(Side::Repository));
            state.detached_at_micros.get_or_insert(now_micros());
        });
    }

    fn persist(&self, write: impl FnMut() -> repository::Result<()>) -> Result<()> {
        *self.writing_since() = Some(Instant::now());
        let persisted = self.persist_patiently(write);
        *self.writing_since() = None;
        persisted
    }

    /// Tries until the repository takes it: what was received may be the only copy. Ends early only when stopped.
    fn persist_patiently(&self, mut write: impl FnMut() -> repository::Result<()>) -> Result<()> {
        let mut pause = self.retry_pause_max / 20;
        // Once, not once a second: the alarm tells how it is now.
        let mut said = false;
        loop {
            match write() {
                Ok(()) => return Ok(()),
                Err(error) if error.is_unavailable() && !self.shared.stopping() => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(%error, "the repository does not take WAL; it waits in PostgreSQL");
                    }
                    self.detached(error.to_string());
                    self.shared.pause(pause);
                    pause = (pause * 2).min(self.retry_pause_max);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The promise to the server, given the moment it is true.
    fn confirm(&self, end: u64, server_time_micros: i64) {
        let durable = self.durable.fetch_max(end, Ordering::AcqRel).max(end);
        // A connection that is gone is the receiving thread's to notice.
        let _ = self.send_status(false);
        self.shared.update(|state| {
            state.durable_lsn = durable;
            state.last_flush_at_micros = Some(now_micros());
            state.confirmed_at_micros =
                Some(server_time_micros.max(state.confirmed_at_micros.unwrap_or(i64::MIN)));
            all_is_well(state);
        });
    }
}

/// The repository takes WAL again.
fn all_is_well(state: &mut StreamState) {
    if state.error.is_some() {
        (state.attached, state.detached_at_micros) = (true, None);
        (state.error, state.side) = (None, None);
    }
}

/// Judges when the server has been idle. A keep-alive says how far WAL was *sent*, and a commit may be on its way just
/// then; so a time counts as confirmed only when a later keep-alive still names the same position.
#[derive(Debug, Default)]
struct Idle {
    last: Option<(u64, i64)>,
}

impl Idle {
    fn confirm(&mut self, server_end: u64, sent_at_micros: i64, received: u64) -> Option<i64> {
        let last = self.last.replace((server_end, sent_at_micros));
        last.filter(|(end, _)| *end == server_end && received == server_end)
            .map(|(_, time)| time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_confirmed_by_the_next_keep_alive_at_the_same_position() {
        let mut idle = Idle::default();
        assert_eq!(idle.confirm(100, 1, 100), None);
        assert_eq!(idle.confirm(100, 2, 100), Some(1));
        assert_eq!(idle.confirm(140, 3, 100), None);
        assert_eq!(idle.confirm(140, 4, 120), None, "not all received");
        assert_eq!(idle.confirm(140, 5, 140), Some(4));
    }
}
