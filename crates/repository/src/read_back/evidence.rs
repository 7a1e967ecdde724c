//! How far WAL was here once. Nothing in a repository says "this is the newest": what says so is whoever acted on it, and says when.

use serde::Serialize;
use serde_json::Value;

use crate::Repository;
use crate::backup::{BackupState, BackupSummary, RestoreTestRecord, catalogue};
use crate::error::{Result, StoreError};

/// Who knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceSource {
    /// Signed only when the repository held the WAL of its last entry.
    SignedHead,
    /// The same, as the engine's host keeps it.
    Anchor,
    /// Replayed to there.
    RestoreTest,
    /// It ended there; its WAL may have been on its way still.
    Backup,
    /// A stream, which acknowledges to PostgreSQL only what the repository holds.
    Stream,
}

impl EvidenceSource {
    /// Whether the WAL was in the repository, rather than only written by the server.
    #[must_use]
    pub fn was_here(self) -> bool {
        self != Self::Backup
    }
}

/// WAL up to here was there at this time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Evidence {
    pub source: EvidenceSource,
    /// The object or file that says so.
    pub object: Option<String>,
    /// `None`: it does not say on which.
    pub timeline: Option<u32>,
    /// Of the audit log; 0 where there is none.
    pub epoch: u32,
    pub lsn: u64,
    pub at_micros: i64,
}

impl Evidence {
    /// Newer ones are greater.
    pub(super) fn order(&self) -> (u32, u64, i64) {
        (self.epoch, self.lsn, self.at_micros)
    }

    pub(super) fn of_backup(backup: &BackupSummary) -> Self {
        Self {
            source: EvidenceSource::Backup,
            object: Some(format!("backups/{}/manifest", backup.id)),
            timeline: Some(backup.timeline),
            epoch: 0,
            lsn: backup.stop_lsn,
            at_micros: backup.finished_at_micros,
        }
    }

    /// `None` when it does not say how far it replayed.
    pub(super) fn of_restore_test(name: &str, record: &RestoreTestRecord) -> Option<Self> {
        let checks = record.details.get("checks")?.as_array()?;
        let mut details = checks.iter().map(|check| &check["detail"]);
        let found = details.rfind(|detail| detail["replayed_to"].is_string())?;
        Some(Self {
            source: EvidenceSource::RestoreTest,
            object: Some(name.to_owned()),
            timeline: found["timeline"]
                .as_u64()
                .and_then(|it| u32::try_from(it).ok()),
            epoch: 0,
            lsn: lsn_of(&found["replayed_to"])?,
            at_micros: record.proved_at_micros,
        })
    }

    /// For a sentence: `the signed head … of …`.
    #[must_use]
    pub fn describe(&self) -> String {
        let what = match self.source {
            EvidenceSource::SignedHead => "the signed head",
            EvidenceSource::Anchor => "the newest signed head that this host keeps",
            EvidenceSource::RestoreTest => "the restore test",
            EvidenceSource::Backup => "the end of the backup",
            EvidenceSource::Stream => "the stream's own mark",
        };
        let object = self
            .object
            .as_ref()
            .map_or_else(String::new, |object| format!(" `{object}`"));
        format!("{what}{object}")
    }
}

/// `16/B374D848`.
fn lsn_of(value: &Value) -> Option<u64> {
    let (high, low) = value.as_str()?.split_once('/')?;
    let half = |digits| u32::from_str_radix(digits, 16).ok().map(u64::from);
    Some(half(high)? << 32 | half(low)?)
}

/// What backups and restore tests of a repository say. Signed heads are for whoever reads their format.
pub fn newest_known(repository: &Repository) -> Result<Vec<Evidence>> {
    let backups = catalogue(repository)?.backups;
    let counted = |backup: &&BackupSummary| backup.state != BackupState::Expiring;
    let mut known: Vec<Evidence> = backups
        .iter()
        .filter(counted)
        .map(Evidence::of_backup)
        .collect();
    for object in repository.store().list("backups/")? {
        if !object.name.contains("/proof-") {
            continue;
        }
        let bytes = match repository.store().get(&object.name) {
            Err(StoreError::NotFound { .. }) => continue,
            other => other?,
        };
        let record = serde_json::from_slice(&bytes).ok();
        known.extend(record.and_then(|record| Evidence::of_restore_test(&object.name, &record)));
    }
    Ok(known)
}

/// The end of the WAL that is here, on the newest timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) timeline: u32,
    pub(super) lsn: u64,
    pub(super) at_micros: i64,
    /// Evidence that names no timeline and is older speaks of an earlier one.
    pub(super) began_micros: i64,
}

