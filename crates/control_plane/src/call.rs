//! One call of a client program: its input, its output, and the limits of both.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use zeroize::Zeroizing;

const LOOK_MIN: Duration = Duration::from_millis(1);
const LOOK_MAX: Duration = Duration::from_millis(10);
/// No error is that long.
const SAID_BYTES_MAX: u64 = 64 << 10;
/// What of an error fits a record.
const SAID_SHOWN_CHARS_MAX: usize = 2000;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{program} cannot be run: {source}. Install it, or name its path in the settings")]
    ProgramMissing { program: String, source: io::Error },
    #[error("{program} {doing} failed: {said}")]
    Failed {
        program: String,
        doing: String,
        said: String,
    },
    #[error(
        "{program} {doing} did not end within {} s and was ended. Look at whether what it asks can be reached",
        .timeout.as_secs()
    )]
    Timeout {
        program: String,
        doing: String,
        timeout: Duration,
    },
    #[error("{program} {doing} was interrupted")]
    Cancelled { program: String, doing: String },
    #[error("what {program} {doing} printed was not understood: {source}")]
    Output {
        program: String,
        doing: String,
        source: io::Error,
    },
}

impl ClientError {
    /// As the client worded its failure; empty where it did not fail by itself.
    #[must_use]
    pub fn said(&self) -> &str {
        match self {
            Self::Failed { said, .. } => said,
            _ => "",
        }
    }

    #[must_use]
    pub fn is_missing_program(&self) -> bool {
        matches!(self, Self::ProgramMissing { .. })
    }

    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled { .. })
    }
}

/// Names of the environment that the clients of control planes need: where they are, whose account they use, and how
/// the network is reached.
const PASSED: [&str; 18] = [
    "PATH",
    "HOME",
    "KUBECACHEDIR",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "TMPDIR",
];

/// A client with its own environment: of ours, only what is named.
#[must_use]
pub fn client(program: &Path) -> Command {
    let mut command = Command::new(program);
    let passed = PASSED
        .iter()
        .filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let passed: Vec<(&str, OsString)> = passed.collect();
    command.env_clear().envs(passed).env("LC_ALL", "C");
    command
}

pub struct Call<'a> {
    pub command: Command,
    /// For people.
    pub program: &'a str,
    /// What it is to do, for people, without a secret.
    pub doing: String,
    pub input: &'a [u8],
    pub timeout: Duration,
    /// Asked often, while it runs.
    pub cancelled: &'a dyn Fn() -> bool,
}

impl std::fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.program, self.doing)
    }
}

enum Ending {
    Exit(ExitStatus),
    Timeout,
    Cancelled,
    Lost(io::Error),
}

