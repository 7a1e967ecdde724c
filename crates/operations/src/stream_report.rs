//! What `bre wal stream` says, and leaves for `bre status --cluster` to read.

use std::{
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ::backup::{
    database::{SlotStatus, slot_status},
    stream::{Side, StreamState, StreamWatch},
};
use repository::{Repository, backup::catalogue, wal::Hole};
use serde::Serialize;
use services::StreamHealth;

use crate::{
    clusters::{NamedCluster, StreamStanding},
    error::Error,
    health::{StreamMonitor, hole_words},
};

/// The same again not sooner.
const AGAIN: Duration = Duration::from_secs(60);
/// Anything at all not sooner.
const APART: Duration = Duration::from_secs(1);

/// One line of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamLine {
    cluster: String,
    attached: bool,
    timeline: u32,
    /// Why it is not attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// What to do about it, or about a hole.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
    /// WAL that was lost and that no backup makes up for.
    #[serde(skip_serializing_if = "Option::is_none")]
    hole: Option<String>,
    #[serde(skip)]
    into: String,
}

impl StreamLine {
    pub fn sentence(&self) -> String {
        let name = &self.cluster;
        let mut text = match (&self.error, self.attached) {
            (_, true) => format!("{name}: streaming into {}", self.into),
            (Some(error), false) => {
                format!("{name}: WAL does not reach the repository; it tries again: {error}")
            }
            (None, false) => format!("{name}: the stream is interrupted; it tries again"),
        };
        if let Some(hole) = &self.hole {
            text.push_str(&format!("\n{name}: ALARM: {hole}"));
        }
        if let Some(remedy) = &self.remedy {
            text.push_str(&format!("\n{name}: {remedy}"));
        }
        text
    }
}

/// Says what is new at once, and the same again only now and then.
#[derive(Debug)]
pub struct Teller {
    cluster: String,
    server: String,
    into: String,
    last: Option<(StreamLine, Instant)>,
    attached_once: bool,
}

impl Teller {
    pub fn new(cluster: &str, server: String, into: String) -> Self {
        Self {
            cluster: cluster.to_owned(),
            server,
            into,
            last: None,
            attached_once: false,
        }
    }

    fn of(&self, state: &StreamState) -> StreamLine {
        let hole = state.hole.as_ref();
        StreamLine {
            cluster: self.cluster.clone(),
            attached: state.attached,
            timeline: state.timeline,
            error: state.error.clone().filter(|_| !state.attached),
            remedy: match (state.attached, state.side) {
                (false, Some(side)) => Some(self.remedy(side)),
                _ => hole.map(|_| take_a_backup(Some(&self.cluster))),
            },
            hole: hole.map(hole_words),
            into: self.into.clone(),
        }
    }

    fn remedy(&self, side: Side) -> String {
        match side {
            Side::Server => format!(
                "see that PostgreSQL runs at {}, that [clusters.{}] url names it, and that its role may replicate (REPLICATION, and a line in \
                 pg_hba.conf). WAL waits there for as long as max_slot_wal_keep_size allows",
                self.server, self.cluster
            ),
            Side::Repository => format!(
                "see to the disk or connection of {}. WAL waits in PostgreSQL for as long as max_slot_wal_keep_size allows",
                self.into
            ),
            Side::Setting => "nothing is streamed before that is mended".to_owned(),
        }
    }

    /// Nothing is told before there is something to say: it is not attached yet, and nothing is wrong.
    pub fn is_news(&self, state: &StreamState, now: Instant) -> bool {
        let told = self.of(state);
        if !told.attached && told.error.is_none() && !self.attached_once {
            return false;
        }
        match &self.last {
            None => true,
            Some((last, at)) if *last == told => {
                let stands_badly = !told.attached || told.hole.is_some();
                stands_badly && now.duration_since(*at) >= AGAIN
            }
            Some((_, at)) => now.duration_since(*at) >= APART,
        }
    }

    pub fn tell(&mut self, state: &StreamState, now: Instant) -> Option<StreamLine> {
        if !self.is_news(state, now) {
            return None;
        }
        let told = self.of(state);
        self.attached_once |= told.attached;
        self.last = Some((told.clone(), now));
        Some(told)
    }
}

/// How to close a hole.
pub fn take_a_backup(cluster: Option<&str>) -> String {
    match cluster {
        Some(name) => format!("take a full backup now: bre backup run --cluster {name}"),
        None => "take a full backup now: bre backup run".to_owned(),
    }
}

const LOOK_EVERY: Duration = Duration::from_secs(10);
const WRITE_EVERY: Duration = Duration::from_secs(5);

type Look = Result<(Option<SlotStatus>, bool), Error>;

