//! A quote as it is recorded: the fields of its audit entry, and the row in `quotes` that repeats them column by column. The
//! row is computed from the entry's content by one function, for writing and for comparing alike.

use audit::Fields;
use pricing::{BorrowStatus, Fee, Fixed, Outputs, Quote, QuoteInputs, Sourced, VolatilityTier};
use serde::{Deserialize, Serialize};

use crate::time::rfc3339;

pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) sql_type: &'static str,
}

const fn column(name: &'static str, sql_type: &'static str) -> Column {
    Column { name, sql_type }
}

const RATE: &str = "numeric(20,8)";
const MONEY: &str = "numeric(20,4)";

/// Without the entry's own place and time (log, epoch, position, recorded_at). In the order of [`row`].
pub(crate) const COLUMNS: &[Column] = &[
    column("quote_id", "uuid"),
    column("request_id", "text"),
    column("client_id", "text"),
    column("key_id", "text"),
    column("expires_at", "timestamptz"),
    column("engine_version", "text"),
    column("ticker", "text"),
    column("currency", "text"),
    column("priced_at", "timestamptz"),
    column("position_value", MONEY),
    column("loan_days", "integer"),
    column("shares", "bigint"),
    column("share_price", RATE),
    column("policy", "text"),
    column("convention", "text"),
    column("base_rate", RATE),
    column("base_rate_source", "text"),
    column("base_rate_valid_at", "timestamptz"),
    column("minimum_rate", RATE),
    column("minimum_rate_source", "text"),
    column("minimum_rate_valid_at", "timestamptz"),
    column("volatility_index", RATE),
    column("volatility_source", "text"),
    column("volatility_valid_at", "timestamptz"),
    column("event_risk_factor", "smallint"),
    column("event_source", "text"),
    column("event_valid_at", "timestamptz"),
    column("feed_status", "text"),
    column("feed_status_source", "text"),
    column("feed_status_valid_at", "timestamptz"),
    column("markup_percent", RATE),
    column("markup_source", "text"),
    column("markup_valid_at", "timestamptz"),
    column("fee_type", "text"),
    column("fee_amount", RATE),
    column("fee_source", "text"),
    column("fee_valid_at", "timestamptz"),
    column("borrow_rate", RATE),
    column("borrow_status", "text"),
    column("volatility_tier", "text"),
    column("floored", "boolean"),
    column("collateral_value", MONEY),
    column("basis_days", "integer"),
    column("borrow_cost", MONEY),
    column("markup", MONEY),
    column("transaction_fees", MONEY),
    column("total_fee", MONEY),
    column("stale", "text"),
    column("fallback", "text"),
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
}

/// The outputs as they are read back from an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordedOutputs {
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

