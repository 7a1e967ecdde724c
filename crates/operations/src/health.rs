//! What the services, `bre status` and the metrics are told about the WAL stream.

use std::sync::{Arc, Mutex, PoisonError};

use backup::{
    database::{SlotStatus, WalStatus},
    stream::StreamWatch,
};
use postgres_physical::lsn::Lsn;
use repository::wal::{Hole, SealStatus};
use services::{JobReport, StreamHealth, StreamReport};

/// Alarm when PostgreSQL keeps this share of what it may keep for us.
const ALARM_PERMILLE: u32 = 800;
const FULL_PERMILLE: u32 = 1000;
/// Alarm when as many finished segments lie in their tails: a restore lists and opens each of those.
const UNSEALED_SEGMENTS_MAX: usize = 16;

/// Shared between the supervisor, which knows, and the services, which ask at every locate.
#[derive(Clone, Debug, Default)]
pub struct StreamMonitor {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    stream: Option<StreamWatch>,
    strict_wanted: bool,
    strict_on: bool,
    slot_fill_permille: Option<u32>,
    /// PostgreSQL gave up WAL that the repository has not got.
    slot_lost: bool,
    problem: Option<String>,
    /// Backups that a recovery could not use.
    passed_over: Vec<String>,
    protected: ProtectionStatus,
    key_warning: Option<String>,
}

/// How backups and proofs stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProtectionStatus {
    pub last_backup_micros: Option<i64>,
    pub last_proof_micros: Option<i64>,
    /// The newest proof failed: of which backup, and why.
    pub proof_failed: Option<String>,
    /// Jobs of the plan whose last run failed.
    pub failing: Vec<String>,
    pub jobs: Vec<JobReport>,
}

impl StreamMonitor {
    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A new stream is attached, or none.
    pub fn follow(&self, stream: Option<StreamWatch>) {
        self.with(|inner| {
            inner.strict_on = inner.strict_on && stream.is_some();
            inner.stream = stream;
        });
    }

    pub fn want_strict(&self, wanted: bool) {
        self.with(|inner| inner.strict_wanted = wanted);
    }

    pub fn set_strict(&self, on: bool) {
        self.with(|inner| inner.strict_on = on);
    }

    pub fn is_strict(&self) -> bool {
        self.with(|inner| inner.strict_on)
    }

    /// A slot that lost its WAL retains nothing; that is as full as it gets.
    pub fn set_slot(&self, slot: Option<&SlotStatus>) {
        let lost = slot.is_some_and(|slot| slot.wal_status == WalStatus::Lost);
        let permille = slot.and_then(|slot| {
            let limit = u128::from(slot.limit_bytes?.max(1));
            let permille = u128::from(slot.retained_bytes) * 1000 / limit;
            Some(u32::try_from(permille).unwrap_or(u32::MAX))
        });
        self.with(|inner| {
            inner.slot_lost = lost;
            inner.slot_fill_permille = if lost {
                permille.max(Some(FULL_PERMILLE))
            } else {
                permille
            };
        });
    }

    /// Something else that an operator should look at; `None` when it is over.
    pub fn set_problem(&self, problem: Option<String>) {
        self.with(|inner| inner.problem = problem);
    }

    pub fn set_passed_over(&self, sentences: Vec<String>) {
        self.with(|inner| inner.passed_over = sentences);
    }

    pub fn set_protected(&self, protected: &ProtectionStatus) {
        self.with(|inner| {
            if inner.protected != *protected {
                inner.protected = protected.clone();
            }
        });
    }

    /// Nothing is wrong yet: something is to be done in time.
    pub fn set_key_warning(&self, warning: Option<String>) {
        self.with(|inner| inner.key_warning = warning);
    }

    pub fn is_attached(&self) -> bool {
        self.with(|inner| {
            inner
                .stream
                .as_ref()
                .is_some_and(|stream| stream.state().attached)
        })
    }

    pub fn durable_lsn(&self) -> Option<u64> {
        self.with(|inner| inner.stream.as_ref().and_then(durable))
    }
}

/// Nothing is known to be durable before the first stream was attached.
fn durable(stream: &StreamWatch) -> Option<u64> {
    Some(stream.state().durable_lsn).filter(|lsn| *lsn > 0)
}