impl Call<'_> {
    /// All that it prints.
    pub fn output(self, bytes_max: u64) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        self.read(|out| {
            let mut bytes = Zeroizing::new(Vec::new());
            out.take(bytes_max + 1).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > bytes_max {
                let why = format!("more than {bytes_max} bytes");
                return Err(io::Error::new(ErrorKind::FileTooLarge, why));
            }
            Ok(bytes)
        })
    }

    /// What `read` makes of what it prints, while it prints it.
    pub fn read<T: Send>(
        mut self,
        read: impl FnOnce(&mut dyn Read) -> io::Result<T> + Send,
    ) -> Result<T, ClientError> {
        let stdin = given(self.input).map_err(|source| self.not_understood(source))?;
        // A group of its own: what it started ends with it.
        self.command
            .process_group(0)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let spawned = self.command.spawn();
        let mut child = spawned.map_err(|source| ClientError::ProgramMissing {
            program: self.program.to_owned(),
            source,
        })?;
        // It has its input; this process keeps no other end of it.
        self.command.stdin(Stdio::null());
        let pipes = (child.stdout.take(), child.stderr.take());
        let (Some(mut stdout), Some(mut stderr)) = pipes else {
            return Err(self.not_understood(ErrorKind::BrokenPipe.into()));
        };
        let (ending, came, said) = thread::scope(|scope| {
            let reader = scope.spawn(move || read(&mut stdout));
            let errors = scope.spawn(move || {
                let mut said = Vec::new();
                let kept = (&mut stderr).take(SAID_BYTES_MAX).read_to_end(&mut said);
                let _ = kept.and_then(|_| io::copy(&mut stderr, &mut io::sink()));
                said
            });
            let is_done = || reader.is_finished() && errors.is_finished();
            let ending = self.wait(&mut child, &is_done);
            let gone = || io::Error::other("its reader ended");
            let came = reader.join().unwrap_or_else(|_| Err(gone()));
            (ending, came, errors.join().unwrap_or_default())
        });
        let said = String::from_utf8_lossy(&said);
        let said = said.trim();
        let (program, doing) = (self.program.to_owned(), self.doing.clone());
        match (ending, came) {
            (Ending::Timeout, _) => Err(ClientError::Timeout {
                program,
                doing,
                timeout: self.timeout,
            }),
            (Ending::Cancelled, _) => Err(ClientError::Cancelled { program, doing }),
            (Ending::Lost(source), _) => Err(self.not_understood(source)),
            (Ending::Exit(status), Ok(came)) if status.success() => Ok(came),
            (Ending::Exit(status), Err(source)) if status.success() || said.is_empty() => {
                Err(self.not_understood(source))
            }
            (Ending::Exit(status), _) => Err(ClientError::Failed {
                program,
                doing,
                said: match said.is_empty() {
                    true => format!("it ended with {status} and said nothing"),
                    false => without_content(said, self.input),
                },
            }),
        }
    }

    fn not_understood(&self, source: io::Error) -> ClientError {
        ClientError::Output {
            program: self.program.to_owned(),
            doing: self.doing.clone(),
            source,
        }
    }

    fn wait(&self, child: &mut Child, is_done: &dyn Fn() -> bool) -> Ending {
        let group = Pid::from_child(child);
        let began = Instant::now();
        let (mut look, mut status) = (LOOK_MIN, None);
        let ending = loop {
            if status.is_none() {
                match child.try_wait() {
                    Ok(found) => status = found,
                    Err(error) => break Ending::Lost(error),
                }
            }
            match status {
                Some(status) if is_done() => return Ending::Exit(status),
                _ if (self.cancelled)() => break Ending::Cancelled,
                _ if began.elapsed() >= self.timeout => break Ending::Timeout,
                _ => {}
            }
            thread::sleep(look);
            look = (look * 2).min(LOOK_MAX);
        };
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait();
        ending
    }
}