/// Keeps the file, and looks at what the stream itself does not see: the slot, and backups of others that make up for a hole.
#[derive(Debug)]
pub struct StreamReporter<'a> {
    cluster: &'a NamedCluster,
    repository: &'a Repository,
    monitor: &'a StreamMonitor,
    /// In the background: neither a server nor a repository that hangs may keep the rest from being said.
    look: Option<JoinHandle<Look>>,
    look_at: Instant,
    written: Option<(StreamStanding, Instant)>,
}

impl<'a> StreamReporter<'a> {
    pub fn of(
        cluster: &'a NamedCluster,
        repository: &'a Repository,
        monitor: &'a StreamMonitor,
    ) -> Self {
        Self {
            cluster,
            repository,
            monitor,
            look: None,
            look_at: Instant::now(),
            written: None,
        }
    }

    /// None: it is paused.
    pub fn keep(&mut self, watch: Option<&StreamWatch>) {
        self.look(watch);
        let state = watch.map(StreamWatch::state).unwrap_or_default();
        let standing = StreamStanding {
            report: self.monitor.report(),
            timeline: state.timeline,
            at_micros: jiff::Timestamp::now().as_microsecond(),
        };
        // How far it is, is no news by itself.
        let told = |standing: &StreamStanding| {
            let report = &standing.report;
            (report.attached, report.alarm.clone(), standing.timeline)
        };
        let is_news = self
            .written
            .as_ref()
            .is_none_or(|(last, at)| told(last) != told(&standing) || at.elapsed() >= WRITE_EVERY);
        if is_news {
            if let Err(error) = self.cluster.note_stream(&standing) {
                terminal::note(&format!(
                    "bre: how the stream stands is not written down: {error}"
                ));
            }
            self.written = Some((standing, Instant::now()));
        }
    }

    fn look(&mut self, watch: Option<&StreamWatch>) {
        if self.look.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(Ok(Ok((slot, made_up_for)))) = self.look.take().map(JoinHandle::join)
        {
            self.monitor.set_slot(slot.as_ref());
            if let Some(watch) = watch.filter(|_| made_up_for) {
                watch.full_backup_taken();
            }
        }
        if self.look.is_none() && self.look_at <= Instant::now() {
            self.look_at = Instant::now() + LOOK_EVERY;
            let connect = self.cluster.connect.clone().with_database("postgres");
            let (slot, repository) = (self.cluster.slot.clone(), self.repository.clone());
            let hole = watch.and_then(|watch| watch.state().hole);
            self.look = Some(std::thread::spawn(move || {
                let made_up_for = match hole {
                    Some(hole) => is_made_up_for(&repository, &hole)?,
                    None => false,
                };
                Ok((slot_status(&connect, &slot)?, made_up_for))
            }));
        }
    }
}

fn is_made_up_for(repository: &Repository, hole: &Hole) -> Result<bool, Error> {
    Ok(hole.is_made_up_for(&catalogue(repository)?.backups))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(teller: &mut Teller, state: &StreamState, now: Instant, words: &[&str]) {
        let told = teller.tell(state, now).map(|told| told.sentence());
        match (&told, words) {
            (None, []) => {}
            (Some(told), words) if !words.is_empty() => {
                for word in words {
                    assert!(told.contains(word), "{word}: {told}");
                }
            }
            _ => panic!("{told:?}, expected {words:?}"),
        }
    }

    #[test]
    fn a_stream_says_at_once_what_stands_in_its_way_and_the_same_again_only_now_and_then() {
        let mut teller = Teller::new("far", "db:5432".into(), "/backup".into());
        let (mut state, start) = (StreamState::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        check(&mut teller, &state, at(0), &[]);
        let away = |error: &str, side| (Some(error.to_owned()), Some(side));
        (state.error, state.side) = away("connection refused", Side::Server);
        let words = ["refused", "db:5432", "[clusters.far] url", "pg_hba.conf"];
        check(&mut teller, &state, at(1), &words);
        check(&mut teller, &state, at(2), &[]);
        check(&mut teller, &state, at(61), &["refused"]);
        (state.error, state.side) = (None, None);
        state.attached = true;
        check(&mut teller, &state, at(62), &["streaming into /backup"]);
        check(&mut teller, &state, at(600), &[]);
        state.attached = false;
        (state.error, state.side) = away("no space left", Side::Repository);
        check(&mut teller, &state, at(601), &["no space left", "/backup"]);
        (state.error, state.side, state.attached) = (None, None, true);
        state.hole = Some(Hole {
            timeline: 1,
            start: 0x100_0000,
            end: 0x500_0000,
            reason: "removed".into(),
            recorded_at_micros: 0,
        });
        let hole = [
            "ALARM",
            "0/1000000 to 0/5000000",
            "bre backup run --cluster far",
        ];
        check(&mut teller, &state, at(603), &hole);
        check(&mut teller, &state, at(604), &[]);
        check(&mut teller, &state, at(670), &hole);
        state.hole = None;
        check(&mut teller, &state, at(671), &["streaming"]);
    }
}
