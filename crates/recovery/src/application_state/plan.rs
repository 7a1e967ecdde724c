//! Backup, cluster and git side by side, object by object. Reads; changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;

use control_plane::git::Files;
use control_plane::kubernetes::{KINDS, Kubectl, Object, merge_patch};
use serde::Serialize;
use serde_json::Value;

use super::StateError;
use crate::Progress;

/// So many fields of an object are named; an object that is wholly different is not listed field by field.
const FIELDS_MAX: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StateAction {
    Create,
    Change,
    /// Nothing to do.
    Same,
}

/// What git has of an object, beside the backup and the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GitState {
    /// It is not kept in git, or git was not asked.
    Absent,
    AsInTheBackup,
    AsOnTheCluster,
    /// A third version.
    Different,
}

impl fmt::Display for GitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "not in git",
            Self::AsInTheBackup => "git as in the backup",
            Self::AsOnTheCluster => "git as on the cluster",
            Self::Different => "git different from both",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StateStep {
    /// `Deployment api in shop`
    pub object: String,
    pub action: StateAction,
    /// The fields in which cluster and backup differ; no values: they may be secret.
    pub fields: Vec<String>,
    pub git: GitState,
    /// Who would undo it.
    pub reconciler: Option<String>,
    #[serde(skip)]
    pub(super) wanted: Object,
    #[serde(skip)]
    pub(super) live: Option<Object>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatePlan {
    /// In the order in which they are applied.
    pub steps: Vec<StateStep>,
    /// On the cluster and not in the backup: left alone.
    pub only_live: Vec<String>,
}

impl StatePlan {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes().next().is_none()
    }

    pub fn changes(&self) -> impl Iterator<Item = &StateStep> {
        self.steps
            .iter()
            .filter(|step| step.action != StateAction::Same)
    }

    /// Each that would undo a change, once.
    #[must_use]
    pub fn reconcilers(&self) -> BTreeSet<&str> {
        self.changes()
            .filter_map(|step| step.reconciler.as_deref())
            .collect()
    }
}

/// Kind (with its group), namespace, name: the same object in any version of its API.
type Identity = (String, Option<String>, String);

fn identity(object: &Object) -> Identity {
    (
        object.kind_and_group(),
        object.namespace.clone(),
        object.name.clone(),
    )
}

/// `git`: what the repository has now, where it is asked.
pub fn plan(
    backup: &Files,
    git: Option<&Files>,
    kubectl: &Kubectl,
    progress: &dyn Progress,
) -> Result<StatePlan, StateError> {
    let wanted = objects(backup)?;
    let git = match git {
        Some(git) => objects(git)?,
        None => BTreeMap::new(),
    };
    let mut live = live(&wanted, kubectl, progress)?;
    let mut steps = Vec::new();
    for (identity, wanted) in wanted {
        let live = live.remove(&identity);
        let in_git = git.get(&identity).map(|object| &object.value);
        steps.push(step(wanted, live, in_git));
    }
    steps.sort_by_key(|step| (rank(&step.wanted), step.object.clone()));
    Ok(StatePlan {
        steps,
        only_live: live.values().map(Object::to_string).collect(),
    })
}

fn step(wanted: Object, live: Option<Object>, in_git: Option<&Value>) -> StateStep {
    let patch = live
        .as_ref()
        .and_then(|live| merge_patch(&live.value, &wanted.value));
    let action = match (&live, &patch) {
        (None, _) => StateAction::Create,
        (Some(_), Some(_)) => StateAction::Change,
        (Some(_), None) => StateAction::Same,
    };
    let mut fields = Vec::new();
    if let Some(patch) = &patch {
        name_fields(patch, "", &mut fields);
    }
    let git = match (in_git, &live) {
        (None, _) => GitState::Absent,
        (Some(git), _) if *git == wanted.value => GitState::AsInTheBackup,
        (Some(git), Some(live)) if *git == live.value => GitState::AsOnTheCluster,
        _ => GitState::Different,
    };
    let reconciler = live.as_ref().and_then(Object::reconciler);
    StateStep {
        object: wanted.to_string(),
        action,
        fields,
        git,
        reconciler: reconciler.or_else(|| wanted.reconciler()),
        wanted,
        live,
    }
}

