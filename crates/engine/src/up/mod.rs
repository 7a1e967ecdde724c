//! `bre up`: everything on one machine, from nothing or from what a loss left, until it is told to stop.

pub(crate) mod database;
mod ground;
pub(crate) mod leftovers;
mod observer;
pub(crate) mod postgres;
pub(crate) mod protection;
pub(crate) mod reachable;
mod recovery;
mod redis;
mod standby;
pub(crate) mod supervisor;
mod wiring;

use host::{
    instance::{Instance, Running},
    location::Location,
    telemetry,
};
use serde::Serialize;
use std::{
    net::{IpAddr, TcpListener},
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{error::Error, jobs::settings};
use supervisor::Supervisor;

/// What a person says at the start, beside the settings.
#[derive(Debug)]
pub(crate) struct UpOptions {
    /// Of the public API; 0 takes a free one.
    pub(crate) port: Option<u16>,
    pub(crate) strict: bool,
    pub(crate) repository: Option<Location>,
    /// A feed file for the first start, instead of the shipped sample.
    pub(crate) rates_file: Option<PathBuf>,
    /// The settings file; `DIR/bre.toml` when it is there.
    pub(crate) config: Option<PathBuf>,
    pub(crate) show_key: bool,
    /// All of the audit log is truly lost: another takes its place.
    pub(crate) continue_log: bool,
    pub(crate) yes_all_is_lost: bool,
}

/// The line that scripts wait for.
#[derive(Serialize)]
struct Ready<'a> {
    #[serde(flatten)]
    running: &'a Running,
    /// At the start that made it, or when it was asked for; `api_key_file` is always there.
    api_key: Option<&'a str>,
    client_id: &'a str,
}

pub(crate) fn run(instance: &Instance, json: bool, args: &UpOptions) -> Result<ExitCode, Error> {
    telemetry::start(json);
    let mut config = settings::load(args.config.as_deref(), instance.root())?;
    config.database.strict |= args.strict;
    if let Some(location) = &args.repository {
        config.repository.path = Some(location.clone());
    }
    telemetry::set_level(config.log.level.as_deref())?;
    let lock = instance.lock()?;
    instance.make_folders()?;
    let listener = listen(config.server.bind, args.port.unwrap_or(config.server.port))?;
    let rates_file = args
        .rates_file
        .as_deref()
        .map(read_rates_file)
        .transpose()?;

    let continue_log = args.continue_log && asked_again(args.yes_all_is_lost)?;
    let mut supervisor = Supervisor::start(instance, config, listener, rates_file, continue_log)?;
    let mut ready = supervisor.announce()?;
    // What is printed may be kept by whoever listens.
    ready.cache_url = without_password(&ready.cache_url);
    let key = supervisor.api_key_to_show(args.show_key)?;
    if json {
        terminal::result(
            true,
            &Ready {
                running: &ready,
                api_key: key.as_deref(),
                client_id: FIRST_CLIENT,
            },
            String::new,
        );
    } else {
        terminal::line(&welcome(&ready, key.as_deref()));
    }
    supervisor.follow_settings(args.config.as_deref())?;
    supervisor.watch();
    supervisor.stop()?;
    drop(lock);
    Ok(ExitCode::SUCCESS)
}

/// The first time is the flag.
fn asked_again(yes: bool) -> Result<bool, Error> {
    let question = "All of the audit log is lost, then: every quote and locate that it held. Another takes its place, in an epoch of its own, and says so, signed. \
                    Whatever is brought back later is not taken up again. If a disk, a repository or a copy could still be found, find it first.";
    if yes || crate::question::confirmed(question) {
        return Ok(true);
    }
    Err(Error::refused(
        "no other log takes the place of this one",
        "give --yes-all-is-lost as well to do it without asking",
    ))
}

/// The client that the first key belongs to.
pub(crate) const FIRST_CLIENT: &str = "standard";

pub(crate) fn listen(bind: IpAddr, port: u16) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind((bind, port)).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => Error::from(host::Error::PortTaken { bind, port }),
        _ => Error::failed(format!("cannot listen on {bind}:{port}: {error}")),
    })?;
    listener
        .set_nonblocking(true)
        .map_err(Error::file("cannot use", "the listening socket"))?;
    Ok(listener)
}

fn read_rates_file(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(Error::file("cannot read the book", path))
}

/// `redis://user:password@host` with `…` for the password.
fn without_password(url: &str) -> String {
    let hidden = || {
        let (scheme, rest) = url.split_once("://")?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (user, host) = rest[..end].rsplit_once('@')?;
        let (user, _) = user.split_once(':')?;
        Some(format!("{scheme}://{user}:…@{host}{}", &rest[end..]))
    };
    hidden().unwrap_or_else(|| url.to_owned())
}

fn welcome(running: &Running, key: Option<&str>) -> String {
    let file = running.api_key_file.as_deref().unwrap_or(Path::new(""));
    let shown = match key {
        Some(key) => key.to_owned(),
        None => format!("in {}", file.display()),
    };
    format!(
        "The Borrow Rate Engine is up.\n\
         \n  API         {url}\n  API key     {shown}   (client {FIRST_CLIENT})\n  database    {database}\n  repository  {repository}\n\
         \nPrice a locate:\n\
         \n  curl -s -H \"X-API-Key: $(cat {file})\" -H 'Content-Type: application/json' \\\n    \
         -d '{{\"ticker\":\"GME\",\"position_value\":100000,\"loan_days\":30,\"client_id\":\"{FIRST_CLIENT}\"}}' \\\n    \
         {url}/api/v1/calculate-locate\n\
         \nCtrl-C stops everything cleanly.",
        url = running.url,
        file = secrets::shell_word(file),
        database = running.database_url,
        repository = running.repository,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_at_a_start_holds_no_live_password_or_key_unless_asked() {
        for (url, shown) in [
            (
                "redis://bob:hush@cache:6379/1",
                "redis://bob:…@cache:6379/1",
            ),
            ("rediss://:hu@sh@cache", "rediss://:…@cache"),
            (
                "redis+unix:///run/redis.sock",
                "redis+unix:///run/redis.sock",
            ),
            ("redis://cache/?a=b:c@d", "redis://cache/?a=b:c@d"),
            ("", ""),
        ] {
            assert_eq!(without_password(url), shown);
        }
        let running = Running {
            url: "http://127.0.0.1:1".into(),
            database_url: String::new(),
            cache_url: String::new(),
            data_dir: "/d".into(),
            repository: std::path::PathBuf::from("/r").into(),
            pid: 1,
            api_key_file: Some("/d/my keys/first".into()),
        };
        let later = welcome(&running, None);
        assert!(
            later.contains("API key     in /d/my keys/first "),
            "{later}"
        );
        assert!(
            later.contains("-H \"X-API-Key: $(cat '/d/my keys/first')\""),
            "{later}"
        );
        let first = welcome(&running, Some("bre_1"));
        assert_eq!(first.matches("bre_1").count(), 1, "{first}");
    }
}
