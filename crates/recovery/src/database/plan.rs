//! Chooses the backup, the WAL, and where to stop. Writes nothing.

use repository::{Progress, Repository, backup::BackupSummary, keys::RecipientPrivate};

use super::path::{Piece, path_to};
use super::points;
use super::resolve::{first_end_after, last_record, segment_bytes};
use super::start::Start;
use super::window::{Holdings, Span};
use super::{show_lsn, show_time};
use crate::{Error, Result};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Point {
    /// Everything that the repository holds.
    Latest,
    /// All that was committed up to then; microseconds since 1970 UTC.
    Time(i64),
    /// The first record at or after it is the last one replayed, as with PostgreSQL's own `recovery_target_lsn`.
    Lsn(u64),
    /// A restore point that `pg_create_restore_point` made.
    Name(String),
    /// Up to and with the end of this transaction; a subtransaction stands for the transaction that it is part of.
    Xid(u32),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub point: Point,
    /// The newest one when `None`.
    pub timeline: Option<u32>,
}

impl Target {
    #[must_use]
    pub fn latest() -> Self {
        Self {
            point: Point::Latest,
            timeline: None,
        }
    }

    #[must_use]
    pub fn time(micros: i64) -> Self {
        Self {
            point: Point::Time(micros),
            timeline: None,
        }
    }

    #[must_use]
    pub fn lsn(lsn: u64) -> Self {
        Self {
            point: Point::Lsn(lsn),
            timeline: None,
        }
    }

    #[must_use]
    pub fn name(name: &str) -> Self {
        Self {
            point: Point::Name(name.to_owned()),
            timeline: None,
        }
    }

    #[must_use]
    pub fn xid(xid: u32) -> Self {
        Self {
            point: Point::Xid(xid),
            timeline: None,
        }
    }

    #[must_use]
    pub fn on_timeline(self, timeline: u32) -> Self {
        Self {
            timeline: Some(timeline),
            ..self
        }
    }
}

/// Where replay stops: at the first record that starts at or after `lsn`, which is replayed when `inclusive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopPoint {
    pub lsn: u64,
    pub inclusive: bool,
}

#[derive(Debug, Clone)]
pub struct Plan {
    /// Names this restore, and its claim on a timeline.
    pub restore_id: String,
    pub target: Target,
    pub backup: BackupSummary,
    /// The timeline on which the target lies.
    pub timeline: u32,
    /// The way there, oldest first.
    pub path: Vec<Piece>,
    pub stop: StopPoint,
    pub segment_bytes: u64,
    /// WAL to replay.
    pub wal_bytes: u64,
    /// The span of the window that holds the target.
    pub span: Span,
    /// WAL that the repository holds behind a hole, and that this restore leaves out although everything was
    /// asked for.
    pub beyond: Option<Beyond>,
}

/// WAL behind a hole after which no backup was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beyond {
    pub timeline: u32,
    /// The hole: from where to where WAL is missing.
    pub hole_from: u64,
    pub hole_to: u64,
    pub reason: String,
    /// Where the WAL behind it ends.
    pub to: u64,
    /// The last server time that it confirms; microseconds since 1970, 0 when none is known.
    pub to_micros: i64,
}

impl Beyond {
    /// What is not there, and why, in a sentence.
    #[must_use]
    pub fn describe(&self) -> String {
        let until = match self.to_micros {
            0 => String::new(),
            micros => format!(" ({})", show_time(micros)),
        };
        format!(
            "WAL of timeline {} from {} to {} is missing ({}), and no complete backup begins behind it: what was \
             committed from there on, up to {}{until}, cannot be restored",
            self.timeline,
            show_lsn(self.hole_from),
            show_lsn(self.hole_to),
            self.reason,
            show_lsn(self.to)
        )
    }
}

/// What of the newest timeline cannot be restored for a hole; without a plan, for status.
pub fn beyond_a_hole(
    repository: &Repository,
    private: &RecipientPrivate,
) -> Result<Option<Beyond>> {
    let holdings = Holdings::read(repository, private)?;
    let Some(newest) = holdings.newest_timeline() else {
        return Ok(None);
    };
    let spans = holdings.spans(&path_to(&holdings.reader, newest)?);
    let end = spans.last().map_or(0, Span::to_lsn);
    Ok(match behind(&holdings, end, newest) {
        Behind::Hole(beyond) => Some(beyond),
        Behind::Nothing | Behind::Missing { .. } => None,
    })
}

