//! Replays WAL into a restored folder up to the target, opens the reserved timeline, and leaves a plain data folder.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, Instant};

use postgres_physical::pg_control::{ClusterState, ControlFile};
use postgres_physical::server::sql::Client;
use postgres_physical::server::{
    Absence, Binaries, OsUser, Server, ServerError, StartOptions, StopMode, databases,
    other_collation_version, tail_of,
};
use postgres_physical::timeline::{History, history_file_name};
use postgres_physical::wire::{ConnectOptions, WireError};
use repository::{
    Repository,
    keys::RecipientPrivate,
    timelines::{release, reserve},
    wal::WalReader,
};

use super::destination::sync_cluster;
use super::fault;
use super::fetch::{FetchCommand, FetchServer, Scope};
use super::marker::Marker;
use super::occupied::check_not_running;
use super::plan::Plan;
use super::resolve::find_break;
use super::restore::CONTROL;
use super::settings::{RECOVERY_OFF, remove_traces, set_in_auto};
use super::work::WorkFolder;
use super::{show_lsn, show_time};
use crate::{Error, Fault, Progress, Result};

/// Replay may take long; without any new WAL asked for it is stuck after this.
const STALL: Duration = Duration::from_secs(900);
const LOOK: Duration = Duration::from_millis(10);
pub(super) const PAGE_HEADER_BYTES_MAX: u64 = 40;
/// WAL that was read ahead is here until PostgreSQL takes it.
const STAGING: &str = "pg_wal/bre_ahead";
/// How much replayed WAL PostgreSQL keeps before it writes what it replayed; a restore needs as much space.
pub(super) const REPLAYED_MAX: u64 = 4 << 30;
const PORT: u16 = 5432;
/// Where it has another name, nothing is asked.
const SUPERUSER: &str = "postgres";
const PREPARED: &str = "max_prepared_transactions";
const PREPARED_MIN: u32 = 1000;
const STOP_TIMEOUT: Duration = Duration::from_secs(900);

#[derive(Debug)]
pub struct Recover<'a> {
    pub repository: &'a Repository,
    pub private: &'a RecipientPrivate,
    pub plan: &'a Plan,
    /// What [`super::restore`] wrote.
    pub dir: &'a Path,
    pub binaries: &'a Binaries,
    pub user: &'a OsUser,
    pub fetch: &'a FetchCommand,
    /// PostgreSQL's messages are appended here.
    pub log: &'a Path,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryReport {
    pub restore_id: String,
    /// The new timeline.
    pub timeline: u32,
    /// The one that it left.
    pub parent_timeline: u32,
    /// Where: everything before it was replayed.
    pub switch_lsn: u64,
    /// WAL that PostgreSQL asked for.
    pub wal_bytes: u64,
    /// The new timeline's history file.
    pub history: Vec<u8>,
    /// What to know before the copy is used: settings that were raised, what it needs and this machine has not.
    pub notes: Vec<String>,
    /// Databases that cannot be entered because files of theirs are not in the copy.
    pub incomplete: Vec<String>,
}

/// Runs recovery to the plan's target. Afterwards `dir` is a plain data folder that was shut down cleanly; the
/// repository holds the claim on its new timeline.
pub fn recover(request: &Recover<'_>, progress: &dyn Progress) -> Result<RecoveryReport> {
    let plan = request.plan;
    // Held until the folder is whole: no other restore comes between.
    let marker = Marker::take_up(request.dir)?;
    check_not_running(request.dir)?;
    progress.message("reserving a timeline");
    let reserved = reserve(request.repository, &plan.restore_id)?;
    let mut promoted = false;
    let result =
        WorkFolder::new().and_then(|work| run(request, reserved, &work.0, &mut promoted, progress));
    if result.is_err() && !promoted {
        // The number may be used again. When even that fails it stays taken, which harms nobody.
        let _ = release(request.repository, reserved, &plan.restore_id);
    }
    let recovered = result?;
    marker.map_or(Ok(()), Marker::remove)?;
    Ok(recovered)
}

