//! Incremental backups against a model: a cluster is a map of paths to bytes, and every backup must give back its own.

mod kept;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::*;

type Cluster = BTreeMap<String, Vec<u8>>;
const PAGE: usize = 8192;
const MIB: usize = 1 << 20;

/// A repository and the folder of what its writer knows.
struct Vault {
    world: World,
    cache: tempfile::TempDir,
    taken: u32,
    /// Each fills a pack of its own.
    threads: usize,
}

#[derive(Debug)]
struct BackupResult {
    id: String,
    summary: BackupSummary,
    why_full: Option<String>,
}

impl Vault {
    fn new() -> Self {
        Self {
            world: World::new(),
            cache: tempfile::tempdir().unwrap(),
            taken: 0,
            threads: 2,
        }
    }

    fn begin(&mut self, kind: BackupKind) -> Result<BackupWriter> {
        self.taken += 1;
        let facts = BackupFacts {
            kind,
            ..self
                .world
                .facts(&format!("20261123T081530Z-{:08x}", self.taken))
        };
        let options = BackupOptions {
            threads: self.threads,
            cache: Some(self.cache.path().to_owned()),
            ..BackupOptions::default()
        };
        let world = &self.world;
        BackupWriter::begin_with(
            &world.repository,
            world.private.public(),
            &world.chunk_key,
            facts,
            options,
        )
    }

    fn try_take(&mut self, kind: BackupKind, cluster: &Cluster) -> Result<BackupResult> {
        let backup = self.begin(kind)?;
        for (path, bytes) in cluster {
            backup.blob(path, 0o600, 7, bytes)?;
        }
        let why_full = backup.why_full().map(str::to_owned);
        let id = backup.finish(stop(SEGMENT))?;
        let summary = self.open(&id).summary().clone();
        Ok(BackupResult {
            id,
            summary,
            why_full,
        })
    }

    fn take(&mut self, kind: BackupKind, cluster: &Cluster) -> BackupResult {
        self.try_take(kind, cluster).unwrap()
    }

    fn incremental(&mut self, cluster: &Cluster) -> BackupResult {
        let taken = self.take(BackupKind::Incremental, cluster);
        assert_eq!(taken.why_full, None);
        assert_eq!(taken.summary.kind, BackupKind::Incremental);
        taken
    }

    fn open(&self, id: &str) -> BackupReader {
        BackupReader::open(&self.world.repository, &self.world.private, id).unwrap()
    }

    fn check(&self, id: &str, expected: &Cluster) {
        let reader = self.open(id);
        reader.check_packs().unwrap();
        let mut found = Cluster::new();
        for entry in reader.entries().unwrap() {
            if matches!(entry.kind, EntryKind::File { .. }) {
                found.insert(entry.path.clone(), reader.read_file(&entry).unwrap());
            }
        }
        let differ = |path: &&String| found.get(*path) != expected.get(*path);
        let all: BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
        assert_eq!(all.into_iter().filter(differ).collect::<Vec<_>>(), [""; 0]);
        assert_eq!(reader.verify(1, &|_| {}).unwrap().damaged, []);
    }

    fn known(&self) -> std::path::PathBuf {
        let mut known = files(self.cache.path(), "known-");
        assert_eq!(known.len(), 1, "{known:?}");
        known.remove(0)
    }
}

fn files(folder: &Path, prefix: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries
        .filter(|entry| entry.file_name().to_str().unwrap().starts_with(prefix))
        .map(|entry| entry.path())
        .collect()
}

/// Repeats from its seed.
struct Dice(blake3::OutputReader);

impl Dice {
    fn new(seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_be_bytes());
        Self(hasher.finalize_xof())
    }

    fn below(&mut self, limit: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        usize::try_from(u64::from_be_bytes(bytes) % limit as u64).unwrap()
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.fill(&mut bytes);
        bytes
    }
}

