//! `bre snapshot` of a Kubernetes cluster, with the real kubectl: on a stand-in, and on a real kube-apiserver
//! (`make slow-kubernetes`). Each part of it is backed up, wiped, restored, and the same bytes afterwards.

mod many;
mod real_cluster;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use repository::{
    Repository,
    keys::{ChunkIdKey, RecipientPrivate},
    store::PosixStore,
};
use serde_json::{Value, json};
use testkit::{CLOSED_NAMESPACE, KubernetesApi};

use crate::{instance::Folder, process::Output};

/// Looked for wherever a secret must not be; and as the API has it.
const PLANTED: &str = "planted-hunter2-in-a-secret";
const PLANTED_BASE64: &str = "cGxhbnRlZC1odW50ZXIyLWluLWEtc2VjcmV0";
/// Of the account that kubectl uses.
const TOKEN: &str = "planted-token-of-kubectl";

struct Fixture {
    folder: Folder,
    kubeconfig: PathBuf,
}

impl Fixture {
    fn new(kubeconfig: &str) -> Self {
        let mut folder = Folder::new();
        let cache = folder.join("kube-cache").display().to_string();
        folder.environment.push(("KUBECACHEDIR".to_owned(), cache));
        let desk = Self {
            kubeconfig: folder.join("kubeconfig"),
            folder,
        };
        fs::write(&desk.kubeconfig, kubeconfig).unwrap();
        for name in ["repository", "keys"] {
            fs::create_dir_all(desk.data(name)).unwrap();
        }
        let store = PosixStore::new(desk.data("repository"));
        Repository::init(Arc::new(store)).unwrap();
        let key = RecipientPrivate::generate().unwrap();
        key.store(&desk.data("keys/recipient.key")).unwrap();
        key.public()
            .store(&desk.data("keys/recipient.pub"))
            .unwrap();
        let chunk_id = ChunkIdKey::generate().unwrap();
        chunk_id.store(&desk.data("keys/chunk_id.key")).unwrap();
        // The real one; what every process on this machine shows of itself meanwhile is on record.
        let script = format!(
            "#!/bin/sh\ncat /proc/[0-9]*/cmdline /proc/[0-9]*/environ >>'{}' 2>/dev/null\nexec kubectl \"$@\"\n",
            desk.folder.join("processes").display()
        );
        fs::write(desk.kubectl_program(), script).unwrap();
        fs::set_permissions(desk.kubectl_program(), fs::Permissions::from_mode(0o755)).unwrap();
        desk.settings(&["shop"], "");
        desk
    }

    fn kubectl_program(&self) -> PathBuf {
        self.folder.join("kubectl")
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.join("data").join(name)
    }

    fn settings(&self, namespaces: &[&str], more: &str) {
        let text = format!(
            "[kubernetes]\nnamespaces = {namespaces:?}\nkubeconfig = {:?}\nkubectl = {:?}\n{more}\n",
            self.kubeconfig.display().to_string(),
            self.kubectl_program().display().to_string(),
        );
        fs::write(self.data("bre.toml"), text).unwrap();
        fs::set_permissions(self.data("bre.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn bre(&self, arguments: &[&str]) -> Output {
        let data = self.folder.join("data");
        self.folder
            .run(&[&["--data", data.to_str().unwrap()], arguments].concat())
    }

    fn snapshot(&self, arguments: &[&str]) -> Output {
        self.bre(&[&["snapshot"], arguments].concat())
    }

    /// As an operator would.
    fn kubectl(&self, arguments: &[&str], input: &Value) {
        let mut child = Command::new("kubectl")
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECACHEDIR", self.folder.join("kube-cache"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let input = input.to_string();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{arguments:?}");
    }

    fn seed(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let arguments = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--validate=false",
            "--filename=-",
        ];
        self.kubectl(&arguments, &list);
    }

    fn git(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.arg("-C").arg(self.data("application_state"));
        let ran = command.args(arguments).output().unwrap();
        assert!(ran.status.success(), "{arguments:?}");
        String::from_utf8(ran.stdout).unwrap()
    }

    /// Every file that anything of it left, and what processes showed of themselves.
    fn is_planted_anywhere(&self) -> Vec<String> {
        self.planted_below(self.folder.path())
    }

