//! Amazon's services through `aws`: one call and its JSON, what kind of failure one is, and how many a round may make.
//!
//! The client itself asks again when it is told to slow down, with back-off and a limit, and reads all pages of an
//! answer. Where an address is set it goes as `--endpoint-url`: for some services the client ignores the variable.

pub mod iam;
pub mod network;
pub mod policy;
pub mod secrets;

use std::cell::Cell;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use zeroize::Zeroizing;

use crate::call::{Call, ClientError, client};

/// An answer of many pages, all of them.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// How often the client asks, the first time included.
const TRIES_MAX: u32 = 5;
/// What a job asks in one run, where it does not say otherwise.
pub const CALLS_MAX: u32 = 12;
/// Where the client finds credentials, besides what every client is told of the environment.
const PASSED: [&str; 14] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_SDK_LOAD_CONFIG",
    "AWS_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "AWS_STS_REGIONAL_ENDPOINTS",
    "AWS_USE_FIPS_ENDPOINT",
];

/// Gives a client what Amazon's own clients take from the environment.
pub fn pass_credentials(command: &mut Command) {
    let passed = PASSED
        .iter()
        .filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let passed: Vec<(&str, OsString)> = passed.collect();
    command.envs(passed);
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aws {
    /// A name to be found on the PATH, or a path.
    pub program: PathBuf,
    /// Another address than Amazon's own, of all services.
    pub endpoint_url: Option<String>,
    /// Of the client's own settings; they and the credentials stay where the client has them.
    pub profile: Option<String>,
    pub region: Option<String>,
    /// Of one call with all its pages and tries.
    pub timeout: Duration,
}

impl Default for Aws {
    fn default() -> Self {
        Self {
            program: "aws".into(),
            endpoint_url: None,
            profile: None,
            region: None,
            timeout: Duration::from_secs(120),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    #[error(transparent)]
    Client(ClientError),
    #[error(
        "aws {doing}: too many requests, also after {TRIES_MAX} tries: {said}. The next run tries again; if this \
         stays, run the job less often or ask AWS for a higher rate"
    )]
    Throttled { doing: String, said: String },
    #[error(
        "aws {doing}: the credentials are missing, expired or not accepted: {said}. Renew them (aws sso login, or \
         the role's), or name a profile: [aws] profile in bre.toml"
    )]
    Credentials { doing: String, said: String },
    #[error(
        "aws {doing}: this account may not do it: {said}. Allow it in the policy of the role that bre runs as"
    )]
    NotAllowed { doing: String, said: String },
    #[error(
        "aws {doing}: the service was not reached: {said}. Look at the network, and at [aws] endpoint_url and region \
         in bre.toml"
    )]
    Away { doing: String, said: String },
    #[error("aws {doing} was refused ({code}): {said}")]
    Refused {
        doing: String,
        /// As the service names the reason: `NoSuchBucket`.
        code: String,
        said: String,
    },
    #[error(
        "aws {doing} was not asked: a run makes at most {calls_max} calls. The next run continues"
    )]
    CallsMax { doing: String, calls_max: u32 },
}

impl AwsError {
    /// As the service names the reason; empty where it named none.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            _ => "",
        }
    }

    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Client(error) if error.is_cancelled())
    }

    /// Of this one call only: others of the same account may be answered.
    #[must_use]
    pub fn is_of_one_call(&self) -> bool {
        matches!(self, Self::NotAllowed { .. } | Self::Refused { .. })
    }

    /// What was asked for is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        let code = self.code();
        ["NotFound", "NoSuch", "404", "DoesNotExist"]
            .iter()
            .any(|word| code.contains(word))
    }
}

/// The calls that one run makes: at most so many.
pub struct AwsRound<'a> {
    aws: &'a Aws,
    cancelled: &'a dyn Fn() -> bool,
    calls_max: u32,
    calls: Cell<u32>,
}

impl std::fmt::Debug for AwsRound<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} calls", self.calls.get(), self.calls_max)
    }
}

