//! `bre snapshot`: documents of other components than the database, sealed in the repository.

use std::{path::PathBuf, process::ExitCode};

use backup::documents::SealedOutcome;
use recovery::documents::{self, DocumentAction, DocumentPlan, DocumentStep};
use repository::snapshot::{
    DocumentChanges, NewerSnapshot, SnapshotReader, SnapshotState, SnapshotSummary, find_snapshot,
    put_verification, snapshots, verify,
};
use serde::Serialize;

use super::{
    cluster_state::{self, ClusterTarget},
    job,
    restore_infrastructure::{self, Consent},
    secrets_manager, snapshot_diff,
};
use host::{instance::Instance, keys, progress::Steps, signals::interrupted};
use terminal::{self, KeyValue, Table, time, word};

use crate::{
    cli::{
        ConfigurationArgs, RepositoryArgs, SnapshotArgs, SnapshotCommand, SnapshotComponent,
        SnapshotRestoreArgs,
    },
    error::Error,
    question::confirmed,
};
use operations::{
    application_state::{StateCommit, StateComponent},
    backup_request::ReadingSelection,
    command_output::CommandOutput,
    exit::Exit,
    infrastructure_restore::{StackRestore, StateRestore},
    jobs::{CONFIGURATION_SNAPSHOT, job_of, settings},
    repository_handle::RepositoryHandle,
    snapshots::{Configuration, redacted},
};

pub(super) fn run(
    instance: &Instance,
    json: bool,
    command: &SnapshotCommand,
) -> Result<ExitCode, Error> {
    match command {
        SnapshotCommand::Run {
            component,
            configuration,
            repository,
        } => {
            return match of_cluster(*component) {
                None => take(instance, json, configuration, repository),
                Some(of_cluster) => {
                    take_of_cluster(instance, json, of_cluster, configuration, repository)
                }
            };
        }
        SnapshotCommand::List {
            component,
            repository,
        } => return list(instance, json, component.as_deref(), repository),
        SnapshotCommand::Show {
            which,
            document,
            configuration,
            repository,
        } => {
            if let Some(of_git) = in_git(&which.component) {
                let document = document.as_deref();
                cluster_state::show(instance, json, of_git, which, document, configuration)?;
                return Ok(ExitCode::SUCCESS);
            }
            let asked = SnapshotSelection::at(instance, which, configuration, repository)?;
            match document {
                Some(name) => asked.show_document(json, name)?,
                None => asked.show(json)?,
            }
        }
        SnapshotCommand::Diff {
            which,
            with,
            configuration,
            repository,
        } => {
            let with = with.as_deref();
            if let Some(of_git) = in_git(&which.component) {
                cluster_state::diff(instance, json, of_git, which, with, configuration)?;
                return Ok(ExitCode::SUCCESS);
            }
            let asked = SnapshotSelection::at(instance, which, configuration, repository)?;
            let live = || match which.component.as_str() {
                backup::configuration::COMPONENT => {
                    Some(snapshot_diff::configuration_here(&asked, json))
                }
                name => StateComponent::named(name)
                    .map(|it| cluster_state::live_side(instance, json, it, configuration)),
            };
            snapshot_diff::run(&asked, json, with, &live)?;
        }
        SnapshotCommand::Restore(args) => return restore(instance, json, args),
    }
    Ok(ExitCode::SUCCESS)
}

fn of_cluster(component: SnapshotComponent) -> Option<StateComponent> {
    match component {
        SnapshotComponent::Configuration => None,
        SnapshotComponent::Kubernetes => Some(StateComponent::Kubernetes),
        SnapshotComponent::Configmaps => Some(StateComponent::ConfigMaps),
        SnapshotComponent::Helm => Some(StateComponent::Helm),
        SnapshotComponent::Secrets => Some(StateComponent::Secrets),
    }
}

/// Its snapshots are commits.
fn in_git(component: &str) -> Option<StateComponent> {
    StateComponent::named(component).filter(|component| component.is_in_git())
}

/// A run of its job: its settings and its sink are the instance's own.
fn take_of_cluster(
    instance: &Instance,
    json: bool,
    component: StateComponent,
    configuration: &ConfigurationArgs,
    repository: &RepositoryArgs,
) -> Result<ExitCode, Error> {
    let elsewhere = [
        ("--repository", repository.repository.is_some()),
        ("--keys-dir", repository.keys.is_some()),
        ("--cluster", repository.cluster.is_some()),
        ("--config", configuration.config.is_some()),
    ];
    if let Some((option, _)) = elsewhere.iter().find(|(_, is_given)| *is_given) {
        return Err(Error::argument(
            "option of this component",
            (*option).to_owned(),
            format!(
                "{} is read and kept as bre.toml has it: [kubernetes], [repository]",
                component.name()
            ),
        ));
    }
    let reading = ReadingSelection::default();
    job::run_now(instance, json, job_of(component), reading, None)
}

