//! Reads back every object of a repository, and proves that no WAL is missing up to the newest that anybody knows of. What is found is
//! named with its class and with what to do; what could not be opened with the keys at hand is counted, not called damaged.
//!
//! Memory: the names of all objects, the index of one backup, and one object (or one box of a large one) a thread.

mod class;
mod continuity;
mod evidence;
mod plain;
mod sealed;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde::Serialize;

pub(crate) use sealed::boxes_of;

pub use class::ObjectClass;
pub use continuity::{Gap, GapCause, TimelineContinuity};
pub use evidence::{Evidence, EvidenceSource, Shortfall, newest_known, shortfall};

use crate::Repository;
use crate::archive::{ArchivePart, ArchivedEntries};
use crate::backup::BackupReader;
use crate::error::{Error, Result, StoreError};
use crate::keys::{DataKeyId, KeyRing, RecipientPrivate, SealedTo};
use crate::pack::Identifier;
use crate::progress::Progress;
use crate::retention::Rules;
use crate::store::ObjectInfo;

/// Findings and notes of one class; a repository that lost a disk has millions, and the first of them say what happened.
const NAMED_MAX: usize = 200;

/// What a signed head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeadSaid {
    /// Of the WAL that was here.
    Evidence(Evidence),
    /// It proves nothing, and why: signed by a key that is not here, or that had ended.
    Nothing(String),
}

/// Says what only the audit log's own format knows; `Err`: what is wrong, in words.
pub trait AuditReader: Sync + std::fmt::Debug {
    /// A signed head by the parts of its name and its bytes.
    fn head(&self, log: &str, epoch: u32, size: u64, bytes: &[u8]) -> Result<HeadSaid, String>;
    /// An object of another class that belongs to the audit log: a thinning, a tile, a checkpoint, a statement about a
    /// key. `Ok(Some)`: what this host cannot tell of it.
    fn record(
        &self,
        class: ObjectClass,
        name: &str,
        bytes: &[u8],
    ) -> Result<Option<String>, String>;
    /// An opened stretch of the archive.
    fn stretch(&self, part: &ArchivePart, content: &ArchivedEntries) -> Result<(), String>;
}

/// What to read it with.
#[derive(Debug)]
pub struct ReadBackOptions<'a> {
    /// Opens backups and WAL.
    pub private: Option<&'a RecipientPrivate>,
    /// Opens the audit archive.
    pub archive: Option<&'a RecipientPrivate>,
    /// What WAL must be here.
    pub rules: Rules,
    pub now_micros: i64,
    /// The id that the repository must have, where somebody wrote it down.
    pub repository_id: Option<&'a str>,
    pub audit: &'a dyn AuditReader,
    /// Known from elsewhere: a running engine, a stream.
    pub evidence: Vec<Evidence>,
    pub threads: usize,
}

/// Something about one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub class: ObjectClass,
    pub object: String,
    pub what: String,
    /// What to do.
    pub remedy: String,
}

/// What was read of one class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassReport {
    pub class: ObjectClass,
    pub objects: u64,
    pub bytes: u64,
    /// Their seals could not be opened here: checked by their clear parts, lengths and order of boxes only.
    pub not_opened: u64,
    /// In a storage class that hands nothing out: checked by length, checksum and lock.
    pub cold: u64,
    /// Superseded or expired while this ran.
    pub gone: u64,
    /// Findings, named or not.
    pub findings: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReadBack {
    pub classes: Vec<ClassReport>,
    /// What is wrong, at most [`NAMED_MAX`] a class.
    pub findings: Vec<Finding>,
    /// What is worth knowing and not wrong.
    pub notes: Vec<Finding>,
    pub timelines: Vec<TimelineContinuity>,
    /// The newest WAL that somebody knows to have been here, and whether it still is.
    pub newest: Option<Shortfall>,
    /// Why seals could not be opened, each once.
    pub closed: Vec<String>,
    pub cancelled: bool,
}

