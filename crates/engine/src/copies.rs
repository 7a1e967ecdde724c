//! Further repositories, `[repositories.NAME]`: each gets backups and WAL by copy from the first, keeps them by its own rules, and
//! says how far behind it is.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use repository::{
    Repository,
    copying::{CopyOptions, CopyReport, copy},
    keys::RecipientPrivate,
    retention::Rules,
};
use serde::{Deserialize, Serialize};

use crate::{
    config::{self, Config, ObjectLock},
    error::Error,
    expiry::{self, Log},
    host::{
        instance::{Instance, write_whole},
        location::Location,
        progress::Steps,
        record::Event,
        runtime::wait,
    },
};

/// Between two rounds of copying.
const PAUSE: Duration = Duration::from_secs(10);
/// After a failure, the first pause; doubled up to the longest.
const RETRY_MAX: Duration = Duration::from_secs(300);
const EXPIRY_PAUSE: Duration = Duration::from_secs(6 * 3600);
/// How long a stop waits for what is under way; one object more or less is the next start's.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Opened, with what is kept there.
#[derive(Debug)]
pub(crate) struct ReplicaRepository {
    pub(crate) repository: Repository,
    pub(crate) rules: Rules,
}

/// By the name that the settings give it, or by its place: then it keeps what the first keeps. Made where there is none yet.
pub(crate) fn other(instance: &Instance, named: &str) -> Result<ReplicaRepository, Error> {
    let config = Config::load(None, instance.root())?;
    match config.repositories.get(named) {
        Some(replica) => open(replica, &config.backup),
        None => {
            let location: Location = crate::repository_handle::location(named)?;
            Ok(ReplicaRepository {
                repository: Repository::init(location.open(None)?)?,
                rules: config.backup.rules(),
            })
        }
    }
}

fn open(
    replica: &config::ReplicaConfig,
    first: &config::Backup,
) -> Result<ReplicaRepository, Error> {
    let store = replica.path.open(replica.lock.map(ObjectLock::policy))?;
    Ok(ReplicaRepository {
        repository: Repository::init(store)?,
        rules: replica.rules(first),
    })
}

/// How one of them stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct CopyStatus {
    pub(crate) repository: String,
    /// When a round last came to its end.
    pub(crate) copied_at_micros: i64,
    /// The last server time that it can prove.
    pub(crate) until_micros: i64,
    pub(crate) wal_end_lsn: u64,
    /// WAL that the first has and it has not.
    pub(crate) lag_bytes: u64,
    pub(crate) trouble: Option<String>,
    /// Why its last expiry let nothing go; it is tried again.
    pub(crate) not_expired: Option<String>,
}

