//! What an engine that was aborted leaves running: servers on folders that were never finished, and programs at work on them. They are
//! found by their folder, whoever their parent is by now, and ended: what they worked on is begun anew. The database itself is
//! taken over by `postgres`, Redis by `redis`, a spare that somebody keeps by `spare`.

use host::instance::{Instance, is_folder_locked};
use postgres_physical::server::processes::{is_alive, parent_of, running_pids};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use operations::config::Config;

/// Below the instance's folder: a cluster that is being made.
pub(crate) const UNFINISHED_CLUSTER: &str = "postgres.new";
/// A restore that has not come to its end.
pub(crate) const UNFINISHED_RESTORE: &str = "postgres.restoring";
/// SIGKILL is obeyed at once, but for a process in a system call that hangs.
const TIMEOUT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);
/// What we start on a folder.
const PROGRAMS: [&str; 5] = [
    "postgres",
    "postmaster",
    "initdb",
    "pg_checksums",
    "pg_dump",
];

/// Call it with the instance's folder locked: no engine of it runs.
pub(crate) fn end(instance: &Instance, config: &Config) {
    let root = instance.root();
    let mut folders = vec![
        root.join(UNFINISHED_RESTORE),
        root.join(UNFINISHED_CLUSTER),
        instance.proofs(),
        instance.beside(),
    ];
    // Where a spare is wanted, its next keeper takes the server over; and one that is kept is somebody's.
    if !config.standby.enabled && !is_folder_locked(&instance.standby()) {
        folders.push(instance.standby());
    }
    let folders: Vec<PathBuf> = folders
        .into_iter()
        .map(|folder| std::fs::canonicalize(&folder).unwrap_or(folder))
        .collect();
    let left: Vec<i32> = running_pids()
        .filter(|pid| works_on(*pid, &folders) && !is_somebodys(*pid))
        .collect();
    if left.is_empty() {
        return;
    }
    tracing::warn!(processes = ?left, "an engine that was aborted left processes; ending them");
    for pid in left.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        let _ = kill_process(pid, Signal::KILL);
    }
    let began = Instant::now();
    while left.iter().any(|pid| is_alive(*pid)) && began.elapsed() < TIMEOUT {
        std::thread::sleep(LOOK);
    }
}

fn works_on(pid: i32, folders: &[PathBuf]) -> bool {
    let entry = |name: &str| std::fs::read_link(format!("/proc/{pid}/{name}"));
    let program = entry("exe").ok().and_then(|exe| {
        let name = exe.file_name()?.to_str()?;
        Some(name.trim_end_matches(" (deleted)").to_owned())
    });
    if !program.is_some_and(|name| PROGRAMS.contains(&name.as_str())) {
        return false;
    }
    // PostgreSQL works in its data folder; the others name it.
    if entry("cwd").is_ok_and(|cwd| folders.iter().any(|folder| cwd.starts_with(folder))) {
        return true;
    }
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line);
    let mut words = line.split('\0');
    words.any(|word| {
        folders
            .iter()
            .any(|folder| Path::new(word).starts_with(folder))
    })
}

/// Whether a living `bre` started it: a person's command is at work there.
fn is_somebodys(pid: i32) -> bool {
    let mut at = pid;
    while let Some(parent) = parent_of(at).filter(|parent| *parent > 1) {
        let name = std::fs::read_to_string(format!("/proc/{parent}/comm"));
        if is_alive(parent) && name.is_ok_and(|name| name.trim() == "bre") {
            return true;
        }
        at = parent;
    }
    false
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;
    use operations::jobs::settings;

    /// A process that looks like a server of ours: only its program's name and its folder are looked at.
    fn server(folder: &Path, program: &Path) -> Child {
        std::fs::create_dir_all(folder).unwrap();
        let mut command = Command::new(program);
        command.arg("600").current_dir(folder).spawn().unwrap()
    }

    #[test]
    fn what_an_aborted_engine_left_on_unfinished_folders_is_ended_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("data");
        let instance = Instance::at(&root).unwrap();
        let config = settings::load(None, &root).unwrap();
        let postgres = folder.path().join("postgres");
        let sleep = ["/usr/bin/sleep", "/bin/sleep"].map(Path::new);
        let sleep = sleep.iter().find(|path| path.exists()).unwrap();
        std::fs::copy(sleep, &postgres).unwrap();
        let ended = [
            "postgres.restoring",
            "postgres.new",
            "proof/scratch/data",
            "beside/data",
            "spare/data",
        ];
        let kept = ["postgres", "restored by hand"];
        let start = |names: &[&str]| -> Vec<Child> {
            names
                .iter()
                .map(|name| server(&root.join(name), &postgres))
                .collect()
        };
        let (mut ended, mut kept) = (start(&ended), start(&kept));
        kept.push(server(&root.join("proof"), sleep));
        end(&instance, &config);
        let alive = |children: &mut Vec<Child>| -> Vec<bool> {
            children
                .iter_mut()
                .map(|child| child.try_wait().unwrap().is_none())
                .collect()
        };
        assert_eq!(alive(&mut ended), [false; 5]);
        assert_eq!(alive(&mut kept), [true; 3]);
        for mut child in kept {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
