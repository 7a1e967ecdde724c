//! `bre snapshot` of what runs on a Kubernetes cluster: of the components that are in git, and back onto the cluster.

use std::collections::BTreeMap;

use backup::{
    application_state::StateReport,
    documents::{GitOutcome, SealedOutcome},
};
use recovery::application_state::{Conflicts, StateAction, StatePlan, StateStep, apply, plan};
use serde::Serialize;

use super::{
    snapshot::{self, SnapshotSelection},
    snapshot_diff::{self, Content, Side},
};
use crate::{
    cli::{ConfigurationArgs, RepositoryArgs, SnapshotArgs, SnapshotRestoreArgs},
    error::Error,
    question::confirmed,
};
use host::{instance::Instance, progress::Steps, record::Event, signals::interrupted};
use operations::{
    application_state::{
        ApplicationState, StateCommit, StateComponent, WantedState, collect_secrets, said, unread,
    },
    command_output::CommandOutput,
    exit::Exit,
    jobs::settings,
};
use terminal::{KeyValue, Table, time, word};

/// All of a cluster, in one plan.
const ALL: &str = "application_state";

/// What a restore brings back onto the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClusterTarget {
    Commit(StateComponent),
    Secrets,
    /// Helm's own records of its releases: Secrets.
    Releases,
    All,
}

impl ClusterTarget {
    pub(super) fn named(component: &str) -> Option<Self> {
        if component == ALL {
            return Some(Self::All);
        }
        Some(match StateComponent::named(component)? {
            StateComponent::Helm => Self::Releases,
            StateComponent::Secrets => Self::Secrets,
            other => Self::Commit(other),
        })
    }
}

fn state_of(
    instance: &Instance,
    configuration: &ConfigurationArgs,
) -> Result<ApplicationState, Error> {
    let config = settings::load(configuration.config.as_deref(), instance.root())?;
    Ok(ApplicationState::of(instance, &config.backup)?)
}

#[derive(Debug, Serialize)]
struct StateRun<'a> {
    component: &'static str,
    place: &'a str,
    /// None: nothing changed.
    commit: Option<&'a str>,
    changes: &'a [String],
    pushed: bool,
    objects: usize,
    namespaces: &'a [String],
    not_read: BTreeMap<&'a str, &'a str>,
}

fn not_read(report: &StateReport) -> BTreeMap<&str, &str> {
    let unread = report.not_read.iter();
    unread
        .map(|it| (it.namespace.as_str(), it.why.as_str()))
        .collect()
}

fn with_unread(shown: CommandOutput, report: &StateReport) -> CommandOutput {
    match unread(report) {
        None => shown,
        Some(lacks) => shown.noted(format!("bre: {lacks}")).exits(Exit::Partial),
    }
}

/// What a person sees of a run into git.
pub(super) fn committed(
    component: &'static str,
    place: &str,
    outcome: &GitOutcome,
    report: &StateReport,
) -> Result<CommandOutput, operations::Error> {
    let shown = StateRun {
        component,
        place,
        commit: outcome.commit.as_deref(),
        changes: &outcome.changes,
        pushed: outcome.pushed,
        objects: report.objects,
        namespaces: &report.namespaces,
        not_read: not_read(report),
    };
    let pushed = if outcome.pushed { ", pushed" } else { "" };
    let text = format!("{} in {place}{pushed}", said(outcome, report));
    Ok(with_unread(CommandOutput::of(&shown, text)?, report))
}

/// And of one of Secrets.
pub(super) fn sealed(
    outcome: &SealedOutcome,
    report: &StateReport,
) -> Result<CommandOutput, operations::Error> {
    let shown = snapshot::taken(StateComponent::Secrets.name(), outcome)?;
    Ok(with_unread(shown, report))
}

