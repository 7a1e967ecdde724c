//! `bre up`: everything on one machine, from nothing or from what a loss left, until it is told to stop.

pub(crate) mod backups;
pub(crate) mod database;
mod ground;
pub(crate) mod heads;
pub(crate) mod health;
pub(crate) mod leftovers;
mod observer;
pub(crate) mod plan;
pub(crate) mod postgres;
pub(crate) mod protection;
pub(crate) mod public_log;
pub(crate) mod reachable;
mod recovery;
mod redis;
pub(crate) mod repository;
pub(crate) mod sockets;
mod spare;
pub(crate) mod supervisor;
mod wiring;

use std::{
    net::{IpAddr, TcpListener},
    process::ExitCode,
};

use serde::Serialize;

use crate::{
    cli::UpArgs,
    config::Config,
    error::Error,
    instance::{Instance, Running},
    telemetry, terminal,
};
pub(crate) use ground::Lost;
use supervisor::Supervisor;

/// The line that scripts wait for.
#[derive(Debug, Serialize)]
struct Ready<'a> {
    #[serde(flatten)]
    running: &'a Running,
    api_key: &'a str,
    client_id: &'a str,
}

pub(crate) fn run(instance: &Instance, json: bool, args: &UpArgs) -> Result<ExitCode, Error> {
    telemetry::start(json);
    let mut config = Config::load(args.config.as_deref(), instance.root())?;
    config.database.strict |= args.strict;
    if let Some(location) = &args.repository {
        config.repository.path = Some(location.clone());
    }
    telemetry::set_level(config.log.level.as_deref())?;
    let lock = instance.lock()?;
    instance.make_folders()?;
    let listener = listen(config.server.bind, args.port.unwrap_or(config.server.port))?;
    let book = args.book.as_deref().map(read_book).transpose()?;

    let mut supervisor = Supervisor::start(instance, config, listener, book)?;
    let ready = supervisor.announce()?;
    if json {
        terminal::result(
            true,
            &Ready {
                running: &ready,
                api_key: supervisor.api_key(),
                client_id: FIRST_CLIENT,
            },
            String::new,
        );
    } else {
        terminal::line(&welcome(&ready, supervisor.api_key()));
    }
    supervisor.follow_settings(args.config.as_deref())?;
    supervisor.watch();
    supervisor.stop()?;
    drop(lock);
    Ok(ExitCode::SUCCESS)
}

/// The client that the first key belongs to.
pub(crate) const FIRST_CLIENT: &str = "standard";

pub(crate) fn listen(bind: IpAddr, port: u16) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind((bind, port)).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Error::PortTaken { bind, port },
        _ => Error::Failed(format!("cannot listen on {bind}:{port}: {error}")),
    })?;
    listener
        .set_nonblocking(true)
        .map_err(Error::file("cannot use", "the listening socket"))?;
    Ok(listener)
}

fn read_book(path: &std::path::Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(Error::file("cannot read the book", path))
}

fn welcome(running: &Running, key: &str) -> String {
    format!(
        "The Borrow Rate Engine is up.\n\
         \n  API         {url}\n  API key     {key}   (client {FIRST_CLIENT})\n  database    {database}\n  repository  {repository}\n\
         \nPrice a locate:\n\
         \n  curl -s -H 'X-API-Key: {key}' -H 'Content-Type: application/json' \\\n    \
         -d '{{\"ticker\":\"GME\",\"position_value\":100000,\"loan_days\":30,\"client_id\":\"{FIRST_CLIENT}\"}}' \\\n    \
         {url}/api/v1/calculate-locate\n\
         \nCtrl-C stops everything cleanly.",
        url = running.url,
        database = running.database_url,
        repository = running.repository,
    )
}
