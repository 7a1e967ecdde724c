//! Where and as whom to connect.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// The folder of the unix socket.
    Unix(PathBuf),
    Tcp(String),
}

/// A password; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    pub host: Host,
    pub port: u16,
    pub user: String,
    pub password: Option<Secret>,
    pub database: String,
    pub application_name: String,
    /// How long connecting and logging in may take; also how long a write may block.
    pub patience: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the database URL is not usable: {reason}; it looks like postgres://user@host:5432/database or postgres://user@/database?host=/socket/folder&port=5432"
)]
pub struct UrlError {
    reason: String,
}

impl ConnectOptions {
    pub fn unix(
        socket_dir: impl Into<PathBuf>,
        port: u16,
        user: &str,
        database: &str,
    ) -> ConnectOptions {
        ConnectOptions::new(Host::Unix(socket_dir.into()), port, user, database)
    }

    pub fn tcp(host: &str, port: u16, user: &str, database: &str) -> ConnectOptions {
        ConnectOptions::new(Host::Tcp(host.to_owned()), port, user, database)
    }

    fn new(host: Host, port: u16, user: &str, database: &str) -> ConnectOptions {
        ConnectOptions {
            host,
            port,
            user: user.to_owned(),
            password: None,
            database: database.to_owned(),
            application_name: "bre".to_owned(),
            patience: Duration::from_secs(10),
        }
    }

    pub fn with_password(mut self, password: impl Into<String>) -> ConnectOptions {
        self.password = Some(Secret::new(password));
        self
    }

    pub fn with_application_name(mut self, name: &str) -> ConnectOptions {
        self.application_name = name.to_owned();
        self
    }

    pub fn with_user(mut self, user: &str) -> ConnectOptions {
        self.user = user.to_owned();
        self
    }

    pub fn with_database(mut self, database: &str) -> ConnectOptions {
        self.database = database.to_owned();
        self
    }

    /// `postgres://user:password@host:port/database?host=/socket/folder&port=…&application_name=…`
    pub fn from_url(url: &str) -> Result<ConnectOptions, UrlError> {
        let fail = |reason: &str| UrlError {
            reason: reason.to_owned(),
        };
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"));
        let rest = rest.ok_or_else(|| fail("it does not start with postgres://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (credentials, None),
        };
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (address, None),
        };
        let mut options = ConnectOptions::tcp(host.trim_matches(['[', ']']), 5432, "postgres", "");
        if let Some(port) = port {
            options.port = port.parse().map_err(|_| fail("the port is not a number"))?;
        }
        let decode =
            |text: &str| decode_percent(text).ok_or_else(|| fail("a %-sequence is damaged"));
        if !user.is_empty() {
            options.user = decode(user)?;
        }
        options.password = password.map(decode).transpose()?.map(Secret::new);
        let mut host = decode(host.trim_matches(['[', ']']))?;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| fail("a parameter has no value"))?;
            let value = decode(value)?;
            match name {
                "host" => host = value,
                "port" => {
                    options.port = value
                        .parse()
                        .map_err(|_| fail("the port is not a number"))?
                }
                "user" => options.user = value,
                "password" => options.password = Some(Secret::new(value)),
                "dbname" => options.database = value,
                "application_name" => options.application_name = value,
                "sslmode" if matches!(value.as_str(), "require" | "verify-ca" | "verify-full") => {
                    return Err(fail(
                        "TLS to PostgreSQL is not supported by this connection",
                    ));
                }
                _ => {}
            }
        }
        if options.database.is_empty() {
            options.database = if database.is_empty() {
                options.user.clone()
            } else {
                decode(database)?
            };
        }
        options.host = if host.starts_with('/') {
            Host::Unix(host.into())
        } else {
            Host::Tcp(host)
        };
        if options.host == Host::Tcp(String::new()) {
            options.host = Host::Tcp("localhost".to_owned());
        }
        Ok(options)
    }

    /// For messages: the address without any secret.
    pub fn target(&self) -> String {
        match &self.host {
            Host::Unix(dir) => format!("{}/.s.PGSQL.{}", dir.display(), self.port),
            Host::Tcp(host) => format!("{host}:{}", self.port),
        }
    }
}

fn decode_percent(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |url: &str, target: &str, user: &str, database: &str| {
            let options = ConnectOptions::from_url(url).unwrap();
            assert_eq!(
                (
                    options.target().as_str(),
                    options.user.as_str(),
                    options.database.as_str()
                ),
                (target, user, database),
                "{url}"
            );
        };
        check(
            "postgres://bob:s3cret@db.example:5433/desk",
            "db.example:5433",
            "bob",
            "desk",
        );
        check(
            "postgresql://bob@/desk?host=/run/pg&port=5999",
            "/run/pg/.s.PGSQL.5999",
            "bob",
            "desk",
        );
        check(
            "postgres://bob@%2Frun%2Fpg:77/desk",
            "/run/pg/.s.PGSQL.77",
            "bob",
            "desk",
        );
        check("postgres://[::1]:5432/x", "::1:5432", "postgres", "x");
        check("postgres://bob@", "localhost:5432", "bob", "bob");
        for wrong in [
            "mysql://x",
            "postgres://a:b@c:port/d",
            "postgres://h/d?sslmode=require",
            "postgres://%zz@h/d",
        ] {
            assert!(ConnectOptions::from_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        let options = ConnectOptions::from_url("postgres://bob:s3cret@db/desk").unwrap();
        assert!(!format!("{options:?}").contains("s3cret"));
    }
}