/// `bre snapshot restore` and `bre restore snapshot`.
pub(super) fn restore(
    instance: &Instance,
    json: bool,
    args: &SnapshotRestoreArgs,
) -> Result<ExitCode, Error> {
    if args.which.component == secrets_manager::NAME {
        secrets_manager::restore(instance, json, args)?;
        return Ok(ExitCode::SUCCESS);
    }
    let target = ClusterTarget::named(&args.which.component);
    match (target, &args.to) {
        (Some(target), None) => {
            cluster_state::restore(instance, json, target, args)?;
            return Ok(ExitCode::SUCCESS);
        }
        (Some(ClusterTarget::Secrets), Some(_)) => {}
        (Some(_), Some(_)) => {
            return Err(Error::argument(
                "option of this component",
                "--to",
                "its documents are files in git already: git -C DIR/application_state show COMMIT:NAME",
            ));
        }
        (None, None) if !args.in_place && args.stack.is_none() => {
            return Err(Error::argument(
                "restore of this component",
                args.which.component.clone(),
                "say where to: --to DIR, or --in-place",
            ));
        }
        (None, _) => {}
    }
    let asked =
        SnapshotSelection::at(instance, &args.which, &args.configuration, &args.repository)?;
    if let Some(done) = through_its_client(instance, json, args, &asked)? {
        return Ok(done);
    }
    let to = args.to.as_deref().filter(|_| !args.in_place);
    asked.restore(json, to, args.dry_run, args.yes)?;
    Ok(ExitCode::SUCCESS)
}

/// A stack, or a state of Terraform, to where it came from. None: these are documents that go into files.
fn through_its_client(
    instance: &Instance,
    json: bool,
    args: &SnapshotRestoreArgs,
    asked: &SnapshotSelection,
) -> Result<Option<ExitCode>, Error> {
    let component = asked.summary.component.as_str();
    let config = || settings::load(args.configuration.config.as_deref(), instance.root());
    let consent = Consent {
        dry_run: args.dry_run,
        yes: args.yes,
    };
    if let Some(stack) = &args.stack {
        if component != backup::infrastructure::cloudformation::COMPONENT {
            let reason = "--stack names a stack of the component cloudformation";
            return Err(Error::argument("component", component, reason));
        }
        let restore = StackRestore::of(&config()?.backup, &asked.reader()?, stack)?;
        return restore_infrastructure::stack(&restore, json, consent).map(Some);
    }
    if !args.in_place || !component.starts_with("terraform_") {
        return Ok(None);
    }
    let found = StateRestore::of(&config()?.backup, component, &asked.reader()?)?;
    let Some(restore) = found else {
        return Err(Error::refused(
            "nothing was restored",
            format!(
                "the settings name no state of {component}: write [terraform.NAME] into bre.toml"
            ),
        ));
    };
    restore_infrastructure::state(&restore, json, consent).map(Some)
}

#[derive(Debug, Serialize)]
struct SnapshotResult<'a> {
    component: &'static str,
    id: &'a str,
    /// False: nothing differs from the newest, which this is.
    is_new: bool,
    parent: Option<&'a str>,
    full_reason: Option<&'a str>,
    documents: u64,
    bytes_source: u64,
    bytes_stored: u64,
    bytes_reused: u64,
    changes: Option<&'a DocumentChanges>,
    /// Null: it is not new. False: the private key is not here.
    verified: Option<bool>,
}

fn take(
    instance: &Instance,
    json: bool,
    configuration: &ConfigurationArgs,
    repository: &RepositoryArgs,
) -> Result<ExitCode, Error> {
    let elsewhere = [
        repository.repository.is_some(),
        repository.keys.is_some(),
        repository.cluster.is_some(),
        configuration.config.is_some(),
    ];
    // Settings that cannot be read make no plan. They are kept all the same.
    if !elsewhere.contains(&true) && settings::load(None, instance.root()).is_ok() {
        let reading = ReadingSelection::default();
        return job::run_now(instance, json, CONFIGURATION_SNAPSHOT, reading, None);
    }
    let opened = RepositoryHandle::at(instance, repository)?;
    let source = Configuration::of(
        instance,
        configuration.config.as_deref(),
        settings::plan_document,
    )?;
    let steps = Steps::shown(json, "snapshot").cancelled_by(interrupted()?);
    let outcome = source.run(instance, &opened.repository, &opened.keys, &steps)?;
    drop(steps);
    Ok(taken(backup::configuration::COMPONENT, &outcome)?.print(json))
}

