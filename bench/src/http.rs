//! A rate look-up with key, limit and JSON, against axum answering JSON with nothing else to do.

use std::path::Path;

use crate::{
    bare::Peer,
    load::{wrk, wrk_script},
    system::{Result, System},
    table::Row,
};

const CONNECTIONS: u32 = 64;
const SECONDS: u32 = 5;

pub(crate) fn run(bre: &Path, rounds: usize) -> Result<Vec<Row>> {
    let system = System::start(bre, false)?;
    let peer = Peer::start("bare-axum")?;
    let measured = measure(&system, &peer.address, rounds);
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
