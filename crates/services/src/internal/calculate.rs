//! `POST /internal/calculate`: a locate, priced and recorded.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::{Host, answer, read};
use crate::calculation::LocateRequest;
use crate::remote::LocateFailure;

pub(super) async fn calculate(State(host): State<Host>, body: Body) -> Response {
    let request: LocateRequest = match read(body).await {
        Ok(request) => request,
        Err(response) => return *response,
    };
    let located = host.gateway.calculation.locate(request).await;
    answer(located.map_err(LocateFailure::from), status)
}

fn status(failure: &LocateFailure) -> StatusCode {
    match failure {
        LocateFailure::Ticker(_) | LocateFailure::Client(_) => StatusCode::NOT_FOUND,
        LocateFailure::Invalid { .. } => StatusCode::BAD_REQUEST,
        LocateFailure::Pricing(_) => StatusCode::INTERNAL_SERVER_ERROR,
        LocateFailure::NoView | LocateFailure::Stale { .. } | LocateFailure::Record(_) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}
