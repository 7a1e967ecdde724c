//! The instance folder: what lies where, who holds it, and how a command finds the running engine.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::{
    error::Error,
    files::{make_folder, write_whole},
    location::Location,
    sockets,
};

const CONTROL_SOCKET: &str = "control.sock";
const JOBS_SOCKET: &str = "jobs.sock";
/// The engine looks once a second whether it can be found.
const FOUND_TIMEOUT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);

/// Paths below `--data DIR`. Everything but `repository` and `keys` may be deleted and comes back.
#[derive(Clone, Debug)]
pub struct Instance {
    root: PathBuf,
}

/// What a running engine leaves for commands to find it; also the line that `bre up --json` prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Running {
    pub url: String,
    pub database_url: String,
    pub cache_url: String,
    pub data_dir: PathBuf,
    pub repository: Location,
    pub pid: u32,
    /// Where the first API key is kept; of `bre up` alone.
    #[serde(default)]
    pub api_key_file: Option<PathBuf>,
}

/// Held as long as the engine runs; the lock goes with the process, however it ends.
#[derive(Debug)]
pub struct Lock {
    _folder: File,
}

impl Instance {
    /// Names the folder without touching it.
    pub fn at(root: &Path) -> Result<Self, Error> {
        let root = std::path::absolute(root).map_err(Error::file("cannot find", root))?;
        Ok(Self { root })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
    pub fn settings(&self) -> PathBuf {
        self.root.join("bre.toml")
    }
    /// Pages of its own, beside those that the engine brings.
    pub fn runbooks(&self) -> PathBuf {
        self.root.join("runbooks")
    }
    pub fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }
    pub fn repository(&self) -> PathBuf {
        self.root.join("repository")
    }
    pub fn postgres(&self) -> PathBuf {
        self.root.join("postgres")
    }
    pub fn redis(&self) -> PathBuf {
        self.root.join("redis")
    }
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }
    /// What the writing host remembers of the repository; may be deleted.
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }
    /// Where restore proofs are made.
    pub fn proofs(&self) -> PathBuf {
        self.root.join("proof")
    }
    /// Where a moment is brought back beside the running database; never where a proof is at work.
    pub fn beside(&self) -> PathBuf {
        self.root.join("beside")
    }
    /// The warm spare; it may lie on another disk.
    pub fn standby(&self) -> PathBuf {
        self.root.join("spare")
    }
    /// The definitions, as a git repository.
    pub fn schema(&self) -> PathBuf {
        self.root.join("schema")
    }
    /// Who may do what, and the network, as a git repository.
    pub fn infrastructure(&self) -> PathBuf {
        self.root.join("infrastructure")
    }
    pub fn infrastructure_lock(&self) -> PathBuf {
        self.keys().join("infrastructure.lock")
    }
    /// What runs on a cluster, as a git repository.
    pub fn application_state(&self) -> PathBuf {
        self.root.join("application_state")
    }
    /// Locks lie with the keys: a lock whose file is deleted while it is held is taken by two, and the keys are what
    /// nobody may delete.
    pub fn schema_lock(&self) -> PathBuf {
        self.keys().join("schema.lock")
    }
    pub fn application_state_lock(&self) -> PathBuf {
        self.keys().join("application_state.lock")
    }
    /// Held by whoever writes or expires backups of this instance.
    pub fn backup_lock(&self) -> PathBuf {
        self.keys().join("backup.lock")
    }
    /// Backups that recoveries could not use.
    pub fn passed_over_file(&self) -> PathBuf {
        self.root.join("passed_over_backups.json")
    }
    /// How the jobs of the plan stand, for commands to read.
    pub fn plan_file(&self) -> PathBuf {
        self.run().join("plan.json")
    }
    /// `DIR/run/control.sock`, or in a short folder when that is too long for a socket.
    pub fn control_socket(&self) -> PathBuf {
        let near = self.run().join(CONTROL_SOCKET);
        if sockets::fits(&near) {
            return near;
        }
        self.socket_folder("control").join(CONTROL_SOCKET)
    }
    /// Where the process that has the plan takes requests for runs.
    pub fn jobs_socket(&self) -> PathBuf {
        let near = self.run().join(JOBS_SOCKET);
        if sockets::fits(&near) {
            return near;
        }
        self.socket_folder("jobs").join(JOBS_SOCKET)
    }
    /// Whose key the running engine seals to, for whoever replaces it.
    fn recipient_file(&self) -> PathBuf {
        self.run().join("recipient.id")
    }
    fn running_file(&self) -> PathBuf {
        self.run().join("instance.json")
    }

    /// Where the unix sockets of a part of it are.
    pub fn socket_folder(&self, part: &str) -> PathBuf {
        sockets::folder(&self.run(), &self.root, part)
    }

    /// Makes the folders that may be missing. PostgreSQL's own user must be able to pass through the root and `run`.
    pub fn make_folders(&self) -> Result<(), Error> {
        for (path, mode) in [
            (self.root.clone(), 0o711),
            (self.keys(), 0o700),
            (self.logs(), 0o711),
            (self.run(), 0o711),
        ] {
            make_folder(&path, mode)?;
        }
        Ok(())
    }

    /// Takes the folder for this process, or says who has it.
    pub fn lock(&self) -> Result<Lock, Error> {
        make_folder(&self.root, 0o711)?;
        let folder = File::open(&self.root).map_err(Error::file("cannot open", &self.root))?;
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { _folder: folder }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let pid = self.announced().map_or_else(
                    || "not known yet".to_owned(),
                    |running| running.pid.to_string(),
                );
                Err(Error::FolderTaken {
                    path: self.root.clone(),
                    pid,
                })
            }
            Err(error) => Err(Error::file("cannot lock", &self.root)(error.into())),
        }
    }

    /// True while some process holds the folder.
    pub fn is_locked(&self) -> bool {
        is_folder_locked(&self.root)
    }

    /// Tells commands where the engine is.
    pub fn announce(&self, running: &Running) -> Result<(), Error> {
        let path = self.running_file();
        let text = serde_json::to_vec_pretty(running)
            .map_err(|error| Error::file("cannot write", &path)(error.into()))?;
        write_whole(&path, &text, 0o600)
    }

    pub fn note_recipient(&self, id: &str) -> Result<(), Error> {
        write_whole(&self.recipient_file(), id.as_bytes(), 0o644)
    }

    pub fn recipient_in_use(&self) -> Option<String> {
        std::fs::read_to_string(self.recipient_file()).ok()
    }

    pub fn withdraw(&self) {
        let _ = std::fs::remove_file(self.running_file());
    }

    /// What an engine that runs, or that was killed, has left here.
    pub fn announced(&self) -> Option<Running> {
        let text = std::fs::read(self.running_file()).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Where the running engine is. One that is found running by its lock and has not said where it is gets a moment:
    /// when its folder `run` was deleted it makes it again.
    pub fn running(&self) -> Result<Running, Error> {
        let began = Instant::now();
        loop {
            if !self.is_locked() {
                let path = self.root.clone();
                return Err(Error::NotRunning { path });
            }
            if let Some(running) = self.announced()
                && self.control_socket().exists()
            {
                return Ok(running);
            }
            if began.elapsed() > FOUND_TIMEOUT {
                return Err(Error::NotAnnounced {
                    path: self.root.clone(),
                    file: self.running_file(),
                });
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// True while some process holds this folder for itself.
pub fn is_folder_locked(path: &Path) -> bool {
    let Ok(folder) = File::open(path) else {
        return false;
    };
    flock(&folder, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_with_the_first_ones_pid() {
        let folder = tempfile::tempdir().unwrap();
        let instance = Instance::at(folder.path()).unwrap();
        instance.make_folders().unwrap();
        let lock = instance.lock().unwrap();
        let running = Running {
            url: String::new(),
            database_url: String::new(),
            cache_url: String::new(),
            data_dir: folder.path().into(),
            repository: folder.path().to_owned().into(),
            pid: 4711,
            api_key_file: None,
        };
        instance.announce(&running).unwrap();
        assert!(instance.is_locked());
        let error = instance.lock().unwrap_err().to_string();
        assert!(error.contains("4711"), "{error}");
        drop(lock);
        assert!(!instance.is_locked());
        instance.lock().unwrap();
    }

    #[test]
    fn a_folder_without_an_engine_says_how_to_start_one() {
        let folder = tempfile::tempdir().unwrap();
        let error = Instance::at(folder.path())
            .unwrap()
            .running()
            .unwrap_err()
            .to_string();
        assert!(error.contains("bre up"), "{error}");
    }
}
