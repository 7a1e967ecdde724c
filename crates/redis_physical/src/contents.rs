//! What a server holds, key by key: a digest of each value and the moment at which it expires. Two servers are
//! compared by it, however each of them keeps its values.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, Digest, SHA256};
use redis::Value as Answer;

use crate::error::{RedisError, Result};
use crate::session::RedisSession;

const SCAN_COUNT: &str = "1000";
/// Of the footer of a DUMP: version and checksum, which differ between servers.
const DUMP_FOOTER: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName {
    pub database: u32,
    pub name: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub digest: [u8; 32],
    /// None: never.
    pub expires_at_millis: Option<i64>,
}

/// What it takes to write a value again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Text(Vec<u8>),
    /// In the form of `DUMP`, which a server of the same or a later version takes.
    Dump(Vec<u8>),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    pub entries: BTreeMap<KeyName, Entry>,
}

impl Contents {
    /// What comes and goes meanwhile may be in it or not.
    pub fn read(session: &mut RedisSession, cancelled: &dyn Fn() -> bool) -> Result<Contents> {
        let mut contents = Contents::default();
        let databases: Vec<u32> = session.info()?.databases().collect();
        for database in databases {
            session.ask::<()>(&["SELECT", &database.to_string()])?;
            let mut cursor = "0".to_owned();
            loop {
                if cancelled() {
                    return Err(RedisError::Cancelled);
                }
                let (next, names): (String, Vec<Vec<u8>>) =
                    session.ask(&["SCAN", &cursor, "COUNT", SCAN_COUNT])?;
                for name in names {
                    if let Some(entry) = entry(session, &name)? {
                        contents.entries.insert(KeyName { database, name }, entry);
                    }
                }
                cursor = next;
                if cursor == "0" {
                    break;
                }
            }
        }
        session.ask::<()>(&["SELECT", "0"])?;
        Ok(contents)
    }

    /// Over all keys, values and moments, 64 hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut context = Context::new(&SHA256);
        for (key, entry) in &self.entries {
            context.update(&key.database.to_be_bytes());
            context.update(&(key.name.len() as u64).to_be_bytes());
            context.update(&key.name);
            context.update(&entry.digest);
            context.update(&entry.expires_at_millis.unwrap_or(-1).to_be_bytes());
        }
        hex(context.finish())
    }

    /// Those that are still there at that moment.
    pub fn alive(&self, at_millis: i64) -> impl Iterator<Item = (&KeyName, &Entry)> {
        let alive = move |it: &(&KeyName, &Entry)| {
            it.1.expires_at_millis
                .is_none_or(|expires| expires > at_millis)
        };
        self.entries.iter().filter(alive)
    }
}

