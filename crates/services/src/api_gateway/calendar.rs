//! `GET /api/v1/calendar`: what kind of day a date is, by the calendar in force.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use jiff::ToSpan;
use jiff::civil::Date;
use serde::Serialize;

use super::Gateway;
use super::errors::ApiError;
use super::parameters::Parameters;
use crate::domain::time::{now_micros, rfc3339};
use crate::market::{BeyondCalendar, Calendar, CalendarInForce};

#[derive(Debug, Serialize)]
pub(super) struct Day {
    status: &'static str,
    date: Date,
    trading: bool,
    settlement: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Of a day that trades: the end of the regular session, and of the late one, which ends its locates.
    #[serde(skip_serializing_if = "Option::is_none")]
    closes_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_ends_at: Option<String>,
    /// On which a sale of this day settles.
    #[serde(skip_serializing_if = "Option::is_none")]
    settlement_date: Option<Date>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_trading_day: Option<Date>,
    /// Of the locates that are asked for now.
    trade_date: Date,
    calendar: Origin,
}

#[derive(Debug, Serialize)]
struct Origin {
    name: String,
    version: String,
    source: String,
    first_day: Date,
    last_day: Date,
    /// `null`: the one that comes with the engine.
    batch_id: Option<String>,
}

impl Gateway {
    fn calendar_in_force(&self) -> Result<Arc<CalendarInForce>, ApiError> {
        let in_force = self.calculator.market.calendar_in_force();
        in_force.ok_or_else(|| ApiError::Unavailable {
            part: "database",
            detail: "which calendar is in force has not been read yet".to_owned(),
        })
    }

    pub(super) fn calendar(&self) -> Result<Arc<Calendar>, ApiError> {
        Ok(Arc::clone(&self.calendar_in_force()?.calendar))
    }
}

pub(super) async fn show(
    State(gateway): State<Gateway>,
    RawQuery(query): RawQuery,
) -> Result<Json<Day>, ApiError> {
    let mut parameters = Parameters::from_query(query.as_deref(), &["date"]);
    let rule = "must be a date such as 2026-12-24";
    let asked = parameters.maybe("date", rule, |text| -> Option<Date> {
        (text.len() == 10).then(|| text.parse().ok())?
    });
    parameters.finish()?;
    let in_force = gateway.calendar_in_force()?;
    let calendar = &in_force.calendar;
    let trade_date = calendar.trade_date(now_micros())?;
    let date = asked.unwrap_or(trade_date);
    // Asked about, not needed: no part of ours is at fault.
    let beyond = |beyond: BeyondCalendar| ApiError::DayNotFound(beyond.to_string());
    let trading = calendar.trades(date).map_err(beyond)?;
    let of_session = |micros: i64| trading.then(|| rfc3339(micros));
    Ok(Json(Day {
        status: "success",
        date,
        trading,
        settlement: calendar.settles(date).map_err(beyond)?,
        name: calendar
            .special(date)
            .map(|day| day.name.clone())
            .filter(|name| !name.is_empty()),
        closes_at: of_session(calendar.close(date)),
        session_ends_at: of_session(calendar.session_end(date)),
        // The last days of a calendar have none that it knows.
        settlement_date: calendar.settlement_date(date).ok().filter(|_| trading),
        next_trading_day: calendar.trading_day_from(date.saturating_add(1.day())).ok(),
        trade_date,
        calendar: Origin {
            name: calendar.name.clone(),
            version: calendar.version.clone(),
            source: calendar.source.clone(),
            first_day: calendar.first_day,
            last_day: calendar.last_day,
            batch_id: in_force.batch_id.clone(),
        },
    }))
}
