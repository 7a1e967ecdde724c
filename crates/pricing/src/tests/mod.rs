//! Each number that the specification promises, the rules of the number types, and the formulas once more in other
//! arithmetic.

mod attribution;
mod golden;
mod limits;
mod numbers;
mod reference;
mod replay;

use std::sync::Arc;

use crate::*;

/// A quote's inputs to vary: 100,000 at 5 % for 30 days, calm market, 5 % markup and 25 flat.
fn inputs() -> QuoteInputs {
    QuoteInputs {
        ticker: "GME".into(),
        currency: "USD".into(),
        priced_at_micros: 1_795_421_730_000_000,
        position_value: number("100000"),
        loan_days: 30,
        per_share: None,
        base_rate: SourcedValue::new(number("0.05"), "ibkr", Some(1_795_421_700_000_000)),
        minimum_rate: SourcedValue::new(Rate::ZERO, "stocks", None),
        volatility_index: SourcedValue::new(Index::ZERO, "vix", Some(1_795_421_000_000_000)),
        event_risk_factor: SourcedValue::new(0, "events", None),
        markup_percent: SourcedValue::new(number("5"), "broker", None),
        fee: SourcedValue::new(Fee::Flat(number("25")), "broker", None),
        feed_status: None,
        policy: Arc::new(Policy::standard_1()),
        convention: Arc::new(Convention::act365_1()),
    }
}

fn number<const D: u32>(text: &str) -> Fixed<D> {
    text.parse().unwrap()
}
