//! A run of a job that has a service of Amazon's make a snapshot: what is demanded, and what is said of it.

use std::{collections::BTreeMap, num::NonZeroU16};

use backup::infrastructure::provider::{ProviderPlan, ProviderReport};
use control_plane::aws::AwsError;
use host::progress::Steps;
use jiff::Timestamp;
use jobs::{RunContext, RunReport};

use super::{JobEnvironment, answer};
use crate::{command_output::CommandOutput, error::Error, exit::Exit};

/// As the settings have it.
pub(super) struct Demand<'a> {
    pub(super) automated_days: NonZeroU16,
    pub(super) multi_az: bool,
    pub(super) kms_key: Option<&'a str>,
    pub(super) keep_days: NonZeroU16,
    pub(super) tags: &'a BTreeMap<String, String>,
}

pub(super) fn run(
    demand: &Demand<'_>,
    environment: &JobEnvironment,
    context: &RunContext,
    work: impl FnOnce(&ProviderPlan<'_>, &Steps) -> Result<ProviderReport, AwsError>,
) -> Result<RunReport, Error> {
    let repository = environment.moment().repository;
    let mark = repository.id().to_string();
    let plan = ProviderPlan {
        days_min: demand.automated_days.get(),
        multi_az: demand.multi_az,
        kms_key: demand.kms_key,
        keep_days: demand.keep_days.get(),
        tags: demand.tags,
        mark: &mark,
        now: Timestamp::now(),
    };
    let steps = environment.steps(context, "snapshot");
    let found = work(&plan, &steps)?;
    drop(steps);
    let (summary, unsound) = (summary(&found), unsound(&found));
    if !found.not_read.is_empty() {
        context.lacks(found.not_read.join("; "));
    }
    let report = RunReport {
        summary: summary.clone(),
        bytes: None,
        figures: figures(&found),
        unsound: unsound.clone(),
    };
    answer::give(context, || {
        let text = match &unsound {
            None => summary,
            Some(unsound) => format!("{summary}\n{unsound}"),
        };
        let output = CommandOutput::of(&found, text)?;
        Ok(match unsound {
            None => output,
            Some(_) => output.exits(Exit::Failed),
        })
    });
    Ok(report)
}

fn summary(found: &ProviderReport) -> String {
    let mut summary = format!("{}, {} kept", found.snapshot, found.kept);
    if !found.deleted.is_empty() {
        summary.push_str(&format!(", {} deleted", found.deleted.len()));
    }
    match (&found.restorable_from, &found.restorable_to) {
        (Some(from), Some(to)) => {
            summary.push_str(&format!(
                "; every moment from {from} to {to} can be restored"
            ));
        }
        (None, Some(to)) => summary.push_str(&format!("; up to {to} can be restored")),
        _ => {}
    }
    summary
}

/// Where the service is not as the plan demands, and what it says went wrong.
fn unsound(found: &ProviderReport) -> Option<String> {
    let failures = found.events.iter().filter(|event| event.is_failure);
    let failures = failures.map(|event| format!("{}: {}", event.at, event.message));
    let all: Vec<String> = found.faults.iter().cloned().chain(failures).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

fn figures(found: &ProviderReport) -> BTreeMap<String, i64> {
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let failures = found.events.iter().filter(|event| event.is_failure).count();
    let mut figures = BTreeMap::from([
        ("kept".to_owned(), count(found.kept)),
        ("deleted".to_owned(), count(found.deleted.len())),
        ("events".to_owned(), count(found.events.len())),
        ("failures".to_owned(), count(failures)),
        ("calls".to_owned(), i64::from(found.calls)),
    ]);
    for (name, moment) in [
        ("restorable_from_seconds", &found.restorable_from),
        ("restorable_to_seconds", &found.restorable_to),
    ] {
        let moment = moment.as_ref().and_then(|it| it.parse::<Timestamp>().ok());
        figures.extend(moment.map(|moment| (name.to_owned(), moment.as_second())));
    }
    figures
}
