//! Into git, by its own program: a repository with a working tree, one commit for every change, and the remote that
//! it is pushed to.

use std::fs::{self, File};
use std::io::{Error, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use control_plane::{ClientError, git};

use super::{Collection, Document, DocumentSink, Documents};
use crate::Progress;

const REMOTE: &str = "origin";

/// A subject that fits a line.
const SUBJECT_BYTES_MAX: usize = 72;

#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error(
        "git cannot be run: {source}. Install it (Debian: apt-get install git); {what} is not backed up without it"
    )]
    ProgramMissing { what: &'static str, source: Error },
    #[error("git {doing} in {folder} failed: {said}")]
    Git {
        doing: String,
        folder: PathBuf,
        said: String,
    },
    #[error(
        "{0} is neither empty nor a git repository, and nothing of it is touched. Name another folder, or run git init there"
    )]
    NotOurs(PathBuf),
    #[error(
        "{what} is committed in {folder} but not pushed: {said}. It goes with the next backup that reaches the remote"
    )]
    NotPushed {
        what: &'static str,
        folder: PathBuf,
        said: String,
    },
    #[error("{what} {path}: {source}")]
    File {
        what: &'static str,
        path: PathBuf,
        source: Error,
    },
}

impl GitError {
    fn file(what: &'static str, path: &Path) -> impl FnOnce(Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}

/// Whether git can be run here.
pub(crate) fn present() -> Result<(), Error> {
    let ran = Command::new("git").arg("--version").output();
    ran.map(drop)
}

/// Where documents are committed, and pushed.
#[derive(Debug)]
pub(crate) struct GitDocuments<'a> {
    /// For people: what a failure leaves without a backup.
    pub(crate) what: &'static str,
    /// A git repository with a working tree; made when it is not there.
    pub(crate) folder: &'a Path,
    /// An address that git understands, a bare repository's folder too.
    pub(crate) remote: Option<&'a str>,
    /// What is ours in it: files and folders. All else there belongs to others.
    pub(crate) paths: &'static [&'static str],
    /// How our files end.
    pub(crate) ending: &'static str,
    pub(crate) git: Option<Git>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitOutcome {
    /// `None`: nothing had changed.
    pub commit: Option<String>,
    /// What did, one line each, as in the commit's message.
    pub changes: Vec<String>,
    pub pushed: bool,
}

impl DocumentSink for GitDocuments<'_> {
    type Error = GitError;
    type Outcome = GitOutcome;

    fn prepare(&mut self, progress: &dyn Progress) -> Result<(), GitError> {
        progress.message("opening the git repository");
        let git = Git::open(self)?;
        git.catch_up()?;
        self.git = Some(git);
        Ok(())
    }

    fn keep(
        &mut self,
        _: &str,
        mut collection: Collection,
        changes: &dyn Fn(&Documents, &Documents) -> Vec<String>,
    ) -> Result<GitOutcome, GitError> {
        let git = match self.git.take() {
            Some(git) => git,
            None => Git::open(self)?,
        };
        let before = git.newest_documents()?;
        for unread in &collection.not_read {
            let is_of = |name: &String| match unread.ends_with('/') {
                true => name.starts_with(unread),
                false => name == unread,
            };
            let kept = before.iter().filter(|(name, _)| is_of(name));
            let kept = kept.map(|(name, document)| (name.clone(), document.clone()));
            collection.documents.extend(kept);
        }
        let changes = changes(&before, &collection.documents);
        write(self.folder, self.paths, &before, &collection.documents)?;
        let commit = match changes.is_empty() {
            true => None,
            false => Some(git.commit(&message(&changes))?),
        };
        Ok(GitOutcome {
            commit,
            changes,
            pushed: git.push()?,
        })
    }
}

