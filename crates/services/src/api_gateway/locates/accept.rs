//! `POST /api/v1/locates/{id}/accept`

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::Request;

use super::super::Gateway;
use super::super::errors::ApiError;
use super::super::middleware::{Caller, RequestId};
use super::{Asker, LocateAnswer, idempotency, locate_id};
use crate::data::LocateCommand;

pub(in super::super) async fn accept(
    State(gateway): State<Gateway>,
    Extension(request_id): Extension<RequestId>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Json<LocateAnswer>, ApiError> {
    let locate_id = locate_id(&id)?;
    let headers = request.headers().clone();
    let parameters = gateway.json_or_nothing(request, &[]).await?;
    let route = format!("accept {locate_id}");
    let idempotency = idempotency(&headers, &route, &parameters)?;
    parameters.finish()?;
    let asker = Asker {
        gateway: &gateway,
        caller: &caller,
        request_id,
        idempotency,
    };
    let stored = asker.request(LocateCommand::Accept { locate_id }).await?;
    Ok(Json(stored.into()))
}