fn name_fields(patch: &Value, path: &str, fields: &mut Vec<String>) {
    match patch {
        Value::Object(inner) if !inner.is_empty() => {
            for (name, field) in inner {
                let path = match path {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                name_fields(field, &path, fields);
            }
        }
        _ if fields.len() < FIELDS_MAX => fields.push(path.to_owned()),
        _ => {}
    }
}

/// In canonical form once more: a document made by hand is compared as the cluster's are.
fn objects(documents: &Files) -> Result<BTreeMap<Identity, Object>, StateError> {
    let mut objects = BTreeMap::new();
    for (name, content) in documents {
        let parsed = Object::parse(content).and_then(|object| Object::canonical(object.value));
        let object = parsed.map_err(|error| StateError::Document {
            name: name.clone(),
            reason: error.to_string(),
        })?;
        // A release of Helm is no object of the cluster.
        if let Some(object) = object.filter(|object| object.group != "helm.sh") {
            objects.insert(identity(&object), object);
        }
    }
    Ok(objects)
}

/// What the cluster has of the namespaces and kinds of a backup.
fn live(
    wanted: &BTreeMap<Identity, Object>,
    kubectl: &Kubectl,
    progress: &dyn Progress,
) -> Result<BTreeMap<Identity, Object>, StateError> {
    let mut kinds: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut namespaces = BTreeSet::new();
    for object in wanted.values() {
        match &object.namespace {
            Some(namespace) => {
                let kinds = kinds.entry(namespace).or_default();
                kinds.insert(object.kind_and_group().to_lowercase());
            }
            None if object.kind == "Namespace" => {
                namespaces.insert(object.name.as_str());
            }
            None => {
                return Err(StateError::Document {
                    name: object.to_string(),
                    reason: "it belongs to no namespace".to_owned(),
                });
            }
        }
    }
    let cancelled = || progress.cancelled();
    let mut found = BTreeMap::new();
    let mut keep = |value: Value| -> io::Result<()> {
        let object = Object::canonical(value).map_err(io::Error::other)?;
        found.extend(object.map(|object| (identity(&object), object)));
        Ok(())
    };
    for (namespace, kinds) in kinds {
        check(namespace)?;
        progress.message(&format!("reading namespace {namespace}"));
        let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
        kubectl.list(namespace, &kinds, &cancelled, &mut keep)?;
    }
    for namespace in namespaces {
        check(namespace)?;
        match kubectl.namespace(namespace, &cancelled) {
            Ok(value) => keep(value).map_err(|error| StateError::Document {
                name: namespace.to_owned(),
                reason: error.to_string(),
            })?,
            Err(error) if error.said().contains("(NotFound)") => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

fn check(namespace: &str) -> Result<(), StateError> {
    let checked = control_plane::kubernetes::check_namespace(namespace);
    checked.map_err(|reason| StateError::Document {
        name: namespace.to_owned(),
        reason,
    })
}

/// The guide's order: namespaces, ConfigMaps, Secrets, then what uses them; kinds of others last.
pub(super) fn rank(object: &Object) -> usize {
    match object.kind_and_group().as_str() {
        "Namespace" => 0,
        "ConfigMap" => 1,
        "Secret" => 2,
        kind => {
            // `deployments.apps` of `Deployment.apps`
            let (kind, group) = kind.split_once('.').unwrap_or((kind, ""));
            let kind = kind.to_lowercase();
            let is_it = |plural: &str| {
                let (plural, of) = plural.split_once('.').unwrap_or((plural, ""));
                let singular = plural.strip_suffix("ies").map(|stem| format!("{stem}y"));
                let singular = singular
                    .or_else(|| plural.strip_suffix("sses").map(|stem| format!("{stem}ss")));
                let singular = singular.unwrap_or_else(|| plural.trim_end_matches('s').to_owned());
                of == group && singular == kind
            };
            3 + KINDS
                .iter()
                .position(|plural| is_it(plural))
                .unwrap_or(KINDS.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(kind: &str, version: &str, name: &str) -> Object {
        let value = json!({"apiVersion": version, "kind": kind,
            "metadata": {"name": name, "namespace": "shop"}});
        Object::canonical(value).unwrap().unwrap()
    }

    #[test]
    fn each_finds_what_it_needs() {
        let order = [
            object("Namespace", "v1", "shop"),
            object("ConfigMap", "v1", "settings"),
            object("Secret", "v1", "db"),
            object("ServiceAccount", "v1", "api"),
            object("Role", "rbac.authorization.k8s.io/v1", "api"),
            object("RoleBinding", "rbac.authorization.k8s.io/v1", "api"),
            object("NetworkPolicy", "networking.k8s.io/v1", "api"),
            object("Service", "v1", "api"),
            object("Deployment", "apps/v1", "api"),
            object("CronJob", "batch/v1", "api"),
            object("Ingress", "networking.k8s.io/v1", "api"),
            object("Certificate", "cert-manager.io/v1", "api"),
        ];
        let ranks: Vec<usize> = order.iter().map(rank).collect();
        let mut sorted = ranks.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(ranks, sorted);
        assert_eq!(
            ranks.last(),
            Some(&(3 + KINDS.len())),
            "only the last is no usual kind"
        );
    }

    #[test]
    fn three_versions_are_told_apart_and_no_value_is_named() {
        let with = |value: &str| {
            let mut object = object("Secret", "v1", "db");
            object.value["data"] = json!({"password": value});
            object
        };
        let check = |live: Option<&str>, git: Option<&str>, action, state| {
            let git = git.map(|git| with(git).value);
            let step = step(with("YQ=="), live.map(with), git.as_ref());
            assert_eq!((step.action, step.git), (action, state));
            step
        };
        use GitState::{Absent, AsInTheBackup, AsOnTheCluster, Different};
        use StateAction::{Change, Create, Same};
        check(None, None, Create, Absent);
        check(None, Some("Yg=="), Create, Different);
        check(Some("YQ=="), Some("YQ=="), Same, AsInTheBackup);
        check(Some("Yg=="), Some("YQ=="), Change, AsInTheBackup);
        check(Some("Yg=="), Some("Yw=="), Change, Different);
        let step = check(Some("Yg=="), Some("Yg=="), Change, AsOnTheCluster);
        assert_eq!(step.fields, ["data.password"]);
        let shown = format!("{step:?} {}", serde_json::to_string(&step).unwrap());
        assert!(
            !shown.contains("YQ==") && !shown.contains("Yg=="),
            "{shown}"
        );
    }
}
