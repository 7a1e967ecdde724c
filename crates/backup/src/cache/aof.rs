//! Copies of the append-only file that always load, taken while the server writes and rewrites it.
//!
//! The manifest is read, every file that it names is opened, and the manifest is read again: when it is the same, the
//! open files are one consistent set, and stay so while the server continues. Complete files are linked, the newest is
//! copied up to a whole command. Then a server loads the copy; only after that it counts.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redis_physical::aof::{
    AofCopy, COPY_VERSION, CopyFacts, FACTS, Manifest, UNFINISHED, copies, first_moment_seconds,
    scan_file,
};
use redis_physical::{
    Info, Program, RedisError, RedisSession, RedisSettings, ScratchFiles, ScratchRedis,
    end_leftovers,
};

use super::files::{
    available_bytes, copy_synced, failed, link, make_folder, remove, sync_folder, write_synced,
};
use super::{CacheError, databases, keys, millis_since, server_folder};
use crate::{Progress, now_micros, random_suffix};

type Result<T, E = CacheError> = std::result::Result<T, E>;

/// A manifest changes at the start and at the end of a rewrite; opening a few files takes far less.
const ATTEMPTS: u32 = 100;
/// Sizes that do not fit may be a rewrite that just ended.
const SIZE_ATTEMPTS: u32 = 5;
/// A server writes what it acknowledged at the latest after two seconds, also while an fsync hangs.
const WRITE_TIMEOUT: Duration = Duration::from_secs(3);
const REWRITE_TIMEOUT: Duration = Duration::from_secs(600);
/// What stays free for everything else.
pub const DISK_RESERVE_BYTES: u64 = 64 << 20;
const SCRATCH: &str = "scratch";

#[derive(Clone, Copy)]
pub struct CopyOptions<'a> {
    /// Each copy is a folder in it.
    pub copies: &'a Path,
    pub disk_reserve_bytes: u64,
    /// Found by itself when absent.
    pub program: Option<&'a Program>,
}

impl std::fmt::Debug for CopyOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyOptions")
            .field("copies", &self.copies)
            .finish_non_exhaustive()
    }
}

/// The server's own folder and names.
struct Place {
    server: String,
    folder: PathBuf,
    folder_name: String,
    name: String,
}

/// Open files of one moment.
struct OpenFiles {
    manifest: Manifest,
    files: Vec<(PathBuf, File, u64)>,
    taken_at_micros: i64,
}

/// One at a time in a folder of copies: what an interrupted one left there is removed first.
pub fn copy_aof(
    settings: &RedisSettings,
    options: CopyOptions<'_>,
    progress: &dyn Progress,
) -> Result<AofCopy> {
    let cancelled = || progress.cancelled();
    let root = options.copies;
    make_folder(root)?;
    end_leftovers(root);
    remove_unfinished(root)?;
    let mut session = RedisSession::open(settings)?;
    let info = session.primary()?;
    if !info.has_aof_folder() {
        let (place, version) = (session.place().to_owned(), info.version());
        return Err(RedisError::Version { place, version }.into());
    }
    let found;
    let program = match options.program {
        Some(program) => program,
        None => {
            found = Program::find(info.kind())?;
            &found
        }
    };
    let place = place(&mut session)?;
    progress.message("pinning the files of the append-only file");
    let pinned = pin(&mut session, &place, progress)?;
    let newest_bytes = pinned.files.last().map_or(0, |(_, _, bytes)| *bytes);
    let needed = newest_bytes
        .saturating_mul(2)
        .saturating_add(options.disk_reserve_bytes);
    let available = available_bytes(root)?;
    if available < needed {
        let folder = root.to_owned();
        return Err(CacheError::NoDisk {
            folder,
            needed,
            available,
        });
    }
    let id = id(pinned.taken_at_micros);
    let unfinished = root.join(format!("{id}{UNFINISHED}"));
    let written = (|| {
        let mut facts = CopyFacts {
            copy_version: COPY_VERSION,
            taken_at_micros: pinned.taken_at_micros,
            server: info.version(),
            run_id: info.text("run_id").to_owned(),
            databases: databases(&mut session)?,
            folder: place.folder_name.clone(),
            name: place.name.clone(),
            bytes: 0,
            bytes_linked: 0,
            bytes_cut: 0,
            keys: 0,
            load_millis: None,
            first_moment_seconds: None,
            last_moment_seconds: None,
        };
        progress.message("copying the append-only file");
        write_files(&unfinished, &pinned, &mut facts)?;
        progress.message("starting a server that loads the copy");
        let began = Instant::now();
        facts.keys = load(
            program,
            root,
            &unfinished,
            &pinned.manifest,
            &facts,
            &cancelled,
        )?;
        facts.load_millis = Some(millis_since(began));
        let text = serde_json::to_vec_pretty(&facts).map_err(io::Error::from);
        let text = text.map_err(failed("write", &unfinished))?;
        write_synced(&unfinished.join(FACTS), &text)?;
        sync_folder(&unfinished)?;
        Ok(facts)
    })();
    let scratch = root.join(format!("{SCRATCH}{UNFINISHED}"));
    remove(&scratch)?;
    let facts = match written {
        Ok(facts) => facts,
        Err(error) => {
            remove(&unfinished)?;
            return Err(error);
        }
    };
    let path = root.join(&id);
    fs::rename(&unfinished, &path).map_err(failed("rename", &unfinished))?;
    sync_folder(root)?;
    Ok(AofCopy { id, path, facts })
}

