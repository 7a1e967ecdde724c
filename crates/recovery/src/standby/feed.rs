//! Puts the repository's WAL into the standby's `pg_wal`, where PostgreSQL looks for it several times a second.
//! Segments appear whole; the newest one is filled in place as its tail grows, as a WAL receiver does. Nothing is
//! written twice, and no process is started for it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use postgres_physical::lsn::{Lsn, segment_name};
use postgres_physical::server::OsUser;
use postgres_physical::timeline::history_file_name;
use postgres_physical::wal::{Decoder, Step};
use repository::{
    Repository,
    keys::RecipientPrivate,
    wal::{SegmentView, WalReader},
};

use super::error::{StandbyError, StandbyResult};
use super::state::{put_whole, put_written, sync};
use crate::database::{Piece, path_to};

/// One call places no more than this many segments, so that whoever waits is heard.
const AT_ONCE: u64 = 4;
/// Of WAL that is in place, read at a time.
const READ_BYTES: u64 = 16 << 20;
/// How often an idle end is compared with a listing of the whole timeline.
const LATER_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FeedProgress {
    /// All that the repository holds is in place.
    AtEnd,
    /// There is more, or may be.
    More,
    /// WAL behind this place is here, WAL at it is not.
    Hole { timeline: u32, at: u64 },
}

/// The segment that is being filled.
struct OpenSegment {
    timeline: u32,
    segment: u64,
    /// Made when there is something to put into it.
    file: Option<File>,
    seen: SegmentView,
    objects: u64,
}

pub(super) struct Feeder {
    repository: Repository,
    reader: WalReader,
    wal: PathBuf,
    user: OsUser,
    segment_bytes: u64,
    /// The way to the timeline that is followed, oldest first.
    path: Vec<Piece>,
    /// Everything before it is in place.
    at: u64,
    open: Option<OpenSegment>,
    /// Objects of segments that are in place as a whole.
    objects: u64,
    /// The newest server time that the repository confirms, 0 when unknown.
    pub(super) confirmed_at_micros: i64,
    later_asked: Option<Instant>,
}

impl Feeder {
    /// From the start of the segment that holds `from`.
    pub(super) fn new(
        (repository, private): (&Repository, &RecipientPrivate),
        data: &Path,
        user: &OsUser,
        (timeline, segment_bytes, from): (u32, u64, u64),
    ) -> StandbyResult<Self> {
        let reader = WalReader::new(repository, private);
        let path = path_to(&reader, timeline)?;
        let feeder = Self {
            repository: repository.clone(),
            reader,
            wal: data.join("pg_wal"),
            user: user.clone(),
            segment_bytes,
            path,
            at: from / segment_bytes * segment_bytes,
            open: None,
            objects: 0,
            confirmed_at_micros: 0,
            later_asked: None,
        };
        for piece in &feeder.path {
            if let Some(history) = feeder.reader.history(piece.timeline)? {
                feeder.put(&history_file_name(piece.timeline), &history)?;
            }
        }
        Ok(feeder)
    }

    pub(super) fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn timeline(&self) -> u32 {
        self.path.last().map_or(1, |piece| piece.timeline)
    }

    /// Objects of which every byte is in place, and those of the newest segment.
    pub(super) fn objects(&self) -> u64 {
        self.objects + self.open.as_ref().map_or(0, |open| open.objects)
    }

    /// The way to another timeline, when it leads over the one that is followed.
    pub(super) fn way_to(&self, timeline: u32) -> StandbyResult<Option<Piece>> {
        let path = path_to(&self.reader, timeline)?;
        let ours = self.timeline();
        Ok(path.into_iter().find(|piece| piece.timeline == ours))
    }

    /// PostgreSQL's own rule: the newest timeline that has the segment in its history.
    fn timeline_of(&self, segment: u64) -> u32 {
        let begun = |piece: &&Piece| piece.start / self.segment_bytes <= segment;
        let found = self.path.iter().rev().find(begun);
        found.map_or(1, |piece| piece.timeline)
    }

    /// Places what there is, up to `limit` or a little beyond. `sure`: an end is proved by a complete listing now, not
    /// a while ago.
    pub(super) fn feed(&mut self, limit: u64, sure: bool) -> StandbyResult<FeedProgress> {
        let stop = self.at + AT_ONCE * self.segment_bytes;
        while self.at <= limit && self.at < stop {
            if !self.feed_once()? {
                return self.at_end(sure);
            }
        }
        Ok(FeedProgress::More)
    }

    /// `false` when the repository has nothing new for the segment that is due.
    fn feed_once(&mut self) -> StandbyResult<bool> {
        let segment = self.at / self.segment_bytes;
        let timeline = self.timeline_of(segment);
        let mut open = match self.open.take() {
            Some(open) if (open.timeline, open.segment) == (timeline, segment) => open,
            _ => OpenSegment {
                timeline,
                segment,
                file: None,
                seen: SegmentView::default(),
                objects: 0,
            },
        };
        let placed = self.place(&mut open);
        let filled = self.at / self.segment_bytes > segment;
        if filled {
            self.objects += open.objects;
        } else {
            self.open = Some(open);
        }
        placed
    }

