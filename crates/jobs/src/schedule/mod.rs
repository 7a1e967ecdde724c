//! When a job runs, in the words of a settings file. Pure: no clock is read here.
//!
//! Times are UTC unless a time zone is named. In a zone an appointment in an hour that the clock skips is kept right
//! after that hour, one in an hour that the clock repeats is kept once, the first time.

mod calendar;
mod scheduler;

use std::{fmt, str::FromStr, time::Duration};

pub use calendar::{Calendar, Recurrence, Zone};
pub use scheduler::{Cause, Covers, Due, MissedAppointments, Now, Past, ScheduledJob, Scheduler};

const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// What makes a job run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    Off,
    Hourly {
        minute: u16,
    },
    EveryMinutes {
        minutes: u16,
    },
    /// Daily and rarer.
    Calendar(Calendar),
    /// After each of these: names of jobs as they are written, or one group of them.
    After(After),
    /// Whenever what it looks after changed.
    OnChange,
    /// All the time; started again when it ends.
    Continuous,
    /// Only when somebody asks for it.
    Manual,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// Names, or the short names that a job also goes by.
    Jobs(Vec<String>),
    /// Every job of a group: `after every backup`.
    Every(String),
}

impl Trigger {
    /// Daily, UTC.
    #[must_use]
    pub fn daily(minute_of_day: u16) -> Self {
        Self::Calendar(Calendar::utc(Recurrence::Daily, minute_of_day))
    }

    /// The newest appointment that is not in the future.
    #[must_use]
    pub fn last_appointment(&self, now_micros: i64) -> Option<i64> {
        match self.grid() {
            Some((period, offset)) => {
                Some((now_micros - offset).div_euclid(period) * period + offset)
            }
            None => self.calendar()?.last(now_micros),
        }
    }

    /// The first appointment after a moment.
    #[must_use]
    pub fn next_appointment(&self, now_micros: i64) -> Option<i64> {
        match self.grid() {
            Some((period, _)) => Some(self.last_appointment(now_micros)? + period),
            None => self.calendar()?.next(now_micros),
        }
    }

    /// How many appointments lie behind the first moment and not behind the second, and the first of them.
    pub(crate) fn appointments(&self, after: i64, to: i64) -> Option<(u64, i64)> {
        let first = self.next_appointment(after).filter(|at| *at <= to)?;
        if let Some((period, _)) = self.grid() {
            let more = (to - first) / period;
            return Some((u64::try_from(more).unwrap_or(0) + 1, first));
        }
        let (mut count, mut at) = (1, first);
        while let Some(next) = self.next_appointment(at).filter(|next| *next <= to) {
            (count, at) = (count + 1, next);
            if count == COUNTED_MAX {
                break;
            }
        }
        Some((count, first))
    }

    /// From one appointment to the next, at the least in a month of the shortest kind; `None` for what has none.
    #[must_use]
    pub fn period(&self) -> Option<Duration> {
        let micros = match self.grid() {
            Some((period, _)) => period,
            None => self.calendar()?.recurrence().days() * DAY,
        };
        Some(Duration::from_micros(micros.unsigned_abs()))
    }

    /// Appointments that do not depend on any calendar: their period and offset.
    fn grid(&self) -> Option<(i64, i64)> {
        match self {
            Self::Hourly { minute } => Some((HOUR, i64::from(*minute) * MINUTE)),
            Self::EveryMinutes { minutes } => Some((i64::from(*minutes) * MINUTE, 0)),
            Self::Calendar(calendar) => calendar.grid(),
            _ => None,
        }
    }

    fn calendar(&self) -> Option<&Calendar> {
        match self {
            Self::Calendar(calendar) => Some(calendar),
            _ => None,
        }
    }
}

/// Of the appointments that were missed, in ten centuries of days for instance; more are not told apart.
const COUNTED_MAX: u64 = 100_000;

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Hourly { minute } => write!(f, "hourly :{minute:02}"),
            Self::EveryMinutes { minutes } => write!(f, "every {minutes} minutes"),
            Self::Calendar(calendar) => calendar.fmt(f),
            Self::After(After::Every(group)) => write!(f, "after every {group}"),
            Self::After(After::Jobs(names)) => write!(f, "after {}", names.join(", ")),
            Self::OnChange => f.write_str("on change"),
            Self::Continuous => f.write_str("continuous"),
            Self::Manual => f.write_str("manual"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no schedule{why}; it is one of: off, daily HH:MM, hourly :MM, every N minutes (1 to 60), \
     weekly DAY HH:MM, monthly D HH:MM, quarterly D HH:MM, semi-annual D HH:MM, after every backup, after JOB, \
     on change, continuous, manual. Times are UTC; one of a day or rarer may end in a time zone: \
     daily 01:30 Europe/Berlin"
)]
pub struct TriggerError {
    text: String,
    why: String,
}

impl FromStr for Trigger {
    type Err = TriggerError;

    fn from_str(text: &str) -> Result<Self, TriggerError> {
        let bad = |why: &str| TriggerError {
            text: text.to_owned(),
            why: why.to_owned(),
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        match words.as_slice() {
            ["off"] => Ok(Self::Off),
            ["manual"] => Ok(Self::Manual),
            ["continuous"] => Ok(Self::Continuous),
            ["on", "change"] => Ok(Self::OnChange),
            ["hourly"] => Ok(Self::Hourly { minute: 0 }),
            ["hourly", at] => {
                let minute = at.strip_prefix(':').and_then(|minute| number(minute, 59));
                Ok(Self::Hourly {
                    minute: minute.ok_or_else(|| bad(""))?,
                })
            }
            ["every", minutes, "minutes"] => match number(minutes, 60) {
                None | Some(0) => Err(bad("")),
                Some(minutes) => Ok(Self::EveryMinutes { minutes }),
            },
            ["hourly", _, _] | ["every", _, "minutes", _] => Err(bad(
                ": what comes every hour or more often takes no time zone",
            )),
            ["after", "every", group] if is_name(group) => {
                Ok(Self::After(After::Every((*group).to_owned())))
            }
            ["after", "every", ..] => Err(bad("")),
            ["after", names @ ..] if !names.is_empty() => {
                let names = names.join(" ");
                let names: Vec<&str> = names.split(',').map(str::trim).collect();
                if !names.iter().all(|name| is_name(name)) {
                    return Err(bad(""));
                }
                let names = names.into_iter().map(str::to_owned).collect();
                Ok(Self::After(After::Jobs(names)))
            }
            words => match Calendar::parse(words) {
                Ok(calendar) => Ok(Self::Calendar(calendar)),
                Err(why) => Err(bad(&why)),
            },
        }
    }
}

/// One or two digits.
fn number(digits: &str, max: u16) -> Option<u16> {
    let plain = (1..=2).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|value| plain && *value <= max)
}

/// As jobs and groups are called.
pub(crate) fn is_name(text: &str) -> bool {
    let of_name = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.');
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(of_name)
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('.')
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod words_tests;
