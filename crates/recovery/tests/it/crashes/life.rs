//! Lives of one machine, told by a seed: it streams, backs up, expires, rotates its key, restores and stops at some
//! write; then the next life opens what is left and continues. Meanwhile its store is full for a while, refuses calls,
//! lists what was; its clock jumps.

mod snapshots;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use repository::retention::{Clock, DAY_MICROS, HOUR_MICROS, Rules, decide, execute};
use repository::{
    Error, Progress, Repository, Result,
    backup::{
        BackupFacts, BackupKind, BackupOptions, BackupState, BackupStop, BackupWriter,
        RestoreTestRecord, catalogue, new_backup_id, put_restore_test,
    },
    copying::{CopyOptions, copy},
    keys::{ChunkIdKey, RecipientPrivate, retire, rewrap},
    store::{LockMode, LockPolicy, MemoryStore, Store},
    wal::{WalReader, WalWriter},
};

use super::dice::{Dice, noise};
use super::disk::{Disk, Trouble};
use super::model::{CheckCounts, Files, Model, ModelBackup, wal};

pub(super) const SEGMENT: u64 = 1 << 16;
const SYSTEM: u64 = 7_301_234_567_890_123_456;
const BEGINNING: i64 = 1_700_000_000_000_000;
const PAGE: usize = 8192;
/// A life's first writes are its stream's; few lives come beyond this many.
const WRITES_IN_A_LIFE: usize = 60;

/// This machine's clock against the others'; mostly right.
const CLOCK_JUMPS: [i64; 10] = [
    0,
    0,
    0,
    0,
    0,
    0,
    -400 * DAY_MICROS,
    -HOUR_MICROS / 6,
    HOUR_MICROS / 6,
    400 * DAY_MICROS,
];

/// The guide's, for weeks that pass in a hundred steps.
pub(super) const RULES: Rules = Rules {
    full_micros: 3 * DAY_MICROS,
    incremental_micros: DAY_MICROS,
    wal_micros: DAY_MICROS,
    schema_micros: 3 * DAY_MICROS,
    snapshot_micros: 3 * DAY_MICROS,
    cache_micros: DAY_MICROS,
    secrets_micros: DAY_MICROS,
    grace_micros: 6 * HOUR_MICROS,
    wal_at_once: false,
};

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct LifeReport {
    pub(super) crashes: u64,
    pub(super) writes: u64,
    pub(super) backups_called_complete: u64,
    pub(super) incrementals: u64,
    pub(super) objects_expired: u64,
    pub(super) rotations: u64,
    pub(super) restores_killed: u64,
    pub(super) clocks_refused: u64,
    /// Operations that a store in trouble ended, and that were begun again.
    pub(super) repeated: u64,
    pub(super) backups_read: u64,
    pub(super) backups_copied: u64,
    pub(super) locked: u64,
    pub(super) wal_bytes_read: u64,
    pub(super) snapshots: u64,
    /// That refer to packs of earlier ones.
    pub(super) snapshots_shared: u64,
    pub(super) snapshots_read: u64,
    pub(super) snapshots_copied: u64,
}

impl LifeReport {
    pub(super) fn add(&mut self, other: Self) {
        self.crashes += other.crashes;
        self.writes += other.writes;
        self.backups_called_complete += other.backups_called_complete;
        self.incrementals += other.incrementals;
        self.objects_expired += other.objects_expired;
        self.rotations += other.rotations;
        self.restores_killed += other.restores_killed;
        self.clocks_refused += other.clocks_refused;
        self.repeated += other.repeated;
        self.backups_read += other.backups_read;
        self.backups_copied += other.backups_copied;
        self.locked += other.locked;
        self.wal_bytes_read += other.wal_bytes_read;
        self.snapshots += other.snapshots;
        self.snapshots_shared += other.snapshots_shared;
        self.snapshots_read += other.snapshots_read;
        self.snapshots_copied += other.snapshots_copied;
    }
}

/// What outlives a crash beside the repository: keys, the local cache, and the server with its data.
struct World {
    dice: Dice,
    memory: MemoryStore,
    /// A second repository.
    other: MemoryStore,
    disk: Disk,
    folder: tempfile::TempDir,
    chunk_key: ChunkIdKey,
    /// Opens everything.
    key: RecipientPrivate,
    /// A rotation under way: the next key, and whether everything is sealed to it.
    next_key: Option<RecipientPrivate>,
    old_key: Option<RecipientPrivate>,
    /// All there ever were: a copy opens with the key of its day until the next copy.
    keys: Vec<RecipientPrivate>,
    files: Files,
    /// Of the server: WAL up to here exists.
    written: u64,
    model: Model,
    snapshots: snapshots::Snapshots,
    seen: LifeReport,
    restores: u64,
    log: bool,
}

