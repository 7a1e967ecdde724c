//! A git repository with a working tree, through `git`: how it is called, and the files of a commit.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::call::{Call, ClientError};

/// A remote that says nothing holds up no run for longer.
const TIMEOUT: Duration = Duration::from_secs(120);

/// By name: a path in the repository.
pub type Files = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// It never asks, runs nothing that is in the repository, and never waits without an end.
pub fn call<T: Send>(
    folder: &Path,
    arguments: &[&str],
    input: &[u8],
    read: impl FnOnce(&mut dyn Read) -> Result<T, Error> + Send,
) -> Result<T, ClientError> {
    let settings = [
        "user.name=bre",
        "user.email=bre@localhost",
        "commit.gpgsign=false",
        "core.fsync=all",
        "core.autocrlf=false",
        "gc.auto=0",
        "core.hooksPath=/dev/null",
    ];
    let mut command = Command::new("git");
    command.arg("-C").arg(folder);
    for setting in settings {
        command.args(["-c", setting]);
    }
    command
        .args(arguments)
        .env("LC_ALL", "C")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ASKPASS", "true")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE");
    if std::env::var_os("GIT_SSH_COMMAND").is_none() {
        command.env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes");
    }
    let call = Call {
        command,
        program: "git",
        doing: arguments.first().copied().unwrap_or_default().to_owned(),
        input,
        timeout: TIMEOUT,
        cancelled: &|| false,
    };
    call.read(read)
}

/// What it prints, as text.
pub fn text(folder: &Path, arguments: &[&str]) -> Result<String, ClientError> {
    call(folder, arguments, b"", |out| {
        let mut bytes = Vec::new();
        out.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    })
}

/// The files of a commit below these paths, those that end so. Two processes, however many files there are.
pub fn files(
    folder: &Path,
    commit: &str,
    paths: &[&str],
    ending: &str,
) -> Result<Files, ClientError> {
    let listing = ["ls-tree", "-r", "-z", commit, "--"];
    let listed = text(folder, &[&listing[..], paths].concat())?;
    // MODE TYPE OBJECT, a tabulator, NAME
    let entry = |line: &str| {
        let (place, name) = line.split_once('\t')?;
        let object = place.rsplit(' ').next()?;
        Some((object.to_owned(), name.to_owned()))
    };
    let entries = listed.split('\0').filter_map(entry);
    let entries: Vec<_> = entries.filter(|(_, name)| name.ends_with(ending)).collect();
    let objects: Vec<&str> = entries.iter().map(|(object, _)| object.as_str()).collect();
    let input = objects.join("\n");
    call(folder, &["cat-file", "--batch"], input.as_bytes(), |out| {
        let mut out = BufReader::new(out);
        let mut files = Files::new();
        for (_, name) in &entries {
            files.insert(name.clone(), object(&mut out)?);
        }
        Ok(files)
    })
}

/// One of what `git cat-file --batch` prints: `OBJECT TYPE BYTES`, the bytes, a line's end.
fn object(out: &mut dyn BufRead) -> Result<Zeroizing<Vec<u8>>, Error> {
    let odd = |what: &str| Error::new(ErrorKind::InvalidData, format!("cat-file said {what:?}"));
    let mut head = String::new();
    out.read_line(&mut head)?;
    let head = head.trim_end();
    let bytes = head
        .rsplit(' ')
        .next()
        .and_then(|bytes| bytes.parse::<usize>().ok());
    let mut content = Zeroizing::new(vec![0; bytes.ok_or_else(|| odd(head))?]);
    out.read_exact(&mut content)?;
    out.read_exact(&mut [0])?;
    Ok(content)
}