impl ReadBack {
    /// Nothing is wrong with what could be read.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty() && !self.cancelled
    }

    /// Seals that could not be opened with the keys at hand. A wrap for another recipient is none: what it holds is opened by ours.
    #[must_use]
    pub fn not_opened(&self) -> u64 {
        let is_wrap = |class| matches!(class, ObjectClass::Wrap | ObjectClass::AuditWrap);
        let content = self.classes.iter().filter(|it| !is_wrap(it.class));
        content.map(|class| class.not_opened).sum()
    }
}

/// An `Err` is a repository that cannot be asked: away, full of errors of its own, or one of another version.
pub fn read_back(
    repository: &Repository,
    options: &ReadBackOptions<'_>,
    progress: &dyn Progress,
) -> Result<ReadBack> {
    progress.message("listing all objects");
    let mut objects: BTreeMap<ObjectClass, Vec<ObjectInfo>> = BTreeMap::new();
    for object in repository.store().list("")? {
        let class = ObjectClass::of(&object.name);
        objects.entry(class).or_default().push(object);
    }
    let reading = Reading::new(repository, options, &objects);
    let all: Vec<(ObjectClass, &ObjectInfo)> = objects
        .iter()
        .flat_map(|(class, objects)| objects.iter().map(|object| (*class, object)))
        .collect();
    progress.total(all.iter().map(|(_, object)| object.size).sum());
    // Manifests know the key of the chunks' ids and how long packs are.
    let is_first = |class| matches!(class, ObjectClass::Manifest | ObjectClass::Snapshot);
    let (first, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(class, _)| is_first(*class));
    reading.read_all(&first, progress)?;
    progress.message("reading every object");
    reading.read_all(&rest, progress)?;
    if !progress.cancelled() {
        progress.message("comparing backups with their packs");
        reading.compare_backups(&objects, progress)?;
        reading.compare_snapshots(&objects, progress)?;
    }
    let mut timelines = Vec::new();
    let mut newest = None;
    if !progress.cancelled() {
        progress.message("following the WAL to its end");
        (timelines, newest) = continuity::prove(&reading, &objects)?;
    }
    Ok(reading.finish(&objects, timelines, newest, progress.cancelled()))
}

/// What a manifest says of the packs that it refers to.
struct ManifestFacts {
    backup_id: String,
    packs: BTreeMap<String, u64>,
}

/// What came of an object.
enum Outcome {
    Read,
    NotOpened,
}

/// The state of one read-back.
struct Reading<'a> {
    repository: &'a Repository,
    options: &'a ReadBackOptions<'a>,
    backups: Option<KeyRing>,
    archive: Option<KeyRing>,
    /// Data keys that stay closed.
    closed_keys: Mutex<BTreeMap<DataKeyId, ()>>,
    closed: Mutex<BTreeSet<String>>,
    /// Of each key under which chunks have their ids.
    identifiers: Mutex<Vec<(String, Identifier)>>,
    manifests: Mutex<Vec<ManifestFacts>>,
    snapshots: Mutex<Vec<snapshots::SnapshotFacts>>,
    evidence: Mutex<Vec<Evidence>>,
    counts: Mutex<BTreeMap<ObjectClass, Counts>>,
    findings: Mutex<Vec<Finding>>,
    notes: Mutex<Vec<Finding>>,
    /// Of the oldest object: the repository cannot be younger.
    oldest_micros: i64,
}

#[derive(Default)]
struct Counts {
    not_opened: u64,
    cold: u64,
    gone: u64,
    findings: u64,
    notes: usize,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

const REMEDY_COPY: &str =
    "Bring it back from a copy of the repository (bre repository copy), or do without what it held";

impl<'a> Reading<'a> {
    fn new(
        repository: &'a Repository,
        options: &'a ReadBackOptions<'a>,
        objects: &BTreeMap<ObjectClass, Vec<ObjectInfo>>,
    ) -> Self {
        let ring = |key: Option<&RecipientPrivate>| key.map(|key| KeyRing::new(repository, key));
        let written = objects.values().flatten().map(|it| it.modified_micros);
        Self {
            repository,
            options,
            backups: ring(options.private),
            archive: ring(options.archive),
            closed_keys: Mutex::default(),
            closed: Mutex::default(),
            identifiers: Mutex::default(),
            manifests: Mutex::default(),
            snapshots: Mutex::default(),
            evidence: Mutex::new(options.evidence.clone()),
            counts: Mutex::default(),
            findings: Mutex::default(),
            notes: Mutex::default(),
            oldest_micros: written.min().unwrap_or(i64::MAX),
        }
    }

