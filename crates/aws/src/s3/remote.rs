//! One bucket and prefix on a server: names, timeouts, and the meaning of the server's errors.

use std::{io, time::Duration};

use aws_config::{
    BehaviorVersion, Region, SdkConfig, profile::ProfileFileCredentialsProvider,
    retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_s3::{
    Client,
    config::{RequestChecksumCalculation, ResponseChecksumValidation, http::HttpResponse},
    error::{DisplayErrorContext, ProvideErrorMetadata, SdkError},
    types::ChecksumAlgorithm,
};
use repository::{
    StoreError,
    store::{LockPolicy, MARKER},
};

use super::{Checksums, S3Location};
use crate::own_retries;

const CONNECT: Duration = Duration::from_secs(3);
/// Of one attempt, besides what its bytes take at [`SLOWEST_BYTES_PER_SECOND`].
const ATTEMPT: Duration = Duration::from_secs(10);
const SLOWEST_BYTES_PER_SECOND: u64 = 256 << 10;
const ATTEMPTS: u32 = 5;
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(3);
/// What is longer goes in parts of this length.
const PART_BYTES: usize = 64 << 20;
/// The most that a server gives at a time.
const PAGE_NAMES: i32 = 1000;

#[derive(Debug)]
pub(super) struct Remote {
    pub(super) client: Client,
    pub(super) bucket: String,
    pub(super) prefix: String,
    pub(super) shown: String,
    pub(super) lock: Option<LockPolicy>,
    pub(super) checksums: Checksums,
    pub(super) part_bytes: usize,
    pub(super) page_names: i32,
}

impl Remote {
    pub(super) async fn connect(location: &S3Location, lock: Option<LockPolicy>) -> Self {
        let shared = shared_config(location).await;
        let mut config = aws_sdk_s3::config::Builder::from(&shared);
        config.set_retry_partition(Some(own_retries()));
        config.set_force_path_style(Some(location.path_style));
        config.set_endpoint_url(location.endpoint.clone());
        let checksums = checksums(location, &shared);
        if checksums == Checksums::None {
            config = config
                .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
                .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        }
        Self {
            client: Client::from_conf(config.build()),
            bucket: location.bucket.clone(),
            prefix: match location.prefix.as_str() {
                "" => String::new(),
                prefix => format!("{prefix}/"),
            },
            shown: location.to_string(),
            lock,
            checksums,
            part_bytes: PART_BYTES,
            page_names: PAGE_NAMES,
        }
    }

    pub(super) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// What a put of that name carries. Object lock wants one, and a server that knows locks knows checksums.
    pub(super) fn checksum_for(&self, name: &str) -> Option<ChecksumAlgorithm> {
        let locks = self.lock.and_then(|policy| policy.of(name)).is_some();
        (locks || self.checksums == Checksums::Crc32c).then_some(ChecksumAlgorithm::Crc32C)
    }

    /// Bounds for an operation that carries this many bytes.
    pub(super) fn bounded(bytes: usize) -> aws_sdk_s3::config::Builder {
        aws_sdk_s3::config::Builder::new().timeout_config(timeouts(bytes))
    }

    pub(super) fn away(&self, what: impl Into<String>) -> StoreError {
        StoreError::Away {
            store: self.shown.clone(),
            what: what.into(),
        }
    }

    pub(super) fn unmarked(&self) -> StoreError {
        self.away(format!("its marker `{MARKER}` cannot be found"))
    }

    pub(super) fn not_found(&self, name: &str) -> StoreError {
        StoreError::NotFound {
            store: self.shown.clone(),
            object: name.to_owned(),
        }
    }

    pub(super) fn io(&self, name: &str, what: impl Into<String>) -> StoreError {
        StoreError::Io {
            store: self.shown.clone(),
            object: name.to_owned(),
            source: io::Error::other(what.into()),
        }
    }

    /// After all attempts of the SDK.
    pub(super) fn fault<E>(
        &self,
        name: &str,
        operation: Operation,
        error: &SdkError<E, HttpResponse>,
    ) -> StoreError
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        let Some(status) = error.raw_response().map(|answer| answer.status().as_u16()) else {
            return self.away(said(error));
        };
        let code = code_of(error);
        let mut what = match error.as_service_error().and_then(|e| e.meta().message()) {
            Some(message) => format!("{code} ({status}): {message}"),
            None => format!("{code} ({status})"),
        };
        let is_unknown_to_it = matches!(status, 400 | 501) && IT_DOES_NOT_KNOW.contains(&code);
        if operation == Operation::Writing
            && is_unknown_to_it
            && self.checksums == Checksums::Crc32c
        {
            what.push_str(
                ". A store that knows no checksums refuses them so: add checksums=none to its location \
                 (s3://…?checksums=none), or set AWS_REQUEST_CHECKSUM_CALCULATION=when_required",
            );
            return self.io(name, what);
        }
        match (status, code) {
            (_, "NoSuchBucket") => self.away(format!("there is no bucket {}", self.bucket)),
            (404, _) => self.not_found(name),
            (_, "InvalidObjectState") => StoreError::Cold {
                store: self.shown.clone(),
                object: name.to_owned(),
            },
            (507, _) | (_, "QuotaExceeded" | "InsufficientCapacity" | "StorageFull") => {
                StoreError::Full {
                    store: self.shown.clone(),
                    object: name.to_owned(),
                    wanted: None,
                }
            }
            (403, _) if operation == Operation::Writing => StoreError::ReadOnly {
                store: self.shown.clone(),
                object: name.to_owned(),
                what,
            },
            (400, "ExpiredToken" | "InvalidAccessKeyId")
            | (401 | 403 | 408 | 429 | 500..=599, _) => self.away(what),
            _ => self.io(name, what),
        }
    }
}

