//! Load from outside, by tools that everybody knows: wrk for HTTP, pgbench for SQL.

use std::{path::Path, process::Command};

use crate::{
    cpu,
    system::{Result, run},
};

/// A POST for wrk, as the script it wants.
pub(crate) fn wrk_script(
    folder: &Path,
    name: &str,
    key: &str,
    body: &str,
) -> Result<std::path::PathBuf> {
    let path = folder.join(name);
    std::fs::write(
        &path,
        format!(
            "wrk.method = \"POST\"\nwrk.body = '{body}'\nwrk.headers[\"Content-Type\"] = \"application/json\"\n\
             wrk.headers[\"X-API-Key\"] = \"{key}\"\n"
        ),
    )?;
    Ok(path)
}

/// Requests a second, all of which were answered with success.
pub(crate) fn wrk(url: &str, connections: u32, seconds: u32, arguments: &[&str]) -> Result<f64> {
    let printed = run(Command::new("wrk")
        .args(["-t1", &format!("-c{connections}"), &format!("-d{seconds}s")])
        .args(arguments)
        .arg(url))?;
    if printed.contains("Non-2xx") || printed.contains("Socket errors") {
        return Err(format!("not every answer was a success:\n{printed}").into());
    }
    let figure = printed
        .lines()
        .find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    Ok(figure.ok_or("wrk printed no rate")?.trim().parse()?)
}

/// The same, and microseconds of processor time that each request cost the server: `pid` and all that it started.
#[allow(clippy::float_arithmetic, reason = "a measurement")]
pub(crate) fn wrk_cost(
    pid: u32,
    url: &str,
    connections: u32,
    seconds: u32,
    arguments: &[&str],
) -> Result<(f64, f64)> {
    let before = cpu::micros_of(pid);
    let rate = wrk(url, connections, seconds, arguments)?;
    let each = cpu::micros_each(before, pid, rate * f64::from(seconds));
    Ok((rate, each))
}

/// Transactions a second of one statement a transaction.
pub(crate) fn pgbench(
    database_url: &str,
    script: &Path,
    clients: u32,
    seconds: u32,
) -> Result<f64> {
    let printed = run(Command::new("pgbench")
        .args([
            "-n",
            "-M",
            "prepared",
            "-j1",
            &format!("-c{clients}"),
            &format!("-T{seconds}"),
            "-f",
        ])
        .arg(script)
        .arg(database_url))?;
    let line = printed
        .lines()
        .find_map(|line| line.strip_prefix("tps = "))
        .ok_or("pgbench printed no rate")?;
    Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
}
