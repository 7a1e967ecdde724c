//! `GET /api/v1/locates/{id}/uses`: what orders did with a locate's shares, newest first.

use axum::Json;
use axum::extract::{Extension, Path, RawQuery, State};
use serde::Serialize;

use super::super::Gateway;
use super::super::errors::ApiError;
use super::super::lists::{List, Page};
use super::super::middleware::Caller;
use super::super::parameters::Parameters;
use super::{OrderAnswer, Room, is_key, locate_id};
use crate::data::{LogPosition, StoredLocate, find_uses, steps_of};
use crate::domain::time::rfc3339;

#[derive(Debug, Serialize)]
pub(in super::super) struct UseOf {
    #[serde(flatten)]
    order: OrderAnswer,
    /// After it.
    #[serde(flatten)]
    room: Room,
    sequence: i32,
    request_id: String,
    actor: String,
    recorded_at: String,
    audit: LogPosition,
}

impl UseOf {
    fn of(stored: StoredLocate) -> Option<UseOf> {
        let (room, credited) = (stored.locate.room().into(), stored.locate.credited());
        Some(UseOf {
            order: OrderAnswer::of(stored.locate.order?, credited),
            room,
            sequence: stored.locate.sequence,
            request_id: stored.locate.request_id,
            actor: stored.locate.actor,
            recorded_at: rfc3339(stored.recorded_at_micros),
            audit: stored.recorded,
        })
    }
}

pub(in super::super) async fn list(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<List<UseOf>>, ApiError> {
    let locate_id = locate_id(&id)?;
    let mut parameters = Parameters::from_query(query.as_deref(), &["order_id", "skip", "limit"]);
    let rule = "must be 1 to 128 letters, digits, '_', '-', '.' or ':'";
    let order_id = parameters.maybe("order_id", rule, |text| {
        is_key(text).then(|| text.to_owned())
    });
    let page = Page::read(&mut parameters);
    parameters.finish()?;
    let client = gateway.refresher.client()?;
    // Another client's is none.
    if steps_of(&client, &caller.0.stored.client_id, locate_id)
        .await?
        .is_empty()
    {
        return Err(ApiError::NotFound("there is no such locate of yours"));
    }
    let (found, total) = find_uses(
        &client,
        locate_id,
        order_id.as_deref(),
        page.offset(),
        page.rows(),
    )
    .await?;
    let items = found.into_iter().filter_map(UseOf::of).collect();
    Ok(Json(List::new(
        items,
        page,
        usize::try_from(total).unwrap_or(0),
    )))
}