impl Inner {
    fn alarm(&self, error: Option<&str>) -> Option<String> {
        let fill = self
            .slot_fill_permille
            .filter(|permille| *permille >= ALARM_PERMILLE)
            .map(|permille| {
                format!(
                    "WAL that waits for the repository fills {}.{} % of max_slot_wal_keep_size",
                    permille / 10,
                    permille % 10
                )
            });
        let lost = self.slot_lost.then_some(
            "the limit was passed and PostgreSQL gave up WAL that the repository has not got: there will be a hole, and a full \
             backup after it as soon as the repository is back",
        );
        let hole = self.stream.as_ref().and_then(|stream| stream.state().hole);
        let hole = hole.map(|hole| {
            format!(
                "{}: a full backup after it is needed, and asked for",
                hole_words(&hole)
            )
        });
        let unsealed = self.stream.as_ref().and_then(|stream| {
            let sealing = stream.state().sealing;
            unsealed_words(&sealing)
        });
        let proof = self.protected.proof_failed.as_deref();
        let jobs = self.protected.failing.iter().map(String::as_str);
        let parts: Vec<&str> = [
            self.problem.as_deref(),
            error,
            fill.as_deref(),
            lost,
            hole.as_deref(),
            unsealed.as_deref(),
            proof,
        ]
        .into_iter()
        .flatten()
        .chain(self.passed_over.iter().map(String::as_str))
        .chain(jobs)
        .collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

fn unsealed_words(sealing: &SealStatus) -> Option<String> {
    let why = sealing
        .last_error
        .as_deref()
        .unwrap_or("it takes longer than PostgreSQL takes to write them");
    (sealing.pending >= UNSEALED_SEGMENTS_MAX).then(|| {
        format!(
            "{} finished WAL segments wait to be sealed ({why}); nothing is lost, restores take longer",
            sealing.pending
        )
    })
}

/// It costs room and nothing else, and may go on for as long as a store keeps what it was given.
fn undeleted_words(sealing: &SealStatus) -> Option<String> {
    let why = sealing.undeleted_reason.as_deref()?;
    Some(format!(
        "the store keeps {} objects that nothing needs any more ({why}); they are asked for again, and nothing waits for it",
        sealing.undeleted
    ))
}

/// What a hole costs, for people.
pub fn hole_words(hole: &Hole) -> String {
    format!(
        "WAL of timeline {} from {} to {} is missing ({}), and what comes behind it cannot be restored",
        hole.timeline,
        Lsn(hole.start),
        Lsn(hole.end),
        hole.reason
    )
}

impl StreamHealth for StreamMonitor {
    fn jobs(&self) -> Vec<JobReport> {
        self.with(|inner| inner.protected.jobs.clone())
    }

    fn report(&self) -> StreamReport {
        self.with(|inner| {
            let state = inner.stream.as_ref().map(StreamWatch::state);
            let full = inner
                .slot_fill_permille
                .is_some_and(|permille| permille >= FULL_PERMILLE);
            let after_hole = state.as_ref().is_some_and(|state| state.needs_full_backup);
            StreamReport {
                attached: state.as_ref().is_some_and(|state| state.attached),
                strict: inner.strict_on,
                durable_lsn: inner.stream.as_ref().and_then(durable),
                slot_fill_permille: inner.slot_fill_permille,
                last_backup_at_micros: inner.protected.last_backup_micros,
                last_proof_at_micros: inner.protected.last_proof_micros,
                proof_failed: inner.protected.proof_failed.is_some(),
                warning: warning(
                    inner.key_warning.clone(),
                    state
                        .as_ref()
                        .and_then(|state| undeleted_words(&state.sealing)),
                ),
                alarm: inner.alarm(state.as_ref().and_then(|state| state.error.as_deref())),
                refuse_locates: refusal(inner.strict_wanted, full, after_hole)
                    .map(ToOwned::to_owned),
            }
        })
    }
}

fn warning(key: Option<String>, undeleted: Option<String>) -> Option<String> {
    let parts: Vec<String> = key.into_iter().chain(undeleted).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Strict mode promises that what is acknowledged can be restored. Behind a hole WAL alone restores nothing.
fn refusal(strict: bool, full: bool, after_hole: bool) -> Option<&'static str> {
    match (strict, full, after_hole) {
        (true, true, _) => {
            Some("strict mode: the repository is away and PostgreSQL can keep no more WAL for it")
        }
        (true, false, true) => Some(
            "strict mode: WAL was lost on the way to the repository; locates are served again after the full backup that is being taken",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(wal_status: WalStatus, retained_bytes: u64) -> SlotStatus {
        SlotStatus {
            active: false,
            wal_status,
            restart_lsn: None,
            retained_bytes,
            limit_bytes: Some(1000),
            safe_bytes: None,
        }
    }

    #[test]
    fn what_a_store_does_not_let_go_is_a_warning_and_a_backlog_of_sealing_an_alarm() {
        let sealing = |pending, undeleted| SealStatus {
            pending,
            undeleted,
            undeleted_reason: (undeleted > 0).then(|| "AccessDenied".to_owned()),
            ..SealStatus::default()
        };
        assert_eq!(unsealed_words(&sealing(UNSEALED_SEGMENTS_MAX - 1, 0)), None);
        let told = unsealed_words(&sealing(UNSEALED_SEGMENTS_MAX, 0)).unwrap();
        assert!(told.starts_with("16 finished WAL segments"), "{told}");
        assert_eq!(undeleted_words(&sealing(0, 0)), None);
        let told = undeleted_words(&sealing(0, 28)).unwrap();
        assert!(
            told.contains("28 objects") && told.contains("AccessDenied"),
            "{told}"
        );
        let both = warning(Some("a key".to_owned()), Some(told)).unwrap();
        assert!(both.starts_with("a key; the store keeps"), "{both}");
    }

    #[test]
    fn the_limit_is_told_before_it_is_reached_and_after_it_was_passed() {
        let monitor = StreamMonitor::default();
        monitor.want_strict(true);
        let seen = |slot: &SlotStatus| {
            monitor.set_slot(Some(slot));
            let report = monitor.report();
            (
                report.slot_fill_permille,
                report.alarm.unwrap_or_default(),
                report.refuse_locates.is_some(),
            )
        };
        assert_eq!(
            seen(&slot(WalStatus::Reserved, 799)),
            (Some(799), String::new(), false)
        );
        let (fill, alarm, refused) = seen(&slot(WalStatus::Extended, 800));
        assert!(
            fill == Some(800) && alarm.contains("80.0 %") && !refused,
            "{alarm}"
        );
        assert!(seen(&slot(WalStatus::Unreserved, 1000)).2);
        let (fill, alarm, refused) = seen(&slot(WalStatus::Lost, 0));
        assert!(
            fill == Some(1000) && alarm.contains("hole") && refused,
            "{alarm}"
        );
        assert!(refusal(true, false, true).is_some_and(|why| why.contains("full backup")));
        assert_eq!(refusal(false, true, true), None, "normal mode goes on");
        assert_eq!(
            seen(&slot(WalStatus::Reserved, 0)),
            (Some(0), String::new(), false)
        );
    }
}
