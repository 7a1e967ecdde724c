//! `GET /api/v1/quotes/{id}` and `GET /api/v1/quotes?request_id=`: a client's own quotes, for asking after an unknown outcome.

use axum::Json;
use axum::extract::{Extension, Path, RawQuery, State};
use serde::Serialize;
use uuid::Uuid;

use super::Gateway;
use super::errors::ApiError;
use super::locate::FeeAnswer;
use super::middleware::Caller;
use super::parameters::{Parameters, is_request_id};
use crate::data::{Found, find_by_id, find_by_request};

const BY_ID: &[&str] = &["id"];
const BY_REQUEST: &[&str] = &["request_id", "skip", "limit"];
const LIMIT_DEFAULT: i64 = 20;
const LIMIT_MAX: i64 = 100;

#[derive(Serialize)]
pub(super) struct QuoteAnswer {
    #[serde(flatten)]
    fee: FeeAnswer,
    recorded_at: String,
}

#[derive(Serialize)]
pub(super) struct QuoteList {
    status: &'static str,
    items: Vec<QuoteAnswer>,
    pagination: Pagination,
}

#[derive(Serialize)]
struct Pagination {
    total: i64,
    skip: i64,
    limit: i64,
    has_more: bool,
}

impl From<Found> for QuoteAnswer {
    fn from(found: Found) -> QuoteAnswer {
        QuoteAnswer {
            fee: FeeAnswer::new(found.recorded, &found.quote),
            recorded_at: found.recorded_at,
        }
    }
}

pub(super) async fn by_id(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<QuoteAnswer>, ApiError> {
    let id: Uuid = id
        .parse()
        .map_err(|_| ApiError::invalid("id", "path", "must be a quote's id", BY_ID))?;
    let client = gateway.keeper.client()?;
    let found = find_by_id(&client, &caller.0.stored.client_id, &id.to_string()).await?;
    found
        .map(|found| Json(found.into()))
        .ok_or(ApiError::NotFound("there is no such quote of yours"))
}

pub(super) async fn by_request(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<QuoteList>, ApiError> {
    let mut parameters = Parameters::from_query(query.as_deref(), BY_REQUEST);
    let request_id = parameters.required(
        "request_id",
        "must be 1 to 64 letters, digits, '_', '-' or '.'",
        |text| is_request_id(text).then(|| text.to_owned()),
    );
    let number = |text: &str, min: i64, max: i64| {
        text.parse()
            .ok()
            .filter(|number| (min..=max).contains(number))
    };
    let skip = parameters
        .maybe("skip", "must be a whole number from 0", |text| {
            number(text, 0, i64::MAX)
        })
        .unwrap_or(0);
    let limit = parameters
        .maybe("limit", "must be a whole number from 1 to 100", |text| {
            number(text, 1, LIMIT_MAX)
        })
        .unwrap_or(LIMIT_DEFAULT);
    parameters.finish()?;
    let client = gateway.keeper.client()?;
    let request_id = request_id.unwrap_or_default();
    let (found, total) = find_by_request(
        &client,
        &caller.0.stored.client_id,
        &request_id,
        skip,
        limit,
    )
    .await?;
    let items: Vec<QuoteAnswer> = found.into_iter().map(QuoteAnswer::from).collect();
    let has_more = skip.saturating_add(i64::try_from(items.len()).unwrap_or(0)) < total;
    Ok(Json(QuoteList {
        status: "success",
        items,
        pagination: Pagination {
            total,
            skip,
            limit,
            has_more,
        },
    }))
}
