//! `bre wal fetch`: what `restore_command` calls. PostgreSQL takes exit code 1 for the end of WAL, so only proof gives 1.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use postgres_physical::lsn::parse_segment_name;
use recovery::database::{FetchOutcome, place_segment, wal_fetch};
use repository::wal::WalReader;

use super::{detach, job};
use host::{instance::Instance, signals::stop_on_signal};

use crate::{
    cli::{RepositoryArgs, WalCommand},
    error::Error,
};
use operations::{
    cluster_protection::ClusterProtection,
    clusters,
    health::StreamMonitor,
    repository_handle::RepositoryHandle,
    stream_report::{StreamReporter, Teller},
};

/// How soon a stop is noticed.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) fn run(instance: &Instance, json: bool, command: WalCommand) -> Result<ExitCode, Error> {
    match command {
        WalCommand::Fetch {
            name,
            path,
            socket,
            repository,
        } => Ok(fetch(instance, &name, &path, socket, &repository)),
        WalCommand::Stream { cluster } => stream(instance, json, &cluster),
        WalCommand::Detach { yes } => {
            detach::run(instance, json, yes)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Returns when it is stopped from outside. Says at once what it does, what stands in its way, and what was lost.
fn stream(instance: &Instance, json: bool, name: &str) -> Result<ExitCode, Error> {
    host::telemetry::start(json);
    let runtime = host::workers::Workers::start()?;
    let stop = stop_on_signal(&runtime, || ())?;
    let cluster = clusters::find(instance, name)?;
    let own = cluster.open()?;
    // Tells other commands that somebody streams.
    let _lock = cluster.instance.lock()?;
    let monitor = StreamMonitor::default();
    let handle = runtime.handle().clone();
    let mut protection =
        ClusterProtection::start(&cluster, &own, monitor.clone(), handle, job::screens);
    let mut teller = Teller::new(name, cluster.connect.target(), own.repository.describe());
    let mut standing = StreamReporter::of(&cluster, &own.repository, &monitor);
    while !stop.load(Ordering::Relaxed) {
        let watch = protection.watch();
        match &watch {
            Some(watch) => {
                watch.wait_until(LOOK, |state| teller.is_news(state, Instant::now()));
                if let Some(told) = teller.tell(&watch.state(), Instant::now()) {
                    terminal::result(json, &told, || told.sentence());
                }
            }
            // Paused: there is nothing to tell before the plan's next turn.
            None => std::thread::park_timeout(LOOK),
        }
        standing.keep(watch.as_ref());
        protection.turn();
    }
    protection.stop();
    Ok(ExitCode::SUCCESS)
}

fn fetch(
    instance: &Instance,
    name: &str,
    path: &Path,
    socket: Option<PathBuf>,
    repository: &RepositoryArgs,
) -> ExitCode {
    let outcome = match socket {
        Some(socket) => wal_fetch(&socket, name, path),
        None => direct(instance, repository, name, path),
    };
    if let FetchOutcome::Trouble(why) = &outcome {
        terminal::note(&format!("bre wal fetch: {why}"));
    }
    ExitCode::from(u8::try_from(outcome.exit_code()).unwrap_or(200))
}

/// For a replica of one's own: from repository and key, without a restore that serves.
fn direct(instance: &Instance, args: &RepositoryArgs, name: &str, path: &Path) -> FetchOutcome {
    match place(instance, args, name, path) {
        Ok(true) => FetchOutcome::HandedOut,
        Ok(false) => FetchOutcome::NotThere,
        Err(error) => FetchOutcome::Trouble(error.to_string()),
    }
}

/// `false`: there is none.
fn place(
    instance: &Instance,
    args: &RepositoryArgs,
    name: &str,
    path: &Path,
) -> Result<bool, Error> {
    let opened = RepositoryHandle::at(instance, args)?;
    let reader = WalReader::new(&opened.repository, &opened.private()?);
    let timeline = name
        .get(..8)
        .and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let Some(timeline) = timeline else {
        return Ok(false);
    };
    if name.get(8..) == Some(".history") {
        let Some(history) = reader.history(timeline)? else {
            return Ok(false);
        };
        return std::fs::write(path, history)
            .map(|()| true)
            .map_err(|error| {
                // Half a file must not stay.
                let _ = std::fs::remove_file(path);
                Error::file("cannot write", path)(error)
            });
    }
    let Some(segment_bytes) = reader.segment_bytes(timeline)? else {
        return Ok(false);
    };
    match parse_segment_name(name, segment_bytes) {
        Some(segment) => Ok(place_segment(&reader, segment, u64::MAX, path)?.is_some()),
        None => Ok(false),
    }
}
