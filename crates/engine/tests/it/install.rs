//! `make install`: what a machine gets, made by the program itself.

use std::{path::Path, process::Command};

use crate::instance::BRE;

fn install(prefix: &str, destination: &Path) -> std::process::Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/install");
    let mut command = Command::new(script);
    command
        .env("BRE", BRE)
        .env("PREFIX", prefix)
        .env("DESTDIR", destination);
    command.output().unwrap()
}

#[test]
fn the_program_its_completion_manual_and_unit_are_put_below_a_prefix() {
    let folder = tempfile::tempdir().unwrap();
    // A prefix of a package: nothing of it may end up in the machine's own.
    let output = install("/opt/bre", folder.path());
    assert!(output.status.success(), "{output:?}");
    let at = |path: &str| folder.path().join("opt/bre").join(path);
    for path in [
        "bin/bre",
        "share/bash-completion/completions/bre",
        "share/zsh/site-functions/_bre",
        "share/fish/vendor_completions.d/bre.fish",
        "share/man/man1/bre.1",
        "share/man/man1/bre-restore-database.1",
        "lib/systemd/system/bre.service",
    ] {
        let length = std::fs::metadata(at(path))
            .unwrap_or_else(|error| panic!("{path}: {error}"))
            .len();
        assert!(length > 0, "{path} is empty");
    }
    let version = Command::new(at("bin/bre"))
        .arg("--version")
        .output()
        .unwrap();
    assert!(version.status.success(), "{version:?}");
    let unit = std::fs::read_to_string(at("lib/systemd/system/bre.service")).unwrap();
    assert!(
        unit.contains("ExecStart=/opt/bre/bin/bre up --data"),
        "{unit}"
    );
    // Bash reads the completion, and completes a noun.
    let script = at("share/bash-completion/completions/bre");
    let complete = format!(
        "source {}; COMP_WORDS=(bre restore-t); COMP_CWORD=1; _bre bre restore-t bre; echo \"${{COMPREPLY[*]}}\"",
        script.display()
    );
    let completed = Command::new("bash")
        .args(["-c", &complete])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&completed.stdout).trim(),
        "restore-test",
        "{completed:?}"
    );
    judged_by_systemd(&at("lib/systemd/system/bre.service"), folder.path());

    let refused = install("opt", folder.path());
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

/// systemd's own checker, where it is installed. The program has to be where the unit says: a copy of the unit names
/// it where it is.
fn judged_by_systemd(unit: &Path, folder: &Path) {
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        testkit::skip!(
            "systemd-analyze",
            "apt-get install systemd; the unit is not checked"
        );
        return;
    }
    let text = std::fs::read_to_string(unit).unwrap();
    let user = postgres_physical::server::OsUser::current().unwrap().name;
    let text = text
        .replace("/opt/bre/bin/bre", BRE)
        .replace("=bre\n", &format!("={user}\n"));
    let copy = folder.join("judged.service");
    for (text, passes) in [
        (text.clone(), true),
        (
            text.replace("Type=exec", "Type=exec\nNoSuchSetting=yes"),
            false,
        ),
    ] {
        std::fs::write(&copy, text).unwrap();
        let judged = Command::new("systemd-analyze")
            .args(["--man=no", "verify"])
            .arg(&copy)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&judged.stderr);
        let about = said.lines().any(|line| line.contains("judged.service"));
        assert_eq!(judged.status.success() && !about, passes, "{said}");
    }
}
