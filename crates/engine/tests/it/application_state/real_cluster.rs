//! The same on a real kube-apiserver, and what only one has: changes as they come, releases of the real Helm.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testkit::within;

use super::{Fixture, changed, named, objects, partial, remote_away, round_trip};
use crate::instance::Instance;

fn kubeconfig() -> PathBuf {
    PathBuf::from(std::env::var_os("KUBECONFIG").expect("KUBECONFIG names the cluster"))
}

/// The namespace is not there yet.
fn desk() -> Fixture {
    let desk = Fixture::new(&fs::read_to_string(kubeconfig()).unwrap());
    let delete = [
        "delete",
        "namespace",
        "shop",
        "--ignore-not-found",
        "--wait",
    ];
    desk.kubectl(&delete, &Value::Null);
    desk
}

#[test]
#[ignore = "make slow-kubernetes starts a kube-apiserver for it"]
fn a_wiped_namespace_comes_back_to_the_same_bytes() {
    let desk = desk();
    round_trip(&desk);
    changed(&desk);
    partial(&desk, "absent");
    remote_away(&desk);
}

/// Longer than the first minute of an engine, in which nothing is started.
const FIRST: Duration = Duration::from_secs(240);
const CHANGE: Duration = Duration::from_secs(120);

#[test]
#[ignore = "make slow-kubernetes starts a kube-apiserver for it"]
fn the_engine_commits_what_changes() {
    let desk = desk();
    desk.seed(&objects());
    let mut engine = Instance::prepared(&[]);
    let cache = desk.folder.join("kube-cache").display().to_string();
    engine
        .folder
        .environment
        .push(("KUBECACHEDIR".to_owned(), cache));
    engine.settings(&format!(
        "[kubernetes]\nnamespaces = [\"shop\"]\nkubeconfig = {:?}\n",
        desk.kubeconfig.display().to_string()
    ));
    engine.up();
    let newest = |job: &str| -> Option<Value> {
        let history = engine.bre(&["job", "history", job]).json();
        let newest = history["runs"].get(0)?.clone();
        (newest["outcome"] == "succeeded").then_some(newest)
    };
    let first =
        |job: &str| within(FIRST, || newest(job)).unwrap_or_else(|| panic!("no run of {job}"));
    for job in [
        "kubernetes.config",
        "kubernetes.configmaps",
        "kubernetes.secrets",
    ] {
        let run = first(job);
        println!("{job}, first: {} {}", run["summary"], run["figures"]);
    }
    let mut settings = named("v1", "ConfigMap", "settings");
    settings["data"] = json!({"LOG_LEVEL": "trace"});
    let mut service = objects().pop().unwrap();
    service["spec"]["ports"][0]["port"] = 9000.into();
    service["spec"]["ports"][0]["name"] = "http".into();
    for (object, job, watched) in [
        (settings, "kubernetes.configmaps", 1),
        (service, "kubernetes.config", 0),
    ] {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        // The watch is up before the change: that is what is measured.
        let is_up = within(FIRST, || {
            engine.bre(&["job", "run", job]).exits(0);
            (newest(job)?["figures"]["watched"] == watched).then_some(())
        });
        assert!(is_up.is_some(), "{:?}", newest(job));
        desk.seed(&[object]);
        let began = Instant::now();
        let committed = within(CHANGE, || {
            let run = newest(job)?;
            let summary = run["summary"].as_str()?;
            (summary.contains(&name) && summary.contains("changed (")).then(|| run.clone())
        });
        let run = committed.unwrap_or_else(|| panic!("{job} did not see it: {}", engine.log()));
        println!(
            "{job}: committed after {:.1} s, {} {}",
            began.elapsed().as_secs_f64(),
            run["summary"],
            run["figures"]
        );
        assert_eq!(run["figures"]["watched"], watched, "{run}");
    }
    engine.stop_cleanly();
    assert_eq!(
        desk.planted_below(engine.folder.path()),
        Vec::<String>::new()
    );
}

fn helm(arguments: &[&str]) -> Value {
    let ran = Command::new(helm_program())
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{arguments:?}: {said}");
    serde_json::from_slice(&ran.stdout).unwrap_or_default()
}

fn helm_program() -> PathBuf {
    std::env::var_os("HELM").map_or_else(|| "helm".into(), PathBuf::from)
}

fn chart(folder: &Path) -> PathBuf {
    let chart = folder.join("web");
    fs::create_dir_all(chart.join("templates")).unwrap();
    let about = "apiVersion: v2\nname: web\nversion: 1.2.3\nappVersion: \"4.5\"\n";
    fs::write(chart.join("Chart.yaml"), about).unwrap();
    fs::write(chart.join("values.yaml"), "level: info\npassword: \"\"\n").unwrap();
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\n\
                    data:\n  level: {{ .Values.level | quote }}\n";
    fs::write(chart.join("templates/settings.yaml"), template).unwrap();
    chart
}

#[test]
#[ignore = "make slow-kubernetes starts a kube-apiserver for it"]
fn a_release_comes_back_with_its_values() {
    let desk = desk();
    desk.seed(&objects()[..1]);
    let chart = chart(desk.folder.path());
    let secret_value = super::PLANTED;
    let values = desk.folder.join("values.json");
    fs::write(
        &values,
        json!({"level": "debug", "password": secret_value}).to_string(),
    )
    .unwrap();
    let (chart, from) = (chart.to_str().unwrap(), values.to_str().unwrap());
    helm(&[
        "install",
        "web",
        chart,
        "--namespace",
        "shop",
        "--values",
        from,
    ]);
    fs::remove_file(&values).unwrap();
    desk.settings(
        &["shop"],
        &format!("helm = {:?}", helm_program().display().to_string()),
    );
    let listed = ["list", "--namespace", "shop", "--output", "json"];
    let read = [
        "get",
        "values",
        "web",
        "--namespace",
        "shop",
        "--output",
        "json",
    ];
    let (releases, values) = (helm(&listed), helm(&read));
    assert_eq!(values["password"], secret_value);
    let first = desk.snapshot(&["run", "helm", "--json"]).json();
    assert_eq!(first["changes"], json!(["release web in shop added"]));
    for component in ["kubernetes", "configmaps", "secrets"] {
        desk.snapshot(&["run", component]).exits(0);
    }
    let shown = desk.snapshot(&["show", "helm", "--document", "helm/shop/release/web.json"]);
    assert!(
        shown.exits(0).out.contains("\"level\": \"debug\""),
        "{shown:?}"
    );
    assert_eq!(desk.is_planted_anywhere(), Vec::<String>::new());

    desk.kubectl(&["delete", "namespace", "shop", "--wait"], &Value::Null);
    let plan = desk.snapshot(&["restore", "helm", "--dry-run"]);
    assert!(
        plan.exits(0)
            .out
            .contains("Secret sh.helm.release.v1.web.v1 in shop"),
        "{plan:?}"
    );
    desk.snapshot(&["restore", "helm", "--yes"]).exits(0);
    assert_eq!(helm(&listed)[0]["status"], "deployed");
    desk.snapshot(&["restore", "configmaps", "--yes"]).exits(0);
    let (again, values_again) = (helm(&listed), helm(&read));
    assert_eq!(
        (&again[0]["revision"], &again[0]["chart"]),
        (&releases[0]["revision"], &releases[0]["chart"])
    );
    assert_eq!(values_again, values);
    for component in ["helm", "configmaps", "kubernetes"] {
        let again = desk.snapshot(&["run", component, "--json"]).json();
        assert_eq!(again["commit"], Value::Null, "{again}");
    }
}
