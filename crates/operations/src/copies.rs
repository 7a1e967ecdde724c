//! Further repositories, `[repositories.NAME]`: each gets backups and WAL by copy from the first, keeps them by its own rules, and
//! says how far behind it is.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use host::{files::write_whole, instance::Instance, location::Location, progress::Steps};
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
};

/// Opened, with what is kept there.
#[derive(Debug)]
pub struct ReplicaRepository {
    pub repository: Repository,
    pub rules: Rules,
}

/// By the name that the settings give it, or by its place: then it keeps what the first keeps. Made where there is none yet.
pub fn other(config: &Config, named: &str) -> Result<ReplicaRepository, Error> {
    match config.repositories.get(named) {
        Some(replica) => open(replica, &config.backup),
        None => {
            let location: Location = config::location(named)?;
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
pub struct CopyStatus {
    pub repository: String,
    /// When a round last came to its end.
    pub copied_at_micros: i64,
    /// The last server time that it can prove.
    pub until_micros: i64,
    pub wal_end_lsn: u64,
    /// WAL that the first has and it has not.
    pub lag_bytes: u64,
    pub trouble: Option<String>,
    /// Why its last expiry let nothing go; it is tried again.
    pub not_expired: Option<String>,
}

/// As the running engine left it.
pub fn standings(instance: &Instance) -> BTreeMap<String, CopyStatus> {
    let text = std::fs::read(file(instance)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn file(instance: &Instance) -> std::path::PathBuf {
    instance.run().join("copies.json")
}

/// The state of all of them; in a file for other processes.
#[derive(Debug)]
pub struct CopyBoard {
    file: PathBuf,
    copies: Mutex<BTreeMap<String, CopyStatus>>,
}

impl CopyBoard {
    /// Of those that the settings name; the others are gone.
    pub fn open(instance: &Instance, config: &config::Backup) -> Self {
        let mut copies = standings(instance);
        copies.retain(|name, _| config.repositories.contains_key(name));
        Self {
            file: file(instance),
            copies: Mutex::new(copies),
        }
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut CopyStatus)) {
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        change(copies.entry(name.to_owned()).or_default());
        if let Err(error) = write(&self.file, &copies) {
            tracing::warn!(%error, "how the copies stand is not written down");
        }
    }

    /// For people: each with its trouble, if it has one.
    pub fn summary(&self) -> String {
        let copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        let words = |(name, copy): (&String, &CopyStatus)| match (&copy.trouble, &copy.not_expired)
        {
            (Some(trouble), _) => format!("{name}: not copied: {trouble}"),
            (None, Some(why)) => format!("{name}: copied, and nothing expires there: {why}"),
            (None, None) => format!("{name}: copied"),
        };
        copies.iter().map(words).collect::<Vec<_>>().join("; ")
    }
}

/// Brings one of them up to date.
#[derive(Debug)]
pub struct Copier<'a> {
    pub name: &'a str,
    pub replica: &'a config::ReplicaConfig,
    pub config: &'a config::Backup,
    /// Whose keys and audit log these are.
    pub instance: &'a Instance,
    pub board: &'a CopyBoard,
}

/// What one round has.
#[derive(Debug)]
pub struct Round<'a> {
    pub first: &'a Repository,
    pub private: Option<&'a RecipientPrivate>,
    pub steps: &'a Steps,
    /// Says what goes; none: nothing expires in this round.
    pub log: Option<&'a Log<'a>>,
}

/// What came of a round that copied.
#[derive(Debug)]
pub struct RoundReport {
    pub objects: u64,
    pub bytes: u64,
    /// Why nothing expired where it was to.
    pub not_expired: Option<Error>,
}

impl Copier<'_> {
    /// How it went is on the board then.
    pub fn round(&self, round: &Round<'_>) -> Result<RoundReport, Error> {
        let came = self.copy(round);
        // Told to end: neither a success nor a trouble.
        if came.is_err() && round.steps.is_cancelled() {
            return came.map(|(_, report)| report);
        }
        self.board.change(self.name, |standing| {
            standing.repository = self.replica.path.to_string();
            match &came {
                Ok((copied, report)) => {
                    standing.copied_at_micros = jiff::Timestamp::now().as_microsecond();
                    standing.until_micros = copied.until_micros;
                    standing.wal_end_lsn = copied.wal_end_lsn;
                    standing.lag_bytes =
                        copied.wal_end_lsn_source.saturating_sub(copied.wal_end_lsn);
                    standing.trouble = None;
                    if round.log.is_some() {
                        standing.not_expired = report.not_expired.as_ref().map(Error::to_string);
                    }
                }
                Err(error) => standing.trouble = Some(error.to_string()),
            }
        });
        came.map(|(_, report)| report)
    }

    fn copy(&self, round: &Round<'_>) -> Result<(CopyReport, RoundReport), Error> {
        let other = open(self.replica, self.config)?;
        let options = CopyOptions {
            backup: None,
            rules: other.rules,
            private: round.private,
            now_micros: jiff::Timestamp::now().as_microsecond(),
        };
        let copied = copy(round.first, &other.repository, &options, round.steps)?;
        let keys = host::keys::trusted(&self.instance.keys(), round.first)?;
        crate::thinning::follow(&other.repository, &keys)?;
        let expired = round.log.map(|log| self.expire(&other, round, log));
        let report = RoundReport {
            objects: copied.objects,
            bytes: copied.bytes,
            not_expired: expired.and_then(Result::err),
        };
        Ok((copied, report))
    }

    /// By its own rules, and on record before anything goes, as in the first repository.
    fn expire(
        &self,
        other: &ReplicaRepository,
        round: &Round<'_>,
        log: &Log<'_>,
    ) -> Result<(), Error> {
        let (to, rules) = (&other.repository, &other.rules);
        let said = expiry::expire(to, round.private, None, rules, round.steps, log)?;
        tracing::info!(repository = self.name, said, "expired by its own rules");
        Ok(())
    }
}

fn write(path: &Path, told: &BTreeMap<String, CopyStatus>) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(told)
        .map_err(|error| Error::file("cannot write", path)(error.into()))?;
    Ok(write_whole(path, &text, 0o600)?)
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, sync::Arc};

    use repository::store::{MemoryStore, Store};

    use super::*;
    use host::{record::Event, runtime::wait};

    #[test]
    fn nothing_goes_from_a_further_repository_before_it_is_on_record() {
        let folder = tempfile::tempdir().unwrap();
        let settings = "[repositories.far]\npath = \"/nowhere\"\n";
        std::fs::write(folder.path().join("bre.toml"), settings).unwrap();
        let config = Config::read(None, folder.path()).unwrap().backup;
        let instance = Instance::at(folder.path()).unwrap();
        let board = CopyBoard::open(&instance, &config);
        let copier = Copier {
            name: "far",
            replica: &config.repositories["far"],
            config: &config,
            instance: &instance,
            board: &board,
        };
        let (first, steps) = (MemoryStore::new(), Steps::logged());
        let round = Round {
            first: &Repository::init(Arc::new(first)).unwrap(),
            private: None,
            steps: &steps,
            log: None,
        };
        let asked_by = || Event::by_engine("BackupRun").with("repository", "far");
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
        let log = Log {
            asked_by: asked_by(),
            record: &|event| Ok(wait(event.record(&instance))?),
        };
        copier.expire(&other, &round, &log).unwrap_err();
        assert_eq!(names(), before);

        let entries = RefCell::new(Vec::new());
        let record = |event: &Event| {
            entries
                .borrow_mut()
                .push((format!("{event:?}"), names() == before));
            Ok(())
        };
        let log = Log {
            asked_by: asked_by(),
            record: &record,
        };
        copier.expire(&other, &round, &log).unwrap();
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
