//! The record of one run (`docs/formats/job_runs.md`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    job::{RunContext, RunReport},
    schedule::{Cause, Covers},
};

const VERSION: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Succeeded,
    Failed,
    /// It came to its end, and what it looked at is not sound. That is its result: it is not repeated.
    Unsound,
    /// It came to its end, and a part of what it looks after is not in what it made: the reason names the part.
    Partial,
    /// Nothing ran: the reason says why.
    Skipped,
    /// Its process ended before it.
    Interrupted,
    /// It was told to end.
    Cancelled,
    /// It was told to end at its deadline.
    TimedOut,
}

impl Outcome {
    /// Its appointments are accounted for.
    #[must_use]
    pub fn settles(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Unsound | Self::Partial | Self::Skipped
        )
    }

    /// An operator has to look at it.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(
            self,
            Self::Failed | Self::Unsound | Self::Partial | Self::TimedOut
        )
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Unsound => "unsound",
            Self::Partial => "partial",
            Self::Skipped => "skipped",
            Self::Interrupted => "interrupted",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Done(RunReport),
    /// And which part is not done, and why.
    Partial(RunReport, String),
    Failed(String),
    Cancelled(String),
    TimedOut(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    pub record_version: u32,
    pub run_id: String,
    pub job: String,
    pub component: String,
    pub driver: String,
    /// As the driver had it; empty in records of older ones.
    #[serde(default)]
    pub schedule: String,
    pub cause: Cause,
    pub planned_at_micros: i64,
    pub started_at_micros: i64,
    pub ended_at_micros: Option<i64>,
    pub outcome: Outcome,
    pub reason: Option<String>,
    #[serde(default)]
    pub summary: String,
    #[serde(default)]
    pub bytes: Option<u64>,
    #[serde(default)]
    pub figures: BTreeMap<String, i64>,
    #[serde(default)]
    pub covers: Option<Covers>,
    #[serde(default)]
    pub claims: Vec<String>,
}

/// What a record says of who wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin<'a> {
    pub(crate) job: &'a str,
    pub(crate) component: &'a str,
    pub(crate) driver: &'a str,
    pub(crate) schedule: String,
    pub(crate) claims: Vec<String>,
}

impl End {
    /// Of a run that came to its own end.
    pub(crate) fn of(report: RunReport, context: &RunContext) -> Self {
        match context.lack() {
            None => Self::Done(report),
            Some(lacks) => Self::Partial(report, lacks),
        }
    }
}

impl RunRecord {
    /// Of a run that starts: interrupted until its end is known.
    pub(crate) fn begun(
        origin: Origin<'_>,
        cause: Cause,
        planned_at: i64,
        started_at: i64,
    ) -> Self {
        Self {
            record_version: VERSION,
            run_id: new_run_id(started_at),
            job: origin.job.to_owned(),
            component: origin.component.to_owned(),
            driver: origin.driver.to_owned(),
            schedule: origin.schedule,
            cause,
            planned_at_micros: planned_at,
            started_at_micros: started_at,
            ended_at_micros: None,
            outcome: Outcome::Interrupted,
            reason: None,
            summary: String::new(),
            bytes: None,
            figures: BTreeMap::new(),
            covers: None,
            claims: origin.claims,
        }
    }

    /// Completes it.
    pub(crate) fn end(&mut self, end: End, ended_at: i64) {
        self.ended_at_micros = Some(ended_at);
        let (outcome, reason) = match end {
            End::Done(report) => match self.report(report) {
                None => (Outcome::Succeeded, None),
                Some(reason) => (Outcome::Unsound, Some(reason)),
            },
            End::Partial(report, lacks) => match self.report(report) {
                None => (Outcome::Partial, Some(lacks)),
                Some(reason) => (Outcome::Unsound, Some(format!("{reason}; {lacks}"))),
            },
            End::Failed(reason) => (Outcome::Failed, Some(reason)),
            End::Cancelled(reason) => (Outcome::Cancelled, Some(reason)),
            End::TimedOut(reason) => (Outcome::TimedOut, Some(reason)),
        };
        self.outcome = outcome;
        self.reason = reason.or(self.reason.take());
    }

    /// What came of it; why what it looked at is not sound.
    fn report(&mut self, report: RunReport) -> Option<String> {
        self.summary = report.summary;
        self.bytes = report.bytes;
        self.figures = report.figures;
        report.unsound
    }

    /// How long it took, where its end is known and not before its start.
    #[must_use]
    pub fn duration_micros(&self) -> Option<i64> {
        let took = self.ended_at_micros?.checked_sub(self.started_at_micros)?;
        (took >= 0).then_some(took)
    }

    /// Its name, in a folder and in a repository.
    #[must_use]
    pub fn name(&self) -> String {
        format!("runs/{}/{}", month_of(self.started_at_micros), self.run_id)
    }

    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Every field of it is text, a number or a list of these: there is nothing that could fail.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// # Errors
    /// Why it cannot be read.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct RecordVersion {
            record_version: u32,
        }
        let versioned: RecordVersion =
            serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if versioned.record_version != VERSION {
            return Err(format!(
                "it is a record of version {}; this engine reads version {VERSION}",
                versioned.record_version
            ));
        }
        let record: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match is_run_id(&record.run_id, record.started_at_micros) {
            true => Ok(record),
            false => Err(format!(
                "{:?} is no id of a run that started then",
                record.run_id
            )),
        }
    }
}

fn new_run_id(started_at_micros: i64) -> String {
    format!(
        "{:016x}-{:08x}",
        started_at_micros.max(0),
        rand::random::<u32>()
    )
}

/// Of 16 and 8 digits, the first of which are the start.
fn is_run_id(text: &str, started_at_micros: i64) -> bool {
    let digits = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    text.split_once('-').is_some_and(|(started, random)| {
        started == format!("{:016x}", started_at_micros.max(0))
            && random.len() == 8
            && digits(random)
    })
}

/// `2026-11`.
pub(crate) fn month_of(micros: i64) -> String {
    let at = jiff::Timestamp::from_microsecond(micros.max(0)).unwrap_or(jiff::Timestamp::MAX);
    let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
    format!("{:04}-{:02}", date.year(), date.month())
}