/// All of one seed. `Err` says what was broken.
pub(super) fn run(seed: u64) -> std::result::Result<LifeReport, String> {
    let mut world = World::new(seed);
    let lives = 4 + world.dice.below(4);
    for number in 1..=lives as u64 {
        let disk = world.next_life(seed, number, true);
        let ended = world.live(&disk);
        if !disk.is_down() {
            ended.map_err(|error| format!("without a crash: {error}"))?;
        } else {
            world.seen.crashes += 1;
        }
        world.check(&disk)?;
    }
    // The last one ends by itself; whatever was interrupted is gone on with.
    let disk = world.next_life(seed, 0, false);
    world
        .live(&disk)
        .and_then(|()| world.rotate(&Repository::open(Arc::new(disk.clone()))?))
        .map_err(|error| format!("the last life: {error}"))?;
    world.check(&disk)?;
    world.seen.writes = world.disk.writes();
    Ok(world.seen)
}

impl World {
    fn new(seed: u64) -> Self {
        let dice = Dice::new(seed);
        let memory = MemoryStore::new();
        memory.set_clock(Some(BEGINNING));
        memory.set_zeros_ahead(*Dice::apart(seed, 0xA4EA_D000).pick(&[0, 0, 700, 9_000, 70_000]));
        if dice.percent(30) {
            let days = 1 + u16::try_from(dice.below(3)).unwrap();
            let mode = LockMode::Compliance;
            memory.set_lock(Some(LockPolicy { mode, days }));
        }
        let first = RecipientPrivate::generate().unwrap();
        let other = MemoryStore::new();
        other.set_clock(Some(BEGINNING));
        Repository::init(Arc::new(other.clone())).unwrap();
        Repository::init(Arc::new(memory.clone())).unwrap();
        let memory_folder = std::path::Path::new("/dev/shm");
        let folder = match memory_folder.is_dir() {
            true => tempfile::tempdir_in(memory_folder).unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        let mut files = Files::new();
        files.insert("global/pg_control".to_owned(), control_file());
        for number in 0..3 {
            let pages = 1 + dice.below(6);
            files.insert(
                format!("base/1/{}", 16384 + number),
                noise(number, 0, pages * PAGE),
            );
        }
        Self {
            disk: Disk::new(Arc::new(memory.clone()), dice.clone(), dice.percent(60)),
            dice,
            memory,
            other,
            folder,
            chunk_key: ChunkIdKey::generate().unwrap(),
            key: first.clone(),
            next_key: None,
            old_key: None,
            keys: vec![first],
            files,
            written: SEGMENT,
            model: Model {
                acknowledged: SEGMENT,
                now: BEGINNING,
                ..Model::default()
            },
            snapshots: snapshots::Snapshots::default(),
            seen: LifeReport::default(),
            restores: 0,
            log: std::env::var_os("LOG").is_some(),
        }
    }

    /// Each life has chances of its own: how far a thread came before the machine stopped must not change the next one.
    fn next_life(&mut self, seed: u64, number: u64, stops: bool) -> Disk {
        self.dice = Dice::apart(seed, 2 * number);
        let stops_at = stops.then(|| self.dice.below(WRITES_IN_A_LIFE) as u64);
        let of_the_disk = Dice::apart(seed, 2 * number + 1);
        let trouble = if stops {
            self.trouble()
        } else {
            Trouble::default()
        };
        self.disk.next_life(stops_at, trouble, of_the_disk)
    }

    /// Half of all lives have none.
    fn trouble(&self) -> Trouble {
        let mut trouble = Trouble::default();
        match self.dice.below(8) {
            0 | 1 => trouble.refused_percent = 1 + self.dice.below(8),
            2 => {
                let from = self.dice.below(WRITES_IN_A_LIFE) as u64;
                trouble.full = from..from + 1 + self.dice.below(10) as u64;
            }
            3 => trouble.stale = true,
            _ => {}
        }
        trouble
    }

    /// With LOG=1: for one seed by itself.
    fn tell(&self, what: impl Fn() -> String) {
        if self.log {
            println!("{:#x}: {}", self.model.acknowledged, what());
        }
    }

    fn pass(&mut self, micros: i64) {
        self.model.now += micros;
        self.memory.set_clock(Some(self.model.now));
        self.other.set_clock(Some(self.model.now));
        self.disk.settle();
    }

    /// Until it has done enough, or the machine stops. As a supervisor does it, what the store's trouble ended is begun
    /// again.
    fn live(&mut self, disk: &Disk) -> Result<()> {
        let mut stream = None;
        for _ in 0..8 + self.dice.below(12) {
            let hours = i64::try_from(self.dice.below(9)).unwrap();
            self.pass(hours * HOUR_MICROS + 1);
            let what = self.dice.below(24);
            self.tell(|| format!("op {what} at {}", self.model.now));
            let troubles = disk.troubles();
            if let Err(error) = self.step(disk, &mut stream, what) {
                if disk.is_down() || disk.troubles() == troubles {
                    return Err(error);
                }
                self.tell(|| format!("  ended by trouble: {error}"));
                self.seen.repeated += 1;
                stream = None;
            }
        }
        let troubles = disk.troubles();
        match stream.map_or(Ok(()), WalWriter::finish) {
            Err(error) if disk.is_down() || disk.troubles() == troubles => Err(error),
            _ => Ok(()),
        }
    }

    fn step(&mut self, disk: &Disk, open: &mut Option<WalWriter>, what: usize) -> Result<()> {
        let repository = Repository::open(Arc::new(disk.clone()))?;
        let stream = match open {
            Some(stream) => stream,
            None => open.insert(self.attach(&repository)?),
        };
        match what {
            0..=5 => self.append(stream),
            6 => self.copy(disk, &repository),
            7..=9 => self.backup(&repository, stream, BackupKind::Full),
            10..=12 => self.backup(&repository, stream, BackupKind::Incremental),
            13..=15 => self.expire(&repository),
            16 => {
                open.take().map_or(Ok(()), WalWriter::finish)?;
                self.rotate(&repository)
            }
            17 => WalReader::new(&repository, &self.key)
                .compact(self.key.public())
                .map(drop),
            18 => self.prove(&repository),
            20..=22 => self.snapshot(&repository),
            23 => self.verify_snapshot(&repository),
            _ => self.restore(&repository),
        }
    }

    /// As the real stream does: again from the start of the segment up to which the repository has everything.
    fn attach(&self, repository: &Repository) -> Result<WalWriter> {
        let start = self.model.acknowledged / SEGMENT * SEGMENT;
        let name = format!("s{:x}", self.dice.below(1 << 30));
        let public = self.key.public();
        WalWriter::new(repository, public, SYSTEM, 1, SEGMENT, &name, start)
    }

    fn server_writes(&mut self, to: u64) {
        self.written = to;
        self.model.moments.push((self.model.now, to));
    }

    fn append(&mut self, stream: &mut WalWriter) -> Result<()> {
        let more = 1 + self.dice.below(SEGMENT as usize) as u64;
        self.server_writes(self.written + more);
        self.send(stream)
    }

    /// All that the server has, in pieces. A segment is sealed by another thread: waiting for it keeps the order of
    /// writes, and with it the moment of the crash, the same in every run.
    fn send(&mut self, stream: &mut WalWriter) -> Result<()> {
        while stream.durable_lsn() < self.written {
            let from = stream.durable_lsn();
            let to = (from + 1 + self.dice.below(SEGMENT as usize / 2) as u64).min(self.written);
            // Before: a machine that stops during the call may have written it, and then the window counts from now.
            self.model.confirmed_at = self.model.now;
            stream.append(from, &wal(from, to), self.model.now)?;
            self.model.acknowledged = self.model.acknowledged.max(to);
            while stream.seal_status().pending > 0 && stream.seal_status().last_error.is_none() {
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    fn copy(&mut self, disk: &Disk, repository: &Repository) -> Result<()> {
        let other = disk.beside(Arc::new(self.other.clone()));
        let options = CopyOptions {
            backup: None,
            rules: RULES,
            private: None,
            now_micros: self.model.now,
        };
        let done = copy(
            repository,
            &Repository::open(Arc::new(other))?,
            &options,
            &(),
        )?;
        self.seen.backups_copied += done.backups;
        self.seen.snapshots_copied += done.snapshots;
        Ok(())
    }

    fn change_files(&mut self) {
        let paths: Vec<String> = self.files.keys().cloned().collect();
        let path = self.dice.pick(&paths).clone();
        let page = noise(self.dice.below(1 << 30) as u64, 0, PAGE);
        match self.files.get_mut(&path) {
            Some(bytes) if path.starts_with("base/") => match self.dice.below(4) {
                0 => bytes.extend(&page),
                1 if bytes.len() > PAGE => bytes.truncate(bytes.len() - PAGE),
                _ => {
                    let at = self.dice.below(bytes.len() / PAGE) * PAGE;
                    bytes[at..at + PAGE].copy_from_slice(&page);
                }
            },
            _ => drop(self.files.insert(format!("base/1/{}", self.written), page)),
        }
    }

    fn backup(
        &mut self,
        repository: &Repository,
        stream: &mut WalWriter,
        kind: BackupKind,
    ) -> Result<()> {
        self.change_files();
        self.send(stream)?;
        let (start, began) = (self.written, self.model.now);
        let label = noise(7, start, 40);
        self.files.insert("backup_label".to_owned(), label);
        let facts = BackupFacts {
            id: new_backup_id(began)?,
            kind,
            parent: None,
            label: "crashes".to_owned(),
            system_identifier: SYSTEM,
            timeline: 1,
            start_lsn: start,
            pg_version: 150_008,
            wal_segment_bytes: SEGMENT,
            started_at_micros: began,
        };
        let options = BackupOptions {
            threads: 1,
            cache: Some(self.folder.path().join("cache")),
            ..BackupOptions::default()
        };
        let (public, id) = (self.key.public(), facts.id.clone());
        let writer = BackupWriter::begin_with(repository, public, &self.chunk_key, facts, options)?;
        self.tell(|| format!("backup {id} {:?} from {start:#x}", writer.kind()));
        for (path, bytes) in &self.files {
            writer.blob(path, 0o600, began, bytes)?;
        }
        // Another job of the same host.
        let expired_meanwhile = self.dice.percent(20);
        if expired_meanwhile {
            self.expire(repository)?;
        }
        self.pass(HOUR_MICROS / 4);
        let stop = start + 1 + self.dice.below(2 * SEGMENT as usize) as u64;
        let taken = ModelBackup {
            start,
            stop,
            at: self.model.now,
            is_full: writer.kind() == BackupKind::Full,
            is_called_complete: false,
            files: self.files.clone(),
        };
        self.server_writes(stop);
        self.seen.incrementals += u64::from(!taken.is_full);
        // Stopped during the last write, it may exist; then it must be whole.
        self.model.taken.insert(id.clone(), taken);
        let finished = writer.finish(BackupStop {
            stop_lsn: stop,
            finished_at_micros: self.model.now,
            ..BackupStop::default()
        });
        if expired_meanwhile && matches!(finished, Err(Error::Missing { .. })) {
            // Refused, because it refers to what just expired: the next one stores it again.
            self.model.taken.remove(&id);
            return Ok(());
        }
        finished?;
        self.send(stream)?;
        let complete = state_of(repository, &id)? == Some(BackupState::Complete);
        if !complete && self.disk.lists_late() {
            return Ok(());
        }
        assert!(complete, "{id} has all its WAL");
        if let Some(taken) = self.model.taken.get_mut(&id) {
            taken.is_called_complete = true;
            self.seen.backups_called_complete += 1;
        }
        Ok(())
    }

    fn expire(&mut self, repository: &Repository) -> Result<()> {
        let key = self.dice.percent(50).then_some(&self.key);
        let now = self.model.now;
        let jump = *self.dice.pick(&CLOCK_JUMPS);
        let clock = Clock {
            now_micros: now + jump,
            store_micros: now,
            postgres_micros: Some(now),
        };
        let plan = match (
            decide(repository, key, &RULES, || Ok::<_, Error>(clock)),
            jump,
        ) {
            (plan, 0) => plan?,
            (Err(_), _) => {
                self.seen.clocks_refused += 1;
                return Ok(());
            }
            (Ok(_), _) => {
                let what = format!("expiry took a clock that is {jump} microseconds away");
                return Err(Error::Input(what));
            }
        };
        for decision in &plan.decisions {
            self.tell(|| format!("  {decision:?}"));
        }
        self.model.wal_may_be_gone = true;
        if self.dice.percent(30) {
            // Decided, and carried out later.
            self.pass(HOUR_MICROS);
        }
        let done = execute(repository, &plan, &())?;
        self.seen.objects_expired += done.deleted;
        let locked = plan
            .decisions
            .iter()
            .filter(|d| d.reason.contains("locked until"));
        self.seen.locked += locked.count() as u64;
        Ok(())
    }

    /// As an operator does it: the new key made once and kept, the rotation repeated until it is through.
    fn rotate(&mut self, repository: &Repository) -> Result<()> {
        if let Some(old) = &self.old_key {
            // A late listing hid a data key from the rotation: refused, and told to repeat it.
            if retire(repository, &old.public().id(), &self.key, &()).is_err() {
                rewrap(repository, old, &self.key, &())?;
                retire(repository, &old.public().id(), &self.key, &())?;
            }
            self.old_key = None;
            self.seen.rotations += 1;
            return Ok(());
        }
        let next = match &self.next_key {
            Some(next) => next.clone(),
            None => RecipientPrivate::generate()?,
        };
        self.keys.push(next.clone());
        self.next_key = Some(next.clone());
        rewrap(repository, &self.key, &next, &())?;
        self.next_key = None;
        self.old_key = Some(std::mem::replace(&mut self.key, next));
        Ok(())
    }

    fn prove(&self, repository: &Repository) -> Result<()> {
        let Some(id) = self.live_backup(repository)? else {
            return Ok(());
        };
        let proof = RestoreTestRecord {
            proved_at_micros: self.model.now,
            passed: self.dice.percent(80),
            details: Default::default(),
        };
        put_restore_test(repository, &id, &proof).map(drop)
    }

    fn live_backup(&self, repository: &Repository) -> Result<Option<String>> {
        let mut ids: Vec<String> = catalogue(repository)?
            .backups
            .into_iter()
            .filter(|backup| backup.state == BackupState::Complete)
            .map(|backup| backup.id)
            .collect();
        ids.sort();
        Ok((!ids.is_empty()).then(|| self.dice.pick(&ids).clone()))
    }

    fn restore(&mut self, repository: &Repository) -> Result<()> {
        let Some(id) = self.live_backup(repository)? else {
            return Ok(());
        };
        self.restores += 1;
        let folder = self
            .folder
            .path()
            .join(format!("restored-{}", self.restores));
        let steps = Steps(AtomicUsize::new(self.dice.below(12)));
        let outcome = self
            .model
            .check_restore(repository, &self.key, &id, &folder, &steps);
        self.seen.restores_killed += u64::from(steps.cancelled());
        let _ = std::fs::remove_dir_all(&folder);
        outcome.map_err(|error| Error::Input(error.to_string()))
    }

    /// After each life, by somebody who has the keys and reaches the disk directly.
    fn check(&mut self, disk: &Disk) -> std::result::Result<(), String> {
        let repository =
            Repository::open(Arc::new(self.memory.clone())).map_err(|e| e.to_string())?;
        let checked = self.model.check(&repository, &self.key);
        self.tell(|| format!("a life ended: {}", disk.last_words()));
        if checked.is_err() {
            for object in self.memory.list("").unwrap_or_default() {
                self.tell(|| format!("  {object:?}"));
            }
            self.tell(|| format!("{:#?}", repository::wal::wal_inventory(&repository)));
        }
        let CheckCounts { backups, wal_bytes } = checked
            .map_err(|error| format!("{error} (the machine stopped at: {})", disk.last_words()))?;
        let other = Repository::open(Arc::new(self.other.clone())).map_err(|e| e.to_string())?;
        let copies = self.model.check_copies(&other, &self.keys);
        copies.map_err(|error| {
            format!(
                "the copy: {error} (the machine stopped at: {})",
                disk.last_words()
            )
        })?;
        let stopped = |error| format!("{error} (the machine stopped at: {})", disk.last_words());
        let checked = self.snapshots.check(&repository, &self.key, self.model.now);
        self.seen.snapshots_read += checked.map_err(stopped)?;
        let copies = self.snapshots.check_all(&other, &self.keys);
        copies.map_err(|error| stopped(format!("the copy: {error}")))?;
        self.seen.backups_read += backups;
        self.seen.wal_bytes_read += wal_bytes;
        Ok(())
    }
}

fn state_of(repository: &Repository, id: &str) -> Result<Option<BackupState>> {
    let catalogue = catalogue(repository)?;
    let found = catalogue.backups.iter().find(|backup| backup.id == id);
    Ok(found.map(|backup| backup.state))
}

/// Kills what asks it at the chosen step.
struct Steps(AtomicUsize);

impl Progress for Steps {
    fn cancelled(&self) -> bool {
        let left = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| {
                left.checked_sub(1)
            });
        left.is_err()
    }
}

/// As much of a `pg_control` as tells whose it is.
fn control_file() -> Vec<u8> {
    let mut bytes = vec![0; PAGE];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &SYSTEM.to_ne_bytes());
    for (at, word) in [
        (8, 1300_u32),
        (16, 6),
        (216, 8192),
        (220, 131_072),
        (224, 8192),
        (228, 1 << 20),
        (252, 1),
    ] {
        put(at, &word.to_ne_bytes());
    }
    let check = crc32c::crc32c(&bytes[..288]);
    bytes[288..292].copy_from_slice(&check.to_ne_bytes());
    bytes
}
