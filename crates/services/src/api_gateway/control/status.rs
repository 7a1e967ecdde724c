//! `GET /internal/status`: health, and the log's end.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::super::Gateway;
use super::super::health;

pub(super) async fn status(State(gateway): State<Gateway>) -> Json<Value> {
    let tip = gateway.calculator.writer.tip();
    let (_, Json(mut body)) = health::health(State(gateway)).await;
    if let (Some(body), Some(tip)) = (body.as_object_mut(), tip) {
        let audit = json!({ "log": tip.log(), "epoch": tip.epoch(), "position": tip.position(), "hash": tip.last_hash().to_string() });
        body.insert("audit".to_owned(), audit);
    }
    Json(body)
}