/// The commits of the components that are in git, newest last; none where no cluster is named.
pub(super) fn commits(
    instance: &Instance,
    component: Option<&str>,
) -> Result<Vec<StateCommit>, Error> {
    let Ok(state) = state_of(instance, &ConfigurationArgs::default()) else {
        return Ok(Vec::new());
    };
    let mut commits = Vec::new();
    for of_git in StateComponent::IN_GIT {
        if component.is_none_or(|name| name == of_git.name()) {
            commits.extend(state.commits(of_git)?.into_iter().rev());
        }
    }
    Ok(commits)
}

pub(super) fn commit_table(commits: &[StateCommit]) -> String {
    let mut table = Table::new(&["component", "commit", "taken", "changes"]);
    for commit in commits {
        table.row([
            commit.component.to_owned(),
            short(&commit.id).to_owned(),
            time(commit.committed_at_micros),
            word(&commit.subject).into_owned(),
        ]);
    }
    table.text()
}

fn short(id: &str) -> &str {
    id.get(..10).unwrap_or(id)
}

#[derive(Debug, Serialize)]
struct ShownCommit<'a> {
    #[serde(flatten)]
    commit: &'a StateCommit,
    documents: BTreeMap<&'a str, usize>,
}

pub(super) fn show(
    instance: &Instance,
    json: bool,
    component: StateComponent,
    which: &SnapshotArgs,
    document: Option<&str>,
    configuration: &ConfigurationArgs,
) -> Result<(), Error> {
    let state = state_of(instance, configuration)?;
    let commit = state.find(component, which.id.as_deref())?;
    let documents = state.documents(component, &commit.id)?;
    if let Some(name) = document {
        let content = documents.get(name).ok_or_else(|| {
            let reason = format!(
                "bre snapshot show {} {} lists them",
                component.name(),
                short(&commit.id)
            );
            Error::argument("document of this commit", name.to_owned(), reason)
        })?;
        let text = String::from_utf8_lossy(content);
        let shown = serde_json::json!({
            "component": component.name(), "id": commit.id, "name": name, "bytes": content.len(), "redacted": text,
        });
        terminal::result(json, &shown, || text.into_owned());
        return Ok(());
    }
    let shown = ShownCommit {
        commit: &commit,
        documents: documents
            .iter()
            .map(|(name, content)| (name.as_str(), content.len()))
            .collect(),
    };
    terminal::result(json, &shown, || {
        let mut facts = KeyValue::new();
        facts
            .row("component", component.name())
            .row("commit", &commit.id)
            .row("taken", time(commit.committed_at_micros))
            .row("changes", &commit.subject)
            .row("in", state.folder.display().to_string());
        let mut table = Table::new(&["bytes", "document"]);
        for (name, bytes) in &shown.documents {
            table.row([bytes.to_string(), (*name).to_owned()]);
        }
        format!("{}\n{}", facts.text(), table.text())
    });
    Ok(())
}

/// What is on the cluster now, to compare with.
pub(super) fn live_side(
    instance: &Instance,
    json: bool,
    component: StateComponent,
    configuration: &ConfigurationArgs,
) -> Result<Side, Error> {
    let config = settings::load(configuration.config.as_deref(), instance.root())?;
    let steps = Steps::shown(json, "state of the cluster").cancelled_by(interrupted()?);
    let (collection, report) = match component {
        StateComponent::Secrets => collect_secrets(instance, &config.backup, &steps)?,
        _ => ApplicationState::of(instance, &config.backup)?.collect(component, &steps)?,
    };
    drop(steps);
    if let Some(lacks) = unread(&report) {
        return Err(Error::failed(format!(
            "there is nothing to compare with: {lacks}"
        )));
    }
    let content = |it: backup::documents::Document| Content {
        bytes: it.content,
        attributes: it.attributes,
    };
    let documents = collection.documents.into_iter();
    Ok(Side {
        documents: documents.map(|(name, it)| (name, content(it))).collect(),
    })
}

