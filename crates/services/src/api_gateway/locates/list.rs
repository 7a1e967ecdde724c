//! `GET /api/v1/locates`: a client's own, as they are now, newest first.

use axum::Json;
use axum::extract::{Extension, RawQuery, State};
use jiff::civil::Date;

use super::super::Gateway;
use super::super::errors::ApiError;
use super::super::lists::{List, Page};
use super::super::middleware::Caller;
use super::super::parameters::Parameters;
use super::LocateAnswer;
use crate::data::{LocateFilter, Status, find_locates};
use crate::domain::identifiers::{TICKER_RULE, is_request_id, is_ticker};

const PARAMETERS: &[&str] = &[
    "locate_status",
    "ticker",
    "trade_date",
    "request_id",
    "skip",
    "limit",
];

pub(in super::super) async fn list(
    State(gateway): State<Gateway>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Json<List<LocateAnswer>>, ApiError> {
    let mut parameters = Parameters::from_query(query.as_deref(), PARAMETERS);
    let rule = "must be pending, offered, filled, rejected, declined, expired or cancelled";
    let status = parameters.maybe("locate_status", rule, Status::parse);
    let ticker = parameters.maybe("ticker", TICKER_RULE, |text| {
        is_ticker(text).then(|| text.to_owned())
    });
    let rule = "must be a date such as 2026-04-01";
    let trade_date = parameters.maybe("trade_date", rule, |text| {
        let date: Date = (text.len() == 10).then(|| text.parse().ok())??;
        Some(date.to_string())
    });
    let rule = "must be 1 to 64 letters, digits, '_', '-' or '.'";
    let request_id = parameters.maybe("request_id", rule, |text| {
        is_request_id(text).then(|| text.to_owned())
    });
    let page = Page::read(&mut parameters);
    parameters.finish()?;
    let filter = LocateFilter {
        client_id: caller.0.stored.client_id.clone(),
        status: status.map(Status::name),
        ticker,
        trade_date,
        request_id,
    };
    let client = gateway.refresher.client()?;
    let (found, total) = find_locates(&client, &filter, page.offset(), page.rows()).await?;
    let items = found.into_iter().map(LocateAnswer::from).collect();
    Ok(Json(List::new(
        items,
        page,
        usize::try_from(total).unwrap_or(0),
    )))
}