    fn read_all(
        &self,
        objects: &[(ObjectClass, &ObjectInfo)],
        progress: &dyn Progress,
    ) -> Result<()> {
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let fatal = Mutex::new(None);
        let worker = || {
            while let Some((class, object)) = objects.get(next.fetch_add(1, Ordering::Relaxed)) {
                if stop.load(Ordering::Relaxed) || progress.cancelled() {
                    return;
                }
                if let Err(error) = self.read_one(*class, object) {
                    *locked(&fatal) = Some(error);
                    stop.store(true, Ordering::Relaxed);
                }
                progress.advance(object.size);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.options.threads.max(1) {
                scope.spawn(worker);
            }
        });
        let fatal = locked(&fatal).take();
        fatal.map_or(Ok(()), Err)
    }

    /// Reads one object and keeps what came of it. `Err`: the repository as a whole cannot be asked.
    fn read_one(&self, class: ObjectClass, object: &ObjectInfo) -> Result<()> {
        let name = object.name.as_str();
        let outcome = match class {
            ObjectClass::Format => self.format(name),
            ObjectClass::Cluster => self.cluster(name),
            ObjectClass::Wrap | ObjectClass::AuditWrap => self.wrap(name),
            ObjectClass::AuditEntries => self.audit_entries(name),
            ObjectClass::LogStretch => self.log_stretch(name),
            ObjectClass::Pack => self.pack(object),
            ObjectClass::Manifest => self.manifest(name),
            ObjectClass::RestoreTest => self.restore_test(name),
            ObjectClass::PackList => self.pack_list(name),
            ObjectClass::Snapshot => self.snapshot(name),
            ObjectClass::SnapshotPackList => self.snapshot_pack_list(name),
            ObjectClass::SnapshotVerification => self.snapshot_verification(name),
            ObjectClass::WalSegment => self.segment(name),
            ObjectClass::WalTail => self.tail(name),
            ObjectClass::History => self.history(name),
            ObjectClass::Reservation => self.reservation(name),
            ObjectClass::Head => self.head(name),
            ObjectClass::Anchor => self.anchor(name),
            ObjectClass::Thinning
            | ObjectClass::Tile
            | ObjectClass::Origin
            | ObjectClass::Cosigned
            | ObjectClass::KeyStatement => self.audit_record(class, name),
            ObjectClass::Kept => self.kept(name),
            ObjectClass::Tombstone => self.tombstone(name),
            ObjectClass::Probe | ObjectClass::Claim | ObjectClass::PlanClaim => self.probe(name),
            ObjectClass::Hold => self.hold(name),
            ObjectClass::Hole => self.hole(name),
            ObjectClass::Run => self.run(name),
            ObjectClass::RunMonth => self.run_month(name),
            ObjectClass::Foreign => {
                self.note(
                    class,
                    name,
                    "its name is of no class of this format: somebody else wrote it, or a newer engine",
                    "Nothing reads it. Find out whose it is; a repository shares its place with nobody",
                );
                Ok(Outcome::Read)
            }
        };
        match outcome {
            Ok(Outcome::Read) => {}
            Ok(Outcome::NotOpened) => self.count(class, |counts| counts.not_opened += 1),
            Err(Error::Store(StoreError::NotFound { object, .. })) if object == name => {
                self.count(class, |counts| counts.gone += 1);
            }
            Err(Error::Store(StoreError::Cold { .. })) => self.cold(class, object)?,
            Err(error) if is_of_all(&error) => return Err(error),
            Err(error) => self.found(class, name, &error),
        }
        Ok(())
    }

