//! Parameters of a request, wherever they come from, as text; and the checks they have in common.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::errors::{ApiError, Invalid};

/// Upper-case letters, digits, dot, space, slash: what real files have.
pub(crate) fn is_ticker(text: &str) -> bool {
    let allowed = |byte: u8| {
        byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b' ' | b'/')
    };
    let first_and_last = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let bytes = text.as_bytes();
    bytes.len() <= 12
        && first_and_last(bytes.first())
        && bytes.last() != Some(&b' ')
        && bytes.iter().copied().all(allowed)
}

pub(crate) fn is_client_id(text: &str) -> bool {
    (3..=50).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// What a client may call a request.
pub(crate) fn is_request_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

/// Digits only, without a leading zero.
pub(crate) fn whole(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// What may be true or false; elsewhere neither is a value.
const FLAGS: [&str; 2] = ["active", "all_or_none"];

pub(crate) const CLIENT_RULE: &str = "must be 3 to 50 letters, digits, '_' or '-'";

pub(crate) const TICKER_RULE: &str =
    "must be 1 to 12 upper-case letters, digits, dots, spaces or slashes";

#[derive(Debug)]
pub(crate) struct Parameters {
    location: &'static str,
    valid: &'static [&'static str],
    values: Vec<(String, String)>,
    errors: Vec<Invalid>,
}

impl Parameters {
    pub(crate) fn from_query(query: Option<&str>, valid: &'static [&'static str]) -> Parameters {
        let mut parameters = Parameters {
            location: "query",
            valid,
            values: Vec::new(),
            errors: Vec::new(),
        };
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            parameters.add(name.into_owned(), value.into_owned());
        }
        parameters
    }

    pub(crate) fn from_json(
        body: &[u8],
        valid: &'static [&'static str],
    ) -> Result<Parameters, ApiError> {
        let object: Object = serde_json::from_slice(body).map_err(|error| {
            ApiError::Unreadable(format!("the body is not a JSON object: {error}"))
        })?;
        let mut parameters = Parameters {
            location: "body",
            valid,
            values: Vec::new(),
            errors: Vec::new(),
        };
        for (name, value) in object.0 {
            match text_of(&value) {
                Value::Text(text) => parameters.add(name, text),
                Value::Flag(text) if FLAGS.contains(&name.as_str()) => parameters.add(name, text),
                Value::Flag(_) | Value::Other => {
                    parameters.refuse(&name, "must be a number or a string")
                }
            }
        }
        Ok(parameters)
    }

    fn add(&mut self, name: String, value: String) {
        if !self.valid.contains(&name.as_str()) {
            self.refuse(&name, "is not a parameter here");
        } else if self.values.iter().any(|(known, _)| *known == name) {
            self.refuse(&name, "was given twice");
        } else {
            self.values.push((name, value));
        }
    }

    pub(crate) fn refuse(&mut self, field: &str, message: &str) {
        let field = field.chars().take(64).collect();
        self.errors.push(Invalid {
            field,
            location: self.location,
            message: message.to_owned(),
        });
    }

    /// Of a part of the path.
    pub(crate) fn refuse_path(&mut self, field: &str, message: &str) {
        self.errors.push(Invalid {
            field: field.to_owned(),
            location: "path",
            message: message.to_owned(),
        });
    }

    pub(crate) fn optional(&self, name: &str) -> Option<String> {
        self.values
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    }

    /// Everything that was sent and is a parameter here.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&str, &str)> {
        let values = self.values.iter();
        values.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of `name` if it is there and `read` takes it; otherwise the reason is noted.
    pub(crate) fn required<T>(
        &mut self,
        name: &str,
        rule: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        match self.optional(name) {
            None => {
                if !self.errors.iter().any(|error| error.field == name) {
                    self.refuse(name, "is required");
                }
                None
            }
            Some(text) => self.read(name, &text, rule, read),
        }
    }

    pub(crate) fn maybe<T>(
        &mut self,
        name: &str,
        rule: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.optional(name)?;
        self.read(name, &text, rule, read)
    }

    fn read<T>(
        &mut self,
        name: &str,
        text: &str,
        rule: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = read(text);
        if value.is_none() {
            self.refuse(name, rule);
        }
        value
    }

    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if self.errors.is_empty() {
            return Ok(());
        }
        Err(ApiError::Invalid {
            errors: self.errors,
            valid_params: self.valid,
        })
    }
}

enum Value {
    Text(String),
    Flag(String),
    Other,
}

/// A number's own digits, or a string's content.
fn text_of(value: &RawValue) -> Value {
    let raw = value.get();
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str(raw).map_or(Value::Other, Value::Text),
        Some(b't' | b'f') => Value::Flag(raw.to_owned()),
        Some(b'-' | b'0'..=b'9') => Value::Text(written_out(raw)),
        _ => Value::Other,
    }
}

