//! The process that keeps a warm spare: `bre standby run`. It turns the spare, and answers whoever asks over a socket
//! in its folder.

mod link;

use std::{
    os::unix::net::UnixListener,
    path::PathBuf,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{RecvTimeoutError, channel},
    },
    time::Duration,
};

use host::{
    database::{DATABASE, SUPERUSER, server_settings},
    files::make_folder,
    instance::Instance,
    keys::reading_key,
    location::Location,
    progress::Steps,
    signals::stop_on_signal,
    sockets, telemetry,
};
pub use link::{Answer, Link, Request};
use postgres_physical::{
    server::{Binaries, OsUser},
    wire::ConnectOptions,
};
use recovery::Backoff;
use recovery::standby::{Conditions, Phase, Settings, Standby, StandbyError, Watch};
use repository::keys::RecipientPrivate;
use services::RecoveryFact;

use crate::{
    clusters,
    config::Config,
    error::Error,
    jobs::settings,
    recovery_fact::write_fact,
    repository_handle::{RepositoryHandle, RepositorySelection},
};

/// Between two turns; a request is answered at once.
const TURN: Duration = Duration::from_millis(40);
/// Every look at a bucket is a request that is paid for. A promotion looks for itself.
const TURN_S3: Duration = Duration::from_secs(1);
/// After a turn that failed, and after many.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MOST: Duration = Duration::from_secs(15);

pub fn run(
    instance: &Instance,
    json: bool,
    args: &RepositorySelection,
    config: Option<&std::path::Path>,
) -> Result<(), Error> {
    telemetry::start(json);
    let config = settings::load(config, instance.root())?;
    telemetry::set_level(config.log.level.as_deref())?;
    let opened = RepositoryHandle::at(instance, args.clone())?;
    // Each cluster has a spare of its own, in its own folder.
    let named = args.cluster.as_deref();
    let cluster = named.map(|name| clusters::find(instance, name));
    let home = cluster.transpose()?.map(|cluster| cluster.instance);
    let instance = home.as_ref().unwrap_or(instance);
    // A process beside the engine: a file of its own, below its own folder.
    host::files::make_folder(&instance.logs(), 0o711)?;
    telemetry::to_file(config.log.own_file(&instance.logs(), "standby.log"))?;
    let (private, keys) = (opened.private()?, opened.keys.clone());
    let idle = match opened.location {
        Location::Folder(_) => TURN,
        Location::S3(_) => TURN_S3,
    };
    let user = OsUser::for_server()?;
    let settings = settings(instance, &config, opened, private, user)?;
    let runtime = host::workers::Workers::start()?;
    let stop = stop_on_signal(&runtime, || ())?;
    let mut runner = StandbyRunner {
        json,
        user: settings.user.clone(),
        standby: Standby::open(settings)?,
        shown: None,
        trouble: String::new(),
    };
    let (requests, asked) = channel();
    let serve = |watch: Watch| -> Result<(), Error> {
        let (socket, requests) = (listen(instance)?, requests.clone());
        std::thread::spawn(move || link::serve(&socket, &watch, &requests));
        Ok(())
    };
    serve(runner.standby.watch())?;
    let steps = Steps::logged().cancelled_by(Arc::clone(&stop));
    let mut pause = TURN;
    let mut again = Backoff::new(PAUSE, PAUSE_MOST);
    while !stop.load(Ordering::Relaxed) {
        match asked.recv_timeout(pause) {
            Ok((request, reply)) => reply.give(&runner.act(request, &stop)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Error::failed("the spare's socket is gone"));
            }
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
        pause = match runner.standby.turn(&steps) {
            Ok(()) if runner.shown == Some(Phase::Following) => {
                again.succeeded();
                idle
            }
            Ok(()) => TURN,
            Err(error) => {
                runner.complain(&error);
                runner.look_for_key(&keys);
                again.failed(std::time::Instant::now())
            }
        };
        runner.publish_status();
        // Where it was deleted, nobody would find who keeps the spare.
        if !control_socket(instance).exists() {
            tracing::warn!("the spare's socket was deleted; making it again");
            serve(runner.standby.watch())?;
        }
    }
    let _ = std::fs::remove_file(control_socket(instance));
    // Whoever asks from here on is told that it ends.
    drop(asked);
    Ok(runner.standby.stop()?)
}

