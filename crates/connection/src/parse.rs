//! Connection strings, in both of libpq's forms.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::landing::Landing;
use crate::options::{Address, ConnectOptions, Host};
use crate::password::{Password, Secret};
use crate::tls::{ChannelBinding, Roots, TlsMode, TlsOptions};

/// What is wrong with a connection string; never any of its values that could be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the connection string is not usable: {reason}; it looks like postgres://user@host:5432/database, \
     postgres://user@/database?host=/socket/folder&port=5432 or host=… user=… dbname=…"
)]
pub struct StringError {
    reason: String,
}

fn fail(reason: impl Into<String>) -> StringError {
    StringError {
        reason: reason.into(),
    }
}

const KNOWN: &str = "host, hostaddr, port, user, password, password_file, password_command, passfile, dbname, application_name, \
     connect_timeout, options, target_session_attrs, sslmode, sslrootcert, sslcert, sslkey, sslnegotiation, channel_binding";

/// As written, before anything is made of it.
#[derive(Default)]
struct Words {
    hosts: Option<Vec<String>>,
    ips: Option<String>,
    ports: Option<String>,
    user: Option<String>,
    password: Option<Password>,
    database: Option<String>,
    application_name: Option<String>,
    timeout: Option<Duration>,
    server_options: Option<String>,
    landing: Landing,
    mode: Option<TlsMode>,
    direct: bool,
    roots: Option<Roots>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    binding: ChannelBinding,
}

pub(crate) fn parse(text: &str) -> Result<ConnectOptions, StringError> {
    let mut words = Words::default();
    let url = text
        .strip_prefix("postgres://")
        .or_else(|| text.strip_prefix("postgresql://"));
    match url {
        Some(rest) => words.url(rest)?,
        None if text.contains("://") => return Err(fail("it does not start with postgres://")),
        None => words.pairs(text)?,
    }
    words.finish()
}

