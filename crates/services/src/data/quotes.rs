//! A quote as it is recorded: the fields of its audit entry, and the row in `quotes` that repeats some of them in columns. The
//! row is computed from the entry's content by one function, for writing and for comparing alike.

use std::borrow::Cow;

use audit::{EncodedFields, EntryError, Fields};
use pricing::{BorrowStatus, Outputs, Quote, QuoteInputs, VolatilityTier};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::row::{Columns, Value};

pub(crate) struct Column {
    pub(crate) name: &'static str,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a test holds it against the migration")
    )]
    pub(crate) sql_type: &'static str,
}

pub(crate) const fn column(name: &'static str, sql_type: &'static str) -> Column {
    Column { name, sql_type }
}

const RATE: &str = "numeric(20,8)";
const MONEY: &str = "numeric(20,4)";

/// What people search and sum by; the entry's bytes hold everything. Without the entry's own place and time (log, epoch, position,
/// recorded_at), which come first in the table. In the order of [`QuoteEntry::values`].
pub(crate) const COLUMNS: &[Column] = &[
    column("quote_id", "uuid"),
    column("request_id", "text"),
    column("client_id", "text"),
    column("key_id", "text"),
    column("priced_at", "timestamptz"),
    column("ticker", "text"),
    column("currency", "text"),
    column("position_value", MONEY),
    column("loan_days", "integer"),
    column("policy", "text"),
    column("convention", "text"),
    column("base_rate", RATE),
    column("base_rate_source", "text"),
    column("volatility_index", RATE),
    column("event_risk_factor", "smallint"),
    column("borrow_rate", RATE),
    column("borrow_cost", MONEY),
    column("markup", MONEY),
    column("transaction_fees", MONEY),
    column("total_fee", MONEY),
    column("stale", "text"),
];

/// Whose quote it is, and until when it may be relied on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QuoteFacts {
    pub(crate) quote_id: String,
    pub(crate) request_id: String,
    pub(crate) client_id: String,
    pub(crate) key_id: String,
    pub(crate) expires_at: String,
    pub(crate) engine_version: String,
    /// What the client called the stock, where that is not our name for it.
    pub(crate) requested_ticker: Option<String>,
    /// Where it was priced as of a moment of the past: nobody can rely on it, and it says what it is.
    pub(crate) known_at: Option<String>,
}

/// The outputs as they are read back from an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QuoteOutputs {
    pub(crate) total_fee: pricing::Money,
    pub(crate) borrow_cost: pricing::Money,
    pub(crate) markup: pricing::Money,
    pub(crate) transaction_fee: pricing::Money,
    pub(crate) borrow_rate: pricing::Rate,
    pub(crate) borrow_status: BorrowStatus,
    pub(crate) volatility_tier: VolatilityTier,
    pub(crate) collateral_value: pricing::PositionValue,
    pub(crate) basis_days: u32,
    pub(crate) floored: bool,
    pub(crate) stale: Vec<String>,
    pub(crate) fallback: Vec<String>,
}

impl From<Outputs> for QuoteOutputs {
    fn from(outputs: Outputs) -> QuoteOutputs {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        QuoteOutputs {
            total_fee: outputs.total_fee,
            borrow_cost: outputs.borrow_cost,
            markup: outputs.markup,
            transaction_fee: outputs.transaction_fee,
            borrow_rate: outputs.borrow_rate,
            borrow_status: outputs.borrow_status,
            volatility_tier: outputs.volatility_tier,
            collateral_value: outputs.collateral_value,
            basis_days: outputs.basis_days,
            floored: outputs.floored,
            stale: names(&outputs.stale),
            fallback: names(&outputs.fallback),
        }
    }
}

/// A quote ready to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QuoteRow {
    pub(crate) fields: EncodedFields,
    /// What `audit_log` repeats of them: [`REPEATED`].
    pub(crate) repeated: Columns,
    /// Its row in `quotes` from [`COLUMNS`] on.
    pub(crate) row: Columns,
}

