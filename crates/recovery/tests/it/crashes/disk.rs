//! A disk whose machine stops at a chosen write. What was acknowledged is on it; of the write that was under way there may be all,
//! nothing, or what a file system may keep of an append: a part, or its length with sectors that never arrived.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use repository::{Appender, ObjectInfo, Store, StoreError};

use super::dice::Dice;

const SECTOR: usize = 512;

#[derive(Debug)]
struct Machine {
    dice: Dice,
    /// Handles of an earlier life reach nothing any more.
    life: u64,
    writes: u64,
    stops_at: Option<u64>,
    is_down: bool,
    /// The write under way when it stopped.
    last_words: String,
}

/// One life's way to the disk.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    inner: Arc<dyn Store>,
    machine: Arc<Mutex<Machine>>,
    life: u64,
    written: Arc<AtomicU64>,
}

enum Write {
    Done,
    /// The machine stops during it.
    Last,
}

impl Disk {
    pub(super) fn new(inner: Arc<dyn Store>, dice: Dice) -> Self {
        let machine = Machine {
            dice,
            life: 0,
            writes: 0,
            stops_at: None,
            is_down: false,
            last_words: String::new(),
        };
        Self {
            inner,
            machine: Arc::new(Mutex::new(machine)),
            life: 0,
            written: Arc::default(),
        }
    }

    /// The machine starts again; it stops at the write with this number, from 0.
    /// It has chances of its own: threads write, and nobody else's must depend on which of them came first.
    pub(super) fn next_life(&self, stops_at: Option<u64>, dice: Dice) -> Self {
        let mut machine = self.machine();
        machine.life += 1;
        machine.dice = dice;
        machine.writes = 0;
        machine.stops_at = stops_at;
        machine.is_down = false;
        Self {
            life: machine.life,
            inner: Arc::clone(&self.inner),
            machine: Arc::clone(&self.machine),
            written: Arc::clone(&self.written),
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.machine().is_down
    }

    pub(super) fn last_words(&self) -> String {
        self.machine().last_words.clone()
    }

    /// Of all lives.
    pub(super) fn writes(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gone(&self, name: &str) -> StoreError {
        StoreError::Io {
            store: "a machine that stopped".to_owned(),
            object: name.to_owned(),
            source: std::io::Error::other("the machine stopped"),
        }
    }

    fn is_up(&self, name: &str) -> Result<(), StoreError> {
        let machine = self.machine();
        if machine.is_down || machine.life != self.life {
            return Err(self.gone(name));
        }
        Ok(())
    }

    fn write(&self, what: &str, name: &str) -> Result<Write, StoreError> {
        self.is_up(name)?;
        self.written.fetch_add(1, Ordering::Relaxed);
        let mut machine = self.machine();
        let number = machine.writes;
        machine.writes += 1;
        if machine.stops_at != Some(number) {
            return Ok(Write::Done);
        }
        machine.is_down = true;
        machine.last_words = format!("{what} {name}");
        Ok(Write::Last)
    }

    fn coin(&self) -> bool {
        self.dice().percent(50)
    }

    fn dice(&self) -> Dice {
        self.machine().dice.clone()
    }
}

impl Store for Disk {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        match self.write("put", name)? {
            Write::Done => self.inner.put(name, bytes),
            // Renamed into place and not yet acknowledged, or not.
            Write::Last if self.coin() => {
                let _ = self.inner.put(name, bytes);
                Err(self.gone(name))
            }
            Write::Last => Err(self.gone(name)),
        }
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.is_up(name)?;
        self.inner.get(name)
    }

    fn get_range(&self, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        self.is_up(name)?;
        self.inner.get_range(name, offset, len)
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.is_up(name)?;
        self.inner.size(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.is_up(prefix)?;
        self.inner.list(prefix)
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        match self.write("delete", name)? {
            Write::Done => self.inner.delete(name),
            Write::Last if self.coin() => {
                let _ = self.inner.delete(name);
                Err(self.gone(name))
            }
            Write::Last => Err(self.gone(name)),
        }
    }

    fn appender(&self, name: &str) -> Option<Result<Box<dyn Appender>, StoreError>> {
        let open = || -> Result<Box<dyn Appender>, StoreError> {
            let last = matches!(self.write("begin", name)?, Write::Last);
            if last && self.coin() {
                return Err(self.gone(name));
            }
            let inner = self.inner.appender(name);
            let inner = inner.unwrap_or_else(|| Err(self.gone(name)))?;
            if last {
                return Err(self.gone(name));
            }
            Ok(Box::new(DiskAppender {
                disk: self.clone(),
                name: name.to_owned(),
                inner,
            }))
        };
        Some(open())
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[derive(Debug)]
struct DiskAppender {
    disk: Disk,
    name: String,
    inner: Box<dyn Appender>,
}

impl Appender for DiskAppender {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        match self.disk.write("append", &self.name)? {
            Write::Done => self.inner.append(bytes),
            Write::Last => {
                let begin = self.disk.inner.size(&self.name).unwrap_or(0);
                let begin = usize::try_from(begin).unwrap();
                let left = torn(bytes, begin, &self.disk.dice());
                let _ = self.inner.append(&left);
                Err(self.disk.gone(&self.name))
            }
        }
    }
}

/// What a file system may keep of an append at this offset that was never synced.
fn torn(bytes: &[u8], begin: usize, dice: &Dice) -> Vec<u8> {
    let mut left = bytes.to_vec();
    match dice.below(5) {
        // All of it, only nobody was told.
        0 => {}
        1 => left.clear(),
        2 => left.truncate(dice.below(bytes.len() + 1)),
        // Its length, and none of its sectors.
        3 => left.fill(0),
        // Its length, and some of its sectors.
        _ => {
            let mut at = 0;
            while at < left.len() {
                let end = (at + SECTOR - (begin + at) % SECTOR).min(left.len());
                if dice.percent(40) {
                    left[at..end].fill(0);
                }
                at = end;
            }
        }
    }
    left
}
