//! The restored audit log against the signed heads that lie outside the database, and its quotes priced again.

use assurance::verification::Check;
use audit::{Head, Verdict, VerifyingKey};
use host::log::LOG;
use recovery::database::{Plan, RecoveryReport};
use repository::Repository;
use serde_json::{Value, json};
use services::{AuditReport, Period};

use crate::{
    audit_outside::{Extent, Outside},
    audit_statements,
    error::Error,
    schema_check::schema_check,
    scratch::ScratchFolder,
};

/// Quotes that are priced again: windows of so many entries, spread evenly over the log.
const WINDOWS: u64 = 8;
const WINDOW_ENTRIES: u64 = 250;

const NAMES: [&str; 3] = ["schema", "audit_log", "replayed_quotes"];

pub(super) fn not_an_engine() -> Vec<Check> {
    let why = "the cluster holds no tables of the engine";
    let check = |name: &&str| Check::not_applicable(name, why);
    NAMES.iter().map(check).collect()
}

/// Whether there may be WAL behind the end of the replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replay {
    ToItsEnd,
    ToTheNewest,
}

pub(super) struct LogCheck<'a> {
    pub(super) database: &'a str,
    pub(super) scratch: &'a ScratchFolder,
    pub(super) repository: &'a Repository,
    pub(super) trusted: &'a [VerifyingKey],
    pub(super) plan: &'a Plan,
    pub(super) recovered: &'a RecoveryReport,
}

