//! The parts of a connection: host, user, database and the rest.

use std::fmt::Write;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::landing::Landing;
use crate::parse::{StringError, parse};
use crate::password::{Password, Secret};
use crate::tls::{ChannelBinding, Roots, TlsMode, TlsOptions};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// The folder of the unix socket.
    Unix(PathBuf),
    Tcp(String),
}

/// One server of a connection string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub host: Host,
    pub port: u16,
    /// `hostaddr`: where to connect; the host then only names whom the certificate is to be for.
    pub ip: Option<IpAddr>,
}

impl Address {
    pub fn unix(folder: impl Into<PathBuf>, port: u16) -> Address {
        Address {
            host: Host::Unix(folder.into()),
            port,
            ip: None,
        }
    }

    pub fn tcp(host: &str, port: u16) -> Address {
        Address {
            host: Host::Tcp(host.to_owned()),
            port,
            ip: None,
        }
    }

    /// The socket's path, or the name or IP to open a TCP connection to.
    pub fn dialled(&self) -> Host {
        match (&self.host, self.ip) {
            (Host::Unix(folder), _) => Host::Unix(folder.join(format!(".s.PGSQL.{}", self.port))),
            (Host::Tcp(_), Some(ip)) => Host::Tcp(ip.to_string()),
            (Host::Tcp(host), None) => Host::Tcp(host.clone()),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.dialled() {
            Host::Unix(path) => write!(f, "{}", path.display()),
            Host::Tcp(host) => write!(f, "{host}:{}", self.port),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Tried in this order; at least one.
    pub addresses: Vec<Address>,
    pub user: String,
    pub password: Password,
    pub database: String,
    pub application_name: String,
    /// How long connecting and logging in may take at one address; also how long a write may block.
    pub timeout: Duration,
    pub tls: TlsOptions,
    /// Which of the servers will do.
    pub landing: Landing,
    /// Start-up options such as `-c statement_timeout=0`.
    pub server_options: Option<String>,
}

impl ConnectOptions {
    pub const PORT: u16 = 5432;
    pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
    pub(crate) const APPLICATION_NAME: &str = "bre";

    pub fn unix(
        socket_dir: impl Into<PathBuf>,
        port: u16,
        user: &str,
        database: &str,
    ) -> ConnectOptions {
        ConnectOptions::new(Address::unix(socket_dir, port), user, database)
    }

    pub fn tcp(host: &str, port: u16, user: &str, database: &str) -> ConnectOptions {
        ConnectOptions::new(Address::tcp(host, port), user, database)
    }

    fn new(address: Address, user: &str, database: &str) -> ConnectOptions {
        ConnectOptions {
            addresses: vec![address],
            user: user.to_owned(),
            password: Password::None,
            database: database.to_owned(),
            application_name: ConnectOptions::APPLICATION_NAME.to_owned(),
            timeout: ConnectOptions::TIMEOUT,
            tls: TlsOptions::default(),
            landing: Landing::Any,
            server_options: None,
        }
    }

    /// A URL (`postgresql://user@host:5432,other:5432/database?sslmode=verify-full&sslrootcert=…`) or words
    /// (`host=… user=… sslmode=…`), as libpq takes them. What is not known is an error, never a silent default.
    pub fn from_url(text: &str) -> Result<ConnectOptions, StringError> {
        parse(text)
    }

    /// For clients that take a URL; without the password. Mirror of [`ConnectOptions::from_url`].
    pub fn to_url(&self) -> String {
        let mut url = format!(
            "postgresql://{}@/{}",
            encode(self.user.as_bytes()),
            encode(self.database.as_bytes())
        );
        let joined = |text: &dyn Fn(&Address) -> String| {
            let parts: Vec<String> = self.addresses.iter().map(text).collect();
            parts.join(",")
        };
        let host = joined(&|address| match &address.host {
            // In the query, where a slash is one.
            Host::Unix(folder) => encode(folder.as_os_str().as_bytes()).replace("%2F", "/"),
            Host::Tcp(host) => encode(host.as_bytes()),
        });
        let port = joined(&|address| address.port.to_string());
        // Writing to a string cannot fail.
        let _ = write!(url, "?host={host}&port={port}");
        if self.addresses.iter().any(|address| address.ip.is_some()) {
            let ip = |address: &Address| address.ip.map(|ip| ip.to_string()).unwrap_or_default();
            let _ = write!(url, "&hostaddr={}", joined(&ip));
        }
        let mut say = |name: &str, value: &[u8]| {
            let _ = write!(url, "&{name}={}", encode(value));
        };
        let tls = &self.tls;
        if tls.mode != TlsMode::Prefer {
            say("sslmode", tls.mode.name().as_bytes());
        }
        match &tls.roots {
            Some(Roots::System) => say("sslrootcert", b"system"),
            Some(Roots::File(path)) => say("sslrootcert", path.as_os_str().as_bytes()),
            None => {}
        }
        for (name, file) in [("sslcert", &tls.certificate), ("sslkey", &tls.key)] {
            if let Some(file) = file {
                say(name, file.as_os_str().as_bytes());
            }
        }
        if tls.direct {
            say("sslnegotiation", b"direct");
        }
        if tls.channel_binding != ChannelBinding::Prefer {
            say("channel_binding", tls.channel_binding.name().as_bytes());
        }
        if self.landing != Landing::Any {
            say("target_session_attrs", self.landing.name().as_bytes());
        }
        url
    }

    pub fn with_password(mut self, password: impl Into<String>) -> ConnectOptions {
        self.password = Password::Given(Secret::new(password));
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

    /// The same, at one address alone.
    pub fn at(&self, address: &Address) -> ConnectOptions {
        ConnectOptions {
            addresses: vec![address.clone()],
            ..self.clone()
        }
    }

    /// For messages: the addresses, without any secret.
    pub fn target(&self) -> String {
        let shown: Vec<String> = self.addresses.iter().map(Address::to_string).collect();
        shown.join(", ")
    }
}

fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(*byte));
            }
            // Writing to a string cannot fail.
            other => {
                let _ = write!(text, "%{other:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_the_same_when_it_is_read_again() {
        let check = |options: ConnectOptions| {
            let read = ConnectOptions::from_url(&options.to_url()).unwrap();
            assert_eq!(read, options, "{}", options.to_url());
        };
        for name in [
            "bre",
            "a=b",
            "x?host=far",
            "x#y",
            "50%",
            "é/ü",
            "a b&c",
            "'\"\\",
        ] {
            check(ConnectOptions::unix("/tmp/a b,c", 5432, name, name));
            check(ConnectOptions::tcp("db.example", 5433, name, name));
        }
    }

    #[test]
    fn demands_survive_the_way_through_a_url() {
        for text in [
            "host=one,two hostaddr=10.0.0.1,::1 port=1,2 user=a dbname=b sslmode=verify-full sslrootcert='/a b' \
             sslcert=/c sslkey=/k channel_binding=require",
            "host=one user=a dbname=b sslrootcert=system target_session_attrs=read-write sslnegotiation=direct",
        ] {
            let options = ConnectOptions::from_url(text).unwrap();
            assert_eq!(
                ConnectOptions::from_url(&options.to_url()).unwrap(),
                options
            );
        }
    }
}
