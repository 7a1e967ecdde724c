//! The verdict: the answers that clients got, compared with what is there afterwards.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use audit::{Entry, Kind};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    Fault,
    ledger::{RequestOutcome, RequestRecord},
};
use crate::objectives::LOSS_WINDOW_NORMAL;

/// What a drill found. `passed` is the exit code; everything else says why.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub scenario: String,
    pub mode: String,
    pub and_engine: bool,
    /// A warm standby took the place of the database.
    #[serde(rename = "spare")]
    pub standby: bool,
    /// What went wrong besides.
    pub fault: Option<Fault>,
    pub seed: u64,
    pub clients: usize,
    /// Answers that a client had read whole before the kill, or after it.
    pub acknowledged: u64,
    /// Of those, how many the recovered audit log holds with the same quote and fee.
    pub recovered: u64,
    /// Acknowledged, and gone.
    pub lost: u64,
    /// Requests whose client cannot know how they ended.
    pub in_doubt: u64,
    /// Of those, how many turned out to be on record.
    pub in_doubt_recorded: u64,
    pub refused: u64,
    /// Age, at the kill, of the oldest lost acknowledgement; 0 where nothing was lost.
    pub rpo_seconds: f64,
    /// From the kill to the first new durable quote.
    pub rto_seconds: f64,
    pub audit_verified: bool,
    pub audit_entries: u64,
    pub replayed: u64,
    pub replay_mismatches: u64,
    pub passed: bool,
    /// Why it did not pass, a sentence each.
    pub failures: Vec<String>,
}

/// `bre verify audit --json`, as far as the verdict needs it.
#[derive(Debug, Deserialize)]
pub(crate) struct AuditVerdict {
    pub(crate) entries: u64,
    /// How many of them are vouched for.
    pub(crate) verified: u64,
    pub(crate) first_bad: Option<serde_json::Value>,
    pub(crate) reason: Option<String>,
}

impl AuditVerdict {
    fn is_sound(&self) -> bool {
        self.first_bad.is_none() && self.verified == self.entries && self.entries > 0
    }
}

/// `bre replay --json`, as far as the verdict needs it.
#[derive(Debug, Deserialize)]
pub(crate) struct ReplayVerdict {
    pub(crate) replayed: u64,
    pub(crate) mismatches: u64,
}

/// Everything the verdict is reached from.
#[derive(Debug)]
pub(crate) struct Evidence {
    pub(crate) seed: u64,
    pub(crate) clients: usize,
    pub(crate) strict: bool,
    pub(crate) and_engine: bool,
    /// The restore that the standby came from, when it was to take the place.
    pub(crate) standby: Option<String>,
    pub(crate) fault: Option<Fault>,
    pub(crate) rto_max: Duration,
    /// Just before the first signal.
    pub(crate) killed_at_micros: i64,
    /// When the last process of the database had ended: until then it could still commit.
    pub(crate) dead_at_micros: i64,
    pub(crate) epoch_before: u32,
    pub(crate) records: Vec<RequestRecord>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) audit: AuditVerdict,
    pub(crate) replay: ReplayVerdict,
}

struct OnRecord {
    quotes: HashMap<(u32, u64), (String, String)>,
    requests: HashSet<String>,
}

/// The recorded total, digit for digit.
fn total_of(outputs: &str) -> String {
    #[derive(Deserialize)]
    struct Outputs<'a> {
        #[serde(borrow)]
        total_fee: &'a RawValue,
    }
    serde_json::from_str::<Outputs<'_>>(outputs)
        .map(|outputs| outputs.total_fee.get().to_owned())
        .unwrap_or_default()
}

impl OnRecord {
    fn read(entries: &[Entry]) -> Self {
        let mut on_record = Self {
            quotes: HashMap::new(),
            requests: HashSet::new(),
        };
        for entry in entries.iter().filter(|entry| entry.kind == Kind::Quote) {
            let field = |name| entry.fields.get(name).unwrap_or_default().to_owned();
            let total = total_of(entry.fields.get("outputs").unwrap_or_default());
            on_record
                .quotes
                .insert((entry.epoch, entry.position), (field("quote_id"), total));
            on_record.requests.insert(field("request_id"));
        }
        on_record
    }

    fn holds(&self, record: &RequestRecord) -> bool {
        let RequestOutcome::Acknowledged {
            quote_id,
            epoch,
            position,
            total_fee,
        } = &record.outcome
        else {
            return false;
        };
        self.quotes
            .get(&(*epoch, *position))
            .is_some_and(|(id, fee)| id == quote_id && fee == total_fee)
    }
}

