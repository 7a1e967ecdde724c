//! Passwords: fixed, or read at each connect from a file or a command, for those that expire or rotate.

use std::fmt;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use zeroize::Zeroizing;

use crate::options::{Address, ConnectOptions, Host};

/// A password; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where a password comes from.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Password {
    #[default]
    None,
    Given(Secret),
    /// A file that holds the password and nothing else; read at each connect.
    File(PathBuf),
    /// A file in the form of libpq's `.pgpass`; read at each connect.
    PassFile(PathBuf),
    /// A command of the shell whose first line is the password; run at each connect, with `PGHOST`, `PGPORT`, `PGUSER`
    /// and `PGDATABASE` telling for whom.
    Command(String),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Password::None => f.write_str("None"),
            Password::Given(secret) => secret.fmt(f),
            Password::File(path) => f.debug_tuple("File").field(path).finish(),
            Password::PassFile(path) => f.debug_tuple("PassFile").field(path).finish(),
            // A command may carry a token.
            Password::Command(_) => f.write_str("Command(…)"),
        }
    }
}

/// Why there is no password to be had. Says where it was looked for, never what was found there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("the password command {reason}")]
    Command { reason: String },
}

/// Longer ones are none.
const BYTES_MAX: u64 = 64 << 10;

impl Password {
    /// The password for one address; blocks while a command runs, no longer than `timeout`.
    pub fn ask(
        &self,
        options: &ConnectOptions,
        address: &Address,
    ) -> Result<Option<Secret>, PasswordError> {
        match self {
            Password::None => Ok(None),
            Password::Given(secret) => Ok(Some(secret.clone())),
            Password::File(path) => first_line(path).map(Some),
            Password::PassFile(path) => {
                let text = read_private(path)?;
                let host = match &address.host {
                    Host::Unix(_) => "localhost",
                    Host::Tcp(host) => host,
                };
                let wanted = [
                    host,
                    &address.port.to_string(),
                    &options.database,
                    &options.user,
                ];
                let found = text.lines().find_map(|line| pass_line(line, &wanted));
                let none = || PasswordError::File {
                    path: path.clone(),
                    reason: format!(
                        "no line of it is for {}, port {}, database {}, user {}",
                        wanted[0], wanted[1], wanted[2], wanted[3]
                    ),
                };
                found.map(Secret).map(Some).ok_or_else(none)
            }
            Password::Command(command) => {
                let mut shell = Command::new("/bin/sh");
                shell
                    .args(["-c", command])
                    .env("PGPORT", address.port.to_string())
                    .env("PGUSER", &options.user)
                    .env("PGDATABASE", &options.database);
                match &address.host {
                    Host::Unix(folder) => shell.env("PGHOST", folder),
                    Host::Tcp(host) => shell.env("PGHOST", host),
                };
                run(shell, options.timeout).map(Some)
            }
        }
    }

    /// For what is no PostgreSQL (Redis): the same file or command, without names in the environment.
    pub fn ask_plain(&self, timeout: Duration) -> Result<Option<Secret>, PasswordError> {
        match self {
            Password::None => Ok(None),
            Password::Given(secret) => Ok(Some(secret.clone())),
            Password::File(path) | Password::PassFile(path) => first_line(path).map(Some),
            Password::Command(command) => {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", command]);
                run(shell, timeout).map(Some)
            }
        }
    }
}

fn read_private(path: &Path) -> Result<Zeroizing<String>, PasswordError> {
    secrets::read_text(path).map_err(|error| PasswordError::File {
        path: path.to_owned(),
        reason: error.reason(),
    })
}

fn first_line(path: &Path) -> Result<Secret, PasswordError> {
    let text = read_private(path)?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(PasswordError::File {
            path: path.to_owned(),
            reason: "its first line is empty; it is to hold the password".to_owned(),
        });
    }
    Ok(Secret::new(line))
}

