//! The stream of WAL while the server writes it.

use super::{Connection, Row, now_postgres_micros, unix_micros};
use crate::lsn::Lsn;
use crate::wire::{Frame, ServerMessage, Socket, WireError};
use bytes::{Buf, Bytes, BytesMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the server sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Wal {
        start: Lsn,
        /// The end of WAL on the server when it sent this.
        server_end: Lsn,
        /// The server's clock, microseconds since the Unix epoch.
        sent_at_micros: i64,
        data: Bytes,
    },
    KeepAlive {
        server_end: Lsn,
        sent_at_micros: i64,
        /// Answer at once with a status.
        reply_requested: bool,
    },
    /// The timeline ends here (a promotion); the stream is over and [`WalStream::into_connection`] gives the connection
    /// back.
    EndOfTimeline(EndOfTimeline),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndOfTimeline {
    pub next_timeline: u32,
    /// Where the next timeline leaves this one.
    pub switch: Lsn,
}

/// The receiving half.
#[derive(Debug)]
pub struct WalStream {
    connection: Connection,
    status: StatusSender,
    ended: Option<EndOfTimeline>,
    reported: bool,
}

impl WalStream {
    pub(super) fn begin(mut connection: Connection, command: &str) -> Result<WalStream, WireError> {
        let frame = connection.wire.answer(command, &mut connection.notices)?;
        let socket = connection.wire.socket().try_clone()?;
        let status = StatusSender {
            socket: Arc::new(Mutex::new(socket)),
        };
        let mut stream = WalStream {
            connection,
            status,
            ended: None,
            reported: false,
        };
        match frame.tag {
            b'W' => Ok(stream),
            // Asked for the very end of a historic timeline: the result comes without any WAL.
            b'T' => {
                stream.result_after_copy(Some(frame))?;
                Ok(stream)
            }
            _ => Err(stream.connection.wire.unexpected(command, &frame)),
        }
    }

    /// The next event; `None` when `timeout` ran out first. An error the server sends (for instance that the WAL asked
    /// for is gone) comes as [`WireError::Server`] with its SQLSTATE.
    pub fn next_event(&mut self, timeout: Duration) -> Result<Option<Event>, WireError> {
        if let Some(event) = self.end_to_report() {
            return Ok(Some(event));
        }
        let deadline = Instant::now() + timeout;
        loop {
            match self.connection.wire.frame_before(Some(deadline))? {
                None => return Ok(None),
                Some(frame) => {
                    if let Some(event) = self.understand(frame)? {
                        return Ok(Some(event));
                    }
                }
            }
        }
    }

    /// An event that has arrived completely already; never waits.
    pub fn buffered_event(&mut self) -> Result<Option<Event>, WireError> {
        if let Some(event) = self.end_to_report() {
            return Ok(Some(event));
        }
        while let Some(frame) = self.connection.wire.buffered_frame()? {
            if let Some(event) = self.understand(frame)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Confirms positions from any thread, also while this one waits.
    pub fn status_sender(&self) -> StatusSender {
        self.status.clone()
    }

    /// After [`Event::EndOfTimeline`]: the connection, ready for the next command.
    pub fn into_connection(self) -> Option<Connection> {
        self.ended.map(|_| self.connection)
    }

    /// Ends the stream from our side and waits for the server's agreement; what arrives meanwhile is dropped.
    pub fn finish(mut self) -> Result<Connection, WireError> {
        self.status.send_raw(&COPY_DONE)?;
        loop {
            let frame = self
                .connection
                .wire
                .answer("the end of the stream", &mut self.connection.notices)?;
            match frame.tag {
                b'd' | b'c' | b'T' | b'D' | b'C' => {}
                b'Z' => return Ok(self.connection),
                _ => {
                    return Err(self
                        .connection
                        .wire
                        .unexpected("the end of the stream", &frame));
                }
            }
        }
    }

    fn end_to_report(&mut self) -> Option<Event> {
        let end = self.ended.filter(|_| !self.reported)?;
        self.reported = true;
        Some(Event::EndOfTimeline(end))
    }

    fn understand(&mut self, frame: Frame) -> Result<Option<Event>, WireError> {
        match frame.tag {
            b'd' => parse_copy_data(frame.body).map(Some),
            b'c' => {
                self.status.send_raw(&COPY_DONE)?;
                self.result_after_copy(None)?;
                Ok(self.end_to_report())
            }
            b'N' | b'S' | b'A' => Ok(None),
            b'E' => Err(WireError::Server {
                what: "the stream of WAL".into(),
                server: Box::new(ServerMessage::parse(frame.body)),
            }),
            // A server that shuts down ends the copy with a bare CommandComplete.
            b'C' => Err(WireError::Lost(std::io::Error::new(
                std::io::ErrorKind::ConnectionAborted,
                "the server is shutting down",
            ))),
            _ => Err(self.connection.wire.unexpected("START_REPLICATION", &frame)),
        }
    }

    /// After CopyDone: one row (next timeline, where it starts), CommandComplete twice, ready.
    fn result_after_copy(&mut self, first: Option<Frame>) -> Result<(), WireError> {
        let mut end = None;
        let mut first = first;
        loop {
            let frame = match first.take() {
                Some(frame) => frame,
                None => self
                    .connection
                    .wire
                    .answer("the end of the timeline", &mut self.connection.notices)?,
            };
            match frame.tag {
                b'T' | b'C' => {}
                b'D' => {
                    let row = Row::parse(frame.body)?;
                    end = Some(EndOfTimeline {
                        next_timeline: row.field(0)?,
                        switch: row.field(1)?,
                    });
                }
                b'Z' => {
                    let unnamed = "the stream ended without naming the next timeline";
                    let end = end.ok_or_else(|| WireError::Protocol(unnamed.into()))?;
                    self.ended = Some(end);
                    return Ok(());
                }
                _ => {
                    return Err(self
                        .connection
                        .wire
                        .unexpected("the end of the timeline", &frame));
                }
            }
        }
    }
}

const COPY_DONE: [u8; 5] = [b'c', 0, 0, 0, 4];

fn parse_copy_data(mut body: Bytes) -> Result<Event, WireError> {
    let short = |_| WireError::Protocol("a stream message that is too short".into());
    match body.try_get_u8().map_err(short)? {
        b'w' => {
            let start = Lsn(body.try_get_u64().map_err(short)?);
            let server_end = Lsn(body.try_get_u64().map_err(short)?);
            let sent_at_micros = unix_micros(body.try_get_i64().map_err(short)?);
            Ok(Event::Wal {
                start,
                server_end,
                sent_at_micros,
                data: body,
            })
        }
        b'k' => {
            let server_end = Lsn(body.try_get_u64().map_err(short)?);
            let sent_at_micros = unix_micros(body.try_get_i64().map_err(short)?);
            Ok(Event::KeepAlive {
                server_end,
                sent_at_micros,
                reply_requested: body.try_get_u8().map_err(short)? != 0,
            })
        }
        other => Err(WireError::Protocol(format!(
            "stream message {:?}",
            other as char
        ))),
    }
}

/// Tells the server how far we are; clone it into as many threads as needed.
#[derive(Debug, Clone)]
pub struct StatusSender {
    socket: Arc<Mutex<Socket>>,
}

impl StatusSender {
    /// `flushed` is the promise: everything before it is durable with us. A synchronous commit waits for it, and the
    /// slot lets go of WAL before it. `written` is only shown in `pg_stat_replication`.
    pub fn send(&self, written: Lsn, flushed: Lsn, reply_requested: bool) -> Result<(), WireError> {
        let mut message = BytesMut::with_capacity(39);
        message.extend_from_slice(&[b'd', 0, 0, 0, 38, b'r']);
        for position in [written, flushed, flushed] {
            message.extend_from_slice(&position.0.to_be_bytes());
        }
        message.extend_from_slice(&now_postgres_micros().to_be_bytes());
        message.extend_from_slice(&[u8::from(reply_requested)]);
        self.send_raw(&message)
    }

    /// Cuts the connection, so that a receiver that waits returns with [`WireError::Lost`].
    pub fn disconnect(&self) {
        self.socket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .shutdown();
    }

    fn send_raw(&self, message: &[u8]) -> Result<(), WireError> {
        // The lock keeps two messages from mixing.
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(socket.write_all(message)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_messages() {
        let mut wal = vec![b'w'];
        wal.extend_from_slice(&0x0100_0028_u64.to_be_bytes());
        wal.extend_from_slice(&0x0100_0030_u64.to_be_bytes());
        wal.extend_from_slice(&0_i64.to_be_bytes());
        wal.extend_from_slice(b"abc");
        let event = parse_copy_data(wal.clone().into()).unwrap();
        let expected = Event::Wal {
            start: Lsn(0x0100_0028),
            server_end: Lsn(0x0100_0030),
            sent_at_micros: 946_684_800_000_000,
            data: Bytes::from_static(b"abc"),
        };
        assert_eq!(event, expected);
        wal.truncate(20);
        assert!(parse_copy_data(wal.into()).is_err());
        assert!(parse_copy_data(Bytes::from_static(b"?")).is_err());
    }
}
