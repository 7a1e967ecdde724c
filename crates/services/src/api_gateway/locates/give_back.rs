//! `POST /api/v1/locates/{id}/return`: shares that are not needed any more.

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::Request;

use super::super::Gateway;
use super::super::errors::ApiError;
use super::super::middleware::{Caller, RequestId};
use super::{Asker, LocateAnswer, idempotency, locate_id};
use crate::data::LocateCommand;

const PARAMETERS: &[&str] = &["shares"];

pub(in super::super) async fn give_back(
    State(gateway): State<Gateway>,
    Extension(request_id): Extension<RequestId>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Json<LocateAnswer>, ApiError> {
    let locate_id = locate_id(&id)?;
    let headers = request.headers().clone();
    let mut parameters = gateway.json_or_nothing(request, PARAMETERS).await?;
    let route = format!("return {locate_id}");
    let idempotency = idempotency(&headers, &route, &parameters)?;
    let rule = "must be a whole number from 1 to 1000000000";
    let shares = parameters.number("shares", rule, |digits| {
        let shares = digits
            .whole()
            .filter(|shares| (1..=1_000_000_000).contains(shares))?;
        i64::try_from(shares).ok()
    });
    parameters.finish()?;
    let asker = Asker {
        gateway: &gateway,
        caller: &caller,
        request_id,
        idempotency,
    };
    let stored = asker
        .request(LocateCommand::Return { locate_id, shares })
        .await?;
    Ok(Json(stored.into()))
}
