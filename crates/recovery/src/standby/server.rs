//! The standby server: a PostgreSQL that replays what the feeder writes, and says how far it is.

use std::fs::{self, DirBuilder, OpenOptions};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use postgres_physical::pg_control::ControlFile;
use postgres_physical::server::sql::Client;
use postgres_physical::server::{
    Absence, Leftover, Server, ServerError, StartOptions, StopMode, tail_of,
};
use postgres_physical::wire::ConnectOptions;

use super::Settings;
use super::error::{StandbyError, StandbyResult};
use super::feed::{FeedProgress, Feeder};
use super::state::StoredState;
use crate::Backoff;
use crate::database::{RECOVERY_OFF, databases_here, enter_cluster};

const PORT: u16 = 5432;
const LOG: &str = "postgres.log";
/// PostgreSQL says several times a second that it waits.
const LOG_BYTES_MAX: u64 = 8 << 20;
/// WAL in place in front of what is replayed.
const AHEAD_BYTES: u64 = 192 << 20;
const AHEAD_SEGMENTS: u64 = 4;
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const TIMELINES_EVERY: Duration = Duration::from_secs(1);
/// Between two tries to get into one that says it is ready.
const ASK_AGAIN: Duration = Duration::from_millis(20);
const ASK_AGAIN_MOST: Duration = Duration::from_secs(5);
/// Between two looks at what its databases lack on this machine, as long as they are the same databases.
const LOOK_AT_DATABASES: Duration = Duration::from_secs(600);
/// Between two questions whether they are: what is replayed makes, renames and changes databases.
const ASK_FOR_DATABASES: Duration = Duration::from_secs(5);
/// Two columns move by themselves, with vacuum.
const DATABASES: &str = "SELECT string_agg((to_jsonb(d) - 'datfrozenxid' - 'datminmxid')::text, ',' ORDER BY oid) \
     FROM pg_database d";
/// A standby that has whole segments in front of it and does not move.
const STUCK: Duration = Duration::from_secs(120);
pub(super) const SUPERUSER: &str = "postgres";

/// How far it is, by its own word.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Replay {
    pub(super) lsn: u64,
    pub(super) in_recovery: bool,
    /// It stopped because WAL asks for more connections, locks or workers than it was started with.
    pub(super) paused: bool,
    pub(super) commit_micros: Option<i64>,
}

/// What a turn found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Fed(FeedProgress),
    /// The repository goes on on another timeline.
    NewTimeline(u32),
    /// It has to be started again, with what `pg_control` says now.
    StartAgain,
    /// It is no standby any more, and not by our doing.
    Astray,
    Stuck,
}

#[derive(Debug)]
pub(super) struct StandbyServer {
    pub(super) server: Server,
    client: Option<Client>,
    connect: ConnectOptions,
    pub(super) feeder: Feeder,
    pub(super) replay: Replay,
    /// WAL objects that were replayed before this start.
    pub(super) objects_before: u64,
    /// Before it is here nobody can ask it anything.
    opens_at: u64,
    segment_bytes: u64,
    log: PathBuf,
    moved: Instant,
    timelines_asked: Instant,
    started: Instant,
    /// Why it lets nobody in although it is ready.
    refused: Option<String>,
    /// Between two tries to get in.
    ask_again: Backoff,
    /// What its databases lack on this machine, in sentences: it would matter after a promotion.
    warnings: Vec<String>,
    looked_at_databases: Option<Instant>,
    asked_for_databases: Option<Instant>,
    databases: String,
}

impl StandbyServer {
    /// Starts replaying where the folder stands.
    pub(super) fn start(settings: &Settings, state: &StoredState) -> StandbyResult<Self> {
        let data = state.data(&settings.folder);
        end_leftover(&data)?;
        make_socket_folder(settings)?;
        let control = read_control(&data)?;
        let fresh = data.join("backup_label").exists();
        let from = if fresh {
            state.start_lsn
        } else {
            control.redo.0
        };
        let source = (&settings.repository, &settings.private);
        let along = (state.timeline, state.segment_bytes, from);
        let mut feeder = Feeder::new(source, &data, &settings.user, along)?;
        let opens_at = state.stop_lsn.max(control.min_recovery_point.0);
        // So that it finds something when it looks for the first time.
        feeder.feed(opens_at, false)?;
        let mut options = options(settings, Some(&control));
        // Whatever a file that is included says: it replays without end and without delay.
        for (name, value) in RECOVERY_OFF {
            options = options.set(name, value);
        }
        options = options
            .set("recovery_target_timeline", state.timeline)
            // We read what it says.
            .set("lc_messages", "C")
            .set("wal_retrieve_retry_interval", "50ms")
            .set("hot_standby", "on")
            // Segments that it has replayed must not come back under names that are still to be filled.
            .set("wal_recycle", "off")
            // The stream of the new timeline starts in the segment where it branched off: that one must stay.
            .set(
                "wal_keep_size",
                format!("{}MB", (state.segment_bytes >> 20) * 16),
            );
        options.wait_ready = false;
        let server = Server::start(&settings.binaries, &settings.user, &data, &options)?;
        Ok(Self {
            connect: connect(settings),
            log: options.log,
            server,
            client: None,
            feeder,
            replay: Replay::default(),
            objects_before: state.wal_objects,
            opens_at,
            segment_bytes: state.segment_bytes,
            moved: Instant::now(),
            timelines_asked: Instant::now(),
            started: Instant::now(),
            refused: None,
            ask_again: Backoff::new(ASK_AGAIN, ASK_AGAIN_MOST),
            warnings: Vec::new(),
            looked_at_databases: None,
            asked_for_databases: None,
            databases: String::new(),
        })
    }