pub(crate) fn taken(
    component: &'static str,
    outcome: &SealedOutcome,
) -> Result<CommandOutput, operations::Error> {
    let taken = &outcome.snapshot;
    let report = SnapshotResult {
        component,
        id: &taken.id,
        is_new: taken.is_new,
        parent: taken.parent.as_deref(),
        full_reason: taken.full_reason.as_deref(),
        documents: taken.documents,
        bytes_source: taken.bytes_source,
        bytes_stored: taken.bytes_stored,
        bytes_reused: taken.bytes_reused,
        changes: taken.changes.as_ref(),
        verified: taken.is_new.then_some(outcome.is_read_back),
    };
    if !taken.is_new {
        let text = format!("nothing changed since snapshot {}", taken.id);
        return CommandOutput::of(&report, text);
    }
    let verified = match outcome.is_read_back {
        true => "read back and verified",
        false => "not verified: the private key is not here",
    };
    let changed = taken.changes.as_ref().map_or_else(String::new, changes);
    let text = format!(
        "snapshot {}: {} documents, {} stored{changed}; {verified}",
        taken.id,
        taken.documents,
        indicatif::HumanBytes(taken.bytes_stored)
    );
    CommandOutput::of(&report, text)
}

fn changes(changes: &DocumentChanges) -> String {
    let mut said = Vec::new();
    said.extend(changes.added.iter().map(|it| format!("{} added", word(it))));
    said.extend(
        changes
            .changed
            .iter()
            .map(|it| format!("{} changed", word(it))),
    );
    if changes.removed > 0 {
        said.push(format!("{} removed", changes.removed));
    }
    match said.is_empty() {
        true => String::new(),
        false => format!(" ({})", said.join(", ")),
    }
}

#[derive(Debug, Serialize)]
struct Listing<'a> {
    snapshots: Vec<&'a SnapshotSummary>,
    /// Of a format that this program does not read.
    newer: Vec<&'a NewerSnapshot>,
    damaged: Vec<String>,
    /// Of the components that are in git.
    commits: Vec<StateCommit>,
}

fn list(
    instance: &Instance,
    json: bool,
    component: Option<&str>,
    repository: &RepositoryArgs,
) -> Result<ExitCode, Error> {
    if let Some(component) = component {
        repository::snapshot::check_component(component)?;
    }
    let opened = RepositoryHandle::at(instance, repository)?;
    let all = snapshots(&opened.repository)?;
    let of_it = |found: &str| component.is_none_or(|it| it == found);
    let listing = Listing {
        snapshots: (all.snapshots.iter().filter(|it| of_it(&it.component))).collect(),
        newer: all.newer.iter().filter(|it| of_it(&it.component)).collect(),
        damaged: all.damaged.iter().map(ToString::to_string).collect(),
        commits: cluster_state::commits(instance, component)?,
    };
    terminal::result(json, &listing, || {
        let mut text = match (listing.snapshots.is_empty(), listing.commits.is_empty()) {
            (true, true) => "no snapshots\n".to_owned(),
            (true, false) => String::new(),
            (false, _) => table(&listing.snapshots),
        };
        if !listing.commits.is_empty() {
            text.push_str(&cluster_state::commit_table(&listing.commits));
        }
        text.extend(listing.newer.iter().map(|newer| format!("{newer}\n")));
        text
    });
    for damaged in &listing.damaged {
        terminal::note(&format!("bre: {damaged}"));
    }
    Ok(match listing.damaged.is_empty() {
        true => ExitCode::SUCCESS,
        false => Exit::Failed.into(),
    })
}

fn table(snapshots: &[&SnapshotSummary]) -> String {
    let mut text = format!(
        "{:16}{:27}{:29}{:>9}  {:>10}  {:>10}  {}\n",
        "COMPONENT", "ID", "TAKEN", "DOCUMENTS", "SIZE", "STORED", "STATE"
    );
    for it in snapshots {
        text.push_str(&format!(
            "{:16}{:27}{:29}{:>9}  {:>10}  {:>10}  {}\n",
            it.component,
            it.id,
            time(it.taken_at_micros),
            it.documents,
            indicatif::HumanBytes(it.bytes_source).to_string(),
            indicatif::HumanBytes(it.bytes_stored).to_string(),
            state(it)
        ));
    }
    text
}

