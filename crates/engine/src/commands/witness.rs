//! `bre witness`: signs, at another site, that a log only grew (docs/formats/audit_transparency.md §5). Needs no instance.

use std::{net::SocketAddr, path::Path, process::ExitCode};

use audit::{NoteKey, SignatureKind};
use host::telemetry;
use serde::Serialize;
use services::{Witness, WitnessError};
use tokio::signal::unix::{SignalKind, signal};

use crate::{cli::WitnessCommand, error::Error};

pub(super) async fn run(json: bool, command: WitnessCommand) -> Result<ExitCode, Error> {
    match command {
        WitnessCommand::Key { folder, name } => {
            let key = Witness::key_in(&folder, &name)
                .map_err(refused)?
                .to_string();
            terminal::result(json, &WitnessKeyRow { key: &key }, || format!("{key}\n"));
        }
        WitnessCommand::Run {
            folder,
            name,
            listen,
            log,
        } => serve(json, &folder, &name, listen, &log).await?,
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Serialize)]
struct WitnessKeyRow<'a> {
    /// As `[[audit.witnesses]]` names it.
    key: &'a str,
}

#[derive(Debug, Serialize)]
struct Listening<'a> {
    url: String,
    key: &'a str,
    logs: Vec<&'a str>,
}

fn open(folder: &Path, name: &str, logs: &[String]) -> Result<Witness, Error> {
    let logs = logs
        .iter()
        .map(|text| log_key(text))
        .collect::<Result<Vec<_>, _>>()?;
    Witness::open(folder, name, &logs).map_err(refused)
}

fn refused(error: WitnessError) -> Error {
    Error::refused("this witness does not start", error.to_string())
}

fn log_key(text: &str) -> Result<NoteKey, Error> {
    let wrong = |reason: String| Error::argument("key of a log", text.to_owned(), reason);
    let key: NoteKey = text
        .parse()
        .map_err(|error: audit::NoteError| wrong(error.to_string()))?;
    match key.kind() {
        SignatureKind::Plain => Ok(key),
        SignatureKind::Cosignature => Err(wrong("it is the key of a witness".to_owned())),
    }
}

async fn serve(
    json: bool,
    folder: &Path,
    name: &str,
    listen: SocketAddr,
    logs: &[String],
) -> Result<(), Error> {
    telemetry::start(json);
    let witness = open(folder, name, logs)?;
    let failed = |what: &str, error: std::io::Error| Error::failed(format!("{what}: {error}"));
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .map_err(|error| failed(&format!("cannot listen on {listen}"), error))?;
    let address = listener
        .local_addr()
        .map_err(|error| failed("cannot listen", error))?;
    let signals = |error| failed("cannot listen for signals", error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let key = witness.key().to_string();
    let listening = Listening {
        url: format!("http://{address}"),
        key: &key,
        logs: logs.iter().map(String::as_str).collect(),
    };
    terminal::result(json, &listening, || {
        format!("witness at {}\n{}\n", listening.url, listening.key)
    });
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    witness
        .serve(listener, stop)
        .await
        .map_err(|error| Error::failed(error.to_string()))
}