impl Aws {
    /// Whether it can be run here at all; asks no service.
    pub fn check_present(&self) -> Result<(), ClientError> {
        let mut command = client(&self.program);
        command.arg("--version");
        self.call(command, "--version".to_owned(), b"", &|| false)
            .output(ANSWER_BYTES_MAX)
            .map(drop)
    }

    #[must_use]
    pub fn round<'a>(&'a self, cancelled: &'a dyn Fn() -> bool) -> AwsRound<'a> {
        self.round_of(CALLS_MAX, cancelled)
    }

    #[must_use]
    pub fn round_of<'a>(&'a self, calls_max: u32, cancelled: &'a dyn Fn() -> bool) -> AwsRound<'a> {
        AwsRound {
            aws: self,
            cancelled,
            calls_max,
            calls: Cell::new(0),
        }
    }

    fn command(&self) -> Command {
        let mut command = client(&self.program);
        pass_credentials(&mut command);
        command
            .env("AWS_PAGER", "")
            .env("AWS_RETRY_MODE", "standard")
            .env("AWS_MAX_ATTEMPTS", TRIES_MAX.to_string());
        if let Some(endpoint_url) = &self.endpoint_url {
            command.args(["--endpoint-url", endpoint_url]);
        }
        if let Some(profile) = &self.profile {
            command.args(["--profile", profile]);
        }
        if let Some(region) = &self.region {
            command.args(["--region", region]);
        }
        command.args([
            "--output",
            "json",
            "--cli-connect-timeout",
            "10",
            "--cli-read-timeout",
            "60",
        ]);
        command
    }

    fn call<'a>(
        &self,
        command: Command,
        doing: String,
        input: &'a [u8],
        cancelled: &'a dyn Fn() -> bool,
    ) -> Call<'a> {
        Call {
            command,
            program: "aws",
            doing,
            input,
            timeout: self.timeout,
            cancelled,
        }
    }
}

impl AwsRound<'_> {
    /// How many calls it has made.
    #[must_use]
    pub fn calls(&self) -> u32 {
        self.calls.get()
    }

    /// How many it may still make.
    #[must_use]
    pub fn calls_left(&self) -> u32 {
        self.calls_max.saturating_sub(self.calls.get())
    }

    /// The answer to `aws ARGUMENTS`, all its pages; null where there is none.
    pub fn json(&self, arguments: &[&str]) -> Result<Value, AwsError> {
        self.json_with(arguments, b"")
    }

    /// The same with content, which an argument takes as `file:///dev/stdin`: it is in no argument itself.
    pub fn json_with(&self, arguments: &[&str], input: &[u8]) -> Result<Value, AwsError> {
        let (answer, doing) = self.output(arguments, input)?;
        if answer.iter().all(u8::is_ascii_whitespace) {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer).map_err(|error| {
            // The error's own words could quote a value.
            not_understood(doing, format!("line {} is no JSON", error.line()))
        })
    }

    /// An object of a bucket, or one version of it, as it is: neither in a file nor in an argument.
    pub fn object(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&str>,
    ) -> Result<Zeroizing<Vec<u8>>, AwsError> {
        let mut arguments = vec!["s3api", "get-object", "--bucket", bucket, "--key", key];
        if let Some(version) = version {
            arguments.extend(["--version-id", version]);
        }
        // The length follows the content, on a line of its own.
        arguments.extend(["--query", "ContentLength", "/dev/stdout"]);
        let (answer, doing) = self.output(&arguments, b"")?;
        content_before_its_length(answer).ok_or_else(|| {
            let why = "the content is not as long as it should be".to_owned();
            not_understood(doing, why)
        })
    }

    fn output(
        &self,
        arguments: &[&str],
        input: &[u8],
    ) -> Result<(Zeroizing<Vec<u8>>, String), AwsError> {
        let doing = arguments
            .iter()
            .take(2)
            .copied()
            .collect::<Vec<_>>()
            .join(" ");
        if self.calls_left() == 0 {
            let calls_max = self.calls_max;
            return Err(AwsError::CallsMax { doing, calls_max });
        }
        self.calls.set(self.calls.get() + 1);
        let mut command = self.aws.command();
        command.args(arguments);
        let call = self.aws.call(command, doing.clone(), input, self.cancelled);
        match call.output(ANSWER_BYTES_MAX) {
            Ok(answer) => Ok((answer, doing)),
            Err(error) => Err(classified(error)),
        }
    }
}