pub(super) fn diff(
    instance: &Instance,
    json: bool,
    component: StateComponent,
    which: &SnapshotArgs,
    with: Option<&str>,
    configuration: &ConfigurationArgs,
) -> Result<(), Error> {
    let state = state_of(instance, configuration)?;
    let side = |commit: &StateCommit| -> Result<Side, Error> {
        let documents = state.documents(component, &commit.id)?.into_iter();
        let content = |bytes| Content {
            bytes,
            attributes: BTreeMap::new(),
        };
        Ok(Side {
            documents: documents.map(|(name, it)| (name, content(it))).collect(),
        })
    };
    let from = state.find(component, which.id.as_deref())?;
    let later = with.map(|id| state.find(component, Some(id))).transpose()?;
    let to = match &later {
        Some(later) => side(later)?,
        None => live_side(instance, json, component, configuration)?,
    };
    let redact = |_: &str, content: &Content| String::from_utf8_lossy(&content.bytes).into_owned();
    let to_id = later.as_ref().map(|later| later.id.as_str());
    snapshot_diff::tell(
        json,
        component.name(),
        (&from.id, &side(&from)?),
        (to_id, &to),
        &redact,
    );
    Ok(())
}

/// Where a backup is.
#[derive(Debug, Serialize)]
struct Origin {
    commit: Option<String>,
    snapshot: Option<String>,
}

impl Origin {
    fn text(&self) -> String {
        let commit = self
            .commit
            .as_deref()
            .map(|id| format!("commit {}", short(id)));
        let snapshot = self
            .snapshot
            .as_deref()
            .map(|id| format!("snapshot {id} of secrets"));
        let both: Vec<String> = commit.into_iter().chain(snapshot).collect();
        both.join(" and ")
    }
}

#[derive(Debug, Serialize)]
struct ClusterRestore<'a> {
    component: &'a str,
    from: &'a Origin,
    restored: bool,
    #[serde(flatten)]
    plan: &'a StatePlan,
    reconcilers: Vec<&'a str>,
}

/// Plan, show, ask, apply, read back.
pub(super) fn restore(
    instance: &Instance,
    json: bool,
    target: ClusterTarget,
    args: &SnapshotRestoreArgs,
) -> Result<(), Error> {
    let state = state_of(instance, &args.configuration)?;
    let id = args.which.id.as_deref();
    let (wanted, origin, sealed) = wanted(
        instance,
        &state,
        target,
        id,
        &args.repository,
        &args.configuration,
    )?;
    let steps = Steps::shown(json, "restore").cancelled_by(interrupted()?);
    let found = plan(&wanted.backup, wanted.git.as_ref(), &state.kubectl, &steps);
    let found = found.map_err(operations::Error::from)?;
    let component = args.which.component.as_str();
    let tell = |restored: bool| {
        let shown = ClusterRestore {
            component,
            from: &origin,
            restored,
            plan: &found,
            reconcilers: found.reconcilers().into_iter().collect(),
        };
        terminal::result(json, &shown, || {
            let changes = found.changes().count();
            match (changes, restored) {
                (0, _) => format!(
                    "{}nothing to do: the cluster is as {} has it",
                    left_alone(&found),
                    origin.text()
                ),
                (_, false) => plan_text(&found),
                (_, true) => format!(
                    "{}{changes} objects of {} are restored and read back",
                    plan_text(&found),
                    origin.text()
                ),
            }
        });
    };
    if found.is_empty() || args.dry_run {
        drop(steps);
        tell(false);
        return Ok(());
    }
    if !args.yes {
        let is_sure = steps.hidden_while(|| {
            terminal::note(&plan_text(&found));
            confirmed("These objects are applied to the cluster, over what it has of them.")
        });
        if !is_sure {
            return Err(Error::refused(
                "nothing was restored",
                "give --yes to restore without asking, or --dry-run to look",
            ));
        }
    }
    let conflicts = match args.force_conflicts {
        true => Conflicts::Force,
        false => Conflicts::Refuse,
    };
    let applied = apply(&wanted.backup, &found, conflicts, &state.kubectl, &steps);
    drop(steps);
    let outcome = if applied.is_ok() {
        "restored"
    } else {
        "not restored whole"
    };
    let changes = found.changes().count();
    on_record(instance, component, &origin.text(), changes, outcome);
    applied.map_err(operations::Error::from)?;
    if let Some(sealed) = sealed {
        sealed.note_verified()?;
    }
    tell(true);
    Ok(())
}