/// What a database may do to its files between two backups.
fn change(cluster: &mut Cluster, dice: &mut Dice, number: usize) {
    let paths: Vec<String> = cluster.keys().cloned().collect();
    let path = &paths[dice.below(paths.len())];
    let bytes = cluster.get_mut(path).unwrap();
    let pages = bytes.len() / PAGE;
    match dice.below(9) {
        0..3 if pages > 0 => {
            for _ in 0..=dice.below(20) {
                let at = dice.below(pages) * PAGE;
                bytes[at..at + PAGE].copy_from_slice(&dice.bytes(PAGE));
            }
        }
        3 if pages > 0 => bytes[dice.below(pages) * PAGE] ^= 1,
        4 => bytes.truncate(dice.below(bytes.len() + 1)),
        5 => {
            let more = dice.below(MIB);
            bytes.extend(dice.bytes(more));
        }
        6 => {
            // Truncated and extended again: same length, other pages; or pages of zeros.
            let len = bytes.len();
            bytes.truncate(len / 2);
            bytes.resize(len, 0);
        }
        7 if paths.len() > 1 => {
            let moved = cluster.remove(path).unwrap();
            if dice.below(2) == 0 {
                cluster.insert(format!("base/1/{}", 20_000 + number), moved);
            }
        }
        _ => {
            let len = dice.below(2 * MIB);
            cluster.insert(format!("base/1/{}", 30_000 + number), dice.bytes(len));
        }
    }
}

#[test]
fn every_generation_restores_whatever_changed() {
    for seed in 0..4 {
        println!("seed {seed}");
        let mut dice = Dice::new(seed);
        let mut vault = Vault::new();
        let mut cluster = Cluster::new();
        for number in 0..6 {
            let len = dice.below(3 * MIB);
            cluster.insert(format!("base/1/{}", 16_384 + number), dice.bytes(len));
        }
        let first = vault.take(BackupKind::Full, &cluster).id;
        let mut generations = vec![(first, cluster.clone())];
        for generation in 0..10 {
            for number in 0..dice.below(6) {
                change(&mut cluster, &mut dice, 100 * generation + number);
            }
            let taken = vault.incremental(&cluster);
            assert_eq!(
                taken.summary.parent.as_ref(),
                generations.last().map(|(id, _)| id)
            );
            generations.push((taken.id, cluster.clone()));
        }
        for (id, cluster) in &generations {
            vault.check(id, cluster);
        }
    }
}

fn cluster_of(files: usize, len: usize) -> Cluster {
    let mut dice = Dice::new(99);
    (0..files)
        .map(|number| (format!("base/1/{number}"), dice.bytes(len)))
        .collect()
}

#[test]
fn only_changed_pages_are_stored_and_nothing_costs_next_to_nothing() {
    let mut vault = Vault::new();
    let mut cluster = cluster_of(8, 4 * MIB);
    let full = vault.take(BackupKind::Full, &cluster);
    assert_eq!(full.summary.bytes_reused, 0);

    let same = vault.incremental(&cluster);
    let stored = same.summary.bytes_stored;
    assert_eq!((stored, same.summary.bytes_reused), (0, 32 << 20));
    vault.check(&same.id, &cluster);

    // Four of the 128 pages of a window, far apart: one chunk of four pages.
    let changed = cluster.get_mut("base/1/3").unwrap();
    for page in [3, 40, 41, 127] {
        changed[page * PAGE + 100] ^= 0xFF;
    }
    let few = vault.incremental(&cluster);
    let stored = few.summary.bytes_stored as usize;
    assert!(stored > 4 * PAGE && stored < 4 * PAGE + 4000, "{stored}");
    assert_eq!(few.summary.bytes_reused, (32 << 20) - 4 * PAGE as u64);
    vault.check(&few.id, &cluster);

    // A file that was copied under another name is known by its content.
    let copy = cluster["base/1/5"].clone();
    cluster.insert("base/2/5".to_owned(), copy);
    let copied = vault.incremental(&cluster);
    assert!(copied.summary.bytes_stored < 4000, "{:?}", copied.summary);
    vault.check(&copied.id, &cluster);

    // A full backup shares nothing with those before.
    let full = vault.take(BackupKind::Full, &cluster).summary;
    assert!(full.bytes_stored > 32 << 20 && full.bytes_reused == 0);
}

