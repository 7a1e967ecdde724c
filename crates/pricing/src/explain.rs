//! A quote's explanation: the inputs with their ages, and each step with its exact and its rounded value. It shows the
//! steps that [`quote`] took and computes nothing of its own.

use serde::Serialize;

use crate::convention::Collateral;
use crate::error::PricingError;
use crate::fee::Fee;
use crate::policy::Combine;
use crate::quote::{Outputs, Quote, QuoteInputs, SourcedValue, age_seconds, quote};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    pub policy: String,
    pub convention: String,
    /// One line for each input with an origin.
    pub origins: Vec<Origin>,
    pub steps: Vec<Step>,
    /// Replaying these gives `outputs` again, byte for byte.
    pub inputs: QuoteInputs,
    pub outputs: Outputs,
}

/// Where an input came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin {
    pub name: &'static str,
    pub value: String,
    pub source: String,
    pub age_seconds: Option<i64>,
    pub stale: bool,
    pub fallback: bool,
    /// What its source said later and is not believed yet: the figure, or the rule alone where a whole delivery was
    /// refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unconfirmed: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    pub name: &'static str,
    pub formula: String,
    /// Exact: all digits, or a fraction where there is no last digit.
    pub unrounded: String,
    /// As used from here on; the same as `unrounded` where nothing is rounded.
    pub rounded: String,
}

/// Prices the inputs and tells how.
pub fn explain(inputs: &QuoteInputs) -> Result<Explanation, PricingError> {
    let quote = quote(inputs)?;
    let mut steps = rate_steps(inputs, &quote);
    steps.extend(fee_steps(inputs, &quote));
    Ok(Explanation {
        policy: inputs.policy.id(),
        convention: inputs.convention.id(),
        origins: origins(inputs, &quote),
        steps,
        inputs: inputs.clone(),
        outputs: quote.outputs(),
    })
}

/// Prices recorded inputs again: the outputs' bytes, to be compared with the recorded ones.
pub fn replay(inputs_json: &str) -> Result<String, PricingError> {
    let inputs: QuoteInputs =
        serde_json::from_str(inputs_json).map_err(|e| PricingError::Unreadable(e.to_string()))?;
    quote(&inputs).map(|quote| quote.outputs_json())
}

fn rate_steps(inputs: &QuoteInputs, quote: &Quote) -> Vec<Step> {
    let policy = &inputs.policy;
    let rate = &quote.rate;
    let bands = if policy.bands.is_empty() {
        ""
    } else {
        ", plus the index's band"
    };
    let volatility = format!(
        "max(0, {} - {}) x {}{bands}",
        inputs.volatility_index.value, policy.threshold, policy.slope
    );
    let event = format!(
        "{} / 10 x {}",
        inputs.event_risk_factor.value, policy.weight
    );
    let base = inputs.base_rate.value;
    let (v, e) = (rate.volatility, rate.event);
    let adjusted = match policy.combine {
        Combine::Additive => format!("{base} x (1 + {v} + {e})"),
        Combine::Sequential => format!("{base} x (1 + {v}) x (1 + {e})"),
        Combine::AbsoluteEvent => format!("{base} x (1 + {v}) + {e}"),
    };
    let floor = format!(
        "max({}, {})",
        policy.minimum_rate, inputs.minimum_rate.value
    );
    let larger = if rate.floored {
        rate.floor.to_string()
    } else {
        rate.adjusted.to_string()
    };
    vec![
        Step::exact("volatility", volatility, v.to_string()),
        Step::exact("event", event, e.to_string()),
        Step::exact("adjusted", adjusted, rate.adjusted.to_string()),
        Step::exact("floor", floor, rate.floor.to_string()),
        Step {
            name: "borrow_rate",
            formula: "max(adjusted, floor), half-even to 8 decimals".to_owned(),
            unrounded: larger,
            rounded: rate.rate.to_string(),
        },
    ]
}

fn fee_steps(inputs: &QuoteInputs, quote: &Quote) -> Vec<Step> {
    let fee = &quote.fee;
    let collateral = match (inputs.convention.collateral, inputs.per_share) {
        (Collateral::PerShare { percent, step }, Some(per_share)) => format!(
            "{} x {percent} % up to a multiple of {step}, x {} shares",
            per_share.price, per_share.shares
        ),
        _ => "position_value".to_owned(),
    };
    let borrow_cost = format!(
        "{} x {} x {} / {}, half-up to 4 decimals",
        fee.collateral_value, quote.rate.rate, inputs.loan_days, fee.basis_days
    );
    let markup = format!(
        "unrounded borrow_cost x {} / 100, half-up to 4 decimals",
        inputs.markup_percent.value
    );
    let transaction_fee = match inputs.fee.value {
        Fee::Flat(_) => "flat".to_owned(),
        Fee::Percentage(percent) => format!(
            "{} x {percent} / 100, half-up to 4 decimals",
            inputs.position_value
        ),
    };
    let rounded = |name, formula, unrounded: crate::Ratio, rounded: crate::Money| Step {
        name,
        formula,
        unrounded: unrounded.to_string(),
        rounded: rounded.to_string(),
    };
    let total = "borrow_cost + markup + transaction_fee, as printed".to_owned();
    vec![
        Step::exact(
            "collateral_value",
            collateral,
            fee.collateral_value.to_string(),
        ),
        rounded(
            "borrow_cost",
            borrow_cost,
            fee.borrow_cost_unrounded,
            fee.borrow_cost,
        ),
        rounded("markup", markup, fee.markup_unrounded, fee.markup),
        rounded(
            "transaction_fee",
            transaction_fee,
            fee.transaction_fee_unrounded,
            fee.transaction_fee,
        ),
        Step::exact("total_fee", total, fee.total_fee.to_string()),
    ]
}

impl Step {
    fn exact(name: &'static str, formula: String, value: String) -> Step {
        Step {
            name,
            formula,
            unrounded: value.clone(),
            rounded: value,
        }
    }
}

fn origins(inputs: &QuoteInputs, quote: &Quote) -> Vec<Origin> {
    let now = inputs.priced_at_micros;
    let fee = SourcedValue {
        value: match inputs.fee.value {
            Fee::Flat(amount) => format!("{amount} flat"),
            Fee::Percentage(percent) => format!("{percent} %"),
        },
        source: inputs.fee.source.clone(),
        at_micros: inputs.fee.at_micros,
        fallback: inputs.fee.fallback,
        stale: inputs.fee.stale,
        unconfirmed: None,
    };
    let mut origins = vec![
        origin("base_rate", &inputs.base_rate, now, quote),
        origin("minimum_rate", &inputs.minimum_rate, now, quote),
        origin("volatility_index", &inputs.volatility_index, now, quote),
        origin("event_risk_factor", &inputs.event_risk_factor, now, quote),
        origin("markup_percent", &inputs.markup_percent, now, quote),
        origin("fee", &fee, now, quote),
    ];
    if let Some(status) = &inputs.feed_status {
        origins.push(origin("feed_status", status, now, quote));
    }
    origins
}

fn origin<T: ToString>(
    name: &'static str,
    input: &SourcedValue<T>,
    now: i64,
    quote: &Quote,
) -> Origin {
    Origin {
        name,
        value: input.value.to_string(),
        source: input.source.to_string(),
        age_seconds: age_seconds(now, input.at_micros),
        stale: quote.stale.contains(&name),
        fallback: input.fallback,
        unconfirmed: input.unconfirmed.as_ref().map(|newer| match &newer.value {
            Some(value) => format!("{} ({})", value.to_string(), newer.reason),
            None => newer.reason.to_string(),
        }),
    }
}
