//! `bre up`: what a person or a script is told of a start.

use std::{path::Path, process::ExitCode};

use host::{
    instance::{Instance, Running},
    telemetry,
};
use serde::Serialize;
use supervisor::up::{self, FIRST_CLIENT};

use super::job;
use crate::{cli::UpArgs, error::Error, question::confirmed};

/// The line that scripts wait for.
#[derive(Serialize)]
struct Ready<'a> {
    #[serde(flatten)]
    running: &'a Running,
    /// At the start that made it, or when it was asked for; `api_key_file` is always there.
    api_key: Option<&'a str>,
    client_id: &'a str,
}

pub(super) fn run(instance: &Instance, json: bool, args: UpArgs) -> Result<ExitCode, Error> {
    telemetry::start(json);
    up::run(
        instance,
        &args.into(),
        job::screens,
        confirmed,
        |running, key| show(json, running, key),
    )?;
    Ok(ExitCode::SUCCESS)
}

fn show(json: bool, mut running: Running, key: Option<&str>) {
    // What is printed may be kept by whoever listens.
    running.cache_url = without_password(&running.cache_url);
    if json {
        terminal::result(
            true,
            &Ready {
                running: &running,
                api_key: key,
                client_id: FIRST_CLIENT,
            },
            String::new,
        );
    } else {
        terminal::line(&welcome(&running, key));
    }
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
