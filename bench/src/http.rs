//! A rate look-up with key, limit and JSON, against axum answering JSON with nothing else to do.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use axum::{Json, Router, routing::post};
use serde::{Deserialize, Serialize};

use crate::{
    load::{wrk, wrk_script},
    system::{Result, System},
    table::Row,
};

const CONNECTIONS: u32 = 64;
const SECONDS: u32 = 5;

#[derive(Deserialize)]
struct Asked {
    ticker: String,
    position_value: String,
}

#[derive(Serialize)]
struct Answered {
    status: &'static str,
    ticker: String,
    current_rate: String,
}

/// The peer, in a process of its own: parse a small JSON body, answer a small JSON body.
pub(crate) async fn bare_axum() -> Result<()> {
    let handler = |Json(asked): Json<Asked>| async move {
        Json(Answered {
            status: "success",
            ticker: asked.ticker,
            current_rate: asked.position_value,
        })
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    crate::say(&listener.local_addr()?.to_string());
    axum::serve(listener, Router::new().route("/", post(handler))).await?;
    Ok(())
}

pub(crate) fn run(bre: &Path, rounds: usize) -> Result<Vec<Row>> {
    let system = System::start(bre, false)?;
    let mut peer = Command::new(std::env::current_exe()?)
        .arg("bare-axum")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut address = String::new();
    BufReader::new(peer.stdout.take().ok_or("no output")?).read_line(&mut address)?;
    let measured = measure(&system, address.trim(), rounds);
    peer.kill()?;
    peer.wait()?;
    Ok(vec![Row::new(
        "rate look-up, 64 connections",
        "requests",
        "1/s",
        "bare axum, JSON POST",
        measured?,
    )])
}

fn measure(system: &System, address: &str, rounds: usize) -> Result<Vec<(f64, f64)>> {
    let folder = system.folder.path();
    let body = r#"{"ticker":"GME","position_value":"100000.00"}"#;
    let script = wrk_script(folder, "bare.lua", "none", body)?;
    let script = script.to_string_lossy().into_owned();
    let key = format!("X-API-Key: {}", system.ready.api_key);
    let rates = format!("{}/api/v1/rates/GME", system.ready.url);
    let bare = format!("http://{address}/");
    let mut measured = Vec::new();
    for _ in 0..rounds {
        let ours = wrk(&rates, CONNECTIONS, SECONDS, &["-H", &key])?;
        let theirs = wrk(&bare, CONNECTIONS, SECONDS, &["-s", &script])?;
        measured.push((ours, theirs));
    }
    Ok(measured)
}
