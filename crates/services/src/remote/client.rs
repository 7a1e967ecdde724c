//! One call to another service: what came back, or how far it got. Whether a request may have been acted upon decides between
//! "nothing was recorded" and "outcome unknown".

use std::time::Duration;

use axum::http::{HeaderName, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::secret::InternalSecret;
use crate::service::Service;

/// Another service of the installation.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    service: Service,
    url: String,
    http: reqwest::Client,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// No connection: the request never left.
    #[error("no connection to {url}: {detail}")]
    Unreached { url: String, detail: String },
    /// It may have arrived and been acted upon.
    #[error("no answer from {url}: {detail}")]
    Unanswered { url: String, detail: String },
    /// An answer that is no answer of this service's.
    #[error("{url} answered {status}: {detail}")]
    Strange {
        url: String,
        status: u16,
        detail: String,
    },
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Servers here never close idle connections, load balancers between may.
const IDLE_MAX: Duration = Duration::from_secs(20);

impl Peer {
    pub(crate) fn new(
        service: Service,
        url: &str,
        secret: &InternalSecret,
    ) -> Result<Peer, String> {
        let malformed = || {
            format!(
                "[services] {}: {url:?} is no address such as http://10.0.0.7:8000",
                service.name()
            )
        };
        let parsed = reqwest::Url::parse(url).map_err(|_| malformed())?;
        if parsed.scheme() != "http" || parsed.host_str().is_none() || parsed.path() != "/" {
            return Err(malformed());
        }
        let authorization = secret
            .header()
            .ok_or("the internal secret cannot be sent in a header")?;
        let headers = [(header::AUTHORIZATION, authorization)];
        let http = reqwest::Client::builder()
            .default_headers(headers.into_iter().collect::<axum::http::HeaderMap>())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_MAX)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            // Plain HTTP only: the system's certificates need not be read.
            .tls_certs_only([])
            .build()
            .map_err(|error| error.to_string())?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Peer { service, url, http })
    }

    pub(crate) fn service(&self) -> Service {
        self.service
    }

    pub(crate) fn name(&self) -> &'static str {
        self.service.name()
    }

    pub(crate) async fn get<A: DeserializeOwned>(
        &self,
        path: &str,
        timeout: Duration,
    ) -> Result<A, CallError> {
        let request = self.http.get(self.at(path));
        let (status, body) = self.send(request, timeout).await?;
        if !status.is_success() {
            return Err(self.strange(status, &body));
        }
        self.read(status, &body)
    }

    /// The answer of success, or that of failure: both are words of the service's own.
    pub(crate) async fn post<A: DeserializeOwned, F: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        request_id: Option<&str>,
        timeout: Duration,
    ) -> Result<Result<A, F>, CallError> {
        let mut request = self.http.post(self.at(path)).json(body);
        if let Some(id) = request_id {
            request = request.header(REQUEST_ID, id);
        }
        let (status, body) = self.send(request, timeout).await?;
        if status.is_success() {
            return self.read(status, &body).map(Ok);
        }
        self.read(status, &body).map(Err)
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        timeout: Duration,
    ) -> Result<(StatusCode, Vec<u8>), CallError> {
        let failed = |error: reqwest::Error| {
            let (url, detail) = (self.url.clone(), explain(&error));
            if error.is_connect() || error.is_builder() {
                CallError::Unreached { url, detail }
            } else {
                CallError::Unanswered { url, detail }
            }
        };
        let response = request.timeout(timeout).send().await.map_err(failed)?;
        let status = response.status();
        let body = response.bytes().await.map_err(failed)?;
        Ok((status, body.into()))
    }

    fn read<T: DeserializeOwned>(&self, status: StatusCode, body: &[u8]) -> Result<T, CallError> {
        serde_json::from_slice(body).map_err(|_| self.strange(status, body))
    }

    fn strange(&self, status: StatusCode, body: &[u8]) -> CallError {
        let detail: String = String::from_utf8_lossy(body).chars().take(200).collect();
        CallError::Strange {
            url: self.url.clone(),
            status: status.as_u16(),
            detail,
        }
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Without the URL, which is said once already.
fn explain(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "the time was up".to_owned();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
