//! What runs on a Kubernetes cluster: which of it is backed up, by which clients, where it goes, and back. The
//! mechanisms are in `backup::application_state` and `recovery::application_state`.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use backup::{
    application_state::{
        StateReport, StateRepository, backup_to_git,
        configmaps::ConfigMapSource,
        helm::HelmSource,
        kubernetes::KubernetesSource,
        secrets::{AllSecrets, SecretSource},
        secrets_manager::{FOLDER as MANAGER_FOLDER, SecretsManagerSource},
    },
    documents::{
        Collection, DocumentSource, Documents, GitOutcome, SealedDocuments, SealedOutcome, take,
        without_credentials,
    },
};
use control_plane::{
    aws::Aws,
    git::{self, Files},
    helm::Helm,
    is_program,
    kubernetes::Kubectl,
};
use host::{instance::Instance, lock::lock, progress::Steps};
use recovery::application_state::secrets_manager::{self, ManagerPlan};
use repository::snapshot::SnapshotReader;

use crate::{
    change_look::{ChangeLook, Look, Watch},
    config::{self, Kubernetes, Remote},
    error::Error,
    schema,
};

/// What makes the jobs of this component possible, as an operator types it.
const SECRETS_WANTED: &str = "no cluster is named: write into bre.toml: [kubernetes] namespaces = [\"NAME\"], or \
                              [secrets_manager] prefixes = [\"NAME/\"]";
pub const WANTED: &str =
    "no cluster is named: write into bre.toml: [kubernetes] namespaces = [\"NAME\"]";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateComponent {
    Kubernetes,
    ConfigMaps,
    Helm,
    Secrets,
}

impl StateComponent {
    pub const IN_GIT: [Self; 3] = [Self::Kubernetes, Self::ConfigMaps, Self::Helm];

    #[must_use]
    pub fn name(self) -> &'static str {
        use backup::application_state::{configmaps, helm, kubernetes, secrets};
        match self {
            Self::Kubernetes => kubernetes::COMPONENT,
            Self::ConfigMaps => configmaps::COMPONENT,
            Self::Helm => helm::COMPONENT,
            Self::Secrets => secrets::COMPONENT,
        }
    }

    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Kubernetes,
            Self::ConfigMaps,
            Self::Helm,
            Self::Secrets,
        ];
        all.into_iter().find(|component| component.name() == name)
    }

    #[must_use]
    pub fn is_in_git(self) -> bool {
        self != Self::Secrets
    }
}

/// A commit in which a component changed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StateCommit {
    pub component: &'static str,
    pub id: String,
    pub committed_at_micros: i64,
    pub subject: String,
}

#[derive(Debug)]
pub struct ApplicationState {
    settings: Kubernetes,
    pub kubectl: Kubectl,
    helm: Helm,
    pub folder: PathBuf,
    remote: Option<Remote>,
    lock: PathBuf,
}

impl ApplicationState {
    pub fn of(instance: &Instance, config: &config::Backup) -> Result<Self, Error> {
        let settings = config.kubernetes.clone();
        let settings = settings.ok_or_else(|| Error::refused("nothing was done", WANTED))?;
        let to = settings.git.as_ref().map(|remote| remote.0.as_str());
        let (folder, remote) = schema::destination(instance.application_state(), to);
        Ok(Self {
            kubectl: settings.kubectl(),
            helm: settings.helm(),
            folder,
            remote: remote.map(Remote),
            lock: instance.application_state_lock(),
            settings,
        })
    }

