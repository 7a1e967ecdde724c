//! Files that operators write: terms of clients, aliases of tickers. They are taken whole or not at all: a line that is wrong is a
//! mistake to correct, not a row to set aside.

use std::collections::{HashMap, HashSet};

use jiff::civil::Date;
use pricing::{Money, Percent};

use super::columns::{Column, Layout, required};
use super::{FeedError, lines, names};
use crate::domain::identifiers::is_ticker;
use crate::domain::text_number::ambiguity;
use crate::market::BrokerTerms;

const BROKERS: [Column; 8] = [
    required("client_id", &[]),
    required("markup_percent", &[]),
    required("fee_type", &[]),
    required("fee_amount", &[]),
    required("tier", &[]),
    required("convention", &[]),
    required("policy", &[]),
    required("active", &[]),
];
const ALIASES: [Column; 5] = [
    required("source", &[]),
    required("symbol", &[]),
    required("ticker", &[]),
    required("valid_from", &[]),
    required("valid_to", &[]),
];
/// Whose names are those that clients may send.
const REQUESTS: &str = "api";
const MARKUP_PERCENT_MAX: i64 = 100;

/// As the table takes it; open ends are `-infinity` and `infinity`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AliasRow {
    pub(super) source: String,
    pub(super) symbol: String,
    pub(super) ticker: String,
    pub(super) valid_from: String,
    pub(super) valid_to: String,
}

/// The fields of every line below the header, in the order of `columns`.
pub(super) fn table<const N: usize>(
    bytes: &[u8],
    columns: [Column; N],
) -> Result<Vec<(usize, [String; N])>, FeedError> {
    let text = std::str::from_utf8(bytes).map_err(|error| FeedError::Line {
        line: 1 + bytes[..error.valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count(),
        message: "it is not UTF-8 text".to_owned(),
    })?;
    let mut lines = lines(text);
    let layout = Layout::find(&mut lines, &columns)?;
    // A feed adds columns of its own; in a file that a person wrote it is a mistake.
    if let Some(other) = layout.others.first() {
        let message = format!("the column {other:?} is not known here");
        return Err(wrong(layout.line, message));
    }
    let rows: Vec<_> = lines
        .map(|(line, row)| {
            let fields = layout.row::<N>(row);
            let named = || {
                let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
                wrong(
                    line,
                    format!("it does not have the {N} columns {}", names.join(",")),
                )
            };
            fields.map(|fields| (line, fields)).ok_or_else(named)
        })
        .collect::<Result<_, _>>()?;
    if rows.is_empty() {
        return Err(FeedError::Empty);
    }
    Ok(rows)
}

pub(super) fn wrong(line: usize, message: impl Into<String>) -> FeedError {
    FeedError::Line {
        line,
        message: message.into(),
    }
}

fn is_word(text: &str, lengths: std::ops::RangeInclusive<usize>) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    lengths.contains(&text.len()) && text.bytes().all(allowed)
}

pub(super) fn brokers(bytes: &[u8]) -> Result<Vec<BrokerTerms>, FeedError> {
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    for (line, fields) in table(bytes, BROKERS)? {
        let [
            client_id,
            markup_percent,
            fee_type,
            fee_amount,
            tier,
            convention,
            policy,
            active,
        ] = fields;
        if !is_word(&client_id, 3..=50) {
            return Err(wrong(
                line,
                "client_id must be 3 to 50 letters, digits, '_' or '-'",
            ));
        }
        if !seen.insert(client_id.clone()) {
            return Err(wrong(line, format!("{client_id} has a line already")));
        }
        for (name, text) in [
            ("markup_percent", &markup_percent),
            ("fee_amount", &fee_amount),
        ] {
            if let Some(reason) = ambiguity(text) {
                return Err(wrong(line, format!("{name} {reason}")));
            }
        }
        match markup_percent.parse::<Percent>() {
            Ok(value) if (Percent::ZERO..=Percent::whole(MARKUP_PERCENT_MAX)).contains(&value) => {}
            _ => {
                return Err(wrong(
                    line,
                    "markup_percent must be 0 to 100, such as 5.0 for 5 %",
                ));
            }
        }
        let amount_is_good = match fee_type.as_str() {
            "FLAT" => fee_amount
                .parse::<Money>()
                .is_ok_and(|value| value >= Money::ZERO),
            "PERCENTAGE" => fee_amount
                .parse::<Percent>()
                .is_ok_and(|value| (Percent::ZERO..=Percent::whole(100)).contains(&value)),
            _ => return Err(wrong(line, "fee_type must be FLAT or PERCENTAGE")),
        };
        if !amount_is_good {
            return Err(wrong(
                line,
                "fee_amount must be a number from 0 (for PERCENTAGE up to 100) with at most 4 decimals",
            ));
        }
        if !matches!(tier.as_str(), "standard" | "premium" | "internal") {
            return Err(wrong(line, "tier must be standard, premium or internal"));
        }
        let active = match active.as_str() {
            "true" => true,
            "false" => false,
            _ => return Err(wrong(line, "active must be true or false")),
        };
        all.push(BrokerTerms {
            client_id,
            markup_percent,
            fee_type,
            fee_amount,
            tier,
            convention,
            policy,
            active,
        });
    }
    Ok(all)
}