/// Refuses a target outside the window and names the nearest moments inside.
pub fn plan(repository: &Repository, private: &RecipientPrivate, target: Target) -> Result<Plan> {
    plan_watched(repository, private, target, &())
}

/// The same, showing how far it is: a name or a transaction is looked for in all WAL of the window.
pub fn plan_watched(
    repository: &Repository,
    private: &RecipientPrivate,
    target: Target,
    progress: &dyn Progress,
) -> Result<Plan> {
    plan_starting(repository, private, target, Start::Newest, progress)
}

/// The same from another backup than the newest that leads to the target.
pub fn plan_starting(
    repository: &Repository,
    private: &RecipientPrivate,
    target: Target,
    start: Start<'_>,
    progress: &dyn Progress,
) -> Result<Plan> {
    let holdings = Holdings::read(repository, private)?;
    plan_from(holdings, target, start, progress)
}

/// The same from a backup in which no page was damaged: what is taken from it is good, and replays.
pub fn plan_sound(
    repository: &Repository,
    private: &RecipientPrivate,
    target: Target,
    progress: &dyn Progress,
) -> Result<Plan> {
    let mut holdings = Holdings::read(repository, private)?;
    holdings.complete.retain(|backup| backup.damaged_pages == 0);
    plan_from(holdings, target, Start::Newest, progress)
}

fn plan_from(
    holdings: Holdings,
    target: Target,
    start: Start<'_>,
    progress: &dyn Progress,
) -> Result<Plan> {
    let Some(newest) = target.timeline.or_else(|| holdings.newest_timeline()) else {
        return Err(Error::NothingToRestore(nothing(&holdings)));
    };
    let path = path_to(&holdings.reader, newest)?;
    let spans = holdings.spans(&path);
    check_reachable(&holdings, &spans, newest)?;
    let end = spans.last().map_or(0, Span::to_lsn);
    let mut beyond = match behind(&holdings, end, newest) {
        Behind::Hole(beyond) => Some(beyond),
        Behind::Nothing | Behind::Missing { .. } => None,
    };
    let (span, link, stop) = match &target.point {
        Point::Name(_) | Point::Xid(_) => {
            let (span, link, lsn) = points::find(&holdings, &spans, &target.point, progress)?;
            let stop = StopPoint {
                lsn,
                inclusive: true,
            };
            (&spans[span], link, stop)
        }
        point => {
            let span = choose_span(&spans, point, beyond.as_ref())?;
            if *point == Point::Latest {
                check_newest_wal(&holdings, span, &path, target.timeline)?;
                check_nothing_beyond(&holdings, span, newest)?;
            }
            let (link, stop) = resolve(&holdings, span, point)?;
            (span, link, stop)
        }
    };
    if target.point != Point::Latest {
        // A moment before the hole is all that was asked for.
        beyond = None;
    }
    let backup = start.choose(&holdings, span, link, stop.lsn)?.clone();
    let timeline = span.links[link].timeline;
    let upto = path
        .iter()
        .position(|piece| piece.timeline == timeline)
        .unwrap_or(0);
    Ok(Plan {
        restore_id: repository::backup::new_backup_id(jiff::Timestamp::now().as_microsecond())?,
        target,
        timeline,
        path: path[..=upto].to_vec(),
        stop,
        segment_bytes: segment_bytes(&holdings.reader, backup.timeline)?,
        wal_bytes: stop.lsn.saturating_sub(backup.start_lsn),
        span: span.clone(),
        beyond,
        backup,
    })
}

fn nothing(holdings: &Holdings) -> String {
    match holdings.others {
        0 => "the repository holds no backup. Take one first".to_owned(),
        others => format!(
            "{others} backups, none of them complete, and no WAL. Start the stream and wait, or take a new one"
        ),
    }
}

