//! Which days trade and which settle, as dated data: docs/formats/calendar.md. A calendar has a first and a last day; what lies beyond
//! is not guessed.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::ToSpan;
use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;

/// The time zone comes with the program.
static NEW_YORK: TimeZone = jiff::tz::get!("America/New_York");

/// A day that is not what its weekday says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpecialDay {
    pub(crate) trades: bool,
    pub(crate) settles: bool,
    /// In New York; the calendar's usual time when absent.
    pub(crate) close: Option<Time>,
    pub(crate) session_end: Option<Time>,
    pub(crate) name: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Calendar {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Where its days come from.
    pub(crate) source: String,
    pub(crate) first_day: Date,
    pub(crate) last_day: Date,
    /// Of the regular session, and of the late one, in New York.
    pub(crate) close: Time,
    pub(crate) session_end: Time,
    pub(crate) days: BTreeMap<Date, SpecialDay>,
}

/// One that knows no day.
impl Default for Calendar {
    fn default() -> Calendar {
        Calendar {
            name: "none".to_owned(),
            version: "0".to_owned(),
            source: "none".to_owned(),
            first_day: Date::MAX,
            last_day: Date::MIN,
            close: Time::midnight(),
            session_end: Time::midnight(),
            days: BTreeMap::new(),
        }
    }
}

/// The calendar does not say what kind of day it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{day} is beyond the calendar {calendar}, which goes from {first_day} to {last_day}: an operator imports a longer one with `bre import calendar FILE`"
)]
pub(crate) struct BeyondCalendar {
    pub(crate) day: Date,
    pub(crate) calendar: String,
    pub(crate) first_day: Date,
    pub(crate) last_day: Date,
}

impl Calendar {
    /// Name and version, as they are recorded with what was decided by it.
    pub(crate) fn id(&self) -> String {
        format!("{} {}", self.name, self.version)
    }

    pub(crate) fn special(&self, day: Date) -> Option<&SpecialDay> {
        self.days.get(&day)
    }

    pub(crate) fn trades(&self, day: Date) -> Result<bool, BeyondCalendar> {
        self.is(day, |special| special.trades)
    }

    pub(crate) fn settles(&self, day: Date) -> Result<bool, BeyondCalendar> {
        self.is(day, |special| special.settles)
    }

    fn is(&self, day: Date, read: fn(&SpecialDay) -> bool) -> Result<bool, BeyondCalendar> {
        if !(self.first_day..=self.last_day).contains(&day) {
            return Err(BeyondCalendar {
                day,
                calendar: self.id(),
                first_day: self.first_day,
                last_day: self.last_day,
            });
        }
        let weekend = matches!(day.weekday(), Weekday::Saturday | Weekday::Sunday);
        Ok(self.days.get(&day).map_or(!weekend, read))
    }

    /// The trading day whose session ends next.
    pub(crate) fn trade_date(&self, now_micros: i64) -> Result<Date, BeyondCalendar> {
        let today = date_of(now_micros);
        if self.trades(today)? && now_micros < self.session_end(today) {
            return Ok(today);
        }
        self.trading_day_from(today.saturating_add(1.day()))
    }

    pub(crate) fn trading_day_from(&self, day: Date) -> Result<Date, BeyondCalendar> {
        self.first_from(day, Calendar::trades)
    }

    /// On which a sale of that trade date settles: the next settlement day (T+1).
    pub(crate) fn settlement_date(&self, trade_date: Date) -> Result<Date, BeyondCalendar> {
        self.first_from(trade_date.saturating_add(1.day()), Calendar::settles)
    }

    /// The last day of a loan that begins on that trade date: shares go back on a day that settles.
    pub(crate) fn loan_end(
        &self,
        trade_date: Date,
        loan_days: u32,
    ) -> Result<Date, BeyondCalendar> {
        let end = trade_date.saturating_add(i64::from(loan_days).days());
        self.first_from(end, Calendar::settles)
    }

    fn first_from(
        &self,
        mut day: Date,
        wanted: impl Fn(&Calendar, Date) -> Result<bool, BeyondCalendar>,
    ) -> Result<Date, BeyondCalendar> {
        while !wanted(self, day)? {
            day = day.saturating_add(1.day());
        }
        Ok(day)
    }

    /// Days until it ends; below 0 it has.
    pub(crate) fn days_left(&self, now_micros: i64) -> i64 {
        let left = date_of(now_micros).duration_until(self.last_day);
        left.as_hours().div_euclid(24)
    }

    /// When the regular session of a day closes. A day beyond all clocks has ended.
    pub(crate) fn close(&self, day: Date) -> i64 {
        let special = self.special(day).and_then(|special| special.close);
        at(day, special.unwrap_or(self.close))
    }

    /// When its late session ends, and with it what was located for the day.
    pub(crate) fn session_end(&self, day: Date) -> i64 {
        let special = self.special(day).and_then(|special| special.session_end);
        at(day, special.unwrap_or(self.session_end))
    }
}

/// The date in New York.
fn date_of(now_micros: i64) -> Date {
    let now = Timestamp::from_microsecond(now_micros).unwrap_or(Timestamp::UNIX_EPOCH);
    now.to_zoned(NEW_YORK.clone()).date()
}

fn at(day: Date, time: Time) -> i64 {
    let moment = day.to_datetime(time).to_zoned(NEW_YORK.clone());
    moment.map_or(0, |moment| moment.timestamp().as_microsecond())
}

/// A calendar, and the batch it was imported with; the shipped one has none.
#[derive(Debug, Clone)]
pub(crate) struct CalendarInForce {
    pub(crate) batch_id: Option<String>,
    pub(crate) calendar: Arc<Calendar>,
}
