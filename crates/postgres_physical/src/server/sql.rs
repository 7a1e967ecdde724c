//! A small blocking client for administration: simple queries, text answers. The engine's own tables are not its business.

use super::session;
use crate::wire::{ConnectOptions, ServerMessage, Wire, WireError, data_row, row_description};

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
    /// A session of our own making: nothing that is set for role or database ends it or changes how it spells.
    pub fn connect(options: &ConnectOptions) -> Result<Client, WireError> {
        let mut client = Client {
            wire: Wire::connect(options, &[])?,
            notices: Vec::new(),
        };
        client.query(&session::statements())?;
        Ok(client)
    }

    /// Runs one or more statements; the rows of the last one that had any.
    pub fn query(&mut self, sql: &str) -> Result<Rows, WireError> {
        self.wire.send_query(sql)?;
        let mut result = Rows::default();
        loop {
            let frame = match self.wire.answer(sql, &mut self.notices) {
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

    /// What the server remarked since the last call (NOTICE, WARNING ...).
    pub fn take_notices(&mut self) -> Vec<ServerMessage> {
        std::mem::take(&mut self.notices)
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