/// The newest timeline must not be left out in silence.
fn check_reachable(holdings: &Holdings, spans: &[Span], timeline: u32) -> Result<()> {
    if spans.iter().any(|span| {
        span.links
            .last()
            .is_some_and(|link| link.timeline == timeline)
    }) {
        return Ok(());
    }
    // What cannot be opened leads nowhere: then the key is what is wrong, not the WAL.
    let mut damaged = holdings.inventory.damaged.iter();
    if let Some(wrong) = damaged.find(|it| matches!(it, repository::Error::WrongKey(_))) {
        return Err(Error::NothingToRestore(wrong.to_string()));
    }
    if holdings.complete.is_empty() {
        return Err(Error::NothingToRestore(nothing(holdings)));
    }
    let end = holdings
        .inventory
        .timelines
        .get(&timeline)
        .and_then(repository::wal::TimelineWal::end)
        .unwrap_or(0);
    Err(Error::Unreachable {
        timeline,
        end: show_lsn(end),
    })
}

/// What cannot be read may be newer than what can: "the latest" is then not known.
fn check_newest_wal(
    holdings: &Holdings,
    span: &Span,
    path: &[Piece],
    named: Option<u32>,
) -> Result<()> {
    let concerns = |object: &str| {
        if repository::wal::is_hole_record(object) {
            return false;
        }
        let on = |timeline: u32| {
            let folder = format!("{timeline:08x}/");
            object
                .split_once('/')
                .is_some_and(|(_, rest)| rest.starts_with(&folder))
        };
        named.is_none() || path.iter().any(|piece| on(piece.timeline))
    };
    let mut damaged = holdings.inventory.damaged.iter();
    match damaged.find(|error| error.object().is_none_or(concerns)) {
        None => Ok(()),
        Some(error) => Err(Error::DamagedWal {
            damage: error.to_string(),
            last_good: show_lsn(span.to_lsn()),
        }),
    }
}

/// What the newest timeline continues with behind the end of what can be restored.
enum Behind {
    Nothing,
    /// Behind a hole that is on record.
    Hole(Beyond),
    /// Behind a gap that nobody put on record.
    Missing {
        from: u64,
        to: u64,
    },
}

fn behind(holdings: &Holdings, end: u64, timeline: u32) -> Behind {
    let Some(wal) = holdings.inventory.timelines.get(&timeline) else {
        return Behind::Nothing;
    };
    let Some(next) = wal.intervals.iter().find(|wal| wal.start > end) else {
        return Behind::Nothing;
    };
    let on_record = |hole: &&repository::wal::Hole| hole.start <= end && next.start <= hole.end;
    match wal.holes.iter().find(on_record) {
        None => Behind::Missing {
            from: end,
            to: next.start,
        },
        Some(hole) => {
            let last = wal.intervals.last().unwrap_or(next);
            Behind::Hole(Beyond {
                timeline,
                hole_from: end,
                hole_to: next.start,
                reason: hole.reason.clone(),
                to: last.end,
                to_micros: last.end_time_micros.max(0),
            })
        }
    }
}

/// A gap that nobody put on record is a loss of objects: what is before it is not "the latest". One on record is
/// known: the plan says what it costs.
fn check_nothing_beyond(holdings: &Holdings, span: &Span, timeline: u32) -> Result<()> {
    match behind(holdings, span.to_lsn(), timeline) {
        Behind::Nothing | Behind::Hole(_) => Ok(()),
        Behind::Missing { from, to } => Err(Error::MissingWal {
            timeline,
            from: show_lsn(from),
            to: show_lsn(to),
        }),
    }
}

fn choose_span<'a>(spans: &'a [Span], point: &Point, beyond: Option<&Beyond>) -> Result<&'a Span> {
    // `check_reachable` made sure that there is one.
    let Some(last) = spans.last() else {
        return Err(Error::NothingToRestore("the window is empty".to_owned()));
    };
    let chosen = match point {
        Point::Time(at) => spans
            .iter()
            .find(|span| span.from_micros <= *at && *at <= span.to_micros),
        Point::Lsn(lsn) => spans
            .iter()
            .find(|span| span.from_lsn() <= *lsn && *lsn <= span.to_lsn()),
        Point::Latest | Point::Name(_) | Point::Xid(_) => Some(last),
    };
    chosen.ok_or_else(|| outside(spans, point, beyond))
}

