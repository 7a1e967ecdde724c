//! For tests of jobs and of what shows them: a job that no other part knows, and what jobs share without an engine.
#![allow(clippy::unwrap_used)]

use std::{cell::Cell, path::Path, sync::Arc};

use jobs::{
    Deadline, FirstRun, JobSpec, Retention, RunContext, RunReport, Storage, schedule::Trigger,
};

use super::{Caller, JobDefinition, JobEnvironment, JobResult, Moment, Task, specs};
use crate::{
    command_output::CommandOutput,
    config::{self, OlderSettings},
    error::Error,
};

thread_local! {
    /// A job that a test adds to the list.
    static ADDED: Cell<Option<&'static JobDefinition>> = const { Cell::new(None) };
}

pub(super) fn added() -> Option<&'static JobDefinition> {
    ADDED.get()
}

pub(super) fn add(job: &'static JobDefinition) {
    ADDED.set(Some(job));
}

/// From now on this thread's list has `test.throw_away` as well.
pub fn add_throw_away() {
    add(&THROW_AWAY);
}

pub fn remove_throw_away() {
    ADDED.set(None);
}

/// No screen: what there is of it.
pub(super) fn screens(result: JobResult) -> Result<CommandOutput, Error> {
    CommandOutput::of(&(), format!("{result:?}"))
}

/// A job that no other part of the engine knows: all that one takes is here.
struct ThrowAway;

impl Task for ThrowAway {
    fn run(&self, _: &JobEnvironment, _: &RunContext) -> Result<RunReport, Error> {
        Ok(RunReport::said("thrown away"))
    }
}

pub(super) static THROW_AWAY: JobDefinition = JobDefinition {
    spec: |_| JobSpec {
        name: "test.throw_away".to_owned(),
        aliases: Vec::new(),
        component: "test".to_owned(),
        kind: "nothing".to_owned(),
        group: None,
        trigger: Trigger::Manual,
        retention: Retention::in_words("a moment"),
        storage: Storage::Local,
        locks: Vec::new(),
        covered_by: Vec::new(),
        priority: 0,
        deadline: Deadline::None,
        objective: None,
        verification: "none".to_owned(),
        first_run: FirstRun::NextAppointment,
    },
    task: || Box::new(ThrowAway),
    for_clusters: false,
    older_settings: |_| OlderSettings::default(),
};

pub fn environment(folder: &Path) -> Arc<JobEnvironment> {
    environment_with(folder, &config::Backup::default())
}

pub fn environment_with(folder: &Path, config: &config::Backup) -> Arc<JobEnvironment> {
    let instance = host::instance::Instance::at(folder).unwrap();
    let store = Arc::new(repository::store::PosixStore::new(
        folder.join("repository"),
    ));
    let moment = Moment {
        repository: repository::Repository::init(store).unwrap(),
        private: None,
        public: None,
        chunk_id: None,
        binaries: None,
        user: None,
        connect: None,
        definitions: None,
        stream: None,
        attached: false,
        label: "test",
        reading: crate::backup_request::Reading::default(),
    };
    let caller = Caller::Person { json: true };
    Arc::new(JobEnvironment::new(
        &instance, config, caller, screens, moment,
    ))
}

/// For `docs/operations/jobs.md`: what there is and what it takes.
pub fn table_of_settings() -> String {
    let config = config::Backup::default();
    let mut text = "| job | older name | component | schedule | kept | verification |\n|---|---|---|---|---|---|\n".to_owned();
    for spec in specs(&config) {
        let older = match spec.aliases.is_empty() {
            true => String::new(),
            false => format!("`{}`", spec.aliases.join(", ")),
        };
        let cells = [
            format!("`{}`", spec.name),
            older,
            spec.component.clone(),
            format!("`{}`", spec.trigger),
            spec.retention.to_string(),
            spec.verification.clone(),
        ];
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}
