//! The tables that decide prices and access, column by column (format §12). A table or a column that a migration adds and this page
//! does not have fails the test that compares the two.

/// How a column's value is written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Text as it is.
    Text,
    /// As the server prints it, which depends on no setting: numbers, and ids.
    Plain,
    /// `2026-11-23T08:15:30.123456Z`, or `-infinity`, `infinity`.
    Time,
    /// `2026-11-23`, or `-infinity`, `infinity`.
    Date,
    /// Bytes as lower-case hex digits.
    Hex,
    /// `true`, `false`.
    Flag,
}

use Form::{Date, Flag, Hex, Plain, Text, Time};

/// A table of which entries speak.
#[derive(Debug)]
pub(crate) struct CoveredTable {
    pub(crate) name: &'static str,
    /// The columns that tell its rows apart, which come first.
    pub(crate) key: usize,
    pub(crate) columns: &'static [(&'static str, Form)],
}

impl CoveredTable {
    /// The SQL expressions of its columns, in order.
    pub(crate) fn select(&self, alias: &str) -> String {
        let expression = |(name, form): &(&str, Form)| {
            let column = format!("{alias}.{name}");
            match form {
                Text | Time | Flag => column,
                Plain => format!("{column}::text"),
                Hex => format!("pg_catalog.encode({column}, 'hex')"),
                Date => format!(
                    "CASE WHEN pg_catalog.isfinite({column}) THEN pg_catalog.to_char({column}, 'YYYY-MM-DD') ELSE {column}::text END"
                ),
            }
        };
        let expressions: Vec<String> = self.columns.iter().map(expression).collect();
        expressions.join(", ")
    }

    /// The field that speaks of it.
    pub(crate) fn field(&self) -> String {
        format!("rows.{}", self.name)
    }

    /// The field with a few digits of each of its rows.
    pub(crate) fn field_prints(&self) -> String {
        format!("prints.{}", self.name)
    }

    /// And with those of the places in runs of its rows, where there are many.
    pub(crate) fn field_places(&self) -> String {
        format!("prints.{}.places", self.name)
    }

    /// The field of a baseline that speaks of its batches from before.
    pub(crate) fn field_before(&self) -> String {
        format!("before.{}", self.name)
    }
}

macro_rules! table {
    ($constant:ident, $name:literal, $key:literal, $columns:expr) => {
        pub(crate) static $constant: CoveredTable = CoveredTable {
            name: $name,
            key: $key,
            columns: $columns,
        };
    };
}

table!(
    API_KEYS,
    "api_keys",
    1,
    &[
        ("key_id", Text),
        ("hash", Hex),
        ("client_id", Text),
        ("role", Text),
        ("tier", Text),
        ("created_at", Time),
        ("expires_at", Time),
        ("revoked_at", Time),
    ]
);
table!(
    BROKERS,
    "brokers",
    2,
    &[
        ("client_id", Text),
        ("changed_at", Time),
        ("markup_percent", Plain),
        ("fee_type", Text),
        ("fee_amount", Plain),
        ("tier", Text),
        ("convention", Text),
        ("policy", Text),
        ("active", Flag),
    ]
);
table!(
    POLICIES,
    "policies",
    1,
    &[("policy", Text), ("definition", Text), ("created_at", Time)]
);
table!(
    CONVENTIONS,
    "conventions",
    1,
    &[
        ("convention", Text),
        ("definition", Text),
        ("created_at", Time)
    ]
);
table!(
    STOCKS,
    "stocks",
    1,
    &[
        ("ticker", Text),
        ("status", Text),
        ("lender_id", Text),
        ("minimum_rate", Plain),
    ]
);
table!(
    MINIMUM_RATES,
    "minimum_rates",
    3,
    &[
        ("ticker", Text),
        ("valid_from", Time),
        ("known_at", Time),
        ("valid_to", Time),
        ("minimum_rate", Plain),
    ]
);
table!(
    ALIASES,
    "aliases",
    4,
    &[
        ("source", Text),
        ("symbol", Text),
        ("valid_from", Date),
        ("known_at", Time),
        ("valid_to", Date),
        ("ticker", Text),
    ]
);
table!(
    FEED_REFUSALS,
    "feed_refusals",
    4,
    &[
        ("source", Text),
        ("kind", Text),
        ("known_at", Time),
        ("sha256", Hex),
        ("rule", Text),
        ("valid_at", Time),
    ]
);
table!(
    LOCATE_REOPENINGS,
    "locate_reopenings",
    2,
    &[("reopened_at", Time), ("actor", Text)]
);