impl LogCheck<'_> {
    pub(super) fn checks(&self, outside: &Outside, replay: Replay) -> Vec<Check> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                let failed = |name: &&str| Check::failed(name, error.to_string(), Value::Null);
                return NAMES.iter().map(failed).collect();
            }
        };
        let url = self.scratch.url(self.database);
        let (schema, log, entries) = runtime.block_on(self.verify(&url, outside, replay));
        let quotes = runtime.block_on(self.replay(&url, entries));
        vec![schema, log, quotes]
    }

    /// The heads that this copy must contain, and those of later.
    pub(super) async fn contained(
        &self,
        url: &str,
        all: &[Head],
        reach: Replay,
    ) -> Result<(Vec<Head>, Vec<Head>), Error> {
        let openings = services::openings(url, LOG).await?;
        let mut stretches = self.stretches();
        if let (Replay::ToTheNewest, Some((timeline, end))) = (reach, stretches.last_mut()) {
            // The log says itself what every recovery before it left behind.
            if openings.last().is_some_and(|(_, of)| of == timeline) {
                return Ok((all.to_vec(), Vec::new()));
            }
            // Nothing is behind the newest WAL: what was signed there is missing.
            *end = u64::MAX;
        }
        let inside = within(all, &stretches, &openings);
        let later = all.iter().filter(|head| !inside.contains(head));
        Ok((inside.clone(), later.cloned().collect()))
    }

    /// What a verification of this copy finds, how many heads it was held against, and how much of what is known it
    /// had to hold.
    pub(super) async fn judge(
        &self,
        url: &str,
        outside: &Outside,
        replay: Replay,
    ) -> Result<(AuditReport, usize, Extent), Error> {
        let (heads, later) = self.contained(url, &outside.heads, replay).await?;
        let mut report = services::verify(url, LOG, &heads, self.trusted).await?;
        audit_statements::judge(url, self.repository, outside, &mut report.log).await?;
        let extent = match replay == Replay::ToItsEnd || !later.is_empty() {
            true => Extent::Part { later },
            false => Extent::Whole,
        };
        Ok((report, heads.len(), extent))
    }

    /// The checks of schema and log, and how many entries there are.
    async fn verify(&self, url: &str, outside: &Outside, replay: Replay) -> (Check, Check, u64) {
        const NAME: &str = NAMES[1];
        let (mut report, heads, extent) = match self.judge(url, outside, replay).await {
            Ok(judged) => judged,
            Err(error) => {
                let failed = |name| Check::failed(name, error.to_string(), Value::Null);
                return (failed(NAMES[0]), failed(NAME), 0);
            }
        };
        let schema = schema_check(&report.schema);
        let now_micros = match replay {
            // What was recorded a minute before its end had a head by then.
            Replay::ToItsEnd => self.plan.backup.finished_at_micros,
            Replay::ToTheNewest => jiff::Timestamp::now().as_microsecond(),
        };
        let (verdict, beside) = outside.judge(&mut report.log, &extent, now_micros);
        let log = &report.log;
        let later = match &extent {
            Extent::Part { later } => later.len(),
            Extent::Whole => 0,
        };
        let detail = json!({
            "entries": log.entries, "verified": log.verified, "quotes": report.quotes, "heads": heads,
            "heads_agreed": log.heads_agreed, "covered_to": log.covered_to, "known_losses": log.known_losses.len(),
            "heads_of_later": later, "tables": report.tables.verdict, "verdict": verdict.name(), "beside": beside,
        });
        let failed = |why: String| Check::failed(NAME, why, detail.clone());
        let check = match verdict {
            Verdict::Rewritten | Verdict::Cut => {
                let reason = log.reason.clone().unwrap_or_default();
                let place = log.first_bad.map_or(String::new(), |bad| {
                    format!("epoch {} position {}: ", bad.epoch, bad.position)
                });
                failed(format!("{place}{reason}"))
            }
            Verdict::Unanchored => failed(
                "it is sound by itself, but no signed head outside the database vouches for it"
                    .to_owned(),
            ),
            Verdict::Sound | Verdict::KnownLoss => Check::passed(NAME, detail),
            Verdict::SoundUpTo => Check {
                warnings: vec![format!(
                    "no signed head covers what follows position {}",
                    log.covered_to
                )],
                ..Check::passed(NAME, detail)
            },
        };
        (schema, check, log.entries)
    }

    async fn replay(&self, url: &str, entries: u64) -> Check {
        const NAME: &str = NAMES[2];
        let failed = |why: String| Check::failed(NAME, why, Value::Null);
        let periods = match self.periods(url, entries).await {
            Ok(periods) => periods,
            Err(error) => return failed(error.to_string()),
        };
        let (mut replayed, mut wrong) = (0, Vec::new());
        for period in periods {
            match services::replay(url, LOG, period, |_| ()).await {
                Ok(report) => {
                    replayed += report.checked;
                    wrong.extend(report.mismatches);
                }
                Err(error) => return failed(error.to_string()),
            }
        }
        let detail =
            json!({ "replayed": replayed, "mismatches": wrong.len(), "of_entries": entries });
        let Some(first) = wrong.first() else {
            return Check::passed(NAME, detail);
        };
        let why = format!(
            "{} quotes differ from their record; the first: epoch {} position {}: {}",
            wrong.len(),
            first.epoch,
            first.position,
            first.reason
        );
        Check::failed(NAME, why, detail)
    }

    /// When the entries of each window were recorded.
    async fn periods(&self, url: &str, entries: u64) -> Result<Vec<Period>, Error> {
        let windows = windows(entries);
        if windows.len() == 1 {
            return Ok(vec![Period::default()]);
        }
        Ok(services::periods(url, LOG, &windows).await?)
    }

    /// The timelines that the replay ran through, and where it left each.
    fn stretches(&self) -> Vec<(u32, u64)> {
        let end = self.recovered.switch_lsn;
        let path = self.plan.path.iter();
        path.map(|piece| (piece.timeline, piece.end.unwrap_or(end).min(end)))
            .collect()
    }
}