impl Evidence {
    pub(crate) fn judge(&self) -> Report {
        let on_record = OnRecord::read(&self.entries);
        let is_acknowledged =
            |record: &&RequestRecord| matches!(record.outcome, RequestOutcome::Acknowledged { .. });
        let acknowledged: Vec<&RequestRecord> =
            self.records.iter().filter(is_acknowledged).collect();
        let lost: Vec<&RequestRecord> = acknowledged
            .iter()
            .copied()
            .filter(|record| !on_record.holds(record))
            .collect();
        let in_doubt: Vec<&RequestRecord> = self
            .records
            .iter()
            .filter(|record| record.outcome == RequestOutcome::InDoubt)
            .collect();
        let recorded = in_doubt
            .iter()
            .filter(|record| on_record.requests.contains(&record.request_id))
            .count();

        let rpo = lost
            .iter()
            .map(|record| record.ended_at_micros)
            .min()
            .map_or(Duration::ZERO, |oldest| {
                since(oldest, self.killed_at_micros)
            });
        let rto = self
            .first_after_recovery()
            .map(|ended| since(self.killed_at_micros, ended));
        let failures = self.failures(&lost, rto);
        Report {
            scenario: "database-loss".into(),
            mode: if self.strict { "strict" } else { "normal" }.into(),
            and_engine: self.and_engine,
            standby: self.standby.is_some() && self.standby_was_taken(),
            fault: self.fault,
            seed: self.seed,
            clients: self.clients,
            acknowledged: acknowledged.len() as u64,
            recovered: (acknowledged.len() - lost.len()) as u64,
            lost: lost.len() as u64,
            in_doubt: in_doubt.len() as u64,
            in_doubt_recorded: recorded as u64,
            refused: self
                .records
                .iter()
                .filter(|r| matches!(r.outcome, RequestOutcome::Refused { .. }))
                .count() as u64,
            rpo_seconds: rpo.as_secs_f64(),
            rto_seconds: rto.unwrap_or_default().as_secs_f64(),
            audit_verified: self.audit.is_sound(),
            audit_entries: self.audit.entries,
            replayed: self.replay.replayed,
            replay_mismatches: self.replay.mismatches,
            passed: failures.is_empty(),
            failures,
        }
    }

    /// When the first quote of a later epoch was acknowledged: that one cannot have been made before the kill.
    fn first_after_recovery(&self) -> Option<i64> {
        self.records
            .iter()
            .filter(|record| epoch_of(record) > Some(self.epoch_before))
            .map(|r| r.ended_at_micros)
            .min()
    }

    /// By the fact of the recovery, which the new epoch's first entry names.
    fn standby_was_taken(&self) -> bool {
        let Some(expected) = &self.standby else {
            return true;
        };
        let named = |entry: &Entry| entry.fields.get("restore_id") == Some(expected.as_str());
        self.entries.iter().any(named)
    }

    fn failures(&self, lost: &[&RequestRecord], rto: Option<Duration>) -> Vec<String> {
        let mut failures = Vec::new();
        if self.strict && !lost.is_empty() {
            failures.push(format!(
                "strict mode lost {} acknowledged quotes; it may lose none",
                lost.len()
            ));
        }
        let too_old = lost
            .iter()
            .filter(|record| !self.is_in_loss_window(record))
            .count();
        if !self.strict && too_old > 0 {
            failures.push(format!(
                "{too_old} lost quotes were not acknowledged within the last second before the kill"
            ));
        }
        match rto {
            None => failures.push("no quote of a new epoch was acknowledged after the kill".into()),
            Some(rto) if rto > self.rto_max => {
                failures.push(format!(
                    "recovery took {} s, the limit is {} s",
                    rto.as_secs(),
                    self.rto_max.as_secs()
                ));
            }
            Some(_) => {}
        }
        if !self.standby_was_taken() {
            failures.push(
                "the database was restored from a backup instead of the standby's promotion".into(),
            );
        }
        if !self.audit.is_sound() {
            let reason = self.audit.reason.as_deref().unwrap_or("no reason given");
            failures.push(format!("the audit log does not verify: {reason}"));
        }
        if self.replay.mismatches > 0 {
            failures.push(format!(
                "{} replayed quotes differ from the record",
                self.replay.mismatches
            ));
        }
        if self.replay.replayed == 0 {
            failures.push("no quote was replayed".into());
        }
        failures
    }
}

impl Evidence {
    /// Normal mode may lose what it acknowledged within the last second. A database that is being killed commits until
    /// it is dead, and an answer may be read a little later still; one to a request after that, or of a later epoch,
    /// has no excuse.
    fn is_in_loss_window(&self, record: &RequestRecord) -> bool {
        let limit = i64::try_from(LOSS_WINDOW_NORMAL.as_micros()).unwrap_or(i64::MAX);
        let of_old_epoch = epoch_of(record).is_some_and(|epoch| epoch <= self.epoch_before);
        of_old_epoch
            && record.sent_at_micros <= self.dead_at_micros
            && self.killed_at_micros - record.ended_at_micros <= limit
    }
}

fn epoch_of(record: &RequestRecord) -> Option<u32> {
    match record.outcome {
        RequestOutcome::Acknowledged { epoch, .. } => Some(epoch),
        _ => None,
    }
}