fn not_understood(doing: String, why: String) -> AwsError {
    AwsError::Client(ClientError::Output {
        program: "aws".to_owned(),
        doing,
        source: std::io::Error::other(why),
    })
}

fn content_before_its_length(mut answer: Zeroizing<Vec<u8>>) -> Option<Zeroizing<Vec<u8>>> {
    let end = answer.strip_suffix(b"\n")?;
    let digits = end
        .iter()
        .rev()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    // Content may end with digits, too: it is as long as it says for one split at most.
    let length = (1..=digits).find_map(|digits| {
        let (content, length) = end.split_at(end.len() - digits);
        let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
        (content.len() == length).then_some(length)
    })?;
    answer.truncate(length);
    Some(answer)
}

/// By what the client and the services say, which is the same in its versions 1 and 2.
fn classified(error: ClientError) -> AwsError {
    let ClientError::Failed { doing, said, .. } = error else {
        return AwsError::Client(error);
    };
    // An error occurred (CODE) when calling the OPERATION operation (reached max retries: 4): WORDS
    let code = said
        .split_once("An error occurred (")
        .and_then(|(_, rest)| rest.split_once(')'))
        .map(|(code, _)| code.to_owned());
    let of = |code: &str, words: &[&str]| words.contains(&code);
    match code {
        Some(code) if of(&code, &THROTTLED) => AwsError::Throttled { doing, said },
        Some(code) if of(&code, &CREDENTIALS) => AwsError::Credentials { doing, said },
        Some(code) if of(&code, &NOT_ALLOWED) => AwsError::NotAllowed { doing, said },
        Some(code) => AwsError::Refused { doing, code, said },
        None if CREDENTIALS_SAID.iter().any(|words| said.contains(words)) => {
            AwsError::Credentials { doing, said }
        }
        None if AWAY_SAID.iter().any(|words| said.contains(words)) => {
            AwsError::Away { doing, said }
        }
        None => AwsError::Client(ClientError::Failed {
            program: "aws".to_owned(),
            doing,
            said,
        }),
    }
}