    fn planted_below(&self, folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                // Sockets have no content.
                if path == self.kubeconfig || !path.is_file() {
                    continue;
                }
                let bytes = fs::read(&path).unwrap();
                let shows = |needle: &&str| {
                    let mut windows = bytes.windows(needle.len());
                    windows.any(|window| window == needle.as_bytes())
                };
                if [PLANTED, PLANTED_BASE64, TOKEN].iter().any(shows) {
                    found.push(path.display().to_string());
                }
            }
        }
        found
    }
}

fn named(version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "shop",
        "labels": {"app": "api"}}})
}

fn objects() -> Vec<Value> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    let mut settings = named("v1", "ConfigMap", "settings");
    settings["data"] = json!({"LOG_LEVEL": "debug"});
    let mut secret = named("v1", "Secret", "db");
    secret["data"] = json!({"password": PLANTED_BASE64});
    // As much as an API server takes.
    let mut large = named("v1", "Secret", "large");
    large["data"] = json!({"content": "QUJD".repeat(1_000_000 / 3)});
    let mut deployment = named("apps/v1", "Deployment", "api");
    deployment["spec"] = json!({"replicas": 2, "selector": {"matchLabels": {"app": "api"}},
        "template": {"metadata": {"labels": {"app": "api"}}, "spec": {"containers": [
            {"name": "api", "image": "registry.test/api:1"}]}}});
    let mut service = named("v1", "Service", "api");
    service["spec"] =
        json!({"selector": {"app": "api"}, "ports": [{"port": 8000, "protocol": "TCP"}]});
    vec![namespace, settings, secret, large, deployment, service]
}

fn is_kubectl_here() -> bool {
    let ran = Command::new("kubectl")
        .args(["version", "--client"])
        .output();
    let is_here = ran.is_ok_and(|ran| ran.status.success());
    if !is_here {
        testkit::skip!("kubectl", "put the official client on the PATH");
    }
    is_here
}

/// The id of the sealed snapshot, after every part was taken once.
fn taken(desk: &Fixture) -> String {
    let first = desk.snapshot(&["run", "kubernetes", "--json"]).json();
    let changes = first["changes"].as_array().unwrap();
    assert!(
        changes.contains(&json!("deployment api in shop added")),
        "{first}"
    );
    let configmaps = desk.snapshot(&["run", "configmaps", "--json"]).json();
    assert_eq!(
        configmaps["changes"],
        json!(["configmap settings in shop added"])
    );
    let secrets = desk.snapshot(&["run", "secrets", "--json"]).json();
    assert_eq!(
        (&secrets["documents"], &secrets["verified"]),
        (&json!(2), &json!(true))
    );
    secrets["id"].as_str().unwrap().to_owned()
}

fn nothing_changed(desk: &Fixture, secrets: &str) {
    for component in ["kubernetes", "configmaps"] {
        let again = desk.snapshot(&["run", component, "--json"]).json();
        assert_eq!(again["commit"], Value::Null, "{again}");
    }
    let again = desk.snapshot(&["run", "secrets", "--json"]).json();
    assert_eq!(
        (&again["is_new"], &again["id"]),
        (&json!(false), &json!(secrets))
    );
}

fn round_trip(desk: &Fixture) {
    desk.seed(&objects());
    let secrets = taken(desk);
    nothing_changed(desk, &secrets);
    let before = desk.git(&["rev-parse", "HEAD^{tree}"]);
    let restore = ["restore", "application_state"];
    let again = desk.snapshot(&restore);
    assert!(again.exits(0).out.contains("nothing to do"), "{again:?}");

    desk.kubectl(
        &["delete", "namespace", "shop", "--wait", "--timeout=300s"],
        &Value::Null,
    );
    let plan = desk
        .snapshot(&[&restore[..], &["--dry-run", "--json"]].concat())
        .json();
    let steps = plan["steps"].as_array().unwrap();
    let order: Vec<&str> = steps
        .iter()
        .map(|step| step["object"].as_str().unwrap())
        .collect();
    let expected = [
        "Namespace shop",
        "ConfigMap settings in shop",
        "Secret db in shop",
        "Secret large in shop",
        "Service api in shop",
        "Deployment api in shop",
    ];
    assert_eq!(order, expected);
    assert!(
        steps.iter().all(|step| step["action"] == "create"),
        "{plan}"
    );
    desk.snapshot(&restore)
        .exits(3)
        .refused(&["missing", "--yes"]);
    let done = desk.snapshot(&[&restore[..], &["--yes"]].concat());
    assert!(
        done.exits(0).out.contains("restored and read back"),
        "{done:?}"
    );
    let again = desk.snapshot(&restore);
    assert!(again.exits(0).out.contains("nothing to do"), "{again:?}");
    // The same canonical bytes: no commit, no snapshot.
    nothing_changed(desk, &secrets);
    assert_eq!(desk.git(&["rev-parse", "HEAD^{tree}"]), before);
    assert_eq!(desk.is_planted_anywhere(), Vec::<String>::new());
}

