//! One connection to a server in the frontend/backend protocol, version 3: start-up, authentication, frames.
//! Replication and administrative SQL are built on it. The crate `connection` says where and how to connect.

mod secure;
mod socket;
mod startup;
mod written;

pub use connection::{Address, ConnectOptions, Host, ProgramError, Secret, StringError};
pub(crate) use socket::Socket;
pub use written::{quote_conninfo, quote_shell};

use bytes::{Buf, Bytes, BytesMut};
use connection::{Landing, PasswordError, ServerRole, TlsError, is_away};
use std::io;
use std::time::{Duration, Instant};

/// Why a conversation with a server failed.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("cannot connect to PostgreSQL at {target}: {source}")]
    Connect { target: String, source: io::Error },
    #[error("PostgreSQL at {target} refused the login of {user}: {server}")]
    Login {
        target: String,
        user: String,
        server: Box<ServerMessage>,
    },
    #[error("PostgreSQL at {target} asks for a password of {user} ({method}) and none is set")]
    PasswordMissing {
        target: String,
        user: String,
        method: &'static str,
    },
    #[error(
        "PostgreSQL at {target} asks for authentication method {method}, which is not supported; allow trust, peer, \
         scram-sha-256 or md5 in pg_hba.conf"
    )]
    Authentication { target: String, method: String },
    #[error("no TLS with PostgreSQL at {target}: {source}")]
    Tls {
        target: String,
        source: Box<TlsError>,
    },
    #[error("no TLS with PostgreSQL at {target}: {reason}")]
    Handshake { target: String, reason: String },
    #[error("no password for {user} at {target}: {source}")]
    Password {
        target: String,
        user: String,
        source: Box<PasswordError>,
    },
    #[error("PostgreSQL at {target} cannot be used: {reason}")]
    Landing {
        target: String,
        reason: &'static str,
    },
    #[error(
        "what answers at {target} is a connection pooler, not PostgreSQL itself: {server}. Name the server's own \
         address: a pooler neither streams WAL nor keeps a session"
    )]
    Pooler {
        target: String,
        server: Box<ServerMessage>,
    },
    #[error(
        "what answers at {target} is a connection pooler that gives a session's transactions to different servers \
         (pool_mode = transaction or statement): settings and locks are lost or leak there. Name the server's own \
         address, or a pool with pool_mode = session"
    )]
    SharedSession { target: String },
    /// One of PostgreSQL's own programs cannot be told how to connect.
    #[error(transparent)]
    Program(Box<ProgramError>),
    /// Several addresses were tried; the last one's trouble is kept.
    #[error("none of the servers can be used: {tried}")]
    NoneWillDo { tried: String, last: Box<WireError> },
    #[error("PostgreSQL answered {what} with: {server}")]
    Server {
        what: String,
        server: Box<ServerMessage>,
    },
    #[error("the connection to PostgreSQL was lost: {0}")]
    Lost(#[from] io::Error),
    #[error("PostgreSQL sent something unexpected: {0}")]
    Protocol(String),
    #[error("PostgreSQL did not answer {what} within {seconds} s")]
    Timeout { what: String, seconds: u64 },
}

impl From<ProgramError> for WireError {
    fn from(error: ProgramError) -> WireError {
        WireError::Program(Box::new(error))
    }
}

impl WireError {
    /// The SQLSTATE, when the server itself reported the error.
    pub fn sqlstate(&self) -> Option<&str> {
        self.server_message().map(|server| server.code.as_str())
    }

    pub fn server_message(&self) -> Option<&ServerMessage> {
        match self {
            WireError::Login { server, .. }
            | WireError::Pooler { server, .. }
            | WireError::Server { server, .. } => Some(server),
            WireError::NoneWillDo { last, .. } => last.server_message(),
            _ => None,
        }
    }

    /// Whether a pooler refused what only a server takes.
    pub(crate) fn is_of_a_pooler(&self) -> bool {
        match self {
            WireError::Pooler { .. } => true,
            WireError::NoneWillDo { last, .. } => last.is_of_a_pooler(),
            _ => false,
        }
    }

    /// Whether the server is away, or no longer the one to ask: the same may succeed on another connection, a moment
    /// later.
    pub fn is_away(&self) -> bool {
        match self {
            WireError::Connect { .. }
            | WireError::Lost(_)
            | WireError::Timeout { .. }
            | WireError::Landing { .. } => true,
            WireError::NoneWillDo { last, .. } => last.is_away(),
            WireError::Login { server, .. } | WireError::Server { server, .. } => {
                is_away(&server.code)
            }
            _ => false,
        }
    }
}