struct StandbyRunner {
    json: bool,
    user: OsUser,
    standby: Standby,
    shown: Option<Phase>,
    trouble: String,
}

impl StandbyRunner {
    fn act(&mut self, request: Request, stop: &std::sync::atomic::AtomicBool) -> Answer {
        let refused = |error: StandbyError| Answer::Refused(error.to_string());
        match request {
            Request::Status => Answer::Status(Box::new(self.standby.watch().status())),
            Request::Promote { even_if_alive } => {
                let conditions = Conditions {
                    even_if_alive,
                    ..Conditions::default()
                };
                let user = &self.user;
                let note = |promoted: &recovery::standby::PromotionReport| {
                    let fact = RecoveryFact {
                        restore_id: promoted.restore_id.clone(),
                        timeline: promoted.timeline,
                        target_lsn: promoted.switch_lsn,
                    };
                    write_fact(&promoted.folder, user, &fact).map_err(std::io::Error::other)
                };
                let promoted = self.standby.promote(conditions, &note);
                promoted.map_or_else(refused, Answer::Promoted)
            }
            Request::HandOver { to } => {
                let moved = self.standby.hand_over(&to);
                moved.map_or_else(refused, Answer::Promoted)
            }
            Request::Stop => {
                stop.store(true, Ordering::Relaxed);
                Answer::Stopping
            }
        }
    }

    /// Once for each trouble, not once a second.
    fn complain(&mut self, error: &StandbyError) {
        let text = error.to_string();
        if self.trouble != text {
            tracing::warn!(%error, "the spare");
            self.trouble = text;
        }
    }

    /// The trouble may be that the repository's key was replaced.
    fn look_for_key(&mut self, keys: &std::path::Path) {
        let used = reading_key(keys).map(|private| self.standby.use_key(private));
        if let Ok(Err(error)) = used {
            tracing::warn!(%error, "the spare was not started again with the new key");
        }
    }

    /// A line whenever it stands differently.
    fn publish_status(&mut self) {
        let status = self.standby.watch().status();
        if self.shown == Some(status.phase) {
            return;
        }
        self.shown = Some(status.phase);
        terminal::result(self.json, &status, || {
            let why = status.trouble.as_deref().unwrap_or_default();
            format!("the spare is {} {why}", status.phase.words())
        });
    }
}

fn settings(
    instance: &Instance,
    config: &Config,
    opened: RepositoryHandle,
    private: RecipientPrivate,
    user: OsUser,
) -> Result<Settings, Error> {
    make_folder(instance.root(), 0o711)?;
    make_folder(&instance.standby(), 0o711)?;
    let sockets = server_sockets(instance);
    make_folder(&sockets, 0o711)?;
    user.own(&sockets)?;
    Ok(Settings {
        repository: opened.repository,
        private,
        folder: instance.standby(),
        sockets,
        binaries: Binaries::find(config.database.binaries.as_deref())?,
        user,
        server: server_settings(config.database.max_slot_wal_keep_size_mb),
    })
}

/// In the spare's own folder: it outlives the loss of everything else.
fn server_sockets(instance: &Instance) -> PathBuf {
    let near = instance.standby().join("run");
    if sockets::fits(&near.join(".s.PGSQL.5432.lock")) {
        return near;
    }
    instance.socket_folder("spare")
}

pub fn control_socket(instance: &Instance) -> PathBuf {
    let near = instance.standby().join("control.sock");
    if sockets::fits(&near) {
        return near;
    }
    instance.socket_folder("spare-control").join("control.sock")
}

/// Only for our own account.
fn listen(instance: &Instance) -> Result<UnixListener, Error> {
    Ok(sockets::listen(
        &control_socket(instance),
        &instance.standby(),
    )?)
}

/// How to reach the promoted cluster while the spare's process keeps it.
pub fn database_url(sockets: &std::path::Path) -> String {
    url(sockets, SUPERUSER, DATABASE)
}

pub fn url(sockets: &std::path::Path, user: &str, database: &str) -> String {
    ConnectOptions::unix(sockets, 5432, user, database).to_url()
}
