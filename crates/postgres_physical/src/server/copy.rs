//! Statements that move rows, with their counts; and rows from one server into another in COPY's own text, with at most
//! one buffer in memory.

use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};

use super::sql::Client;
use crate::wire::{Frame, WireError};

const BUFFER_BYTES: usize = 1 << 20;
/// A receiver that refuses a row says so at once; asking costs next to nothing beside a buffer of rows.
const LOOK: Duration = Duration::from_micros(1);

impl Client {
    /// Runs `out` (COPY … TO STDOUT) here and `into` (COPY … FROM STDIN) there; how many rows arrived. `watch` hears
    /// how many bytes went and ends it by saying false. After an error this connection cannot be used any more; the
    /// other one can, unless it was lost.
    pub fn copy_to(
        &mut self,
        out: &str,
        other: &mut Client,
        into: &str,
        watch: &mut dyn FnMut(u64) -> bool,
    ) -> Result<u64, WireError> {
        self.begin_copy(out, b'H')?;
        if let Err(error) = other.begin_copy(into, b'G') {
            return other.settled(error);
        }
        if let Err(error) = self.pump(out, other, into, watch) {
            if matches!(&error, WireError::Server { what, .. } if what == into) {
                return other.settled(error);
            }
            // CopyFail: the receiver forgets what it has got.
            other.wire.send(b"f\0\0\0\x05\0")?;
            other.wire.drain_to_ready()?;
            return Err(error);
        }
        other.wire.send(&[b'c', 0, 0, 0, 4])?;
        let rows = match other.end_copy(into) {
            Ok(rows) => rows,
            Err(error) => return other.settled(error),
        };
        self.end_copy(out)?;
        Ok(rows)
    }

    /// One statement without an answer; how many rows it touched.
    pub fn execute(&mut self, sql: &str) -> Result<u64, WireError> {
        self.wire.send_query(sql)?;
        match self.end_copy(sql) {
            Ok(rows) => Ok(rows),
            Err(error) => self.settled(error),
        }
    }

    fn begin_copy(&mut self, sql: &str, tag: u8) -> Result<(), WireError> {
        self.wire.send_query(sql)?;
        let frame = self.wire.answer(sql, &mut self.notices)?;
        if frame.tag == tag {
            return Ok(());
        }
        Err(self.wire.unexpected(sql, &frame))
    }

    fn pump(
        &mut self,
        out: &str,
        other: &mut Client,
        into: &str,
        watch: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), WireError> {
        let mut rows = empty();
        loop {
            let frame = self.wire.answer(out, &mut self.notices)?;
            match frame.tag {
                b'd' => rows.extend_from_slice(&frame.body),
                b'c' => break,
                _ => return Err(self.wire.unexpected(out, &frame)),
            }
            if rows.len() >= BUFFER_BYTES {
                other.push(&mut rows, into, watch)?;
            }
        }
        other.push(&mut rows, into, watch)
    }

    /// One CopyData message of whole rows.
    fn push(
        &mut self,
        rows: &mut BytesMut,
        into: &str,
        watch: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), WireError> {
        let message = std::mem::replace(rows, empty());
        let mut message = message;
        let length = u32::try_from(message.len() - 1).unwrap_or(u32::MAX);
        message[1..5].copy_from_slice(&length.to_be_bytes());
        self.wire.send(&message)?;
        if !watch(message.len() as u64 - 5) {
            let interrupted = std::io::ErrorKind::Interrupted;
            return Err(WireError::Lost(interrupted.into()));
        }
        match self.wire.frame_before(Some(Instant::now() + LOOK))? {
            Some(Frame { tag: b'E', body }) => Err(WireError::Server {
                what: into.to_owned(),
                server: Box::new(crate::wire::ServerMessage::parse(body)),
            }),
            _ => Ok(()),
        }
    }

    fn end_copy(&mut self, sql: &str) -> Result<u64, WireError> {
        let mut rows = 0;
        loop {
            let frame = self.wire.answer(sql, &mut self.notices)?;
            match frame.tag {
                b'C' => {
                    let said = String::from_utf8_lossy(&frame.body).into_owned();
                    let number = said.trim_end_matches('\0').rsplit(' ').next();
                    rows = number.and_then(|number| number.parse().ok()).unwrap_or(0);
                }
                b'Z' => return Ok(rows),
                _ => return Err(self.wire.unexpected(sql, &frame)),
            }
        }
    }

    /// After the server's own error it is ready for the next command.
    fn settled<T>(&mut self, error: WireError) -> Result<T, WireError> {
        if matches!(error, WireError::Server { .. }) {
            self.wire.drain_to_ready()?;
        }
        Err(error)
    }
}

/// With room for the message's head.
fn empty() -> BytesMut {
    let mut bytes = BytesMut::with_capacity(BUFFER_BYTES + (64 << 10));
    bytes.put_slice(&[b'd', 0, 0, 0, 4]);
    bytes
}