fn outside(spans: &[Span], point: &Point, beyond: Option<&Beyond>) -> Error {
    type Bounds = (u64, u64);
    let time_key = |micros: i64| u64::try_from(micros).unwrap_or(0);
    let (wanted, bounds, show): (u64, Vec<Bounds>, fn(u64) -> String) = match point {
        Point::Time(at) => {
            let at = *at;
            let bounds = spans
                .iter()
                .map(|span| (time_key(span.from_micros), time_key(span.to_micros)));
            (time_key(at), bounds.collect(), |key| {
                show_time(key.cast_signed())
            })
        }
        Point::Lsn(lsn) => (
            *lsn,
            spans
                .iter()
                .map(|span| (span.from_lsn(), span.to_lsn()))
                .collect(),
            show_lsn,
        ),
        Point::Latest | Point::Name(_) | Point::Xid(_) => (0, Vec::new(), show_lsn),
    };
    let before = bounds
        .iter()
        .map(|(_, to)| *to)
        .filter(|to| *to < wanted)
        .max();
    let after = bounds
        .iter()
        .map(|(from, _)| *from)
        .filter(|from| *from > wanted)
        .min();
    let reason = match (before, after, beyond) {
        (None, ..) => "it is earlier than the first complete backup".to_owned(),
        (_, None, Some(beyond)) => beyond.describe(),
        (_, None, None) => "it is later than anything that the repository holds".to_owned(),
        _ => "WAL is missing there".to_owned(),
    };
    let nearest = match (before, after) {
        (Some(before), Some(after)) => format!(
            "The nearest are {} before it and {} after it",
            show(before),
            show(after)
        ),
        (Some(bound), None) | (None, Some(bound)) => format!("The nearest is {}", show(bound)),
        (None, None) => String::new(),
    };
    Error::OutsideWindow {
        target: show(wanted),
        reason,
        nearest,
    }
}