    /// Where the components that are in git go, for people.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.remote {
            None => self.folder.display().to_string(),
            Some(remote) => without_credentials(&remote.0),
        }
    }

    /// One commit for a change, none without one.
    pub fn commit(
        &self,
        component: StateComponent,
        steps: &Steps,
    ) -> Result<(GitOutcome, StateReport), Error> {
        let _alone = lock(&self.lock)?;
        let to = StateRepository {
            folder: &self.folder,
            remote: self.remote.as_ref().map(|remote| remote.0.as_str()),
        };
        Ok(match component {
            StateComponent::Kubernetes => backup_to_git(&self.objects(), to, steps)?,
            StateComponent::ConfigMaps => backup_to_git(&self.configmaps(), to, steps)?,
            StateComponent::Helm => backup_to_git(&self.releases(), to, steps)?,
            StateComponent::Secrets => {
                return Err(Error::failed("secrets are sealed, never put into git"));
            }
        })
    }

    /// As they are now.
    pub fn collect(
        &self,
        component: StateComponent,
        progress: &dyn backup::Progress,
    ) -> Result<(Collection, StateReport), Error> {
        Ok(match component {
            StateComponent::Kubernetes => DocumentSource::collect(&self.objects(), progress)?,
            StateComponent::ConfigMaps => DocumentSource::collect(&self.configmaps(), progress)?,
            StateComponent::Helm => DocumentSource::collect(&self.releases(), progress)?,
            StateComponent::Secrets => {
                return Err(Error::failed(
                    "Secrets are collected with those of Secrets Manager",
                ));
            }
        })
    }

    fn objects(&self) -> KubernetesSource<'_> {
        KubernetesSource {
            kubectl: &self.kubectl,
            namespaces: &self.settings.namespaces,
            more_kinds: &self.settings.kinds,
        }
    }

    fn configmaps(&self) -> ConfigMapSource<'_> {
        ConfigMapSource {
            kubectl: &self.kubectl,
            namespaces: &self.settings.namespaces,
        }
    }

    fn releases(&self) -> HelmSource<'_> {
        HelmSource {
            helm: &self.helm,
            namespaces: &self.settings.namespaces,
        }
    }

    fn secrets(&self) -> SecretSource<'_> {
        SecretSource {
            kubectl: &self.kubectl,
            namespaces: &self.settings.namespaces,
        }
    }

    /// The newest first.
    pub fn commits(&self, component: StateComponent) -> Result<Vec<StateCommit>, Error> {
        if !self.folder.join(".git").exists()
            || git::text(&self.folder, &["rev-parse", "HEAD"]).is_err()
        {
            return Ok(Vec::new());
        }
        let format = "--format=%H %ct %s";
        let paths = ["log", format, "HEAD", "--", component.name()];
        let log = git::text(&self.folder, &paths)?;
        let commit = |line: &str| {
            let mut parts = line.splitn(3, ' ');
            Some(StateCommit {
                component: component.name(),
                id: parts.next()?.to_owned(),
                committed_at_micros: parts.next()?.parse::<i64>().ok()? * 1_000_000,
                subject: parts.next().unwrap_or_default().to_owned(),
            })
        };
        Ok(log.lines().filter_map(commit).collect())
    }

    /// By its id or the beginning of one; the newest without.
    pub fn find(&self, component: StateComponent, id: Option<&str>) -> Result<StateCommit, Error> {
        let commits = self.commits(component)?;
        let not_there = |id: &str, reason: String| Error::argument("commit", id.to_owned(), reason);
        let Some(id) = id else {
            let newest = commits.into_iter().next();
            return newest.ok_or_else(|| {
                let reason = format!(
                    "{} holds none of {} yet: bre snapshot run {}",
                    self.folder.display(),
                    component.name(),
                    component.name()
                );
                Error::refused("there is no backup", reason)
            });
        };
        let mut found = commits
            .into_iter()
            .filter(|commit| commit.id.starts_with(id));
        match (found.next(), found.next()) {
            (Some(commit), None) if id.len() >= ID_CHARS_MIN => Ok(commit),
            (Some(_), _) => Err(not_there(
                id,
                "more than one begins so: give more of it".to_owned(),
            )),
            (None, _) => {
                let name = component.name();
                let reason = format!(
                    "{name} did not change in one that begins so: bre snapshot list {name}"
                );
                Err(not_there(id, reason))
            }
        }
    }

    /// A component's documents as a commit has them.
    pub fn documents(&self, component: StateComponent, commit: &str) -> Result<Files, Error> {
        let paths = [component.name()];
        Ok(git::files(&self.folder, commit, &paths, ".json")?)
    }

    /// The namespaces of these documents themselves, as git has them now: they come before what is in them.
    fn namespaces_of(&self, documents: &Files) -> Result<Files, Error> {
        if self.commits(StateComponent::Kubernetes)?.is_empty() {
            return Ok(Files::new());
        }
        let namespace = |name: &String| Some(name.split('/').nth(1)?.to_owned());
        let namespaces: BTreeSet<String> = documents.keys().filter_map(namespace).collect();
        let mut all = self.documents(StateComponent::Kubernetes, "HEAD")?;
        all.retain(|name, _| {
            let parts: Vec<&str> = name.split('/').collect();
            matches!(parts[..], [_, namespace, "namespace.json"] if namespaces.contains(namespace))
        });
        Ok(all)
    }

    /// What is to be on the cluster: of a commit, with what git has now beside it.
    pub fn wanted_of_commit(
        &self,
        component: StateComponent,
        commit: &str,
    ) -> Result<WantedState, Error> {
        let mut backup = self.documents(component, commit)?;
        let mut git = self.documents(component, "HEAD")?;
        if component != StateComponent::Kubernetes {
            let namespaces = self.namespaces_of(&backup)?;
            git.extend(namespaces.clone());
            backup.extend(namespaces);
        }
        Ok(WantedState {
            backup,
            git: Some(git),
        })
    }

    /// The same of a sealed snapshot. `releases`: of Helm's releases alone.
    pub fn wanted_of_snapshot(
        &self,
        reader: &SnapshotReader,
        releases: bool,
    ) -> Result<WantedState, Error> {
        let mut backup = documents_of_cluster(reader)?;
        if releases {
            backup.retain(|name, _| is_release(name));
        }
        let namespaces = self.namespaces_of(&backup)?;
        backup.extend(namespaces.clone());
        Ok(WantedState {
            backup,
            git: Some(namespaces),
        })
    }

    /// All of it, in one plan: the newest of git, and a snapshot of Secrets.
    pub fn wanted_of_all(&self, secrets: Option<&SnapshotReader>) -> Result<WantedState, Error> {
        let mut backup = Files::new();
        for component in [StateComponent::Kubernetes, StateComponent::ConfigMaps] {
            let commit = self.find(component, None)?;
            backup.extend(self.documents(component, &commit.id)?);
        }
        let git = backup.clone();
        if let Some(reader) = secrets {
            backup.extend(documents_of_cluster(reader)?);
        }
        Ok(WantedState {
            backup,
            git: Some(git),
        })
    }
}

