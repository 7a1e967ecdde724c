//! What a priced book looks like: lines of JSON, the same bytes whenever the same book is priced with the same knowledge. The first
//! line is the [`Header`], the last one the [`Trailer`]; in between one line for each position.

use std::collections::BTreeMap;
use std::sync::Arc;

use pricing::{
    BorrowStatus, Convention, Fee, Index, Money, PerShare, Percent, Policy, PositionValue, Quote,
    QuoteInputs, Rate, SourcedValue,
};
use serde::{Deserialize, Serialize};

pub(super) const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// Version of this form.
    pub(super) book: u32,
    pub(super) as_of: String,
    pub(super) known_at: String,
    pub(super) engine_version: String,
    pub(super) input_sha256: String,
}

/// A position's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Answer {
    Priced(Box<PricedLine>),
    Refused(RefusedLine),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Priced,
    Refused,
}

impl Answer {
    /// In two steps: exact digits survive only where a number is read straight from the text.
    pub(super) fn read(line: &str) -> Result<Answer, serde_json::Error> {
        #[derive(Deserialize)]
        struct First {
            status: Status,
        }
        let First { status } = serde_json::from_str(line)?;
        Ok(match status {
            Status::Priced => Answer::Priced(serde_json::from_str(line)?),
            Status::Refused => Answer::Refused(serde_json::from_str(line)?),
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PricedLine {
    pub(super) status: Status,
    pub(super) line: u64,
    pub(super) ticker: Arc<str>,
    pub(super) client_id: String,
    pub(super) currency: Arc<str>,
    pub(super) total_fee: Money,
    pub(super) borrow_cost: Money,
    pub(super) markup: Money,
    pub(super) transaction_fees: Money,
    pub(super) borrow_rate: Rate,
    pub(super) borrow_status: BorrowStatus,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) stale: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) fallback: Vec<String>,
    pub(super) inputs: Inputs,
}

/// Everything that the price was made from; policy and convention by name, their definitions are in the trailer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Inputs {
    pub(super) position_value: PositionValue,
    pub(super) loan_days: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) per_share: Option<PerShare>,
    pub(super) base_rate: SourcedValue<Rate>,
    pub(super) minimum_rate: SourcedValue<Rate>,
    pub(super) volatility_index: SourcedValue<Index>,
    pub(super) event_risk_factor: SourcedValue<u8>,
    pub(super) markup_percent: SourcedValue<Percent>,
    pub(super) fee: SourcedValue<Fee>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) feed_status: Option<SourcedValue<BorrowStatus>>,
    pub(super) policy: String,
    pub(super) convention: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RefusedLine {
    pub(super) status: Status,
    pub(super) line: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ticker: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) client_id: Option<String>,
    pub(super) error_code: String,
    pub(super) error: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trailer {
    pub(super) lines: u64,
    pub(super) priced: u64,
    pub(super) refused: u64,
    /// Total fees by currency.
    pub(super) totals: BTreeMap<String, String>,
    pub(super) ignored_columns: Vec<String>,
    /// Those that were used.
    pub(super) policies: BTreeMap<String, Policy>,
    pub(super) conventions: BTreeMap<String, Convention>,
}

impl PricedLine {
    pub(super) fn new(
        line: u64,
        client_id: String,
        inputs: &QuoteInputs,
        quote: &Quote,
    ) -> PricedLine {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        PricedLine {
            status: Status::Priced,
            line,
            ticker: Arc::clone(&inputs.ticker),
            client_id,
            currency: Arc::clone(&inputs.currency),
            total_fee: quote.fee.total_fee,
            borrow_cost: quote.fee.borrow_cost,
            markup: quote.fee.markup,
            transaction_fees: quote.fee.transaction_fee,
            borrow_rate: quote.rate.rate,
            borrow_status: quote.borrow_status,
            stale: names(&quote.stale),
            fallback: names(&quote.fallback),
            inputs: Inputs {
                position_value: inputs.position_value,
                loan_days: inputs.loan_days,
                per_share: inputs.per_share,
                base_rate: inputs.base_rate.clone(),
                minimum_rate: inputs.minimum_rate.clone(),
                volatility_index: inputs.volatility_index.clone(),
                event_risk_factor: inputs.event_risk_factor.clone(),
                markup_percent: inputs.markup_percent.clone(),
                fee: inputs.fee.clone(),
                feed_status: inputs.feed_status.clone(),
                policy: inputs.policy.id(),
                convention: inputs.convention.id(),
            },
        }
    }

    /// To be priced again. `None`: the trailer lacks a definition.
    pub(super) fn quote_inputs(
        &self,
        priced_at_micros: i64,
        policies: &BTreeMap<String, Arc<Policy>>,
        conventions: &BTreeMap<String, Arc<Convention>>,
    ) -> Option<QuoteInputs> {
        let Inputs {
            position_value,
            loan_days,
            per_share,
            base_rate,
            minimum_rate,
            volatility_index,
            event_risk_factor,
            markup_percent,
            fee,
            feed_status,
            policy,
            convention,
        } = self.inputs.clone();
        Some(QuoteInputs {
            ticker: Arc::clone(&self.ticker),
            currency: Arc::clone(&self.currency),
            priced_at_micros,
            position_value,
            loan_days,
            per_share,
            base_rate,
            minimum_rate,
            volatility_index,
            event_risk_factor,
            markup_percent,
            fee,
            feed_status,
            policy: Arc::clone(policies.get(&policy)?),
            convention: Arc::clone(conventions.get(&convention)?),
        })
    }
}
