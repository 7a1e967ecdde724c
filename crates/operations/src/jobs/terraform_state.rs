//! States of Terraform, each version of each as a sealed snapshot.

use backup::infrastructure::{
    InfrastructureReport, UnreadPart,
    terraform::{StateBackup, StateOutcome, backup_states},
};
use control_plane::aws::Aws;
use jobs::{
    Availability, Deadline, FirstRun, JobSpec, Retention, RunContext, RunReport, Storage,
    schedule::Trigger,
};
use serde::Serialize;

use super::{
    JobDefinition, JobEnvironment, Task,
    infrastructure_run::{end, figures},
    late,
};
use crate::{
    config::{self, OlderSettings, TerraformConfig},
    error::Error,
    infrastructure::{availability, client_for, said},
    snapshots,
};

pub(super) const JOB: JobDefinition = JobDefinition {
    spec,
    task: || Box::new(States),
    for_clusters: false,
    older_settings: |_| OlderSettings::default(),
};

struct States;

/// What the guide calls "on change": a bucket tells of none.
const MINUTES: u16 = 15;

fn spec(_: &config::Backup) -> JobSpec {
    let trigger = Trigger::EveryMinutes { minutes: MINUTES };
    JobSpec {
        name: "terraform.state".to_owned(),
        aliases: Vec::new(),
        component: "terraform".to_owned(),
        kind: "each version of each state".to_owned(),
        group: None,
        objective: trigger.period().map(late),
        trigger,
        retention: Retention::without_end("without an end"),
        storage: Storage::Repository,
        locks: vec!["snapshots".to_owned()],
        covered_by: Vec::new(),
        priority: 0,
        deadline: Deadline::FourMedians,
        verification: "read back at once, where the private key is".to_owned(),
        first_run: FirstRun::Soon,
    }
}

#[derive(Debug, Serialize)]
struct StateResult {
    state: String,
    id: String,
    #[serde(flatten)]
    change: backup::infrastructure::terraform::StateChange,
}

impl Task for States {
    fn availability(&self, environment: &JobEnvironment) -> Availability {
        let states = &environment.config.infrastructure.terraform;
        match states.is_empty() {
            true => Availability::Unavailable(
                "no state is named: write [terraform.NAME] with bucket = \"…\" and key = \"…\", or file = \"…\", into \
                 bre.toml"
                    .to_owned(),
            ),
            false if states.values().any(TerraformConfig::needs_aws) => {
                availability(&environment.config)
            }
            false => Availability::Ready,
        }
    }

    fn needs_the_engine(&self) -> bool {
        false
    }

    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        let states = &environment.config.infrastructure.terraform;
        let (mut results, mut whole) = (Vec::new(), InfrastructureReport::default());
        let (mut bytes, mut left, mut failed, mut first_error) = (0, 0, 0, None);
        for (name, state) in states {
            match self.keep(name, state, environment, context) {
                Ok(kept) => {
                    left += kept.left;
                    whole.objects += kept.report.objects;
                    whole.calls += kept.report.calls;
                    whole.not_read.extend(kept.report.not_read);
                    for StateOutcome { change, sealed } in kept.outcomes {
                        bytes += sealed.snapshot.bytes_stored;
                        results.push(StateResult {
                            state: name.clone(),
                            id: sealed.snapshot.id,
                            change,
                        });
                    }
                }
                Err(error) if context.is_cancelled() => return Err(error),
                // One that cannot be read does not keep the others from being kept.
                Err(error) => {
                    failed += 1;
                    whole.not_read.push(UnreadPart {
                        part: format!("state {name}"),
                        why: error.to_string(),
                    });
                    first_error.get_or_insert(error);
                }
            }
        }
        if let Some(error) = first_error.filter(|_| failed == states.len()) {
            return Err(error);
        }
        let lines: Vec<String> = results
            .iter()
            .map(|it| format!("{}: {}", it.state, it.change))
            .collect();
        let mut summary = match lines.is_empty() {
            true => "nothing changed".to_owned(),
            false => said(&lines),
        };
        if left > 0 {
            summary.push_str(&format!("; the next run takes {left} more versions"));
        }
        let more = [
            ("versions", results.len() as u64),
            ("versions_left", left as u64),
        ];
        let report = RunReport {
            summary: summary.clone(),
            bytes: Some(bytes),
            figures: figures(&whole, &more),
            unsound: None,
        };
        let text = if lines.is_empty() {
            summary
        } else {
            lines.join("\n")
        };
        let machines = serde_json::json!({"versions": results, "versions_left": left,
            "not_read": whole.not_read});
        end(context, &machines, text, &whole);
        Ok(report)
    }
}

impl States {
    fn keep(
        &self,
        name: &str,
        state: &TerraformConfig,
        environment: &JobEnvironment,
        context: &RunContext,
    ) -> Result<StateBackup, Error> {
        let (instance, config) = (&environment.instance, &environment.config);
        let origin = state
            .origin()
            .map_err(|reason| Error::refused("nothing was kept", reason))?;
        let aws = match state.needs_aws() {
            true => client_for(config)?,
            false => Aws::default(),
        };
        let cancelled = || context.is_cancelled();
        let round = aws.round(&cancelled);
        let steps = environment.steps(context, "snapshot");
        let mut sink =
            snapshots::sealed(instance, &environment.moment().repository, &instance.keys())?;
        let memory = instance.cache().join(format!("terraform_{name}.json"));
        Ok(backup_states(
            name, &origin, &round, &mut sink, &memory, &steps,
        )?)
    }
}