fn state(snapshot: &SnapshotSummary) -> &'static str {
    match snapshot.state {
        SnapshotState::Expiring => "expiring",
        SnapshotState::Complete if snapshot.verification_failed_at_micros.is_some() => {
            "FAILED verification"
        }
        SnapshotState::Complete if snapshot.verified_at_micros.is_some() => "verified",
        SnapshotState::Complete => "not verified",
    }
}

/// What needs no key, a line each.
fn facts_text(snapshot: &SnapshotSummary) -> String {
    let size = |bytes| indicatif::HumanBytes(bytes).to_string();
    let rows = [
        ("component", snapshot.component.clone()),
        ("id", snapshot.id.clone()),
        ("state", state(snapshot).to_owned()),
        ("taken", time(snapshot.taken_at_micros)),
        (
            "verified",
            snapshot.verified_at_micros.map_or("-".to_owned(), time),
        ),
        (
            "based on",
            snapshot.parent.clone().unwrap_or_else(|| "-".to_owned()),
        ),
        ("documents", snapshot.documents.to_string()),
        ("size", size(snapshot.bytes_source)),
        ("stored", size(snapshot.bytes_stored)),
        ("from earlier snapshots", size(snapshot.bytes_reused)),
    ];
    let line = |(name, value): &(&str, String)| format!("{name:24}{}\n", word(value));
    rows.iter().map(line).collect()
}

/// A snapshot that a command is about.
#[derive(Debug)]
pub(super) struct SnapshotSelection {
    pub(super) opened: RepositoryHandle,
    pub(super) summary: SnapshotSummary,
    pub(super) configuration: Configuration,
}

#[derive(Debug, Serialize)]
struct ShownDocument<'a> {
    name: &'a str,
    bytes: u64,
    attributes: &'a std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct ShownSnapshot<'a> {
    #[serde(flatten)]
    summary: &'a SnapshotSummary,
    /// Null without the private key.
    contents: Option<Vec<ShownDocument<'a>>>,
    facts: Option<&'a std::collections::BTreeMap<String, String>>,
}

impl SnapshotSelection {
    pub(super) fn at(
        instance: &Instance,
        which: &SnapshotArgs,
        configuration: &ConfigurationArgs,
        repository: &RepositoryArgs,
    ) -> Result<Self, Error> {
        let opened = RepositoryHandle::at(instance, repository)?;
        let summary = find_snapshot(&opened.repository, &which.component, which.id.as_deref())?;
        Ok(Self {
            summary,
            configuration: Configuration::of(
                instance,
                configuration.config.as_deref(),
                settings::plan_document,
            )?,
            opened,
        })
    }

    /// Needs the private key, and says so where it is not.
    pub(super) fn reader(&self) -> Result<SnapshotReader, Error> {
        self.reader_of(&self.summary)
    }

    pub(super) fn reader_of(&self, summary: &SnapshotSummary) -> Result<SnapshotReader, Error> {
        let private = self.opened.private()?;
        let (repository, component) = (&self.opened.repository, &summary.component);
        Ok(SnapshotReader::open(
            repository,
            &private,
            component,
            &summary.id,
        )?)
    }

    fn show(&self, json: bool) -> Result<(), Error> {
        let has_key = keys::reading_key_if_here(&self.opened.keys)?.is_some();
        let reader = has_key.then(|| self.reader()).transpose()?;
        let shown = ShownSnapshot {
            summary: &self.summary,
            contents: reader.as_ref().map(|reader| {
                let documents = reader.documents().iter();
                let shown = documents.map(|it| ShownDocument {
                    name: &it.name,
                    bytes: it.bytes,
                    attributes: &it.attributes,
                });
                shown.collect()
            }),
            facts: reader.as_ref().map(SnapshotReader::facts),
        };
        terminal::result(json, &shown, || {
            let mut text = facts_text(&self.summary);
            let Some(documents) = &shown.contents else {
                return format!(
                    "{text}\nnames of documents are sealed: the private key is not here\n"
                );
            };
            let mut facts = KeyValue::new();
            for (fact, value) in shown.facts.into_iter().flatten() {
                facts.row(fact, value);
            }
            let mut table = Table::new(&[">bytes", "mode", "document"]);
            for it in documents {
                let mode = it.attributes.get("mode").cloned().unwrap_or_default();
                table.row([it.bytes.to_string(), mode, it.name.to_owned()]);
            }
            text.push_str(&format!("{}\n{}", facts.text(), table.text()));
            text
        });
        Ok(())
    }

