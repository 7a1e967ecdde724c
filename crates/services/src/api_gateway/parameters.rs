//! Parameters of a request, wherever they come from, as text; and the checks they have in common.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::errors::{ApiError, Invalid};
use crate::domain::digits::{Ambiguous, Digits, written_out};

/// What may be true or false; elsewhere neither is a value.
const FLAGS: [&str; 2] = ["active", "all_or_none"];

#[derive(Debug)]
pub(crate) struct Parameters {
    location: &'static str,
    valid: &'static [&'static str],
    values: Vec<Parameter>,
    errors: Vec<Invalid>,
}

#[derive(Debug)]
struct Parameter {
    name: String,
    /// `None`: as good as not sent.
    value: Option<Value>,
}

impl Parameters {
    /// Nothing was sent.
    pub(crate) fn none(location: &'static str, valid: &'static [&'static str]) -> Parameters {
        Parameters {
            location,
            valid,
            values: Vec::new(),
            errors: Vec::new(),
        }
    }

    pub(crate) fn from_query(query: Option<&str>, valid: &'static [&'static str]) -> Parameters {
        let mut parameters = Parameters::none("query", valid);
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            parameters.add(name.into_owned(), Some(Value::Text(value.into_owned())));
        }
        parameters
    }

    pub(crate) fn from_json(
        body: &[u8],
        valid: &'static [&'static str],
    ) -> Result<Parameters, ApiError> {
        let object: Object =
            serde_json::from_slice(body).map_err(|error| ApiError::UnreadableBody {
                why: format!("the body is not a JSON object: {error}"),
                valid_params: valid,
            })?;
        let mut parameters = Parameters::none("body", valid);
        for (name, raw) in object.0 {
            match Value::of(&raw) {
                Some(Value::Flag(_)) if !FLAGS.contains(&name.as_str()) => {
                    parameters.refuse(&name, NOT_ONE);
                }
                Some(value) => parameters.add(name, Some(value)),
                None if raw.get() == "null" => parameters.add(name, None),
                None => parameters.refuse(&name, NOT_ONE),
            }
        }
        Ok(parameters)
    }

    fn add(&mut self, name: String, value: Option<Value>) {
        if !self.valid.contains(&name.as_str()) {
            self.refuse(&name, "is not a parameter here");
        } else if self.values.iter().any(|sent| sent.name == name) {
            self.refuse(&name, "was given twice");
        } else {
            self.values.push(Parameter { name, value });
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

    fn sent(&self, name: &str) -> Option<&Value> {
        let sent = self.values.iter().find(|sent| sent.name == name)?;
        sent.value.as_ref()
    }

    pub(crate) fn is_sent(&self, name: &str) -> bool {
        self.sent(name).is_some()
    }

    pub(crate) fn optional(&self, name: &str) -> Option<String> {
        self.sent(name).map(|value| value.text().to_owned())
    }

    /// Everything that was sent and is a parameter here.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&str, &str)> {
        let values = self.values.iter();
        values.filter_map(|sent| Some((sent.name.as_str(), sent.value.as_ref()?.text())))
    }

    /// The text of `name` if it is there and `read` takes it; otherwise the reason is noted.
    pub(crate) fn required<T>(
        &mut self,
        name: &str,
        rule: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.require(name);
        self.maybe(name, rule, read)
    }

    pub(crate) fn maybe<T>(
        &mut self,
        name: &str,
        rule: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = read(self.sent(name)?.text());
        if value.is_none() {
            self.refuse(name, rule);
        }
        value
    }

    /// The same of a number.
    pub(crate) fn required_number<T>(
        &mut self,
        name: &str,
        rule: &str,
        read: impl FnOnce(&Digits) -> Option<T>,
    ) -> Option<T> {
        self.require(name);
        self.number(name, rule, read)
    }

    pub(crate) fn number<T>(
        &mut self,
        name: &str,
        rule: &str,
        read: impl FnOnce(&Digits) -> Option<T>,
    ) -> Option<T> {
        match self.sent(name)?.digits() {
            Err(ambiguous) => {
                self.refuse(name, &ambiguous.to_string());
                None
            }
            Ok(digits) => {
                let value = read(&digits);
                if value.is_none() {
                    self.refuse(name, rule);
                }
                value
            }
        }
    }

    pub(super) fn require(&mut self, name: &str) {
        if !self.is_sent(name) && !self.is_refused(name) {
            self.refuse(name, "is required");
        }
    }

    pub(super) fn is_refused(&self, name: &str) -> bool {
        self.errors.iter().any(|error| error.field == name)
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

/// What was sent under a name.
#[derive(Debug)]
enum Value {
    /// A JSON string's content, or what a query holds.
    Text(String),
    /// Written out.
    Number(String),
    Flag(String),
}

const NOT_ONE: &str = "must be a number or a string";

impl Value {
    fn of(raw: &RawValue) -> Option<Value> {
        let raw = raw.get();
        match raw.as_bytes().first() {
            Some(b'"') => serde_json::from_str(raw).ok().map(Value::Text),
            Some(b't' | b'f') => Some(Value::Flag(raw.to_owned())),
            Some(b'-' | b'0'..=b'9') => Some(Value::Number(written_out(raw))),
            _ => None,
        }
    }

    fn text(&self) -> &str {
        match self {
            Value::Text(text) | Value::Number(text) | Value::Flag(text) => text,
        }
    }

    fn digits(&self) -> Result<Digits, Ambiguous> {
        match self {
            Value::Text(text) | Value::Flag(text) => Digits::of_text(text),
            Value::Number(number) => Ok(Digits::typed(number)),
        }
    }
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
            Err(ApiError::UnreadableBody { why, .. }) => why,
            Err(other) => format!("{other:?}"),
            Ok(parameters) => {
                let values = parameters
                    .named()
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
            json(r#"{"a": [1], "b": {}}"#),
            "a must be a number or a string; b must be a number or a string",
        );
        check(json(r#"{"a": null, "b": 1}"#), "b=1");
        check(json(r#"{"a": null, "a": 1}"#), "a was given twice");
        check(json(r#"{"c": null}"#), "c is not a parameter here");
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
}
