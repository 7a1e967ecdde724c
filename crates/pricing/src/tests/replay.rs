use std::sync::Arc;

use super::{inputs, number};
use crate::*;

#[test]
fn recorded_bytes() {
    let mut inputs = inputs();
    inputs.volatility_index = SourcedValue::fallback(DEFAULT_INDEX, "default");
    inputs.policy = Arc::new(Policy::find_shipped("banded-1").unwrap());
    inputs.convention = Arc::new(Convention::find_shipped("eu-street-1").unwrap());
    inputs.per_share = Some(PerShare {
        shares: 100,
        price: number("10.01"),
    });
    inputs.feed_status = Some(SourcedValue::new(BorrowStatus::Easy, "seclend", None));
    let recorded = r#"{"ticker":"GME","currency":"USD","priced_at_micros":1795421730000000,"position_value":100000.00,"loan_days":30,"per_share":{"shares":100,"price":10.010000},"base_rate":{"value":0.05000000,"source":"ibkr","at_micros":1795421700000000},"minimum_rate":{"value":0.00000000,"source":"stocks"},"volatility_index":{"value":20.000000,"source":"default","fallback":true},"event_risk_factor":{"value":0,"source":"events"},"markup_percent":{"value":5.000000,"source":"broker"},"fee":{"value":{"FLAT":25.0000},"source":"broker"},"feed_status":{"value":"EASY","source":"seclend"},"policy":{"name":"banded","version":1,"combine":"additive","threshold":0.000000,"slope":0.01000000,"bands":[{"from":20.000000,"to":30.000000,"slope_percent":25},{"from":30.000000,"slope_percent":50}],"weight":0.05000000,"minimum_rate":0.00010000,"status":{"easy_max":0.00500000,"medium_max":0.03000000},"freshness":{"base_rate_age_seconds_max":86400,"volatility_age_seconds_max":345600,"event_age_seconds_max":604800,"refuse_stale":false}},"convention":{"name":"eu-street","version":1,"collateral":{"per-share":{"percent":105.000000,"step":0.01}},"basis_days":360,"basis_days_of":[{"currency":"GBP","basis_days":365}]}}"#;
    assert_eq!(inputs.to_json(), recorded);
    let outputs = r#"{"total_fee":30.5230,"borrow_cost":5.2600,"markup":0.2630,"transaction_fee":25.0000,"borrow_rate":0.06000000,"borrow_status":"EASY","volatility_tier":"NORMAL","collateral_value":1052.00,"basis_days":360,"floored":false,"stale":[],"fallback":["volatility_index"]}"#;
    assert_eq!(replay(recorded).unwrap(), outputs);
    assert_eq!(quote(&inputs).unwrap().outputs_json(), outputs);
}

#[test]
fn an_explanation_shows_the_same_computation() {
    let mut inputs = inputs();
    inputs.volatility_index.value = number("25");
    inputs.event_risk_factor.value = 2;
    let explanation = explain(&inputs).unwrap();
    let steps: Vec<String> = explanation
        .steps
        .iter()
        .map(|step| {
            format!(
                "{} = {} = {} -> {}",
                step.name, step.formula, step.unrounded, step.rounded
            )
        })
        .collect();
    assert_eq!(
        steps,
        [
            "volatility = max(0, 25.000000 - 0.000000) x 0.01000000 = 0.25 -> 0.25",
            "event = 2 / 10 x 0.05000000 = 0.01 -> 0.01",
            "adjusted = 0.05000000 x (1 + 0.25 + 0.01) = 0.063 -> 0.063",
            "floor = max(0.00010000, 0.00000000) = 0.00010000 -> 0.00010000",
            "borrow_rate = max(adjusted, floor), half-even to 8 decimals = 0.063 -> 0.06300000",
            "collateral_value = position_value = 100000.00 -> 100000.00",
            "borrow_cost = 100000.00 x 0.06300000 x 30 / 365, half-up to 4 decimals = 37800/73 -> 517.8082",
            "markup = unrounded borrow_cost x 5.000000 / 100, half-up to 4 decimals = 1890/73 -> 25.8904",
            "transaction_fee = flat = 25 -> 25.0000",
            "total_fee = borrow_cost + markup + transaction_fee, as printed = 568.6986 -> 568.6986",
        ]
    );
    let base = &explanation.origins[0];
    assert_eq!(
        (base.source.as_str(), base.age_seconds, base.stale),
        ("ibkr", Some(30), false)
    );
    assert_eq!(explanation.outputs, quote(&inputs).unwrap().outputs());
    let replayed = replay(&explanation.inputs.to_json()).unwrap();
    assert_eq!(
        replayed,
        serde_json::to_string(&explanation.outputs).unwrap()
    );
    let whole = serde_json::to_string(&explanation).unwrap();
    assert!(
        whole.contains(r#""policy":"standard-1","convention":"act365-1""#),
        "{whole}"
    );
}

#[test]
fn old_inputs_are_named_or_refused() {
    let mut inputs = inputs();
    let second = 1_000_000;
    let limit = inputs.policy.freshness.base_rate_age_seconds_max;
    inputs.base_rate.at_micros = Some(inputs.priced_at_micros - limit * second);
    assert!(quote(&inputs).unwrap().stale.is_empty());
    inputs.base_rate.at_micros = Some(inputs.priced_at_micros - (limit + 1) * second);
    assert_eq!(quote(&inputs).unwrap().stale, ["base_rate"]);
    let strict = Freshness {
        refuse_stale: true,
        ..Freshness::STANDARD
    };
    inputs.policy = Arc::new(Policy {
        freshness: strict,
        ..Policy::standard_1()
    });
    let error = quote(&inputs).unwrap_err();
    assert_eq!(
        error.to_string(),
        "base_rate is 86401 seconds old, and the policy standard-1 refuses it after 86400"
    );
}

#[test]
fn inputs_that_were_tampered_with_are_unreadable() {
    let json = inputs().to_json();
    for (from, to) in [
        ("\"loan_days\":30", "\"loan_days\":30.5"),
        ("\"loan_days\":30", "\"loan_days\":30,\"discount\":1"),
        ("0.05000000", "5e-2"),
        ("\"FLAT\"", "\"FREE\""),
    ] {
        assert!(json.contains(from));
        let error = replay(&json.replace(from, to)).unwrap_err();
        assert!(
            matches!(error, PricingError::Unreadable(_)),
            "{to}: {error}"
        );
    }
}
