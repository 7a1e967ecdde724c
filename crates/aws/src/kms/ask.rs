//! The calls. Each has a bound: a stream that commits wait for may wait for the data key.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use aws_config::{
    BehaviorVersion, Region, profile::ProfileFileCredentialsProvider, retry::RetryConfig,
    timeout::TimeoutConfig,
};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_kms::{Client, primitives::Blob, types::DataKeySpec};
use repository::keys::{DataKeySecret, KeyError, KeyTrouble, WrapBinding};
use zeroize::Zeroizing;

use crate::worker::Worker;

use super::{
    KmsAccess,
    location::region_of,
    trouble::{trouble, wrong_key_name},
};

const THREADS: usize = 1;
const CONNECT: Duration = Duration::from_secs(2);
const ATTEMPT: Duration = Duration::from_secs(3);
const ALL_ATTEMPTS: Duration = Duration::from_secs(8);
const ATTEMPTS: u32 = 3;
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Of a key that KMS rotates without having been told how often.
const ROTATION_DAYS_DEFAULT: u32 = 365;

#[derive(Debug)]
pub(super) struct Asker {
    access: KmsAccess,
    /// Made at the first call: a host that only looks at names needs none.
    worker: OnceLock<Option<Worker>>,
    /// By region.
    clients: Mutex<HashMap<String, Client>>,
}

/// What KMS sealed, and with which key it says that it did.
pub(super) struct Ciphertext {
    pub(super) bytes: Vec<u8>,
    pub(super) key: Option<String>,
}

impl Asker {
    pub(super) fn new(access: KmsAccess) -> Self {
        Self {
            access,
            worker: OnceLock::new(),
            clients: Mutex::new(HashMap::new()),
        }
    }

    pub(super) fn resolve(&self, key: &str, region: Option<&str>) -> Result<String, KeyError> {
        // An alias has an ARN too, and with it a region.
        let region = region.map(ToOwned::to_owned).or_else(|| {
            key.starts_with("arn:")
                .then(|| key.split(':').nth(3))?
                .map(Into::into)
        });
        let client = self.client(key, region)?;
        let request = client
            .generate_data_key()
            .key_id(key)
            .key_spec(DataKeySpec::Aes256)
            .encryption_context("bre:purpose", "which key this is");
        let answer = self.run(key, async move { request.send().await })?;
        let answer = answer.map_err(|error| trouble(key, &error))?;
        answer.key_id.ok_or_else(|| wrong_key_name(key))
    }

    pub(super) fn generate(
        &self,
        arn: &str,
        binding: &WrapBinding,
    ) -> Result<(Zeroizing<Vec<u8>>, Ciphertext), KeyError> {
        let request = self
            .client_of(arn)?
            .generate_data_key()
            .key_id(arn)
            .key_spec(DataKeySpec::Aes256)
            .set_encryption_context(Some(context(binding)));
        let answer = self.run(arn, async move { request.send().await })?;
        let answer = answer.map_err(|error| trouble(arn, &error))?;
        let plain = plain(answer.plaintext);
        let sealed = Ciphertext {
            bytes: answer
                .ciphertext_blob
                .map_or_else(Vec::new, Blob::into_inner),
            key: answer.key_id,
        };
        Ok((plain, sealed))
    }

    pub(super) fn encrypt(
        &self,
        arn: &str,
        binding: &WrapBinding,
        secret: &DataKeySecret,
    ) -> Result<Ciphertext, KeyError> {
        let request = self
            .client_of(arn)?
            .encrypt()
            .key_id(arn)
            .plaintext(Blob::new(secret.as_slice()))
            .set_encryption_context(Some(context(binding)));
        let answer = self.run(arn, async move { request.send().await })?;
        let answer = answer.map_err(|error| trouble(arn, &error))?;
        Ok(Ciphertext {
            bytes: answer
                .ciphertext_blob
                .map_or_else(Vec::new, Blob::into_inner),
            key: answer.key_id,
        })
    }