/// Content as standard input: in memory only, and whole, so that a client which opens `/dev/stdin` twice, as `aws`
/// does, reads the same twice.
fn given(input: &[u8]) -> io::Result<Stdio> {
    if input.is_empty() {
        return Ok(Stdio::null());
    }
    let memory = rustix::fs::memfd_create("input", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut memory = File::from(memory);
    memory.write_all(input)?;
    memory.rewind()?;
    Ok(memory.into())
}

/// Whether a client's words say that the server cannot be reached at all.
#[must_use]
pub fn is_away(said: &str) -> bool {
    const WORDS: [&str; 6] = [
        "Unable to connect to the server",
        "connection refused",
        "was refused - did you specify the right host or port",
        "cluster unreachable",
        "no such host",
        "i/o timeout",
    ];
    WORDS.iter().any(|words| said.contains(words))
}

/// An error's words, without a value that was in the input: a server that refuses an object quotes it.
fn without_content(said: &str, input: &[u8]) -> String {
    // As an API server words what it could not decode: an excerpt of the bytes between bars.
    let said = match said.split_once("error found in #") {
        Some((before, _)) => format!("{before}(an excerpt of the object is not shown)"),
        None => said.to_owned(),
    };
    let mut said = match serde_json::from_slice::<serde_json::Value>(input) {
        Ok(mut object) => {
            let mut said = said;
            crate::kubernetes::hide_secrets(&object, &mut said);
            crate::kubernetes::wipe(&mut object);
            said
        }
        Err(_) => said,
    };
    if let Some((end, _)) = said.char_indices().nth(SAID_SHOWN_CHARS_MAX) {
        said.truncate(end);
        said.push('…');
    }
    said
}

/// Whether a path names a program that is there, or a name is on the PATH.
#[must_use]
pub fn is_program(program: &Path) -> bool {
    if program.components().count() > 1 {
        return program.is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn call<'a>(script: &str, input: &'a [u8], timeout: Duration) -> Call<'a> {
        let mut command = client(Path::new("sh"));
        command.args(["-c", script]);
        Call {
            command,
            program: "sh",
            doing: "test".to_owned(),
            input,
            timeout,
            cancelled: &|| false,
        }
    }

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn content_goes_in_and_comes_out_and_an_error_is_told() {
        let input = vec![b'x'; 1 << 20];
        let came = call("cat", &input, LONG).output(2 << 20).unwrap();
        assert!(*came == input);
        let error = call("echo no such thing >&2; exit 3", b"", LONG)
            .output(9)
            .unwrap_err();
        assert_eq!(error.to_string(), "sh test failed: no such thing");
        let error = call("exit 3", b"", LONG).output(9).unwrap_err().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
        let error = call("yes", b"", LONG).output(9).unwrap_err().to_string();
        assert!(error.contains("more than 9 bytes"), "{error}");
        // Opened twice, it is the same twice.
        let came = call("cat /dev/stdin /dev/stdin", b"twice", LONG).output(99);
        assert_eq!(**came.unwrap(), *b"twicetwice");
        // It reads nothing of much.
        let came = call("echo done", &input, LONG).output(99).unwrap();
        assert_eq!(**came, *b"done\n");
        let mut missing = call("", b"", LONG);
        missing.command = client(Path::new("/nowhere/kubectl"));
        assert!(missing.output(1).unwrap_err().is_missing_program());
    }

    #[test]
    fn it_and_what_it_started_end_at_the_timeout_and_when_it_is_cancelled() {
        // Without the group's end the reader would wait for the child's own child, which holds the pipe.
        let script = "sleep 3600 & sleep 3600";
        let error = call(script, b"", Duration::from_millis(50))
            .output(9)
            .unwrap_err();
        assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
        let ended = AtomicBool::new(false);
        let cancelled = || ended.swap(true, Ordering::Relaxed);
        let mut call = call(script, b"", LONG);
        call.cancelled = &cancelled;
        assert!(call.output(9).unwrap_err().is_cancelled());
    }

    #[test]
    fn only_what_is_named_of_the_environment_is_passed() {
        let came = call("env", b"", LONG).output(1 << 20).unwrap();
        let came = String::from_utf8(came.to_vec()).unwrap();
        // Cargo sets it for every test.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        assert!(!came.contains("CARGO_MANIFEST_DIR"), "{came}");
        assert!(
            came.contains("PATH=") && came.contains("LC_ALL=C"),
            "{came}"
        );
    }

    #[test]
    fn an_error_does_not_quote_what_it_was_given() {
        let input = br#"{"kind": "Secret", "metadata": {"name": "db"}, "data": {"password": "aHVudGVyMg=="}}"#;
        let script =
            r#"echo 'Error from server: bad value "aHVudGVyMg==" in secret "db"' >&2; exit 1"#;
        let error = call(script, input, LONG).output(9).unwrap_err().to_string();
        assert!(
            error.contains("secret \"db\"") && !error.contains("aHVud"),
            "{error}"
        );
        let script =
            r#"echo 'illegal base64, error found in #10 byte of ...|"hunter2"|...' >&2; exit 1"#;
        let error = call(script, input, LONG).output(9).unwrap_err().to_string();
        assert!(
            error.contains("illegal base64") && !error.contains("hunter2"),
            "{error}"
        );
    }
}