fn run(
    request: &Recover<'_>,
    reserved: u32,
    work: &Path,
    promoted: &mut bool,
    progress: &dyn Progress,
) -> Result<RecoveryReport> {
    let plan = request.plan;
    let scope = Scope {
        timeline: plan.timeline,
        reserved,
        segment_bytes: plan.segment_bytes,
        stop_lsn: plan.stop.lsn,
    };
    let socket = work.join("fetch.sock");
    let fetch = FetchServer::start(
        request.repository,
        request.private,
        scope,
        &socket,
        &request.dir.join(STAGING),
        request.user,
    )?;
    let sockets = work.join("pg");
    DirBuilder::new()
        .mode(0o700)
        .create(&sockets)
        .map_err(Error::io("create", &sockets))?;
    request.user.own(&sockets)?;
    let command = request.fetch.for_shell(&socket, work, request.user)?;
    let log_start = fs::metadata(request.log).map_or(0, |meta| meta.len());

    progress.total(plan.wal_bytes);
    progress.message("replaying WAL");
    let hba = work.join("pg_hba.conf");
    fs::write(&hba, "local all all trust\n").map_err(Error::io("write", &hba))?;
    request.user.own(&hba)?;
    let mut options = options(plan, &command, &sockets, request.log)
        // Only that account and root reach the socket's folder.
        .set("hba_file", hba.display());
    // Its own settings may lie outside the folder, and WAL does not replay without as much room as the source had.
    let needed = read_control(request.dir).map(|control| control.needed_settings());
    for (name, value) in needed.iter().flatten() {
        options = options.set(name, value);
    }
    let prepared = needed.iter().flatten();
    let prepared = prepared.filter(|(name, _)| *name == PREPARED);
    let prepared = prepared.map(|(_, value)| *value).max().unwrap_or_default();
    options = options.set(PREPARED, prepared.max(PREPARED_MIN));
    let started = Server::start(request.binaries, request.user, request.dir, &options);
    let mut server = started.map_err(|error| match &error {
        ServerError::StartFailed { .. } => failed(request, &fetch, log_start, error.to_string()),
        _ => stopped(request, &fetch, log_start, error.to_string()),
    })?;
    wait_until_open(request, &mut server, &fetch, log_start, progress)?;
    *promoted = true;
    let here_are = databases_here(&ConnectOptions::unix(
        &sockets,
        PORT,
        SUPERUSER,
        "template1",
    ));

    progress.message("shutting down cleanly");
    let end = server.stop(StopMode::Fast, STOP_TIMEOUT);
    let end = end.map_err(|error| stopped(request, &fetch, log_start, error.to_string()))?;
    if !end.clean {
        let reason = format!("the shutdown after it was not clean ({})", end.description);
        return Err(failed(request, &fetch, log_start, reason));
    }
    let mut recovered = check_result(request, reserved, fetch.served_bytes())
        .map_err(|reason| failed(request, &fetch, log_start, reason))?;
    drop(fetch);
    remove_traces(request.dir)?;
    recovered.notes = [here_are.unusable, here_are.ordered_otherwise].concat();
    for (name, error) in here_are.incomplete {
        let sentence = format!("database {name} is not whole in this copy: {error}");
        recovered.notes.push(sentence);
        recovered.incomplete.push(name);
    }
    if let Ok(needed) = needed {
        recovered.notes.extend(raise_settings(request, needed)?);
    }
    sync_cluster(request.dir)?;
    Ok(recovered)
}

/// What the databases of a server lack on this machine, in sentences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabasesHere {
    /// They cannot be entered.
    pub unusable: Vec<String>,
    /// Their text was put in order by another version of their collation.
    pub ordered_otherwise: Vec<String>,
    /// Files of theirs are missing or damaged: each with PostgreSQL's words.
    pub incomplete: Vec<(String, String)>,
}

