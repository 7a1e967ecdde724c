//! A second repository with the same backups and WAL: sealed objects are copied as they are, read back and compared, and a manifest
//! comes last, so that a copy that was killed is no backup. Killed anywhere, it goes on where it was.
//!
//! What the other repository's rules would let go at once is not brought there. Proofs are not copied: a copy counts as proved when it
//! was restored itself.

mod snapshots;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::backup::{BackupKind, BackupState, BackupSummary, catalogue};
use crate::error::{Error, Result, StoreError};
use crate::keys::RecipientPrivate;
use crate::manifest::manifest_name;
use crate::pack::pack_name;
use crate::pipeline::{BOX_HEADER, BoxHeader, ObjectHeader, read_header};
use crate::references;
use crate::retention::{Rules, packs_of};
use crate::store::{ObjectInfo, Store};
use crate::wal::{WalName, wal_inventory};
use crate::{Progress, Repository};

/// Objects under way at a time.
const AT_ONCE: usize = 4;
/// A pack, and a segment of PostgreSQL's usual size, are no longer.
const WHOLE_BYTES_MAX: u64 = 34 << 20;
/// Of a longer object, in memory at a time, for each that is under way.
const PIECE_BYTES: usize = 8 << 20;
/// The clocks of store and server may differ by so much.
const CLOCKS_MICROS: i64 = 10_000_000;

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CopyReport {
    pub backups: u64,
    pub snapshots: u64,
    pub objects: u64,
    pub bytes: u64,
    /// Tails that their segments stand for now.
    pub superseded: u64,
    /// The end of the newest timeline's WAL, there and here.
    pub wal_end_lsn: u64,
    pub wal_end_lsn_source: u64,
    /// The last server time that the copy can prove.
    pub until_micros: i64,
    /// Backups that went at the source meanwhile, and other things that are nobody's fault.
    pub notes: Vec<String>,
}

/// Which backups, and what of them and of the WAL the rules of `to` would keep.
#[derive(Debug)]
pub struct CopyOptions<'a> {
    /// One; all that `rules` keep when absent.
    pub backup: Option<&'a str>,
    pub rules: Rules,
    /// For backups without a pack list.
    pub private: Option<&'a RecipientPrivate>,
    /// From when the rules count.
    pub now_micros: i64,
}

pub fn copy(
    from: &Repository,
    to: &Repository,
    options: &CopyOptions<'_>,
    progress: &dyn Progress,
) -> Result<CopyReport> {
    if from.id() == to.id() {
        return Err(Error::Input(format!(
            "{} and {} are the same repository",
            from.describe(),
            to.describe()
        )));
    }
    if let Some(cluster) = from.cluster()? {
        to.bind_cluster(cluster, &format!("the copy of {}", from.describe()))?;
    }
    let copy = Copy {
        from,
        to,
        options,
        progress,
        now: options.now_micros,
        objects: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
    };
    copy.run()
}

struct Copy<'a> {
    from: &'a Repository,
    to: &'a Repository,
    options: &'a CopyOptions<'a>,
    progress: &'a dyn Progress,
    now: i64,
    objects: AtomicU64,
    bytes: AtomicU64,
}

