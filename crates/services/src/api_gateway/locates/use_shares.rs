//! `POST /api/v1/locates/{id}/uses`: an order reserves, uses or releases shares. Recorded before it is answered, once for each order.

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::http::Request;

use super::super::Gateway;
use super::super::errors::ApiError;
use super::super::middleware::{Caller, RequestId};
use super::{Asker, LocateAnswer, idempotency, is_key, locate_id};
use crate::data::{LocateCommand, OrderUse, Side, UseState};

const PARAMETERS: &[&str] = &["order_id", "shares", "side", "state"];

pub(in super::super) async fn use_shares(
    State(gateway): State<Gateway>,
    Extension(request_id): Extension<RequestId>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Json<LocateAnswer>, ApiError> {
    let locate_id = locate_id(&id)?;
    let headers = request.headers().clone();
    let mut parameters = gateway.json(request, PARAMETERS).await?;
    let idempotency = idempotency(&headers, &format!("use {locate_id}"), &parameters)?;
    let rule = "must be 1 to 128 letters, digits, '_', '-', '.' or ':'";
    let order_id = parameters.required("order_id", rule, |text| {
        is_key(text).then(|| text.to_owned())
    });
    let rule = "must be a whole number from 1 to 1000000000";
    let shares = parameters.required_number("shares", rule, |digits| {
        let shares = digits
            .whole()
            .filter(|shares| (1..=1_000_000_000).contains(shares))?;
        i64::try_from(shares).ok()
    });
    let rule = "must be sell_short (or sell) or buy_to_cover (or buy, cover)";
    let side = parameters.required("side", rule, Side::parse);
    let rule = "must be used, reserved or released";
    let state = parameters.maybe("state", rule, UseState::parse);
    let state = state.unwrap_or(UseState::Used);
    if side == Some(Side::BuyToCover) && state != UseState::Used {
        parameters.refuse("state", "must be used: a cover reserves nothing");
    }
    parameters.finish()?;
    let (Some(order_id), Some(shares), Some(side)) = (order_id, shares, side) else {
        let why = "the parameters could not be read";
        return Err(ApiError::Unreadable(why.to_owned()));
    };
    let order = OrderUse {
        order_id,
        side,
        state,
        shares,
    };
    let asker = Asker {
        gateway: &gateway,
        caller: &caller,
        request_id,
        idempotency,
    };
    let stored = asker
        .request(LocateCommand::Use { locate_id, order })
        .await?;
    Ok(Json(stored.into()))
}