/// A session for questions about a whole cluster: in `postgres`, or where somebody has dropped or closed that, in
/// another database that takes connections. Nobody makes databases of that one: a session in `template1` would be in
/// the way of CREATE DATABASE.
pub fn enter_cluster(connect: &ConnectOptions) -> Result<Client, WireError> {
    // It does not exist, or takes no connections.
    let not_entered = |error: &WireError| {
        let state = error.sqlstate();
        state.is_some_and(|state| ["3D000", "55000"].contains(&state))
    };
    let into = |name: &str| Client::connect(&connect.clone().with_database(name));
    match into("postgres") {
        Err(error) if not_entered(&error) => {
            let mut template = into("template1")?;
            let listed = databases(&mut template)?;
            let other = listed.iter().find(|it| it.is_open() && !it.template);
            other.map_or(Ok(template), |it| into(&it.name))
        }
        entered => entered,
    }
}

/// Asks a server that runs. What cannot be asked is not known.
#[must_use]
pub fn databases_here(connect: &ConnectOptions) -> DatabasesHere {
    let asked = "SELECT datname, coalesce(datcollversion, ''), coalesce(pg_database_collation_actual_version(oid), '') \
        FROM pg_database WHERE datallowconn AND datconnlimit <> -2 ORDER BY datname";
    let mut here_are = DatabasesHere::default();
    let mut client = match Client::connect(connect) {
        Ok(client) => client,
        Err(error) => {
            match Absence::find(&error.to_string()) {
                Some(absence) => here_are.unusable.push(absence.to_string()),
                None if lacks_files(&error) => {
                    let name = connect.database.clone();
                    here_are.incomplete.push((name, error.to_string()));
                }
                None => {}
            }
            return here_are;
        }
    };
    for row in client
        .query(asked)
        .map(|rows| rows.rows)
        .unwrap_or_default()
    {
        let mut fields = row.into_iter().map(Option::unwrap_or_default);
        let mut next = || fields.next().unwrap_or_default();
        let (name, then, here) = (next(), next(), next());
        if then != here && !then.is_empty() && !here.is_empty() {
            let sentence = other_collation_version(&name, &then, &here);
            here_are.ordered_otherwise.push(sentence);
        }
        let Err(error) = Client::connect(&connect.clone().with_database(&name)) else {
            continue;
        };
        if let Some(absence) = Absence::find(&error.to_string()) {
            let sentence = format!("database {name} cannot be used on this machine: {absence}");
            here_are.unusable.push(sentence);
        } else if lacks_files(&error) {
            here_are.incomplete.push((name, error.to_string()));
        }
    }
    here_are
}

/// A login reads the database's folder and its catalogues.
fn lacks_files(error: &WireError) -> bool {
    let state = error.sqlstate().unwrap_or_default();
    let words = error.to_string();
    // A file that is missing, data and indexes that are damaged.
    ["58P01", "XX001", "XX002"].contains(&state)
        || words.contains("is not a valid data directory")
        || words.contains("The database subdirectory")
}

/// Where the copy's files ask for less than the source had, PostgreSQL would not start on it (prepared transactions),
/// or no standby could follow it: then the source's figure is set.
fn raise_settings(request: &Recover<'_>, needed: [(&'static str, u32); 5]) -> Result<Vec<String>> {
    let open = fs::read_dir(request.dir.join("pg_twophase"));
    let open = open.map_or(0, |entries| entries.flatten().count());
    let mut raised = Vec::new();
    for (name, mut value) in needed {
        if name == PREPARED {
            value = value.max(u32::try_from(open).unwrap_or(u32::MAX));
        }
        if configured(request, name).is_some_and(|found| found < value) {
            raised.push((name, value));
        }
    }
    if !raised.is_empty() {
        set_in_auto(request.dir, &raised)?;
    }
    let say = |(name, value): &(&str, u32)| {
        format!(
            "{name} = {value} is set in postgresql.auto.conf: the source had it, and the settings in the backup ask \
             for less"
        )
    };
    Ok(raised.iter().map(say).collect())
}

