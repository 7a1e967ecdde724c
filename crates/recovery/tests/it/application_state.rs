//! A namespace backed up, wiped, restored and backed up again by the real kubectl: on a stand-in of this test's own,
//! and on a real kube-apiserver (`make slow-kubernetes`).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use backup::application_state::configmaps::ConfigMapSource;
use backup::application_state::kubernetes::KubernetesSource;
use backup::application_state::secrets::SecretSource;
use backup::application_state::{StateReport, StateRepository, backup_sealed, backup_to_git};
use backup::documents::{GitOutcome, SealedDocuments, SealedOutcome};
use control_plane::kubernetes::Kubectl;
use recovery::application_state::{
    Conflicts, GitState, StateAction, StateError, StatePlan, apply, documents_of_commit,
    documents_of_snapshot, plan,
};
use repository::Repository;
use repository::keys::{ChunkIdKey, RecipientPrivate};
use repository::snapshot::SnapshotReader;
use repository::store::{MemoryStore, Store};
use serde_json::{Value, json};
use testkit::{CLOSED_NAMESPACE as CLOSED, KubernetesApi};

const NAMESPACE: &str = "shop";
/// Looked for wherever a secret must not be; and as the API has it.
const PLANTED: &str = "planted-hunter2";
const PLANTED_BASE64: &str = "cGxhbnRlZC1odW50ZXIy";

struct Fixture {
    root: tempfile::TempDir,
    kubectl: Kubectl,
    private: RecipientPrivate,
    store: Arc<MemoryStore>,
    sink: SealedDocuments,
    namespaces: Vec<String>,
}

fn fixture(kubeconfig: &Path) -> Fixture {
    let root = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::new());
    let repository = Repository::init(Arc::clone(&store) as Arc<dyn Store>).unwrap();
    let private = RecipientPrivate::generate().unwrap();
    let sink = SealedDocuments {
        repository,
        public: private.public().clone(),
        chunk_key: ChunkIdKey::generate().unwrap(),
        cache: Some(root.path().join("cache")),
        private: Some(private.clone()),
        facts: Default::default(),
    };
    let log = root.path().join("calls");
    let program = root.path().join("kubectl");
    // The real one, with what it was given on record.
    let script = format!(
        "#!/bin/sh\n{{ echo \"$@\"; env; }} >> '{}'\nKUBECACHEDIR='{}' exec kubectl \"$@\"\n",
        log.display(),
        root.path().join("kube-cache").display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    Fixture {
        kubectl: Kubectl {
            program,
            kubeconfig: Some(kubeconfig.to_owned()),
            ..Kubectl::default()
        },
        root,
        private,
        store,
        sink,
        namespaces: vec![NAMESPACE.to_owned()],
    }
}

impl Fixture {
    fn git(&self) -> PathBuf {
        self.root.path().join("git")
    }

    /// As an operator would.
    fn kubectl(&self, arguments: &[&str], input: &[u8]) {
        let mut command = Command::new(&self.kubectl.program);
        command.env("KUBECONFIG", self.kubectl.kubeconfig.as_ref().unwrap());
        let mut child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
        assert!(child.wait().unwrap().success(), "{arguments:?}");
    }

    fn seed(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let arguments = ["apply", "--server-side", "--validate=false", "--filename=-"];
        self.kubectl(&arguments, list.to_string().as_bytes());
    }

    fn objects_to_git(&self) -> (GitOutcome, StateReport) {
        let source = KubernetesSource {
            kubectl: &self.kubectl,
            namespaces: &self.namespaces,
            more_kinds: &[],
        };
        let folder = self.git();
        let to = StateRepository {
            folder: &folder,
            remote: None,
        };
        backup_to_git(&source, to, &()).unwrap()
    }

    fn configmaps_to_git(&self) -> (GitOutcome, StateReport) {
        let source = ConfigMapSource {
            kubectl: &self.kubectl,
            namespaces: &self.namespaces,
        };
        let folder = self.git();
        let to = StateRepository {
            folder: &folder,
            remote: None,
        };
        backup_to_git(&source, to, &()).unwrap()
    }

