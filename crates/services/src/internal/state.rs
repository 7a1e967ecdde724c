//! `/health`, `/health/detailed`, `/metrics` of each service, and the data-service's own state for those that depend on it.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::Host;
use crate::api_gateway;
use crate::remote::DataState;

/// The word alone. Always 200: who asks wants to know whether this process answers, and reads the word for the rest.
pub(super) async fn health(State(host): State<Host>) -> Json<Value> {
    let status = word(&host).await;
    Json(
        json!({ "status": status, "services": host.services.names(), "version": crate::domain::VERSION }),
    )
}

pub(super) async fn health_detailed(State(host): State<Host>) -> impl IntoResponse {
    let services = json!(host.services.names());
    let (status, Json(mut body)) = api_gateway::health(State(host.gateway)).await;
    if let Some(body) = body.as_object_mut() {
        body.insert("services_here".to_owned(), services);
    }
    (status, Json(body))
}

pub(super) async fn metrics(State(host): State<Host>) -> impl IntoResponse {
    api_gateway::metrics_text(State(host.gateway)).await
}

pub(super) async fn data_state(State(host): State<Host>) -> Json<DataState> {
    let writer = &host.gateway.calculator.writer;
    Json(DataState {
        status: word(&host).await,
        writer: writer.state(),
        refusal: writer.refusal().map(Into::into),
        stream: host.gateway.stream.report(),
        jobs: host.gateway.stream.jobs(),
        closed: writer.closed(),
        feeds: host.gateway.refresher.board.all(),
        identity: host.gateway.cache.seal().identity(),
    })
}

async fn word(host: &Host) -> String {
    let (_, Json(body)) = api_gateway::health(State(host.gateway.clone())).await;
    body["status"].as_str().unwrap_or("unknown").to_owned()
}
