//! Where a restore of the cache comes from when no origin is named: the quickest one, by what was measured here.

use host::{control::Control, instance::Instance};
use jobs::{Outcome, Records};
use recovery::cache::copy_for;
use serde::Serialize;

use super::restore_cache::snapshot_for;
use crate::{
    cli::{CacheOrigin, RestoreCacheArgs},
    error::Error,
};
use operations::{
    cache,
    jobs::{CACHE_RDB, LOAD_MILLIS},
    repository_handle::RepositoryHandle,
};

/// How filling the cache from the database does.
const STATS: &str = "/internal/cache/stats";

#[derive(Clone, Debug, Serialize)]
pub(super) struct OriginReport {
    pub(super) origin: CacheOrigin,
    /// Of the last complete read of the market into the cache, or of the server that loaded the copy or the snapshot
    /// when it was taken. Null: not measured yet.
    pub(super) millis: Option<u64>,
    /// Null: it can be restored from.
    pub(super) unavailable: Option<String>,
}

impl OriginReport {
    fn of(origin: CacheOrigin, measured: Result<Option<u64>, Error>) -> Self {
        match measured {
            Ok(millis) => Self {
                origin,
                millis,
                unavailable: None,
            },
            Err(error) => Self {
                origin,
                millis: None,
                unavailable: Some(error.to_string()),
            },
        }
    }

    fn said(&self) -> String {
        let name = self.origin.name();
        match (&self.unavailable, self.millis) {
            (Some(reason), _) => format!("not {name}: {reason}"),
            (None, Some(millis)) => format!("{name} took {millis} ms"),
            (None, None) => format!("{name} is not measured yet"),
        }
    }
}

/// All that the arguments leave, the newest first.
pub(super) fn origins(
    instance: &Instance,
    args: &RestoreCacheArgs,
    time_micros: Option<i64>,
) -> Vec<OriginReport> {
    let mut reports = Vec::new();
    if time_micros.is_none() && args.snapshot.is_none() && args.to.is_none() {
        reports.push(OriginReport::of(CacheOrigin::Database, database(instance)));
    }
    if args.snapshot.is_none() {
        let until_seconds = time_micros.map(|micros| micros.div_euclid(1_000_000));
        let copy = copy_for(&cache::copies(instance), until_seconds);
        let millis = copy.map(|copy| copy.facts.load_millis).map_err(Error::from);
        reports.push(OriginReport::of(CacheOrigin::Aof, millis));
    }
    let snapshot = snapshot(instance, args, time_micros);
    reports.push(OriginReport::of(CacheOrigin::Rdb, snapshot));
    reports
}

/// Of equal ones the first.
pub(super) fn quickest(reports: &[OriginReport]) -> Result<CacheOrigin, Error> {
    let available = reports.iter().filter(|report| report.unavailable.is_none());
    let quickest = available.min_by_key(|report| report.millis.unwrap_or(u64::MAX));
    quickest.map(|report| report.origin).ok_or_else(|| {
        Error::refused(
            "nothing was restored",
            format!("there is nothing to restore from: {}", said(reports)),
        )
    })
}

pub(super) fn said(reports: &[OriginReport]) -> String {
    let all: Vec<String> = reports.iter().map(OriginReport::said).collect();
    all.join("; ")
}

fn database(instance: &Instance) -> Result<Option<u64>, Error> {
    let stats: serde_json::Value = host::runtime::wait(async {
        let control = Control::to(instance)?;
        control.get(STATS).await
    })?;
    match stats["database_up"].as_bool() {
        Some(true) => Ok(stats["market_read_millis"].as_u64()),
        _ => Err(Error::unreachable(
            "the database does not answer the engine",
            "bre status says what is known of it",
        )),
    }
}

fn snapshot(
    instance: &Instance,
    args: &RestoreCacheArgs,
    time_micros: Option<i64>,
) -> Result<Option<u64>, Error> {
    let opened = RepositoryHandle::at(instance, &args.repository)?;
    opened.private()?;
    snapshot_for(&opened, args, time_micros)?;
    let runs = Records::read(instance.root())?.of(CACHE_RDB);
    let succeeded = runs
        .iter()
        .rev()
        .find(|run| run.outcome == Outcome::Succeeded);
    let millis = succeeded.and_then(|run| run.figures.get(LOAD_MILLIS));
    Ok(millis.and_then(|millis| u64::try_from(*millis).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quickest_that_can_be_had_is_taken_and_all_are_said() {
        let report = |origin, millis, unavailable: Option<&str>| OriginReport {
            origin,
            millis,
            unavailable: unavailable.map(str::to_owned),
        };
        let mut reports = [
            report(CacheOrigin::Database, Some(200), None),
            report(CacheOrigin::Aof, Some(90), None),
            report(CacheOrigin::Rdb, None, None),
        ];
        assert_eq!(quickest(&reports).unwrap(), CacheOrigin::Aof);
        reports[1].unavailable = Some("there is none".to_owned());
        assert_eq!(quickest(&reports).unwrap(), CacheOrigin::Database);
        assert_eq!(
            said(&reports),
            "database took 200 ms; not aof: there is none; rdb is not measured yet"
        );
        reports[0].unavailable = Some("no engine runs".to_owned());
        assert_eq!(quickest(&reports).unwrap(), CacheOrigin::Rdb);
        reports[2].unavailable = Some("no private key".to_owned());
        let error = quickest(&reports).unwrap_err().to_string();
        assert!(
            error.contains("no engine runs") && error.contains("no private key"),
            "{error}"
        );
    }
}