/// An ErrorResponse or NoticeResponse.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerMessage {
    pub severity: String,
    /// SQLSTATE
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl std::fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} ({})", self.severity, self.message, self.code)?;
        if let Some(detail) = &self.detail {
            write!(f, "; {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl ServerMessage {
    pub(crate) fn parse(mut body: Bytes) -> ServerMessage {
        let mut message = ServerMessage::default();
        while body.has_remaining() {
            let field = body.get_u8();
            if field == 0 {
                break;
            }
            let text = take_cstr(&mut body).unwrap_or_default();
            match field {
                b'V' => message.severity = text,
                b'S' if message.severity.is_empty() => message.severity = text,
                b'C' => message.code = text,
                b'M' => message.message = text,
                b'D' => message.detail = Some(text),
                b'H' => message.hint = Some(text),
                _ => {}
            }
        }
        message
    }
}

/// One message from the server: its tag and its body.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) tag: u8,
    pub(crate) body: Bytes,
}

/// The largest message we accept; PostgreSQL itself stops at 1 GB, WAL and base backup chunks are far smaller.
const FRAME_BYTES_MAX: usize = 1 << 30;
const READ_BYTES: usize = 256 << 10;

/// A logged-in connection.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: Socket,
    incoming: BytesMut,
    /// What the server said of itself at the login.
    reported: ServerReport,
    /// What a request to cancel has to name, process and secret, and where it has to go.
    pub(crate) key: Option<([u8; 8], Address)>,
}

#[derive(Debug, Default)]
struct ServerReport {
    in_hot_standby: Option<String>,
    read_only: Option<String>,
}

impl Wire {
    /// Connects and logs in, at the first address that will do; `extra` are further start-up parameters such as
    /// `replication`.
    pub(crate) fn connect(
        options: &ConnectOptions,
        extra: &[(&str, &str)],
    ) -> Result<Wire, WireError> {
        let several = options.addresses.len() > 1;
        let mut tried: Vec<String> = Vec::new();
        let mut last = None;
        for demand in options.landing.rounds() {
            for address in &options.addresses {
                let one;
                let at = match several {
                    true => {
                        one = options.at(address);
                        &one
                    }
                    false => options,
                };
                match Wire::connect_one(at, address, extra, *demand) {
                    Ok(wire) => return Ok(wire),
                    Err(error) => {
                        tried.push(error.to_string());
                        last = Some(error);
                    }
                }
            }
        }
        match last {
            Some(last) if several => Err(WireError::NoneWillDo {
                tried: tried.join("; "),
                last: Box::new(last),
            }),
            Some(last) => Err(last),
            None => Err(WireError::Protocol("no address is named".into())),
        }
    }

    fn connect_one(
        options: &ConnectOptions,
        address: &Address,
        extra: &[(&str, &str)],
        demand: Landing,
    ) -> Result<Wire, WireError> {
        let (socket, binding) = secure::connect(options, address)?;
        let mut wire = Wire {
            socket,
            incoming: BytesMut::with_capacity(READ_BYTES),
            reported: ServerReport::default(),
            key: None,
        };
        startup::log_in(&mut wire, options, address, binding, extra)?;
        if demand != Landing::Any
            && let Some(reason) = demand.refusal(wire.role()?)
        {
            return Err(WireError::Landing {
                target: options.target(),
                reason,
            });
        }
        Ok(wire)
    }

    fn role(&mut self) -> Result<ServerRole, WireError> {
        let ServerReport {
            in_hot_standby,
            read_only,
        } = &self.reported;
        if let Some(role) = ServerRole::reported(in_hot_standby.as_deref(), read_only.as_deref()) {
            return Ok(role);
        }
        const SQL: &str = "SHOW transaction_read_only";
        self.send_query(SQL)?;
        let mut read_only = false;
        loop {
            let frame = self.answer(SQL, &mut Vec::new())?;
            match frame.tag {
                b'D' => {
                    let row = data_row(frame.body).unwrap_or_default();
                    read_only = row.first().and_then(Option::as_deref) == Some("on");
                }
                b'Z' => break,
                _ => {}
            }
        }
        Ok(ServerRole {
            in_recovery: read_only,
            read_only,
        })
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        Ok(self.socket.write_all(bytes)?)
    }

    /// A simple query message.
    pub(crate) fn send_query(&mut self, sql: &str) -> Result<(), WireError> {
        let mut message = BytesMut::new();
        postgres_protocol::message::frontend::query(sql, &mut message)?;
        self.send(&message)
    }