/// As the running engine left it.
pub(crate) fn standings(instance: &Instance) -> BTreeMap<String, CopyStatus> {
    let text = std::fs::read(file(instance)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn file(instance: &Instance) -> std::path::PathBuf {
    instance.run().join("copies.json")
}

/// The threads that copy.
#[derive(Debug)]
pub(crate) struct Copies {
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Stop {
    stopped: Arc<AtomicBool>,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Stop {
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// As long as that, or until it is stopped.
    fn pause(&self, pause: Duration) {
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |_: &mut ()| !self.is_stopped();
        drop(self.changed.wait_timeout_while(guard, pause, waiting));
    }

    fn stop(&self) {
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.stopped.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }
}

impl Copies {
    pub(crate) fn start(
        instance: &Instance,
        config: &Config,
        first: &Repository,
        private: Option<&RecipientPrivate>,
    ) -> Self {
        let stop = Arc::new(Stop::default());
        let told = Arc::new(Mutex::new(BTreeMap::new()));
        let threads = config.repositories.iter().map(|(name, replica)| {
            let copier = Copier {
                name: name.clone(),
                replica: replica.clone(),
                backup: config.backup.clone(),
                first: first.clone(),
                private: private.cloned(),
                instance: instance.clone(),
                file: file(instance),
                told: Arc::clone(&told),
                stop: Arc::clone(&stop),
            };
            std::thread::spawn(move || copier.run())
        });
        Self {
            threads: threads.collect(),
            stop,
        }
    }

    pub(crate) fn cancel(&self) {
        self.stop.stop();
    }

    pub(crate) fn end(&mut self) {
        self.cancel();
        let deadline = Instant::now() + STOP_TIMEOUT;
        for thread in self.threads.drain(..) {
            // One that hangs on a store that is away writes nothing that a kill could harm.
            while !thread.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

/// A round that came to its end.
struct Round {
    copied: CopyReport,
    expiry: Expiry,
}

enum Expiry {
    NotDue,
    Done,
    Failed(Error),
}

struct Copier {
    name: String,
    replica: config::ReplicaConfig,
    backup: config::Backup,
    first: Repository,
    private: Option<RecipientPrivate>,
    /// Whose audit log says what goes.
    instance: Instance,
    file: std::path::PathBuf,
    told: Arc<Mutex<BTreeMap<String, CopyStatus>>>,
    stop: Arc<Stop>,
}

impl Copier {
    fn run(self) {
        let (mut pause, mut expire_at) = (PAUSE, Instant::now());
        while !self.stop.is_stopped() {
            let ended = self.round(&mut expire_at);
            pause = match &ended {
                Ok(_) => PAUSE,
                Err(_) => RETRY_MAX.min(pause * 2),
            };
            self.publish_status(ended);
            self.stop.pause(pause);
        }
    }

    fn round(&self, expire_at: &mut Instant) -> Result<Round, Error> {
        let other = open(&self.replica, &self.backup)?;
        let steps = Steps::logged().cancelled_by(Arc::clone(&self.stop.stopped));
        let options = CopyOptions {
            backup: None,
            rules: other.rules,
            private: self.private.as_ref(),
            now_micros: jiff::Timestamp::now().as_microsecond(),
        };
        let copied = copy(&self.first, &other.repository, &options, &steps)?;
        let keys = crate::keys::trusted(&self.instance.keys(), &self.first)?;
        crate::thinning::follow(&other.repository, &keys)?;
        if *expire_at > Instant::now() || self.stop.is_stopped() {
            let expiry = Expiry::NotDue;
            return Ok(Round { copied, expiry });
        }
        let record = |event: &Event| wait(event.record(&self.instance));
        let (pause, expiry) = match self.expire(&other, &steps, &record) {
            Ok(()) => (EXPIRY_PAUSE, Expiry::Done),
            Err(error) => (RETRY_MAX, Expiry::Failed(error)),
        };
        *expire_at = Instant::now() + pause;
        Ok(Round { copied, expiry })
    }

    /// By its own rules, and on record before anything goes, as in the first repository.
    fn expire(
        &self,
        other: &ReplicaRepository,
        steps: &Steps,
        record: &dyn Fn(&Event) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let log = Log {
            asked_by: Event::by_engine("BackupRun").with("repository", &self.name),
            record,
        };
        let private = self.private.as_ref();
        let said = expiry::expire(&other.repository, private, None, &other.rules, steps, &log)?;
        tracing::info!(repository = self.name, said, "expired by its own rules");
        Ok(())
    }

    fn publish_status(&self, ended: Result<Round, Error>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = told.entry(self.name.clone()).or_default();
        standing.repository = self.replica.path.to_string();
        match ended {
            Ok(Round { copied, expiry }) => {
                standing.copied_at_micros = jiff::Timestamp::now().as_microsecond();
                standing.until_micros = copied.until_micros;
                standing.wal_end_lsn = copied.wal_end_lsn;
                standing.lag_bytes = copied.wal_end_lsn_source.saturating_sub(copied.wal_end_lsn);
                standing.trouble = None;
                match expiry {
                    Expiry::NotDue => {}
                    Expiry::Done => standing.not_expired = None,
                    Expiry::Failed(error) => {
                        tracing::warn!(repository = self.name, %error, "not expired; it is tried again");
                        standing.not_expired = Some(error.to_string());
                    }
                }
            }
            Err(error) => {
                tracing::warn!(repository = self.name, %error, "not copied; it is tried again");
                standing.trouble = Some(error.to_string());
            }
        }
        if let Err(error) = write(&self.file, &told) {
            tracing::warn!(%error, "how the copies stand is not written down");
        }
    }
}

fn write(path: &Path, told: &BTreeMap<String, CopyStatus>) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(told)
        .map_err(|error| Error::file("cannot write", path)(error.into()))?;
    write_whole(path, &text, 0o600)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use repository::store::{MemoryStore, Store};

    use super::*;

    fn copier(folder: &Path) -> Copier {
        let settings = "[repositories.far]\npath = \"/nowhere\"\n";
        std::fs::write(folder.join("bre.toml"), settings).unwrap();
        let config = Config::load(None, folder).unwrap();
        let instance = Instance::at(folder).unwrap();
        Copier {
            name: "far".to_owned(),
            replica: config.repositories["far"].clone(),
            backup: config.backup,
            first: Repository::init(Arc::new(MemoryStore::new())).unwrap(),
            private: None,
            file: file(&instance),
            instance,
            told: Arc::default(),
            stop: Arc::default(),
        }
    }

    #[test]
    fn nothing_goes_from_a_further_repository_before_it_is_on_record() {
        let folder = tempfile::tempdir().unwrap();
        let (copier, steps) = (copier(folder.path()), Steps::logged());
        let store = MemoryStore::new();
        let other = ReplicaRepository {
            repository: Repository::init(Arc::new(store.clone())).unwrap(),
            rules: Rules {
                grace_micros: 0,
                ..Rules::default()
            },
        };
        // A killed backup's pack, which nothing refers to.
        let pack = format!("packs/{}", "5a".repeat(16));
        store.put(&pack, b"sealed").unwrap();
        let names = || -> Vec<String> {
            let all = store.list("").unwrap();
            all.into_iter().map(|object| object.name).collect()
        };
        let before = names();
        // No engine runs here: there is no log that an entry could go into.
        let record = |event: &Event| wait(event.record(&copier.instance));
        copier.expire(&other, &steps, &record).unwrap_err();
        assert_eq!(names(), before);

        let entries = RefCell::new(Vec::new());
        let record = |event: &Event| {
            entries
                .borrow_mut()
                .push((format!("{event:?}"), names() == before));
            Ok(())
        };
        copier.expire(&other, &steps, &record).unwrap();
        assert_ne!(names(), before);
        let entries = entries.into_inner();
        let [(begun, true), (complete, false)] = &entries[..] else {
            panic!("{entries:?}");
        };
        for (entry, state) in [(begun, "begun"), (complete, "complete")] {
            assert!(
                entry.contains(state) && entry.contains("\"far\""),
                "{entry}"
            );
        }
    }
}
