//! How a command speaks to the running engine: HTTP over the socket in its folder, which only its owner may open.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{error::Error, instance::Instance};

/// A feed of a million rows is loaded within one request.
const TIMEOUT: Duration = Duration::from_secs(600);

/// A connection to one instance's control socket.
#[derive(Debug)]
pub struct Control {
    http: reqwest::Client,
}

impl Control {
    pub fn to(instance: &Instance) -> Result<Self, Error> {
        instance.running()?;
        let http = reqwest::Client::builder()
            .unix_socket(instance.control_socket())
            .timeout(TIMEOUT)
            .no_proxy()
            // No TLS on this socket: commands work, and at once, where no system certificates are installed.
            .tls_certs_only([])
            .build()
            .map_err(|error| Error::Failed(format!("cannot make an HTTP client: {error}")))?;
        Ok(Self { http })
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        answer(self.http.get(url(path)), path).await
    }

    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        answer(self.http.delete(url(path)), path).await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, Error> {
        answer(self.http.post(url(path)).json(body), path).await
    }

    pub async fn upload<T: DeserializeOwned>(&self, path: &str, body: Vec<u8>) -> Result<T, Error> {
        answer(self.http.post(url(path)).body(body), path).await
    }

    /// An answer that is too long to hold, once it is one.
    pub async fn upload_for_stream(
        &self,
        path: &str,
        body: Vec<u8>,
    ) -> Result<reqwest::Response, Error> {
        let sent = self.http.post(url(path)).body(body).send().await;
        let response = sent.map_err(|error| failed(path, &error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = response.bytes().await;
        Err(refusal(
            path,
            status,
            &body.map_err(|error| failed(path, &error))?,
        ))
    }
}

fn failed(asked: &str, error: &reqwest::Error) -> Error {
    Error::Unreachable {
        what: "cannot reach the running engine",
        reason: format!("{asked}: {error}"),
    }
}

fn refusal(asked: &str, status: u16, body: &[u8]) -> Error {
    Error::Answer {
        asked: asked.to_owned(),
        status,
        reason: reason_of(body),
    }
}

fn url(path: &str) -> String {
    // The host is not looked up: the client speaks through the socket.
    format!("http://engine{path}")
}

async fn answer<T: DeserializeOwned>(
    request: reqwest::RequestBuilder,
    asked: &str,
) -> Result<T, Error> {
    let failed = |error: reqwest::Error| failed(asked, &error);
    let response = request.send().await.map_err(failed)?;
    let status = response.status();
    let body = response.bytes().await.map_err(failed)?;
    if !status.is_success() {
        return Err(refusal(asked, status.as_u16(), &body));
    }
    serde_json::from_slice(&body).map_err(|error| {
        Error::Failed(format!(
            "the engine's answer to {asked} was not understood: {error}"
        ))
    })
}

/// The error with its details: "the request cannot be read" alone tells nobody that a file was cut short.
pub fn reason_of(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body).into_owned();
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    let Some(mut reason) = value["error"].as_str().map(ToOwned::to_owned) else {
        return text;
    };
    match &value["details"] {
        Value::Null => {}
        details => reason.push_str(&format!(": {}", words(details))),
    }
    for wrong in value["validation_errors"].as_array().into_iter().flatten() {
        let field = |name: &str| wrong[name].as_str().unwrap_or_default().to_owned();
        reason.push_str(&format!("\n  {}: {}", field("field"), field("message")));
    }
    reason
}

/// `part: data-service, retry_after_seconds: 2`, of whatever the engine added.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, it)| format!("{name}: {}", words(it)));
            fields.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::reason_of;

    #[test]
    fn the_details_of_a_refusal_are_told() {
        let body = br#"{"error":"the request cannot be read","details":"the file is cut short"}"#;
        assert_eq!(
            reason_of(body),
            "the request cannot be read: the file is cut short"
        );
        let body = br#"{"error":"not valid","details":null,"validation_errors":[{"field":"tier","message":"must be one"}]}"#;
        assert_eq!(reason_of(body), "not valid\n  tier: must be one");
        assert_eq!(reason_of(b"<html>"), "<html>");
        // No JSON: a person reads it.
        let body = br#"{"error":"too large","details":{"available":100,"of":["a","b"]}}"#;
        assert_eq!(reason_of(body), "too large: available: 100, of: a, b");
    }
}
