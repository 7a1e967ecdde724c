//! `bre up`: everything on one machine, from nothing or from what a loss left, until it is told to stop.

mod database;
mod ground;
mod observer;
mod postgres;
mod recovery;
mod redis;
mod standby;
mod stream;
mod supervisor;
mod wiring;

use host::{
    instance::{Instance, Running},
    location::Location,
    telemetry,
};
use std::path::{Path, PathBuf};

use crate::listener::listen;
use operations::{
    Error,
    jobs::{Screens, settings},
};
use supervisor::Supervisor;

/// What a person says at the start, beside the settings.
#[derive(Debug)]
pub struct UpOptions {
    /// Of the public API; 0 takes a free one.
    pub port: Option<u16>,
    pub strict: bool,
    pub repository: Option<Location>,
    /// A feed file for the first start, instead of the shipped sample.
    pub rates_file: Option<PathBuf>,
    /// The settings file; `DIR/bre.toml` when it is there.
    pub config: Option<PathBuf>,
    pub show_key: bool,
    /// All of the audit log is truly lost: another takes its place.
    pub continue_log: bool,
    pub yes_all_is_lost: bool,
}

/// Until it is told to stop. `screens` say what came of jobs that a person asked for; `confirm` asks a person;
/// `ready` is told where the engine is, and the first API key at the start that made it, or when it was asked for.
pub fn run(
    instance: &Instance,
    options: &UpOptions,
    screens: Screens,
    confirm: impl FnOnce(&str) -> bool,
    ready: impl FnOnce(Running, Option<&str>),
) -> Result<(), Error> {
    let mut config = settings::load(options.config.as_deref(), instance.root())?;
    config.database.strict |= options.strict;
    if let Some(location) = &options.repository {
        config.repository.path = Some(location.clone());
    }
    telemetry::set_level(config.log.level.as_deref())?;
    let lock = instance.lock()?;
    instance.make_folders()?;
    telemetry::to_file(config.log.file(&instance.logs(), "engine.log"))?;
    let port = options.port.unwrap_or(config.server.port);
    let listener = listen(config.server.bind, port)?;
    let rates_file = options
        .rates_file
        .as_deref()
        .map(read_rates_file)
        .transpose()?;

    let continue_log = options.continue_log && asked_again(options.yes_all_is_lost, confirm)?;
    let mut supervisor = Supervisor::start(
        instance,
        config,
        listener,
        rates_file,
        continue_log,
        screens,
    )?;
    let running = supervisor.announce()?;
    let key = supervisor.api_key_to_show(options.show_key)?;
    ready(running, key.as_deref());
    supervisor.follow_settings(options.config.as_deref())?;
    supervisor.watch();
    supervisor.stop()?;
    drop(lock);
    Ok(())
}

/// The first time is the option.
fn asked_again(yes: bool, confirm: impl FnOnce(&str) -> bool) -> Result<bool, Error> {
    let question = "All of the audit log is lost, then: every quote and locate that it held. Another takes its place, in an epoch of its own, and says so, signed. \
                    Whatever is brought back later is not taken up again. If a disk, a repository or a copy could still be found, find it first.";
    if yes || confirm(question) {
        return Ok(true);
    }
    Err(Error::refused(
        "no other log takes the place of this one",
        "give --yes-all-is-lost as well to do it without asking",
    ))
}

/// The client that the first key belongs to.
pub const FIRST_CLIENT: &str = "standard";

fn read_rates_file(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(Error::file("cannot read the book", path))
}