table!(
    FEED_BATCHES,
    "feed_batches",
    1,
    &[
        ("batch_id", Plain),
        ("kind", Text),
        ("source", Text),
        ("sha256", Hex),
        ("rows", Plain),
        ("loaded", Plain),
        ("quarantined", Plain),
        ("valid_at", Time),
        ("known_at", Time),
    ]
);
table!(
    BASE_RATES,
    "base_rates",
    2,
    &[
        ("batch_id", Plain),
        ("ticker", Text),
        ("source", Text),
        ("valid_at", Time),
        ("known_at", Time),
        ("rate", Plain),
        ("rebate", Plain),
        ("currency", Text),
        ("available", Plain),
        ("available_or_more", Flag),
        ("symbol", Text),
        ("name", Text),
        ("isin", Text),
        ("figi", Text),
        ("status", Text),
    ]
);
table!(
    VOLATILITY,
    "volatility",
    2,
    &[
        ("batch_id", Plain),
        ("subject", Text),
        ("source", Text),
        ("valid_at", Time),
        ("known_at", Time),
        ("volatility_index", Plain),
        ("event_risk_factor", Plain),
    ]
);
table!(
    EVENTS,
    "events",
    4,
    &[
        ("batch_id", Plain),
        ("ticker", Text),
        ("event_date", Date),
        ("kind", Text),
        ("source", Text),
    ]
);
table!(
    HELD_FIGURES,
    "held_figures",
    3,
    &[
        ("batch_id", Plain),
        ("subject", Text),
        ("figure", Text),
        ("source", Text),
        ("valid_at", Time),
        ("known_at", Time),
        ("reason", Text),
        ("value", Plain),
        ("rebate", Plain),
        ("currency", Text),
        ("available", Plain),
        ("available_or_more", Flag),
        ("symbol", Text),
        ("name", Text),
        ("isin", Text),
        ("figi", Text),
        ("status", Text),
    ]
);
table!(
    CALENDARS,
    "calendars",
    1,
    &[
        ("batch_id", Plain),
        ("valid_at", Time),
        ("known_at", Time),
        ("definition", Text),
    ]
);
table!(
    QUARANTINE,
    "quarantine",
    2,
    &[
        ("batch_id", Plain),
        ("line_number", Plain),
        ("reason", Text),
        ("row", Text),
    ]
);

/// Entries repeat their rows whole. Who asks comes first, then what prices.
pub(crate) static STATED: [&CoveredTable; 9] = [
    &API_KEYS,
    &BROKERS,
    &POLICIES,
    &CONVENTIONS,
    &STOCKS,
    &MINIMUM_RATES,
    &ALIASES,
    &FEED_REFUSALS,
    &LOCATE_REOPENINGS,
];

/// Entries hold a digest of a delivery's rows. The first is the delivery itself.
pub(crate) static BATCHED: [&CoveredTable; 7] = [
    &FEED_BATCHES,
    &BASE_RATES,
    &VOLATILITY,
    &EVENTS,
    &HELD_FIGURES,
    &CALENDARS,
    &QUARANTINE,
];

pub(crate) fn stated(name: &str) -> Option<usize> {
    STATED.iter().position(|table| table.name == name)
}

pub(crate) fn batched(name: &str) -> Option<usize> {
    BATCHED.iter().position(|table| table.name == name)
}
