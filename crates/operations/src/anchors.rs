//! The newest signed head outside the repository that holds the heads (audit_log.md §5): a file beside the keys, and an object in every
//! further repository. Whoever rolls the repository back does not roll these back.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use audit::{Head, SignedHead, VerifyingKey};
use host::{
    files::write_whole,
    log::{LOG, log_name},
    stored_heads::newest,
};
use repository::{Repository, heads::StoredHead};
use serde::{Deserialize, Serialize};
use services::Claim;

use crate::{
    config::{Config, ObjectLock, ReplicaConfig},
    error::Error,
};

const FORMAT: &str = "bre-audit-anchor-1";
/// Between two looks whether a further repository lacks the newest head.
const PAUSE: Duration = Duration::from_secs(10);
/// How long a start waits for what further repositories know.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stop waits for the last head to get there.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What lies beside the keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AnchorFile {
    format: String,
    /// In whose `heads/` the head is.
    pub repository_id: String,
    claimed_epoch: u32,
    claimed_by: String,
    head: Option<serde_json::Value>,
}

impl AnchorFile {
    fn path(keys: &Path) -> PathBuf {
        keys.join(format!("audit_anchor-{LOG}.json"))
    }

    pub fn read(keys: &Path) -> Result<Option<Self>, Error> {
        let path = Self::path(keys);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file("cannot read", &path)(error)),
        };
        let file: Self = serde_json::from_slice(&text)
            .map_err(|error| Error::file("cannot understand", &path)(error.into()))?;
        if file.format != FORMAT {
            return Err(Error::refused(
                "the audit log's anchor cannot be read",
                format!(
                    "{} has the format {:?}; a newer engine wrote it",
                    path.display(),
                    file.format
                ),
            ));
        }
        Ok(Some(file))
    }

    pub fn head(&self) -> Result<Option<SignedHead>, Error> {
        let Some(head) = &self.head else {
            return Ok(None);
        };
        let bytes = serde_json::to_vec(head).unwrap_or_default();
        Ok(Some(SignedHead::from_json(&bytes)?))
    }

    pub fn claim(&self) -> Option<Claim> {
        (self.claimed_epoch > 0).then(|| Claim {
            epoch: self.claimed_epoch,
            by: self.claimed_by.clone(),
        })
    }
}

/// What was found damaged, until a person has looked: beside the keys, so that it outlives the engine.
fn damage_path(keys: &Path) -> PathBuf {
    keys.join(format!("audit_damage-{LOG}.json"))
}

#[derive(Serialize, Deserialize)]
struct Damage {
    found_at_micros: i64,
    reason: String,
    /// The signed end of the log as the engine left it that found it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<serde_json::Value>,
}

impl Damage {
    fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::file("cannot write", path)(error.into()))?;
        Ok(write_whole(path, &text, 0o600)?)
    }
}

/// Where the log ended that is noted as damaged, as far as that can be read.
pub fn noted_end(keys: &Path) -> Option<SignedHead> {
    let noted: Damage = serde_json::from_slice(&std::fs::read(damage_path(keys)).ok()?).ok()?;
    SignedHead::from_json(&serde_json::to_vec(&noted.end?).ok()?).ok()
}