impl From<Outputs> for RecordedOutputs {
    fn from(outputs: Outputs) -> RecordedOutputs {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        RecordedOutputs {
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
pub(crate) struct QuoteRecord {
    pub(crate) fields: Fields,
    pub(crate) row: Vec<Option<String>>,
}

/// A quote read back from its entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordedQuote {
    pub(crate) facts: QuoteFacts,
    pub(crate) inputs: QuoteInputs,
    pub(crate) outputs: RecordedOutputs,
}

impl QuoteRecord {
    pub(crate) fn new(facts: &QuoteFacts, inputs: &QuoteInputs, quote: &Quote) -> QuoteRecord {
        let fields = Fields::new()
            .with("quote_id", &facts.quote_id)
            .with("request_id", &facts.request_id)
            .with("client_id", &facts.client_id)
            .with("key_id", &facts.key_id)
            .with("expires_at", &facts.expires_at)
            .with("engine_version", &facts.engine_version)
            .with("ticker", &*inputs.ticker)
            .with("inputs", inputs.to_json())
            .with("outputs", quote.outputs_json());
        let fields = match &facts.requested_ticker {
            Some(asked) => fields.with("requested_ticker", asked),
            None => fields,
        };
        let row = row(facts, inputs, &quote.outputs().into());
        QuoteRecord { fields, row }
    }

    /// As it arrives from another service: only what can be read back is written.
    pub(crate) fn from_fields(fields: Fields) -> Result<QuoteRecord, String> {
        let row = RecordedQuote::read(&fields)?.row();
        Ok(QuoteRecord { fields, row })
    }
}

impl RecordedQuote {
    pub(crate) fn read(fields: &Fields) -> Result<RecordedQuote, String> {
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
        };
        let inputs = serde_json::from_str(text("inputs")?)
            .map_err(|error| format!("its inputs cannot be read: {error}"))?;
        let outputs = serde_json::from_str(text("outputs")?)
            .map_err(|error| format!("its outputs cannot be read: {error}"))?;
        Ok(RecordedQuote {
            facts,
            inputs,
            outputs,
        })
    }

    pub(crate) fn row(&self) -> Vec<Option<String>> {
        row(&self.facts, &self.inputs, &self.outputs)
    }
}

/// The texts of [`COLUMNS`], as PostgreSQL prints them.
fn row(facts: &QuoteFacts, inputs: &QuoteInputs, outputs: &RecordedOutputs) -> Vec<Option<String>> {
    let some = |text: &dyn std::fmt::Display| Some(text.to_string());
    let at = |micros: Option<i64>| micros.map(rfc3339);
    fn source<T>(input: &Sourced<T>) -> Option<String> {
        Some(input.source.to_string())
    }
    let status = inputs.feed_status.as_ref();
    let (fee_type, fee_amount) = match inputs.fee.value {
        Fee::Flat(amount) => ("FLAT", scale(amount, 8)),
        Fee::Percentage(percent) => ("PERCENTAGE", scale(percent, 8)),
    };
    vec![
        some(&facts.quote_id),
        some(&facts.request_id),
        some(&facts.client_id),
        some(&facts.key_id),
        some(&facts.expires_at),
        some(&facts.engine_version),
        some(&inputs.ticker),
        some(&inputs.currency),
        at(Some(inputs.priced_at_micros)),
        scale(inputs.position_value, 4),
        some(&inputs.loan_days),
        inputs
            .per_share
            .map(|per_share| per_share.shares.to_string()),
        inputs
            .per_share
            .and_then(|per_share| scale(per_share.price, 8)),
        some(&inputs.policy.id()),
        some(&inputs.convention.id()),
        scale(inputs.base_rate.value, 8),
        source(&inputs.base_rate),
        at(inputs.base_rate.at_micros),
        scale(inputs.minimum_rate.value, 8),
        source(&inputs.minimum_rate),
        at(inputs.minimum_rate.at_micros),
        scale(inputs.volatility_index.value, 8),
        source(&inputs.volatility_index),
        at(inputs.volatility_index.at_micros),
        some(&inputs.event_risk_factor.value),
        source(&inputs.event_risk_factor),
        at(inputs.event_risk_factor.at_micros),
        status.map(|status| status.value.to_string()),
        status.and_then(source),
        status.and_then(|status| at(status.at_micros)),
        scale(inputs.markup_percent.value, 8),
        source(&inputs.markup_percent),
        at(inputs.markup_percent.at_micros),
        some(&fee_type),
        fee_amount,
        source(&inputs.fee),
        at(inputs.fee.at_micros),
        scale(outputs.borrow_rate, 8),
        some(&outputs.borrow_status),
        some(&outputs.volatility_tier),
        some(&outputs.floored),
        scale(outputs.collateral_value, 4),
        some(&outputs.basis_days),
        scale(outputs.borrow_cost, 4),
        scale(outputs.markup, 4),
        scale(outputs.transaction_fee, 4),
        scale(outputs.total_fee, 4),
        Some(outputs.stale.join(",")),
        Some(outputs.fallback.join(",")),
    ]
}

/// With as many decimals as the column has; it never has fewer than the number.
fn scale<const D: u32>(number: Fixed<D>, decimals: u32) -> Option<String> {
    let zeros = decimals.saturating_sub(D) as usize;
    Some(format!("{number}{:0<zeros$}", ""))
}

/// The SQL expression whose text is what [`row`] holds.
pub(crate) fn text_of(table: &str, column: &Column) -> String {
    let name = format!("{table}.{}", column.name);
    match column.sql_type {
        "timestamptz" => timestamp_text(&name),
        _ => format!("{name}::text"),
    }
}

pub(crate) fn timestamp_text(name: &str) -> String {
    format!("to_char({name} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The migration is text of its own, so that it stays what it was; this holds the two together.
    #[test]
    fn the_migration_has_these_columns() {
        let migration = include_str!("../../migrations/V2__audit_log.sql");
        for column in COLUMNS {
            let found = migration.lines().any(|line| {
                let mut words = line.split_whitespace();
                words.next() == Some(column.name)
                    && words
                        .next()
                        .is_some_and(|sql_type| sql_type.trim_end_matches(',') == column.sql_type)
            });
            assert!(found, "{} {}", column.name, column.sql_type);
        }
    }

    #[test]
    fn numbers_get_the_decimals_of_their_column() {
        assert_eq!(
            scale(pricing::PositionValue::whole(100_000), 4).as_deref(),
            Some("100000.0000")
        );
        assert_eq!(
            scale(pricing::Rate::whole(1), 8).as_deref(),
            Some("1.00000000")
        );
        assert_eq!(
            scale(pricing::Percent::from_units(3_500_000), 8).as_deref(),
            Some("3.50000000")
        );
    }
}
