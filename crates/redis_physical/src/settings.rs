//! Which Redis, and how it is reached.

use std::path::{Path, PathBuf};
use std::time::Duration;

use connection::{Password, PasswordError};
use redis::{Client, ClientTlsConfig, ConnectionInfo, IntoConnectionInfo, TlsCertificates};

/// Longest wait for a command that says the password.
const PASSWORD_TIMEOUT: Duration = Duration::from_secs(5);

/// `redis://`, `rediss://` (TLS; whose certificate it is, is always looked at) or `redis+unix://`, with a user and a
/// password of an ACL where there is one. Files are read, and a command is run, at each connect.
#[derive(Clone)]
pub struct RedisSettings {
    pub url: String,
    /// Authorities to trust, PEM; the system's when absent.
    pub authorities: Option<PathBuf>,
    /// The client's own certificate and its key, PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// In place of one in the URL.
    pub password: Password,
}

/// The URL may hold a password.
impl std::fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisSettings")
            .field("authorities", &self.authorities)
            .finish_non_exhaustive()
    }
}

/// Why no connection to Redis can be set up.
#[derive(Debug, thiserror::Error)]
pub enum RedisSettingsError {
    #[error(
        "the URL of the cache is not usable: {0}; it looks like redis://user:password@host:6379/ or \
         rediss://host:6379/"
    )]
    Url(String),
    #[error(
        "the URL of the cache asks for TLS without looking at certificates (#insecure), which is not done here; name \
         the authority in ca_file"
    )]
    Insecure,
    #[error("ca_file, certificate and key of the cache are for TLS: its URL begins with rediss://")]
    Plain,
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error(transparent)]
    SecretFile(#[from] secrets::SecretFileError),
    #[error("the cache's password: {0}")]
    Password(#[from] PasswordError),
    #[error("TLS with the cache cannot be set up: {0}")]
    Tls(String),
}

impl From<String> for RedisSettings {
    fn from(url: String) -> RedisSettings {
        RedisSettings {
            url,
            authorities: None,
            identity: None,
            password: Password::None,
        }
    }
}

impl RedisSettings {
    /// Looks at all that can be looked at without a server, and without asking for the password.
    pub fn check(&self) -> Result<(), RedisSettingsError> {
        self.secured(self.info()?).map(drop)
    }

    /// What the next connection is made with; blocks while a command runs.
    pub fn client(&self) -> Result<Client, RedisSettingsError> {
        let mut info = self.info()?;
        if let Some(password) = self.password.ask_plain(PASSWORD_TIMEOUT)? {
            let login = info.redis_settings().clone();
            info = info.set_redis_settings(login.set_password(password.expose()));
        }
        self.secured(info)
    }

    fn info(&self) -> Result<ConnectionInfo, RedisSettingsError> {
        if self.url.ends_with("#insecure") {
            return Err(RedisSettingsError::Insecure);
        }
        // What the library says of a URL names its parts, never their values.
        self.url
            .as_str()
            .into_connection_info()
            .map_err(|error| RedisSettingsError::Url(error.to_string()))
    }

    fn secured(&self, info: ConnectionInfo) -> Result<Client, RedisSettingsError> {
        let failed = |error: redis::RedisError| RedisSettingsError::Tls(error.to_string());
        if !self.url.starts_with("rediss://") && !self.url.starts_with("valkeys://") {
            if self.authorities.is_some() || self.identity.is_some() {
                return Err(RedisSettingsError::Plain);
            }
            return Client::open(info).map_err(failed);
        }
        let identity = |(certificate, key): &(PathBuf, PathBuf)| {
            let client_key = secrets::read(key)?.to_vec();
            Ok::<_, RedisSettingsError>(ClientTlsConfig {
                client_cert: read(certificate)?,
                client_key,
            })
        };
        let certificates = TlsCertificates {
            client_tls: self.identity.as_ref().map(identity).transpose()?,
            root_cert: self.authorities.as_deref().map(read).transpose()?,
        };
        Client::build_with_tls(info, certificates).map_err(failed)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, RedisSettingsError> {
    std::fs::read(path).map_err(|error| RedisSettingsError::File {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let check = |url: &str, says: &str| {
            let error = RedisSettings::from(url.to_owned()).check().unwrap_err();
            assert!(error.to_string().contains(says), "{url}: {error}");
            assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
        };
        check("http://user:hush@cache:6379/", "redis://");
        check("rediss://user:hush@cache:6379/#insecure", "certificates");
        let mut plain = RedisSettings::from("redis://cache/".to_owned());
        plain.authorities = Some("/ca.pem".into());
        let error = plain.check().unwrap_err().to_string();
        assert!(error.contains("rediss://"), "{error}");
        plain.url = "rediss://cache/".to_owned();
        let error = plain.check().unwrap_err().to_string();
        assert!(error.contains("/ca.pem"), "{error}");
    }
}