/// What PostgreSQL itself reads from the folder's files. `None`: it does not say.
fn configured(request: &Recover<'_>, name: &str) -> Option<u32> {
    let mut command = request.user.command(&request.binaries.program("postgres"));
    let output = command
        .arg("-D")
        .arg(request.dir)
        .args(["-C", name])
        .output();
    let output = output.ok().filter(|output| output.status.success())?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

/// All on the command line: nothing of it stays in a file.
fn options(plan: &Plan, command: &str, sockets: &Path, log: &Path) -> StartOptions {
    let mut options = StartOptions::new(sockets, PORT, log);
    options.wait_ready = false;
    // First: what is set here twice is what it was set to last, and of several targets none may stand when the next is
    // set.
    for (name, value) in RECOVERY_OFF {
        options = options.set(name, value);
    }
    let on_off = |on: bool| if on { "on" } else { "off" };
    options
        .set("restore_command", command)
        .set("recovery_target_timeline", plan.timeline)
        .set("recovery_target_lsn", show_lsn(plan.stop.lsn))
        .set("recovery_target_inclusive", on_off(plan.stop.inclusive))
        .set("recovery_target_action", "promote")
        .set("hot_standby", "off")
        .set("synchronous_standby_names", "")
        .set("archive_mode", "off")
        .set("ssl", "off")
        .set("huge_pages", "try")
        .set("logging_collector", "off")
        .set("log_destination", "stderr")
        // We read it.
        .set("lc_messages", "C")
        .set("autovacuum", "off")
        // The folder is worthless until we sync it at the end.
        .set("fsync", "off")
        .set("max_wal_size", format!("{}MB", REPLAYED_MAX >> 20))
        // The stream of the new timeline starts in the segment where it branched off: that one must stay.
        .set(
            "wal_keep_size",
            format!("{}MB", (plan.segment_bytes >> 20) * 16),
        )
        .set("checkpoint_timeout", "1h")
}

fn wait_until_open(
    request: &Recover<'_>,
    server: &mut Server,
    fetch: &FetchServer,
    log_start: u64,
    progress: &dyn Progress,
) -> Result<()> {
    let mut served = 0;
    let mut moved_at = Instant::now();
    loop {
        if is_open(request.dir, server.pid()) {
            return Ok(());
        }
        // The wait for its end doubles as the pause between two looks.
        if let Some(exit) = server.wait_exit(LOOK) {
            return Err(failed(
                request,
                fetch,
                log_start,
                format!("PostgreSQL ended ({})", exit.description),
            ));
        }
        if !request.dir.join(CONTROL).exists() {
            let reason = "the folder vanished while WAL was replayed into it".to_owned();
            return Err(stopped(request, fetch, log_start, reason));
        }
        let now = fetch.served_bytes();
        if now > served {
            progress.advance(now - served);
            (served, moved_at) = (now, Instant::now());
        }
        if progress.cancelled() {
            return Err(Error::Cancelled(request.dir.to_owned()));
        }
        if moved_at.elapsed() > STALL {
            let reason = format!("nothing moved for {} s", STALL.as_secs());
            return Err(stopped(request, fetch, log_start, reason));
        }
    }
}

/// The last line of `postmaster.pid`; with `hot_standby` off it says `standby` during recovery and `ready` after it.
fn is_open(dir: &Path, pid: i32) -> bool {
    let Ok(text) = fs::read_to_string(dir.join("postmaster.pid")) else {
        return false;
    };
    let mut lines = text.lines().map(str::trim);
    lines.next() == Some(pid.to_string().as_str()) && lines.nth(6) == Some("ready")
}

/// PostgreSQL's own word is checked: state, timeline, and how far it came.
fn check_result(
    request: &Recover<'_>,
    reserved: u32,
    wal_bytes: u64,
) -> Result<RecoveryReport, String> {
    let plan = request.plan;
    let control = read_control(request.dir)?;
    if control.state != ClusterState::ShutDown || control.timeline != reserved {
        return Err(format!(
            "it ended as {:?} on timeline {}, expected a clean end on {reserved}",
            control.state, control.timeline
        ));
    }
    let path = request.dir.join("pg_wal").join(history_file_name(reserved));
    let history = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let parsed =
        History::parse(&String::from_utf8_lossy(&history)).map_err(|error| error.to_string())?;
    let last = parsed
        .switches
        .last()
        .ok_or("its history names no parent")?;
    let reached = if plan.stop.inclusive {
        last.switch.0 > plan.stop.lsn
    } else {
        // A page header may lie between the last record and the one that was not to be replayed.
        last.switch.0 + PAGE_HEADER_BYTES_MAX >= plan.stop.lsn
    };
    if !reached || last.parent != plan.timeline {
        return Err(format!(
            "it left timeline {} at {}, the target was {} on timeline {}",
            last.parent,
            last.switch,
            show_lsn(plan.stop.lsn),
            plan.timeline
        ));
    }
    Ok(RecoveryReport {
        restore_id: plan.restore_id.clone(),
        timeline: reserved,
        parent_timeline: last.parent,
        switch_lsn: last.switch.0,
        wal_bytes,
        history,
        notes: Vec::new(),
        incomplete: Vec::new(),
    })
}

fn read_control(dir: &Path) -> Result<ControlFile, String> {
    let control = fs::read(dir.join(CONTROL)).map_err(|error| error.to_string())?;
    ControlFile::parse(&control).map_err(|error| error.to_string())
}

/// PostgreSQL did not come to a good end: its words say where the reason is.
fn failed(request: &Recover<'_>, fetch: &FetchServer, log_start: u64, reason: String) -> Error {
    judged(request, fetch, log_start, reason, fault::of_server)
}

/// It did not come to its end at all, for nothing that the copy did.
fn stopped(request: &Recover<'_>, fetch: &FetchServer, log_start: u64, reason: String) -> Error {
    judged(request, fetch, log_start, reason, |_, _| Fault::Elsewhere)
}

fn judged(
    request: &Recover<'_>,
    fetch: &FetchServer,
    log_start: u64,
    reason: String,
    judge: fn(&str, &str) -> Fault,
) -> Error {
    let tail = tail_of(request.log, log_start);
    if let Some(absence) = Absence::find(&tail).filter(|_| fetch.trouble().is_none()) {
        return Error::Absent {
            folder: request.dir.to_owned(),
            absence,
            log: request.log.to_owned(),
        };
    }
    let judge = match wal_broken(request, &tail) {
        Ok(Some(broken)) => return broken,
        Ok(None) => judge,
        // WAL that was there for the plan cannot be read: PostgreSQL's own words are told.
        Err(_) => |_: &str, _: &str| Fault::Elsewhere,
    };
    let (reason, remedy, fault) = match fetch.trouble() {
        Some(trouble) => (
            format!("WAL could not be handed out: {trouble}"),
            REMEDY_WAL,
            Fault::Elsewhere,
        ),
        None => {
            let fault = judge(&reason, &tail);
            (reason, REMEDY, fault)
        }
    };
    Error::Recovery {
        folder: request.dir.to_owned(),
        reason: reason.into(),
        remedy,
        log: request.log.to_owned(),
        tail: tail.into(),
        fault,
    }
}

/// The target was named by a record that is there: where PostgreSQL does not come to it, something between is no WAL.
fn wal_broken(request: &Recover<'_>, tail: &str) -> Result<Option<Error>> {
    if !tail.contains(TARGET_NOT_REACHED) {
        return Ok(None);
    }
    let reader = WalReader::new(request.repository, request.private);
    let found = find_break(&reader, request.plan)?;
    Ok(found.map(|found| Error::BrokenWal {
        folder: request.dir.to_owned(),
        timeline: found.timeline,
        at: show_lsn(found.at),
        goes_on_to: show_lsn(request.plan.stop.lsn),
        last_record: found.last_record,
    }))
}

/// PostgreSQL's words, as `lc_messages = C` has them.
const TARGET_NOT_REACHED: &str = "recovery ended before configured recovery target was reached";
const REMEDY_WAL: &str =
    "Mend the repository or choose an earlier target, delete the folder and restore again";
const REMEDY: &str = "The log says why; the repository is untouched: delete the folder and restore again, or use an earlier backup";

impl RecoveryReport {
    /// One line for people.
    #[must_use]
    pub fn describe(&self, plan: &Plan) -> String {
        format!(
            "backup {} of {}, replayed to {}, now on timeline {}",
            plan.backup.id,
            show_time(plan.backup.started_at_micros),
            show_lsn(self.switch_lsn),
            self.timeline
        )
    }
}
