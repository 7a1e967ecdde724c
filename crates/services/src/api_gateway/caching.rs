//! Caching headers of rates: a validator over the answer's own bytes, so that every gateway gives the same one for the same answer.

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::{Timestamp, fmt::strtime};
use serde::Serialize;

use super::errors::ApiError;
use super::parameters::Parameters;

pub(super) const SECONDS: u64 = 60;
/// As long as a calculation lives in the cache; within it a client may show what it has.
const CACHED: HeaderValue = HeaderValue::from_static("private, max-age=60, must-revalidate");
const NOT_CACHED: HeaderValue = HeaderValue::from_static("no-store");
const KEY: HeaderValue = HeaderValue::from_static("X-API-Key");

/// What the client holds already, and whether it wants to hear of it.
#[derive(Debug)]
pub(super) struct Cacheable {
    use_cache: bool,
    held: Vec<String>,
}

impl Cacheable {
    pub(super) fn asked(parameters: &mut Parameters, headers: &HeaderMap) -> Cacheable {
        let use_cache = parameters.maybe("use_cache", "must be true or false", |text| match text {
            "true" | "True" => Some(true),
            "false" | "False" => Some(false),
            _ => None,
        });
        let held = headers.get_all(header::IF_NONE_MATCH).iter();
        let tags = |value: &HeaderValue| {
            let tags = value.to_str().unwrap_or_default().split(',');
            tags.map(|tag| tag.trim().trim_start_matches("W/").to_owned())
                .collect::<Vec<_>>()
        };
        Cacheable {
            use_cache: use_cache.unwrap_or(true),
            held: held.flat_map(tags).collect(),
        }
    }

    pub(super) fn respond(&self, answer: &impl Serialize, changed_at: Option<i64>) -> Response {
        // A rate takes some 800 bytes.
        let mut body = Vec::with_capacity(1024);
        let Ok(()) = serde_json::to_writer(&mut body, answer) else {
            return ApiError::Calculation("the answer cannot be written".to_owned())
                .into_response();
        };
        let tag = tag_of(&body);
        let known = self.use_cache && self.held.iter().any(|held| *held == tag || held == "*");
        let mut response = if known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let json = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, json)], Body::from(body)).into_response()
        };
        let headers = response.headers_mut();
        headers.insert(
            header::CACHE_CONTROL,
            if self.use_cache { CACHED } else { NOT_CACHED },
        );
        headers.insert(header::VARY, KEY);
        let mut put = |name, text: Option<String>| {
            if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
                headers.insert(name, value);
            }
        };
        put(header::ETAG, Some(tag));
        put(header::LAST_MODIFIED, changed_at.and_then(http_date));
        response
    }
}

fn tag_of(body: &[u8]) -> String {
    let digest = digest(&SHA256, body);
    let mut tag = String::with_capacity(34);
    tag.push('"');
    for byte in &digest.as_ref()[..16] {
        tag.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
        tag.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
    }
    tag.push('"');
    tag
}

/// `Sun, 28 Dec 2025 15:14:44 GMT`
fn http_date(micros: i64) -> Option<String> {
    let time = Timestamp::from_microsecond(micros).ok()?;
    strtime::format("%a, %d %b %Y %H:%M:%S GMT", time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(held: &str, query: &str) -> Cacheable {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, held.parse().unwrap());
        Cacheable::asked(
            &mut Parameters::from_query(Some(query), &["use_cache"]),
            &headers,
        )
    }

    #[test]
    fn what_the_client_holds_is_not_sent_again() {
        let tag = tag_of(b"1");
        let check = |held: &str, query: &str, expected: u16| {
            let response = asked(held, query).respond(&1, Some(0));
            assert_eq!(response.status().as_u16(), expected, "{held} {query}");
            assert_eq!(response.headers()[header::ETAG], *tag);
        };
        check(&tag, "", 304);
        check(&format!("\"x\", W/{tag}"), "", 304);
        check("*", "", 304);
        check("\"x\"", "", 200);
        check(&tag, "use_cache=false", 200);
    }

    #[test]
    fn dates_are_as_http_writes_them() {
        assert_eq!(
            http_date(1_766_934_884_000_000).as_deref(),
            Some("Sun, 28 Dec 2025 15:14:44 GMT")
        );
    }
}
