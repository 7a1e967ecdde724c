//! Copies of the repository, `[repositories.NAME]`: backups and WAL by copy from the first, all the time.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use jobs::{
    Availability, Deadline, FirstRun, JobSpec, Retention, RunContext, RunReport, Storage,
    schedule::Trigger,
};

use super::{JobDefinition, JobEnvironment, Task, answer, with_settings};
use crate::{
    command_output::CommandOutput,
    config::{self, OlderSettings},
    copies::{Copier, CopyBoard, Round, RoundReport},
    error::Error,
    expiry::Log,
};

pub(super) const JOB: JobDefinition = JobDefinition {
    spec,
    task: || Box::new(RepositoryCopy),
    for_clusters: false,
    older_settings: |_| OlderSettings::default(),
};

const NAME: &str = "repository.copy";
/// Between two rounds of copying.
const PAUSE: Duration = Duration::from_secs(10);
/// After a failure, the first pause; doubled up to the longest.
const RETRY_MAX: Duration = Duration::from_secs(300);
const EXPIRY_PAUSE: Duration = Duration::from_secs(6 * 3600);

struct RepositoryCopy;

fn spec(config: &config::Backup) -> JobSpec {
    JobSpec {
        name: NAME.to_owned(),
        aliases: Vec::new(),
        component: "database".to_owned(),
        kind: "copies of the repository".to_owned(),
        group: None,
        trigger: match config.repositories.is_empty() {
            true => Trigger::Off,
            false => Trigger::Continuous,
        },
        retention: Retention::in_words("as each [repositories.NAME] says"),
        storage: Storage::Local,
        locks: vec!["copies".to_owned()],
        covered_by: Vec::new(),
        priority: 0,
        deadline: Deadline::None,
        objective: None,
        verification: "each object is read back and compared; a manifest comes last".to_owned(),
        first_run: FirstRun::NextAppointment,
    }
}

impl Task for RepositoryCopy {
    fn availability(&self, environment: &JobEnvironment) -> Availability {
        match environment.config.repositories.is_empty() {
            true => Availability::Unavailable("bre.toml names no [repositories.NAME]".to_owned()),
            false => Availability::Ready,
        }
    }

    fn needs_the_engine(&self) -> bool {
        false
    }

    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        let board = CopyBoard::open(&environment.instance, &environment.config);
        let copied = CopyTotals::default();
        let copiers = (environment.config.repositories.iter()).map(|(name, replica)| Copier {
            name,
            replica,
            config: &environment.config,
            instance: &environment.instance,
            board: &board,
        });
        let trigger = with_settings(&JOB, &environment.config).trigger;
        let failure = match trigger == Trigger::Continuous && context.asked_by().is_none() {
            true => {
                // Each by itself: one that hangs holds up no other.
                std::thread::scope(|scope| {
                    for copier in copiers {
                        let copied = &copied;
                        scope.spawn(move || keep(environment, context, &copier, copied));
                    }
                });
                None
            }
            false => copiers.fold(None, |failed, copier| {
                failed.or(once(environment, context, &copier, &copied).err())
            }),
        };
        if let Some(error) = failure {
            return Err(error);
        }
        let said = board.summary();
        let report = copied.report(said.clone());
        answer::give(context, || {
            let machines = serde_json::json!({ "job": NAME, "said": said });
            CommandOutput::of(&machines, said)
        });
        Ok(report)
    }
}

/// Of all rounds of a run.
#[derive(Default)]
struct CopyTotals {
    objects: AtomicU64,
    bytes: AtomicU64,
}

impl CopyTotals {
    fn add(&self, report: &RoundReport) {
        self.objects.fetch_add(report.objects, Ordering::Relaxed);
        self.bytes.fetch_add(report.bytes, Ordering::Relaxed);
    }

    fn report(&self, summary: String) -> RunReport {
        let objects = self.objects.load(Ordering::Relaxed);
        let objects = i64::try_from(objects).unwrap_or(i64::MAX);
        RunReport {
            summary,
            bytes: Some(self.bytes.load(Ordering::Relaxed)),
            figures: BTreeMap::from([("objects".to_owned(), objects)]),
            unsound: None,
        }
    }
}

/// Round after round, until it is told to end.
fn keep(
    environment: &JobEnvironment,
    context: &RunContext,
    copier: &Copier<'_>,
    copied: &CopyTotals,
) {
    let (mut pause, mut expire_at) = (PAUSE, Instant::now());
    loop {
        let expires = expire_at <= Instant::now();
        let came = round(environment, context, copier, expires);
        if context.is_cancelled() {
            return;
        }
        let repository = copier.name;
        pause = match &came {
            Ok(report) => {
                copied.add(report);
                if let Some(error) = &report.not_expired {
                    tracing::warn!(repository, %error, "not expired; it is tried again");
                }
                if expires {
                    let is_expired = report.not_expired.is_none();
                    expire_at = Instant::now() + if is_expired { EXPIRY_PAUSE } else { RETRY_MAX };
                }
                PAUSE
            }
            Err(error) => {
                tracing::warn!(repository, %error, "not copied; it is tried again");
                RETRY_MAX.min(pause * 2)
            }
        };
        context.progress(copier.board.summary());
        if context.pause(pause) {
            return;
        }
    }
}

/// For a person, or for an appointment.
fn once(
    environment: &JobEnvironment,
    context: &RunContext,
    copier: &Copier<'_>,
    copied: &CopyTotals,
) -> Result<(), Error> {
    let in_words = |what: &str, error: &Error| {
        let name = copier.name;
        Error::failed(format!("the copy {name}: {what}: {error}"))
    };
    let report = round(environment, context, copier, true)
        .map_err(|error| in_words("not copied", &error))?;
    copied.add(&report);
    match &report.not_expired {
        Some(error) => Err(in_words("nothing expires there", error)),
        None => Ok(()),
    }
}

fn round(
    environment: &JobEnvironment,
    context: &RunContext,
    copier: &Copier<'_>,
    expires: bool,
) -> Result<RoundReport, Error> {
    let moment = environment.moment();
    let log = Log {
        asked_by: environment.event(context).with("repository", copier.name),
        record: &|event| Ok(environment.wait(event.record(&environment.instance))?),
    };
    copier.round(&Round {
        first: &moment.repository,
        private: moment.private.as_ref(),
        steps: &environment.steps(context, "copy"),
        log: expires.then_some(&log),
    })
}