/// Fifty backups of a window that always changes a little: what a restore must open stays bounded.
#[test]
fn a_window_never_lies_in_too_many_chunks() {
    let mut dice = Dice::new(5);
    let mut vault = Vault::new();
    let mut cluster = cluster_of(1, 2 * MIB);
    vault.take(BackupKind::Full, &cluster);
    let mut last = String::new();
    for generation in 0..50 {
        let bytes = cluster.get_mut("base/1/0").unwrap();
        // One page an hour at first, later half of them.
        for _ in 0..if generation < 30 { 1 } else { 64 } {
            let page = dice.below(128);
            bytes[page * PAGE] ^= 1;
        }
        let taken = vault.incremental(&cluster);
        let reader = vault.open(&taken.id);
        let entries = reader.entries().unwrap();
        let EntryKind::File { extents, .. } = &entries.last().unwrap().kind else {
            panic!("{entries:?}")
        };
        for window in extents.chunk_by(|a, b| a.file_offset >> 20 == b.file_offset >> 20) {
            let chunks: BTreeSet<_> = window.iter().map(|extent| extent.chunk).collect();
            let opened: u64 = chunks.iter().map(|chunk| reader.chunk_len(*chunk)).sum();
            assert!(
                chunks.len() <= 17 && opened <= 3 << 20,
                "{} {opened}",
                chunks.len()
            );
        }
        assert!(
            taken.summary.bytes_stored < 1_200_000,
            "{:?}",
            taken.summary
        );
        last = taken.id;
    }
    vault.check(&last, &cluster);
}

/// Whatever happened to the cache, the backup is right; when it could not be used, it says why.
#[test]
fn a_cache_that_cannot_be_used_makes_a_full_backup_that_says_why() {
    let mut vault = Vault::new();
    let mut cluster = cluster_of(3, MIB + 5000);
    let taken = vault.take(BackupKind::Incremental, &cluster);
    assert_eq!(taken.summary.kind, BackupKind::Full);
    let why = taken.why_full.unwrap();
    assert!(why.contains("no earlier backup"), "{why}");

    let known = vault.known();
    let good = std::fs::read(&known).unwrap();
    let mut dice = Dice::new(7);
    for round in 0..9 {
        cluster.get_mut("base/1/1").unwrap()[round] ^= 1;
        let mut bad = good.clone();
        match round {
            0 => bad.truncate(good.len() - 1),
            1 => bad.truncate(3),
            2 => bad.push(0),
            _ => bad[dice.below(good.len())] ^= 1 << dice.below(8),
        }
        std::fs::write(&known, bad).unwrap();
        let taken = vault.take(BackupKind::Incremental, &cluster);
        let why = taken.why_full.unwrap();
        assert!(why.contains("damaged"), "round {round}: {why}");
        vault.check(&taken.id, &cluster);
    }

    let mut other = Vault::new();
    std::fs::copy(&known, other.cache.path().join(known.file_name().unwrap())).unwrap();
    let why = other.take(BackupKind::Incremental, &cluster).why_full;
    assert!(why.unwrap().contains("another chunk id key"));
    other.world.chunk_key = vault.world.chunk_key.clone();
    std::fs::copy(&known, other.known()).unwrap();
    let why = other.take(BackupKind::Incremental, &cluster).why_full;
    assert!(why.unwrap().contains("another repository"));
}

#[test]
fn a_parent_that_is_gone_or_incomplete_is_not_built_on() {
    let mut vault = Vault::new();
    let cluster = cluster_of(2, MIB);
    let first = vault.take(BackupKind::Full, &cluster).id;
    let pack = vault.world.names("packs/").remove(0);
    let bytes = vault.world.memory.get(&pack).unwrap();
    vault.world.memory.delete(&pack).unwrap();
    let taken = vault.take(BackupKind::Incremental, &cluster);
    let why = taken.why_full.unwrap();
    assert!(why.contains(&pack) && why.contains(&first), "{why}");
    vault.check(&taken.id, &cluster);

    vault.world.memory.put(&pack, &bytes).unwrap();
    vault
        .world
        .memory
        .delete(&format!("backups/{}/manifest", taken.id))
        .unwrap();
    let why = vault.take(BackupKind::Incremental, &cluster).why_full;
    assert!(why.unwrap().contains("not in the repository any more"));
}

