//! `bre standby`: keep a standby, see how it stands, promote it.

use host::instance::Instance;
use postgres_physical::{
    lsn::Lsn,
    server::{Leftover, sql::Client},
    wire::ConnectOptions,
};
use recovery::standby::{Phase, PromotionReport, Status, StepMillis};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};
use terminal::{self, KeyValue, Table, instant, size};

use crate::{cli::StandbyCommand, error::Error, question::confirmed};
use operations::{
    clusters::{self, NamedCluster},
    config::Config,
    jobs::settings,
    standby::{self, Link, Request, database_url},
};

/// An old primary that lives answers sooner.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) fn run(
    instance: &Instance,
    json: bool,
    command: StandbyCommand,
) -> Result<ExitCode, Error> {
    match command {
        StandbyCommand::Run { repository, config } => {
            standby::run(instance, json, &(&repository).into(), config.as_deref())?;
            Ok(ExitCode::SUCCESS)
        }
        StandbyCommand::Status { cluster } => status(&home(instance, cluster.as_deref())?, json),
        StandbyCommand::Stop { cluster } => stop(&home(instance, cluster.as_deref())?, json),
        StandbyCommand::Promote {
            yes,
            even_if_alive,
            cluster,
            config,
        } => {
            let began = Instant::now();
            let config = settings::load(config.as_deref(), instance.root())?;
            let named = cluster.map(|name| clusters::find(instance, &name));
            let of = Of {
                instance: instance.clone(),
                cluster: named.transpose()?,
            };
            promote(&of, json, &config, (yes, even_if_alive), began)
        }
    }
}

/// Whose spare it is.
struct Of {
    instance: Instance,
    cluster: Option<NamedCluster>,
}

impl Of {
    fn home(&self) -> &Instance {
        match &self.cluster {
            Some(cluster) => &cluster.instance,
            None => &self.instance,
        }
    }

    /// Where the promoted cluster takes connections while the spare's process keeps it. A cluster of somebody else has no database of
    /// ours: the one of its address is meant.
    fn address(&self, sockets: &Path) -> String {
        match &self.cluster {
            Some(cluster) => {
                standby::url(sockets, &cluster.connect.user, &cluster.connect.database)
            }
            None => database_url(sockets),
        }
    }

    /// How to go on from there.
    fn next(&self, promoted: &PromotionReport) -> String {
        match &self.cluster {
            Some(cluster) => format!(
                "It listens on that socket only, and ends with the process that keeps it. To run it as your own \
                 service: bre standby stop --cluster {}, then start {} with your own listen_addresses and port, and send its clients there. Its WAL is streamed again by: bre wal stream --cluster {} \
                 (let [clusters.{}] url name the new server first)\n",
                cluster.name,
                promoted.folder.display(),
                cluster.name,
                cluster.name
            ),
            None => format!(
                "Start the engine on it: bre up --data {} (the old data folder is kept aside)\n",
                self.instance.root().display()
            ),
        }
    }

    fn signs_of_life(&self, config: &Config) -> Option<String> {
        match &self.cluster {
            Some(cluster) => answers_at(cluster.connect.clone()),
            None => signs_of_life(&self.instance, config),
        }
    }
}

/// The folder below which it lies: each cluster has its own.
fn home(instance: &Instance, cluster: Option<&str>) -> Result<Instance, Error> {
    match cluster {
        Some(name) => Ok(clusters::find(instance, name)?.instance),
        None => Ok(instance.clone()),
    }
}

/// Why it does not follow.
pub(super) fn trouble(status: &Status) -> Option<String> {
    let anew = status.restored_anew.as_ref().filter(|_| !status.healthy);
    status
        .trouble
        .clone()
        .or_else(|| anew.map(|why| format!("restored anew, because {why}")))
}

fn kept(instance: &Instance) -> Result<Status, Error> {
    Link::to(instance).status()?.ok_or_else(|| {
        Error::unreachable(
            "no process keeps a standby here",
            format!(
                "start it: bre standby run --data {}, or bre up with [spare] enabled = true",
                instance.root().display()
            ),
        )
    })
}

fn status(instance: &Instance, json: bool) -> Result<ExitCode, Error> {
    let status = kept(instance)?;
    terminal::result(json, &status, || text(&status));
    Ok(if status.healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn text(status: &Status) -> String {
    let mut facts = KeyValue::new();
    // Where it cannot go on, that comes first.
    facts.maybe("trouble", trouble(status)).row(
        "state",
        match (status.healthy, status.phase.words()) {
            (true, phase) => {
                format!("{phase}; it can be promoted without losing what the repository holds")
            }
            (false, phase) => format!("{phase}; it can NOT be promoted without loss"),
        },
    );
    facts
        .row(
            "behind",
            format!(
                "{:.1} s, {} of WAL",
                status.lag_seconds,
                size(status.lag_bytes)
            ),
        )
        .row(
            "replayed",
            format!(
                "LSN {} of {} on timeline {}",
                status.replayed_lsn, status.repository_lsn, status.timeline
            ),
        )
        .row("WAL objects", format!("{} replayed", status.wal_objects))
        .maybe("restored", status.since.as_deref().map(instant))
        .maybe("from backup", status.backup_id.as_ref())
        .maybe(
            "newest commit",
            status.newest_commit_at.as_deref().map(instant),
        )
        .maybe(
            "primary heard",
            status.repository_confirmed_at.as_deref().map(instant),
        )
        .maybe("restored anew", status.restored_anew.as_ref())
        .rows("warning", &status.warnings);
    facts.text()
}

fn stop(instance: &Instance, json: bool) -> Result<ExitCode, Error> {
    let stopped = Link::to(instance).ask(&Request::Stop)?.is_some();
    terminal::result(
        json,
        &serde_json::json!({ "stopped": stopped }),
        || match stopped {
            true => "the standby stops".to_owned(),
            false => "no process keeps a standby here".to_owned(),
        },
    );
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Serialize)]
struct StandbyReport<'a> {
    promoted: bool,
    #[serde(flatten)]
    promotion: &'a PromotionReport,
    end_lsn: String,
    database_url: String,
    /// From the command to the first committed write and its record.
    seconds: f64,
}