impl Words {
    fn url(&mut self, rest: &str) -> Result<(), StringError> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, addresses) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (credentials, None),
        };
        let (mut hosts, mut ports) = (Vec::new(), Vec::new());
        for address in addresses.split(',') {
            let (host, port) = match address.rsplit_once(':') {
                Some((host, port)) if !port.ends_with(']') => (host, port),
                _ => (address, ""),
            };
            hosts.push(decode(host.trim_matches(['[', ']']))?);
            ports.push(decode(port)?);
        }
        if !addresses.is_empty() {
            self.hosts = Some(hosts);
        }
        if ports.iter().any(|port| !port.is_empty()) {
            self.set("port", ports.join(","))?;
        }
        for (name, value) in [("user", user), ("dbname", database)] {
            if !value.is_empty() {
                self.set(name, decode(value)?)?;
            }
        }
        if let Some(password) = password {
            self.set("password", decode(password)?)?;
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| fail("a parameter has no value"))?;
            match name {
                // A comma that is not written as one is part of a folder's name.
                "host" => {
                    let hosts: Result<_, _> = value.split(',').map(decode).collect();
                    self.hosts = Some(hosts?);
                }
                name => self.set(&decode(name)?, decode(value)?)?,
            }
        }
        Ok(())
    }

    /// `name = value name = 'value with \' and blanks'`
    fn pairs(&mut self, text: &str) -> Result<(), StringError> {
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (name, after) = rest
                .split_once('=')
                .ok_or_else(|| fail("a word has no ="))?;
            let name = name.trim();
            if name.is_empty() || name.contains(char::is_whitespace) {
                return Err(fail("a word has no ="));
            }
            let (value, after) = pair_value(after.trim_start())?;
            self.set(name, value)?;
            rest = after.trim_start();
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), StringError> {
        let unknown = |choice: &str| fail(format!("{name} takes {choice}"));
        match name {
            "host" => {
                self.hosts = Some(
                    value
                        .split(',')
                        .map(|host| host.trim().to_owned())
                        .collect(),
                )
            }
            "hostaddr" => self.ips = Some(value),
            "port" => self.ports = Some(value),
            "user" => self.user = Some(value),
            "dbname" => self.database = Some(value),
            "application_name" => self.application_name = Some(value),
            "options" => self.server_options = Some(value),
            "password" => self.password(Password::Given(Secret::new(value)))?,
            "password_file" => self.password(Password::File(value.into()))?,
            "passfile" => self.password(Password::PassFile(value.into()))?,
            "password_command" => self.password(Password::Command(value))?,
            "connect_timeout" => {
                let seconds: u32 = value.parse().map_err(|_| unknown("seconds"))?;
                // As in libpq, 0 is no limit of the string's own; ours remains.
                self.timeout = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
            }
            "target_session_attrs" => {
                self.landing = Landing::parse(&value).ok_or_else(|| {
                    unknown("any, read-write, read-only, primary, standby or prefer-standby")
                })?;
            }
            "sslmode" => {
                self.mode = Some(TlsMode::parse(&value).ok_or_else(|| {
                    unknown("disable, allow, prefer, require, verify-ca or verify-full")
                })?);
            }
            "sslnegotiation" => {
                self.direct = match value.as_str() {
                    "postgres" => false,
                    "direct" => true,
                    _ => return Err(unknown("postgres or direct")),
                }
            }
            "sslrootcert" => {
                self.roots = match value.as_str() {
                    "" => None,
                    "system" => Some(Roots::System),
                    file => Some(Roots::File(file.into())),
                }
            }
            "sslcert" => self.certificate = (!value.is_empty()).then(|| value.into()),
            "sslkey" => self.key = (!value.is_empty()).then(|| value.into()),
            "channel_binding" => {
                self.binding = ChannelBinding::parse(&value)
                    .ok_or_else(|| unknown("disable, prefer or require"))?;
            }
            // Said by many strings that were written for libpq; nothing else is ever done here.
            "gssencmode" if matches!(value.as_str(), "disable" | "prefer") => {}
            "client_encoding" if value.to_ascii_lowercase().replace('-', "") == "utf8" => {}
            "gssencmode" => return Err(unknown("disable or prefer: GSSAPI is not supported")),
            "client_encoding" => return Err(unknown("UTF8 only")),
            _ => {
                return Err(fail(format!(
                    "the parameter {} is not known; known are {KNOWN}",
                    shown(name)
                )));
            }
        }
        Ok(())
    }

    /// Two ways to a password would leave open which one is meant.
    fn password(&mut self, password: Password) -> Result<(), StringError> {
        if self
            .password
            .as_ref()
            .is_some_and(|said| std::mem::discriminant(said) != std::mem::discriminant(&password))
        {
            return Err(fail(
                "password, password_file, password_command and passfile exclude each other",
            ));
        }
        self.password = Some(password);
        Ok(())
    }

    fn finish(self) -> Result<ConnectOptions, StringError> {
        let addresses = self.addresses()?;
        let user = self.user.unwrap_or_else(|| "postgres".to_owned());
        let mode = match (self.mode, &self.roots) {
            (Some(mode), _) => mode,
            // As libpq: who names the system's certificates wants them looked at.
            (None, Some(Roots::System)) => TlsMode::VerifyFull,
            (None, _) => TlsMode::Prefer,
        };
        if mode.verifies() && self.roots.is_none() {
            return Err(fail(format!(
                "sslmode={} needs sslrootcert: a file with the certificates of the authorities that you trust, or \
                 system",
                mode.name()
            )));
        }
        if self.roots == Some(Roots::System) && mode != TlsMode::VerifyFull {
            return Err(fail(
                "sslrootcert=system needs sslmode=verify-full: anybody can have a certificate of a public authority",
            ));
        }
        if self.certificate.is_some() != self.key.is_some() {
            return Err(fail("sslcert and sslkey go together"));
        }
        if self.direct && !mode.demands() {
            return Err(fail(
                "sslnegotiation=direct needs sslmode=require or stricter",
            ));
        }
        if self.binding == ChannelBinding::Require && mode == TlsMode::Disable {
            return Err(fail(
                "channel_binding=require needs TLS; sslmode=disable has none",
            ));
        }
        Ok(ConnectOptions {
            addresses,
            database: self.database.unwrap_or_else(|| user.clone()),
            user,
            password: self.password.unwrap_or(Password::None),
            application_name: self
                .application_name
                .unwrap_or_else(|| ConnectOptions::APPLICATION_NAME.to_owned()),
            timeout: self.timeout.unwrap_or(ConnectOptions::TIMEOUT),
            tls: TlsOptions {
                mode,
                direct: self.direct,
                roots: self.roots,
                certificate: self.certificate,
                key: self.key,
                channel_binding: self.binding,
            },
            landing: self.landing,
            server_options: self.server_options,
        })
    }

    fn addresses(&self) -> Result<Vec<Address>, StringError> {
        let list = |text: &Option<String>| -> Vec<String> {
            let text = text.as_deref().unwrap_or_default();
            text.split(',').map(|part| part.trim().to_owned()).collect()
        };
        let hosts = self.hosts.clone().unwrap_or_else(|| vec![String::new()]);
        let (ips, ports) = (list(&self.ips), list(&self.ports));
        let count = hosts.len().max(ips.len());
        let counted = |name: &str, length: usize| match length == count || length == 1 {
            true => Ok(()),
            false => Err(fail(format!(
                "there are {count} hosts and {length} of {name}"
            ))),
        };
        counted("hosts", if self.hosts.is_some() { hosts.len() } else { 1 })?;
        counted("hostaddr", if self.ips.is_some() { ips.len() } else { 1 })?;
        counted("ports", ports.len())?;
        if self.hosts.is_some() && self.ips.is_some() && hosts.len() != ips.len() {
            return Err(fail("host and hostaddr name a different number of servers"));
        }
        let of = |list: &[String], index: usize| -> String {
            let one = list.get(index).or(list.first().filter(|_| list.len() == 1));
            one.cloned().unwrap_or_default()
        };
        (0..count)
            .map(|index| {
                let ip = match of(&ips, index).as_str() {
                    "" => None,
                    text => Some(
                        text.parse::<IpAddr>()
                            .map_err(|_| fail("hostaddr is no IP address"))?,
                    ),
                };
                let port = match of(&ports, index).as_str() {
                    "" => ConnectOptions::PORT,
                    text => text
                        .parse()
                        .ok()
                        .filter(|port| *port > 0)
                        .ok_or_else(|| fail("the port is not a number from 1 to 65535"))?,
                };
                let host = match (of(&hosts, index), ip) {
                    (host, _) if host.starts_with('/') => Host::Unix(host.into()),
                    (host, Some(ip)) if host.is_empty() => Host::Tcp(ip.to_string()),
                    (host, None) if host.is_empty() => Host::Tcp("localhost".to_owned()),
                    (host, _) => Host::Tcp(host),
                };
                Ok(Address { host, port, ip })
            })
            .collect()
    }
}

