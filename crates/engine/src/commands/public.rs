//! The public API, asked as any client would ask it: with an API key, over the public port.

use serde_json::Value;

use crate::{cli::PublicArgs, error::Error, host::instance::Instance, keys};

pub(super) struct PublicApi {
    http: reqwest::Client,
    url: String,
    key: String,
}

impl PublicApi {
    pub(super) fn open(instance: &Instance, args: &PublicArgs) -> Result<PublicApi, Error> {
        let running = instance.running()?;
        let key_file = args
            .api_key_file
            .clone()
            .unwrap_or_else(|| keys::first_api_key_file(&instance.keys()));
        let key = secrets::read_text(&key_file)?;
        let url = args.url.as_deref().unwrap_or(&running.url);
        let url = url.trim_end_matches('/').to_owned();
        let failed = |error: reqwest::Error| Error::Failed(unreached(&url, &error));
        let mut client = reqwest::Client::builder().no_proxy();
        if let Some(file) = &args.ca_file {
            let pem =
                std::fs::read(file).map_err(Error::file("cannot read the certificates", file))?;
            client =
                client.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem).map_err(failed)?);
        }
        Ok(PublicApi {
            http: client.build().map_err(failed)?,
            key: key.trim().to_owned(),
            url,
        })
    }

    /// The answer's own bytes: parsing them could change a digit. `path` begins after `/api/v1/`.
    pub(super) async fn get(&self, path: &str) -> Result<String, Error> {
        self.send(self.http.get(self.address(path)), path).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<String, Error> {
        self.send(self.http.post(self.address(path)).json(body), path)
            .await
    }

    fn address(&self, path: &str) -> String {
        format!("{}/api/v1/{path}", self.url)
    }

    async fn send(&self, request: reqwest::RequestBuilder, path: &str) -> Result<String, Error> {
        let failed = |error: reqwest::Error| Error::Failed(unreached(&self.url, &error));
        let sent = request.header("X-API-Key", &self.key).send().await;
        let response = sent.map_err(failed)?;
        let status = response.status();
        let text = response.text().await.map_err(failed)?;
        if status.is_success() {
            return Ok(text);
        }
        Err(refusal(path, &text, status.as_u16()))
    }
}

/// With the causes: "error sending request" alone helps nobody. The innermost one is what is wrong with a certificate.
fn unreached(url: &str, error: &reqwest::Error) -> String {
    let mut text = format!("cannot reach {url}: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    if url.starts_with("https") {
        text += ". --url names it as its certificate does, --ca-file whom to believe";
    }
    text
}

fn refusal(asked: &str, text: &str, status: u16) -> Error {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let mut reason = value["error"].as_str().unwrap_or(text).to_owned();
    if !value["details"].is_null() {
        reason.push_str(&format!(" ({})", value["details"]));
    }
    for wrong in value["validation_errors"].as_array().into_iter().flatten() {
        reason.push_str(&format!(
            "\n  {}: {}",
            wrong["field"].as_str().unwrap_or_default(),
            wrong["message"].as_str().unwrap_or_default()
        ));
    }
    Error::Answer {
        asked: asked.to_owned(),
        status,
        reason,
    }
}
