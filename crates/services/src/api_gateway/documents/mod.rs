//! `/openapi.json`, and `/docs` to read it and try it in Swagger UI: no key, no limit, nothing from any other host.

use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};

pub(crate) const OPENAPI: &str = include_str!("openapi.json");

type Header = (HeaderName, HeaderValue);
type File = ([Header; 3], &'static [u8]);
type PackedDocument = ([Header; 4], &'static [u8]);

const CACHED: HeaderValue = HeaderValue::from_static("public, max-age=300");
/// The page runs the scripts and the style that come with it, shows the pictures within that style, and speaks to this engine;
/// nothing else: no inline script, no `eval`, no other host.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

fn file(content_type: &'static str, bytes: &'static [u8]) -> File {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (CACHE_CONTROL, CACHED),
        (CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, bytes)
}

/// Sent as it is kept: every browser unpacks it.
fn packed(content_type: &'static str, bytes: &'static [u8]) -> PackedDocument {
    let ([kind, cached, policy], bytes) = file(content_type, bytes);
    let gzip = (CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    ([kind, cached, policy, gzip], bytes)
}

pub(super) async fn openapi() -> File {
    file("application/json", OPENAPI.as_bytes())
}

pub(super) async fn page() -> File {
    file("text/html; charset=utf-8", include_bytes!("page.html"))
}

pub(super) async fn script() -> File {
    file("text/javascript; charset=utf-8", include_bytes!("page.js"))
}

pub(super) async fn viewer() -> PackedDocument {
    let bytes = include_bytes!("swagger_ui/swagger-ui-bundle.js.gz");
    packed("text/javascript; charset=utf-8", bytes)
}

pub(super) async fn style() -> PackedDocument {
    let bytes = include_bytes!("swagger_ui/swagger-ui.css.gz");
    packed("text/css; charset=utf-8", bytes)
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
            "/docs/page.js",
            "/docs/swagger-ui-bundle.js",
            "/docs/swagger-ui.css",
        ];
        for path in undescribed {
            assert!(routed.remove(&format!("get {path}")), "{path}");
        }
        // One route with a grammar of its own; what it shows is described file by file.
        let of_the_log = "get /log/";
        assert!(routed.remove(&format!("{of_the_log}{{*path}}")));
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let mut described = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for method in operations.as_object().unwrap().keys() {
                described.insert(format!("{method} {path}"));
            }
        }
        described.retain(|route: &String| !route.starts_with(of_the_log));
        assert_eq!(described, routed);
        assert_eq!(document["info"]["version"], crate::domain::VERSION);
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
        for text in [include_str!("page.html"), include_str!("page.js")] {
            for outside in ["http:", "https:", "//cdn", "@import", "innerHTML", "eval("] {
                assert!(!text.contains(outside), "{outside}");
            }
        }
        // What it may load and do is the policy's to say, and `scripts/pages` shows that this is enough.
        let policy = POLICY;
        let policy = policy.to_str().unwrap();
        for loose in ["unsafe", "http", "*"] {
            assert!(!policy.contains(loose), "{loose}");
        }
    }
}
