//! Policy documents: the same value whenever one means the same. Amazon rewrites what it is given (a list of one
//! becomes a string, an account's number its root's name, `true` a text), and people write lists in any order.

use serde_json::{Map, Value};

/// Fields of a statement that are one text or a list of them, in any order.
const LISTS: [&str; 4] = ["Action", "NotAction", "Resource", "NotResource"];

/// As an API gives it: an object, or its text.
#[must_use]
pub fn canonical(policy: &Value) -> Value {
    let parsed;
    let policy = match policy {
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(object @ Value::Object(_)) => {
                parsed = object;
                &parsed
            }
            _ => return policy.clone(),
        },
        policy => policy,
    };
    let Value::Object(fields) = policy else {
        return policy.clone();
    };
    let field = |(name, value): (&String, &Value)| {
        let value = match name.as_str() {
            "Statement" => statements(value),
            _ => value.clone(),
        };
        (name.clone(), value)
    };
    Value::Object(fields.iter().map(field).collect())
}

fn statements(value: &Value) -> Value {
    let all: Vec<Value> = match value {
        Value::Array(all) => all.iter().map(statement).collect(),
        one => vec![statement(one)],
    };
    Value::Array(sorted(all))
}

fn statement(value: &Value) -> Value {
    let Value::Object(fields) = value else {
        return value.clone();
    };
    let field = |(name, value): (&String, &Value)| {
        let value = match name.as_str() {
            name if LISTS.contains(&name) => list(value, &|text| text.into()),
            "Principal" | "NotPrincipal" => principals(value),
            "Condition" => conditions(value),
            _ => value.clone(),
        };
        (name.clone(), value)
    };
    Value::Object(fields.iter().map(field).collect())
}

fn principals(value: &Value) -> Value {
    match value {
        Value::Object(kinds) => {
            let kind = |(kind, who): (&String, &Value)| (kind.clone(), list(who, &principal));
            Value::Object(kinds.iter().map(kind).collect())
        }
        Value::String(all) if all == "*" => {
            let all = Value::Array(vec![Value::from("*")]);
            Value::Object(Map::from_iter([("AWS".to_owned(), all)]))
        }
        other => other.clone(),
    }
}

/// The number of an account is its root's name.
fn principal(text: &str) -> Value {
    let is_account = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    match is_account {
        true => format!("arn:aws:iam::{text}:root").into(),
        false => text.into(),
    }
}

/// Operator, key, values.
fn conditions(value: &Value) -> Value {
    let Value::Object(operators) = value else {
        return value.clone();
    };
    let operator = |(operator, keys): (&String, &Value)| {
        let keys = match keys {
            Value::Object(keys) => {
                let key =
                    |(key, values): (&String, &Value)| (key.clone(), list(values, &|it| it.into()));
                Value::Object(keys.iter().map(key).collect())
            }
            other => other.clone(),
        };
        (operator.clone(), keys)
    };
    Value::Object(operators.iter().map(operator).collect())
}

fn list(value: &Value, text: &dyn Fn(&str) -> Value) -> Value {
    let item = |value: &Value| match value {
        Value::String(it) => text(it),
        Value::Bool(it) => it.to_string().into(),
        Value::Number(it) => it.to_string().into(),
        other => other.clone(),
    };
    let all = match value {
        Value::Array(all) => all.iter().map(item).collect(),
        one => vec![item(one)],
    };
    let mut all = sorted(all);
    all.dedup();
    Value::Array(all)
}

fn sorted(mut all: Vec<Value>) -> Vec<Value> {
    all.sort_by_cached_key(crate::kubernetes::bytes);
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_amazon_rewrites_compares_equal_and_what_differs_does_not() {
        let written = json!({"Version": "2012-10-17", "Statement": {
            "Sid": "a", "Effect": "Allow", "Action": "s3:GetObject", "Resource": ["b", "a", "b"],
            "Principal": {"AWS": ["123456789012", "arn:aws:iam::1:role/x"]},
            "Condition": {"Bool": {"aws:SecureTransport": true}, "NumericLessThan": {"x": 5}},
        }});
        let rewritten = json!({"Statement": [{
            "Principal": {"AWS": ["arn:aws:iam::1:role/x", "arn:aws:iam::123456789012:root"]},
            "Condition": {"NumericLessThan": {"x": ["5"]}, "Bool": {"aws:SecureTransport": "true"}},
            "Resource": ["a", "b"], "Action": ["s3:GetObject"], "Effect": "Allow", "Sid": "a",
        }], "Version": "2012-10-17"});
        assert_eq!(canonical(&written), canonical(&rewritten));
        assert_eq!(canonical(&written), canonical(&written.to_string().into()));
        assert_eq!(canonical(&canonical(&written)), canonical(&written));
        for (pointer, value) in [
            ("/Statement/0/Effect", json!("Deny")),
            ("/Statement/0/Action", json!(["s3:PutObject"])),
            ("/Statement/0/Principal", json!("*")),
            (
                "/Statement/0/Condition/Bool/aws:SecureTransport",
                json!("false"),
            ),
            ("/Version", json!("2008-10-17")),
        ] {
            let mut other = rewritten.clone();
            *other.pointer_mut(pointer).unwrap() = value;
            assert_ne!(canonical(&written), canonical(&other), "{pointer}");
        }
    }

    #[test]
    fn statements_are_a_set_and_everybody_is_one_principal() {
        let of = |statements: Value| canonical(&json!({"Statement": statements}));
        let (one, two) = (
            json!({"Effect": "Allow", "Action": "a:*", "Resource": "*"}),
            json!({"Effect": "Deny", "Action": "b:*", "Resource": "*"}),
        );
        assert_eq!(of(json!([one, two])), of(json!([two, one])));
        let all = json!({"Effect": "Allow", "Principal": "*"});
        let spelt = json!({"Effect": "Allow", "Principal": {"AWS": "*"}});
        assert_eq!(of(all), of(spelt));
        // What is no policy stays what it is.
        for odd in [json!("x"), json!(null), json!([1])] {
            assert_eq!(canonical(&odd), odd);
        }
    }
}
