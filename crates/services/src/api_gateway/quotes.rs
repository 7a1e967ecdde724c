//! `GET /api/v1/quotes/{id}` and `GET /api/v1/quotes?request_id=`: a client's own quotes, for asking after an unknown outcome; and
//! `GET /api/v1/quotes/{id}/explanation`: how one came about.

use axum::Json;
use axum::extract::{Extension, Path, RawQuery, State};
use serde::Serialize;
use uuid::Uuid;

use super::Gateway;
use super::calculate::FeeAnswer;
use super::errors::ApiError;
use super::lists::{List, Page};
use super::middleware::Caller;
use super::parameters::Parameters;
use crate::data::{QuoteEntry, StoredQuote, find_by_id, find_by_request, losses_in};
use crate::domain::identifiers::is_request_id;

const BY_ID: &[&str] = &["id"];
const BY_REQUEST: &[&str] = &["request_id", "skip", "limit"];

#[derive(Serialize)]
pub(super) struct QuoteAnswer {
    #[serde(flatten)]
    fee: FeeAnswer,
    recorded_at: String,
}

impl From<StoredQuote> for QuoteAnswer {
    fn from(found: StoredQuote) -> QuoteAnswer {
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
    let found = find(&gateway, &caller, &id).await?;
    Ok(Json(found.into()))
}

async fn find(gateway: &Gateway, caller: &Caller, id: &str) -> Result<StoredQuote, ApiError> {
    let id: Uuid = id
        .parse()
        .map_err(|_| ApiError::invalid("id", "path", "must be a quote's id", BY_ID))?;
    let client = gateway.refresher.client()?;
    let found = find_by_id(&client, &caller.0.stored.client_id, &id.to_string()).await?;
    match found {
        Some(found) => Ok(found),
        None => Err(missing(&client, id, "there is no such quote of yours").await?),
    }
}

/// What is not there was never there, or a recovery lost it: its id says when it was made.
pub(super) async fn missing(
    client: &tokio_postgres::Client,
    id: Uuid,
    never: &'static str,
) -> Result<ApiError, ApiError> {
    let losses = losses_in(client).await?;
    Ok(match losses.into_iter().find(|loss| loss.is_of(id)) {
        Some(loss) => ApiError::Lost(Box::new(loss)),
        None => ApiError::NotFound(never),
    })
}

#[derive(Serialize)]
pub(super) struct ExplanationAnswer {
    status: &'static str,
    quote_id: String,
    /// Whether the recorded inputs give the recorded outputs again.
    replayed: bool,
    explanation: pricing::Explanation,
}

/// From the record, not from what was answered: what is explained is what an auditor will find.
pub(super) async fn explanation(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<ExplanationAnswer>, ApiError> {
    let QuoteEntry {
        facts,
        inputs,
        outputs,
    } = find(&gateway, &caller, &id).await?.quote;
    let explanation = pricing::explain(&inputs)
        .map_err(|error| ApiError::Calculation(format!("the recorded inputs: {error}")))?;
    Ok(Json(ExplanationAnswer {
        status: "success",
        quote_id: facts.quote_id,
        replayed: outputs == explanation.outputs.clone().into(),
        explanation,
    }))
}

pub(super) async fn by_request(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<List<QuoteAnswer>>, ApiError> {
    let mut parameters = Parameters::from_query(query.as_deref(), BY_REQUEST);
    let request_id = parameters.required(
        "request_id",
        "must be 1 to 64 letters, digits, '_', '-' or '.'",
        |text| is_request_id(text).then(|| text.to_owned()),
    );
    let page = Page::read(&mut parameters);
    parameters.finish()?;
    let client = gateway.refresher.client()?;
    let request_id = request_id.unwrap_or_default();
    let (found, total) = find_by_request(
        &client,
        &caller.0.stored.client_id,
        &request_id,
        page.offset(),
        page.rows(),
    )
    .await?;
    let items = found.into_iter().map(QuoteAnswer::from).collect();
    let total = usize::try_from(total).unwrap_or(0);
    Ok(Json(List::new(items, page, total)))
}
