//! How long very many objects take, and the memory (`make slow-kubernetes-many`).

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use serde_json::json;
use testkit::KubernetesApi;

use super::{Fixture, TOKEN, named, objects};
use crate::process::Output;

/// How long it takes, and the most memory that `bre` itself has meanwhile, in MiB.
fn measured(desk: &Fixture, arguments: &[&str]) -> (f64, u64, Output) {
    let data = desk.folder.join("data");
    let all = [&["--data", data.to_str().unwrap(), "snapshot"], arguments].concat();
    let began = Instant::now();
    let running = desk.folder.start(&all);
    let status = format!("/proc/{}/status", running.child.id());
    let done = AtomicBool::new(false);
    let (ran, kib) = std::thread::scope(|scope| {
        let looked = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                let text = fs::read_to_string(&status).unwrap_or_default();
                let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
                let kib =
                    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse().ok());
                most = kib.unwrap_or(0).max(most);
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let ran = running.wait();
        done.store(true, Ordering::Relaxed);
        (ran, looked.join().unwrap())
    });
    (began.elapsed().as_secs_f64(), kib / 1024, ran)
}

#[test]
#[ignore = "make slow-kubernetes-many"]
fn ten_thousand_objects_are_measured() {
    let number = std::env::var("OBJECTS").map_or(10_000_u64, |number| number.parse().unwrap());
    let bytes = std::env::var("BYTES").map_or(10_000, |bytes| bytes.parse().unwrap());
    let server = KubernetesApi::start();
    let desk = Fixture::new(&server.kubeconfig(TOKEN));
    // Without the record of processes: the real one alone is measured.
    let script = "#!/bin/sh\nexec kubectl \"$@\"\n";
    fs::write(desk.kubectl_program(), script).unwrap();
    // What takes longer than a client usually may is to be measured, too.
    desk.settings(&["shop"], "timeout_seconds = 600");
    desk.seed(&objects()[..1]);
    for n in 0..number {
        let content: String = format!("{:016x}", 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(n))
            .chars()
            .cycle()
            .take(bytes)
            .collect();
        for (kind, plural) in [("ConfigMap", "configmaps"), ("Secret", "secrets")] {
            let mut object = named("v1", kind, &format!("object-{n}"));
            object["data"] = json!({"content": content});
            server.put(
                &format!("/api/v1/namespaces/shop/{plural}/object-{n}"),
                object,
            );
        }
    }
    for component in ["configmaps", "secrets"] {
        for what in ["first", "unchanged"] {
            let (seconds, mib, ran) = measured(&desk, &["run", component]);
            let said = ran.exits(0).out.trim();
            println!(
                "{component}, {number} of {bytes} bytes, {what}: {seconds:.1} s, {mib} MiB: {}",
                &said[..said.len().min(120)]
            );
        }
    }
}