/// Fails closed: a note that cannot be read is one.
pub fn noted_damage(keys: &Path) -> Option<String> {
    let path = damage_path(keys);
    match std::fs::read(&path) {
        Ok(text) => Some(match serde_json::from_slice::<Damage>(&text) {
            Ok(damage) => damage.reason,
            Err(error) => format!("{} cannot be read: {error}", path.display()),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => Some(format!("{} cannot be read: {error}", path.display())),
    }
}

/// The file beside the keys, as this process keeps it.
#[derive(Debug)]
pub struct Anchors {
    keys: PathBuf,
    file: Mutex<AnchorFile>,
    newest: Mutex<Option<SignedHead>>,
    /// What a further repository holds that this engine does not know.
    beyond: Mutex<Option<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn place(head: &Head) -> (u32, u64) {
    (head.epoch, head.size)
}

impl Anchors {
    pub fn open(keys: &Path, repository_id: &str) -> Result<Self, Error> {
        let file = AnchorFile::read(keys)?.unwrap_or(AnchorFile {
            format: FORMAT.to_owned(),
            repository_id: repository_id.to_owned(),
            claimed_epoch: 0,
            claimed_by: String::new(),
            head: None,
        });
        Ok(Self {
            keys: keys.to_owned(),
            newest: Mutex::new(file.head()?),
            file: Mutex::new(file),
            beyond: Mutex::default(),
        })
    }

    pub fn file(&self) -> AnchorFile {
        locked(&self.file).clone()
    }

    /// After the repository holds it. Durable when this returns.
    pub fn keep(&self, repository_id: &str, head: &SignedHead) -> Result<(), Error> {
        let plain = head.clone().without_link();
        let value = serde_json::from_slice(&plain.to_json())
            .map_err(|error| Error::failed(format!("a signed head is no JSON: {error}")))?;
        self.write(|file| {
            repository_id.clone_into(&mut file.repository_id);
            file.head = Some(value);
        })?;
        *locked(&self.newest) = Some(plain);
        Ok(())
    }

    pub fn claim(&self, claim: &Claim) -> Result<(), Error> {
        self.write(|file| {
            file.claimed_epoch = claim.epoch;
            file.claimed_by.clone_from(&claim.by);
        })
    }

    fn write(&self, change: impl FnOnce(&mut AnchorFile)) -> Result<(), Error> {
        let mut file = locked(&self.file);
        let mut next = file.clone();
        change(&mut next);
        let path = AnchorFile::path(&self.keys);
        let text = serde_json::to_vec_pretty(&next)
            .map_err(|error| Error::file("cannot write", &path)(error.into()))?;
        write_whole(&path, &text, 0o600)?;
        *file = next;
        Ok(())
    }

    pub fn note_damage(&self, reason: Option<&str>) -> Result<(), Error> {
        let path = damage_path(&self.keys);
        match reason {
            Some(reason) => {
                let damage = Damage {
                    found_at_micros: jiff::Timestamp::now().as_microsecond(),
                    reason: reason.to_owned(),
                    end: None,
                };
                damage.write(&path)
            }
            None => {
                *locked(&self.beyond) = None;
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        Err(Error::file("cannot remove", &path)(error))
                    }
                    _ => std::fs::File::open(&self.keys)
                        .and_then(|folder| folder.sync_all())
                        .map_err(Error::file("cannot sync", &self.keys)),
                }
            }
        }
    }

    pub fn note_end(&self, head: &SignedHead) -> Result<(), Error> {
        let path = damage_path(&self.keys);
        let text = std::fs::read(&path).map_err(Error::file("cannot read", &path))?;
        let wrong =
            |error: serde_json::Error| Error::file("cannot understand", &path)(error.into());
        let mut damage: Damage = serde_json::from_slice(&text).map_err(wrong)?;
        damage.end = Some(serde_json::from_slice(&head.to_json()).map_err(wrong)?);
        damage.write(&path)
    }

    pub fn beyond(&self) -> Option<String> {
        locked(&self.beyond).clone()
    }
}

/// Anchors of one further repository.
#[derive(Debug)]
pub struct RemoteHeads {
    pub name: String,
    /// The newest of each epoch, or why it is not known.
    pub heads: Result<Vec<SignedHead>, String>,
}

fn open(replica: &ReplicaConfig) -> Result<Repository, Error> {
    let store = replica.path.open(replica.lock.map(ObjectLock::policy))?;
    Ok(Repository::open(store)?)
}

/// What a further repository holds of the log: anchors, and heads, of which it may have newer ones after they were copied by hand.
fn read_far(replica: &ReplicaConfig, keys: &[VerifyingKey]) -> Result<Vec<SignedHead>, Error> {
    let repository = open(replica)?;
    let parse = |stored: &StoredHead| Ok(SignedHead::from_json(&stored.bytes)?);
    let mut all: Vec<SignedHead> = repository::heads::anchors(&repository, &log_name())?
        .iter()
        .map(parse)
        .collect::<Result<_, Error>>()?;
    all.extend(newest(&repository, keys)?);
    Ok(all)
}

/// All that answer in time.
pub fn of_further(
    replica: &BTreeMap<String, ReplicaConfig>,
    keys: &[VerifyingKey],
) -> Vec<RemoteHeads> {
    let (sender, answers) = mpsc::channel();
    for (name, replica) in replica {
        let (sender, name, replica) = (sender.clone(), name.clone(), replica.clone());
        let keys = keys.to_vec();
        std::thread::spawn(move || {
            let heads = read_far(&replica, &keys).map_err(|error| error.to_string());
            let _ = sender.send(RemoteHeads { name, heads });
        });
    }
    drop(sender);
    let deadline = Instant::now() + START_TIMEOUT;
    let mut all = Vec::new();
    while let Ok(far) = answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        all.push(far);
    }
    for name in replica.keys() {
        if !all.iter().any(|far| far.name == *name) {
            all.push(RemoteHeads {
                name: name.clone(),
                heads: Err(format!(
                    "it did not answer within {} s",
                    START_TIMEOUT.as_secs()
                )),
            });
        }
    }
    all
}

/// Threads that bring the newest head into each further repository.
#[derive(Debug)]
pub struct Carriers {
    threads: Vec<JoinHandle<()>>,
    stop: Arc<Stop>,
}

