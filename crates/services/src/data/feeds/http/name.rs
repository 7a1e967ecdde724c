//! What a feed is asked for: its own symbols, and how requests spell them.

use jiff::Timestamp;

use super::super::load::Alias;
use super::super::names::their_name;

/// A ticker of ours, and the feed's own symbol for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) ticker: String,
    pub(super) symbol: String,
}

impl Name {
    /// `None`: the feed has no symbol for it.
    pub(super) fn of(ticker: &str, kind: &str, aliases: &[Alias], now: Timestamp) -> Option<Name> {
        let symbol = their_name(kind, now.as_microsecond(), ticker, aliases)?;
        Some(Name {
            ticker: ticker.to_owned(),
            symbol: symbol.to_owned(),
        })
    }
}

pub(super) fn tickers_of(names: &[Name]) -> Vec<String> {
    names.iter().map(|name| name.ticker.clone()).collect()
}

/// A part of a batch by its first ticker and its length.
pub(super) fn name_of(part: &[Name]) -> String {
    let first = part.first().map_or("", |name| name.ticker.as_str());
    match part.len() {
        1 => first.to_owned(),
        count => format!("{first} and {} more", count - 1),
    }
}

/// As a part of a path.
pub(super) fn encoded(symbol: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.';
    symbol
        .bytes()
        .map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}