/// The best evidence beside what is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shortfall {
    pub evidence: Evidence,
    /// Of the WAL that is here.
    pub timeline: u32,
    pub end_lsn: u64,
    /// The last server time that it confirms; 0 when unknown.
    pub end_at_micros: i64,
    /// The evidence lies behind the end: WAL is missing.
    pub is_missing: bool,
    /// Of the server's time between the two, rounded up; `None` when nothing is missing or a time is unknown.
    pub missing_seconds: Option<u64>,
}

/// Compares what is here (timeline, end and its time, when the timeline began) with the best evidence there is; `None` without any.
#[must_use]
pub fn shortfall(
    known: &[Evidence],
    (timeline, lsn, at_micros): (u32, u64, i64),
    began_micros: i64,
) -> Option<Shortfall> {
    let end = End {
        timeline,
        lsn,
        at_micros,
        began_micros,
    };
    against(known, end)
}

pub(super) fn against(known: &[Evidence], end: End) -> Option<Shortfall> {
    let speaks = |it: &&Evidence| match it.timeline {
        Some(timeline) => timeline >= end.timeline,
        None => it.at_micros >= end.began_micros,
    };
    let order = |it: &&Evidence| {
        let timeline = it.timeline.unwrap_or(end.timeline);
        // Of two that say the same, the one that saw it in the repository.
        (timeline, it.lsn, it.source.was_here(), it.at_micros)
    };
    let best = known.iter().filter(speaks).max_by_key(order)?;
    let timeline = best.timeline.unwrap_or(end.timeline);
    let is_missing = (timeline, best.lsn) > (end.timeline, end.lsn);
    let micros = best.at_micros.saturating_sub(end.at_micros);
    let is_timed = is_missing && end.at_micros > 0 && best.at_micros > 0;
    Some(Shortfall {
        evidence: best.clone(),
        timeline: end.timeline,
        end_lsn: end.lsn,
        end_at_micros: end.at_micros,
        is_missing,
        missing_seconds: is_timed.then(|| {
            u64::try_from(micros)
                .unwrap_or(0)
                .div_ceil(1_000_000)
                .max(1)
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(source: EvidenceSource, timeline: Option<u32>, lsn: u64, seconds: i64) -> Evidence {
        Evidence {
            source,
            object: None,
            timeline,
            epoch: 0,
            lsn,
            at_micros: seconds * 1_000_000,
        }
    }

    #[test]
    fn the_best_evidence_says_what_is_missing_and_for_how_long() {
        use EvidenceSource::{Backup, RestoreTest, SignedHead, Stream};
        let head = said(SignedHead, None, 500, 50);
        let test = said(RestoreTest, Some(1), 300, 30);
        let backup = said(Backup, Some(1), 200, 20);
        let all = [test.clone(), head.clone(), backup.clone()];
        let check = |known: &[Evidence], end, began, expected: Option<(&Evidence, Option<u64>)>| {
            let found = shortfall(known, end, began);
            let missing = found.as_ref().filter(|found| found.is_missing);
            let missing = missing.map(|found| (&found.evidence, found.missing_seconds));
            assert_eq!(missing, expected, "{found:?}");
        };
        let micros = 1_000_000;
        check(&[], (1, 0, 0), 0, None);
        check(&all, (1, 500, 50 * micros), 0, None);
        check(&all, (1, 400, 45 * micros), 0, Some((&head, Some(5))));
        check(&all, (1, 400, 45 * micros + 1), 0, Some((&head, Some(5))));
        check(&all, (1, 400, 50 * micros), 0, Some((&head, Some(1))));
        check(&all, (1, 400, 0), 0, Some((&head, None)));
        // Heads name no timeline: what was signed before this one began says nothing of its end.
        check(&all, (2, 400, 55 * micros), 51 * micros, None);
        check(&all[..1], (1, 250, 28 * micros), 0, Some((&test, Some(2))));
        // A timeline that is gone as a whole.
        let later = said(Stream, Some(2), 10, 60);
        check(
            &[head, later.clone()],
            (1, 900, 50 * micros),
            0,
            Some((&later, Some(10))),
        );
        check(&[backup], (2, 10, micros), 0, None);
    }

    #[test]
    fn a_restore_test_says_how_far_it_replayed() {
        let text = r#"{"proved_at_micros":7,"passed":true,"checks":[{"name":"a","detail":{}},{"name":"replay","detail":{"replayed_to":"1/A0","timeline":3}}]}"#;
        let record: RestoreTestRecord = serde_json::from_str(text).unwrap();
        let found = Evidence::of_restore_test("x", &record).unwrap();
        assert_eq!(
            (found.timeline, found.lsn, found.at_micros),
            (Some(3), 0x1_0000_00a0, 7)
        );
    }
}