/// Secrets as they are now, of a cluster and of Secrets Manager.
pub fn collect_secrets(
    instance: &Instance,
    config: &config::Backup,
    progress: &dyn backup::Progress,
) -> Result<(Collection, StateReport), Error> {
    with_secrets(instance, config, |source| Ok(source.collect(progress)?))
}

/// Into the sealed repository.
pub fn seal_secrets(
    instance: &Instance,
    config: &config::Backup,
    sink: &mut SealedDocuments,
    steps: &Steps,
) -> Result<(SealedOutcome, StateReport), Error> {
    with_secrets(instance, config, |source| {
        take::<_, _, Error>(source, sink, steps)
    })
}

fn with_secrets<T>(
    instance: &Instance,
    config: &config::Backup,
    with: impl FnOnce(&AllSecrets<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let state = config.kubernetes.is_some();
    let state = state.then(|| ApplicationState::of(instance, config));
    let state = state.transpose()?;
    let aws = aws(config);
    let manager = config.secrets_manager.as_ref();
    if state.is_none() && manager.is_none() {
        return Err(Error::refused("nothing was done", SECRETS_WANTED));
    }
    with(&AllSecrets {
        cluster: state.as_ref().map(ApplicationState::secrets),
        manager: manager.map(|manager| SecretsManagerSource {
            aws: &aws,
            prefixes: &manager.prefixes,
        }),
    })
}

/// The client that `[aws]` describes.
fn aws(config: &config::Backup) -> Aws {
    config.aws.clone().unwrap_or_default().client()
}

/// Of Secrets Manager, out of a snapshot of Secrets.
fn documents_of_manager(reader: &SnapshotReader) -> Result<Files, Error> {
    let mut documents = recovery::application_state::documents_of_snapshot(reader)?;
    documents.retain(|name, _| name.starts_with(MANAGER_FOLDER));
    Ok(documents)
}

fn documents_of_cluster(reader: &SnapshotReader) -> Result<Files, Error> {
    let mut documents = recovery::application_state::documents_of_snapshot(reader)?;
    documents.retain(|name, _| !name.starts_with(MANAGER_FOLDER));
    Ok(documents)
}

/// So many calls a restore may make: a few for each secret.
const RESTORE_CALLS_MAX: u32 = 10_000;

/// Secrets Manager, and what a snapshot has of it.
#[derive(Debug)]
pub struct ManagerRestore {
    aws: Aws,
    documents: Files,
}

impl ManagerRestore {
    pub fn of(config: &config::Backup, reader: &SnapshotReader) -> Result<Self, Error> {
        let documents = documents_of_manager(reader)?;
        match documents.is_empty() {
            true => Err(Error::refused(
                "nothing was restored",
                "this snapshot has no secret of Secrets Manager",
            )),
            false => Ok(Self {
                aws: aws(config),
                documents,
            }),
        }
    }

    pub fn plan(&self, steps: &Steps) -> Result<ManagerPlan, Error> {
        let cancelled = || steps.is_cancelled();
        let round = self.aws.round(&cancelled);
        let live = control_plane::aws::secrets::list(&round)?;
        Ok(secrets_manager::plan(&self.documents, &live)?)
    }

    pub fn apply(&self, plan: &ManagerPlan, steps: &Steps) -> Result<ManagerPlan, Error> {
        let cancelled = || steps.is_cancelled();
        let round = self.aws.round_of(RESTORE_CALLS_MAX, &cancelled);
        Ok(secrets_manager::apply(&self.documents, plan, &round)?)
    }
}

/// Fewer digits of a commit's id may be meant for anything.
const ID_CHARS_MIN: usize = 4;

/// Where Helm keeps a revision of a release.
fn is_release(document: &str) -> bool {
    let name = document.rsplit('/').next().unwrap_or_default();
    name.starts_with("sh.helm.release.v1.")
}

/// Documents that are to be on the cluster, and what git has of them now.
#[derive(Debug)]
pub struct WantedState {
    pub backup: Files,
    pub git: Option<Files>,
}

/// Where the components that are in git go, for people.
#[must_use]
pub fn place(instance: &Instance, config: &config::Backup) -> String {
    match ApplicationState::of(instance, config) {
        Ok(state) => state.place(),
        Err(_) => instance.application_state().display().to_string(),
    }
}

/// What is missing on this host for a job of the component.
pub fn lacks(config: &config::Backup, component: StateComponent) -> Option<String> {
    let is_secrets = component == StateComponent::Secrets;
    let program = aws(config).program;
    if is_secrets && config.secrets_manager.is_some() && !is_program(&program) {
        return Some(format!(
            "{} is not on this host: install AWS' client, or name its path: [aws] program = \"/path/to/aws\"",
            program.display()
        ));
    }
    let Some(settings) = &config.kubernetes else {
        return match (is_secrets, &config.secrets_manager) {
            (true, Some(_)) => None,
            (true, None) => Some(SECRETS_WANTED.to_owned()),
            (false, _) => Some(WANTED.to_owned()),
        };
    };
    let program = match component {
        StateComponent::Helm => settings.lacks("helm", &settings.helm),
        _ => settings.lacks("kubectl", &settings.kubectl),
    };
    program.or_else(|| {
        let lacks_git = component.is_in_git() && !is_program("git".as_ref());
        lacks_git.then(|| "git was not found: apt-get install git".to_owned())
    })
}

/// A thread that looks for changes of a component, and watches it where it is of one kind.
pub(crate) fn changes(
    instance: &Instance,
    config: &config::Backup,
    component: StateComponent,
) -> Result<ChangeLook, Error> {
    let state = ApplicationState::of(instance, config)?;
    // kubectl watches one kind a process: two of them a namespace are affordable, seventeen are not.
    let watched = match component {
        StateComponent::ConfigMaps => Some(("configmaps", None)),
        StateComponent::Helm => Some(("secrets", Some("owner=helm"))),
        StateComponent::Kubernetes | StateComponent::Secrets => None,
    };
    let namespaces = &state.settings.namespaces;
    let watched = watched.filter(|_| namespaces.len() <= WATCHES_MAX);
    let watches = watched.map_or_else(Vec::new, |(kind, selector)| {
        let watch = |namespace: &String| -> Watch {
            let (kubectl, namespace) = (state.kubectl.clone(), namespace.clone());
            Box::new(move |ends, tell| {
                let watched = kubectl.watch(&namespace, kind, selector, &|| ends(), tell);
                watched.map_err(|error| error.to_string())
            })
        };
        namespaces.iter().map(watch).collect()
    });
    let look: Look = Box::new(move |ends| {
        let (collection, report) = state.collect(component, &OfLook(ends)).ok()?;
        Some(digest(&collection.documents, &report))
    });
    Ok(ChangeLook::start(look, watches))
}

/// A process each, of some tens of MiB.
const WATCHES_MAX: usize = 16;

fn digest(documents: &Documents, report: &StateReport) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (name, document) in documents {
        (name, document.content.as_slice()).hash(&mut hasher);
    }
    for unread in &report.not_read {
        unread.namespace.hash(&mut hasher);
    }
    hasher.finish()
}