/// A JSON number as one writes it by hand, with the same value: without the exponent that some languages use even for 10000000
/// (`1.0E7`), and 30 for `30.0`. One that nobody could mean stays as it is, and is refused.
pub(crate) fn written_out(number: &str) -> String {
    const SHIFT_MAX: i32 = 18;
    let Some((mantissa, exponent)) = number.split_once(['e', 'E']) else {
        let whole = number
            .split_once('.')
            .filter(|(_, decimals)| decimals.bytes().all(|b| b == b'0'));
        return whole.map_or(number, |(whole, _)| whole).to_owned();
    };
    let Some(shift) = exponent
        .parse::<i32>()
        .ok()
        .filter(|shift| shift.abs() <= SHIFT_MAX && mantissa.len() <= 40)
    else {
        return number.to_owned();
    };
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let (whole, decimals) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    // Zeros on both sides, so that the point lands between digits wherever it goes.
    let zeros = "0".repeat(SHIFT_MAX.unsigned_abs() as usize);
    let digits = format!("{zeros}{whole}{decimals}{zeros}");
    let point = (zeros.len() + whole.len()).saturating_add_signed(shift as isize);
    let (whole, decimals) = digits.split_at(point.min(digits.len()));
    let (whole, decimals) = (
        whole.trim_start_matches('0'),
        decimals.trim_end_matches('0'),
    );
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if decimals.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{decimals}")
}

/// A JSON object with its members in order and repeated names kept, so that they can be refused.
struct Object(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(parameters: Result<Parameters, ApiError>, expected: &str) {
        let found = match parameters {
            Err(ApiError::Unreadable(why)) => why,
            Err(other) => format!("{other:?}"),
            Ok(parameters) => {
                let values = parameters
                    .values
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"));
                values
                    .chain(
                        parameters
                            .errors
                            .iter()
                            .map(|error| format!("{} {}", error.field, error.message)),
                    )
                    .collect::<Vec<_>>()
                    .join("; ")
            }
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn numbers_and_strings_keep_their_digits() {
        let json = |body: &str| Parameters::from_json(body.as_bytes(), &["a", "b"]);
        check(
            json(r#"{"a": 100000.10, "b": "007"}"#),
            "a=100000.10; b=007",
        );
        check(json(r#"{"a": 1e400, "b": -0}"#), "a=1e400; b=-0");
        check(
            json(r#"{"a": [1], "b": null}"#),
            "a must be a number or a string; b must be a number or a string",
        );
        check(json(r#"{"a": 1, "a": 2}"#), "a=1; a was given twice");
        check(json(r#"{"c": 1}"#), "c is not a parameter here");
        check(
            json(r#"{"a": NaN}"#),
            "the body is not a JSON object: expected value at line 1 column 7",
        );
        check(
            json("[]"),
            "the body is not a JSON object: invalid type: sequence, expected a JSON object at line 1 column 0",
        );
        check(
            json(""),
            "the body is not a JSON object: EOF while parsing a value at line 1 column 0",
        );
    }

    #[test]
    fn exponents_are_written_out() {
        for (number, expected) in [
            ("1.0E7", "10000000"),
            ("2e-06", "0.000002"),
            ("-1.50e1", "-15"),
            ("12345e-2", "123.45"),
            ("0e5", "0"),
            ("100000.10", "100000.10"),
            ("30.0", "30"),
            ("-0.0", "-0"),
            ("1e400", "1e400"),
            ("1e99999999999", "1e99999999999"),
            ("1e18", "1000000000000000000"),
            ("1e-18", "0.000000000000000001"),
        ] {
            assert_eq!(written_out(number), expected);
        }
    }

    #[test]
    fn a_query_is_read_the_same_way() {
        check(
            Ok(Parameters::from_query(
                Some("a=BRK%20A&b=1+2&b=3&d=1"),
                &["a", "b"],
            )),
            "a=BRK A; b=1 2; b was given twice; d is not a parameter here",
        );
        check(Ok(Parameters::from_query(None, &[])), "");
    }

    #[test]
    fn tickers_of_real_files() {
        for (ticker, good) in [
            ("GME", true),
            ("BRK.A", true),
            ("BRK A", true),
            ("ABR PRD", true),
            ("A/B", true),
            ("2391358D", true),
            ("", false),
            ("gme", false),
            (" GME", false),
            ("GME ", false),
            ("ABCDEFGHIJKLM", false),
            ("GM\u{c9}", false),
            ("A;B", false),
            (".A", false),
        ] {
            assert_eq!(is_ticker(ticker), good, "{ticker:?}");
        }
    }
}
