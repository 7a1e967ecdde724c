//! A store whose machine stops at a chosen write. What was acknowledged is on it; of the write that was under way there
//! may be all, nothing, or what a file system may keep of an append: a part, or its length with sectors that never
//! arrived. What another thread was writing may have arrived even so. Before that it may be full for a while, refuse
//! calls that it carried out, or list what was.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use repository::{
    StoreError,
    store::{Appender, Lock, ObjectInfo, Store},
};

use super::dice::Dice;

const SECTOR: usize = 512;
/// A listing is late by at most so many puts and deletes.
const LATE: usize = 3;

/// What goes wrong in a life besides its end.
#[derive(Debug, Clone, Default)]
pub(super) struct Trouble {
    /// Of a hundred calls so many end as a store's 500, 503 or cut connection does: nobody knows whether the write
    /// arrived.
    pub(super) refused_percent: usize,
    /// Writes that find no space.
    pub(super) full: Range<u64>,
    /// Listings lag behind.
    pub(super) stale: bool,
}

#[derive(Debug)]
struct Machine {
    dice: Dice,
    /// Handles of an earlier life reach nothing any more.
    life: u64,
    writes: u64,
    stops_at: Option<u64>,
    /// Who was writing when it stopped.
    down: Option<ThreadId>,
    /// The write under way when it stopped.
    last_words: String,
    trouble: Trouble,
    put_lately: VecDeque<String>,
    deleted_lately: VecDeque<ObjectInfo>,
}

/// One life's way to the store.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    inner: Arc<dyn Store>,
    machine: Arc<Mutex<Machine>>,
    life: u64,
    /// Of all lives.
    written: Arc<AtomicU64>,
    troubles: Arc<AtomicU64>,
    appends: bool,
}

enum Write {
    Done,
    /// It fails, and may have arrived.
    Unknown,
    /// It fails, and has not arrived.
    Full,
    /// The machine stops during it.
    Last,
    /// It was under way in another thread when the machine stopped.
    Beside,
}

impl Disk {
    /// `appends`: a folder, whose files grow; otherwise as S3, whose objects do not.
    pub(super) fn new(inner: Arc<dyn Store>, dice: Dice, appends: bool) -> Self {
        let machine = Machine {
            dice,
            life: 0,
            writes: 0,
            stops_at: None,
            down: None,
            last_words: String::new(),
            trouble: Trouble::default(),
            put_lately: VecDeque::new(),
            deleted_lately: VecDeque::new(),
        };
        Self {
            inner,
            machine: Arc::new(Mutex::new(machine)),
            life: 0,
            written: Arc::default(),
            troubles: Arc::default(),
            appends,
        }
    }

