//! `GET /internal/feeds/held`: figures that are not believed yet. `POST /internal/feeds/held/accept?source=…&subject=…`: somebody has
//! looked at one and believes it.

use axum::Json;
use axum::extract::{RawQuery, State};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::Gateway;
use super::super::errors::ApiError;
use super::super::parameters::Parameters;
use super::import::{ImportAnswer, refused};
use crate::data::{accept_held, held_now};

const ACCEPT: &[&str] = &["source", "subject", "by"];
const NAME_CHARACTERS_MAX: usize = 64;

pub(super) async fn held(State(gateway): State<Gateway>) -> Json<Value> {
    Json(json!({ "status": "success", "items": held_now(&gateway.refresher) }))
}

pub(super) async fn accept(
    State(gateway): State<Gateway>,
    RawQuery(query): RawQuery,
) -> Result<Json<ImportAnswer>, ApiError> {
    let mut parameters = Parameters::from_query(query.as_deref(), ACCEPT);
    let name = |text: &str| {
        let fits = (1..=NAME_CHARACTERS_MAX).contains(&text.chars().count());
        fits.then(|| text.to_owned())
    };
    let source = parameters.required("source", "must be a feed's name", name);
    let subject = parameters.required("subject", "must be a ticker, or MARKET", name);
    let by = parameters.optional("by");
    parameters.finish()?;
    let (report, audit) = accept_held(
        &gateway.refresher,
        &*gateway.calculator.writer,
        &source.unwrap_or_default(),
        &subject.unwrap_or_default(),
        by.as_deref(),
        Timestamp::now(),
    )
    .await
    .map_err(refused)?;
    Ok(Json(ImportAnswer {
        status: "success",
        report,
        audit,
    }))
}