    fn secrets(&mut self) -> (SealedOutcome, StateReport) {
        let source = SecretSource {
            kubectl: &self.kubectl,
            namespaces: &self.namespaces,
        };
        backup_sealed(&source, &mut self.sink, &()).unwrap()
    }

    fn kept(&self, snapshot: &str) -> control_plane::git::Files {
        let mut kept = documents_of_commit(&self.git(), "HEAD").unwrap();
        let (repository, private) = (&self.sink.repository, &self.private);
        let reader = SnapshotReader::open(repository, private, "secrets", snapshot).unwrap();
        kept.extend(documents_of_snapshot(&reader).unwrap());
        kept
    }

    /// In git's folder, in what kubectl was called with, in the store.
    fn is_planted_anywhere(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut look = |place: String, bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            if text.contains(PLANTED) || text.contains(PLANTED_BASE64) {
                found.push(place);
            }
        };
        let mut folders = vec![self.root.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => look(path.display().to_string(), &fs::read(&path).unwrap()),
                }
            }
        }
        for object in self.store.list("").unwrap() {
            look(object.name.clone(), &self.store.get(&object.name).unwrap());
        }
        found
    }
}

fn objects() -> Vec<Value> {
    let object = |version: &str, kind: &str, name: &str| {
        json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE,
            "labels": {"app": "api"}}})
    };
    let mut namespace = object("v1", "Namespace", NAMESPACE);
    namespace["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("namespace");
    let mut settings = object("v1", "ConfigMap", "settings");
    settings["data"] = json!({"LOG_LEVEL": "debug", "z": "1", "a": "line\nline"});
    let mut secret = object("v1", "Secret", "db");
    secret["type"] = "Opaque".into();
    secret["data"] = json!({"password": PLANTED_BASE64});
    let account = object("v1", "ServiceAccount", "api");
    let mut role = object("rbac.authorization.k8s.io/v1", "Role", "api");
    role["rules"] = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]);
    let mut binding = object("rbac.authorization.k8s.io/v1", "RoleBinding", "api");
    binding["roleRef"] =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "api"});
    binding["subjects"] =
        json!([{"kind": "ServiceAccount", "name": "api", "namespace": NAMESPACE}]);
    let mut service = object("v1", "Service", "api");
    service["spec"] = json!({"selector": {"app": "api"},
        "ports": [{"port": 8000, "protocol": "TCP", "targetPort": 8000}]});
    let mut deployment = object("apps/v1", "Deployment", "api");
    deployment["spec"] = json!({"replicas": 2, "selector": {"matchLabels": {"app": "api"}},
        "template": {"metadata": {"labels": {"app": "api"}}, "spec": {"serviceAccountName": "api", "containers": [
            {"name": "api", "image": "registry.test/api:1", "envFrom": [{"configMapRef": {"name": "settings"}}]}]}}});
    let mut ingress = object("networking.k8s.io/v1", "Ingress", "api");
    ingress["spec"] =
        json!({"defaultBackend": {"service": {"name": "api", "port": {"number": 8000}}}});
    vec![
        namespace, settings, secret, account, role, binding, service, deployment, ingress,
    ]
}

fn actions(plan: &StatePlan) -> Vec<(StateAction, &str)> {
    plan.changes()
        .map(|step| (step.action, step.object.as_str()))
        .collect()
}

