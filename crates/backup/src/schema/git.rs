//! git, by its own program: a repository with a working tree, and the remote that it is pushed to.

use std::fs;
use std::io::{Error, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::dump::Files;
use super::{DATABASES, GLOBALS, SchemaError};

/// A remote that says nothing holds nobody up for longer.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(5);
const REMOTE: &str = "origin";

pub(super) fn present() -> Result<(), Error> {
    let ran = Command::new("git").arg("--version").output();
    ran.map(drop)
}

pub(super) struct Git {
    folder: PathBuf,
    remote: bool,
}

/// What git prints, and error messages made of it, without what stands before the `@` of an address.
#[must_use]
pub fn without_credentials(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        clean.push_str(before);
        let end = after
            .find(|c: char| c == '/' || c.is_whitespace() || c == '\'' || c == '"')
            .unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(at) => {
                clean.push('…');
                &after[at..]
            }
            None => after,
        };
    }
    clean.push_str(rest);
    clean
}

impl Git {
    /// An empty or missing folder becomes a repository; anything else must be one.
    pub(super) fn open(folder: &Path, remote: Option<&str>) -> Result<Self, SchemaError> {
        fs::create_dir_all(folder).map_err(SchemaError::file("make", folder))?;
        let folder = fs::canonicalize(folder).map_err(SchemaError::file("find", folder))?;
        let git = Self {
            folder,
            remote: remote.is_some(),
        };
        if !git.folder.join(".git").exists() {
            let mut entries =
                fs::read_dir(&git.folder).map_err(SchemaError::file("list", &git.folder))?;
            if entries.next().is_some() {
                return Err(SchemaError::NotOurs(git.folder));
            }
            git.run(&["init", "--quiet", "--initial-branch", "main"])?;
        }
        if let Some(remote) = remote {
            let known = git.run(&["remote"])?;
            let doing = match known.lines().any(|name| name == REMOTE) {
                true => "set-url",
                false => "add",
            };
            git.run(&["remote", doing, REMOTE, remote])?;
        }
        Ok(git)
    }

    /// Others may push to the same remote: our commits come after theirs. A remote that is away stops no commit.
    pub(super) fn catch_up(&self) -> Result<(), SchemaError> {
        if !self.remote {
            return Ok(());
        }
        if let Err(error) = self.run(&["fetch", "--quiet", REMOTE]) {
            tracing::warn!(%error, "the schema's remote was not reached");
            return Ok(());
        }
        let branch = self.branch()?;
        let theirs = format!("refs/remotes/{REMOTE}/{branch}");
        if self
            .run(&["rev-parse", "--quiet", "--verify", &theirs])
            .is_err()
        {
            return Ok(());
        }
        if self.newest().is_none() {
            self.run(&["reset", "--quiet", "--hard", &theirs])?;
            return Ok(());
        }
        if self
            .run(&["merge-base", "--is-ancestor", &theirs, "HEAD"])
            .is_ok()
        {
            return Ok(());
        }
        // Every file is written anew afterwards: where both changed a line, either will do.
        let rebased = self.run(&["rebase", "--quiet", "--strategy-option", "theirs", &theirs]);
        if rebased.is_err() {
            let _ = self.run(&["rebase", "--abort"]);
        }
        rebased.map(drop)
    }

    fn branch(&self) -> Result<String, SchemaError> {
        let branch = self.run(&["symbolic-ref", "--short", "HEAD"])?;
        Ok(branch.trim().to_owned())
    }

    fn newest(&self) -> Option<String> {
        let newest = self
            .run(&["rev-parse", "--quiet", "--verify", "HEAD"])
            .ok()?;
        Some(newest.trim().to_owned())
    }

    /// Our files as the newest commit has them, whatever lies in the folder.
    pub(super) fn newest_files(&self) -> Result<Files, SchemaError> {
        let mut files = Files::new();
        if self.newest().is_none() {
            return Ok(files);
        }
        let names = self.run(&[
            "ls-tree",
            "-r",
            "-z",
            "--name-only",
            "HEAD",
            "--",
            GLOBALS,
            DATABASES,
        ])?;
        for name in names.split('\0').filter(|name| name.ends_with(".sql")) {
            files.insert(
                name.to_owned(),
                self.run(&["show", &format!("HEAD:{name}")])?,
            );
        }
        Ok(files)
    }