    /// Feeds a little, asks how far it is.
    pub(super) fn turn(&mut self) -> StandbyResult<Turn> {
        self.ask()?;
        if self.is_open() && self.replay.lsn > 0 && !self.replay.in_recovery {
            return Ok(Turn::Astray);
        }
        if self.replay.paused {
            return Ok(Turn::StartAgain);
        }
        if is_unreachable(&mut self.server) {
            return Ok(Turn::StartAgain);
        }
        self.look_at_databases();
        let ahead = AHEAD_BYTES.max(AHEAD_SEGMENTS * self.segment_bytes);
        let fed = self
            .feeder
            .feed(self.replay.lsn.max(self.opens_at) + ahead, false)?;
        self.keep_log_short();
        if self.timelines_asked.elapsed() >= TIMELINES_EVERY {
            self.timelines_asked = Instant::now();
            if let Some(newer) = self.feeder.newer_timeline()? {
                return Ok(Turn::NewTimeline(newer));
            }
        }
        let lag = self.feeder.at().saturating_sub(self.replay.lsn);
        if lag > 2 * self.segment_bytes && self.moved.elapsed() > STUCK {
            return Ok(Turn::Stuck);
        }
        Ok(Turn::Fed(fed))
    }

    pub(super) fn is_open(&self) -> bool {
        self.client.is_some()
    }

