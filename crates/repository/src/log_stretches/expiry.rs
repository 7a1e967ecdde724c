//! What is older than its kind is kept for goes, unless a hold names its time or the store itself refuses.

use jiff::civil::Date;
use serde::Serialize;

use super::{ListedStretch, LogKind, log_stretches, stretch_facts};
use crate::Repository;
use crate::error::{Error, Result, StoreError};
use crate::retention::{DAY_MICROS, held_names};

/// In the place of a kind: all of them.
const ALL_KINDS: &str = "all";

/// A legal hold of a period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogHold {
    /// None: every kind.
    pub kind: Option<LogKind>,
    /// Both included.
    pub from: Date,
    pub to: Date,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LogExpiry {
    pub deleted: u64,
    pub bytes: u64,
    /// Old enough, and on hold.
    pub held: u64,
    /// Old enough, and locked by the store.
    pub locked: u64,
}

/// How a hold of a period is called on record.
#[must_use]
pub fn hold_name(hold: &LogHold) -> String {
    let kind = hold.kind.map_or(ALL_KINDS, LogKind::name);
    let day = |day: Date| day.strftime("%Y%m%d").to_string();
    format!("logs.{kind}.{}-{}", day(hold.from), day(hold.to))
}

/// None where it is the name of something else.
pub(crate) fn hold_of(name: &str) -> Option<LogHold> {
    let (kind, period) = name.strip_prefix("logs.")?.split_once('.')?;
    let (from, to) = period.split_once('-')?;
    let day = |text: &str| Date::strptime("%Y%m%d", text).ok();
    let kind = match kind {
        ALL_KINDS => None,
        named => Some(LogKind::ALL.into_iter().find(|it| it.name() == named)?),
    };
    let hold = LogHold {
        kind,
        from: day(from)?,
        to: day(to)?,
    };
    (hold.from <= hold.to && hold_name(&hold) == name).then_some(hold)
}

impl LogHold {
    fn covers(&self, stretch: &ListedStretch, (from, to): (i64, i64)) -> bool {
        let begin = |day: Date| {
            let at = day.at(0, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC);
            at.map_or(i64::MIN, |at| at.timestamp().as_microsecond())
        };
        self.kind.is_none_or(|kind| kind == stretch.kind)
            && from < begin(self.to).saturating_add(DAY_MICROS)
            && to >= begin(self.from)
    }
}

/// Those that stand.
pub fn log_holds(repository: &Repository) -> Result<Vec<LogHold>> {
    Ok(held_names(repository)?
        .iter()
        .filter_map(|name| hold_of(name))
        .collect())
}

/// The stretches that a hold names.
pub(crate) fn stretches_held(
    repository: &Repository,
    hold: &LogHold,
) -> Result<Vec<ListedStretch>> {
    let mut held = Vec::new();
    for (kind, source) in super::log_sources(repository)? {
        for listed in log_stretches(repository, kind, &source)? {
            if hold.covers(&listed, span_of(repository, &listed)?) {
                held.push(listed);
            }
        }
    }
    Ok(held)
}

/// Of one whose clear part cannot be read, the day of its name.
fn span_of(repository: &Repository, listed: &ListedStretch) -> Result<(i64, i64)> {
    match stretch_facts(repository, &listed.name) {
        Ok(stretch) => Ok((stretch.from_micros, stretch.to_micros)),
        Err(error)
            if error.is_damage() || matches!(error, Error::Store(StoreError::Cold { .. })) =>
        {
            let day = Date::strptime("%Y%m%d", &listed.day).ok();
            let at = day.and_then(|day| day.at(0, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC).ok());
            let from = at.map_or(i64::MAX, |at| at.timestamp().as_microsecond());
            Ok((from, from.saturating_add(DAY_MICROS)))
        }
        Err(error) => Err(error),
    }
}

/// Of one kind and source, oldest first: a chain loses its beginning and nothing from its middle. `now_micros`: the
/// store's clock. `days`: never fewer than those of the kind.
pub fn expire_logs(
    repository: &Repository,
    (kind, source): (LogKind, &str),
    days: u16,
    now_micros: i64,
) -> Result<LogExpiry> {
    let mut expiry = LogExpiry::default();
    let before = now_micros - i64::from(days.max(kind.days())) * DAY_MICROS;
    let holds = log_holds(repository)?;
    for listed in log_stretches(repository, kind, source)? {
        let span = span_of(repository, &listed)?;
        // The store's own time counts, too: a source whose clock was wrong is no reason to delete.
        if span.1 >= before || listed.modified_micros >= before {
            break;
        }
        if holds.iter().any(|hold| hold.covers(&listed, span)) {
            expiry.held += 1;
            break;
        }
        match repository.store().delete(&listed.name) {
            Ok(()) | Err(StoreError::NotFound { .. }) => {
                expiry.deleted += 1;
                expiry.bytes += listed.bytes;
            }
            Err(StoreError::Locked { .. }) => {
                expiry.locked += 1;
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(expiry)
}