#[derive(Debug, Default)]
struct Stop {
    told: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Carriers {
    /// `own`: the first repository, which says whose signatures count.
    pub fn start(config: &Config, anchors: &Arc<Anchors>, own: &Repository) -> Self {
        let stop = Arc::new(Stop::default());
        let threads = config.repositories.iter().map(|(name, replica)| {
            let mut carrier = Carrier {
                name: name.clone(),
                replica: replica.clone(),
                anchors: Arc::clone(anchors),
                own: own.clone(),
                repository: None,
                brought: None,
            };
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || carrier.run(&stop))
        });
        Self {
            threads: threads.collect(),
            stop,
        }
    }

    /// After the last head was signed: it is brought there too, if that can be done soon.
    pub fn end(&mut self) {
        {
            let _guard = locked(&self.stop.lock);
            self.stop.told.store(true, Ordering::Relaxed);
            self.stop.changed.notify_all();
        }
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

struct Carrier {
    name: String,
    replica: ReplicaConfig,
    anchors: Arc<Anchors>,
    own: Repository,
    repository: Option<Repository>,
    brought: Option<(u32, u64)>,
}

impl Carrier {
    fn run(&mut self, stop: &Stop) {
        loop {
            let last = stop.told.load(Ordering::Relaxed);
            if let Err(error) = self.carry() {
                tracing::debug!(repository = self.name, %error, "the newest signed head was not brought there; it is tried again");
                self.repository = None;
            }
            if last {
                return;
            }
            let guard = locked(&stop.lock);
            let waiting = |_: &mut ()| !stop.told.load(Ordering::Relaxed);
            drop(stop.changed.wait_timeout_while(guard, PAUSE, waiting));
        }
    }

    fn carry(&mut self) -> Result<(), Error> {
        let Some(newest) = locked(&self.anchors.newest).clone() else {
            return Ok(());
        };
        let ours = place(newest.claimed());
        let repository = match &self.repository {
            Some(repository) => repository,
            // The copier makes it, where there is none yet.
            None => self.repository.insert(open(&self.replica)?),
        };
        if self.brought == Some(ours) {
            return Ok(());
        }
        for stored in repository::heads::anchors(repository, &log_name())? {
            let theirs = SignedHead::from_json(&stored.bytes).ok();
            let Some(theirs) = theirs.filter(|theirs| place(theirs.claimed()) > ours) else {
                continue;
            };
            // The keys may be rotated while this runs.
            let trusted = host::keys::trusted(&self.anchors.keys, &self.own)?;
            if let Ok(theirs) = theirs.verify(&trusted) {
                *locked(&self.anchors.beyond) = Some(format!(
                    "the repository {} holds a head that was signed for epoch {} at size {}, and this log's newest is of epoch {} at {}: \
                     another engine writes this log, or it was rolled back",
                    self.name, theirs.epoch, theirs.size, ours.0, ours.1
                ));
                return Ok(());
            }
        }
        repository::heads::put_anchor(repository, &log_name(), ours, &newest.to_json())?;
        self.brought = Some(ours);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use audit::{Chain, EpochOpening, SigningKey};

    use super::*;

    #[test]
    fn the_newest_head_and_the_last_claim_lie_beside_the_keys() {
        let folder = tempfile::tempdir().unwrap();
        assert!(AnchorFile::read(folder.path()).unwrap().is_none());
        let key = SigningKey::generate().unwrap();
        let mut chain = Chain::new(LOG);
        chain
            .open_epoch(0, &EpochOpening::Created { timeline: 1 }, &key)
            .unwrap();
        let head = key.sign(&chain.head(1, 2).unwrap());
        let anchors = Anchors::open(folder.path(), "r1").unwrap();
        let claim = Claim {
            epoch: 1,
            by: "created".to_owned(),
        };
        anchors.claim(&claim).unwrap();
        let read = || AnchorFile::read(folder.path()).unwrap().unwrap();
        assert!(read().head().unwrap().is_none());
        anchors.keep("r2", &head).unwrap();
        assert_eq!(
            (read().head().unwrap(), read().claim(), read().repository_id),
            (Some(head), Some(claim), "r2".to_owned())
        );
        assert_eq!(noted_damage(folder.path()), None);
        anchors.note_damage(Some("gone")).unwrap();
        assert_eq!(noted_damage(folder.path()).as_deref(), Some("gone"));
        assert_eq!(noted_end(folder.path()), None);
        let end = key.sign(&chain.head(3, 0).unwrap());
        anchors.note_end(&end).unwrap();
        assert_eq!(noted_end(folder.path()), Some(end));
        assert_eq!(noted_damage(folder.path()).as_deref(), Some("gone"));
        anchors.note_damage(None).unwrap();
        assert_eq!(noted_damage(folder.path()), None);
    }
}
