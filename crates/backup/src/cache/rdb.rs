//! An RDB file of this moment: the server writes it (BGSAVE), a server of ours loads it, and its bytes become a
//! document.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redis_physical::rdb::{RdbHead, head_of_file};
use redis_physical::{
    Info, Program, RedisError, RedisSession, RedisSettings, ScratchFiles, ScratchRedis,
    end_leftovers,
};
use zeroize::Zeroizing;

use super::files::{failed, make_folder, readable, remove, write_synced};
use super::{COMPONENT, CacheError, DOCUMENT, databases, millis_since, server_folder};
use crate::Progress;
use crate::documents::{Collection, Document, DocumentSource};

type Result<T, E = CacheError> = std::result::Result<T, E>;

const SAVE_TIMEOUT: Duration = Duration::from_secs(1800);
/// Another save or a rewrite may come first, more than once.
const ATTEMPTS: u32 = 20;
/// Clocks of one host, in whole seconds.
const SLACK_SECONDS: i64 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RdbPolicy {
    /// BGSAVE now.
    Save,
    /// The newest file that the server wrote by its own rules, when it is not older; else BGSAVE.
    Newest { age_max: Duration },
}

#[derive(Debug, Clone)]
pub struct RdbSource {
    pub settings: RedisSettings,
    pub policy: RdbPolicy,
    /// A folder of ours, for the server that loads the file.
    pub scratch: PathBuf,
    /// Found by itself when absent.
    pub program: Option<Program>,
}

/// What was taken, beside the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RdbDump {
    pub server: String,
    pub head: RdbHead,
    pub bytes: u64,
    /// That the server of ours had when it loaded the file, and those that had expired by then.
    pub keys: u64,
    pub keys_expired: u64,
    /// How long that server took to start and load it.
    pub load_millis: u64,
}

impl DocumentSource for RdbSource {
    type Error = CacheError;
    type Report = RdbDump;

    fn component(&self) -> &'static str {
        COMPONENT
    }

    fn collect(&self, progress: &dyn Progress) -> Result<(Collection, RdbDump)> {
        let (content, dump) = self.take(progress)?;
        let mut attributes = BTreeMap::from([
            ("mode".to_owned(), "0600".to_owned()),
            ("server".to_owned(), dump.server.clone()),
            ("rdb_version".to_owned(), dump.head.rdb_version.to_string()),
            ("keys".to_owned(), dump.keys.to_string()),
        ]);
        if let Some(seconds) = dump.head.created_seconds {
            attributes.insert("created_seconds".to_owned(), seconds.to_string());
        }
        let mut collection = Collection::default();
        let document = Document {
            content,
            attributes,
        };
        collection.documents.insert(DOCUMENT.to_owned(), document);
        Ok((collection, dump))
    }

    fn redacted(&self, name: &str, content: &[u8]) -> String {
        format!(
            "{name}: {} bytes of an RDB file, which is not shown\n",
            content.len()
        )
    }
}

impl RdbSource {
    fn take(&self, progress: &dyn Progress) -> Result<(Zeroizing<Vec<u8>>, RdbDump)> {
        let cancelled = || progress.cancelled();
        let mut session = RedisSession::open(&self.settings)?;
        let info = session.primary()?;
        let folder = server_folder(&mut session)?;
        readable(session.place(), &folder)?;
        let program = match &self.program {
            Some(program) => program.clone(),
            None => Program::find(info.kind())?,
        };
        let path = folder.join(session.known_setting("dbfilename")?);
        let from = match (self.policy, newest(&mut session, &path)?) {
            (RdbPolicy::Newest { age_max }, Some((head, age))) if age <= age_max => {
                head.created_seconds
            }
            _ => {
                progress.message("waiting for BGSAVE");
                let began = save(&mut session, progress)?;
                Some(began)
            }
        };
        let (content, head) = self.read(&mut session, &path, from)?;
        progress.message("starting a server that loads the RDB file");
        let databases = databases(&mut session)?;
        let began = Instant::now();
        let (keys, keys_expired) = load(&program, &self.scratch, &content, databases, &cancelled)?;
        let dump = RdbDump {
            server: info.version(),
            head,
            bytes: content.len() as u64,
            keys,
            keys_expired,
            load_millis: millis_since(began),
        };
        Ok((content, dump))
    }

