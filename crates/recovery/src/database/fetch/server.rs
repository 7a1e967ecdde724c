//! Answers requests and reads ahead: several threads open the next segments while PostgreSQL replays this one. They
//! wait as files beside its WAL, where a move hands them over.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use postgres_physical::lsn::{parse_segment_name, segment_name};
use postgres_physical::server::{OsUser, remove_tree};
use repository::{Repository, keys::RecipientPrivate, wal::WalReader};

use super::segment_file::place_segment;
use super::{ABSENT, FOUND, STAGED, TROUBLE};
use crate::{Error, Result};

/// WAL that is read ahead of the segment asked for.
const AHEAD_BYTES: u64 = 192 << 20;
/// And at least so many segments.
const AHEAD_MIN: u64 = 4;
const THREADS_MAX: usize = 4;

/// What PostgreSQL may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// The timeline that is recovered to.
    pub timeline: u32,
    /// The timeline that it will open: all between the two count as taken.
    pub reserved: u32,
    pub segment_bytes: u64,
    /// No need to read further ahead than this.
    pub stop_lsn: u64,
}

type Segment = (u32, u64);
type Content = std::result::Result<Option<Piece>, String>;

enum Piece {
    Bytes(Vec<u8>),
    /// A file that whoever asked may move away, and its length.
    Staged(PathBuf, u64),
}

struct SharedState {
    reader: WalReader,
    scope: Scope,
    staging: PathBuf,
    user: OsUser,
    cache: Mutex<BTreeMap<Segment, Slot>>,
    changed: Condvar,
    stopping: AtomicBool,
    served_bytes: AtomicU64,
    trouble: Mutex<Option<String>>,
}

enum Slot {
    Wanted,
    Reading,
    Ready(Content),
}

/// Serves until it is dropped.
pub struct FetchServer {
    socket: PathBuf,
    shared: Arc<SharedState>,
    threads: Vec<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FetchServer {
    /// Only `user` may connect. `staging` is a folder of ours, best in the file system to which the segments will go;
    /// it is made, and removed in the end.
    pub fn start(
        repository: &Repository,
        private: &RecipientPrivate,
        scope: Scope,
        socket: &Path,
        staging: &Path,
        user: &OsUser,
    ) -> Result<Self> {
        remove_tree(staging)?;
        DirBuilder::new()
            .mode(0o700)
            .create(staging)
            .map_err(Error::io("create", staging))?;
        user.own(staging)?;
        let listener = UnixListener::bind(socket).map_err(Error::io("listen on", socket))?;
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))
            .map_err(Error::io("set the mode of", socket))?;
        user.own(socket)?;
        let shared = Arc::new(SharedState {
            reader: WalReader::new(repository, private),
            scope,
            staging: staging.to_owned(),
            user: user.clone(),
            cache: Mutex::default(),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            served_bytes: AtomicU64::new(0),
            trouble: Mutex::default(),
        });
        let mut threads = Vec::new();
        let for_accept = Arc::clone(&shared);
        threads.push(std::thread::spawn(move || accept(&listener, &for_accept)));
        let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        for _ in 0..cores.clamp(2, THREADS_MAX) {
            let for_reading = Arc::clone(&shared);
            threads.push(std::thread::spawn(move || for_reading.read_ahead()));
        }
        Ok(Self {
            socket: socket.to_owned(),
            shared,
            threads,
        })
    }

    /// WAL handed out so far.
    #[must_use]
    pub fn served_bytes(&self) -> u64 {
        self.shared.served_bytes.load(Ordering::Relaxed)
    }

    /// The first thing that could not be handed out although it may exist.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        lock(&self.shared.trouble).clone()
    }
}

impl Drop for FetchServer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.shared.changed.notify_all();
        // Wakes the thread that accepts.
        let _ = UnixStream::connect(&self.socket);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.socket);
        let _ = remove_tree(&self.shared.staging);
    }
}

/// One request at a time: PostgreSQL asks for one file at a time.
fn accept(listener: &UnixListener, shared: &SharedState) {
    for stream in listener.incoming() {
        if shared.stopping.load(Ordering::Relaxed) {
            return;
        }
        let answered = stream.and_then(|stream| answer(stream, shared));
        if let Err(error) = answered {
            tracing::warn!(%error, "a request for WAL was not answered");
        }
    }
}