impl Copy<'_> {
    fn run(&self) -> Result<CopyReport> {
        let mut done = CopyReport::default();
        // Heads before the WAL that they stand for; they are put after it.
        let heads = self.from.store().list("heads/")?;
        let backups = self.chosen()?;
        // Keys and histories before anything that needs them; the audit archive, which has keys of its own, whole.
        for prefix in [
            "wraps/",
            "timelines/",
            "audit/wraps/",
            "audit/entries/",
            "logs/",
            "signing-keys/",
            "cosigned/",
        ] {
            let all = self.from.store().list(prefix)?;
            let lasting = |o: &ObjectInfo| prefix != "timelines/" || o.name.ends_with(".history");
            self.bring(&all.into_iter().filter(lasting).collect::<Vec<_>>())?;
        }
        let oldest_open = self.bring_wal(&backups)?;
        for backup in &backups {
            if self.progress.cancelled() {
                break;
            }
            match self.bring_backup(backup) {
                Ok(new) => done.backups += u64::from(new),
                // Expiry at the source does not wait for us.
                Err(Error::Store(StoreError::NotFound { object, .. })) => done.notes.push(format!(
                    "backup {} was not copied: `{object}` is gone at the source",
                    backup.id
                )),
                Err(error) => return Err(error),
            }
        }
        self.bring_snapshots(&mut done)?;
        let proven = |head: &ObjectInfo| {
            oldest_open.is_none_or(|open| head.modified_micros < open - CLOCKS_MICROS)
        };
        // Which heads were let go of, before those that name them.
        self.bring(&self.from.store().list("thinned/")?)?;
        self.bring(&heads.into_iter().filter(proven).collect::<Vec<_>>())?;
        done.superseded = self.drop_superseded()?;
        (done.wal_end_lsn, done.until_micros) = end_of(self.to)?;
        (done.wal_end_lsn_source, _) = end_of(self.from)?;
        done.objects = self.objects.load(Ordering::Relaxed);
        done.bytes = self.bytes.load(Ordering::Relaxed);
        Ok(done)
    }

    /// Oldest first, so that what is there already makes a whole from the first one on.
    fn chosen(&self) -> Result<Vec<BackupSummary>> {
        let all = catalogue(self.from)?.backups;
        let Some(id) = self.options.backup else {
            let kept = kept_by(&self.options.rules, self.now, &all);
            return Ok(all.into_iter().filter(|b| kept.contains(&b.id)).collect());
        };
        let found = all.into_iter().find(|backup| backup.id == id);
        match found {
            Some(backup) if backup.state == BackupState::Complete => Ok(vec![backup]),
            Some(_) => Err(Error::Input(format!(
                "backup {id} is not complete: nothing that is worth a copy"
            ))),
            None => Err(Error::Input(format!(
                "there is no backup {id} in {}",
                self.from.describe()
            ))),
        }
    }

    /// Whole segments, tails that grow no more, and holes. Returns the server time at which the oldest tail began that was left out.
    fn bring_wal(&self, backups: &[BackupSummary]) -> Result<Option<i64>> {
        let floor = Floor::of(&self.options.rules, self.now, backups);
        let wanted = |object: &ObjectInfo| {
            WalName::parse(&object.name).is_ok_and(|name| floor.takes(name, object))
        };
        // Tails first: what is sealed meanwhile then shows among the segments.
        let tails = self.from.store().list("tail/")?;
        let segments = self.from.store().list("wal/")?;
        let whole: BTreeSet<WalName> = segments
            .iter()
            .filter_map(|object| WalName::parse(&object.name).ok())
            .collect();
        let open = match self.from.store().appends() {
            true => open_tails(&tails),
            false => BTreeSet::new(),
        };
        self.bring(&segments.into_iter().filter(wanted).collect::<Vec<_>>())?;
        let (mut closed, mut oldest_open) = (Vec::new(), None);
        for tail in tails.into_iter().filter(wanted) {
            if WalName::parse(&tail.name).is_ok_and(|name| whole.contains(&name)) {
                continue;
            }
            if open.contains(&tail.name) {
                let began = self.began(&tail)?;
                oldest_open = Some(oldest_open.map_or(began, |oldest: i64| oldest.min(began)));
            } else {
                closed.push(tail);
            }
        }
        self.bring(&closed)?;
        self.bring(&self.from.store().list("holes/")?)?;
        Ok(oldest_open)
    }

    /// The server's time in its first frame; 0 when nobody can tell.
    fn began(&self, tail: &ObjectInfo) -> Result<i64> {
        let len = match read_header(self.from.store(), &tail.name) {
            Ok((_, len)) => len as u64,
            Err(error) if error.is_unavailable() => return Err(error),
            Err(_) => return Ok(0),
        };
        match self.from.store().get_range(&tail.name, len, BOX_HEADER) {
            Ok(bytes) => {
                let first = bytes.first_chunk().and_then(BoxHeader::decode);
                Ok(first.map_or(0, |header| header.label_b))
            }
            Err(StoreError::Damaged { .. } | StoreError::NotFound { .. }) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// False when it is there already.
    fn bring_backup(&self, backup: &BackupSummary) -> Result<bool> {
        let manifest = manifest_name(&backup.id);
        if references::expiring(self.to)?.contains(&backup.id) {
            return Ok(false);
        }
        let there = self.to.store().list(&format!("backups/{}/", backup.id))?;
        if there.iter().any(|object| object.name == manifest) {
            return Ok(false);
        }
        self.progress.message(&format!("backup {}", backup.id));
        let packs = packs_of(self.from, self.options.private, &backup.id)?.ok_or_else(|| {
            Error::Missing {
                object: format!("backups/{}/packs-…", backup.id),
                needed_by: "the copy".to_owned(),
                remedy: "Copy it where the private key is: the manifest says it too",
            }
        })?;
        self.bring_packs(&packs, &format!("backup {}", backup.id))?;
        if self.progress.cancelled() {
            return Ok(false);
        }
        // As any writer of a manifest: what it refers to is there, stays, and is on record.
        references::record_references(self.to, &backup.id, &packs.into_iter().collect::<Vec<_>>())?;
        self.one(&manifest, None)?;
        Ok(true)
    }

    /// All of these packs, before the manifest that refers to them.
    fn bring_packs(&self, packs: &BTreeSet<String>, of: &str) -> Result<()> {
        let wanted: BTreeSet<String> = packs.iter().map(|id| pack_name(id)).collect();
        let mut infos = self.from.store().list("packs/")?;
        infos.retain(|info| wanted.contains(&info.name));
        if infos.len() < wanted.len() {
            return Err(StoreError::NotFound {
                store: self.from.describe(),
                object: format!("a pack of {of}"),
            }
            .into());
        }
        self.bring(&infos)
    }

    /// What is not there yet.
    fn bring(&self, objects: &[ObjectInfo]) -> Result<()> {
        let Some(prefix) = objects.first().and_then(|o| o.name.split('/').next()) else {
            return Ok(());
        };
        let there = self.to.store().list(&format!("{prefix}/"))?;
        let there: BTreeMap<&str, u64> = there.iter().map(|o| (o.name.as_str(), o.size)).collect();
        let missing: Vec<&ObjectInfo> = objects
            .iter()
            .filter(|object| there.get(object.name.as_str()) != Some(&object.size))
            .collect();
        let total: u64 = missing.iter().map(|object| object.size).sum();
        self.progress.total(total);
        let queue = Mutex::new(missing.into_iter());
        let next = || queue.lock().ok()?.next();
        std::thread::scope(|scope| {
            let work = || -> Result<()> {
                while let Some(object) = next() {
                    if self.progress.cancelled() {
                        return Ok(());
                    }
                    self.one(&object.name, Some(object.size))?;
                    self.progress.advance(object.size);
                }
                Ok(())
            };
            let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
            let ended = threads.into_iter().map(|thread| {
                let died = || Error::Input("a copying thread ended".to_owned());
                thread.join().unwrap_or_else(|_| Err(died()))
            });
            ended.collect()
        })
    }

    /// Its bytes; what is there under the name already must be the same. A long object (a segment of a server with
    /// larger ones, a stretch of the archive) is never in memory as a whole.
    fn one(&self, name: &str, size: Option<u64>) -> Result<()> {
        match size {
            Some(size) if size > WHOLE_BYTES_MAX => self.one_in_pieces(name, size),
            _ => self.one_whole(name, size),
        }
    }

    fn one_whole(&self, name: &str, size: Option<u64>) -> Result<()> {
        let bytes = match self.from.store().get(name) {
            // Superseded or expired since it was listed; a backup's packs are counted.
            Err(StoreError::NotFound { .. }) if !is_of_backup(name) => return Ok(()),
            other => other?,
        };
        if size.is_some_and(|size| size != bytes.len() as u64) {
            return Err(Error::damaged(
                name,
                bytes.len() as u64,
                "it is not as long as listed",
            ));
        }
        check_whole(name, &bytes)?;
        self.note(self.to.store().put(name, &bytes), bytes.len() as u64)?;
        match self.to.store().get(name)? == bytes {
            true => Ok(()),
            false => Err(self.differs(name)),
        }
    }

    fn one_in_pieces(&self, name: &str, size: u64) -> Result<()> {
        let (from, to) = (self.from.store(), self.to.store());
        let piece = |store: &dyn Store, at: u64| {
            let len = usize::try_from(size - at).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
            store.get_range(name, at, len)
        };
        let first = match piece(from, 0) {
            Err(StoreError::NotFound { .. }) if !is_of_backup(name) => return Ok(()),
            other => other?,
        };
        if from.size(name)? != size {
            return Err(Error::damaged(name, size, "it is not as long as listed"));
        }
        check_whole(name, &first)?;
        drop(first);
        let (mut at, mut sent) = (0, blake3::Hasher::new());
        let mut next = || -> std::result::Result<Option<Vec<u8>>, StoreError> {
            if at == size {
                return Ok(None);
            }
            let bytes = piece(from, at)?;
            sent.update(&bytes);
            at += bytes.len() as u64;
            Ok(Some(bytes))
        };
        let put = to.put_pieces(name, &mut next);
        let is_new = put.is_ok();
        self.note(put, size)?;
        // What is there already was not read here to its end.
        while !is_new && next()?.is_some() {}
        if to.size(name)? != size {
            return Err(self.differs(name));
        }
        let (mut at, mut there) = (0, blake3::Hasher::new());
        while at < size {
            let bytes = piece(to, at)?;
            there.update(&bytes);
            at += bytes.len() as u64;
        }
        match there.finalize() == sent.finalize() {
            true => Ok(()),
            false => Err(self.differs(name)),
        }
    }

    /// What came of a put; one that is there already is none.
    fn note(&self, put: std::result::Result<(), StoreError>, bytes: u64) -> Result<()> {
        match put {
            Ok(()) => {
                self.objects.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(bytes, Ordering::Relaxed);
                Ok(())
            }
            Err(StoreError::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn differs(&self, name: &str) -> Error {
        let what = format!(
            "in {} it differs from the one in {}",
            self.to.describe(),
            self.from.describe()
        );
        Error::damaged(name, 0, what)
    }

    /// As the sealer does: a whole segment stands for its tails.
    fn drop_superseded(&self) -> Result<u64> {
        let tails = self.to.store().list("tail/")?;
        let whole: BTreeSet<WalName> = self
            .to
            .store()
            .list("wal/")?
            .iter()
            .filter_map(|object| WalName::parse(&object.name).ok())
            .collect();
        let mut dropped = 0;
        for tail in tails {
            if !WalName::parse(&tail.name).is_ok_and(|name| whole.contains(&name)) {
                continue;
            }
            match self.to.store().delete(&tail.name) {
                Ok(()) => dropped += 1,
                Err(StoreError::NotFound { .. } | StoreError::Locked { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(dropped)
    }
}

fn is_of_backup(name: &str) -> bool {
    name.starts_with("packs/") || name.starts_with("backups/") || name.starts_with("snapshots/")
}

/// Sealed objects say themselves whether their first bytes are whole; damage is not spread.
fn check_whole(name: &str, bytes: &[u8]) -> Result<()> {
    let is_sealed = ["packs/", "wal/", "tail/"]
        .iter()
        .any(|p| name.starts_with(p))
        || name.ends_with("/manifest")
        || name.ends_with(".history");
    match is_sealed {
        true => ObjectHeader::decode(name, bytes).map(drop),
        false => Ok(()),
    }
}

/// What expiry there would keep, were it all there: young enough, or what the window starts from.
fn kept_by(rules: &Rules, now: i64, all: &[BackupSummary]) -> BTreeSet<String> {
    let complete = || all.iter().filter(|b| b.state == BackupState::Complete);
    let base = base_of(rules, now, complete());
    let young = complete().filter(|backup| {
        let age_max = match backup.kind {
            BackupKind::Full => rules.full_micros,
            BackupKind::Incremental => rules.incremental_micros,
        };
        backup.finished_at_micros >= now - age_max
    });
    let newest = complete().max_by_key(|backup| backup.finished_at_micros);
    young
        .chain(base)
        .chain(newest)
        .map(|b| b.id.clone())
        .collect()
}

/// From which backup the window is replayed.
fn base_of<'a>(
    rules: &Rules,
    now: i64,
    backups: impl Iterator<Item = &'a BackupSummary>,
) -> Option<&'a BackupSummary> {
    let before = backups.filter(|backup| backup.finished_at_micros <= now - rules.wal_micros);
    before.max_by_key(|backup| backup.finished_at_micros)
}

/// Which WAL is worth bringing.
struct Floor {
    young_from_micros: i64,
    /// Timeline and segment where the window's WAL begins.
    window: Option<(u32, u64)>,
    pins: Vec<(u32, u64, u64)>,
}

impl Floor {
    fn of(rules: &Rules, now: i64, backups: &[BackupSummary]) -> Self {
        let segment = |backup: &BackupSummary, lsn: u64| lsn / backup.wal_segment_bytes.max(1);
        let base = base_of(rules, now, backups.iter());
        let base = base.or(backups.first());
        Self {
            young_from_micros: now - rules.wal_micros,
            window: base.map(|b| (b.timeline, segment(b, b.start_lsn))),
            pins: backups
                .iter()
                .map(|b| (b.timeline, segment(b, b.start_lsn), segment(b, b.stop_lsn)))
                .collect(),
        }
    }

    fn takes(&self, name: WalName, object: &ObjectInfo) -> bool {
        let WalName { timeline, segment } = name;
        object.modified_micros >= self.young_from_micros
            || self
                .window
                .is_some_and(|window| (timeline, segment) >= window)
            || self
                .pins
                .iter()
                .any(|(on, from, to)| *on == timeline && (*from..=*to).contains(&segment))
    }
}

/// Where tails are appended to, the last one of each segment may grow.
fn open_tails(tails: &[ObjectInfo]) -> BTreeSet<String> {
    let mut last: BTreeMap<(WalName, &str), (u64, u64, &str)> = BTreeMap::new();
    for tail in tails {
        let (Ok(name), Some((lsn, span, serial))) = (WalName::parse(&tail.name), parts(&tail.name))
        else {
            continue;
        };
        let newest = last
            .entry((name, span))
            .or_insert((lsn, serial, &tail.name));
        *newest = (*newest).max((lsn, serial, &tail.name));
    }
    last.into_values()
        .map(|(_, _, name)| name.to_owned())
        .collect()
}

/// Of a tail's name: its first LSN, who wrote it, and which of that writer's tails it is.
fn parts(name: &str) -> Option<(u64, &str, u64)> {
    let (lsn, span) = name.rsplit('/').next()?.split_once('.')?;
    let (writer, serial) = span.rsplit_once('-')?;
    let number = |hex: &str| u64::from_str_radix(hex, 16).ok();
    Some((number(lsn)?, writer, number(serial)?))
}

fn end_of(repository: &Repository) -> Result<(u64, i64)> {
    let inventory = wal_inventory(repository)?;
    let newest = inventory.timelines.values().next_back();
    let last = newest.and_then(|wal| wal.intervals.last());
    Ok(last.map_or((0, 0), |interval| (interval.end, interval.end_time_micros)))
}