    fn show_document(&self, json: bool, name: &str) -> Result<(), Error> {
        let reader = self.reader()?;
        let document = reader.document(name).ok_or_else(|| {
            Error::argument(
                "document of this snapshot",
                name.to_owned(),
                format!(
                    "it holds: {}",
                    reader
                        .documents()
                        .iter()
                        .map(|it| it.name.as_str())
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            )
        })?;
        let content = reader.read(document)?;
        let text = redacted(&self.configuration, &self.summary.component, name, &content);
        let shown = serde_json::json!({
            "component": self.summary.component, "id": self.summary.id, "name": name, "bytes": document.bytes,
            "attributes": document.attributes, "redacted": text,
        });
        terminal::result(json, &shown, || text);
        Ok(())
    }

    fn restore(
        &self,
        json: bool,
        to: Option<&std::path::Path>,
        dry_run: bool,
        yes: bool,
    ) -> Result<(), Error> {
        let reader = self.reader()?;
        let to = match to {
            None => None,
            Some(to) => Some(std::path::absolute(to).map_err(Error::file("cannot find", to))?),
        };
        if to.is_none() && self.summary.component != backup::configuration::COMPONENT {
            return Err(Error::refused(
                "nothing was restored",
                format!(
                    "where {} belongs is not known here. Restore it into a folder: --to DIR",
                    self.summary.component
                ),
            ));
        }
        let place = |document: &repository::snapshot::SnapshotDocument| match &to {
            Some(folder) => documents::below(folder, document),
            None => self.configuration.place_of(document),
        };
        let plan = documents::plan(&reader, &place)?;
        if plan.is_empty() || dry_run {
            self.tell(json, &plan, false);
            return Ok(());
        }
        if !yes {
            terminal::note(&steps_text(&plan));
            if !confirmed("These files are written.") {
                return Err(Error::refused(
                    "nothing was restored",
                    "give --yes to restore without asking",
                ));
            }
        }
        documents::apply(&reader, &plan)?;
        let left = documents::plan(&reader, &place)?;
        if let Some(step) = left.changes().next() {
            return Err(Error::failed(format!(
                "{} is not what was restored: somebody else writes it. Stop them, then restore again",
                step.name
            )));
        }
        self.note_verified()?;
        self.tell(json, &plan, true);
        Ok(())
    }

    /// A snapshot that was restored is read once more as a whole, and the result recorded beside it. A repository that
    /// cannot be written to does not undo the restore.
    pub(super) fn note_verified(&self) -> Result<(), Error> {
        let (component, id) = (&self.summary.component, &self.summary.id);
        let repository = &self.opened.repository;
        let now = jiff::Timestamp::now().as_microsecond();
        let record = verify(repository, &self.opened.private()?, component, id, now)?;
        if let Err(error) = put_verification(repository, component, id, &record) {
            terminal::note(&format!(
                "that it was verified could not be recorded: {error}"
            ));
        }
        Ok(())
    }

    fn tell(&self, json: bool, plan: &DocumentPlan, restored: bool) {
        let shown = serde_json::json!({
            "component": self.summary.component, "id": self.summary.id, "restored": restored, "steps": plan.steps,
        });
        terminal::result(json, &shown, || {
            let steps = steps_text(plan);
            match (plan.is_empty(), restored) {
                (true, _) => format!(
                    "nothing to do: everything is as in snapshot {}",
                    self.summary.id
                ),
                (false, false) => steps,
                (false, true) => format!(
                    "{steps}{} documents of snapshot {} are restored and read back",
                    plan.changes().count(),
                    self.summary.id
                ),
            }
        });
    }
}

fn steps_text(plan: &DocumentPlan) -> String {
    let line = |step: &DocumentStep| {
        let action = match step.action {
            DocumentAction::Create => "create",
            DocumentAction::Replace => "replace",
            DocumentAction::Mode => "set the mode of",
            DocumentAction::Same => "same",
            DocumentAction::Skip => "skip (made from others)",
        };
        let path = step.path.as_ref().map_or_else(PathBuf::new, Clone::clone);
        format!("{action:24}{:32}{}\n", word(&step.name), path.display())
    };
    plan.steps.iter().map(line).collect()
}