/// The fields that `audit_log` repeats in columns, for every kind and in this order.
pub(crate) const REPEATED: [&str; 4] = ["client_id", "ticker", "request_id", "quote_id"];

/// Their values, of any entry.
pub(crate) fn repeated<'a>(field: impl Fn(&str) -> Option<&'a str>) -> [Value<'a>; 4] {
    let text = |name: &str| Value::Text(field(name).map(Cow::Borrowed));
    let [client_id, ticker, request_id, quote_id] = REPEATED;
    [
        text(client_id),
        text(ticker),
        text(request_id),
        Value::Uuid(field(quote_id).and_then(quote_uuid)),
    ]
}

/// A quote read back from its entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QuoteEntry {
    pub(crate) facts: QuoteFacts,
    pub(crate) inputs: QuoteInputs,
    pub(crate) outputs: QuoteOutputs,
}

impl QuoteRow {
    /// As it arrives from another service: only what can be read back, and priced again to the same outputs, is written.
    pub(crate) fn from_fields(fields: Fields) -> Result<QuoteRow, String> {
        let quote = QuoteEntry::read(&fields)?;
        if quote_uuid(&quote.facts.quote_id).is_none() {
            return Err("its quote_id is not a UUID in the usual form".to_owned());
        }
        let priced = pricing::replay(fields.get("inputs").unwrap_or_default());
        if priced.as_deref().ok() != fields.get("outputs") {
            return Err(
                "its outputs do not follow from its inputs; are both services of one version?"
                    .to_owned(),
            );
        }
        let encoded = EncodedFields::try_from(&fields).map_err(|error| error.to_string())?;
        Ok(quote.with_columns(encoded))
    }
}

impl QuoteEntry {
    pub(crate) fn new(facts: QuoteFacts, inputs: QuoteInputs, quote: &Quote) -> QuoteEntry {
        QuoteEntry {
            facts,
            inputs,
            outputs: quote.outputs().into(),
        }
    }

    /// What is written of it. `priced`: the same that this was made from.
    pub(crate) fn record(&self, priced: &Quote) -> Result<QuoteRow, EntryError> {
        let QuoteEntry { facts, inputs, .. } = self;
        let mut fields = EncodedFields::with_capacity(FIELD_BYTES);
        fields.push("client_id", &facts.client_id)?;
        fields.push("engine_version", &facts.engine_version)?;
        fields.push("expires_at", &facts.expires_at)?;
        // Writing to memory does not fail; what is not written is found when it is read back.
        fields.push_with("inputs", |into| drop(inputs.write_json(into)))?;
        fields.push("key_id", &facts.key_id)?;
        fields.push_with("outputs", |into| drop(priced.write_outputs_json(into)))?;
        fields.push("quote_id", &facts.quote_id)?;
        fields.push("request_id", &facts.request_id)?;
        if let Some(asked) = &facts.requested_ticker {
            fields.push("requested_ticker", asked)?;
        }
        fields.push("ticker", &inputs.ticker)?;
        Ok(self.with_columns(fields))
    }

    fn with_columns(&self, mut fields: EncodedFields) -> QuoteRow {
        let QuoteEntry { facts, inputs, .. } = self;
        // Here, where many requests are at work at once, and not in the one writer.
        fields.pack();
        let repeated = repeated(|name| match name {
            "client_id" => Some(&facts.client_id),
            "ticker" => Some(&inputs.ticker),
            "request_id" => Some(&facts.request_id),
            "quote_id" => Some(&facts.quote_id),
            _ => None,
        });
        QuoteRow {
            repeated: Columns::new(repeated, REPEATED_BYTES),
            row: Columns::new(self.values(), ROW_BYTES),
            fields,
        }
    }