fn round_trip(fixture: &mut Fixture) {
    fixture.seed(&objects());
    let (first, report) = fixture.objects_to_git();
    assert!(first.commit.is_some() && !report.is_partial(), "{report:?}");
    assert_eq!(report.objects, 7, "{:?}", first.changes);
    let (configmaps, report) = fixture.configmaps_to_git();
    assert_eq!(configmaps.changes, ["configmap settings in shop added"]);
    assert_eq!(report.objects, 1);
    let (secrets, report) = fixture.secrets();
    assert!(secrets.snapshot.is_new && secrets.is_read_back);
    assert_eq!(report.objects, 1);
    // Nothing changed: nothing is kept.
    assert_eq!(fixture.objects_to_git().0.commit, None);
    assert!(!fixture.secrets().0.snapshot.is_new);

    let kept = fixture.kept(&secrets.snapshot.id);
    let nothing = plan(&kept, Some(&kept), &fixture.kubectl, &()).unwrap();
    assert!(
        nothing.is_empty() && nothing.only_live.is_empty(),
        "{nothing:?}"
    );
    fixture.kubectl(
        &["delete", "namespace", NAMESPACE, "--wait", "--timeout=300s"],
        b"",
    );

    let all = plan(&kept, Some(&kept), &fixture.kubectl, &()).unwrap();
    use StateAction::{Change, Create};
    let expected = [
        (Create, "Namespace shop"),
        (Create, "ConfigMap settings in shop"),
        (Create, "Secret db in shop"),
        (Create, "ServiceAccount api in shop"),
        (Create, "Role api in shop"),
        (Create, "RoleBinding api in shop"),
        (Create, "Service api in shop"),
        (Create, "Deployment api in shop"),
        (Create, "Ingress api in shop"),
    ];
    assert_eq!(actions(&all), expected);
    let second = apply(&kept, &all, Conflicts::Refuse, &fixture.kubectl, &()).unwrap();
    assert!(second.is_empty());
    // The same canonical bytes: no commit, no snapshot.
    assert_eq!(fixture.objects_to_git().0.changes, Vec::<String>::new());
    assert_eq!(fixture.configmaps_to_git().0.changes, Vec::<String>::new());
    assert_eq!(fixture.secrets().0.snapshot.id, secrets.snapshot.id);

    // Changed, added to, and taken away since.
    let mut settings = objects().remove(1);
    settings["data"] = json!({"LOG_LEVEL": "info", "z": "1", "a": "line\nline", "more": "x"});
    settings["metadata"]["labels"]["kustomize.toolkit.fluxcd.io/name"] = "apps".into();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [settings]});
    let arguments = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--validate=false",
        "--filename=-",
    ];
    fixture.kubectl(&arguments, list.to_string().as_bytes());
    fixture.kubectl(&["delete", "role", "api", "--namespace", NAMESPACE], b"");
    let mut mine = objects().remove(1);
    mine["metadata"]["name"] = "mine".into();
    fixture.seed(&[mine]);
    let some = plan(&kept, Some(&kept), &fixture.kubectl, &()).unwrap();
    let expected = [
        (Change, "ConfigMap settings in shop"),
        (Create, "Role api in shop"),
    ];
    assert_eq!(actions(&some), expected);
    let changed = some.changes().next().unwrap();
    let fields = [
        "data.LOG_LEVEL",
        "data.more",
        "metadata.labels.kustomize.toolkit.fluxcd.io/name",
    ];
    assert_eq!(changed.fields, fields);
    assert_eq!(changed.git, GitState::AsInTheBackup);
    assert_eq!(
        some.reconcilers().into_iter().collect::<Vec<_>>(),
        ["Flux (Kustomization apps)"]
    );
    assert_eq!(some.only_live, ["ConfigMap mine in shop"]);
    let second = apply(&kept, &some, Conflicts::Force, &fixture.kubectl, &()).unwrap();
    assert!(second.is_empty());
    assert_eq!(second.only_live, ["ConfigMap mine in shop"]);
    assert_eq!(fixture.objects_to_git().0.commit, None);

    partial(fixture);
    assert_eq!(fixture.is_planted_anywhere(), Vec::<String>::new());
    let calls = fs::read_to_string(fixture.root.path().join("calls")).unwrap();
    assert!(
        calls.contains("apply --server-side --field-manager=bre-recovery"),
        "{calls}"
    );
}

/// One of the namespaces is not there: it is named, what git has stays, a snapshot says what it lacks.
fn partial(fixture: &mut Fixture) {
    fixture.namespaces.push("absent".to_owned());
    let (outcome, report) = fixture.configmaps_to_git();
    assert_eq!(outcome.changes, ["configmap mine in shop added"]);
    assert_eq!(report.not_read.len(), 1);
    let why = report.not_read[0].to_string();
    assert!(
        why.contains("namespace absent") && why.contains("not found"),
        "{why}"
    );
    let (secrets, report) = fixture.secrets();
    assert!(report.is_partial() && secrets.snapshot.is_new);
    let (repository, private) = (&fixture.sink.repository, &fixture.private);
    let reader =
        SnapshotReader::open(repository, private, "secrets", &secrets.snapshot.id).unwrap();
    let lacks = reader.document("not_read.json").unwrap();
    assert!(String::from_utf8_lossy(&reader.read(lacks).unwrap()).contains("absent"));
    let kept = documents_of_snapshot(&reader).unwrap();
    assert_eq!(
        kept.keys().collect::<Vec<_>>(),
        ["secrets/shop/secret/db.json"]
    );
    fixture.namespaces.pop();
}

