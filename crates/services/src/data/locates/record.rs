//! A step of a locate as it is recorded: the fields of its audit entry, its row in `locates`, and the row in `availability_ledger`
//! where shares moved. Rows are computed from the entry's content by one function, for writing and for comparing alike.

use audit::Fields;
use jiff::Timestamp;
use jiff::civil::Date;
use pricing::{Money, Rate};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::request::{Idempotency, OrderUse, UseRoom};
use super::states::{LocateKind, Reason, Side, Status, UseState};
use crate::data::quotes::{Column, column};
use crate::data::row::Value;
use crate::domain::time::rfc3339;

/// In the order of [`Locate::values`]; the entry's own place and time come first in the table.
pub(crate) const LOCATE_COLUMNS: &[Column] = &[
    column("locate_id", "uuid"),
    column("sequence", "integer"),
    column("status", "text"),
    column("reason", "text"),
    column("quote_id", "uuid"),
    column("client_id", "text"),
    column("actor", "text"),
    column("request_id", "text"),
    column("ticker", "text"),
    column("currency", "text"),
    column("kind", "text"),
    column("shares", "bigint"),
    column("granted", "bigint"),
    column("returned", "bigint"),
    column("borrow_rate", "numeric(20,8)"),
    column("total_fee", "numeric(20,4)"),
    column("trade_date", "date"),
    column("offer_expires_at", "timestamptz"),
    column("expires_at", "timestamptz"),
    column("idempotency_key", "text"),
    column("idempotency_digest", "text"),
    column("reserved", "bigint"),
    column("used", "bigint"),
    column("order_id", "text"),
    column("order_side", "text"),
    column("order_state", "text"),
    column("order_shares", "bigint"),
];

/// In the order of [`Locate::ledger_values`].
pub(crate) const LEDGER_COLUMNS: &[Column] = &[
    column("ticker", "text"),
    column("trade_date", "date"),
    column("sequence", "integer"),
    column("locate_id", "uuid"),
    column("change", "bigint"),
    column("available", "bigint"),
    column("outstanding", "bigint"),
    column("source", "text"),
    column("valid_at", "timestamptz"),
    column("known_at", "timestamptz"),
];

/// A moment, written as everywhere: RFC 3339 with six decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At(pub(crate) i64);

impl Serialize for At {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<At, D::Error> {
        let time = Timestamp::deserialize(deserializer)?;
        Ok(At(time.as_microsecond()))
    }
}

/// How many shares a source says there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) source: String,
    pub(crate) available: i64,
    /// The source says "more than"; no more than the number is granted.
    pub(crate) or_more: bool,
    pub(crate) valid_at: At,
    pub(crate) known_at: At,
}

/// A step of the availability ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LedgerStep {
    pub(crate) trade_date: Date,
    pub(crate) sequence: i32,
    pub(crate) change: i64,
    pub(crate) available: i64,
    pub(crate) outstanding: i64,
    pub(crate) source: String,
    pub(crate) valid_at: At,
    pub(crate) known_at: At,
}

/// What is paid, for so many shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LocateFee {
    pub(crate) shares: i64,
    pub(crate) total_fee: Money,
    pub(crate) borrow_cost: Money,
    pub(crate) markup: Money,
    pub(crate) transaction_fees: Money,
}

