//! `/openapi.json`, and `/docs` to read it and try it: no key, no limit, nothing from any other host.

use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};

pub(crate) const OPENAPI: &str = include_str!("openapi.json");

type File = ([(HeaderName, HeaderValue); 3], &'static str);

const CACHED: HeaderValue = HeaderValue::from_static("public, max-age=300");
/// The page runs its own script and style and speaks to this engine; nothing else.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

fn file(content_type: &'static str, text: &'static str) -> File {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CACHE_CONTROL, CACHED),
        (CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, text)
}

pub(super) async fn openapi() -> File {
    file("application/json", OPENAPI)
}

pub(super) async fn page() -> File {
    file("text/html; charset=utf-8", include_str!("docs.html"))
}

pub(super) async fn script() -> File {
    file("text/javascript; charset=utf-8", include_str!("docs.js"))
}

pub(super) async fn style() -> File {
    file("text/css; charset=utf-8", include_str!("docs.css"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// What `routes.rs` routes, and nothing else, is described.
    #[test]
    fn the_description_has_every_route() {
        let routes = include_str!("../routes.rs");
        let mut routed = BTreeSet::new();
        for call in routes.split(".route(").skip(1) {
            // Up to the next call, or the end of the chain.
            let call = call.split(';').next().unwrap();
            let (_, rest) = call.split_once('"').unwrap();
            let (path, handlers) = rest.split_once('"').unwrap();
            for method in ["get", "post", "put", "delete"] {
                if handlers.contains(&format!("{method}(")) {
                    routed.insert(format!("{method} {path}"));
                }
            }
        }
        let undescribed = [
            "/metrics",
            "/openapi.json",
            "/docs",
            "/docs/docs.js",
            "/docs/docs.css",
        ];
        for path in undescribed {
            assert!(routed.remove(&format!("get {path}")), "{path}");
        }
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let mut described = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys() {
                described.insert(format!("{method} {path}"));
            }
        }
        assert_eq!(described, routed);
        assert_eq!(document["info"]["version"], crate::VERSION);
    }

    /// Every reference leads somewhere, and every error code is one that `errors.rs` gives.
    #[test]
    fn the_description_is_whole() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        for reference in OPENAPI.split("\"$ref\": \"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        let codes = &document["components"]["schemas"]["Error"]["properties"]["error_code"]["enum"];
        for code in codes.as_array().unwrap() {
            let quoted = code.to_string();
            assert!(include_str!("../errors.rs").contains(&quoted), "{quoted}");
        }
        let ids = OPENAPI.matches("\"operationId\"").count();
        let unique: BTreeSet<&str> = OPENAPI
            .split("\"operationId\": \"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        assert_eq!(unique.len(), ids);
    }

    #[test]
    fn the_page_needs_no_other_host() {
        for text in [
            include_str!("docs.html"),
            include_str!("docs.js"),
            include_str!("docs.css"),
        ] {
            for outside in ["http:", "https:", "//cdn", "@import", "innerHTML", "eval("] {
                assert!(!text.contains(outside), "{outside}");
            }
        }
    }
}