    /// The file that is there may be another server's of the same folder: its head says when it was written.
    fn read(
        &self,
        session: &mut RedisSession,
        path: &Path,
        from_seconds: Option<i64>,
    ) -> Result<(Zeroizing<Vec<u8>>, RdbHead)> {
        let place = session.place().to_owned();
        let other = |what: &str| CacheError::OtherFiles {
            place: place.clone(),
            path: path.to_owned(),
            what: what.to_owned(),
        };
        // A later save replaces the name, never the file.
        let mut file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(other("it says that it wrote the file, which is not here"));
            }
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(CacheError::FolderNotReadable {
                    place,
                    folder: path.parent().unwrap_or(path).to_owned(),
                    reason: error.to_string(),
                });
            }
            opened => opened.map_err(failed("read", path))?,
        };
        let mut content = Zeroizing::new(Vec::new());
        file.read_to_end(&mut content)
            .map_err(failed("read", path))?;
        let head = redis_physical::rdb::head(&mut content.as_slice());
        let head = head.map_err(|fault| RedisError::Damaged {
            path: path.to_owned(),
            offset: 0,
            fault,
        })?;
        let now = seconds(session)?;
        let fits = match (from_seconds, head.created_seconds) {
            (Some(from), Some(created)) => {
                created + SLACK_SECONDS >= from && created <= now + SLACK_SECONDS
            }
            _ => true,
        };
        match fits {
            true => Ok((content, head)),
            false => Err(other(
                "it was written at another time than this server saved",
            )),
        }
    }
}

/// The server's clock.
fn seconds(session: &mut RedisSession) -> Result<i64> {
    let (seconds, _): (i64, i64) = session.ask(&["TIME"])?;
    Ok(seconds)
}

/// What the server wrote last by itself, and how old it is.
fn newest(session: &mut RedisSession, path: &Path) -> Result<Option<(RdbHead, Duration)>> {
    if !path.is_file() {
        return Ok(None);
    }
    let head = head_of_file(path)?;
    let Some(created) = head.created_seconds else {
        return Ok(None);
    };
    let age = seconds(session)?.saturating_sub(created);
    let age = Duration::from_secs(u64::try_from(age).unwrap_or(0));
    Ok(Some((head, age)))
}

/// When it began, by the server's clock, once it has ended.
fn save(session: &mut RedisSession, progress: &dyn Progress) -> Result<i64> {
    let cancelled = || progress.cancelled();
    let place = session.place().to_owned();
    let idle = |info: &Info| {
        info.is("rdb_bgsave_in_progress", "0") && info.is("aof_rewrite_in_progress", "0")
    };
    for _ in 0..ATTEMPTS {
        let before =
            session.persistence_until("what it saves already", SAVE_TIMEOUT, &cancelled, idle)?;
        let began = seconds(session)?;
        match session.ask::<String>(&["BGSAVE"]) {
            Ok(_) => {}
            // A rewrite or a save began between the two questions.
            Err(RedisError::Refused { word, .. })
                if word.contains("in progress") || word.contains("child process") =>
            {
                continue;
            }
            Err(RedisError::Refused { word, .. } | RedisError::NotAllowed { word, .. }) => {
                return Err(CacheError::BgsaveRefused { place, word });
            }
            Err(error) => return Err(error.into()),
        }
        let saved = |info: &Info| info.is("rdb_bgsave_in_progress", "0");
        let after = session.persistence_until("BGSAVE", SAVE_TIMEOUT, &cancelled, saved)?;
        let is_saved = match (before.number("rdb_saves"), after.number("rdb_saves")) {
            (Some(before), Some(after)) => after > before,
            _ => after
                .number("rdb_last_save_time")
                .is_some_and(|saved| saved >= began),
        };
        return match is_saved && after.is("rdb_last_bgsave_status", "ok") {
            true => Ok(began),
            false => Err(CacheError::BgsaveFailed { place }),
        };
    }
    Err(CacheError::BgsaveRefused {
        place,
        word: "other saves and rewrites came first each time".to_owned(),
    })
}

/// How many keys are in it, and how many more had expired.
fn load(
    program: &Program,
    scratch: &Path,
    content: &[u8],
    databases: u32,
    cancelled: &dyn Fn() -> bool,
) -> Result<(u64, u64)> {
    end_leftovers(scratch);
    remove(scratch)?;
    make_folder(scratch)?;
    let file = scratch.join(DOCUMENT);
    let loaded = (|| {
        write_synced(&file, content)?;
        let not_loaded = |error: RedisError| match error {
            RedisError::Load { .. } => CacheError::NotLoaded(error),
            other => other.into(),
        };
        program.check_rdb(&file).map_err(not_loaded)?;
        let started = ScratchRedis::start(
            program,
            scratch,
            ScratchFiles::Rdb(DOCUMENT),
            databases,
            cancelled,
        );
        let server = started.map_err(not_loaded)?;
        let info = server.session()?.persistence()?;
        server.end();
        let count = |name: &str| {
            info.number(name)
                .and_then(|it| u64::try_from(it).ok())
                .unwrap_or(0)
        };
        Ok((
            count("rdb_last_load_keys_loaded"),
            count("rdb_last_load_keys_expired"),
        ))
    })();
    remove(scratch)?;
    loaded
}
