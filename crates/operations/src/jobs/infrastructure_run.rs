//! How a run of the infrastructure's jobs ends: its report, what it lacks, and what the person who asked is shown.

use std::collections::BTreeMap;

use backup::infrastructure::{InfrastructureReport, PlainInfrastructure};
use jobs::{RunContext, RunReport};
use serde::Serialize;

use super::{JobEnvironment, answer};
use crate::{command_output::CommandOutput, error::Error, exit::Exit, infrastructure};

pub(super) fn into_git<S: PlainInfrastructure>(
    source: &S,
    environment: &JobEnvironment,
    context: &RunContext,
) -> Result<RunReport, Error> {
    let steps = environment.steps(context, "infrastructure");
    let run = infrastructure::run(source, &environment.instance, &environment.config, &steps)?;
    drop(steps);
    let more = [("changes", run.changes.len() as u64)];
    let report = RunReport {
        summary: run.summary(),
        bytes: None,
        figures: figures(&run.report, &more),
        unsound: None,
    };
    let lines = match run.changes.is_empty() {
        true => report.summary.clone(),
        false => run.changes.join("\n"),
    };
    end(context, &run, lines, &run.report);
    Ok(report)
}

pub(super) fn figures(
    report: &InfrastructureReport,
    more: &[(&str, u64)],
) -> BTreeMap<String, i64> {
    let figure = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let usual = [
        ("objects", report.objects as u64),
        ("calls", u64::from(report.calls)),
        ("not_read", report.not_read.len() as u64),
    ];
    let all = usual.iter().chain(more);
    all.map(|(name, number)| ((*name).to_owned(), figure(*number)))
        .collect()
}

/// Says what is missing, and shows the rest.
pub(super) fn end(
    context: &RunContext,
    machines: &impl Serialize,
    text: String,
    report: &InfrastructureReport,
) {
    let lack = infrastructure::lack(&report.not_read);
    if let Some(lack) = &lack {
        context.lacks(lack.clone());
    }
    answer::give(context, || {
        let output = CommandOutput::of(machines, text)?;
        Ok(match lack {
            None => output,
            Some(lack) => output.noted(format!("bre: {lack}")).exits(Exit::Partial),
        })
    });
}