    /// What the store says of an object that it does not hand out.
    fn cold(&self, class: ObjectClass, object: &ObjectInfo) -> Result<()> {
        self.count(class, |counts| counts.cold += 1);
        let said = self.repository.store().cold(&object.name)?;
        let Some(said) = said.filter(|said| said.bytes == object.size) else {
            let what = "it lies in an archive storage class, and the store gives another length than its listing";
            self.find(class, &object.name, what, REMEDY_COPY);
            return Ok(());
        };
        let lock = self.repository.store().lock_of(&object.name)?;
        let what = format!(
            "it lies in the archive storage class {}: {} bytes, {}, {}; its content was not read",
            said.storage_class,
            said.bytes,
            said.checksum.as_deref().unwrap_or("no checksum"),
            lock.map_or_else(|| "not locked".to_owned(), |lock| lock.to_string()),
        );
        let remedy = "Ask the store to restore it before a restore of the database needs it: that takes hours";
        self.note(class, &object.name, &what, remedy);
        Ok(())
    }

    /// `None`: none of the keys at hand opens this data key.
    fn key(&self, ring: Option<&KeyRing>, object: &str, id: DataKeyId) -> Result<bool> {
        if locked(&self.closed_keys).contains_key(&id) {
            return Ok(false);
        }
        let why = match ring {
            None => "the private key is not here".to_owned(),
            Some(ring) => match ring.try_key(object, id)? {
                SealedTo::Us => return Ok(true),
                SealedTo::Others(recipients) => {
                    format!("sealed for {recipients}, not for the key given")
                }
                SealedTo::ClosedKey(told) => told,
            },
        };
        locked(&self.closed_keys).insert(id, ());
        locked(&self.closed).insert(why);
        Ok(false)
    }

    fn count(&self, class: ObjectClass, change: impl FnOnce(&mut Counts)) {
        change(locked(&self.counts).entry(class).or_default());
    }

    fn found(&self, class: ObjectClass, object: &str, error: &Error) {
        let (what, remedy) = match error {
            Error::Damaged { offset, what, .. } => {
                (format!("damaged at byte {offset}: {what}"), REMEDY_COPY)
            }
            Error::Missing {
                object: missing, ..
            } if missing != object => (format!("`{missing}` is missing"), REMEDY_COPY),
            other => (other.to_string(), REMEDY_COPY),
        };
        self.find(class, object, &what, remedy);
    }

    fn find(&self, class: ObjectClass, object: &str, what: &str, remedy: &str) {
        let mut number = 0;
        self.count(class, |counts| {
            counts.findings += 1;
            number = counts.findings;
        });
        if number <= NAMED_MAX as u64 {
            locked(&self.findings).push(finding(class, object, what, remedy));
        }
    }

    fn note(&self, class: ObjectClass, object: &str, what: &str, remedy: &str) {
        let mut number = 0;
        self.count(class, |counts| {
            counts.notes += 1;
            number = counts.notes;
        });
        if number <= NAMED_MAX {
            locked(&self.notes).push(finding(class, object, what, remedy));
        }
    }