fn since(earlier_micros: i64, later_micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(later_micros - earlier_micros).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use audit::{Fields, Hash};

    use super::*;

    const KILL: i64 = 10_000_000;

    fn acknowledged(epoch: u32, position: u64, ended_at_micros: i64) -> RequestRecord {
        let outcome = RequestOutcome::Acknowledged {
            quote_id: format!("q{position}"),
            epoch,
            position,
            total_fee: "1.0000".into(),
        };
        RequestRecord {
            request_id: format!("r{position}"),
            sent_at_micros: ended_at_micros - 10,
            ended_at_micros,
            outcome,
        }
    }

    fn entry(epoch: u32, position: u64, total_fee: &str) -> Entry {
        let mut fields = Fields::default();
        for (name, value) in [
            ("quote_id", format!("q{position}")),
            ("request_id", format!("r{position}")),
            ("outputs", format!("{{\"total_fee\":{total_fee}}}")),
        ] {
            fields.set(name, value);
        }
        Entry {
            log: 1,
            epoch,
            position,
            previous: Hash::from_bytes([0; 32]),
            recorded_at_micros: 0,
            kind: Kind::Quote,
            fields,
        }
    }

    fn evidence(strict: bool, records: Vec<RequestRecord>, entries: Vec<Entry>) -> Evidence {
        Evidence {
            seed: 1,
            clients: 1,
            strict,
            and_engine: false,
            standby: None,
            fault: None,
            rto_max: Duration::from_secs(30),
            killed_at_micros: KILL,
            dead_at_micros: KILL + 20,
            epoch_before: 1,
            records,
            entries,
            audit: AuditVerdict {
                entries: 3,
                verified: 3,
                first_bad: None,
                reason: None,
            },
            replay: ReplayVerdict {
                replayed: 2,
                mismatches: 0,
            },
        }
    }

    fn check(evidence: &Evidence, lost: u64, passed: bool) -> Report {
        let report = evidence.judge();
        assert_eq!((report.lost, report.passed), (lost, passed), "{report:?}");
        report
    }

    #[test]
    fn all_there_passes() {
        let records = vec![
            acknowledged(1, 1, KILL - 500),
            acknowledged(2, 3, KILL + 2_000_000),
        ];
        let report = check(
            &evidence(
                true,
                records,
                vec![entry(1, 1, "1.0000"), entry(2, 3, "1.0000")],
            ),
            0,
            true,
        );
        assert_eq!((report.acknowledged, report.recovered), (2, 2));
        assert!((1.9..2.1).contains(&report.rto_seconds));
    }

    #[test]
    fn a_lost_quote_fails_strict_and_a_late_one_passes_normal() {
        let records = vec![
            acknowledged(1, 1, KILL - 400_000),
            acknowledged(2, 3, KILL + 1),
        ];
        check(
            &evidence(true, records.clone(), vec![entry(2, 3, "1.0000")]),
            1,
            false,
        );
        let report = check(
            &evidence(false, records, vec![entry(2, 3, "1.0000")]),
            1,
            true,
        );
        assert!((0.39..0.41).contains(&report.rpo_seconds));
    }

    #[test]
    fn normal_mode_may_not_lose_more_than_a_second_nor_anything_after_the_kill() {
        let early = vec![
            acknowledged(1, 1, KILL - 1_000_001),
            acknowledged(2, 3, KILL + 1),
        ];
        check(
            &evidence(false, early, vec![entry(2, 3, "1.0000")]),
            1,
            false,
        );
        let on_its_way = vec![acknowledged(1, 1, KILL + 5), acknowledged(2, 3, KILL + 9)];
        check(
            &evidence(false, on_its_way, vec![entry(2, 3, "1.0000")]),
            1,
            true,
        );
        let sent_after = vec![
            acknowledged(1, 1, KILL + 500),
            acknowledged(2, 3, KILL + 900),
        ];
        check(
            &evidence(false, sent_after, vec![entry(2, 3, "1.0000")]),
            1,
            false,
        );
        let after = vec![acknowledged(2, 2, KILL + 5), acknowledged(2, 3, KILL + 1)];
        check(
            &evidence(false, after, vec![entry(2, 3, "1.0000")]),
            1,
            false,
        );
    }

    #[test]
    fn another_fee_on_record_is_a_loss() {
        let records = vec![acknowledged(1, 1, KILL - 1), acknowledged(2, 3, KILL + 1)];
        check(
            &evidence(
                true,
                records,
                vec![entry(1, 1, "1.0001"), entry(2, 3, "1.0000")],
            ),
            1,
            false,
        );
    }

    #[test]
    fn doubt_is_counted_apart() {
        let mut doubtful = acknowledged(1, 2, KILL);
        doubtful.outcome = RequestOutcome::InDoubt;
        let records = vec![doubtful, acknowledged(2, 3, KILL + 1)];
        let report = check(
            &evidence(
                true,
                records,
                vec![entry(1, 2, "1.0000"), entry(2, 3, "1.0000")],
            ),
            0,
            true,
        );
        assert_eq!((report.in_doubt, report.in_doubt_recorded), (1, 1));
    }

    #[test]
    fn never_back_fails() {
        check(
            &evidence(
                true,
                vec![acknowledged(1, 1, KILL - 1)],
                vec![entry(1, 1, "1.0000")],
            ),
            0,
            false,
        );
    }
}