/// A locate from one step to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Locate {
    pub(crate) locate_id: Uuid,
    pub(crate) sequence: i32,
    pub(crate) status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<Reason>,
    pub(crate) quote_id: Uuid,
    pub(crate) client_id: String,
    pub(crate) actor: String,
    pub(crate) request_id: String,
    pub(crate) engine: String,
    pub(crate) ticker: String,
    pub(crate) currency: String,
    pub(crate) kind: LocateKind,
    /// Asked for.
    pub(crate) shares: i64,
    pub(crate) granted: i64,
    pub(crate) returned: i64,
    /// Of orders at the market, and of those that were executed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) reserved: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) used: i64,
    pub(crate) all_or_none: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit_rate: Option<Rate>,
    pub(crate) lot: i64,
    pub(crate) borrow_rate: Rate,
    pub(crate) loan_days: u32,
    pub(crate) fee: LocateFee,
    pub(crate) trade_date: Date,
    /// When a sale of the trade date settles; absent in entries from before there was a calendar, as is its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) settlement_date: Option<Date>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) calendar: Option<String>,
    pub(crate) offer_expires_at: At,
    pub(crate) expires_at: At,
    /// What was decided by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) availability: Option<Figure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) step: Option<LedgerStep>,
    /// The order that made this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) order: Option<OrderUse>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) idempotency: Option<Idempotency>,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Locate {
    /// Shares that count against what is available.
    pub(crate) fn held(&self) -> i64 {
        match self.status {
            Status::Filled => self.granted - self.returned,
            _ => 0,
        }
    }

    /// Shares that this step's order made available again.
    pub(crate) fn credited(&self) -> i64 {
        match &self.order {
            Some(order) if order.state == UseState::Released => order.shares,
            Some(order) if order.side == Side::BuyToCover && self.kind != LocateKind::SingleUse => {
                order.shares
            }
            _ => 0,
        }
    }

    /// What may be sold short, what orders hold, what was sold.
    pub(crate) fn room(&self) -> UseRoom {
        UseRoom {
            available: match self.status {
                Status::Filled => self.held() - self.reserved - self.used,
                _ => 0,
            },
            reserved: self.reserved,
            used: self.used,
        }
    }

    pub(crate) fn fields(&self) -> Result<Fields, String> {
        let json = serde_json::to_string(self).map_err(|error| error.to_string())?;
        Ok(Fields::new()
            .with("locate_id", self.locate_id.to_string())
            .with("status", self.status.name())
            .with("client_id", &self.client_id)
            .with("ticker", &self.ticker)
            .with("quote_id", self.quote_id.to_string())
            .with("request_id", &self.request_id)
            .with("actor", &self.actor)
            .with("locate", json))
    }

    /// What disagrees with the JSON is refused: there is one truth in an entry.
    pub(crate) fn read(fields: &Fields) -> Result<Locate, String> {
        let json = fields.get("locate").ok_or("its field locate is missing")?;
        let locate: Locate = serde_json::from_str(json)
            .map_err(|error| format!("its locate cannot be read: {error}"))?;
        if locate.fields()? == *fields {
            return Ok(locate);
        }
        Err("its fields are not those of its locate".to_owned())
    }

    /// Of [`LOCATE_COLUMNS`].
    pub(crate) fn values(&self) -> [Value<'_>; LOCATE_COLUMNS.len()] {
        let optional = |text: Option<&'static str>| Value::Text(text.map(Into::into));
        let order = |read: fn(&OrderUse) -> &str| {
            Value::Text(self.order.as_ref().map(|order| read(order).into()))
        };
        let sent = |read: fn(&Idempotency) -> &str| {
            Value::Text(self.idempotency.as_ref().map(|sent| read(sent).into()))
        };
        [
            Value::Uuid(Some(self.locate_id)),
            Value::Integer(self.sequence),
            Value::text_of(self.status.name()),
            optional(self.reason.map(Reason::name)),
            Value::Uuid(Some(self.quote_id)),
            Value::text_of(&self.client_id),
            Value::text_of(&self.actor),
            Value::text_of(&self.request_id),
            Value::text_of(&self.ticker),
            Value::text_of(&self.currency),
            Value::text_of(self.kind.name()),
            Value::Big(self.shares),
            Value::Big(self.granted),
            Value::Big(self.returned),
            Value::number(self.borrow_rate, 8),
            Value::number(self.fee.total_fee, 4),
            Value::Date(self.trade_date),
            Value::Time(self.offer_expires_at.0),
            Value::Time(self.expires_at.0),
            sent(|sent| &sent.key),
            sent(|sent| &sent.digest),
            Value::Big(self.reserved),
            Value::Big(self.used),
            order(|order| &order.order_id),
            order(|order| order.side.name()),
            order(|order| order.state.name()),
            Value::MaybeBig(self.order.as_ref().map(|order| order.shares)),
        ]
    }

    /// Of [`LEDGER_COLUMNS`], where shares moved.
    pub(crate) fn ledger_values(&self) -> Option<[Value<'_>; LEDGER_COLUMNS.len()]> {
        let step = self.step.as_ref()?;
        Some([
            Value::text_of(&self.ticker),
            Value::Date(step.trade_date),
            Value::Integer(step.sequence),
            Value::Uuid(Some(self.locate_id)),
            Value::Big(step.change),
            Value::Big(step.available),
            Value::Big(step.outstanding),
            Value::text_of(&step.source),
            Value::Time(step.valid_at.0),
            Value::Time(step.known_at.0),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the first edition wrote it: what came later is absent, and is not made up when it is read and written again.
    const FIRST_EDITION: &str = r#"{"locate_id":"00000000-0000-0000-0000-000000000001","sequence":2,"status":"filled","quote_id":"00000000-0000-0000-0000-000000000002","client_id":"standard","actor":"k","request_id":"r","engine":"0.1.0","ticker":"GME","currency":"USD","kind":"single_use","shares":300,"granted":300,"returned":0,"all_or_none":false,"lot":100,"borrow_rate":0.05000000,"loan_days":3,"fee":{"shares":300,"total_fee":26.5000,"borrow_cost":1.4000,"markup":0.1000,"transaction_fees":25.0000},"trade_date":"2026-11-23","offer_expires_at":"2026-11-23T16:00:00.000000Z","expires_at":"2026-11-24T01:00:00.000000Z","step":{"trade_date":"2026-11-23","sequence":1,"change":300,"available":900,"outstanding":300,"source":"test","valid_at":"2026-11-23T15:00:00.000000Z","known_at":"2026-11-23T15:00:00.000000Z"}}"#;

    #[test]
    fn an_entry_of_the_first_edition_is_read_and_written_as_it_was() {
        let locate: Locate = serde_json::from_str(FIRST_EDITION).unwrap();
        let fields = locate.fields().unwrap();
        assert_eq!(fields.get("locate"), Some(FIRST_EDITION));
        assert_eq!(Locate::read(&fields).unwrap(), locate);
        assert_eq!((locate.calendar, locate.settlement_date), (None, None));
    }

    /// The migrations are text of their own, so that they stay what they were; this holds them together, in order.
    #[test]
    fn the_migration_has_these_columns() {
        let migration = include_str!("../../../migrations/V5__locates.sql");
        let later = include_str!("../../../migrations/V10__uses_calendars_minimum_rates.sql");
        for (table, columns) in [
            ("CREATE TABLE locates", LOCATE_COLUMNS),
            ("CREATE TABLE availability_ledger", LEDGER_COLUMNS),
        ] {
            let mut lines = migration
                .lines()
                .skip_while(|line| !line.starts_with(table))
                .skip(5);
            for column in columns {
                let added = format!("ADD COLUMN {} ", column.name);
                let line = match later.lines().find(|line| line.contains(&added)) {
                    Some(line) => line.trim_start().trim_start_matches("ADD COLUMN "),
                    None => lines.next().unwrap(),
                };
                let mut words = line.split_whitespace();
                assert_eq!(words.next(), Some(column.name), "{table}");
                let sql_type = words.next().unwrap().trim_end_matches(',');
                assert_eq!(sql_type, column.sql_type, "{table}.{}", column.name);
            }
        }
    }
}