    /// Packs that a manifest names are here, as long as it says; every chunk that its tree names lies in one of them.
    fn compare_backups(
        &self,
        objects: &BTreeMap<ObjectClass, Vec<ObjectInfo>>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let none = Vec::new();
        let of = |class| objects.get(&class).unwrap_or(&none);
        let packs: BTreeMap<&str, u64> = of(ObjectClass::Pack)
            .iter()
            .filter_map(|it| Some((it.name.strip_prefix("packs/")?, it.size)))
            .collect();
        let expiring = crate::references::expiring(self.repository)?;
        let manifests = std::mem::take(&mut *locked(&self.manifests));
        self.compare_lists(of(ObjectClass::PackList), &manifests)?;
        let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for manifest in &manifests {
            if progress.cancelled() || expiring.contains(&manifest.backup_id) {
                continue;
            }
            for (pack, bytes) in &manifest.packs {
                match packs.get(pack.as_str()) {
                    None => missing.entry(pack).or_default().push(&manifest.backup_id),
                    Some(size) if size != bytes => {
                        let what = format!(
                            "it has {size} bytes, backup {} wrote {bytes}",
                            manifest.backup_id
                        );
                        let name = format!("packs/{pack}");
                        self.find(ObjectClass::Pack, &name, &what, REMEDY_COPY);
                    }
                    Some(_) => {}
                }
            }
            self.compare_tree(&manifest.backup_id)?;
        }
        for (pack, backups) in missing {
            let name = format!("packs/{pack}");
            // Expired since the listing.
            if self.repository.store().size(&name).is_ok() {
                continue;
            }
            let what = format!("it is missing; {} refer to it", backups.join(", "));
            self.find(ObjectClass::Pack, &name, &what, REMEDY_COPY);
        }
        Ok(())
    }

    fn compare_tree(&self, id: &str) -> Result<()> {
        let Some(private) = self.options.private else {
            return Ok(());
        };
        let name = crate::manifest::manifest_name(id);
        let missing = BackupReader::open(self.repository, private, id)
            .and_then(|reader| reader.unindexed_chunk());
        match missing {
            Ok(None) => {}
            Ok(Some(path)) => {
                let what = format!("a chunk of the file `{path}` lies in no pack that it names");
                self.find(ObjectClass::Manifest, &name, &what, REMEDY_COPY);
            }
            Err(Error::Store(StoreError::NotFound { .. } | StoreError::Cold { .. })) => {}
            Err(error) if is_of_all(&error) => return Err(error),
            Err(Error::WrongKey(_) | Error::KeyClosed(_)) => {}
            Err(error) => {
                let known = |it: &Finding| Some(it.object.as_str()) == error.object();
                if !locked(&self.findings).iter().any(known) {
                    self.found(ObjectClass::Manifest, &name, &error);
                }
            }
        }
        Ok(())
    }

    fn finish(
        self,
        objects: &BTreeMap<ObjectClass, Vec<ObjectInfo>>,
        timelines: Vec<TimelineContinuity>,
        newest: Option<Shortfall>,
        cancelled: bool,
    ) -> ReadBack {
        let counts = locked(&self.counts);
        let all = ObjectClass::KNOWN.into_iter().chain([ObjectClass::Foreign]);
        let classes = all.filter_map(|class| {
            let found = objects.get(&class).map_or(&[][..], Vec::as_slice);
            let counts = counts.get(&class);
            (!found.is_empty() || counts.is_some()).then(|| ClassReport {
                class,
                objects: found.len() as u64,
                bytes: found.iter().map(|object| object.size).sum(),
                not_opened: counts.map_or(0, |counts| counts.not_opened),
                cold: counts.map_or(0, |counts| counts.cold),
                gone: counts.map_or(0, |counts| counts.gone),
                findings: counts.map_or(0, |counts| counts.findings),
            })
        });
        let classes = classes.collect();
        let sorted = |all: &Mutex<Vec<Finding>>| {
            let mut all = std::mem::take(&mut *locked(all));
            all.sort_by(|a, b| (a.class, &a.object).cmp(&(b.class, &b.object)));
            all
        };
        ReadBack {
            classes,
            findings: sorted(&self.findings),
            notes: sorted(&self.notes),
            timelines,
            newest,
            closed: std::mem::take(&mut *locked(&self.closed))
                .into_iter()
                .collect(),
            cancelled,
        }
    }
}

fn finding(class: ObjectClass, object: &str, what: &str, remedy: &str) -> Finding {
    Finding {
        class,
        object: object.to_owned(),
        what: what.to_owned(),
        remedy: remedy.to_owned(),
    }
}

/// Not of one object: a bad sector is, an unmounted disk is not.
fn is_of_all(error: &Error) -> bool {
    match error {
        Error::Store(StoreError::Io { .. }) => false,
        error => error.is_unavailable(),
    }
}