    /// Mirror of `generate` and `encrypt`. The key is named: KMS refuses what another one sealed.
    pub(super) fn decrypt(
        &self,
        arn: &str,
        binding: &WrapBinding,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let request = self
            .client_of(arn)?
            .decrypt()
            .key_id(arn)
            .ciphertext_blob(Blob::new(sealed))
            .set_encryption_context(Some(context(binding)));
        let answer = self.run(arn, async move { request.send().await })?;
        let answer = answer.map_err(|error| trouble(arn, &error))?;
        Ok(plain(answer.plaintext))
    }

    /// After how many days KMS itself replaces the key's material; none where it does not.
    pub(super) fn rotation_period_days(&self, arn: &str) -> Result<Option<u32>, KeyError> {
        let request = self.client_of(arn)?.get_key_rotation_status().key_id(arn);
        let answer = self.run(arn, async move { request.send().await })?;
        let answer = answer.map_err(|error| trouble(arn, &error))?;
        let period = answer.rotation_period_in_days;
        let days = period.and_then(|days| u32::try_from(days).ok());
        Ok(answer
            .key_rotation_enabled
            .then(|| days.unwrap_or(ROTATION_DAYS_DEFAULT)))
    }

    fn client_of(&self, arn: &str) -> Result<Client, KeyError> {
        let region = region_of(arn).ok_or_else(|| wrong_key_name(arn))?;
        self.client(arn, Some(region.to_owned()))
    }

    fn client(&self, key: &str, region: Option<String>) -> Result<Client, KeyError> {
        let name = region.clone().unwrap_or_default();
        if let Some(client) = self.clients().get(&name) {
            return Ok(client.clone());
        }
        if let Some(file) = &self.access.credentials_file {
            secrets::check(file).map_err(|error| KeyError {
                key: key.to_owned(),
                trouble: KeyTrouble::Failed {
                    what: error.to_string(),
                },
            })?;
        }
        let access = self.access.clone();
        let client = self.run(key, connect(access, region))?;
        self.clients().insert(name, client.clone());
        Ok(client)
    }

    fn clients(&self) -> std::sync::MutexGuard<'_, HashMap<String, Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run<T: Send + 'static>(
        &self,
        key: &str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, KeyError> {
        let worker = self
            .worker
            .get_or_init(|| Worker::start("kms", THREADS).ok());
        let answer = worker.as_ref().and_then(|worker| worker.run(work));
        answer.ok_or_else(|| KeyError {
            key: key.to_owned(),
            trouble: KeyTrouble::Away {
                what: "the thread that asks it could not do so".to_owned(),
            },
        })
    }
}

async fn connect(access: KmsAccess, region: Option<String>) -> Client {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(ATTEMPTS)
                .with_initial_backoff(BACKOFF_FIRST),
        )
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT)
                .operation_attempt_timeout(ATTEMPT)
                .operation_timeout(ALL_ATTEMPTS)
                .build(),
        );
    if let Some(region) = region {
        loader = loader.region(Region::new(region));
    }
    if let Some(profile) = &access.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(file) = &access.credentials_file {
        let files = EnvConfigFiles::builder()
            .with_file(EnvConfigFileKind::Credentials, file)
            .build();
        let mut provider = ProfileFileCredentialsProvider::builder().profile_files(files);
        if let Some(profile) = &access.profile {
            provider = provider.profile_name(profile);
        }
        loader = loader.credentials_provider(provider.build());
    }
    let shared = loader.load().await;
    let mut config = aws_sdk_kms::config::Builder::from(&shared);
    config.set_retry_partition(Some(crate::own_retries()));
    if access.endpoint.is_some() {
        config.set_endpoint_url(access.endpoint.clone());
    }
    Client::from_conf(config.build())
}

/// Authenticated by KMS with what it seals, and written into its own log of calls.
fn context(binding: &WrapBinding) -> HashMap<String, String> {
    [
        ("bre:repository-id", &binding.repository_id),
        ("bre:data-key-id", &binding.data_key_id),
    ]
    .map(|(name, value)| (name.to_owned(), value.clone()))
    .into()
}

fn plain(blob: Option<Blob>) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(blob.map_or_else(Vec::new, Blob::into_inner))
}
