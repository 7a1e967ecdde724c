//! A cluster and its repository over weeks, told by a seed; and a model of what must be restorable.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use crate::repository::to_json;
use crate::retention::{Clock, DAY_MICROS, HOUR_MICROS, Rules};

pub(super) const BEGINNING: i64 = 1_700_000_000_000_000;

/// xorshift64*: the same on every machine.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % n
    }
}

/// A backup as it was taken.
#[derive(Debug, Clone)]
pub(super) struct ModelBackup {
    pub(super) kind: BackupKind,
    pub(super) timeline: u32,
    pub(super) start: u64,
    pub(super) stop: u64,
    pub(super) at: i64,
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

/// The cluster was at this place at this time: a moment that somebody may want back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) at: i64,
    pub(super) timeline: u32,
    pub(super) lsn: u64,
}

pub(super) struct Cluster {
    pub(super) world: World,
    pub(super) dice: Dice,
    pub(super) rules: Rules,
    pub(super) cache: tempfile::TempDir,
    pub(super) now: i64,
    timeline: u32,
    lsn: u64,
    writer: Option<WalWriter>,
    /// (parent, switch) of each timeline but the first.
    parents: BTreeMap<u32, (u32, u64)>,
    /// WAL that was handed over, without gap, by timeline.
    runs: BTreeMap<u32, Vec<(u64, u64)>>,
    pub(super) moments: Vec<Moment>,
    pub(super) taken: BTreeMap<String, ModelBackup>,
    files: BTreeMap<String, Vec<u8>>,
    pub(super) proven: BTreeMap<String, i64>,
    pub(super) snapshots: super::snapshots::Snapshots,
}

/// The WAL of a timeline: a function of the place, and of the timeline on which it was written.
pub(super) fn wal_on(timeline: u32, from: u64, to: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
    let key = [u8::try_from(timeline).unwrap(); 32];
    let mut xof = blake3::Hasher::new_keyed(&key).finalize_xof();
    xof.set_position(from);
    xof.fill(&mut bytes);
    bytes
}

/// What a backup's cache is fsynced for is not what is tested here.
fn memory_folder() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).unwrap(),
        false => tempfile::tempdir().unwrap(),
    }
}

impl Cluster {
    pub(super) fn new(seed: u64) -> Self {
        let mut cluster = Self {
            world: World::new(),
            dice: Dice::new(seed),
            rules: Rules::default(),
            cache: memory_folder(),
            now: BEGINNING,
            timeline: 1,
            lsn: SEGMENT,
            writer: None,
            parents: BTreeMap::new(),
            runs: BTreeMap::new(),
            moments: Vec::new(),
            taken: BTreeMap::new(),
            files: BTreeMap::new(),
            proven: BTreeMap::new(),
            snapshots: Default::default(),
        };
        cluster.world.memory.set_clock(Some(cluster.now));
        for number in 0..4 {
            let bytes = noise(3 * 8192, number);
            cluster.files.insert(format!("base/{number}"), bytes);
        }
        cluster.attach(SEGMENT);
        cluster
    }

    pub(super) fn pass(&mut self, micros: i64) {
        self.now += micros;
        self.world.memory.set_clock(Some(self.now));
    }

    pub(super) fn clock(&self) -> Clock {
        Clock {
            now_micros: self.now,
            store_micros: self.now,
            postgres_micros: Some(self.now),
        }
    }

    /// A stream from the start of the segment, as the real one does.
    fn attach(&mut self, at: u64) {
        let start = at / SEGMENT * SEGMENT;
        let (world, name) = (&self.world, format!("s{:x}", self.now / HOUR_MICROS));
        let public = world.private.public();
        let writer = WalWriter::new(
            &world.repository,
            public,
            SYSTEM,
            self.timeline,
            SEGMENT,
            &name,
            start,
        );
        self.writer = Some(writer.unwrap());
        let runs = self.runs.entry(self.timeline).or_default();
        if runs.last().is_none_or(|(_, end)| *end < start) {
            runs.push((start, start));
        }
        let again = self.bytes(self.timeline, start, at);
        self.hand_over(start, &again);
        self.lsn = at;
    }

    /// What the server would send: below the switch it is the parent's.
    pub(super) fn bytes(&self, timeline: u32, from: u64, to: u64) -> Vec<u8> {
        match self.parents.get(&timeline) {
            Some((parent, switch)) if from < *switch => {
                let middle = to.min(*switch);
                let mut bytes = self.bytes(*parent, from, middle);
                bytes.extend(wal_on(timeline, middle, to));
                bytes
            }
            _ => wal_on(timeline, from, to),
        }
    }

    fn hand_over(&mut self, at: u64, bytes: &[u8]) {
        let writer = self.writer.as_mut().unwrap();
        writer.append(at, bytes, self.now).unwrap();
        let end = at + bytes.len() as u64;
        let run = self.runs.get_mut(&self.timeline).unwrap();
        let run = run.last_mut().unwrap();
        run.1 = run.1.max(end);
    }