/// A name from a string that may be a torn password: only what looks like a name is shown.
fn shown(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match plain && name.len() <= 32 {
        true => format!("{name:?}"),
        false => "of a strange name".to_owned(),
    }
}

/// The value that the text begins with, and what follows it.
fn pair_value(text: &str) -> Result<(String, &str), StringError> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut letters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some((_, escaped)) => value.push(escaped),
                None => return Err(fail("a backslash at its end")),
            },
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            c if !quoted && c.is_whitespace() => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    match quoted {
        true => Err(fail("a quoted value does not end")),
        false => Ok((value, "")),
    }
}

fn decode(text: &str) -> Result<String, StringError> {
    let damaged = || fail("a %-sequence is damaged");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let digits = tail.get(..2).ok_or_else(damaged)?;
            let digits = std::str::from_utf8(digits).map_err(|_| damaged())?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|_| damaged())?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).map_err(|_| damaged())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> ConnectOptions {
        parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn addresses_users_and_databases() {
        let check = |text: &str, target: &str, user: &str, database: &str| {
            let options = of(text);
            let found = (
                options.target(),
                options.user.as_str(),
                options.database.as_str(),
            );
            assert_eq!(found, (target.to_owned(), user, database), "{text}");
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
        check(
            "postgres://bob@one:1,two,[::1]:3/desk",
            "one:1, two:5432, ::1:3",
            "bob",
            "desk",
        );
        check(
            r"host=one,two port = 6000 user='o\'neill' dbname='a b'",
            "one:6000, two:6000",
            "o'neill",
            "a b",
        );
        check(
            "host=db hostaddr=10.0.0.7 user=bob",
            "10.0.0.7:5432",
            "bob",
            "bob",
        );
    }

    #[test]
    fn what_is_demanded_of_the_server() {
        let options = of(
            "postgres://bob@db/desk?sslmode=verify-full&sslrootcert=/ca.pem&sslcert=/c.pem&sslkey=/k.pem&channel_binding=require&target_session_attrs=read-write&connect_timeout=3",
        );
        assert_eq!(options.tls.mode, TlsMode::VerifyFull);
        assert_eq!(options.tls.roots, Some(Roots::File("/ca.pem".into())));
        assert_eq!(options.tls.certificate, Some("/c.pem".into()));
        assert_eq!(options.tls.channel_binding, ChannelBinding::Require);
        assert_eq!(options.landing, Landing::ReadWrite);
        assert_eq!(options.timeout, Duration::from_secs(3));
        assert_eq!(of("host=db").tls.mode, TlsMode::Prefer);
        let system = of("host=db sslrootcert=system");
        assert_eq!(system.tls.mode, TlsMode::VerifyFull);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_words() {
        for (text, says) in [
            ("mysql://x", "postgres://"),
            ("postgres://a:b@c:port/d", "port"),
            ("host=a port=0", "port"),
            ("postgres://%zz@h/d", "%-sequence"),
            ("postgres://h/d?sslmode=verify-ca", "sslrootcert"),
            ("postgres://h/d?sslmode=sometimes", "verify-full"),
            ("postgres://h/d?sslmod=require", "\"sslmod\" is not known"),
            ("postgres://h/d?sslcert=/c", "sslkey"),
            (
                "postgres://h/d?sslrootcert=system&sslmode=require",
                "verify-full",
            ),
            ("postgres://h/d?sslnegotiation=direct", "require"),
            (
                "postgres://h/d?sslmode=disable&channel_binding=require",
                "TLS",
            ),
            ("postgres://a:b@h/d?password_file=/p", "exclude"),
            ("postgres://h/d?target_session_attrs=master", "read-write"),
            ("host=a,b,c port=1,2", "ports"),
            ("host=a,b hostaddr=10.0.0.1", "different number"),
            ("host='a", "does not end"),
            ("hoost=a", "not known"),
            ("just words", "no ="),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        let options = of("postgres://bob:s3cret@db/desk");
        assert!(!format!("{options:?}").contains("s3cret"));
        for torn in [
            "postgres://bob:s3cret!@x@db/desk?s3cret!=1",
            "host=db password=a s3cret!",
            "host=db password=a s3cret!x=1",
        ] {
            let error = parse(torn).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error}");
        }
    }
}
