//! `bre restore --to DIR`: a plain, cleanly stopped data folder of the chosen moment. Nothing that exists is touched.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::Timestamp;
use postgres_physical::{
    lsn::Lsn,
    server::{Binaries, OsUser},
};
use recovery::database::Target;
use serde::Serialize;

use super::{opened::Opened, progress::Steps};
use crate::{
    cli::{RestoreArgs, TargetArgs},
    config::Config,
    error::Error,
    instance::Instance,
    record::Event,
    restored::{Outcome, Source, bring_back},
    terminal,
};

#[derive(Debug, Serialize)]
struct Restored<'a> {
    restore_id: String,
    dir: &'a Path,
    backup_id: String,
    timeline: u32,
    parent_timeline: u32,
    end_lsn: String,
    wal_bytes: u64,
}

pub(crate) fn run(instance: &Instance, json: bool, args: &RestoreArgs) -> Result<(), Error> {
    let mut target = target(&args.target)?;
    target.timeline = args.timeline;
    let opened = Opened::at(instance, &args.repository)?;
    let private = opened.private()?;
    let config = Config::load(None, instance.root())?;
    let binaries = Binaries::find(config.database.binaries.as_deref())?;
    let user = OsUser::for_server()?;
    let to = std::path::absolute(&args.to).map_err(Error::file("cannot find", &args.to))?;
    // Beside the folder: inside it would have to be empty, and the log outlives a failure.
    let log = to.with_extension("restore.log");
    let source = Source {
        repository: &opened.repository,
        private: &private,
        binaries: &binaries,
        user: &user,
        log: &log,
    };
    let steps = Steps::shown(json, "restore").cancelled_by(interrupted()?);
    let outcome = bring_back(&source, target, &to, &steps)?;
    drop(steps);
    let _ = std::fs::remove_file(&log);
    record(instance, &outcome);
    let restored = Restored {
        restore_id: outcome.recovered.restore_id.clone(),
        dir: &to,
        backup_id: outcome.plan.backup.id.clone(),
        timeline: outcome.recovered.timeline,
        parent_timeline: outcome.recovered.parent_timeline,
        end_lsn: Lsn(outcome.recovered.switch_lsn).to_string(),
        wal_bytes: outcome.recovered.wal_bytes,
    };
    terminal::result(json, &restored, || {
        format!(
            "{}\nThe folder {} is complete and stopped cleanly. Start it as user {}: pg_ctl -D {} start",
            outcome.recovered.describe(&outcome.plan),
            to.display(),
            user.name,
            to.display()
        )
    });
    Ok(())
}

/// With an engine running, the restore goes on its record; without one there is no log to write to.
fn record(instance: &Instance, outcome: &Outcome) {
    if instance.running().is_err() || !instance.is_locked() {
        return;
    }
    let event = Event::by_person("RestoreRun")
        .with("restore_id", &outcome.recovered.restore_id)
        .with("backup_id", &outcome.plan.backup.id)
        .with("target", Lsn(outcome.recovered.switch_lsn))
        .with("timeline", outcome.recovered.timeline)
        .with("outcome", "restored");
    if let Err(error) = super::wait(event.record(instance)) {
        terminal::note(&format!(
            "bre: the restore is complete but not in the audit log: {error}"
        ));
    }
}

fn target(args: &TargetArgs) -> Result<Target, Error> {
    match (&args.time, &args.lsn) {
        (Some(text), _) => {
            let time: Timestamp = text.parse().map_err(|error: jiff::Error| Error::Argument {
                what: "moment",
                value: text.clone(),
                reason: format!(
                    "{error}. Give it with its offset, for example 2026-04-01T10:31:00-04:00 or …Z"
                ),
            })?;
            Ok(Target::time(time.as_microsecond()))
        }
        (None, Some(text)) => {
            let lsn: Lsn = text.parse().map_err(|_| Error::Argument {
                what: "WAL position",
                value: text.clone(),
                reason: "it looks like 0/3000148".into(),
            })?;
            Ok(Target::lsn(lsn.0))
        }
        (None, None) => Ok(Target::latest()),
    }
}

/// Set by Ctrl-C: the restore ends between two steps and says what it leaves.
fn interrupted() -> Result<Arc<AtomicBool>, Error> {
    let flag = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&flag);
    let failed =
        |error: std::io::Error| Error::Failed(format!("cannot listen for signals: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    std::thread::spawn(move || {
        if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
            seen.store(true, Ordering::Relaxed);
        }
    });
    Ok(flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(time: Option<&str>, lsn: Option<&str>) -> TargetArgs {
        TargetArgs {
            latest: false,
            time: time.map(Into::into),
            lsn: lsn.map(Into::into),
        }
    }

    #[test]
    fn targets() {
        assert_eq!(target(&args(None, None)).unwrap(), Target::latest());
        let time = target(&args(Some("1970-01-01T01:00:01+01:00"), None)).unwrap();
        assert_eq!(time, Target::time(1_000_000));
        assert_eq!(
            target(&args(None, Some("1/10"))).unwrap(),
            Target::lsn(0x1_0000_0010)
        );
        for (time, lsn) in [
            (Some("2026-04-01 10:31"), None),
            (Some("yesterday"), None),
            (None, Some("12")),
        ] {
            assert!(target(&args(time, lsn)).is_err(), "{time:?} {lsn:?}");
        }
    }
}