pub(super) fn aliases(bytes: &[u8]) -> Result<Vec<AliasRow>, FeedError> {
    let mut spans: HashMap<(String, String), Vec<(Date, Date)>> = HashMap::new();
    let mut all = Vec::new();
    for (line, [source, symbol, ticker, from, to]) in table(bytes, ALIASES)? {
        if !is_word(&source, 1..=32) || source.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(wrong(
                line,
                "source must be a feed's name, or api for what clients send",
            ));
        }
        if !is_ticker(&ticker) {
            return Err(wrong(line, format!("ticker {ticker:?} is not a ticker")));
        }
        // A feed's symbols are its own; what clients send is held to our rule before it is looked up.
        if source == REQUESTS && !is_ticker(&symbol) {
            let message =
                format!("symbol {symbol:?} is not a ticker, and clients may send no other");
            return Err(wrong(line, message));
        }
        if names::symbol(&symbol).is_err() {
            let message = format!("symbol {symbol:?} is not 1 to 64 bytes of text");
            return Err(wrong(line, message));
        }
        let date = |name: &str, text: &str, open: Date| match text {
            "" => Ok(open),
            text if text.len() == 10 => text.parse().map_err(|_| {
                wrong(
                    line,
                    format!("{name} must be a date such as 2022-06-09, or empty"),
                )
            }),
            _ => Err(wrong(
                line,
                format!("{name} must be a date such as 2022-06-09, or empty"),
            )),
        };
        let (first, last) = (
            date("valid_from", &from, Date::MIN)?,
            date("valid_to", &to, Date::MAX)?,
        );
        if first >= last {
            return Err(wrong(line, "valid_to must be after valid_from"));
        }
        let taken = spans.entry((source.clone(), symbol.clone())).or_default();
        if taken
            .iter()
            .any(|(begin, end)| first < *end && *begin < last)
        {
            return Err(wrong(
                line,
                format!("{symbol} has another line for some of these dates"),
            ));
        }
        taken.push((first, last));
        let open = |text: String, open: &str| {
            if text.is_empty() {
                open.to_owned()
            } else {
                text
            }
        };
        all.push(AliasRow {
            source,
            symbol,
            ticker,
            valid_from: open(from, "-infinity"),
            valid_to: open(to, "infinity"),
        });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROKERS: &str =
        "client_id,markup_percent,fee_type,fee_amount,tier,convention,policy,active";
    const ALIASES: &str = "source,symbol,ticker,valid_from,valid_to";

    #[test]
    fn terms_are_taken_whole_or_not_at_all() {
        let check = |rows: &str, expected: &str| {
            let found = match brokers(format!("{BROKERS}\n{rows}").as_bytes()) {
                Ok(terms) => terms
                    .iter()
                    .map(|terms| format!("{} {}", terms.client_id, terms.fee_amount))
                    .collect::<Vec<_>>()
                    .join("; "),
                Err(error) => error.to_string(),
            };
            assert!(found.starts_with(expected), "{found}");
        };
        let good = "desk-1,5.0,FLAT,25.00,standard,act365-1,standard-1,true\n";
        check(good, "desk-1 25.00");
        check(&format!("{good},,,,,,,\n  \n,,,,,,,\n"), "desk-1 25.00");
        for (bad, expected) in [
            ("", "the file is empty"),
            ("x", "line 2: it does not have the 8 columns"),
            (
                "d,5.0,FLAT,25,standard,a,s,true",
                "line 2: client_id must be",
            ),
            (
                "desk,1e400,FLAT,25,standard,a,s,true",
                "line 2: markup_percent must be",
            ),
            (
                "desk,NaN,FLAT,25,standard,a,s,true",
                "line 2: markup_percent must be",
            ),
            (
                "desk,5,FREE,25,standard,a,s,true",
                "line 2: fee_type must be",
            ),
            (
                "desk,5,FLAT,-1,standard,a,s,true",
                "line 2: fee_amount must be",
            ),
            (
                "desk,5,FLAT,1.000,standard,a,s,true",
                "line 2: fee_amount 1.000 can be read as 1 and as 1000",
            ),
            (
                "desk,5.000,FLAT,1,standard,a,s,true",
                "line 2: markup_percent 5.000 can be read as",
            ),
            (
                "desk,5,PERCENTAGE,101,standard,a,s,true",
                "line 2: fee_amount must be",
            ),
            ("desk,5,FLAT,1,gold,a,s,true", "line 2: tier must be"),
            ("desk,5,FLAT,1,standard,a,s,yes", "line 2: active must be"),
            (
                &format!("{good}{good}"),
                "line 3: desk-1 has a line already",
            ),
        ] {
            check(bad, expected);
        }
    }

    #[test]
    fn aliases_may_not_overlap() {
        let check = |rows: &str, expected: &str| {
            let found = match aliases(format!("{ALIASES}\n{rows}").as_bytes()) {
                Ok(rows) => rows
                    .iter()
                    .map(|row| format!("{} {} {}", row.symbol, row.valid_from, row.valid_to))
                    .collect::<Vec<_>>()
                    .join("; "),
                Err(error) => error.to_string(),
            };
            assert!(found.starts_with(expected), "{found}");
        };
        check(
            "ibkr,FB,META,,2022-06-09\nibkr,FB,FBX,2022-06-09,",
            "FB -infinity 2022-06-09; FB 2022-06-09 infinity",
        );
        check(
            "ibkr,FB,META,,2022-06-10\nibkr,FB,FBX,2022-06-09,",
            "line 3: FB has another line",
        );
        check("api,fb,META,,", "line 2: symbol \"fb\" is not a ticker");
        check("ibkr,FB,meta,,", "line 2: ticker \"meta\" is not a ticker");
        // A feed's own spelling, whatever it is; rows of nothing.
        check("events,BRK-B,BRK.B,,\n,,,,\n\n", "BRK-B -infinity infinity");
        check("ibkr,,META,,", "line 2: symbol \"\" is not 1 to 64");
        check(
            "ibkr,FB,META,2022-06-09,2022-06-09",
            "line 2: valid_to must be after",
        );
        check(
            "ibkr,FB,META,tomorrow,",
            "line 2: valid_from must be a date",
        );
    }
}