/// The number of the link that holds the target, and where to stop on it.
fn resolve(holdings: &Holdings, span: &Span, point: &Point) -> Result<(usize, StopPoint)> {
    let last = || -> Result<(usize, StopPoint)> {
        let found = last_record(&holdings.reader, span)?;
        let (link, lsn) = found
            .ok_or_else(|| Error::NothingToRestore("the WAL holds no whole record".to_owned()))?;
        Ok((
            link,
            StopPoint {
                lsn,
                inclusive: true,
            },
        ))
    };
    match *point {
        // Names and transactions were looked for in the WAL itself.
        Point::Latest | Point::Name(_) | Point::Xid(_) => last(),
        Point::Time(at) => match first_end_after(&holdings.reader, span, at)? {
            Some((link, lsn)) => Ok((
                link,
                StopPoint {
                    lsn,
                    inclusive: false,
                },
            )),
            None => last(),
        },
        Point::Lsn(lsn) => {
            let (last_link, last_stop) = last()?;
            if lsn > last_stop.lsn {
                return Ok((last_link, last_stop));
            }
            let link = span
                .links
                .iter()
                .position(|link| lsn < link.to)
                .unwrap_or(last_link);
            Ok((
                link,
                StopPoint {
                    lsn,
                    inclusive: true,
                },
            ))
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::window::tests::{backup, holdings, path};
    use super::*;

    pub(in super::super) fn two_spans() -> (Holdings, Vec<Span>) {
        let backups = vec![
            backup("a", 1, 0x120, 0x150),
            backup("b", 1, 0x200, 0x220),
            backup("c", 1, 0x450, 0x480),
        ];
        let holdings = holdings(&[(1, 0x100, 0x300), (1, 0x400, 0x600)], backups);
        let spans = holdings.spans(&path(&[]));
        (holdings, spans)
    }

    #[test]
    fn a_target_outside_names_the_nearest_bounds() {
        let (_, spans) = two_spans();
        let check = |point: Point, expected: Result<u64, &str>| match (
            choose_span(&spans, &point, None),
            expected,
        ) {
            (Ok(span), Ok(from)) => assert_eq!(span.from_lsn(), from, "{point:?}"),
            (Err(error), Err(text)) => {
                assert!(error.to_string().contains(text), "{point:?}: {error}")
            }
            (found, expected) => panic!("{point:?}: {found:?}, expected {expected:?}"),
        };
        check(Point::Latest, Ok(0x480));
        check(Point::Lsn(0x150), Ok(0x150));
        check(Point::Lsn(0x300), Ok(0x150));
        check(Point::Lsn(0x480), Ok(0x480));
        check(
            Point::Lsn(0x100),
            Err("earlier than the first complete backup. The nearest is 0/150"),
        );
        check(
            Point::Lsn(0x601),
            Err("later than anything that the repository holds. The nearest is 0/600"),
        );
        check(
            Point::Lsn(0x350),
            Err("WAL is missing there. The nearest are 0/300 before it and 0/480 after it"),
        );
        check(Point::Time(0x200), Ok(0x150));
        check(
            Point::Time(0x700),
            Err("The nearest is 1970-01-01T00:00:00.001536Z"),
        );
    }

    #[test]
    fn wal_that_vanished_is_not_passed_over() {
        let check = |mut holdings: Holdings, on_record: Option<(u64, u64)>| {
            if let Some((start, end)) = on_record {
                let wal = holdings.inventory.timelines.get_mut(&1).unwrap();
                wal.holes.push(repository::wal::Hole {
                    timeline: 1,
                    recorded_at_micros: 0,
                    start,
                    end,
                    reason: "test".to_owned(),
                });
            }
            let spans = holdings.spans(&path(&[]));
            check_nothing_beyond(&holdings, spans.last().unwrap(), 1)
        };
        let vanished = || {
            let backups = vec![backup("a", 1, 0x120, 0x150)];
            holdings(&[(1, 0x100, 0x300), (1, 0x400, 0x600)], backups)
        };
        let error = check(vanished(), None).unwrap_err().to_string();
        assert!(
            error.contains("0/300") && error.contains("0/400"),
            "{error}"
        );
        assert!(check(vanished(), Some((0x310, 0x400))).is_err());
        check(vanished(), Some((0x300, 0x400))).unwrap();
        // A backup after it leads on.
        check(two_spans().0, None).unwrap();
    }

    #[test]
    fn what_lies_behind_a_hole_is_told_and_is_not_called_later_than_everything() {
        let backups = vec![backup("a", 1, 0x120, 0x150)];
        let mut holdings = holdings(&[(1, 0x100, 0x300), (1, 0x400, 0x600)], backups);
        let wal = holdings.inventory.timelines.get_mut(&1).unwrap();
        wal.holes.push(repository::wal::Hole {
            timeline: 1,
            recorded_at_micros: 0,
            start: 0x300,
            end: 0x400,
            reason: "the server had removed it".to_owned(),
        });
        let spans = holdings.spans(&path(&[]));
        let Behind::Hole(beyond) = behind(&holdings, spans.last().unwrap().to_lsn(), 1) else {
            panic!("it is not seen");
        };
        let bounds = (
            beyond.hole_from,
            beyond.hole_to,
            beyond.to,
            beyond.to_micros,
        );
        assert_eq!(bounds, (0x300, 0x400, 0x600, 0x600));
        let told = choose_span(&spans, &Point::Time(0x700), Some(&beyond))
            .unwrap_err()
            .to_string();
        for words in [
            "0/300 to 0/400 is missing",
            "the server had removed it",
            "0/600",
        ] {
            assert!(told.contains(words), "{words}: {told}");
        }
        assert!(!told.contains("later than anything"), "{told}");
        assert!(choose_span(&spans, &Point::Time(0x200), Some(&beyond)).is_ok());
        // A backup behind it makes up for it.
        holdings.complete.push(backup("b", 1, 0x420, 0x450));
        let spans = holdings.spans(&path(&[]));
        let end = spans.last().unwrap().to_lsn();
        assert!(matches!(behind(&holdings, end, 1), Behind::Nothing));
    }
}
