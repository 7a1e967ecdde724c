//! `POST /internal/book`: a book for every client, asked for by whoever runs the engine.

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::Request;
use axum::response::Response;
use uuid::Uuid;

use super::super::Gateway;
use super::super::book::{Asker, answer};
use super::super::errors::ApiError;

pub(super) async fn price(
    State(gateway): State<Gateway>,
    RawQuery(query): RawQuery,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let asker = Asker {
        by: "command line".to_owned(),
        client_id: None,
        key_id: None,
        request_id: Uuid::now_v7().to_string(),
    };
    answer(&gateway, asker, query.as_deref(), request).await
}
