//! Child processes with deadlines, and what else runs on a folder.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

/// Much longer than anything here takes; a test that reaches it has failed.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(90);
pub(crate) use testkit::within;

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    #[expect(dead_code, reason = "a failing test prints it")]
    pub(crate) line: String,
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Output {
    /// Its standard output as JSON, after success.
    pub(crate) fn json(&self) -> serde_json::Value {
        self.exits(0).parsed()
    }

    /// Its standard output as JSON, however it ended.
    pub(crate) fn parsed(&self) -> serde_json::Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    pub(crate) fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Refused with words on standard error that hold all of these.
    pub(crate) fn refused(&self, words: &[&str]) -> &Self {
        // Failed, usage, refused, not running: whichever it is, not done and not half done.
        assert!(matches!(self.code, Some(1..=4)), "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "{word:?} is not said: {self:?}");
        }
        self
    }
}

/// A child whose output goes to files, so that nothing it prints can block it.
#[derive(Debug)]
pub(crate) struct Running {
    line: String,
    pub(crate) child: Child,
    out: PathBuf,
    pub(crate) err: PathBuf,
}

impl Running {
    /// `name` is unique in `folder`.
    pub(crate) fn start(mut command: Command, folder: &Path, name: &str) -> Self {
        let (out, err) = (
            folder.join(format!("{name}.out")),
            folder.join(format!("{name}.err")),
        );
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&err).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            line: format!("{command:?}"),
            child,
            out,
            err,
        }
    }

    pub(crate) fn out(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(pid_of(self.child.id()), signal).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Output {
        let Some(status) = within(TIMEOUT, || self.ended()) else {
            self.kill();
            panic!(
                "it does not end: {}\n{}\n{}",
                self.line,
                self.out(),
                self.err()
            );
        };
        Output {
            line: self.line.clone(),
            code: status.code(),
            out: self.out(),
            err: self.err(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn pid_of(id: u32) -> Pid {
    Pid::from_raw(id.cast_signed()).unwrap()
}

/// Every live process that was started with this folder on its command line, or works in it: its number and its name.
pub(crate) fn processes_on(folder: &Path) -> Vec<(u32, String)> {
    let folder = folder.to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id())
        .filter_map(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let works_in = std::fs::read_link(format!("/proc/{pid}/cwd"))
                .is_ok_and(|cwd| cwd.to_string_lossy().starts_with(folder));
            (line.contains(folder) || works_in).then_some((pid, line))
        })
        .collect()
}

/// Ends what still runs on a folder of ours, whoever started it.
pub(crate) fn kill_all_on(folder: &Path) {
    within(Duration::from_secs(10), || {
        let left = processes_on(folder);
        for (pid, _) in &left {
            let _ = kill_process(pid_of(*pid), Signal::KILL);
        }
        left.is_empty().then_some(())
    });
}
