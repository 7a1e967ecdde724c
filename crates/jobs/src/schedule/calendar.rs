//! Appointments by the calendar: daily, weekly, monthly, quarterly and semi-annual, in UTC or in a time zone.

use std::fmt;

use jiff::{
    Timestamp,
    civil::{Date, DateTime, Time, Weekday},
    tz::{AmbiguousOffset, TimeZone},
};

use super::{DAY, MINUTE, number};

/// On these days at this time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    recurrence: Recurrence,
    minute_of_day: u16,
    zone: Option<Zone>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recurrence {
    Daily,
    Weekly(Weekday),
    /// Every so many months, counted from January: 1, 3 or 6. In a month that has no such day, on its last.
    Months {
        every: i8,
        day: i8,
    },
}

impl Recurrence {
    /// At least as many lie between two of its days.
    pub(super) fn days(self) -> i64 {
        match self {
            Self::Daily => 1,
            Self::Weekly(_) => 7,
            Self::Months { every, .. } => i64::from(every) * 28,
        }
    }
}

/// A time zone by the name that it has in the IANA database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    name: String,
    rules: TimeZone,
}

impl Zone {
    /// # Errors
    /// When there is none of this name.
    pub fn named(name: &str) -> Result<Self, String> {
        let place = |name: &str| name.contains('/') || matches!(name, "UTC" | "GMT");
        match TimeZone::get(name) {
            Ok(rules) if place(name) => Ok(Self {
                name: rules.iana_name().unwrap_or(name).to_owned(),
                rules,
            }),
            _ => Err(format!(
                ": no time zone is called {name:?}; they are called as Europe/Berlin or America/New_York are"
            )),
        }
    }
}

const WEEKDAYS: [(&str, Weekday); 7] = [
    ("monday", Weekday::Monday),
    ("tuesday", Weekday::Tuesday),
    ("wednesday", Weekday::Wednesday),
    ("thursday", Weekday::Thursday),
    ("friday", Weekday::Friday),
    ("saturday", Weekday::Saturday),
    ("sunday", Weekday::Sunday),
];

impl Calendar {
    #[must_use]
    pub fn utc(recurrence: Recurrence, minute_of_day: u16) -> Self {
        Self {
            recurrence,
            minute_of_day,
            zone: None,
        }
    }

    #[must_use]
    pub fn recurrence(&self) -> Recurrence {
        self.recurrence
    }

    /// Its error is the reason, from a colon on.
    pub(super) fn parse(words: &[&str]) -> Result<Self, String> {
        let bad = String::new;
        let (kind, mut rest) = words.split_first().ok_or_else(bad)?;
        let mut recurrence = match *kind {
            "daily" => Recurrence::Daily,
            "weekly" => Recurrence::Weekly(Weekday::Monday),
            "monthly" => Recurrence::Months { every: 1, day: 1 },
            "quarterly" => Recurrence::Months { every: 3, day: 1 },
            "semi-annual" => Recurrence::Months { every: 6, day: 1 },
            _ => return Err(bad()),
        };
        if let Some((day, after)) = rest.split_first()
            && !day.contains([':', '/'])
            && *day != "UTC"
        {
            match &mut recurrence {
                Recurrence::Daily => return Err(bad()),
                Recurrence::Weekly(weekday) => {
                    let known = WEEKDAYS
                        .iter()
                        .find(|(name, _)| *name == day.to_ascii_lowercase());
                    *weekday = known
                        .ok_or_else(|| format!(": no day is called {day:?}"))?
                        .1;
                }
                Recurrence::Months { day: of_month, .. } => {
                    let number = number(day, 31).filter(|number| *number > 0);
                    let number = number.ok_or(": a day of the month is one of 1 to 31")?;
                    *of_month = i8::try_from(number).map_err(|_| bad())?;
                }
            }
            rest = after;
        }
        let mut minute_of_day = 0;
        if let Some((at, after)) = rest.split_first()
            && let Some((hour, minute)) = at.split_once(':')
        {
            let hour = number(hour, 23).ok_or_else(bad)?;
            minute_of_day = hour * 60 + number(minute, 59).ok_or_else(bad)?;
            rest = after;
        }
        let zone = match rest {
            [] | ["UTC"] => None,
            [name] => Some(Zone::named(name)?),
            _ => return Err(bad()),
        };
        Ok(Self {
            recurrence,
            minute_of_day,
            zone,
        })
    }

    /// What needs no calendar: a day of UTC is as long as any other.
    pub(super) fn grid(&self) -> Option<(i64, i64)> {
        match (self.recurrence, &self.zone) {
            (Recurrence::Daily, None) => Some((DAY, i64::from(self.minute_of_day) * MINUTE)),
            _ => None,
        }
    }

