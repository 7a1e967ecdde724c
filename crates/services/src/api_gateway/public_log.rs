//! `GET /log/…`: the log for outsiders, without a key: checkpoints, hash tiles, origins and keys (docs/formats/audit_transparency.md).

use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::Gateway;
use super::errors::ApiError;
use crate::public_log::Resource;

const NOTHING: &str = "there is nothing at this path of the log";
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const BRIEFLY: HeaderValue = HeaderValue::from_static("public, max-age=1");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// Anybody's page may watch.
const ANYWHERE: HeaderValue = HeaderValue::from_static("cross-origin");

pub(super) async fn show(
    State(gateway): State<Gateway>,
    Path(path): Path<String>,
) -> Result<Response, ApiError> {
    let resource = Resource::parse(&path).filter(|_| gateway.show_log);
    let resource = resource.ok_or(ApiError::NotFound(NOTHING))?;
    let asked = resource.clone();
    let read = tokio::task::spawn_blocking(move || match &gateway.public_log {
        Some(log) => log.show(&asked),
        None => match &gateway.public_folder {
            Some(folder) => folder.read(&asked),
            None => Ok(None),
        },
    });
    let away = |detail: String| ApiError::Unavailable {
        part: "public_log",
        detail,
    };
    let bytes = read.await.map_err(|error| away(error.to_string()))?;
    let bytes = bytes.map_err(away)?.ok_or(ApiError::NotFound(NOTHING))?;
    let (kind, caching) = match resource.is_immutable() {
        true => (BYTES, FOR_EVER),
        false => (TEXT, BRIEFLY),
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, caching),
        (
            header::HeaderName::from_static("cross-origin-resource-policy"),
            ANYWHERE,
        ),
    ];
    Ok((headers, bytes).into_response())
}