    /// Our files only: whatever else a person keeps there is none of our business.
    pub(super) fn commit(&self, message: &str) -> Result<String, SchemaError> {
        self.run(&["add", "--all", "--", GLOBALS, DATABASES])?;
        self.run(&[
            "commit",
            "--quiet",
            "--no-verify",
            "--message",
            message,
            "--",
            GLOBALS,
            DATABASES,
        ])?;
        Ok(self.newest().unwrap_or_default())
    }

    /// True when the remote has everything; false without one.
    pub(super) fn push(&self) -> Result<bool, SchemaError> {
        if !self.remote || self.newest().is_none() {
            return Ok(false);
        }
        let branch = self.branch()?;
        let place = format!("HEAD:refs/heads/{branch}");
        match self.run(&["push", "--quiet", REMOTE, &place]) {
            Ok(_) => Ok(true),
            Err(SchemaError::Git { said, .. }) => Err(SchemaError::NotPushed {
                folder: self.folder.clone(),
                said,
            }),
            Err(error) => Err(error),
        }
    }

    /// Its output; what it says of a failure is told without credentials. It never asks, and never waits for ever.
    fn run(&self, arguments: &[&str]) -> Result<String, SchemaError> {
        let failed = |said: String| SchemaError::Git {
            doing: arguments.first().copied().unwrap_or_default().to_owned(),
            folder: self.folder.clone(),
            said,
        };
        let spool = || {
            tempfile::tempfile().map_err(SchemaError::file("make a file in", &std::env::temp_dir()))
        };
        let (mut out, mut err) = (spool()?, spool()?);
        let handle = |file: &fs::File| {
            file.try_clone()
                .map_err(SchemaError::file("open", &self.folder))
        };
        let mut command = Command::new("git");
        command
            .arg("-C")
            .arg(&self.folder)
            .args([
                "-c",
                "user.name=bre",
                "-c",
                "user.email=bre@localhost",
                "-c",
                "commit.gpgsign=false",
            ])
            .args([
                "-c",
                "core.fsync=all",
                "-c",
                "core.autocrlf=false",
                "-c",
                "gc.auto=0",
                // Nothing that lies in the repository is run.
                "-c",
                "core.hooksPath=/dev/null",
            ])
            .args(arguments)
            .env("LC_ALL", "C")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "true")
            .env_remove("GIT_DIR")
            .env_remove("GIT_WORK_TREE")
            .env_remove("GIT_INDEX_FILE")
            .stdin(Stdio::null())
            .stdout(handle(&out)?)
            .stderr(handle(&err)?);
        if std::env::var_os("GIT_SSH_COMMAND").is_none() {
            command.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes");
        }
        let mut child = command
            .spawn()
            .map_err(|source| SchemaError::ProgramMissing {
                program: "git",
                package: "git",
                source,
            })?;
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK),
                Ok(None) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(failed(format!("no answer within {} s", PATIENCE.as_secs())));
                }
                Err(error) => return Err(failed(error.to_string())),
            }
        };
        let text = |file: &mut fs::File| {
            let mut bytes = Vec::new();
            let _ = file.rewind().and_then(|()| file.read_to_end(&mut bytes));
            String::from_utf8_lossy(&bytes).into_owned()
        };
        match status.success() {
            true => Ok(text(&mut out)),
            false => Err(failed(without_credentials(text(&mut err).trim()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_an_address_are_not_told() {
        let check = |text: &str, expected: &str| assert_eq!(without_credentials(text), expected);
        check(
            "fatal: unable to access 'https://bob:s3cret@git.example/x.git/': no",
            "fatal: unable to access 'https://…@git.example/x.git/': no",
        );
        check(
            "https://t0ken@h and http://plain/ end",
            "https://…@h and http://plain/ end",
        );
        check("ssh://a:p@ss@h/x", "ssh://…@h/x");
        check("nothing here", "nothing here");
    }
}