fn is_kubectl_here() -> bool {
    let is_here = control_plane::is_program(Path::new("kubectl"));
    if !is_here {
        testkit::skip!("kubectl", "put the official client on the PATH");
    }
    is_here
}

fn kubeconfig(folder: &Path, port: u16) -> PathBuf {
    let path = folder.join("kubeconfig");
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "users": [{"name": "test", "user": {"token": PLANTED}}]});
    fs::write(&path, config.to_string()).unwrap();
    path
}

#[test]
fn a_wiped_namespace_is_restored_to_the_same_bytes() {
    if is_kubectl_here() {
        let folder = tempfile::tempdir().unwrap();
        let server = KubernetesApi::start();
        round_trip(&mut fixture(&kubeconfig(folder.path(), server.port)));
    }
}

#[test]
#[ignore = "make slow-kubernetes starts a kube-apiserver for it"]
fn a_wiped_namespace_is_restored_to_the_same_bytes_on_a_real_cluster() {
    let kubeconfig = std::env::var_os("KUBECONFIG").expect("KUBECONFIG names the cluster");
    round_trip(&mut fixture(Path::new(&kubeconfig)));
}

#[test]
fn a_namespace_without_rights_is_named_and_what_was_kept_of_it_stays() {
    if !is_kubectl_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = KubernetesApi::start();
    let mut fixture = fixture(&kubeconfig(folder.path(), server.port));
    fixture.seed(&objects());
    fixture.objects_to_git();
    // As it was when it could still be read.
    let earlier = fixture.git().join("kubernetes").join(CLOSED);
    fs::create_dir_all(&earlier).unwrap();
    fs::write(earlier.join("namespace.json"), "{}\n").unwrap();
    let git = |arguments: &[&str]| {
        let user = ["-c", "user.name=bob", "-c", "user.email=bob@localhost"];
        let mut command = Command::new("git");
        let status = command
            .arg("-C")
            .arg(fixture.git())
            .args(user)
            .args(arguments)
            .status();
        assert!(status.unwrap().success());
    };
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "--message", "earlier"]);
    fixture.namespaces.push(CLOSED.to_owned());
    let (outcome, report) = fixture.objects_to_git();
    assert_eq!(outcome.commit, None, "{:?}", outcome.changes);
    assert_eq!(report.namespaces, [NAMESPACE]);
    let why = report.not_read[0].to_string();
    assert!(
        why.contains("namespace closed") && why.contains("forbidden"),
        "{why}"
    );
    assert!(earlier.join("namespace.json").exists());
    // All of them: an error, and nothing is kept.
    fixture.namespaces = vec![CLOSED.to_owned()];
    let (kubectl, namespaces) = (&fixture.kubectl, &fixture.namespaces);
    let source = SecretSource {
        kubectl,
        namespaces,
    };
    let error = backup_sealed(&source, &mut fixture.sink, &()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("none of the namespaces could be read"),
        "{error}"
    );
}

#[test]
fn a_document_that_is_no_object_changes_nothing() {
    let kubectl = Kubectl {
        program: "/nowhere/kubectl".into(),
        ..Kubectl::default()
    };
    let check = |content: &str, expected: &str| {
        let content = zeroize::Zeroizing::new(content.as_bytes().to_vec());
        let files = control_plane::git::Files::from([("x.json".to_owned(), content)]);
        let error = plan(&files, None, &kubectl, &()).unwrap_err();
        assert!(matches!(error, StateError::Document { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    };
    check("{\"kind\": \"Secret\", \"data\"", "JSON");
    check(
        "{\"apiVersion\": \"v1\", \"kind\": \"ConfigMap\"}",
        "metadata.name",
    );
    let node = r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}"#;
    check(node, "belongs to no namespace");
    let odd = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "n", "namespace": "--all"}}"#;
    check(odd, "is no namespace");
}
