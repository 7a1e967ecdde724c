//! All public routes.

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, delete, get, post};

use super::admin::{clients, keys, standards, stocks};
use super::errors::ApiError;
use super::middleware::AuthLayer;
use super::{
    Gateway, audit, audit_proof, book, calculate, calendar, configuration, documents, health,
    locates, metrics, middleware, public_log, quotes, rates,
};
use crate::domain::keys::Role;

pub(crate) fn public_routes(gateway: Gateway) -> Router {
    let authenticated = |required_role| {
        let gateway = gateway.clone();
        from_fn_with_state(
            AuthLayer {
                gateway,
                required_role,
            },
            middleware::authenticate,
        )
    };
    let for_clients = Router::new()
        .route("/api/v1/rates/{ticker}", get(rates::rate))
        .route("/api/v1/rates/ticker/{ticker}", get(rates::rate))
        .route("/api/v1/rates/{ticker}/calculate", get(rates::what_if))
        .route("/api/v1/rates/status/{status}", get(rates::by_status))
        .route(
            "/api/v1/calculate-locate",
            without_head(get(calculate::from_query).post(calculate::from_body)),
        )
        .route("/api/v1/quotes", get(quotes::by_request))
        .route("/api/v1/quotes/{id}", get(quotes::by_id))
        .route("/api/v1/quotes/{id}/explanation", get(quotes::explanation))
        .route(
            "/api/v1/locates",
            get(locates::list::list).post(locates::request::request),
        )
        .route("/api/v1/locates/{id}", get(locates::show::show))
        .route("/api/v1/locates/{id}/accept", post(locates::accept::accept))
        .route(
            "/api/v1/locates/{id}/decline",
            post(locates::decline::decline),
        )
        .route(
            "/api/v1/locates/{id}/return",
            post(locates::give_back::give_back),
        )
        .route(
            "/api/v1/locates/{id}/uses",
            get(locates::uses::list).post(locates::use_shares::use_shares),
        )
        .route(
            "/api/v1/locates/{id}/availability",
            get(locates::availability::of_locate),
        )
        .route(
            "/api/v1/locates/availability",
            get(locates::availability::of_tickers),
        )
        .route(
            "/api/v1/availability/{ticker}",
            get(locates::availability::show),
        )
        .route("/api/v1/audit", get(audit::list))
        .route("/api/v1/audit/{id}", get(audit::by_id))
        .route("/api/v1/audit/{id}/proof", get(audit_proof::proof))
        .method_not_allowed_fallback(method_not_allowed)
        .route_layer(authenticated(Some(Role::Client)));
    let for_operators = Router::new()
        .route("/api/v1/admin/api-keys", get(keys::list).post(keys::create))
        .route("/api/v1/admin/api-keys/{id}", delete(keys::revoke))
        .route("/api/v1/admin/api-keys/{id}/rotate", post(keys::rotate))
        .route(
            "/api/v1/admin/clients/{client_id}",
            get(clients::show).put(clients::put),
        )
        .route(
            "/api/v1/admin/locates/reopen",
            post(locates::reopen::reopen),
        )
        .route(
            "/api/v1/admin/stocks/{ticker}/minimum-rate",
            get(stocks::show).put(stocks::put),
        )
        .route("/api/v1/admin/policies", post(standards::publish_policy))
        .route(
            "/api/v1/admin/conventions",
            post(standards::publish_convention),
        )
        .method_not_allowed_fallback(method_not_allowed)
        .route_layer(authenticated(Some(Role::Operator)));
    let for_both = Router::new()
        .route("/api/v1/config", get(configuration::show))
        .route("/api/v1/book", post(book::price))
        .route("/api/v1/calendar", get(calendar::show))
        .method_not_allowed_fallback(method_not_allowed)
        .route_layer(authenticated(None));
    let open = Router::new()
        .route("/api/v1/health", get(health::public_health))
        .route("/health", get(health::public_health))
        .route("/api/v1/health/liveness", get(health::liveness))
        .route("/api/v1/health/readiness", get(health::readiness))
        .route("/metrics", get(metrics::public_metrics))
        .route("/log/{*path}", get(public_log::show))
        .route("/openapi.json", get(documents::openapi))
        .route("/docs", get(documents::page))
        .route("/docs/page.js", get(documents::script))
        .route("/docs/swagger-ui-bundle.js", get(documents::viewer))
        .route("/docs/swagger-ui.css", get(documents::style))
        .method_not_allowed_fallback(method_not_allowed);
    for_clients
        .merge(for_operators)
        .merge(for_both)
        .merge(open)
        .fallback(not_found)
        .layer(from_fn_with_state(gateway.clone(), middleware::frame))
        .with_state(gateway)
}

/// Asking with HEAD must not record a quote that nobody sees.
fn without_head(routes: MethodRouter<Gateway>) -> MethodRouter<Gateway> {
    routes.head(method_not_allowed)
}

pub(crate) async fn not_found() -> ApiError {
    ApiError::NotFound("there is nothing at this path")
}

pub(crate) async fn method_not_allowed() -> ApiError {
    ApiError::MethodNotAllowed
}