    /// Another store that the same machine writes to, and stops with.
    pub(super) fn beside(&self, inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            ..self.clone()
        }
    }

    /// The machine starts again; it stops at the write with this number, from 0.
    /// It has chances of its own: threads write, and nobody else's must depend on which of them came first.
    pub(super) fn next_life(&self, stops_at: Option<u64>, trouble: Trouble, dice: Dice) -> Self {
        let mut machine = self.machine();
        machine.life += 1;
        machine.dice = dice;
        machine.writes = 0;
        machine.stops_at = stops_at;
        machine.down = None;
        machine.trouble = trouble;
        Self {
            life: machine.life,
            ..self.clone()
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.machine().down.is_some()
    }

    pub(super) fn last_words(&self) -> String {
        self.machine().last_words.clone()
    }

    /// Of all lives.
    pub(super) fn writes(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Calls that were refused, found no space or saw an old listing, of all lives.
    pub(super) fn troubles(&self) -> u64 {
        self.troubles.load(Ordering::Relaxed)
    }

    pub(super) fn lists_late(&self) -> bool {
        self.machine().trouble.stale
    }

    /// Time passes: listings catch up.
    pub(super) fn settle(&self) {
        let mut machine = self.machine();
        machine.put_lately.clear();
        machine.deleted_lately.clear();
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(name: &str, what: &str) -> StoreError {
        StoreError::Io {
            store: "a store in trouble".to_owned(),
            object: name.to_owned(),
            source: std::io::Error::other(what.to_owned()),
        }
    }

    fn gone(name: &str) -> StoreError {
        Self::failed(name, "the machine stopped")
    }

    fn refused(name: &str) -> StoreError {
        Self::failed(name, "503, slow down")
    }

    fn full(&self, name: &str) -> StoreError {
        StoreError::Full {
            store: self.describe(),
            object: name.to_owned(),
            wanted: None,
        }
    }

    fn trouble(&self) {
        self.troubles.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self, name: &str) -> Result<(), StoreError> {
        let machine = self.machine();
        if machine.down.is_some() || machine.life != self.life {
            return Err(Self::gone(name));
        }
        if machine.dice.percent(machine.trouble.refused_percent) {
            self.trouble();
            return Err(Self::refused(name));
        }
        Ok(())
    }

    fn write(&self, what: &str, name: &str) -> Result<Write, StoreError> {
        let mut machine = self.machine();
        let me = std::thread::current().id();
        if machine.life != self.life {
            return Err(Self::gone(name));
        }
        if let Some(stopper) = machine.down {
            let beside = stopper != me && what == "put";
            return if beside {
                Ok(Write::Beside)
            } else {
                Err(Self::gone(name))
            };
        }
        self.written.fetch_add(1, Ordering::Relaxed);
        let number = machine.writes;
        machine.writes += 1;
        if machine.stops_at == Some(number) {
            machine.down = Some(me);
            machine.last_words = format!("{what} {name}");
            return Ok(Write::Last);
        }
        if machine.trouble.full.contains(&number) && what != "delete" {
            self.trouble();
            return Ok(Write::Full);
        }
        if machine.dice.percent(machine.trouble.refused_percent) {
            self.trouble();
            return Ok(Write::Unknown);
        }
        Ok(Write::Done)
    }

    fn coin(&self) -> bool {
        self.machine().dice.percent(50)
    }

    fn dice(&self) -> Dice {
        self.machine().dice.clone()
    }

    fn put_now(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.inner.put(name, bytes)?;
        let mut machine = self.machine();
        machine.put_lately.push_back(name.to_owned());
        if machine.put_lately.len() > LATE {
            machine.put_lately.pop_front();
        }
        Ok(())
    }

    fn delete_now(&self, name: &str) -> Result<(), StoreError> {
        let listed = self.inner.list(name)?;
        self.inner.delete(name)?;
        let mut machine = self.machine();
        let was = listed.into_iter().find(|object| object.name == name);
        machine.deleted_lately.extend(was);
        if machine.deleted_lately.len() > LATE {
            machine.deleted_lately.pop_front();
        }
        Ok(())
    }

    /// As it was some writes ago.
    fn old(&self, prefix: &str, mut objects: Vec<ObjectInfo>) -> Vec<ObjectInfo> {
        let machine = self.machine();
        let before = objects.clone();
        objects.retain(|object| {
            !(machine.put_lately.contains(&object.name) && machine.dice.percent(50))
        });
        for object in &machine.deleted_lately {
            let here = objects.iter().any(|other| other.name == object.name);
            if object.name.starts_with(prefix) && !here && machine.dice.percent(50) {
                objects.push(object.clone());
            }
        }
        objects.sort_by(|one, other| one.name.cmp(&other.name));
        if objects != before {
            self.trouble();
        }
        objects
    }
}

impl Store for Disk {
    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let what = self.write("put", name)?;
        // Renamed into place and not yet acknowledged, or not.
        if matches!(what, Write::Unknown | Write::Last | Write::Beside) && self.coin() {
            let _ = self.put_now(name, bytes);
        }
        match what {
            Write::Done => self.put_now(name, bytes),
            Write::Unknown => Err(Self::refused(name)),
            Write::Full => Err(self.full(name)),
            Write::Last | Write::Beside => Err(Self::gone(name)),
        }
    }

    fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.read(name)?;
        self.inner.get(name)
    }

    fn get_range(&self, name: &str, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        self.read(name)?;
        self.inner.get_range(name, offset, len)
    }

    fn size(&self, name: &str) -> Result<u64, StoreError> {
        self.read(name)?;
        self.inner.size(name)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        self.read(prefix)?;
        let objects = self.inner.list(prefix)?;
        let stale = self.machine().trouble.stale;
        Ok(if stale {
            self.old(prefix, objects)
        } else {
            objects
        })
    }

    fn delete(&self, name: &str) -> Result<(), StoreError> {
        let what = self.write("delete", name)?;
        if matches!(what, Write::Unknown | Write::Last) && self.coin() {
            let _ = self.delete_now(name);
        }
        match what {
            Write::Done => self.delete_now(name),
            Write::Unknown => Err(Self::refused(name)),
            Write::Full => Err(self.full(name)),
            Write::Last | Write::Beside => Err(Self::gone(name)),
        }
    }

    fn appender(&self, name: &str) -> Option<Result<Box<dyn Appender>, StoreError>> {
        if !self.appends {
            return None;
        }
        let open = || -> Result<Box<dyn Appender>, StoreError> {
            let begun = self.write("begin", name)?;
            if matches!(begun, Write::Full) {
                return Err(self.full(name));
            }
            let fails = !matches!(begun, Write::Done);
            if fails && self.coin() {
                return Err(Self::gone(name));
            }
            let inner = self.inner.appender(name);
            let inner = inner.unwrap_or_else(|| Err(Self::gone(name)))?;
            if fails {
                return Err(Self::gone(name));
            }
            Ok(Box::new(DiskAppender {
                disk: self.clone(),
                name: name.to_owned(),
                inner,
                end: 0,
            }))
        };
        Some(open())
    }

    fn appends(&self) -> bool {
        self.appends
    }

    fn keep_longer(&self, names: &[String]) -> Result<(), StoreError> {
        self.read("locks")?;
        self.inner.keep_longer(names)
    }

    fn lock_of(&self, name: &str) -> Result<Option<Lock>, StoreError> {
        self.read(name)?;
        self.inner.lock_of(name)
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
    end: usize,
}

impl Appender for DiskAppender {
    fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let what = self.disk.write("append", &self.name)?;
        if matches!(what, Write::Done) {
            self.end += bytes.len();
            return self.inner.append(bytes);
        }
        let mut left = torn(bytes, self.end, &self.disk.dice());
        // Into zeros that lie ahead whole sectors are written, or pages, when a process is killed: no frame misses a
        // few bytes only.
        let ahead = self.disk.inner.size(&self.name).unwrap_or(0) > self.end as u64;
        if ahead && (1..4).contains(&(bytes.len() - left.len())) {
            left = bytes.to_vec();
        }
        let _ = self.inner.append(&left);
        Err(match what {
            Write::Full => self.disk.full(&self.name),
            Write::Unknown => Disk::refused(&self.name),
            _ => Disk::gone(&self.name),
        })
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