/// `host:port:database:user:password`, each of the first four may be `*`; `\` takes the next letter as it is.
fn pass_line(line: &str, wanted: &[&str; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let mut rest = line.chars();
    for wanted in wanted {
        let (mut field, mut escaped, mut ended) = (String::new(), false, false);
        while let Some(letter) = rest.next() {
            match letter {
                '\\' => {
                    escaped = true;
                    field.extend(rest.next());
                }
                ':' => {
                    ended = true;
                    break;
                }
                other => field.push(other),
            }
        }
        let any = field == "*" && !escaped;
        if !ended || (!any && field != *wanted) {
            return None;
        }
    }
    let mut password = String::new();
    while let Some(letter) = rest.next() {
        match letter {
            '\\' => password.extend(rest.next()),
            ':' => break,
            other => password.push(other),
        }
    }
    Some(password)
}

/// Ends the command and all that it started, however this ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.0.id().cast_signed()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

fn run(mut shell: Command, timeout: Duration) -> Result<Secret, PasswordError> {
    let fail = |reason: String| PasswordError::Command { reason };
    // What it says on standard error may hold a secret too: nobody keeps it.
    let child = shell
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| fail(format!("cannot be started: {error}")))?;
    let mut running = Running(child);
    let output = running.0.stdout.take();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = output.map(|output| output.take(BYTES_MAX).read_to_string(&mut text));
        let _ = sender.send(read.is_some_and(|read| read.is_ok()).then_some(text));
    });
    let late = || {
        fail(format!(
            "gave no password within {} s and was ended",
            timeout.as_secs()
        ))
    };
    let deadline = Instant::now() + timeout;
    let text = receiver.recv_timeout(timeout).map_err(|_| late())?;
    // Its output has ended: it ends too, or is ended.
    let status = loop {
        match running.0.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(None) => return Err(late()),
            Err(error) => return Err(fail(format!("cannot be waited for: {error}"))),
        }
    };
    if !status.success() {
        return Err(fail(format!(
            "failed ({status}); run it by hand to see what it says"
        )));
    }
    let text = text.ok_or_else(|| fail("printed no text".to_owned()))?;
    match text.lines().next() {
        None | Some("") => Err(fail("printed no password on its first line".to_owned())),
        Some(line) => Ok(Secret::new(line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn ask(words: &str) -> Result<String, String> {
        let options = ConnectOptions::from_url(words).unwrap();
        let asked = options.password.ask(&options, &options.addresses[0]);
        match asked {
            Ok(Some(secret)) => Ok(secret.expose().to_owned()),
            Ok(None) => Ok(String::new()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn from_files_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let mode = |mode| std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        std::fs::write(&file, "first\n").unwrap();
        mode(0o600);
        let words = format!("host=db user=bob password_file='{}'", file.display());
        assert_eq!(ask(&words).unwrap(), "first");
        // Each connect asks: a password that was replaced is the next one's.
        std::fs::write(&file, "second").unwrap();
        assert_eq!(ask(&words).unwrap(), "second");
        mode(0o644);
        let error = ask(&words).unwrap_err();
        assert!(
            error.contains("0644") && error.contains("chmod 600"),
            "{error}"
        );
        assert!(!error.contains("second"), "{error}");
        mode(0o600);
        std::fs::write(&file, "\n").unwrap();
        assert!(ask(&words).unwrap_err().contains("empty"));
        std::fs::remove_file(&file).unwrap();
        assert!(ask(&words).unwrap_err().contains("No such file"));
    }

    #[test]
    fn from_a_pass_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pass");
        let text =
            "# comment\ndb:5432:other:bob:no\ndb:5432:desk:bob:a\\:b\\\\c:rest\n*:*:*:ann:x\n";
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        let words = |user: &str| {
            format!(
                "host=db user={user} dbname=desk passfile='{}'",
                file.display()
            )
        };
        assert_eq!(ask(&words("bob")).unwrap(), "a:b\\c");
        assert_eq!(ask(&words("ann")).unwrap(), "x");
        assert!(ask(&words("eve")).unwrap_err().contains("user eve"));
    }

    #[test]
    fn from_a_command() {
        let ask = |command: &str| {
            ask(&format!(
                r"host=db port=77 user=bob dbname=desk connect_timeout=1 password_command='{command}'"
            ))
        };
        let told = ask("echo $PGUSER@$PGHOST:$PGPORT/$PGDATABASE").unwrap();
        assert_eq!(told, "bob@db:77/desk");
        let error = ask("echo hush; echo hush >&2; exit 3").unwrap_err();
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(!error.contains("hush"), "{error}");
        assert!(ask("true").unwrap_err().contains("no password"));
        // Whatever it started ends with it.
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let error = ask(&format!("sleep 600 & echo $! >{}; wait", pid.display())).unwrap_err();
        assert!(error.contains("within 1 s"), "{error}");
        let pid = std::fs::read_to_string(pid).unwrap();
        let status = format!("/proc/{}/stat", pid.trim());
        let gone = |stat: String| {
            stat.rsplit(')')
                .next()
                .is_some_and(|s| s.trim_start().starts_with('Z'))
        };
        testkit::eventually("the command's child ends", || {
            let is_gone = std::fs::read_to_string(&status).map_or(true, gone);
            is_gone.then_some(())
        });
    }
}