struct OfLook<'a>(&'a AtomicBool);

impl backup::Progress for OfLook<'_> {
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// What a person is told of a backup into git.
#[must_use]
pub fn said(outcome: &GitOutcome, report: &StateReport) -> String {
    let objects = format!(
        "{} objects of {} namespaces",
        report.objects,
        report.namespaces.len()
    );
    match &outcome.commit {
        None => format!("nothing changed in {objects}"),
        Some(commit) => {
            let short = commit.get(..10).unwrap_or(commit);
            let mut changes = outcome
                .changes
                .iter()
                .take(CHANGES_SAID)
                .cloned()
                .collect::<Vec<_>>();
            let more = outcome.changes.len().saturating_sub(CHANGES_SAID);
            if more > 0 {
                changes.push(format!("{more} more"));
            }
            format!("{short}: {} ({objects})", changes.join(", "))
        }
    }
}

const CHANGES_SAID: usize = 10;

/// What is not in it, and why.
#[must_use]
pub fn unread(report: &StateReport) -> Option<String> {
    let mut lacks = Vec::new();
    if !report.not_read.is_empty() {
        let named: Vec<String> = report.not_read.iter().map(ToString::to_string).collect();
        lacks.push(format!(
            "{} of {} namespaces could not be read, and what was kept of them stays: {}",
            report.not_read.len(),
            report.not_read.len() + report.namespaces.len(),
            named.join("; ")
        ));
    }
    if !report.secrets_not_read.is_empty() {
        let unread = report.secrets_not_read.iter();
        let named: Vec<String> = unread.map(|(name, why)| format!("{name}: {why}")).collect();
        lacks.push(format!(
            "secrets of Secrets Manager could not be read, and earlier snapshots hold them: {}",
            named.join("; ")
        ));
    }
    (!lacks.is_empty()).then(|| lacks.join("; "))
}