    fn place(&mut self, open: &mut OpenSegment) -> StandbyResult<bool> {
        // Only what was placed counts as seen.
        let mut seen = open.seen.clone();
        let grown = self
            .reader
            .grown(open.timeline, open.segment, self.at, &mut seen)?;
        let Some(grown) = grown else {
            open.seen = seen;
            return Ok(false);
        };
        let (bytes, start) = (&grown.wal, open.segment * self.segment_bytes);
        if !bytes.is_empty() {
            match &open.file {
                Some(file) => file
                    .write_all_at(bytes, self.at - start)
                    .and_then(|()| file.sync_data())
                    .map_err(StandbyError::io("write WAL into", &self.wal))?,
                None => open.file = Some(self.make(open, bytes)?),
            }
        }
        (open.seen, open.objects) = (seen, grown.objects);
        self.at += bytes.len() as u64;
        self.confirmed_at_micros = self.confirmed_at_micros.max(grown.confirmed_at_micros);
        Ok(!bytes.is_empty())
    }

    /// A file of full length from the first byte on, as PostgreSQL makes them: zeros are where WAL ends.
    fn make(&self, open: &OpenSegment, bytes: &[u8]) -> StandbyResult<File> {
        let zeros = self.segment_bytes.saturating_sub(bytes.len() as u64);
        let name = segment_name(open.timeline, open.segment, self.segment_bytes);
        let write = |file: &mut File| {
            file.write_all(bytes)?;
            io::copy(&mut io::repeat(0).take(zeros), file).map(drop)
        };
        put_written(&self.wal, &name, write, |path| Ok(self.user.own(path)?))?;
        let path = self.wal.join(name);
        OpenOptions::new()
            .write(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(StandbyError::io("open", path))
    }

    pub(super) fn put(&self, name: &str, bytes: &[u8]) -> StandbyResult<()> {
        put_whole(&self.wal, name, bytes, |path| Ok(self.user.own(path)?))
    }

    /// Takes away what was put for a moment only.
    pub(super) fn take_away(&self, name: &str) -> StandbyResult<()> {
        let path = self.wal.join(name);
        std::fs::remove_file(&path).map_err(StandbyError::io("remove", path))?;
        sync(&self.wal)
    }

    /// Nothing new: the end, or a hole. The stream writes in order, so whatever is behind this place was written
    /// after all before it; one more look decides.
    fn at_end(&mut self, sure: bool) -> StandbyResult<FeedProgress> {
        let due = self
            .later_asked
            .is_none_or(|asked| asked.elapsed() >= LATER_EVERY);
        if !(sure || due) {
            return Ok(FeedProgress::AtEnd);
        }
        let segment = self.at / self.segment_bytes;
        let timeline = self.timeline_of(segment);
        self.later_asked = Some(Instant::now());
        if !self.reader.holds_later(timeline, segment)? {
            return Ok(FeedProgress::AtEnd);
        }
        if self.feed_once()? {
            return Ok(FeedProgress::More);
        }
        Ok(FeedProgress::Hole {
            timeline,
            at: self.at,
        })
    }

    /// Where the last whole record begins that is in place behind `from`, which is the end of another; `None` when
    /// there is none.
    pub(super) fn last_record(&self, from: u64) -> StandbyResult<Option<u64>> {
        let mut decoder = Decoder::new(Lsn(from), self.segment_bytes);
        let mut last = None;
        loop {
            match decoder.step() {
                Step::Record(record) if record.end.0 > self.at => return Ok(last),
                Step::Record(record) => last = Some(record.lsn.0),
                Step::End(_) => return Ok(last),
                Step::NeedMore => {
                    let at = decoder.pushed_to().0;
                    if at >= self.at {
                        return Ok(last);
                    }
                    decoder.push(&self.placed(at)?);
                }
            }
        }
    }

    /// From `from` on, no further than to the end of its segment, or of what is in place.
    fn placed(&self, from: u64) -> StandbyResult<Vec<u8>> {
        let segment = from / self.segment_bytes;
        let name = segment_name(self.timeline_of(segment), segment, self.segment_bytes);
        let path = self.wal.join(name);
        let to = ((segment + 1) * self.segment_bytes)
            .min(self.at)
            .min(from + READ_BYTES);
        let mut bytes = vec![0; usize::try_from(to - from).unwrap_or_default()];
        File::open(&path)
            .and_then(|file| file.read_exact_at(&mut bytes, from % self.segment_bytes))
            .map_err(StandbyError::io("read", path))?;
        Ok(bytes)
    }

    /// The newest timeline above the followed one that has a history and WAL.
    pub(super) fn newer_timeline(&self) -> StandbyResult<Option<u32>> {
        let store = self.repository.store();
        let ours = self.timeline();
        let mut newer: Vec<u32> = Vec::new();
        for object in store.list("timelines/").map_err(repository::Error::from)? {
            let name = object.name.trim_start_matches("timelines/");
            if let Some(digits) = name.strip_suffix(".history")
                && let Ok(timeline) = u32::from_str_radix(digits, 16)
            {
                newer.push(timeline);
            }
        }
        newer.retain(|timeline| *timeline > ours);
        newer.sort_unstable();
        while let Some(timeline) = newer.pop() {
            if self.reader.segment_bytes(timeline)?.is_some() {
                return Ok(Some(timeline));
            }
        }
        Ok(None)
    }
}

impl std::fmt::Debug for Feeder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Feeder(timeline {}, {})", self.timeline(), Lsn(self.at))
    }
}
