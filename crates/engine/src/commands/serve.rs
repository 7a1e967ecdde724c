//! `bre serve`: what a person or a script is told of a start.

use std::process::ExitCode;

use host::{instance::Instance, telemetry};
use supervisor::serve::{self, Listening};

use super::job;
use crate::{cli::ServeArgs, error::Error};

pub(super) fn run(instance: &Instance, json: bool, args: ServeArgs) -> Result<ExitCode, Error> {
    telemetry::start(json);
    let services = args.services.clone();
    serve::run(instance, &args.into(), job::screens, |listening| {
        terminal::result(json, listening, || text(&services.to_string(), listening));
    })?;
    Ok(ExitCode::SUCCESS)
}

fn text(services: &str, listening: &Listening) -> String {
    let mut text = format!("{services} listening");
    for (name, url) in [
        ("API", &listening.url),
        ("internal", &listening.internal_url),
    ] {
        if let Some(url) = url {
            text.push_str(&format!("\n  {name:<10}{url}"));
        }
    }
    text
}
