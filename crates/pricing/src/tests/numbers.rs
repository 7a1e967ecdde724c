use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::number;
use crate::*;

#[test]
fn printed_with_all_decimals() {
    for (text, printed) in [
        ("0", "0.0000"),
        ("-0", "0.0000"),
        ("1", "1.0000"),
        ("1561.6438", "1561.6438"),
        ("-0.5", "-0.5000"),
        ("0.0001", "0.0001"),
        ("922337203685477.5807", "922337203685477.5807"),
        ("-922337203685477.5808", "-922337203685477.5808"),
    ] {
        assert_eq!(number::<4>(text).to_string(), printed, "{text}");
    }
    assert_eq!(Fixed::<0>::from_units(-7).to_string(), "-7");
    assert_eq!(number::<8>("0.063").to_string(), "0.06300000");
}

#[test]
fn anything_else_is_refused() {
    use NumberError::{Empty, Exponent, Malformed, TooLarge, TooManyDecimals};
    let too_large = TooLarge { decimals: 4 };
    for (text, error) in [
        ("", Empty),
        ("+", Malformed),
        ("-", Malformed),
        ("+1", Malformed),
        ("--1", Malformed),
        (".", Malformed),
        ("1.", Malformed),
        (".5", Malformed),
        ("-.5", Malformed),
        ("1.2.3", Malformed),
        ("1,000", Malformed),
        ("1_000", Malformed),
        (" 1", Malformed),
        ("1 ", Malformed),
        ("1\n", Malformed),
        ("007", Malformed),
        ("NaN", Malformed),
        ("inf", Malformed),
        ("e5", Malformed),
        ("0x10", Malformed),
        ("１２", Malformed),
        ("1٫5", Malformed),
        ("\u{2212}1", Malformed),
        ("1e400", Exponent),
        ("1E2", Exponent),
        ("1.5e-3", Exponent),
        (
            "1.00000",
            TooManyDecimals {
                allowed: 4,
                found: 5,
            },
        ),
        ("922337203685477.5808", too_large),
        ("-922337203685477.5809", too_large),
        ("99999999999999999999999999999999999999999999", too_large),
    ] {
        assert_eq!(text.parse::<Money>(), Err(error), "{text:?}");
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Body {
    value: Money,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    other: Option<Rate>,
}

#[test]
fn json_numbers_keep_their_digits() {
    let body = Body {
        value: number("456.5068"),
        other: Some(number("0.0630")),
    };
    let json = r#"{"value":456.5068,"other":0.06300000}"#;
    assert_eq!(serde_json::to_string(&body).unwrap(), json);
    for same in [
        json,
        r#"{"value":"456.5068","other":"0.063"}"#,
        r#" { "other" : 0.063 , "value" : 456.5068 } "#,
    ] {
        assert_eq!(serde_json::from_str::<Body>(same).unwrap(), body, "{same}");
    }
    // A float between would give another last digit.
    let long = r#"{"value":922337203685477.5807}"#;
    let body: Body = serde_json::from_slice(long.as_bytes()).unwrap();
    assert_eq!(serde_json::to_string(&body).unwrap(), long);
}

#[test]
fn json_that_is_no_plain_number_is_refused() {
    for (value, says) in [
        ("1e400", "exponents"),
        ("\"1e2\"", "exponents"),
        ("\"NaN\"", "plain decimal"),
        ("\"\"", "missing"),
        ("\"1\\u0030\"", "plain decimal"),
        ("true", "plain decimal"),
        ("null", "plain decimal"),
        ("[1]", "plain decimal"),
        ("1.23456", "5 decimals, at most 4"),
    ] {
        let error = serde_json::from_str::<Body>(&format!("{{\"value\":{value}}}")).unwrap_err();
        assert!(error.to_string().contains(says), "{value}: {error}");
    }
    let absent = serde_json::from_str::<Body>(r#"{"value":1,"other":null}"#).unwrap();
    assert_eq!(absent.other, None);
}

#[test]
fn a_percentage_becomes_a_rate_without_loss() {
    let percent: Percent = number("1016.1234");
    assert_eq!(Rate::from_percent(percent).to_string(), "10.16123400");
    assert_eq!(Rate::from_percent(percent).to_percent(), percent);
}

proptest! {
    #[test]
    fn text_and_json_round_trip(units: i64) {
        let value = Fixed::<8>::from_units(units);
        prop_assert_eq!(value.to_string().parse(), Ok(value));
        let json = serde_json::to_string(&value).unwrap();
        prop_assert_eq!(&json, &value.to_string());
        prop_assert_eq!(serde_json::from_str::<Fixed<8>>(&json).unwrap(), value);
    }

    #[test]
    fn what_parses_is_what_was_written(text in "[-+0-9.e]{0,7}|\\PC{0,5}") {
        if let Ok(value) = text.parse::<Money>() {
            let without_zeros = |text: &str| match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                false => text.to_owned(),
            };
            let written = without_zeros(&text);
            let written = if written == "-0" { "0".to_owned() } else { written };
            prop_assert_eq!(without_zeros(&value.to_string()), written);
        }
    }
}
