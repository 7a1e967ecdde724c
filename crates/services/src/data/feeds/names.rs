//! Feeds' names for stocks, and ours. Theirs may be any text; our rule begins behind the alias table.

use std::borrow::Cow;

use super::load::Alias;
use crate::domain::identifiers::class_key;

const SYMBOL_BYTES_MAX: usize = 64;

/// A feed's symbol as it may be: 1 to 64 bytes of text without control characters.
pub(super) fn symbol(text: &str) -> Result<&str, &'static str> {
    let text = text.trim();
    if text.is_empty() {
        return Err("symbol_missing");
    }
    if text.len() > SYMBOL_BYTES_MAX || text.chars().any(char::is_control) {
        return Err("symbol_malformed");
    }
    Ok(text)
}

/// Our ticker for a feed's symbol in a file of that time: by the aliases, or by its class where it has a hyphen, which no ticker of ours
/// has. Whether it is a ticker is still to be seen.
pub(super) fn our_name<'a>(
    kind: &str,
    at_micros: i64,
    symbol: &'a str,
    aliases: &'a [Alias],
) -> Cow<'a, str> {
    let alias = aliases.iter().find(|alias| {
        alias.source == kind
            && alias.symbol == symbol
            && (alias.valid_from_micros..alias.valid_to_micros).contains(&at_micros)
    });
    match alias {
        Some(alias) => Cow::Borrowed(&alias.ticker),
        None if symbol.contains('-') => class_key(symbol),
        None => Cow::Borrowed(symbol),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feeds_symbol_is_any_text_and_ours_begins_behind_the_aliases() {
        for good in ["BRK-B", "brk/b", "ВТБ", "7203.T", "EUR=X", "^VIX", "A_B"] {
            assert_eq!(symbol(good), Ok(good));
        }
        assert_eq!(symbol(" GME "), Ok("GME"));
        assert_eq!(symbol(" "), Err("symbol_missing"));
        assert_eq!(symbol("A\u{7}B"), Err("symbol_malformed"));
        assert_eq!(symbol(&"A".repeat(65)), Err("symbol_malformed"));
        let alias = Alias {
            source: "events".to_owned(),
            symbol: "DSX-PB".to_owned(),
            ticker: "DSX PRB".to_owned(),
            valid_from_micros: i64::MIN,
            valid_to_micros: i64::MAX,
        };
        let aliases = [alias];
        let ours = |symbol: &'static str| our_name("events", 0, symbol, &aliases).into_owned();
        assert_eq!(ours("DSX-PB"), "DSX PRB");
        assert_eq!(ours("BRK-B"), "BRK.B");
        assert_eq!(ours("WFC-PZ"), "WFC-PZ");
        // A lender's own spelling stays what the book has been calling it.
        assert_eq!(ours("HEI A"), "HEI A");
    }

    #[test]
    fn every_spelling_of_a_class_is_one_key() {
        for name in ["BF-B", "BF.B", "BF B", "BF/B"] {
            assert_eq!(class_key(name), "BF.B");
        }
        for name in ["GME", "ABR PRD", "A/BC", "-B", "2391358D", "7203.T-X"] {
            assert_eq!(class_key(name), name);
        }
    }
}
