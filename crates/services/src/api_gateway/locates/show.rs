//! `GET /api/v1/locates/{id}`: what it is now, and every step that led there but for what orders did: that is under `/uses`.

use axum::Json;
use axum::extract::{Extension, Path, State};
use serde::Serialize;

use super::super::Gateway;
use super::super::errors::ApiError;
use super::super::middleware::Caller;
use super::{LocateAnswer, locate_id};
use crate::data::{LogPosition, StoredLocate, steps_of};
use crate::domain::time::rfc3339;

#[derive(Debug, Serialize)]
pub(in super::super) struct Life {
    #[serde(flatten)]
    now: LocateAnswer,
    steps: Vec<Step>,
}

#[derive(Debug, Serialize)]
struct Step {
    sequence: i32,
    locate_status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    granted: i64,
    returned: i64,
    reserved: i64,
    used: i64,
    actor: String,
    request_id: String,
    recorded_at: String,
    audit: LogPosition,
}

impl From<&StoredLocate> for Step {
    fn from(stored: &StoredLocate) -> Step {
        let locate = &stored.locate;
        Step {
            sequence: locate.sequence,
            locate_status: locate.status.name(),
            reason: locate.reason.map(|reason| reason.name()),
            granted: locate.granted,
            returned: locate.returned,
            reserved: locate.reserved,
            used: locate.used,
            actor: locate.actor.clone(),
            request_id: locate.request_id.clone(),
            recorded_at: rfc3339(stored.recorded_at_micros),
            audit: stored.recorded,
        }
    }
}

pub(in super::super) async fn show(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Life>, ApiError> {
    let locate_id = locate_id(&id)?;
    let client = gateway.refresher.client()?;
    let mut stored = steps_of(&client, &caller.0.stored.client_id, locate_id).await?;
    let own = stored.iter().filter(|step| step.locate.order.is_none());
    let steps = own.map(Step::from).collect();
    let last = stored.pop();
    let Some(now) = last else {
        let never = "there is no such locate of yours";
        return Err(super::super::quotes::missing(&client, locate_id, never).await?);
    };
    Ok(Json(Life {
        now: now.into(),
        steps,
    }))
}
