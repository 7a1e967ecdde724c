//! Names that clients and feeds send: which are allowed, and which are spellings of one.

use std::borrow::Cow;

/// Upper-case letters, digits, dot, space, slash: what real files have.
pub(crate) fn is_ticker(text: &str) -> bool {
    let allowed = |byte: u8| {
        byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b' ' | b'/')
    };
    let first_and_last = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let bytes = text.as_bytes();
    bytes.len() <= 12
        && first_and_last(bytes.first())
        && bytes.last() != Some(&b' ')
        && bytes.iter().copied().all(allowed)
}

pub(crate) fn is_client_id(text: &str) -> bool {
    (3..=50).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// What a client may call a request.
pub(crate) fn is_request_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

/// A currency's code of ISO 4217, by its form.
pub(crate) fn is_currency(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

pub(crate) const CLIENT_RULE: &str = "must be 3 to 50 letters, digits, '_' or '-'";

pub(crate) const TICKER_RULE: &str =
    "must be 1 to 12 upper-case letters, digits, dots, spaces or slashes";

/// The class of a share, where it is one letter behind a dot, hyphen, blank or slash, in the form with a dot: `BRK-B` is `BRK.B`.
pub(crate) fn by_class(name: &str) -> Option<String> {
    let (share, class) = name.rsplit_once(['.', '-', ' ', '/'])?;
    let is_class = class.len() == 1 && class.bytes().all(|byte| byte.is_ascii_uppercase());
    let is_share = !share.is_empty()
        && share
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    (is_class && is_share).then(|| format!("{share}.{class}"))
}

/// One name for all spellings of a class.
pub(crate) fn class_key(name: &str) -> Cow<'_, str> {
    by_class(name).map_or(Cow::Borrowed(name), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickers_of_real_files() {
        for (ticker, good) in [
            ("GME", true),
            ("BRK.A", true),
            ("BRK A", true),
            ("ABR PRD", true),
            ("A/B", true),
            ("2391358D", true),
            ("", false),
            ("gme", false),
            (" GME", false),
            ("GME ", false),
            ("ABCDEFGHIJKLM", false),
            ("GM\u{c9}", false),
            ("A;B", false),
            (".A", false),
        ] {
            assert_eq!(is_ticker(ticker), good, "{ticker:?}");
        }
    }
}
