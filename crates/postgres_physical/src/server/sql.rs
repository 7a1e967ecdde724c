//! A small blocking client for administration: simple queries, text answers. Not for the engine's own tables.

use std::time::{Duration, Instant};

use super::{own_session, session};
use crate::wire::{
    Address, ConnectOptions, ServerMessage, Socket, Wire, WireError, data_row, row_description,
};

/// A request to cancel is one small message.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(1);
const CANCEL_CODE: u32 = 80_877_102;

/// One connection. After an error of the server it can still be used; after [`WireError::Lost`] it cannot.
#[derive(Debug)]
pub struct Client {
    pub(super) wire: Wire,
    pub(super) notices: Vec<ServerMessage>,
}

/// The rows of one statement, as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Option<String>>>,
}

impl Rows {
    /// The first field of the first row.
    pub fn first(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
    }
}

impl Client {
    /// A session of our own making, and ours alone: nothing that is set for role or database ends it or changes how
    /// it spells.
    pub fn connect(options: &ConnectOptions) -> Result<Client, WireError> {
        let mut client = own_session::connect(options)?;
        client.query(&session::statements())?;
        Ok(client)
    }

    /// Runs one or more statements; the rows of the last one that had any.
    pub fn query(&mut self, sql: &str) -> Result<Rows, WireError> {
        self.query_before(sql, None)
    }

    pub(super) fn query_before(
        &mut self,
        sql: &str,
        deadline: Option<Instant>,
    ) -> Result<Rows, WireError> {
        self.wire.send_query(sql)?;
        let mut result = Rows::default();
        loop {
            let answer = self.wire.answer_before(sql, &mut self.notices, deadline);
            let frame = match answer {
                Ok(frame) => frame,
                Err(error @ WireError::Server { .. }) => {
                    self.wire.drain_to_ready()?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            };
            let broken = || WireError::Protocol("a damaged row".into());
            match frame.tag {
                b'T' => {
                    result = Rows {
                        columns: row_description(frame.body).ok_or_else(broken)?,
                        rows: Vec::new(),
                    }
                }
                b'D' => result.rows.push(data_row(frame.body).ok_or_else(broken)?),
                b'C' | b'I' => {}
                b'Z' => return Ok(result),
                _ => return Err(self.wire.unexpected(sql, &frame)),
            }
        }
    }

    /// The first field of the first row; an empty answer is `None`, and so is NULL.
    pub fn value(&mut self, sql: &str) -> Result<Option<String>, WireError> {
        Ok(self.query(sql)?.first().map(str::to_owned))
    }

    /// The way to end, from another thread, what this connection is at. `options`: those it was made with.
    pub fn cancel(&self, options: &ConnectOptions) -> Cancel {
        let mut options = options.clone();
        options.timeout = CANCEL_TIMEOUT;
        Cancel {
            options,
            key: self.wire.key.clone(),
            socket: self.wire.socket().try_clone().ok(),
        }
    }

    /// What the server remarked since the last call (NOTICE, WARNING ...).
    pub fn take_notices(&mut self) -> Vec<ServerMessage> {
        std::mem::take(&mut self.notices)
    }
}

/// Ends what a connection is at.
#[derive(Debug)]
pub struct Cancel {
    options: ConnectOptions,
    /// As the server named it.
    key: Option<([u8; 8], Address)>,
    socket: Option<Socket>,
}

impl Cancel {
    /// Asks the server to cancel the statement that it runs for this connection, which then fails with 57014. Of a
    /// server that cannot be reached, or runs none, nothing comes.
    pub fn send(&self) {
        let Some((key, address)) = &self.key else {
            return;
        };
        let mut message = Vec::with_capacity(16);
        message.extend_from_slice(&16_u32.to_be_bytes());
        message.extend_from_slice(&CANCEL_CODE.to_be_bytes());
        message.extend_from_slice(key);
        if let Ok(socket) = Socket::connect(&self.options, address) {
            let _ = socket.write_all(&message);
        }
    }

    /// Gives the connection up: whoever waits for an answer gets an error now.
    pub fn abandon(&self) {
        if let Some(socket) = &self.socket {
            socket.shutdown();
        }
    }
}

/// `text` as an SQL string literal.
pub fn quote_literal(text: &str) -> String {
    if text.contains('\\') {
        return format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''"));
    }
    format!("'{}'", text.replace('\'', "''"))
}

/// `name` as an SQL identifier.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