/// Of a run, for its record.
#[must_use]
pub fn figures(report: &StateReport) -> std::collections::BTreeMap<String, i64> {
    let figure = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    [
        ("objects", figure(report.objects)),
        ("namespaces", figure(report.namespaces.len())),
        ("namespaces_not_read", figure(report.not_read.len())),
        ("secrets_not_read", figure(report.secrets_not_read.len())),
        ("earlier_versions_not_read", figure(report.earlier_not_read)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// A document of a component, for display.
pub(crate) fn redacted(component: StateComponent, name: &str, content: &[u8]) -> String {
    match component {
        StateComponent::Secrets => {
            let source = AllSecrets {
                cluster: None,
                manager: None,
            };
            source.redacted(name, content)
        }
        _ => String::from_utf8_lossy(content).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        process::{Command, Stdio},
        time::Duration,
    };

    use testkit::{KubernetesApi, within};

    use super::*;
    use crate::config::Config;

    const LONG: Duration = Duration::from_secs(60);

    fn apply(kubeconfig: &Path, value: &str) {
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "shop"},
             "data": {"a": value}}]});
        let mut child = Command::new("kubectl")
            .env("KUBECONFIG", kubeconfig)
            .args(["apply", "--server-side", "--validate=false", "--filename=-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::io::Write::write_all(
            &mut child.stdin.take().unwrap(),
            list.to_string().as_bytes(),
        )
        .unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// By the real kubectl, its `--watch` too.
    #[test]
    fn a_change_on_the_cluster_is_seen_and_what_differs_in_nothing_is_none() {
        if !is_program("kubectl".as_ref()) {
            testkit::skip!("kubectl", "put the official client on the PATH");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let server = KubernetesApi::start();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, server.kubeconfig("x")).unwrap();
        apply(&kubeconfig, "1");
        let text = format!("[kubernetes]\nnamespaces = [\"shop\"]\nkubeconfig = {kubeconfig:?}\n");
        let config = Config::parse(&text, Path::new("bre.toml")).unwrap().backup;
        let instance = Instance::at(folder.path()).unwrap();
        let look = changes(&instance, &config, StateComponent::ConfigMaps).unwrap();
        let wait = |what: &dyn Fn() -> bool| {
            assert!(within(LONG, || what().then_some(())).is_some());
        };
        wait(&|| look.has_changed());
        look.clear();
        wait(&|| look.figures().is_watched);
        // The watch tells of it: nothing else would look for a quarter of an hour.
        apply(&kubeconfig, "2");
        wait(&|| look.has_changed());
    }
}