/// How stores name a header or an encoding that they do not know.
const IT_DOES_NOT_KNOW: [&str; 5] = [
    "InvalidArgument",
    "InvalidRequest",
    "MalformedTrailerError",
    "NotImplemented",
    "XAmzContentSHA256Mismatch",
];

/// The location's word counts, then the SDK's own settings: `AWS_REQUEST_CHECKSUM_CALCULATION` and
/// `request_checksum_calculation` of the profile.
fn checksums(location: &S3Location, shared: &SdkConfig) -> Checksums {
    let asked = shared.request_checksum_calculation();
    match (location.checksums, asked) {
        (Some(named), _) => named,
        (None, Some(RequestChecksumCalculation::WhenRequired)) => Checksums::None,
        (None, _) => Checksums::Crc32c,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Reading,
    Writing,
}

pub(super) fn code_of<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> &str {
    error
        .as_service_error()
        .and_then(|e| e.code())
        .unwrap_or("no code")
}

pub(super) fn status_of<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|answer| answer.status().as_u16())
}

/// A failure to connect or to answer, in few words; the SDK's own text continues for lines.
fn said<E: std::error::Error + 'static>(error: &SdkError<E, HttpResponse>) -> String {
    let text = DisplayErrorContext(error).to_string();
    let text = text.split(" (").next().unwrap_or_default();
    match error {
        SdkError::TimeoutError(_) => format!("no answer in time: {text}"),
        SdkError::ConstructionFailure(_) => format!("it could not be asked: {text}"),
        _ => format!("it does not answer: {text}"),
    }
}

fn timeouts(bytes: usize) -> TimeoutConfig {
    let attempt = ATTEMPT + Duration::from_secs(bytes as u64 / SLOWEST_BYTES_PER_SECOND);
    TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(attempt)
        .operation_timeout(3 * attempt)
        .build()
}

async fn shared_config(location: &S3Location) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(ATTEMPTS)
                .with_initial_backoff(BACKOFF_FIRST)
                .with_max_backoff(BACKOFF_MAX),
        )
        .timeout_config(timeouts(0));
    match (&location.region, &location.endpoint) {
        (Some(region), _) => loader = loader.region(Region::new(region.clone())),
        // Servers that are not Amazon's take any; asking the machine's metadata service for one would only take time.
        (None, Some(_)) => loader = loader.region(Region::new("us-east-1")),
        (None, None) => {}
    }
    if location.profile.is_some() || location.credentials_file.is_some() {
        let mut profile = ProfileFileCredentialsProvider::builder();
        if let Some(name) = &location.profile {
            profile = profile.profile_name(name);
            loader = loader.profile_name(name);
        }
        if let Some(path) = &location.credentials_file {
            let files = EnvConfigFiles::builder().with_file(EnvConfigFileKind::Credentials, path);
            profile = profile.profile_files(files.build());
        }
        loader = loader.credentials_provider(profile.build());
    }
    loader.load().await
}
