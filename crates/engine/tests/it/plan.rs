//! The guide's 17 rows on an instance that has everything they need: Amazon's services as moto plays them, a Kubernetes
//! API, a cache, git, a journal. Each part is taken away once, and its rows are named.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};
use testkit::{KubernetesApi, TestAws, on_path};

use crate::{
    instance::Instance,
    process::{TIMEOUT, within},
};

/// Of the plan, as it is now: how it ends, and the rows that do not run, with what they say.
fn looked(instance: &Instance) -> (Option<i32>, Vec<(String, Value)>) {
    let output = instance.bre(&["plan", "check"]);
    let (code, said) = (output.code, output.parsed());
    let rows = said["rows"].as_array().unwrap().clone();
    assert_eq!(rows.len(), 17, "{said}");
    let is_quiet = |row: &Value| row["verdict"] == "runs" || row["verdict"] == "not_here";
    let faulty = rows.into_iter().filter(|row| !is_quiet(row));
    let named = faulty.map(|row| (row["job"].as_str().unwrap().to_owned(), row));
    (code, named.collect())
}

/// Until exactly these rows lack something, and each says what mends it.
fn until_lacking(instance: &Instance, expected: &[&str]) {
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    let seen = within(TIMEOUT, || {
        let (code, rows) = looked(instance);
        let jobs: BTreeSet<&str> = rows.iter().map(|(job, _)| job.as_str()).collect();
        (jobs == expected).then_some((code, rows.clone()))
    });
    let (code, rows) = seen.unwrap_or_else(|| panic!("{:#?} for {expected:?}", looked(instance)));
    assert_eq!(code == Some(1), !expected.is_empty(), "{code:?} {rows:?}");
    for (_, row) in rows {
        assert_eq!(row["verdict"], "missing", "{row}");
        for key in ["why", "mend"] {
            assert!(
                row[key].as_str().is_some_and(|text| !text.is_empty()),
                "{row}"
            );
        }
    }
}

/// A program that passes on to another one, and can be taken away.
fn pass_on(path: &Path, program: &Path) {
    fs::write(
        path,
        format!("#!/bin/sh\nexec '{}' \"$@\"\n", program.display()),
    )
    .unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn taken_away(path: &Path, look: impl FnOnce()) {
    let aside = path.with_extension("aside");
    fs::rename(path, &aside).unwrap();
    look();
    fs::rename(&aside, path).unwrap();
}

#[test]
fn every_row_runs_where_its_parts_are_there_and_is_named_where_one_is_gone() {
    let Some(aws) = TestAws::start() else { return };
    let helm = on_path("helm");
    let api = KubernetesApi::start();
    api.put(
        "/api/v1/namespaces/shop",
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
    );
    let mut instance = Instance::prepared(&[]);
    let file = |name: &str| instance.folder.join(name);
    let (aws_program, kubectl, journal) = (file("aws"), file("kubectl"), file("journal"));
    let (kubeconfig, state) = (file("kubeconfig"), file("t.tfstate"));
    pass_on(&aws_program, &aws.program());
    pass_on(&kubectl, &on_path("kubectl").unwrap());
    fs::write(&kubeconfig, api.kubeconfig("a-token")).unwrap();
    fs::write(
        &state,
        "{\"version\": 4, \"serial\": 1, \"lineage\": \"a\", \"resources\": []}",
    )
    .unwrap();
    fs::create_dir(&journal).unwrap();
    let helm_settings = match &helm {
        Some(helm) => format!("helm = {helm:?}\n"),
        None => "[jobs.\"kubernetes.helm\"]\nnot_here = \"no helm on this machine\"\n".to_owned(),
    };
    instance.settings(&format!(
        "[aws]\nregion = \"us-east-1\"\nendpoint_url = \"{}\"\nprogram = {aws_program:?}\n\
         [terraform.prod]\nfile = {state:?}\n\
         [audit_logs]\njournal = {journal:?}\n\
         [kubernetes]\nnamespaces = [\"shop\"]\nkubeconfig = {kubeconfig:?}\nkubectl = {kubectl:?}\n{helm_settings}",
        aws.endpoint()
    ));
    instance.up();
    until_lacking(&instance, &[]);
    let whole = looked(&instance).0;
    // Where helm cannot be had its row is not here, and that is partial.
    assert_eq!(whole, Some(if helm.is_some() { 0 } else { 5 }));

    let of_account = [
        "cloudformation.stacks",
        "iam.policies",
        "network.configuration",
    ];
    taken_away(&aws_program, || until_lacking(&instance, &of_account));
    let of_cluster = [
        "kubernetes.config",
        "kubernetes.configmaps",
        "kubernetes.secrets",
    ];
    taken_away(&kubectl, || until_lacking(&instance, &of_cluster));
    taken_away(&journal, || until_lacking(&instance, &["audit_log.system"]));
    until_lacking(&instance, &[]);
    instance.stop_cleanly();
    let (code, rows) = looked(&instance);
    assert_eq!(code, Some(4), "{rows:?}");
    assert!(
        rows.iter().all(|(_, row)| row["verdict"] == "not_running"),
        "{rows:?}"
    );
}