/// Each by itself: what differs is named, and who would undo it.
fn changed(desk: &Fixture) {
    let mut settings = named("v1", "ConfigMap", "settings");
    settings["data"] = json!({"LOG_LEVEL": "info"});
    settings["metadata"]["annotations"] = json!({"argocd.argoproj.io/tracking-id": "desk:x"});
    let mut secret = named("v1", "Secret", "db");
    secret["data"] = json!({"password": "b3RoZXI="});
    desk.seed(&[settings, secret]);
    let diff = desk.snapshot(&["diff", "configmaps"]);
    assert!(
        diff.exits(0).out.contains("+    \"LOG_LEVEL\": \"info\""),
        "{diff:?}"
    );
    let diff = desk.snapshot(&["diff", "secrets"]);
    assert!(
        diff.exits(0).out.contains("secrets/shop/secret/db.json"),
        "{diff:?}"
    );
    let plan = desk.snapshot(&["restore", "configmaps", "--dry-run"]);
    for words in [
        "data.LOG_LEVEL",
        "git as in the backup",
        "Argo CD (application desk) would undo this",
    ] {
        assert!(plan.exits(0).out.contains(words), "{words}: {plan:?}");
    }
    for component in ["configmaps", "secrets"] {
        let restore = ["restore", component, "--yes", "--force-conflicts"];
        desk.snapshot(&restore).exits(0);
        let again = desk.snapshot(&restore);
        assert!(again.exits(0).out.contains("nothing to do"), "{again:?}");
    }
    let list = desk.snapshot(&["list", "--json"]).json();
    let commits = list["commits"].as_array().unwrap();
    assert_eq!(commits.len(), 2, "{list}");
    let id = commits[1]["id"].as_str().unwrap();
    let shown = desk.snapshot(&["show", "configmaps", &id[..8]]);
    assert!(
        shown
            .exits(0)
            .out
            .contains("configmaps/shop/configmap/settings.json"),
        "{shown:?}"
    );
    let document = ["--document", "secrets/shop/secret/db.json"];
    let shown = desk.snapshot(&[&["show", "secrets"], &document[..]].concat());
    assert!(
        shown.exits(0).out.contains("characters of base64"),
        "{shown:?}"
    );
    assert_eq!(desk.is_planted_anywhere(), Vec::<String>::new());
}

/// One of the namespaces may not be read.
fn partial(desk: &Fixture, closed: &str) {
    desk.settings(&["shop", closed], "");
    let run = desk.snapshot(&["run", "configmaps"]);
    assert!(
        run.exits(5).err.contains(&format!("namespace {closed}")),
        "{run:?}"
    );
    let run = desk.snapshot(&["run", "secrets", "--json"]);
    assert_eq!(
        run.exits(5).parsed()["documents"],
        3,
        "and one that says what it lacks"
    );
    let history = desk
        .bre(&["job", "history", "kubernetes.configmaps", "--json"])
        .json();
    let newest = &history["runs"][0];
    assert_eq!(newest["outcome"], "partial", "{newest}");
    assert_eq!(newest["figures"]["namespaces_not_read"], 1, "{newest}");
    assert!(
        newest["reason"].as_str().unwrap().contains(closed),
        "{newest}"
    );
    desk.settings(&["shop"], "");
}

