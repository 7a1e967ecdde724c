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

/// What a feed is asked for when a ticker of ours is meant: the symbol that [`our_name`] would read as this ticker, of
/// several the one whose alias began last; without one the ticker itself, unless that is the feed's symbol of another
/// stock.
pub(super) fn their_name<'a>(
    kind: &str,
    at_micros: i64,
    ticker: &'a str,
    aliases: &'a [Alias],
) -> Option<&'a str> {
    let named = aliases.iter().filter(|alias| {
        alias.ticker == ticker
            && alias.source == kind
            && (alias.valid_from_micros..alias.valid_to_micros).contains(&at_micros)
            && our_name(kind, at_micros, &alias.symbol, aliases) == ticker
    });
    let newest = named.max_by_key(|alias| (alias.valid_from_micros, &alias.symbol));
    match newest {
        Some(alias) => Some(&alias.symbol),
        None => {
            let ours = our_name(kind, at_micros, ticker, aliases);
            (class_key(&ours) == class_key(ticker)).then_some(ticker)
        }
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
    fn a_feed_is_asked_by_its_own_symbol() {
        let alias = |symbol: &str, ticker: &str, from: i64, to: i64| Alias {
            source: "events".to_owned(),
            symbol: symbol.to_owned(),
            ticker: ticker.to_owned(),
            valid_from_micros: from,
            valid_to_micros: to,
        };
        let aliases = [
            alias("DSX-PB", "DSX PRB", 0, 100),
            alias("DSX_B", "DSX PRB", 50, 100),
            // What it calls META is another stock since then.
            alias("META", "MTAL", 50, 100),
            alias("BRK_B", "BRK.B", 50, 100),
        ];
        let theirs = |kind: &str, at: i64, ticker: &'static str| {
            their_name(kind, at, ticker, &aliases).map(str::to_owned)
        };
        let check = |kind: &str, at: i64, ticker: &'static str, expected: Option<&str>| {
            let found = theirs(kind, at, ticker);
            assert_eq!(found.as_deref(), expected, "{kind} {at} {ticker}");
        };
        check("events", 10, "DSX PRB", Some("DSX-PB"));
        check("events", 60, "DSX PRB", Some("DSX_B"));
        check("events", 100, "DSX PRB", Some("DSX PRB"));
        check("seclend", 60, "DSX PRB", Some("DSX PRB"));
        check("events", 60, "GME", Some("GME"));
        check("events", 60, "BRK.B", Some("BRK_B"));
        check("events", 10, "BRK.B", Some("BRK.B"));
        check("events", 10, "META", Some("META"));
        check("events", 60, "META", None);
        check("events", 60, "MTAL", Some("META"));
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
