//! `POST /internal/calculate`: a locate, priced and recorded.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::{Host, answer, read};
use crate::calculation::QuoteRequest;
use crate::remote::QuoteFailure;

pub(super) async fn calculate(State(host): State<Host>, body: Body) -> Response {
    let request: QuoteRequest = match read(body).await {
        Ok(request) => request,
        Err(response) => return *response,
    };
    let priced = host.gateway.calculation.price_quote(request).await;
    answer(priced.map_err(QuoteFailure::from), status)
}

fn status(failure: &QuoteFailure) -> StatusCode {
    match failure {
        QuoteFailure::Ticker(_) | QuoteFailure::Client(_) => StatusCode::NOT_FOUND,
        QuoteFailure::Invalid { .. } => StatusCode::BAD_REQUEST,
        QuoteFailure::Pricing(_) => StatusCode::INTERNAL_SERVER_ERROR,
        QuoteFailure::NoView | QuoteFailure::Stale { .. } | QuoteFailure::Record(_) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}
