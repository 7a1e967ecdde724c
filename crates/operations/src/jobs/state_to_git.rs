//! What the jobs have in common that put a part of a cluster's state into git: on change, one commit each.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jobs::{
    Availability, Deadline, FirstRun, JobSpec, Retention, RunContext, RunReport, Storage,
    schedule::Trigger,
};

use super::{JobEnvironment, Task, answer, answer::JobResult, late};
use crate::{
    application_state::{ApplicationState, StateComponent, changes, figures, lacks, said, unread},
    change_look::ChangeLook,
    error::Error,
};

/// At least so often it runs, changed or not.
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) struct StateToGit {
    component: StateComponent,
    look: Mutex<Option<ChangeLook>>,
}

/// The job of a component.
#[must_use]
pub fn job_of(component: StateComponent) -> &'static str {
    match component {
        StateComponent::Kubernetes => super::kubernetes_config::NAME,
        StateComponent::ConfigMaps => super::kubernetes_configmaps::NAME,
        StateComponent::Helm => super::kubernetes_helm::NAME,
        StateComponent::Secrets => super::kubernetes_secrets::NAME,
    }
}

pub(super) fn spec(component: StateComponent, kind: &str) -> JobSpec {
    JobSpec {
        name: job_of(component).to_owned(),
        aliases: Vec::new(),
        component: component.name().to_owned(),
        kind: kind.to_owned(),
        group: None,
        trigger: Trigger::OnChange,
        retention: Retention::without_end("as long as git's history"),
        storage: Storage::Git,
        locks: vec!["application state".to_owned()],
        covered_by: Vec::new(),
        priority: 0,
        deadline: Deadline::FourMedians,
        objective: Some(late(DAY)),
        verification: "one commit a change".to_owned(),
        first_run: FirstRun::SoonAtEachStart,
    }
}

impl StateToGit {
    pub(super) fn of(component: StateComponent) -> Box<dyn Task> {
        Box::new(Self {
            component,
            look: Mutex::default(),
        })
    }

    fn with_look<T>(&self, with: impl FnOnce(&mut Option<ChangeLook>) -> T) -> T {
        with(&mut self.look.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Task for StateToGit {
    fn availability(&self, environment: &JobEnvironment) -> Availability {
        let lacks = lacks(&environment.config, self.component);
        lacks.map_or(Availability::Ready, Availability::Unavailable)
    }

    /// The thread that looks starts with the first question.
    fn has_changed(&self, environment: &JobEnvironment) -> bool {
        if lacks(&environment.config, self.component).is_some() {
            return false;
        }
        self.with_look(|look| {
            if look.is_none() {
                let (instance, config) = (&environment.instance, &environment.config);
                *look = changes(instance, config, self.component).ok();
            }
            look.as_ref().is_some_and(ChangeLook::has_changed)
        })
    }

    fn needs_the_engine(&self) -> bool {
        false
    }

    fn run(&self, environment: &JobEnvironment, context: &RunContext) -> Result<RunReport, Error> {
        let looks = self.with_look(|look| {
            look.as_ref()
                .inspect(|look| look.clear())
                .map(ChangeLook::figures)
        });
        let state = ApplicationState::of(&environment.instance, &environment.config)?;
        let steps = environment.steps(context, "state of the cluster");
        let (outcome, report) = state.commit(self.component, &steps)?;
        drop(steps);
        let mut figures = figures(&report);
        if let Some(looks) = looks {
            let seconds = i64::try_from(looks.pause.as_secs()).unwrap_or(i64::MAX);
            figures.insert("watched".to_owned(), i64::from(looks.is_watched));
            figures.insert("look_every_seconds".to_owned(), seconds);
        }
        if let Some(lacks) = unread(&report) {
            context.lacks(lacks);
        }
        let said = RunReport {
            summary: said(&outcome, &report),
            bytes: None,
            figures,
            unsound: None,
        };
        answer::give(context, || {
            (environment.screens)(JobResult::State {
                component: self.component.name(),
                place: state.place(),
                outcome,
                report,
            })
        });
        Ok(said)
    }
}