const THROTTLED: [&str; 13] = [
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "EC2ThrottledException",
    "RequestLimitExceeded",
    "TooManyRequestsException",
    "ProvisionedThroughputExceededException",
    "BandwidthLimitExceeded",
    "PriorRequestNotComplete",
    "SlowDown",
    "503",
];
const CREDENTIALS: [&str; 11] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "IncompleteSignature",
    "AuthFailure",
];
const NOT_ALLOWED: [&str; 8] = [
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedOperation",
    "UnauthorizedAccess",
    "AuthorizationError",
    "AuthorizationErrorException",
    "NotAuthorized",
    "403",
];
const CREDENTIALS_SAID: [&str; 8] = [
    "Unable to locate credentials",
    "The config profile",
    "Error loading SSO Token",
    "Error when retrieving",
    "SSO session associated with this profile has expired",
    "Token has expired",
    "Partial credentials",
    "You must specify a region",
];
const AWAY_SAID: [&str; 4] = [
    "Could not connect to the endpoint URL",
    "Connect timeout on endpoint URL",
    "Read timeout on endpoint URL",
    "Connection was closed before we received",
];

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A client that says this.
    fn scripted(folder: &tempfile::TempDir, script: &str) -> Aws {
        let program = folder.path().join("aws");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        Aws {
            program,
            endpoint_url: Some("http://127.0.0.1:1".to_owned()),
            profile: Some("backup".to_owned()),
            region: Some("eu-west-1".to_owned()),
            ..Aws::default()
        }
    }

    #[test]
    fn failures_are_told_apart() {
        let check = |said: &str, kind: &str| {
            let error = classified(ClientError::Failed {
                program: "aws".to_owned(),
                doing: "iam list-roles".to_owned(),
                said: said.to_owned(),
            });
            let shown = format!("{error:?}");
            assert!(shown.starts_with(kind), "{shown}");
            let text = error.to_string();
            assert!(
                text.contains(said) && text.contains("iam list-roles"),
                "{text}"
            );
        };
        let occurred = |code: &str| {
            format!(
                "An error occurred ({code}) when calling the ListRoles operation (reached max retries: 4): no"
            )
        };
        check(&occurred("Throttling"), "Throttled");
        check(&occurred("RequestLimitExceeded"), "Throttled");
        check(&occurred("ExpiredToken"), "Credentials");
        check(&occurred("AccessDenied"), "NotAllowed");
        check(&occurred("UnauthorizedOperation"), "NotAllowed");
        check(&occurred("NoSuchBucket"), "Refused");
        // A quota is no rate: asking again does not help.
        check(&occurred("LimitExceeded"), "Refused");
        check(
            "Unable to locate credentials. You can configure credentials by running \"aws configure\".",
            "Credentials",
        );
        check("The config profile (x) could not be found", "Credentials");
        check(
            "Could not connect to the endpoint URL: \"http://127.0.0.1:5/\"",
            "Away",
        );
        check("Segmentation fault", "Client");
    }

    #[test]
    fn an_address_is_an_argument_and_a_round_ends() {
        let folder = tempfile::tempdir().unwrap();
        let aws = scripted(&folder, "echo \"{\\\"said\\\": \\\"$*\\\"}\"");
        let round = aws.round_of(2, &|| false);
        let said = round.json(&["iam", "list-roles"]).unwrap()["said"].to_string();
        for words in [
            "--endpoint-url http://127.0.0.1:1",
            "--profile backup",
            "--region eu-west-1",
            "iam list-roles",
        ] {
            assert!(said.contains(words), "{said}");
        }
        round.json(&["iam", "list-roles"]).unwrap();
        let error = round.json(&["iam", "list-users"]).unwrap_err().to_string();
        assert!(
            error.contains("list-users") && error.contains("at most 2 calls"),
            "{error}"
        );
        assert_eq!((round.calls(), round.calls_left()), (2, 0));
    }

    #[test]
    fn content_is_read_whole_or_not_at_all() {
        let check = |answer: &str, content: Option<&str>| {
            let found = content_before_its_length(Zeroizing::new(answer.as_bytes().to_vec()));
            let found = found.map(|found| String::from_utf8(found.to_vec()).unwrap());
            assert_eq!(found.as_deref(), content, "{answer:?}");
        };
        check("hello5\n", Some("hello"));
        check("hel\nlo6\n", Some("hel\nlo"));
        check("0\n", Some(""));
        check("123\n", None);
        check("12342\n", None);
        check("11112\n", None);
        check("ten chars!10\n", Some("ten chars!"));
        check("1234567893\n", None);
        check("hello4\n", None);
        check("hello", None);
    }

    #[test]
    fn content_is_in_no_argument_and_no_answer_is_null() {
        let folder = tempfile::tempdir().unwrap();
        let aws = scripted(
            &folder,
            "cat > \"$0.given\"; echo \"$*\" > \"$0.arguments\"",
        );
        let input = br#"{"SecretString": "hunter2"}"#;
        let arguments = ["x", "put", "--secret-string", "file:///dev/stdin"];
        let answer = aws.round(&|| false).json_with(&arguments, input).unwrap();
        assert_eq!(answer, Value::Null);
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(read("aws.given").as_bytes(), input);
        assert!(!read("aws.arguments").contains("hunter2"));
    }
}
