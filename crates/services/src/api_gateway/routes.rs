//! All public routes.

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, get};

use super::errors::ApiError;
use super::{Gateway, health, locate, metrics, middleware, quotes, rates};

pub(crate) fn public_routes(gateway: Gateway) -> Router {
    let priced = Router::new()
        .route("/api/v1/rates/{ticker}", get(rates::rate))
        .route("/api/v1/rates/ticker/{ticker}", get(rates::rate))
        .route(
            "/api/v1/calculate-locate",
            without_head(get(locate::from_query).post(locate::from_body)),
        )
        .route("/api/v1/quotes", get(quotes::by_request))
        .route("/api/v1/quotes/{id}", get(quotes::by_id))
        .method_not_allowed_fallback(method_not_allowed)
        .route_layer(from_fn_with_state(
            gateway.clone(),
            middleware::authenticate,
        ));
    let open = Router::new()
        .route("/api/v1/health", get(health::health))
        .route("/api/v1/health/liveness", get(health::liveness))
        .route("/api/v1/health/readiness", get(health::readiness))
        .route("/metrics", get(metrics::metrics))
        .method_not_allowed_fallback(method_not_allowed);
    priced
        .merge(open)
        .fallback(not_found)
        .layer(from_fn(middleware::frame))
        .with_state(gateway)
}

/// Asking with HEAD must not record a quote that nobody sees.
fn without_head(routes: MethodRouter<Gateway>) -> MethodRouter<Gateway> {
    routes.head(method_not_allowed)
}

pub(super) async fn not_found() -> ApiError {
    ApiError::NotFound("there is nothing at this path")
}

pub(super) async fn method_not_allowed() -> ApiError {
    ApiError::MethodNotAllowed
}