    pub(crate) fn read(fields: &Fields) -> Result<QuoteEntry, String> {
        let text = |name: &str| {
            fields
                .get(name)
                .ok_or_else(|| format!("its field {name} is missing"))
        };
        let facts = QuoteFacts {
            quote_id: text("quote_id")?.to_owned(),
            request_id: text("request_id")?.to_owned(),
            client_id: text("client_id")?.to_owned(),
            key_id: text("key_id")?.to_owned(),
            expires_at: text("expires_at")?.to_owned(),
            engine_version: text("engine_version")?.to_owned(),
            requested_ticker: fields.get("requested_ticker").map(str::to_owned),
            known_at: fields.get("known_at").map(str::to_owned),
        };
        let inputs = serde_json::from_str(text("inputs")?)
            .map_err(|error| format!("its inputs cannot be read: {error}"))?;
        let outputs = serde_json::from_str(text("outputs")?)
            .map_err(|error| format!("its outputs cannot be read: {error}"))?;
        Ok(QuoteEntry {
            facts,
            inputs,
            outputs,
        })
    }

    /// Of [`COLUMNS`], for writing and for comparing alike.
    pub(crate) fn values(&self) -> [Value<'_>; COLUMNS.len()] {
        let QuoteEntry {
            facts,
            inputs,
            outputs,
        } = self;
        [
            Value::Uuid(quote_uuid(&facts.quote_id)),
            Value::text_of(&facts.request_id),
            Value::text_of(&facts.client_id),
            Value::text_of(&facts.key_id),
            Value::Time(inputs.priced_at_micros),
            Value::text_of(&*inputs.ticker),
            Value::text_of(&*inputs.currency),
            Value::number(inputs.position_value, 4),
            // Pricing knows no more than 365 of them.
            Value::Integer(i32::try_from(inputs.loan_days).unwrap_or(i32::MAX)),
            Value::text_of(inputs.policy.id()),
            Value::text_of(inputs.convention.id()),
            Value::number(inputs.base_rate.value, 8),
            Value::text_of(&*inputs.base_rate.source),
            Value::number(inputs.volatility_index.value, 8),
            Value::Small(i16::from(inputs.event_risk_factor.value)),
            Value::number(outputs.borrow_rate, 8),
            Value::number(outputs.borrow_cost, 4),
            Value::number(outputs.markup, 4),
            Value::number(outputs.transaction_fee, 4),
            Value::number(outputs.total_fee, 4),
            Value::text_of(outputs.stale.join(",")),
        ]
    }
}

/// Only in the form in which PostgreSQL prints it, so that the column and the entry cannot differ.
pub(crate) fn quote_uuid(text: &str) -> Option<Uuid> {
    let uuid = Uuid::parse_str(text).ok()?;
    let mut buffer = Uuid::encode_buffer();
    (*uuid.as_hyphenated().encode_lower(&mut buffer) == *text).then_some(uuid)
}

/// Room that is enough for most, so that nothing is moved while it grows.
const FIELD_BYTES: usize = 2048;
const REPEATED_BYTES: usize = 192;
const ROW_BYTES: usize = 768;

#[cfg(test)]
mod tests {
    use super::*;

    /// The migration is text of its own, so that it stays what it was; this holds the two together, in order.
    #[test]
    fn the_migration_has_these_columns() {
        let migration = include_str!("../../migrations/V2__audit_log.sql");
        let mut lines = migration
            .lines()
            .skip_while(|line| !line.starts_with("CREATE TABLE quotes"));
        for column in COLUMNS {
            let found = lines.any(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some(column.name)
                    && words
                        .next()
                        .is_some_and(|sql_type| sql_type.trim_end_matches(',') == column.sql_type)
            });
            assert!(found, "{} {}", column.name, column.sql_type);
        }
    }

    /// A column prints one form only; another form in the entry would look like tampering.
    #[test]
    fn only_the_usual_form_of_a_uuid_is_one() {
        let usual = "019df6d0-35b1-7290-91c4-02182d137c77";
        assert_eq!(quote_uuid(usual).unwrap().to_string(), usual);
        for other in [
            &usual.to_uppercase(),
            "019df6d035b1729091c402182d137c77",
            "{019df6d0-35b1-7290-91c4-02182d137c77}",
            "",
        ] {
            assert_eq!(quote_uuid(other), None, "{other}");
        }
    }
}