/// The heads that this point of the cluster's history must contain: a head says up to which WAL position its last entry lies,
/// and an epoch's opening on which timeline. One of an epoch that is not in the log counts if its timeline is on the way (an epoch
/// has its timeline's number or a greater one), unless it was opened on a branch that was left.
fn within(heads: &[Head], stretches: &[(u32, u64)], epochs: &[(u32, u32)]) -> Vec<Head> {
    let last = stretches.last().copied().unwrap_or_default();
    let end_of = |timeline: u32| {
        stretches
            .iter()
            .find(|(on, _)| *on == timeline)
            .map(|(_, end)| *end)
    };
    let end = |epoch: u32| match epochs.iter().find(|(known, _)| *known == epoch) {
        Some((_, timeline)) => end_of(*timeline),
        None => end_of(epoch).or_else(|| (epoch > last.0).then_some(last.1)),
    };
    let inside = |head: &&Head| end(head.epoch).is_some_and(|end| head.lsn <= end);
    heads.iter().filter(inside).cloned().collect()
}

/// The whole of a small log; of a large one evenly spread windows, the last of them at its end.
fn windows(entries: u64) -> Vec<(u64, u64)> {
    if entries <= WINDOWS * WINDOW_ENTRIES {
        return vec![(1, entries)];
    }
    let stride = (entries - WINDOW_ENTRIES) / (WINDOWS - 1);
    let from = |number: u64| match number {
        last if last == WINDOWS - 1 => entries - WINDOW_ENTRIES + 1,
        number => number * stride + 1,
    };
    (0..WINDOWS)
        .map(|number| (from(number), from(number) + WINDOW_ENTRIES - 1))
        .collect()
}

#[cfg(test)]
mod tests {
    use audit::{Chain, EpochOpening, SigningKey};

    use super::*;

    fn head(epoch: u32, lsn: u64) -> Head {
        let key = SigningKey::generate().unwrap();
        let mut chain = Chain::new(LOG);
        chain
            .open_epoch(0, &EpochOpening::Created { timeline: 1 }, &key)
            .unwrap();
        Head {
            epoch,
            ..chain.head(1, lsn).unwrap()
        }
    }

    #[test]
    fn only_the_heads_of_this_history_must_be_in_it() {
        let check = |stretches: &[(u32, u64)],
                     epochs: &[(u32, u32)],
                     heads: &[(u32, u64)],
                     expected: &[(u32, u64)]| {
            let heads: Vec<Head> = heads
                .iter()
                .map(|(epoch, lsn)| head(*epoch, *lsn))
                .collect();
            let found: Vec<(u32, u64)> = within(&heads, stretches, epochs)
                .iter()
                .map(|head| (head.epoch, head.lsn))
                .collect();
            assert_eq!(found, expected);
        };
        // One timeline, replayed to 500: what was signed of later is not asked for.
        check(
            &[(1, 500)],
            &[(1, 1)],
            &[(1, 400), (1, 500), (1, 501)],
            &[(1, 400), (1, 500)],
        );
        // Recovered at 300: of the old epoch only what lies before the branch.
        check(
            &[(1, 300), (2, 900)],
            &[(1, 1), (2, 2)],
            &[(1, 300), (1, 400), (2, 800)],
            &[(1, 300), (2, 800)],
        );
        // The opening itself is missing from the restored log: its heads must not go by unseen.
        check(
            &[(1, 300), (2, 900)],
            &[(1, 1)],
            &[(2, 800), (2, 901)],
            &[(2, 800)],
        );
        // Timeline 2 was left for 3, whose opening is not written yet.
        check(
            &[(1, 300), (3, 900)],
            &[(1, 1)],
            &[(1, 200), (2, 800)],
            &[(1, 200)],
        );
    }

    #[test]
    fn a_sample_covers_both_ends() {
        assert_eq!(windows(10), [(1, 10)]);
        let windows = windows(100_000);
        assert_eq!(
            (
                windows.len() as u64,
                windows[0].0,
                windows.last().unwrap().1
            ),
            (WINDOWS, 1, 100_000)
        );
        assert!(
            windows.windows(2).all(|pair| pair[0].1 < pair[1].0),
            "{windows:?}"
        );
    }
}
