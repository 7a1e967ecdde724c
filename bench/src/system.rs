//! The product under test, as a process: `bre up` in a throw-away folder.

use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde::Deserialize;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What `bre up --json` prints when it is ready.
#[derive(Debug, Deserialize)]
pub(crate) struct Ready {
    pub(crate) url: String,
    pub(crate) api_key: String,
    pub(crate) client_id: String,
    pub(crate) database_url: String,
}

/// A running instance; stopped when dropped.
#[derive(Debug)]
pub(crate) struct System {
    child: Child,
    pub(crate) ready: Ready,
    pub(crate) folder: tempfile::TempDir,
    bre: PathBuf,
}

impl System {
    pub(crate) fn start(bre: &Path, strict: bool) -> Result<Self> {
        Self::start_with(bre, strict, "")
    }

    /// `more`: sections of `bre.toml` beside the limits, which are out of the way.
    pub(crate) fn start_with(bre: &Path, strict: bool, more: &str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("bre-bench-")
            .permissions(std::fs::Permissions::from_mode(0o711))
            .tempdir()?;
        let config = folder.path().join("bre.toml");
        let many = 1_000_000_000;
        std::fs::write(
            &config,
            format!(
                // Nothing that the plan starts by itself may fall into a measurement.
                "[backup]\nfull = \"off\"\nincremental = \"off\"\nproof = \"off\"\nexpire = \"off\"\n\
                 [limits]\nstandard_per_minute = {many}\npremium_per_minute = {many}\ninternal_per_minute = {many}\n{more}\n"
            ),
        )?;
        let mut command = Command::new(bre);
        command
            .args(["up", "--json", "--port", "0", "--data"])
            .arg(folder.path().join("data"));
        command.arg("--config").arg(&config);
        if strict {
            command.arg("--strict");
        }
        let log = std::fs::File::create(folder.path().join("engine.log"))?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let ready = serde_json::from_str(&line)
            .map_err(|error| format!("{} did not start: {line:?} ({error})", bre.display()))?;
        Ok(Self {
            child,
            ready,
            folder,
            bre: bre.to_owned(),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Runs a command of `bre` on this instance and gives what it printed.
    pub(crate) fn bre(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.bre);
        command.args(words).arg("--data").arg(self.data());
        run(&mut command)
    }

    /// SQL as the superuser.
    pub(crate) fn psql(&self, sql: &str) -> Result<String> {
        run(Command::new("psql").arg(&self.ready.database_url).args([
            "-qAtX",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            sql,
        ]))
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

/// Runs to the end; anything but success is an error with the program's own words.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!(
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    )
    .into())
}