fn remove_unfinished(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root).map_err(failed("read", root))? {
        let entry = entry.map_err(failed("read", root))?;
        if entry.file_name().to_string_lossy().ends_with(UNFINISHED) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn id(micros: i64) -> String {
    let moment = jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{}-{}", moment.strftime("%Y%m%dT%H%M%SZ"), random_suffix())
}

fn place(session: &mut RedisSession) -> Result<Place> {
    let server = session.place().to_owned();
    if session.known_setting("appendonly")? != "yes" {
        return Err(CacheError::AofOff { place: server });
    }
    let root = server_folder(session)?;
    super::files::readable(&server, &root)?;
    let folder_name = session.known_setting("appenddirname")?;
    Ok(Place {
        server,
        folder: root.join(&folder_name),
        folder_name,
        name: session.known_setting("appendfilename")?,
    })
}

/// Whether there is one that can be read here.
pub(super) fn check(session: &mut RedisSession) -> Result<()> {
    let info = session.info()?;
    if !info.has_aof_folder() {
        let (place, version) = (session.place().to_owned(), info.version());
        return Err(RedisError::Version { place, version }.into());
    }
    let place = place(session)?;
    place.manifest().map(drop)
}

impl Place {
    /// None: it is not there (yet).
    fn manifest(&self) -> Result<Option<Manifest>> {
        let path = self.folder.join(format!("{}.manifest", self.name));
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(CacheError::FolderNotReadable {
                    place: self.server.clone(),
                    folder: self.folder.clone(),
                    reason: error.to_string(),
                });
            }
            other => other.map_err(failed("read", &path))?,
        };
        let parsed = Manifest::parse(&text);
        Ok(Some(
            parsed.map_err(|fault| RedisError::Manifest { path, fault })?,
        ))
    }

    /// None: a file was replaced meanwhile.
    fn open(&self, manifest: Manifest) -> Result<Option<OpenFiles>> {
        let mut files = Vec::new();
        for file in manifest.files() {
            let path = self.folder.join(&file.name);
            match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => files.push((path.clone(), opened.map_err(failed("read", &path))?, 0)),
            }
        }
        if self.manifest()?.as_ref() != Some(&manifest) {
            return Ok(None);
        }
        let taken_at_micros = now_micros();
        for (path, file, bytes) in &mut files {
            *bytes = file.metadata().map_err(failed("read", path))?.len();
        }
        Ok(Some(OpenFiles {
            manifest,
            files,
            taken_at_micros,
        }))
    }
}

fn pin(session: &mut RedisSession, place: &Place, progress: &dyn Progress) -> Result<OpenFiles> {
    wait_written(session, progress)?;
    let mut unlike = 0;
    for _ in 0..ATTEMPTS {
        if progress.cancelled() {
            return Err(RedisError::Cancelled.into());
        }
        let before = session.persistence()?;
        let Some(manifest) = place.manifest()? else {
            // Just switched on: the first file is being written.
            if before.is("aof_rewrite_in_progress", "1") || before.is("aof_rewrite_scheduled", "1")
            {
                let idle = |info: &Info| {
                    info.is("aof_rewrite_in_progress", "0") && info.is("aof_rewrite_scheduled", "0")
                };
                session.persistence_until(
                    "a rewrite",
                    REWRITE_TIMEOUT,
                    &|| progress.cancelled(),
                    idle,
                )?;
                continue;
            }
            return Err(CacheError::OtherFiles {
                place: place.server.clone(),
                path: place.folder.clone(),
                what: format!("there is no {}.manifest", place.name),
            });
        };
        let Some(pinned) = place.open(manifest)? else {
            continue;
        };
        let after = session.persistence()?;
        match fits(&pinned, &before, &after) {
            Ok(()) => return Ok(pinned),
            Err(what) if unlike == SIZE_ATTEMPTS => {
                return Err(CacheError::OtherFiles {
                    place: place.server.clone(),
                    path: place.folder.clone(),
                    what,
                });
            }
            Err(_) => unlike += 1,
        }
    }
    Err(CacheError::Replaced {
        place: place.server.clone(),
        attempts: ATTEMPTS,
    })
}

