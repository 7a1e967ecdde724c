//! The stream of WAL into the repository. The engine streams, because its whole life depends on it; this job says since
//! when, up to where, and how it ended.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use backup::stream::StreamState;
use jobs::{
    Availability, Deadline, FirstRun, JobSpec, PausePolicy, RunContext, RunReport, Storage,
    schedule::Trigger,
};
use postgres_physical::lsn::Lsn;

use super::{JobDefinition, JobEnvironment, Task, days};
use crate::{
    config::{self, OlderSettings},
    error::Error,
};

pub(super) const JOB: JobDefinition = JobDefinition {
    spec,
    task: || Box::new(WalStream),
    for_clusters: true,
    older_settings: |backup| OlderSettings {
        schedule: None,
        keep_days: Some(&mut backup.wal_days),
    },
};

pub const NAME: &str = "wal.stream";
const LOOK: Duration = Duration::from_millis(500);
/// A stream that is attached again within this was not interrupted: it follows a timeline, or takes a new key.
const DETACHED_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two words on how far it is: they are written to a file.
const PROGRESS_PAUSE: Duration = Duration::from_secs(60);

const NOT_BY_HAND: &str =
    "the engine streams as long as it runs; bre wal stream --cluster NAME streams another cluster";

struct WalStream;

fn spec(config: &config::Backup) -> JobSpec {
    JobSpec {
        name: NAME.to_owned(),
        aliases: vec!["wal".to_owned(), "database.wal".to_owned()],
        component: "database".to_owned(),
        kind: "transaction log".to_owned(),
        group: None,
        trigger: Trigger::Continuous,
        retention: days(config.wal_days).and("and as long as a kept backup needs it"),
        storage: Storage::Repository,
        locks: vec!["wal_stream".to_owned()],
        covered_by: Vec::new(),
        priority: 40,
        deadline: Deadline::None,
        objective: None,
        verification:
            "each segment is read back before its tails go; every restore test replays it"
                .to_owned(),
        first_run: FirstRun::NextAppointment,
    }
}

impl Task for WalStream {
    fn not_by_hand(&self) -> Option<&'static str> {
        Some(NOT_BY_HAND)
    }

    fn availability(&self, environment: &JobEnvironment) -> Availability {
        if environment.is_by_hand() {
            return Availability::Unavailable(NOT_BY_HAND.to_owned());
        }
        match environment.moment().stream.map(|stream| stream.state()) {
            Some(state) if state.attached => Availability::Ready,
            Some(StreamState {
                error: Some(error), ..
            }) => Availability::Waiting(format!("it is not attached: {error}")),
            _ => Availability::Waiting("it is not attached yet".to_owned()),
        }
    }

    fn pause_policy(&self, config: &config::Backup) -> PausePolicy {
        match config.strict {
            true => PausePolicy::Refused(
                "commits wait for the stream: set [database] strict = false first".to_owned(),
            ),
            false => PausePolicy::Alarming(
                "what is committed meanwhile is on one disk only, and PostgreSQL keeps WAL until its limit"
                    .to_owned(),
            ),
        }
    }

    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        let mut figures = Figures::default();
        let (mut attached_at, mut told_at) = (Instant::now(), None::<Instant>);
        loop {
            let state = environment.moment().stream.map(|stream| stream.state());
            let state = state.unwrap_or_default();
            if state.attached {
                attached_at = Instant::now();
                figures.follow(&state);
            }
            if told_at.is_none_or(|at| at.elapsed() >= PROGRESS_PAUSE) {
                context.progress(figures.words());
                told_at = Some(Instant::now());
            }
            if context.pause(LOOK) {
                return Ok(figures.report());
            }
            if attached_at.elapsed() >= DETACHED_TIMEOUT {
                let why = state.error.unwrap_or_else(|| "it was stopped".to_owned());
                return Err(Error::failed(format!("{}; then: {why}", figures.words())));
            }
        }
    }
}

/// Of one run.
#[derive(Default)]
struct Figures {
    timeline: u32,
    first_lsn: Option<u64>,
    durable_lsn: u64,
    confirmed_at_micros: Option<i64>,
}

impl Figures {
    fn follow(&mut self, state: &StreamState) {
        self.timeline = state.timeline;
        if state.durable_lsn > 0 {
            self.first_lsn.get_or_insert(state.durable_lsn);
        }
        self.durable_lsn = self.durable_lsn.max(state.durable_lsn);
        self.confirmed_at_micros = self.confirmed_at_micros.max(state.confirmed_at_micros);
    }

    fn words(&self) -> String {
        let confirmed = match self.confirmed_at_micros {
            Some(at) => format!("every commit up to {} is", terminal::moment(at)),
            None => "nothing was confirmed yet of what is".to_owned(),
        };
        format!(
            "timeline {} up to LSN {}; {confirmed} in the repository",
            self.timeline,
            Lsn(self.durable_lsn)
        )
    }

    fn report(&self) -> RunReport {
        let streamed = self
            .durable_lsn
            .saturating_sub(self.first_lsn.unwrap_or(self.durable_lsn));
        RunReport {
            summary: self.words(),
            bytes: Some(streamed),
            figures: BTreeMap::from([("timeline".to_owned(), i64::from(self.timeline))]),
            unsound: None,
        }
    }
}