fn answer(stream: UnixStream, shared: &SharedState) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut name = String::new();
    BufReader::new(&stream).read_line(&mut name)?;
    let name = name.trim_end();
    let (kind, bytes, served) = match shared.content(name) {
        Ok(Some(Piece::Bytes(bytes))) => {
            let served = bytes.len() as u64;
            (FOUND, bytes, served)
        }
        Ok(Some(Piece::Staged(path, served))) => (STAGED, path.into_os_string().into_vec(), served),
        Ok(None) => (ABSENT, Vec::new(), 0),
        Err(message) => {
            lock(&shared.trouble).get_or_insert(format!("{name}: {message}"));
            (TROUBLE, message.into_bytes(), 0)
        }
    };
    shared.served_bytes.fetch_add(served, Ordering::Relaxed);
    let mut stream = stream;
    stream.write_all(&[kind])?;
    stream.write_all(&(bytes.len() as u64).to_be_bytes())?;
    stream.write_all(&bytes)
}

impl SharedState {
    fn content(&self, name: &str) -> Content {
        if let Some(digits) = name.strip_suffix(".history") {
            let timeline =
                u32::from_str_radix(digits, 16).map_err(|_| "no such name".to_owned())?;
            return self.history(timeline);
        }
        match parse_segment_name(name, self.scope.segment_bytes) {
            Some(segment) => self.segment(segment),
            // Backup histories and partial segments are never kept.
            None => Ok(None),
        }
    }

    /// PostgreSQL takes the first number without a history for its new timeline: those before the reserved one are
    /// taken, whatever became of them, and the reserved one and all after it are free.
    fn history(&self, timeline: u32) -> Content {
        if timeline >= self.scope.reserved {
            return Ok(None);
        }
        match self.reader.history(timeline) {
            Ok(Some(bytes)) => Ok(Some(Piece::Bytes(bytes))),
            Ok(None) if timeline > self.scope.timeline => {
                Ok(Some(Piece::Bytes(b"# reserved\n".to_vec())))
            }
            Ok(None) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    fn segment(&self, wanted: Segment) -> Content {
        let mut cache = lock(&self.cache);
        // What PostgreSQL has passed is not asked for again.
        let far = (AHEAD_BYTES / self.scope.segment_bytes).max(AHEAD_MIN);
        cache.retain(|segment, slot| {
            let ahead = segment.0 == wanted.0 && (wanted.1..=wanted.1 + far).contains(&segment.1);
            let kept = ahead || matches!(slot, Slot::Reading);
            if let (false, Slot::Ready(Ok(Some(Piece::Staged(path, _))))) = (kept, &slot) {
                let _ = std::fs::remove_file(path);
            }
            kept
        });
        cache.entry(wanted).or_insert(Slot::Wanted);
        for ahead in wanted.1 + 1..=wanted.1 + far {
            if ahead * self.scope.segment_bytes <= self.scope.stop_lsn {
                cache.entry((wanted.0, ahead)).or_insert(Slot::Wanted);
            }
        }
        self.changed.notify_all();
        loop {
            if let Some(Slot::Ready(_)) = cache.get(&wanted)
                && let Some(Slot::Ready(content)) = cache.remove(&wanted)
            {
                return content;
            }
            if self.stopping.load(Ordering::Relaxed) {
                return Err("recovery is being ended".to_owned());
            }
            cache = self
                .changed
                .wait(cache)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Of the target's timeline nothing behind the stop is needed; a hole there must not keep the WAL before it from
    /// being restored.
    fn read(&self, (timeline, segment): Segment) -> Content {
        let Scope {
            timeline: last,
            segment_bytes,
            stop_lsn,
            ..
        } = self.scope;
        let until = if timeline == last { stop_lsn } else { u64::MAX };
        let path = self
            .staging
            .join(segment_name(timeline, segment, segment_bytes));
        match place_segment(&self.reader, (timeline, segment), until, &path) {
            Ok(Some(bytes)) => {
                self.user.own(&path).map_err(|error| error.to_string())?;
                Ok(Some(Piece::Staged(path, bytes)))
            }
            Ok(None) => Ok(None),
            Err(Error::Repository(repository::Error::WalHole { .. }))
                if segment * segment_bytes > until =>
            {
                Ok(None)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn read_ahead(&self) {
        let mut cache = lock(&self.cache);
        while !self.stopping.load(Ordering::Relaxed) {
            let next = cache
                .iter()
                .find(|(_, slot)| matches!(slot, Slot::Wanted))
                .map(|(segment, _)| *segment);
            let Some(segment) = next else {
                cache = self
                    .changed
                    .wait(cache)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            cache.insert(segment, Slot::Reading);
            drop(cache);
            let content = self.read(segment);
            cache = lock(&self.cache);
            cache.insert(segment, Slot::Ready(content));
            self.changed.notify_all();
        }
    }
}

impl std::fmt::Debug for FetchServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "FetchServer({}, {:?})",
            self.socket.display(),
            self.shared.scope
        )
    }
}