fn promote(
    of: &Of,
    json: bool,
    config: &Config,
    (yes, even_if_alive): (bool, bool),
    began: Instant,
) -> Result<ExitCode, Error> {
    let status = kept(of.home())?;
    let alive = of.signs_of_life(config);
    if let (Some(sign), false) = (&alive, even_if_alive) {
        return Err(Error::refused(
            "the standby is not promoted",
            format!(
                "{sign}. Two primaries would take different writes and only those of the promoted one would be kept: stop the old one first. \
                 --even-if-alive promotes all the same"
            ),
        ));
    }
    if status.phase != Phase::Promoted && !yes && !confirmed(&question(&status, alive.as_deref())) {
        return Err(Error::refused(
            "nothing was changed",
            "give --yes to do it without asking",
        ));
    }
    let asked = Instant::now();
    let waited = asked.duration_since(began);
    let request = Request::Promote { even_if_alive };
    let gone = || Error::failed("the process that keeps the standby went away");
    let promoted = Link::to(of.home())
        .promoted(&request, None)?
        .ok_or_else(gone)?;
    // A person's time to think is not the promotion's.
    let before = if yes { waited } else { Duration::ZERO };
    let shown = StandbyReport {
        promoted: true,
        promotion: &promoted,
        end_lsn: Lsn(promoted.switch_lsn).to_string(),
        database_url: of.address(&status.sockets),
        seconds: (before + asked.elapsed()).as_secs_f64(),
    };
    terminal::result(json, &shown, || told(of, &shown));
    Ok(ExitCode::SUCCESS)
}

fn question(status: &Status, alive: Option<&str>) -> String {
    let mut text = format!(
        "This makes the standby the primary: it replays the rest of the repository (now at {} of {}), leaves \
         timeline {} at its end, and takes writes.\n\
         It cannot be undone. The old primary, if it lives, is NOT fenced: stop it and keep its clients away; what it commits from now on is not kept.\n",
        status.replayed_lsn, status.repository_lsn, status.timeline
    );
    if let Some(heard) = &status.repository_confirmed_at {
        text.push_str(&format!(
            "It was last heard of in the repository at {heard}.\n"
        ));
    }
    if let Some(alive) = alive {
        text.push_str(&format!("WARNING: {alive}.\n"));
    }
    text
}

fn told(of: &Of, shown: &StandbyReport<'_>) -> String {
    let PromotionReport {
        timeline,
        parent_timeline,
        steps,
        ..
    } = shown.promotion;
    let mut table = Table::new(&[">ms", "step"]);
    for StepMillis { step, micros } in steps {
        table.row([(micros / 1000).to_string(), step.clone()]);
    }
    let steps = table.text();
    format!(
        "promoted in {:.3} s: timeline {timeline}, which leaves {parent_timeline} at {}\n{steps}It takes writes at {}\n{}",
        shown.seconds,
        shown.end_lsn,
        shown.database_url,
        of.next(shown.promotion)
    )
}

/// Whether the old primary is known to live: on this machine, or where the settings say that it is.
fn signs_of_life(instance: &Instance, config: &Config) -> Option<String> {
    let left = Leftover::detect(&instance.postgres());
    if let Some(pid) = left.and_then(|left| left.postmaster) {
        let folder: PathBuf = instance.postgres();
        return Some(format!(
            "the old primary runs on {} (process {pid})",
            folder.display()
        ));
    }
    if instance.is_locked() {
        return Some(
            "an engine runs on this folder and brings its database back by itself".to_owned(),
        );
    }
    let database = &config.database;
    let urls = [&database.url, &database.owner_url, &database.backup_url];
    urls.into_iter().flatten().find_map(|url| answers(&url.0))
}

fn answers(url: &str) -> Option<String> {
    answers_at(ConnectOptions::from_url(url).ok()?)
}

fn answers_at(mut options: ConnectOptions) -> Option<String> {
    options.timeout = ANSWER_TIMEOUT;
    let place = options.target();
    let mut client = Client::connect(&options).ok()?;
    let is_standby = client.value("SELECT pg_is_in_recovery()::text").ok()?;
    (is_standby.as_deref() == Some("false")).then(|| format!("the old primary answers at {place}"))
}

#[cfg(test)]
#[path = "screens/standby.rs"]
mod screens;