fn hex(digest: Digest) -> String {
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// None: it expired meanwhile.
pub(crate) fn entry(session: &mut RedisSession, name: &[u8]) -> Result<Option<Entry>> {
    let mut pipe = redis::pipe();
    pipe.cmd("TYPE").arg(name).cmd("PEXPIRETIME").arg(name);
    let answers = session.ask_all(&pipe, "TYPE")?;
    let [Answer::SimpleString(kind), Answer::Int(expires)] = answers.as_slice() else {
        return Ok(None);
    };
    if *expires == -2 || kind == "none" {
        return Ok(None);
    }
    let Some(digest) = digest(session, name, kind)? else {
        return Ok(None);
    };
    Ok(Some(Entry {
        digest,
        expires_at_millis: (*expires >= 0).then_some(*expires),
    }))
}

fn digest(session: &mut RedisSession, name: &[u8], kind: &str) -> Result<Option<[u8; 32]>> {
    let words: Vec<Vec<u8>> = match kind {
        "string" => match session.ask_bytes::<Option<Vec<u8>>>(&[b"GET", name])? {
            Some(text) => vec![text],
            None => return Ok(None),
        },
        "list" => session.ask_bytes(&[b"LRANGE", name, b"0", b"-1"])?,
        "set" => sorted(session.ask_bytes(&[b"SMEMBERS", name])?, 1),
        "hash" => sorted(session.ask_bytes(&[b"HGETALL", name])?, 2),
        "zset" => session.ask_bytes(&[b"ZRANGE", name, b"0", b"-1", b"WITHSCORES"])?,
        _ => match session.ask_bytes::<Option<Vec<u8>>>(&[b"DUMP", name])? {
            Some(dump) => vec![dump[..dump.len().saturating_sub(DUMP_FOOTER)].to_vec()],
            None => return Ok(None),
        },
    };
    let mut context = Context::new(&SHA256);
    context.update(kind.as_bytes());
    for word in words {
        context.update(&(word.len() as u64).to_be_bytes());
        context.update(&word);
    }
    let digest = context.finish();
    Ok(digest.as_ref().try_into().ok())
}

/// Groups of words, in an order that does not depend on how the server keeps them.
fn sorted(words: Vec<Vec<u8>>, group: usize) -> Vec<Vec<u8>> {
    let mut groups: Vec<&[Vec<u8>]> = words.chunks(group).collect();
    groups.sort_unstable();
    groups.concat()
}

impl RedisSession {
    /// None: it is not there any more.
    pub fn value(&mut self, name: &[u8]) -> Result<Option<Value>> {
        let kind: String = self.ask_bytes(&[b"TYPE", name])?;
        match kind.as_str() {
            "none" => Ok(None),
            "string" => Ok(self
                .ask_bytes::<Option<Vec<u8>>>(&[b"GET", name])?
                .map(Value::Text)),
            _ => Ok(self
                .ask_bytes::<Option<Vec<u8>>>(&[b"DUMP", name])?
                .map(Value::Dump)),
        }
    }

    /// `PEXPIRETIME`: none, it is not there; -1, it never expires.
    pub fn expires_at_millis(&mut self, name: &[u8]) -> Result<Option<i64>> {
        let millis: i64 = self.ask_bytes(&[b"PEXPIRETIME", name])?;
        Ok((millis != -2).then_some(millis))
    }

    pub fn select(&mut self, database: u32) -> Result<()> {
        self.ask::<()>(&["SELECT", &database.to_string()])
    }

    /// Writes a key unless it changed since it was last watched (`WATCH`); whether it was written.
    pub fn write_watched(
        &mut self,
        name: &[u8],
        value: &Value,
        expires_at_millis: Option<i64>,
    ) -> Result<bool> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        match value {
            Value::Text(text) => {
                let set = pipe.cmd("SET").arg(name).arg(text);
                if let Some(millis) = expires_at_millis {
                    set.arg("PXAT").arg(millis);
                }
            }
            Value::Dump(dump) => {
                let millis = expires_at_millis.unwrap_or(0);
                pipe.cmd("RESTORE")
                    .arg(name)
                    .arg(millis)
                    .arg(dump)
                    .arg("REPLACE")
                    .arg("ABSTTL");
            }
        }
        let answer: Option<Vec<Answer>> = self.run(&pipe, "SET or RESTORE")?;
        Ok(answer.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_a_hash_does_not_count_and_its_pairs_do() {
        let words = |text: &str| {
            text.split(' ')
                .map(|it| it.as_bytes().to_vec())
                .collect::<Vec<_>>()
        };
        assert_eq!(sorted(words("b 1 a 2"), 2), words("a 2 b 1"));
        assert_ne!(sorted(words("a 1 b 2"), 2), sorted(words("a 2 b 1"), 2));
        assert_eq!(sorted(words("c a b"), 1), words("a b c"));
    }

    #[test]
    fn a_digest_tells_what_differs() {
        let entry = |byte: u8, expires: Option<i64>| Entry {
            digest: [byte; 32],
            expires_at_millis: expires,
        };
        let contents = |name: &str, database: u32, entry: Entry| {
            let name = name.as_bytes().to_vec();
            Contents {
                entries: BTreeMap::from([(KeyName { database, name }, entry)]),
            }
        };
        let one = contents("a", 0, entry(1, Some(5)));
        assert_eq!(one.digest(), one.clone().digest());
        for other in [
            contents("b", 0, entry(1, Some(5))),
            contents("a", 1, entry(1, Some(5))),
            contents("a", 0, entry(2, Some(5))),
            contents("a", 0, entry(1, Some(6))),
            contents("a", 0, entry(1, None)),
            Contents::default(),
        ] {
            assert_ne!(one.digest(), other.digest());
        }
        assert_eq!((one.alive(4).count(), one.alive(5).count()), (1, 0));
    }
}
