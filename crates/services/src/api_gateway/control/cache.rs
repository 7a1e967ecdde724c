//! What `bre restore cache` asks: how filling the cache from the database does, and to fill it.

use axum::extract::State;
use axum::response::Response;

use super::super::{Gateway, cache_stats, warm_cache};

pub(super) async fn stats(State(gateway): State<Gateway>) -> Response {
    cache_stats(&gateway).await
}

pub(super) async fn warm(State(gateway): State<Gateway>) -> Response {
    warm_cache(&gateway).await
}
