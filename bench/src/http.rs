//! A rate look-up with key, limit and JSON, against axum answering JSON with nothing else to do.

use std::path::Path;

use crate::{
    bare::Peer,
    load::{wrk_cost, wrk_script},
    system::{Result, System},
    table::Row,
};

const CONNECTIONS: u32 = 64;
const SECONDS: u32 = 5;

pub(crate) fn run(bre: &Path, rounds: usize) -> Result<Vec<Row>> {
    let system = System::start(bre, false)?;
    let peer = Peer::start(&["bare-axum"])?;
    let (rates, costs) = measure(&system, &peer, rounds)?;
    let case = "rate look-up, 64 connections";
    let of = |metric, unit, rounds| Row::new(case, metric, unit, "bare axum, JSON POST", rounds);
    Ok(vec![
        of("requests", "1/s", rates),
        of("processor time of the server", "µs each", costs),
    ])
}

/// Rates, and what each request cost.
type RoundRates = (Vec<(f64, f64)>, Vec<(f64, f64)>);

fn measure(system: &System, peer: &Peer, rounds: usize) -> Result<RoundRates> {
    let folder = system.folder.path();
    let body = r#"{"ticker":"GME","position_value":"100000.00"}"#;
    let script = wrk_script(folder, "bare.lua", "none", body)?;
    let script = script.to_string_lossy().into_owned();
    let key = format!("X-API-Key: {}", system.ready.api_key);
    let rates = format!("{}/api/v1/rates/GME", system.ready.url);
    let bare = format!("http://{}/", peer.address);
    let (mut rates_measured, mut costs) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (ours, our_cost) = wrk_cost(system.pid(), &rates, CONNECTIONS, SECONDS, &["-H", &key])?;
        let (theirs, their_cost) =
            wrk_cost(peer.pid(), &bare, CONNECTIONS, SECONDS, &["-s", &script])?;
        rates_measured.push((ours, theirs));
        costs.push((our_cost, their_cost));
    }
    Ok((rates_measured, costs))
}