/// A pack that goes while the backup runs: no manifest refers to what is not there.
#[test]
fn a_pack_that_expires_meanwhile_fails_the_backup_and_only_it() {
    let mut vault = Vault::new();
    let cluster = cluster_of(2, MIB);
    vault.take(BackupKind::Full, &cluster);
    let backup = vault.begin(BackupKind::Incremental).unwrap();
    for (path, bytes) in &cluster {
        backup.blob(path, 0o600, 7, bytes).unwrap();
    }
    vault
        .world
        .memory
        .delete(&vault.world.names("packs/")[0])
        .unwrap();
    let error = backup.finish(stop(SEGMENT)).unwrap_err();
    assert!(
        matches!(&error, Error::Missing { object, .. } if object.starts_with("packs/")),
        "{error}"
    );
    let taken = vault.take(BackupKind::Incremental, &cluster);
    assert!(taken.why_full.is_some());
    vault.check(&taken.id, &cluster);
}

/// Killed at each write in turn, with and without a parent: the next backup is right and stores nothing twice.
#[test]
fn a_killed_backup_is_resumed() {
    for kind in [BackupKind::Full, BackupKind::Incremental] {
        let mut resumed = 0;
        for write in 0.. {
            let mut vault = Vault::new();
            vault.threads = 1;
            let mut cluster = cluster_of(1, MIB);
            let first = vault.take(BackupKind::Full, &cluster).id;
            let before = cluster.clone();
            cluster.extend(cluster_of(40, MIB));
            vault.world.faults.crash_at_write(Some(write));
            let outcome = vault.try_take(kind, &cluster);
            vault.world.faults.crash_at_write(None);
            if outcome.is_ok() {
                assert!(write >= 4, "only {write} writes were killed");
                break;
            }
            let stored = |vault: &Vault| -> u64 {
                vault
                    .world
                    .memory
                    .list("packs/")
                    .unwrap()
                    .iter()
                    .map(|pack| pack.size)
                    .sum()
            };
            let before_next = stored(&vault);
            let taken = vault.take(kind, &cluster);
            assert_eq!(taken.summary.kind, kind);
            vault.check(&taken.id, &cluster);
            vault.check(&first, &before);
            assert_eq!(stored(&vault) - before_next, taken.summary.bytes_stored);
            let total = taken.summary.bytes_resumed + taken.summary.bytes_stored;
            assert!(total < 43 << 20, "{:?}", taken.summary);
            resumed = resumed.max(taken.summary.bytes_resumed);
            assert_eq!(files(vault.cache.path(), "unfinished-").len(), 0);
        }
        assert!(resumed >= 30 << 20, "{kind:?}: {resumed} at most");
    }
}

/// The machine stopped between the manifest and the cache: the next one has an older parent.
#[test]
fn a_cache_older_than_the_newest_backup_is_still_right() {
    let mut vault = Vault::new();
    let mut cluster = cluster_of(2, MIB);
    let first = vault.take(BackupKind::Full, &cluster).id;
    let known = std::fs::read(vault.known()).unwrap();
    cluster.get_mut("base/1/0").unwrap()[5] ^= 1;
    vault.incremental(&cluster);
    std::fs::write(vault.known(), known).unwrap();
    cluster.get_mut("base/1/0").unwrap()[5] ^= 1;
    cluster.get_mut("base/1/1").unwrap()[9 * PAGE] ^= 1;
    let taken = vault.incremental(&cluster);
    assert_eq!(taken.summary.parent, Some(first));
    vault.check(&taken.id, &cluster);
}

/// A folder of 100,000 files: one more or less changes little of what describes it.
#[test]
fn many_small_files() {
    let mut vault = Vault::new();
    let mut cluster: Cluster = (0..100_000u32)
        .map(|number| (format!("base/5/{number}"), number.to_be_bytes().to_vec()))
        .collect();
    vault.take(BackupKind::Full, &cluster);
    cluster.insert("base/5/200000".to_owned(), vec![1; PAGE]);
    cluster.remove("base/5/4711");
    cluster.insert("base/5/77".to_owned(), vec![2; PAGE]);
    let taken = vault.incremental(&cluster);
    assert!(taken.summary.bytes_stored < 150_000, "{:?}", taken.summary);
    // Reading all of them back is what other tests do.
    let reader = vault.open(&taken.id);
    let entries = reader.entries().unwrap();
    assert_eq!(entries.len(), 100_002);
    for entry in entries.iter().filter(|entry| entry.path.ends_with("77")) {
        let bytes = reader.read_file(entry).unwrap();
        assert_eq!(Some(&bytes), cluster.get(&entry.path), "{}", entry.path);
    }
    assert!(entries.iter().all(|entry| entry.path != "base/5/4711"));
}