fn wanted(
    instance: &Instance,
    state: &ApplicationState,
    target: ClusterTarget,
    id: Option<&str>,
    repository: &RepositoryArgs,
    configuration: &ConfigurationArgs,
) -> Result<(WantedState, Origin, Option<SnapshotSelection>), Error> {
    let snapshot = |id: Option<&str>| {
        let which = SnapshotArgs {
            component: StateComponent::Secrets.name().to_owned(),
            id: id.map(str::to_owned),
        };
        SnapshotSelection::at(instance, &which, configuration, repository)
    };
    match target {
        ClusterTarget::Commit(component) => {
            let commit = state.find(component, id)?;
            let origin = Origin {
                commit: Some(commit.id.clone()),
                snapshot: None,
            };
            Ok((state.wanted_of_commit(component, &commit.id)?, origin, None))
        }
        ClusterTarget::Secrets | ClusterTarget::Releases => {
            let sealed = snapshot(id)?;
            let origin = Origin {
                commit: None,
                snapshot: Some(sealed.summary.id.clone()),
            };
            let releases = target == ClusterTarget::Releases;
            let wanted = state.wanted_of_snapshot(&sealed.reader()?, releases)?;
            Ok((wanted, origin, Some(sealed)))
        }
        ClusterTarget::All => {
            if let Some(id) = id {
                let reason = "it takes the newest of each. Restore kubernetes, configmaps and secrets by themselves, \
                              each with an ID of its own";
                return Err(Error::argument("restore of all", id, reason));
            }
            let sealed = snapshot(None)?;
            let newest = state.find(StateComponent::Kubernetes, None)?;
            let origin = Origin {
                commit: Some(newest.id),
                snapshot: Some(sealed.summary.id.clone()),
            };
            let wanted = state.wanted_of_all(Some(&sealed.reader()?))?;
            Ok((wanted, origin, Some(sealed)))
        }
    }
}

/// Where an engine runs it is in the audit log; where none does, it is on the screen.
pub(super) fn on_record(
    instance: &Instance,
    component: &str,
    from: &str,
    objects: usize,
    outcome: &str,
) {
    if !instance.is_locked() {
        return;
    }
    let event = Event::by_person("RestoreRun")
        .with("component", component)
        .with("from", from)
        .with("objects", objects)
        .with("outcome", outcome);
    if let Err(error) = host::runtime::wait(event.record(instance)) {
        terminal::note(&format!(
            "bre: it is done but not in the audit log: {error}"
        ));
    }
}

/// Backup, cluster and git side by side, object by object.
fn plan_text(plan: &StatePlan) -> String {
    let mut table = Table::new(&["object", "on the cluster", "in git", "undone by"]);
    for step in plan.changes() {
        table.row([
            step.object.clone(),
            on_cluster(step),
            step.git.to_string(),
            step.reconciler.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    let mut text = table.text();
    let same = plan.steps.len() - plan.changes().count();
    if same > 0 {
        text.push_str(&format!("{same} more are as in the backup\n"));
    }
    text.push_str(&left_alone(plan));
    for reconciler in plan.reconcilers() {
        text.push_str(&format!(
            "{reconciler} would undo this: pause it, or commit the change to its own repository\n"
        ));
    }
    text
}

fn on_cluster(step: &StateStep) -> String {
    match step.action {
        StateAction::Create => "missing".to_owned(),
        StateAction::Change => format!("differs in {}", step.fields.join(", ")),
        StateAction::Same => "the same".to_owned(),
    }
}

fn left_alone(plan: &StatePlan) -> String {
    match plan.only_live.len() {
        0 => String::new(),
        _ => format!(
            "only on the cluster, and left alone: {}\n",
            plan.only_live.join(", ")
        ),
    }
}