/// Each file whole or not at all; those that are gone are removed. Folders of ours are there, if empty.
fn write(
    folder: &Path,
    paths: &[&str],
    before: &Documents,
    after: &Documents,
) -> Result<(), GitError> {
    for path in paths.iter().filter(|path| !path.contains('.')) {
        let path = folder.join(path);
        fs::create_dir_all(&path).map_err(GitError::file("make", &path))?;
    }
    for (name, document) in after {
        let path = folder.join(name);
        if fs::read(&path).is_ok_and(|there| there == *document.content) {
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(GitError::file("make", parent))?;
        }
        let unfinished = path.with_extension("unfinished");
        let written = File::create(&unfinished).and_then(|mut file| {
            file.write_all(&document.content)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)
        });
        written.map_err(GitError::file("write", &path))?;
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(GitError::file("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A subject that fits a line, and all of it below.
fn message(changes: &[String]) -> String {
    let mut subject = String::new();
    for (number, change) in changes.iter().enumerate() {
        let left = changes.len() - number;
        let next = match subject.is_empty() {
            true => change.clone(),
            false => format!("{subject}, {change}"),
        };
        if next.len() > SUBJECT_BYTES_MAX && !subject.is_empty() {
            subject.push_str(&format!(" and {left} more"));
            break;
        }
        subject = next;
    }
    match changes.len() {
        1 => subject,
        _ => format!("{subject}\n\n{}", changes.join("\n")),
    }
}

#[derive(Debug)]
pub(crate) struct Git {
    what: &'static str,
    folder: PathBuf,
    remote: bool,
    paths: &'static [&'static str],
    ending: &'static str,
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
    fn open(to: &GitDocuments<'_>) -> Result<Self, GitError> {
        let (folder, remote) = (to.folder, to.remote);
        fs::create_dir_all(folder).map_err(GitError::file("make", folder))?;
        let folder = fs::canonicalize(folder).map_err(GitError::file("find", folder))?;
        let git = Self {
            what: to.what,
            folder,
            remote: remote.is_some(),
            paths: to.paths,
            ending: to.ending,
        };
        if !git.folder.join(".git").exists() {
            let mut entries =
                fs::read_dir(&git.folder).map_err(GitError::file("list", &git.folder))?;
            if entries.next().is_some() {
                return Err(GitError::NotOurs(git.folder));
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
    fn catch_up(&self) -> Result<(), GitError> {
        if !self.remote {
            return Ok(());
        }
        if let Err(error) = self.run(&["fetch", "--quiet", REMOTE]) {
            tracing::warn!(%error, what = self.what, "the remote in git was not reached");
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

    fn branch(&self) -> Result<String, GitError> {
        let branch = self.run(&["symbolic-ref", "--short", "HEAD"])?;
        Ok(branch.trim().to_owned())
    }

    fn newest(&self) -> Option<String> {
        let newest = self
            .run(&["rev-parse", "--quiet", "--verify", "HEAD"])
            .ok()?;
        Some(newest.trim().to_owned())
    }

    /// Our files as the newest commit has them, not as the folder has them.
    fn newest_documents(&self) -> Result<Documents, GitError> {
        if self.newest().is_none() {
            return Ok(Documents::new());
        }
        let files = git::files(&self.folder, "HEAD", self.paths, self.ending);
        let files = files.map_err(|error| self.failed("cat-file", error))?;
        let document = |content| Document {
            content,
            ..Document::default()
        };
        let documents = files
            .into_iter()
            .map(|(name, content)| (name, document(content)));
        Ok(documents.collect())
    }

    /// Our files only.
    fn commit(&self, message: &str) -> Result<String, GitError> {
        self.run(&[&["add", "--all", "--"][..], self.paths].concat())?;
        // It names every change: longer than an argument may be.
        let commit = ["commit", "--quiet", "--no-verify", "--file=-", "--"];
        let commit = [&commit[..], self.paths].concat();
        let done = git::call(&self.folder, &commit, message.as_bytes(), |out| {
            std::io::copy(out, &mut std::io::sink())
        });
        done.map_err(|error| self.failed("commit", error))?;
        Ok(self.newest().unwrap_or_default())
    }

    /// True when the remote has everything; false without one.
    fn push(&self) -> Result<bool, GitError> {
        if !self.remote || self.newest().is_none() {
            return Ok(false);
        }
        let branch = self.branch()?;
        let place = format!("HEAD:refs/heads/{branch}");
        match self.run(&["push", "--quiet", REMOTE, &place]) {
            Ok(_) => Ok(true),
            Err(GitError::Git { said, .. }) => Err(GitError::NotPushed {
                what: self.what,
                folder: self.folder.clone(),
                said,
            }),
            Err(error) => Err(error),
        }
    }

    /// Its output; what it says of a failure is told without credentials.
    fn run(&self, arguments: &[&str]) -> Result<String, GitError> {
        let doing = arguments.first().copied().unwrap_or_default();
        git::text(&self.folder, arguments).map_err(|error| self.failed(doing, error))
    }

    fn failed(&self, doing: &str, error: ClientError) -> GitError {
        let said = match error {
            ClientError::ProgramMissing { source, .. } => {
                return GitError::ProgramMissing {
                    what: self.what,
                    source,
                };
            }
            ClientError::Timeout { timeout, .. } => {
                format!("no answer within {} s", timeout.as_secs())
            }
            ClientError::Failed { said, .. } => said,
            error => error.to_string(),
        };
        GitError::Git {
            doing: doing.to_owned(),
            folder: self.folder.clone(),
            said: without_credentials(&said),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_fits_a_line() {
        let many: Vec<String> = (0..9)
            .map(|n| format!("table public.orders_{n} added in desk"))
            .collect();
        let message = message(&many);
        let subject = message.lines().next().unwrap();
        assert!(
            subject.len() < 90 && subject.ends_with("and 7 more"),
            "{subject}"
        );
        assert_eq!(message.lines().count(), 2 + many.len());
        assert_eq!(super::message(&many[..1]), many[0]);
    }

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