/// While an fsync takes its time a server answers before it writes to its file. When this returns the file has
/// everything that was acknowledged before.
fn wait_written(session: &mut RedisSession, progress: &dyn Progress) -> Result<()> {
    // It writes before it sends this answer, unless one of these is so.
    let written =
        |info: &Info| info.is("aof_pending_bio_fsync", "0") || info.is("aof_buffer_length", "0");
    let cancelled = || progress.cancelled();
    match session.persistence_until("a write", WRITE_TIMEOUT, &cancelled, written) {
        Err(RedisError::Timeout { .. }) | Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Another server's folder under the same name has other sizes: what the server says of its own, just before and just
/// after, is around what is here. It does not count a base that was written empty.
fn fits(pinned: &OpenFiles, before: &Info, after: &Info) -> Result<(), String> {
    let size = |info: &Info| {
        info.number("aof_current_size")
            .and_then(|it| u64::try_from(it).ok())
    };
    let (Some(least), Some(most)) = (size(before), size(after)) else {
        return Ok(());
    };
    let all: u64 = pinned.files.iter().map(|(_, _, bytes)| bytes).sum();
    let base = match (&pinned.manifest.base, pinned.files.first()) {
        (Some(_), Some((_, _, bytes))) => *bytes,
        _ => 0,
    };
    // A rewrite that ends between the two makes it smaller.
    let range = least.min(most)..=least.max(most);
    match range.contains(&all) || range.contains(&(all - base)) {
        true => Ok(()),
        false => Err(format!("it writes {most} bytes, here are {all}")),
    }
}

fn write_files(unfinished: &Path, pinned: &OpenFiles, facts: &mut CopyFacts) -> Result<()> {
    let folder = unfinished.join(&facts.folder);
    make_folder(&folder)?;
    let newest = pinned.manifest.newest();
    for ((path, open, bytes), file) in pinned.files.iter().zip(pinned.manifest.files()) {
        let to = folder.join(&file.name);
        if newest != Some(file) {
            match link(path, open, &to)? {
                true => facts.bytes_linked += bytes,
                false => copy_synced(open, *bytes, &to)?,
            }
            facts.bytes += bytes;
            continue;
        }
        copy_synced(open, *bytes, &to)?;
        let scan = scan_file(&to)?;
        if let Some((offset, fault)) = scan.damage {
            let path = path.clone();
            return Err(RedisError::Damaged {
                path,
                offset,
                fault,
            }
            .into());
        }
        let cut = File::options().write(true).open(&to).and_then(|file| {
            file.set_len(scan.whole_bytes)?;
            file.sync_all()
        });
        cut.map_err(failed("write", &to))?;
        facts.bytes += scan.whole_bytes;
        facts.bytes_cut = bytes - scan.whole_bytes;
        facts.last_moment_seconds = scan.last_moment_seconds;
    }
    facts.first_moment_seconds = first_moment_seconds(&folder, &pinned.manifest)?;
    let manifest = folder.join(format!("{}.manifest", facts.name));
    write_synced(&manifest, pinned.manifest.to_string().as_bytes())?;
    sync_folder(&folder)
}

/// In a folder of its own: a server that runs writes to its newest file (keys expire). How many keys it found.
fn load(
    program: &Program,
    root: &Path,
    copy: &Path,
    manifest: &Manifest,
    facts: &CopyFacts,
    cancelled: &dyn Fn() -> bool,
) -> Result<u64> {
    let scratch = root.join(format!("{SCRATCH}{UNFINISHED}"));
    let (from, to) = (copy.join(&facts.folder), scratch.join(&facts.folder));
    make_folder(&to)?;
    let mut names: Vec<String> = manifest.files().map(|file| file.name.clone()).collect();
    names.push(format!("{}.manifest", facts.name));
    for name in names {
        let (from, to) = (from.join(&name), to.join(&name));
        let grows = manifest.newest().is_some_and(|newest| newest.name == name);
        let placed = match grows {
            true => fs::copy(&from, &to).map(drop),
            false => fs::hard_link(&from, &to),
        };
        placed.map_err(failed("write", &to))?;
    }
    let files = ScratchFiles::Aof {
        folder: &facts.folder,
        name: &facts.name,
    };
    let started = ScratchRedis::start(program, &scratch, files, facts.databases, cancelled);
    let server = started.map_err(|error| match error {
        RedisError::Load { .. } => CacheError::NotLoaded(error),
        other => other.into(),
    })?;
    let keys = keys(&server.session()?.info()?);
    server.end();
    Ok(keys)
}

/// Deletes copies that are older than the limit, and those that a later one covers; the newest stays at any age. Which
/// ones went.
pub fn expire_copies(root: &Path, now_micros: i64, keep: Duration) -> Result<Vec<String>> {
    let (all, _) = copies(root)?;
    let limit = now_micros.saturating_sub(i64::try_from(keep.as_micros()).unwrap_or(i64::MAX));
    let mut going = BTreeSet::new();
    for (at, copy) in all.iter().enumerate() {
        let Some(next) = all.get(at + 1) else {
            break;
        };
        if copy.facts.taken_at_micros < limit || copy.is_covered_by(next)? {
            going.insert(copy.id.clone());
        }
    }
    for id in &going {
        // One that is half deleted counts no more.
        let (path, unfinished) = (root.join(id), root.join(format!("{id}{UNFINISHED}")));
        fs::rename(&path, &unfinished).map_err(failed("rename", &path))?;
        remove(&unfinished)?;
    }
    if !going.is_empty() {
        sync_folder(root)?;
    }
    Ok(going.into_iter().collect())
}