    /// Since its start.
    pub(super) fn ran_for(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    pub(super) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn look_at_databases(&mut self) {
        let was_within = |at: Option<Instant>, time| at.is_some_and(|at| at.elapsed() < time);
        if was_within(self.asked_for_databases, ASK_FOR_DATABASES) {
            return;
        }
        let Some(client) = self.client.as_mut() else {
            return;
        };
        self.asked_for_databases = Some(Instant::now());
        // A connection that is gone is told of by the next turn's own question.
        let Ok(Some(databases)) = client.value(DATABASES) else {
            return;
        };
        let are_the_same = databases == self.databases;
        if are_the_same && was_within(self.looked_at_databases, LOOK_AT_DATABASES) {
            return;
        }
        self.databases = databases;
        self.looked_at_databases = Some(Instant::now());
        let here = databases_here(&self.connect.clone().with_database("template1"));
        let found = [here.unusable, here.ordered_otherwise].concat();
        if found != self.warnings {
            for warning in &found {
                tracing::warn!(%warning, "the standby");
            }
            self.warnings = found;
        }
    }

    /// Its own word. Nothing is learned while it does not take connections yet.
    pub(super) fn ask(&mut self) -> StandbyResult<()> {
        let Some(client) = self.client()? else {
            return Ok(());
        };
        match ask(client) {
            Ok(replay) => {
                if replay.lsn != self.replay.lsn {
                    self.moved = Instant::now();
                }
                self.replay = replay;
                Ok(())
            }
            Err(error) => {
                self.client = None;
                // The server may have gone: that says more.
                self.client()?;
                Err(error)
            }
        }
    }

    pub(super) fn client(&mut self) -> StandbyResult<Option<&mut Client>> {
        // First: what a killed server left still says that it is ready.
        if let Some(exit) = self.server.exited() {
            self.client = None;
            return Err(ServerError::StartFailed {
                dir: self.server.dir().to_owned(),
                status: exit.description,
                log: self.log.clone(),
                tail: tail_of(&self.log, 0),
            }
            .into());
        }
        if self.client.is_none() && self.ask_again.is_due(Instant::now()) {
            match self.server.wait_ready(Duration::ZERO, 0) {
                Ok(()) => self.enter(),
                Err(ServerError::NotReady { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.client.as_mut())
    }

    fn enter(&mut self) {
        match enter_cluster(&self.connect) {
            Ok(client) => {
                self.client = Some(client);
                self.refused = None;
                self.ask_again.succeeded();
            }
            Err(error) => {
                // Not ready after all, or gone: that is said by its end.
                let is_early = error.sqlstate().is_none_or(|state| state == "57P03");
                let text = error.to_string();
                let why = Absence::find(&text).map_or(text, |absence| absence.to_string());
                self.refused = (!is_early).then_some(why);
                self.ask_again.failed(Instant::now());
            }
        }
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    fn keep_log_short(&self) {
        if fs::metadata(&self.log).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
            // It is appended to: what comes next is written at the new end.
            let _ = OpenOptions::new()
                .write(true)
                .open(&self.log)
                .and_then(|log| log.set_len(0));
        }
    }

    pub(super) fn stop(mut self) -> StandbyResult<()> {
        self.client = None;
        stop(&mut self.server)
    }

    /// It is a primary now.
    pub(super) fn into_server(self) -> Server {
        self.server
    }
}

/// Cleanly; a standby has nothing to lose when that takes too long.
pub(super) fn stop(server: &mut Server) -> StandbyResult<()> {
    if server.stop(StopMode::Fast, STOP_TIMEOUT).is_err() {
        server.stop(StopMode::Immediate, STOP_TIMEOUT)?;
    }
    Ok(())
}

/// Ours alone is the folder: what still runs there was left by a standby that was killed.
pub(super) fn end_leftover(data: &Path) -> StandbyResult<()> {
    if let Some(left) = Leftover::detect(data) {
        left.stop(STOP_TIMEOUT)?;
    }
    Ok(())
}

pub(super) fn read_control(data: &Path) -> StandbyResult<ControlFile> {
    let path = data.join("global/pg_control");
    let bytes = fs::read(&path).map_err(StandbyError::io("read", &path))?;
    ControlFile::parse(&bytes)
        .map_err(|error| StandbyError::io("understand", &path)(std::io::Error::other(error)))
}

/// A server that is ready and takes no connections any more: it makes its socket at its start only.
pub(super) fn is_unreachable(server: &mut Server) -> bool {
    let socket = server.socket_dir().join(format!(".s.PGSQL.{PORT}"));
    let gone = !socket.exists() && server.wait_ready(Duration::ZERO, 0).is_ok();
    if gone {
        tracing::warn!(
            socket = %socket.display(),
            "the socket of the standby's PostgreSQL was deleted; starting it again"
        );
    }
    gone
}

/// It may have been deleted with the socket in it.
pub(super) fn make_socket_folder(settings: &Settings) -> StandbyResult<()> {
    let folder = &settings.sockets;
    if folder.exists() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(0o711).create(folder);
    made.map_err(StandbyError::io("create", folder))?;
    Ok(settings.user.own(folder)?)
}

pub(super) fn connect(settings: &Settings) -> ConnectOptions {
    ConnectOptions::unix(&settings.sockets, PORT, SUPERUSER, "postgres")
}

/// As the server that it is spare for is started, and at least as much of everything as its WAL may ask for.
pub(super) fn options(settings: &Settings, control: Option<&ControlFile>) -> StartOptions {
    let mut options =
        StartOptions::new(&settings.sockets, PORT, settings.folder.join(LOG)).set("ssl", "off");
    options.settings.extend(settings.server.iter().cloned());
    options = options
        .set("logging_collector", "off")
        .set("log_destination", "stderr");
    let Some(control) = control else {
        return options;
    };
    for (name, value) in control.needed_settings() {
        let given = settings.server.iter().find(|(given, _)| given == name);
        let given = given.and_then(|(_, text)| text.parse::<u32>().ok());
        options = options.set(name, value.max(given.unwrap_or_default()));
    }
    options
}

fn ask(client: &mut Client) -> StandbyResult<Replay> {
    let rows = client.query(
        "SELECT pg_is_in_recovery()::text, (pg_last_wal_replay_lsn() - '0/0')::text,
                CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() END,
                (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint::text",
    )?;
    let field = |number: usize| {
        let row = rows.rows.first()?;
        row.get(number)?.as_deref()
    };
    Ok(Replay {
        lsn: field(1).and_then(|text| text.parse().ok()).unwrap_or(0),
        in_recovery: field(0) == Some("true"),
        paused: field(2).is_some_and(|state| state != "not paused"),
        commit_micros: field(3).and_then(|text| text.parse().ok()),
    })
}