/// Nothing is built on what the present key cannot open; once everything is sealed to it, nothing is stored again.
#[test]
fn a_new_recipient_key_builds_on_what_it_can_open() {
    let mut vault = Vault::new();
    vault.threads = 1;
    let mut cluster = cluster_of(36, MIB);
    // After the claim, the wrap and the first pack.
    vault.world.faults.crash_at_write(Some(3));
    vault.try_take(BackupKind::Full, &cluster).unwrap_err();
    vault.world.faults.crash_at_write(None);
    assert!(!vault.world.names("packs/").is_empty());
    let old = std::mem::replace(
        &mut vault.world.private,
        RecipientPrivate::generate().unwrap(),
    );
    let first = vault.take(BackupKind::Full, &cluster);
    assert_eq!(first.summary.bytes_resumed, 0);
    vault.check(&first.id, &cluster);

    cluster.retain(|path, _| path.ends_with('7'));
    let replace = |vault: &mut Vault| {
        std::mem::replace(
            &mut vault.world.private,
            RecipientPrivate::generate().unwrap(),
        )
    };
    let second = replace(&mut vault);
    let why = vault.take(BackupKind::Incremental, &cluster).why_full;
    assert!(why.unwrap().contains("sealed for another key"));

    let third = replace(&mut vault);
    for before in [&old, &second, &third] {
        rewrap(&vault.world.repository, before, &vault.world.private, &()).unwrap();
    }
    let taken = vault.incremental(&cluster);
    assert_eq!(taken.summary.bytes_stored, 0);
    vault.check(&taken.id, &cluster);
}

/// A key takes with it what it sealed, and every later backup that refers to a pack of that.
#[test]
fn what_a_closed_key_takes_with_it_follows_the_packs() {
    let mut vault = Vault::new();
    let mut cluster = cluster_of(4, MIB);
    let first = vault.take(BackupKind::Full, &cluster);
    let before = vault.world.names("wraps/");
    let fresh = RecipientPrivate::generate().unwrap();
    let old = std::mem::replace(&mut vault.world.private, fresh);
    let new = vault.world.private.clone();
    rewrap(&vault.world.repository, &old, &new, &()).unwrap();
    let sealed_again = vault.world.names("wraps/");
    cluster.retain(|path, _| !path.ends_with('1'));
    let second = vault.incremental(&cluster);
    assert_eq!(second.summary.kind, BackupKind::Incremental);
    let third = {
        cluster.clear();
        cluster.insert("base/5/4711".to_owned(), vec![7; MIB]);
        vault.take(BackupKind::Full, &cluster)
    };
    let look = |by: &RecipientPrivate| key_outlook(&vault.world.repository, Some(by)).unwrap();
    let whole = look(&new);
    assert!(whole.closed.is_empty(), "{whole:?}");
    assert_eq!(whole.left.backups, [&*first.id, &*second.id, &*third.id]);

    // What the rotation had sealed to the new key is lost; the old key is not at hand.
    for wrap in sealed_again.iter().filter(|wrap| !before.contains(wrap)) {
        vault.world.memory.delete(wrap).unwrap();
    }
    let outlook = look(&new);
    assert_eq!(outlook.closed.backups, [&*first.id, &*second.id]);
    assert_eq!(outlook.left.backups, [&*third.id]);
    let state = |id: String| {
        let key = outlook.keys.iter().find(|key| key.recipient_id == id);
        key.map(|key| (key.state, key.only.backups.clone()))
    };
    let old_state = Some(("not here", vec![first.id.clone(), second.id.clone()]));
    assert_eq!(state(old.public().id()), old_state);
    let new_state = Some(("opens", vec![second.id.clone(), third.id.clone()]));
    assert_eq!(state(new.public().id()), new_state);
    // With both at hand nothing is closed.
    assert!(look(&new.clone().and(&old)).closed.is_empty());
    assert_eq!(vault.world.reader().inventory().unwrap().damaged.len(), 0);
}