    /// The next message, however long it takes.
    pub(crate) fn frame(&mut self) -> Result<Frame, WireError> {
        loop {
            if let Some(frame) = self.frame_before(None)? {
                return Ok(frame);
            }
        }
    }

    /// The next message, or `None` when the deadline passed first. Half-received messages are kept for the next call.
    pub(crate) fn frame_before(
        &mut self,
        deadline: Option<Instant>,
    ) -> Result<Option<Frame>, WireError> {
        loop {
            if let Some(frame) = self.buffered_frame()? {
                return Ok(Some(frame));
            }
            let timeout = match deadline {
                None => None,
                Some(deadline) => match deadline.saturating_duration_since(Instant::now()) {
                    Duration::ZERO => return Ok(None),
                    timeout => Some(timeout),
                },
            };
            // Without bytes the deadline passed, or a signal ended the wait: which, is looked at again.
            self.socket
                .read_into(&mut self.incoming, READ_BYTES, timeout)?;
        }
    }

    /// A message that is complete in the buffer already.
    pub(crate) fn buffered_frame(&mut self) -> Result<Option<Frame>, WireError> {
        let Some(header) = self.incoming.get(..5) else {
            return Ok(None);
        };
        let tag = header[0];
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        if !(4..=FRAME_BYTES_MAX).contains(&length) {
            return Err(WireError::Protocol(format!(
                "message {:?} of {length} bytes",
                tag as char
            )));
        }
        if self.incoming.len() < 1 + length {
            self.incoming.reserve(1 + length - self.incoming.len());
            return Ok(None);
        }
        let mut body = self.incoming.split_to(1 + length).freeze();
        body.advance(5);
        Ok(Some(Frame { tag, body }))
    }

    /// The next message that is not a notice or a parameter report; an error of the server becomes ours.
    pub(crate) fn answer(
        &mut self,
        what: &str,
        notices: &mut Vec<ServerMessage>,
    ) -> Result<Frame, WireError> {
        self.answer_before(what, notices, None)
    }

    /// The same; after the deadline the connection is of no use any more.
    pub(crate) fn answer_before(
        &mut self,
        what: &str,
        notices: &mut Vec<ServerMessage>,
        deadline: Option<Instant>,
    ) -> Result<Frame, WireError> {
        loop {
            let Some(frame) = self.frame_before(deadline)? else {
                return Err(WireError::Timeout {
                    what: what.to_owned(),
                    seconds: 0,
                });
            };
            match frame.tag {
                b'N' => notices.push(ServerMessage::parse(frame.body)),
                b'S' | b'A' => {}
                b'E' => {
                    return Err(WireError::Server {
                        what: what.to_owned(),
                        server: Box::new(ServerMessage::parse(frame.body)),
                    });
                }
                _ => return Ok(frame),
            }
        }
    }

    /// Reads until the server is ready for the next command, dropping everything else.
    pub(crate) fn drain_to_ready(&mut self) -> Result<(), WireError> {
        while self.frame()?.tag != b'Z' {}
        Ok(())
    }

    pub(crate) fn unexpected(&self, what: &str, frame: &Frame) -> WireError {
        WireError::Protocol(format!(
            "message {:?} in answer to {what}",
            frame.tag as char
        ))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Terminate; a connection that is gone does not mind.
        let _ = self.socket.write_all(&[b'X', 0, 0, 0, 4]);
    }
}

/// Takes a zero-terminated string off the front.
pub(crate) fn take_cstr(body: &mut Bytes) -> Option<String> {
    let end = body.iter().position(|byte| *byte == 0)?;
    let text = String::from_utf8_lossy(&body[..end]).into_owned();
    body.advance(end + 1);
    Some(text)
}

/// The fields of a DataRow, as text.
pub(crate) fn data_row(mut body: Bytes) -> Option<Vec<Option<String>>> {
    let count = body.try_get_u16().ok()?;
    let mut fields = Vec::with_capacity(count.into());
    for _ in 0..count {
        let length = body.try_get_i32().ok()?;
        if length < 0 {
            fields.push(None);
            continue;
        }
        if body.len() < length as usize {
            return None;
        }
        fields.push(Some(
            String::from_utf8_lossy(&body.split_to(length as usize)).into_owned(),
        ));
    }
    Some(fields)
}

/// The column names of a RowDescription.
pub(crate) fn row_description(mut body: Bytes) -> Option<Vec<String>> {
    let count = body.try_get_u16().ok()?;
    let mut names = Vec::with_capacity(count.into());
    for _ in 0..count {
        names.push(take_cstr(&mut body)?);
        if body.len() < 18 {
            return None;
        }
        body.advance(18);
    }
    Some(names)
}
