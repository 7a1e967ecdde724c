//! The public API, asked as any client would ask it: with an API key, over the public port.

use host::{control::reason_of, instance::Instance, keys};
use serde_json::Value;

use crate::{cli::PublicArgs, error::Error};

pub(super) struct PublicApi {
    http: reqwest::Client,
    url: String,
    key: String,
}

/// What is asked for. `path` begins after `/api/v1/`.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) path: String,
    pub(super) body: Option<Value>,
    pub(super) idempotency_key: Option<String>,
}

impl Request {
    pub(super) fn get(path: String) -> Self {
        Self {
            path,
            body: None,
            idempotency_key: None,
        }
    }

    pub(super) fn post(path: String, body: Value) -> Self {
        Self {
            path,
            body: Some(body),
            idempotency_key: None,
        }
    }

    /// With the same key it is done once, however often it is sent.
    pub(super) fn once(self, key: Option<&str>) -> Self {
        Self {
            idempotency_key: key.map(ToOwned::to_owned),
            ..self
        }
    }
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
        let failed = |error: reqwest::Error| Error::failed(unreached(&url, &error));
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

    /// The answer's own bytes: parsing them could change a digit.
    pub(super) async fn send(&self, request: &Request) -> Result<String, Error> {
        let address = self.address(&request.path);
        let mut http = match &request.body {
            None => self.http.get(address),
            Some(body) => self.http.post(address).json(body),
        };
        if let Some(key) = &request.idempotency_key {
            http = http.header("Idempotency-Key", key);
        }
        self.answer(http, &request.path).await
    }

    fn address(&self, path: &str) -> String {
        format!("{}/api/v1/{path}", self.url)
    }

    async fn answer(&self, request: reqwest::RequestBuilder, path: &str) -> Result<String, Error> {
        let failed = |error: reqwest::Error| Error::failed(unreached(&self.url, &error));
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
    Error::from(host::Error::Answer {
        asked: asked.to_owned(),
        status,
        reason: reason_of(text.as_bytes()),
    })
}
