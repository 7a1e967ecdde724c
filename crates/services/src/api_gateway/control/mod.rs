//! What the command line on this machine may ask, over a unix socket that only its owner may open. Never on the public port.

mod book;
mod cache;
mod damage;
mod entries;
mod feeds;
mod head;
mod import;
mod keys;
mod reopen;
mod status;
mod stocks;

use axum::Router;
use axum::routing::{delete, get, post};

use super::Gateway;
use super::routes::{method_not_allowed, not_found};

pub(crate) fn control_routes(gateway: Gateway) -> Router {
    Router::new()
        .route("/internal/book", post(book::price))
        .route("/internal/cache/stats", get(cache::stats))
        .route("/internal/cache/warm", post(cache::warm))
        .route("/internal/feeds/held", get(feeds::held))
        .route("/internal/feeds/held/accept", post(feeds::accept))
        .route("/internal/import", post(import::import))
        .route("/internal/keys", get(keys::list).post(keys::create))
        .route("/internal/keys/{id}", delete(keys::revoke))
        .route("/internal/keys/{id}/rotate", post(keys::rotate))
        .route("/internal/locates/reopen", post(reopen::reopen))
        .route("/internal/audit/head", get(head::head))
        .route("/internal/audit/reopen", post(damage::reopen))
        .route("/internal/audit/entries", post(entries::record))
        .route(
            "/internal/stocks/{ticker}/minimum-rate",
            get(stocks::show).post(stocks::put),
        )
        .route("/internal/status", get(status::status))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .with_state(gateway)
}
