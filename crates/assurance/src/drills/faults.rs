//! Further faults around the loss: each begins under load, and a fault of the store still lasts when the recovery
//! begins.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use postgres_physical::server::processes::children_of;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

use super::{DrillError, proxy::Proxy, system::kill};

/// Between two kills: time enough to be up again, and to be hit again while still at it.
const KILL_PAUSE_MILLIS: std::ops::Range<u64> = 150..900;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A process that the engine started, or a child of one, gets SIGKILL, drawn at random, again and again until the
    /// loss.
    Kills,
    /// The repository cannot be reached.
    RepositoryAway,
    /// S3 only: 503 on every other connection, the others are cut.
    StoreErrors,
    /// S3 only: connections end amid what they carry.
    StoreCuts,
    /// S3 only: a trickle.
    StoreSlow,
}

impl Fault {
    pub const ALL: [(&'static str, Self); 5] = [
        ("kills", Self::Kills),
        ("repository-away", Self::RepositoryAway),
        ("store-errors", Self::StoreErrors),
        ("store-cuts", Self::StoreCuts),
        ("store-slow", Self::StoreSlow),
    ];

    /// It cannot be made in a folder.
    #[must_use]
    pub fn needs_a_server(self) -> bool {
        matches!(self, Self::StoreErrors | Self::StoreCuts | Self::StoreSlow)
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let found = Self::ALL.iter().find(|(_, fault)| fault == self);
        f.write_str(found.map_or("", |(name, _)| name))
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, fault)| fault).ok_or_else(|| {
            let names = Self::ALL.map(|(name, _)| name).join(", ");
            format!("there are: {names}")
        })
    }
}

/// A fault that is on. Ends when dropped, or a while after [`Trouble::end_in`].
#[derive(Debug)]
pub(super) struct Trouble {
    end: Option<Sender<Duration>>,
    thread: Option<JoinHandle<()>>,
}

/// Where a fault strikes.
#[derive(Debug, Clone)]
pub(super) struct Victim {
    pub(super) engine_pid: i32,
    pub(super) repository: PathBuf,
    pub(super) proxy: Option<Arc<Proxy>>,
    pub(super) seed: u64,
}

impl Trouble {
    pub(super) fn begin(fault: Fault, victim: Victim) -> Result<Self, DrillError> {
        let (end, ended) = channel();
        let thread = match (fault, &victim.proxy) {
            (Fault::Kills, _) => {
                std::thread::spawn(move || kill_at_random(victim.engine_pid, victim.seed, &ended))
            }
            (_, Some(proxy)) => {
                proxy.begin(fault);
                let proxy = Arc::clone(proxy);
                std::thread::spawn(move || {
                    wait_for_end(&ended);
                    proxy.end();
                })
            }
            (_, None) => take_away(&victim.repository, ended)?,
        };
        Ok(Self {
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// Returns at once; the fault stays for that long.
    pub(super) fn end_in(mut self, lingers: Duration) -> JoinHandle<()> {
        if let Some(end) = self.end.take() {
            let _ = end.send(lingers);
        }
        self.thread
            .take()
            .unwrap_or_else(|| std::thread::spawn(|| ()))
    }
}

impl Drop for Trouble {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn wait_for_end(ended: &Receiver<Duration>) {
    if let Ok(lingers) = ended.recv() {
        std::thread::sleep(lingers);
    }
}

/// As when its disk is not mounted.
fn take_away(repository: &Path, ended: Receiver<Duration>) -> Result<JoinHandle<()>, DrillError> {
    // Beside the instance's folder: what is in that burns.
    let away = repository
        .parent()
        .unwrap_or(repository)
        .with_extension("away");
    let here = repository.to_owned();
    std::fs::rename(&here, &away).map_err(DrillError::file("cannot take away", &here))?;
    Ok(std::thread::spawn(move || {
        wait_for_end(&ended);
        let _ = std::fs::rename(&away, &here);
    }))
}

fn kill_at_random(engine: i32, seed: u64, ended: &Receiver<Duration>) {
    let mut random = StdRng::seed_from_u64(seed);
    loop {
        let pause = Duration::from_millis(random.random_range(KILL_PAUSE_MILLIS));
        match ended.recv_timeout(pause) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return,
        }
        let mut all = children_of(engine);
        for child in all.clone() {
            all.extend(children_of(child));
        }
        if !all.is_empty() {
            let _ = kill(all[random.random_range(0..all.len())]);
        }
    }
}