    pub(super) fn write(&mut self, len: u64) {
        let bytes = self.bytes(self.timeline, self.lsn, self.lsn + len);
        self.hand_over(self.lsn, &bytes);
        self.lsn += len;
        self.moments.push(Moment {
            at: self.now,
            timeline: self.timeline,
            lsn: self.lsn,
        });
    }

    pub(super) fn restart_stream(&mut self) {
        self.end_stream();
        self.attach(self.lsn);
    }

    /// Segments are sealed beside the stream; what comes later is as young as the clock then says.
    pub(super) fn wait_until_sealed(&self) {
        let pending = || {
            self.writer
                .as_ref()
                .map_or(0, |it| it.seal_status().pending)
        };
        testkit::eventually("segments are sealed", || (pending() == 0).then_some(()));
    }

    fn end_stream(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.finish().unwrap();
        }
    }

    /// The server removed WAL before it could be taken.
    pub(super) fn hole(&mut self) {
        self.end_stream();
        let start = self.lsn;
        self.lsn = (self.lsn / SEGMENT + 1 + self.dice.below(3)) * SEGMENT;
        let hole = Hole {
            timeline: self.timeline,
            start,
            end: self.lsn,
            reason: "test".to_owned(),
            recorded_at_micros: self.now,
        };
        let name = format!(
            "holes/{:08x}/{start:016x}-{:016x}.s",
            self.timeline, self.lsn
        );
        self.world.memory.put(&name, &to_json(&hole)).unwrap();
        self.attach(self.lsn);
    }

    /// A recovery to a moment of the window that can be restored: a new timeline branches off there.
    pub(super) fn recover(&mut self) {
        let from = self.now - self.rules.wal_micros + HOUR_MICROS;
        let reachable: Vec<Moment> = self
            .moments
            .iter()
            .filter(|moment| moment.at >= from && self.is_restorable(moment, self.taken.values()))
            .copied()
            .collect();
        if reachable.is_empty() || self.timeline > 200 {
            return;
        }
        let chosen = reachable[usize::try_from(self.dice.below(reachable.len() as u64)).unwrap()];
        self.end_stream();
        self.timeline = self.runs.keys().max().unwrap() + 1;
        self.parents
            .insert(self.timeline, (chosen.timeline, chosen.lsn));
        let mut history = String::new();
        for (timeline, _, left) in self.way(self.timeline, u64::MAX).iter().rev().skip(1).rev() {
            history.push_str(&format!(
                "{timeline}\t{:X}/{:X}\tno recovery target specified\n",
                left >> 32,
                left & 0xFFFF_FFFF
            ));
        }
        let public = self.world.private.public();
        put_history(
            &self.world.repository,
            public,
            self.timeline,
            history.as_bytes(),
        )
        .unwrap();
        self.attach(chosen.lsn);
        self.write(1);
    }

    /// (timeline, entered, left), oldest first, to a place on the last.
    fn way(&self, timeline: u32, to: u64) -> Vec<(u32, u64, u64)> {
        match self.parents.get(&timeline) {
            None => vec![(timeline, 0, to)],
            Some((parent, switch)) => {
                let mut way = self.way(*parent, *switch);
                way.push((timeline, *switch, to));
                way
            }
        }
    }

    fn change_files(&mut self) {
        let number = self.dice.below(4);
        let seed = u8::try_from(self.dice.below(250)).unwrap();
        if let Some(bytes) = self.files.get_mut(&format!("base/{number}")) {
            let page = noise(8192, seed);
            bytes[8192..16384].copy_from_slice(&page);
        }
    }

    pub(super) fn backup(&mut self, kind: BackupKind) -> Result<String> {
        self.change_files();
        let (start, began) = (self.lsn, self.now);
        let facts = BackupFacts {
            kind,
            timeline: self.timeline,
            start_lsn: start,
            started_at_micros: began,
            ..self.world.facts(&new_backup_id(began)?)
        };
        let options = BackupOptions {
            threads: 1,
            cache: Some(self.cache.path().to_owned()),
            ..BackupOptions::default()
        };
        let (repository, public) = (&self.world.repository, self.world.private.public());
        let writer =
            BackupWriter::begin_with(repository, public, &self.world.chunk_key, facts, options)?;
        for (path, bytes) in &self.files {
            writer.blob(path, 0o600, 0, bytes)?;
        }
        let (kind, len) = (writer.kind(), 100 + self.dice.below(SEGMENT));
        self.pass(HOUR_MICROS / 2);
        let stop = start + len;
        let id = writer.finish(BackupStop {
            stop_lsn: stop,
            finished_at_micros: self.now,
            ..BackupStop::default()
        })?;
        let taken = ModelBackup {
            kind,
            timeline: self.timeline,
            start,
            stop,
            at: self.now,
            files: self.files.clone(),
        };
        self.taken.insert(id.clone(), taken);
        self.write(len);
        Ok(id)
    }

    /// Killed at one of its writes: packs, perhaps a pack list, and no manifest.
    pub(super) fn killed_backup(&mut self) {
        let at = self.dice.below(4);
        self.world.faults.crash_at_write(Some(at));
        let outcome = self.backup_without_wal();
        self.world.faults.crash_at_write(None);
        drop(outcome);
        self.restart_stream();
    }

    /// Finished while the stream stands still: the WAL up to its end is not here.
    pub(super) fn waiting_backup(&mut self) {
        let writer = self.begin_without_wal().unwrap();
        writer
            .blob("base/waiting", 0o600, 0, &noise(8192, 1))
            .unwrap();
        let stop = BackupStop {
            stop_lsn: self.lsn + SEGMENT,
            finished_at_micros: self.now,
            ..BackupStop::default()
        };
        writer.finish(stop).unwrap();
    }

    fn backup_without_wal(&mut self) -> Result<()> {
        let writer = self.begin_without_wal()?;
        let seed = u8::try_from(self.dice.below(250)).unwrap();
        writer.blob("base/killed", 0o600, 0, &noise(8192, seed))?;
        // Never reached unless the crash was to come later: then it is given up.
        drop(writer);
        Ok(())
    }

    fn begin_without_wal(&self) -> Result<BackupWriter> {
        let facts = BackupFacts {
            timeline: self.timeline,
            start_lsn: self.lsn,
            started_at_micros: self.now,
            ..self.world.facts(&new_backup_id(self.now)?)
        };
        let options = BackupOptions {
            threads: 1,
            cache: Some(self.cache.path().to_owned()),
            ..BackupOptions::default()
        };
        let (repository, public) = (&self.world.repository, self.world.private.public());
        BackupWriter::begin_with(repository, public, &self.world.chunk_key, facts, options)
    }

    pub(super) fn prove(&mut self) {
        let live = self.live();
        let ids: Vec<String> = live.into_iter().collect();
        if ids.is_empty() {
            return;
        }
        let id = &ids[usize::try_from(self.dice.below(ids.len() as u64)).unwrap()];
        let proof = RestoreTestRecord {
            proved_at_micros: self.now,
            passed: true,
            details: Default::default(),
        };
        if put_restore_test(&self.world.repository, id, &proof).is_ok() {
            self.proven.insert(id.clone(), self.now);
        }
    }

    /// Backups that a reader may choose.
    pub(super) fn live(&self) -> BTreeSet<String> {
        catalogue(&self.world.repository)
            .unwrap()
            .backups
            .into_iter()
            .filter(|backup| backup.state == BackupState::Complete)
            .map(|backup| backup.id)
            .collect()
    }

    fn has_run(&self, timeline: u32, from: u64, to: u64) -> bool {
        let runs = self.runs.get(&timeline).into_iter().flatten();
        runs.clone()
            .any(|(start, end)| *start <= from && to <= *end)
    }

    /// The model's word: from one of these backups, over WAL that was once handed over.
    pub(super) fn is_restorable<'a>(
        &self,
        moment: &Moment,
        backups: impl Iterator<Item = &'a ModelBackup>,
    ) -> bool {
        let mut backups = backups;
        backups.any(|backup| self.route(backup, moment).is_some())
    }

    /// The WAL to replay: (timeline, from, to).
    pub(super) fn route(
        &self,
        backup: &ModelBackup,
        moment: &Moment,
    ) -> Option<Vec<(u32, u64, u64)>> {
        let way = self.way(moment.timeline, moment.lsn);
        let first = way.iter().position(|(on, _, _)| *on == backup.timeline)?;
        if way[first].2 < backup.stop || backup.start < way[first].1 {
            return None;
        }
        let pieces = way[first..].iter().enumerate();
        let route: Vec<_> = pieces
            .map(|(n, (on, entered, left))| {
                (*on, if n == 0 { backup.start } else { *entered }, *left)
            })
            .collect();
        let all = route
            .iter()
            .all(|(on, from, to)| self.has_run(*on, *from, *to));
        all.then_some(route)
    }

    /// Every byte of a backup and of its WAL, against the model.
    pub(super) fn check_backup(&self, id: &str) {
        let taken = &self.taken[id];
        self.check_files(id);
        self.check_wal(&[(taken.timeline, taken.start, taken.stop)], id);
    }

    pub(super) fn check_files(&self, id: &str) {
        let repository = &self.world.repository;
        let reader = BackupReader::open(repository, &self.world.private, id).unwrap();
        let mut files = BTreeMap::new();
        for entry in reader.entries().unwrap() {
            if let EntryKind::File { extents, .. } = &entry.kind {
                let mut bytes = Vec::new();
                for extent in extents {
                    bytes.extend(reader.read_extent(extent).unwrap());
                }
                files.insert(entry.path, bytes);
            }
        }
        assert!(
            files == self.taken[id].files,
            "backup {id} reads differently"
        );
    }

    pub(super) fn check_wal(&self, route: &[(u32, u64, u64)], what: &str) {
        for (timeline, from, to) in route {
            let found = self.world.reader().bytes(*timeline, *from, *to);
            let found = found.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(
                found == self.bytes(*timeline, *from, *to),
                "{what}: WAL of timeline {timeline} reads differently"
            );
        }
    }

    pub(super) fn days(&self) -> i64 {
        (self.now - BEGINNING) / DAY_MICROS
    }
}