    pub(super) fn last(&self, now_micros: i64) -> Option<i64> {
        let mut day = self.day_on_or_before(self.local_date(now_micros)?.tomorrow().ok()?)?;
        loop {
            let at = self.at(day)?;
            if at <= now_micros {
                return Some(at);
            }
            day = self.day_on_or_before(day.yesterday().ok()?)?;
        }
    }

    pub(super) fn next(&self, now_micros: i64) -> Option<i64> {
        let mut day = self.day_on_or_after(self.local_date(now_micros)?.yesterday().ok()?)?;
        loop {
            let at = self.at(day)?;
            if at > now_micros {
                return Some(at);
            }
            day = self.day_on_or_after(day.tomorrow().ok()?)?;
        }
    }

    fn rules(&self) -> TimeZone {
        let rules = self.zone.as_ref().map(|zone| zone.rules.clone());
        rules.unwrap_or(TimeZone::UTC)
    }

    fn local_date(&self, micros: i64) -> Option<Date> {
        let at = Timestamp::from_microsecond(micros).ok()?;
        Some(at.to_zoned(self.rules()).date())
    }

    /// The moment of its time on a day.
    fn at(&self, day: Date) -> Option<i64> {
        let hour = i8::try_from(self.minute_of_day / 60).ok()?;
        let minute = i8::try_from(self.minute_of_day % 60).ok()?;
        let local = DateTime::from_parts(day, Time::new(hour, minute, 0, 0).ok()?);
        let rules = self.rules();
        let ambiguous = rules.to_ambiguous_timestamp(local);
        let moment = match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => ambiguous.unambiguous().ok()?,
            // The first of the two.
            AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok()?,
            // Skipped: the moment at which the clock goes forward is the first one that is not.
            AmbiguousOffset::Gap { .. } => {
                let before = ambiguous.earlier().ok()?;
                rules.following(before).next()?.timestamp()
            }
        };
        Some(moment.as_microsecond())
    }

    fn day_on_or_before(&self, day: Date) -> Option<Date> {
        match self.recurrence {
            Recurrence::Daily => Some(day),
            Recurrence::Weekly(weekday) if day.weekday() == weekday => Some(day),
            Recurrence::Weekly(weekday) => day.nth_weekday(-1, weekday).ok(),
            Recurrence::Months { every, day: wanted } => {
                let mut first = first_of_period(day, every);
                loop {
                    let found = of_month(first, wanted);
                    if found <= day {
                        return Some(found);
                    }
                    first = first_of_period(first.yesterday().ok()?, every);
                }
            }
        }
    }

    fn day_on_or_after(&self, day: Date) -> Option<Date> {
        match self.recurrence {
            Recurrence::Daily => Some(day),
            Recurrence::Weekly(weekday) if day.weekday() == weekday => Some(day),
            Recurrence::Weekly(weekday) => day.nth_weekday(1, weekday).ok(),
            Recurrence::Months { every, day: wanted } => {
                let mut first = first_of_period(day, every);
                loop {
                    let found = of_month(first, wanted);
                    if found >= day {
                        return Some(found);
                    }
                    first = next_period(first, every)?;
                }
            }
        }
    }
}

/// The first day of the month that begins the period that holds a day.
fn first_of_period(day: Date, every: i8) -> Date {
    let month = (day.month() - 1) / every * every + 1;
    Date::new(day.year(), month, 1).unwrap_or(day)
}

fn next_period(first: Date, every: i8) -> Option<Date> {
    let month = first.month() + every;
    match month > 12 {
        true => Date::new(first.year().checked_add(1)?, month - 12, 1).ok(),
        false => Date::new(first.year(), month, 1).ok(),
    }
}

fn of_month(first: Date, day: i8) -> Date {
    let day = day.min(first.days_in_month());
    Date::new(first.year(), first.month(), day).unwrap_or(first)
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.recurrence {
            Recurrence::Daily => f.write_str("daily")?,
            Recurrence::Weekly(weekday) => {
                let named = WEEKDAYS.iter().find(|(_, day)| *day == weekday);
                write!(f, "weekly {}", named.map_or("", |(name, _)| name))?;
            }
            Recurrence::Months { every, day } => {
                let kind = match every {
                    1 => "monthly",
                    3 => "quarterly",
                    _ => "semi-annual",
                };
                write!(f, "{kind} {day}")?;
            }
        }
        write!(
            f,
            " {:02}:{:02}",
            self.minute_of_day / 60,
            self.minute_of_day % 60
        )?;
        match &self.zone {
            Some(zone) => write!(f, " {}", zone.name),
            None => Ok(()),
        }
    }
}
