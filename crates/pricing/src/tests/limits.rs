use std::sync::Arc;

use super::{inputs, number};
use crate::*;

/// Each change to sound inputs, and the input that the refusal names.
#[test]
fn refusals_name_the_input() {
    type Change = fn(&mut QuoteInputs);
    let cases: [(&str, Change); 22] = [
        ("base_rate", |i| i.base_rate.value = number("-0.00000001")),
        ("base_rate", |i| i.base_rate.value = number("1000.00000001")),
        ("minimum_rate", |i| i.minimum_rate.value = number("-1")),
        ("volatility_index", |i| {
            i.volatility_index.value = number("-0.000001")
        }),
        ("volatility_index", |i| {
            i.volatility_index.value = number("1000.000001")
        }),
        ("event_risk_factor", |i| i.event_risk_factor.value = 11),
        ("position_value", |i| i.position_value = PositionValue::ZERO),
        ("position_value", |i| i.position_value = number("-5")),
        ("position_value", |i| {
            i.position_value = number("1000000000.01")
        }),
        ("loan_days", |i| i.loan_days = 0),
        ("loan_days", |i| i.loan_days = 366),
        ("markup_percent", |i| i.markup_percent.value = number("-5")),
        ("markup_percent", |i| {
            i.markup_percent.value = number("1000.1")
        }),
        ("transaction_fee", |i| {
            i.fee.value = Fee::Flat(number("-0.0001"))
        }),
        ("transaction_fee", |i| {
            i.fee.value = Fee::Percentage(number("-1"))
        }),
        ("transaction_fee", |i| {
            i.fee.value = Fee::Percentage(number("100.5"))
        }),
        ("shares", |i| i.convention = convention("us-street-1")),
        ("shares", |i| per_share(i, 0, "1")),
        ("price", |i| per_share(i, 1, "0")),
        ("price", |i| per_share(i, 1, "-1")),
        ("collateral_value", |i| {
            per_share(i, 10_000_000_000, "10000000")
        }),
        ("policy.slope", |i| {
            i.policy = Arc::new(Policy {
                slope: number("-0.01"),
                ..Policy::standard_1()
            });
        }),
    ];
    for (number, (field, change)) in cases.into_iter().enumerate() {
        let mut inputs = inputs();
        change(&mut inputs);
        let error = quote(&inputs).expect_err(field);
        assert_eq!(error.field(), field, "case {number}: {error}");
        assert!(error.to_string().contains(field), "case {number}: {error}");
    }
}

#[test]
fn the_limits_themselves_are_inside() {
    let mut most = inputs();
    most.base_rate.value = number("1000");
    most.volatility_index.value = number("1000");
    most.event_risk_factor.value = 10;
    most.position_value = number("1000000000");
    most.loan_days = 365;
    most.markup_percent.value = number("1000");
    most.fee.value = Fee::Percentage(number("100"));
    let fee = quote(&most).unwrap().fee;
    assert_eq!(fee.borrow_cost.to_string(), "11050000000000.0000");
    assert_eq!(fee.total_fee.to_string(), "121551000000000.0000");
}

#[test]
fn what_does_not_fit_is_told_and_never_wraps() {
    let extreme = Policy {
        combine: Combine::Sequential,
        slope: number("1"),
        weight: number("100"),
        ..Policy::standard_1()
    };
    let inputs = RateInputs {
        base_rate: number("1000"),
        minimum_rate: Rate::ZERO,
        volatility_index: number("1000"),
        event_risk_factor: 10,
    };
    let overflow = PricingError::Overflow {
        field: "borrow_rate",
    };
    assert_eq!(rate(&inputs, &extreme), Err(overflow));
}

#[test]
fn negative_is_told_as_negative() {
    let mut below = inputs();
    below.base_rate.value = number("-0.01");
    assert_eq!(
        quote(&below).unwrap_err().to_string(),
        "base_rate is negative (-0.01000000); it must be 0 or more"
    );
}

fn convention(id: &str) -> Arc<Convention> {
    Arc::new(Convention::find_shipped(id).unwrap())
}

fn per_share(inputs: &mut QuoteInputs, shares: u64, price: &str) {
    inputs.convention = convention("us-street-1");
    inputs.per_share = Some(PerShare {
        shares,
        price: number(price),
    });
}