/// Commits wait in the folder and go later.
fn remote_away(desk: &Fixture) {
    let (bare, away) = (desk.folder.join("remote.git"), desk.folder.join("away.git"));
    let init = ["init", "--quiet", "--bare", "--initial-branch=main"];
    let made = Command::new("git").args(init).arg(&bare).status().unwrap();
    assert!(made.success());
    desk.settings(&["shop"], &format!("git = \"file://{}\"", bare.display()));
    let first = desk.snapshot(&["run", "kubernetes", "--json"]).json();
    assert_eq!(first["pushed"], true, "{first}");
    fs::rename(&bare, &away).unwrap();
    let mut settings = named("v1", "ConfigMap", "settings");
    settings["data"] = json!({"LOG_LEVEL": "warn"});
    desk.seed(&[settings]);
    let run = desk.snapshot(&["run", "configmaps"]);
    run.exits(1)
        .refused(&["committed", "not pushed", "next backup"]);
    fs::rename(&away, &bare).unwrap();
    let later = desk.snapshot(&["run", "configmaps", "--json"]).json();
    assert_eq!(
        (&later["commit"], &later["pushed"]),
        (&Value::Null, &json!(true))
    );
    let log = Command::new("git")
        .arg("-C")
        .arg(&bare)
        .args(["log", "--format=%s"])
        .output()
        .unwrap();
    let log = String::from_utf8(log.stdout).unwrap();
    assert!(
        log.starts_with("configmap settings in shop changed\n"),
        "{log}"
    );
    desk.settings(&["shop"], "");
}

#[test]
fn a_wiped_namespace_comes_back_to_the_same_bytes() {
    if !is_kubectl_here() {
        return;
    }
    let server = KubernetesApi::start();
    let desk = Fixture::new(&server.kubeconfig(TOKEN));
    round_trip(&desk);
    changed(&desk);
    partial(&desk, CLOSED_NAMESPACE);
    remote_away(&desk);
    let processes = fs::read(desk.folder.join("processes")).unwrap();
    let processes = String::from_utf8_lossy(&processes);
    assert!(
        processes.contains("snapshot\0run\0secrets"),
        "it is looked at what processes show"
    );
    assert_eq!(desk.is_planted_anywhere(), Vec::<String>::new());

    desk.settings(&["shop"], "context = \"nope\"");
    let run = desk.snapshot(&["run", "kubernetes"]);
    run.exits(1)
        .refused(&["none of the namespaces", "context", "nope"]);
    desk.settings(&["shop"], "");
    server.expire_credentials();
    let run = desk.snapshot(&["run", "secrets"]);
    run.exits(1)
        .refused(&["none of the namespaces", "nauthorized"]);
    fs::write(
        &desk.kubeconfig,
        server
            .kubeconfig(TOKEN)
            .replace(&server.port.to_string(), "1"),
    )
    .unwrap();
    desk.snapshot(&["run", "configmaps"])
        .exits(4)
        .refused(&["refused"]);
    desk.snapshot(&["restore", "kubernetes"])
        .exits(4)
        .refused(&["refused"]);
    // What was kept is as it was.
    assert_eq!(desk.git(&["status", "--porcelain"]), "");
}

#[test]
fn a_host_without_a_cluster_says_the_line_that_mends_it() {
    let desk = Fixture::new("{}");
    fs::write(desk.data("bre.toml"), "").unwrap();
    let line = "[kubernetes] namespaces = [\"NAME\"]";
    for component in ["kubernetes", "configmaps", "helm", "secrets"] {
        desk.snapshot(&["run", component]).exits(3).refused(&[line]);
    }
    desk.snapshot(&["restore", "kubernetes"])
        .exits(3)
        .refused(&[line]);
    desk.settings(&["shop"], "helm = \"/nowhere/helm\"");
    desk.snapshot(&["run", "helm"])
        .exits(3)
        .refused(&["/nowhere/helm", "[kubernetes] helm ="]);
    desk.snapshot(&["run", "kubernetes", "--config", "x"])
        .exits(2)
        .refused(&["--config"]);
    desk.snapshot(&["restore", "kubernetes"])
        .exits(3)
        .refused(&["bre snapshot run kubernetes"]);
    desk.snapshot(&["restore", "configmaps", "--to", "x"])
        .exits(2)
        .refused(&["files in git"]);
    desk.snapshot(&["restore", "configuration"])
        .exits(2)
        .refused(&["--in-place"]);
}
