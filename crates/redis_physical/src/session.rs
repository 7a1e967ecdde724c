//! One connection, one question at a time. For work beside the online path: it blocks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redis::{Connection, FromRedisValue, Value};

use crate::error::{RedisError, Result};
use crate::settings::RedisSettings;

/// Longest wait for a connection, and for the answer to one question.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A condition is looked at again after this.
const PAUSE: Duration = Duration::from_millis(20);

pub struct RedisSession {
    connection: Connection,
    place: String,
}

impl std::fmt::Debug for RedisSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisSession")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    Redis,
    Valkey,
}

/// What `INFO` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info(BTreeMap<String, String>);

impl Info {
    #[must_use]
    pub fn parse(text: &str) -> Info {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Info(
            fields
                .map(|(name, value)| (name.to_owned(), value.trim_end().to_owned()))
                .collect(),
        )
    }

    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    #[must_use]
    pub fn number(&self, name: &str) -> Option<i64> {
        self.text(name).parse().ok()
    }

    #[must_use]
    pub fn is(&self, name: &str, value: &str) -> bool {
        self.text(name) == value
    }

    /// `db0`, `db1`…: the numbers of the databases that hold keys.
    pub fn databases(&self) -> impl Iterator<Item = u32> {
        self.0
            .keys()
            .filter_map(|name| name.strip_prefix("db")?.parse().ok())
    }

    #[must_use]
    pub fn kind(&self) -> ServerKind {
        match self.is("server_name", "valkey") || self.0.contains_key("valkey_version") {
            true => ServerKind::Valkey,
            false => ServerKind::Redis,
        }
    }

    /// As an operator says it: `Redis 7.0.15`, `Valkey 8.1.8`.
    #[must_use]
    pub fn version(&self) -> String {
        match self.kind() {
            ServerKind::Redis => format!("Redis {}", self.text("redis_version")),
            ServerKind::Valkey => format!("Valkey {}", self.text("valkey_version")),
        }
    }

    /// A folder with a manifest came with 7.0; Valkey had it from its first release.
    #[must_use]
    pub fn has_aof_folder(&self) -> bool {
        let major = self
            .text("redis_version")
            .split('.')
            .next()
            .and_then(|it| it.parse::<u32>().ok());
        major.is_some_and(|major| major >= 7)
    }
}

impl RedisSession {
    pub fn open(settings: &RedisSettings) -> Result<RedisSession> {
        let client = settings.client()?;
        let place = client.get_connection_info().addr().to_string();
        let failed = |error: redis::RedisError| RedisError::of(&error, &place, "a login");
        let connection = client
            .get_connection_with_timeout(TIMEOUT)
            .map_err(failed)?;
        connection.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
        connection
            .set_write_timeout(Some(TIMEOUT))
            .map_err(failed)?;
        Ok(RedisSession { connection, place })
    }

    /// Host and port, or socket: without user and password.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    pub fn ask<T: FromRedisValue>(&mut self, words: &[&str]) -> Result<T> {
        let bytes: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.ask_bytes(&bytes)
    }

    pub fn ask_bytes<T: FromRedisValue>(&mut self, words: &[&[u8]]) -> Result<T> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        let answer: redis::RedisResult<T> = command.query(&mut self.connection);
        answer.map_err(|error| {
            let name = String::from_utf8_lossy(words.first().copied().unwrap_or_default());
            RedisError::of(&error, &self.place, &name)
        })
    }

    /// Several questions in one round trip; the first refusal speaks for all.
    pub(crate) fn ask_all(&mut self, pipe: &redis::Pipeline, name: &str) -> Result<Vec<Value>> {
        self.run(pipe, name)
    }

    pub(crate) fn run<T: FromRedisValue>(
        &mut self,
        pipe: &redis::Pipeline,
        name: &str,
    ) -> Result<T> {
        let answer: redis::RedisResult<T> = pipe.query(&mut self.connection);
        answer.map_err(|error| RedisError::of(&error, &self.place, name))
    }

    pub fn info(&mut self) -> Result<Info> {
        Ok(Info::parse(&self.ask::<String>(&["INFO"])?))
    }

    pub fn persistence(&mut self) -> Result<Info> {
        Ok(Info::parse(&self.ask::<String>(&["INFO", "persistence"])?))
    }

    /// `CONFIG GET`; none where the server has no such setting.
    pub fn setting(&mut self, name: &str) -> Result<Option<String>> {
        let answer: BTreeMap<String, String> = self.ask(&["CONFIG", "GET", name])?;
        Ok(answer.into_values().next())
    }

    /// One that every server of a supported version has.
    pub fn known_setting(&mut self, name: &str) -> Result<String> {
        let place = self.place.clone();
        self.setting(name)?.ok_or_else(|| RedisError::Answer {
            place,
            command: format!("CONFIG GET {name}"),
            what: "no such setting".to_owned(),
        })
    }

    /// Refused of a replica, with the name of its primary.
    pub fn primary(&mut self) -> Result<Info> {
        let info = self.info()?;
        if info.is("role", "slave") {
            return Err(RedisError::Replica {
                place: self.place.clone(),
                primary: format!("{}:{}", info.text("master_host"), info.text("master_port")),
            });
        }
        Ok(info)
    }

    /// Asks `INFO persistence` again until the condition holds.
    pub fn persistence_until(
        &mut self,
        what: &'static str,
        timeout: Duration,
        cancelled: &dyn Fn() -> bool,
        condition: impl Fn(&Info) -> bool,
    ) -> Result<Info> {
        let began = Instant::now();
        loop {
            let info = self.persistence()?;
            if condition(&info) {
                return Ok(info);
            }
            if cancelled() {
                return Err(RedisError::Cancelled);
            }
            if began.elapsed() > timeout {
                return Err(RedisError::Timeout {
                    place: self.place.clone(),
                    what,
                    seconds: timeout.as_secs(),
                });
            }
            std::thread::sleep(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart() {
        let check = |text: &str, version: &str, has_folder: bool| {
            let info = Info::parse(text);
            assert_eq!(
                (info.version().as_str(), info.has_aof_folder()),
                (version, has_folder)
            );
        };
        check("# Server\r\nredis_version:7.0.15\r\n", "Redis 7.0.15", true);
        check("redis_version:6.2.14\r\n", "Redis 6.2.14", false);
        check(
            "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.8\r\n",
            "Valkey 8.1.8",
            true,
        );
        check("", "Redis ", false);
        let info = Info::parse("db0:keys=3,expires=1\r\ndb11:keys=1\r\ndbx:1\r\n");
        assert_eq!(info.databases().collect::<Vec<_>>(), [0, 11]);
    }
}
