//! Full backup and restore, against pg_basebackup on the same cluster.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use postgres_physical::server::{Binaries, OsUser, Server, StartOptions, StopMode};

use crate::{
    system::{Result, System, run},
    table::Row,
};

/// About 500 MB that compress about four times.
const FILL: &str = "CREATE TABLE filler AS SELECT i AS id, md5(i::text) AS key, repeat(md5((i % 1000)::text), 3) AS text, \
     (i::bigint * 7919) % 100003 AS number FROM generate_series(1, 2500000) i; CHECKPOINT";

pub(crate) fn run_all(bre: &Path, rounds: usize) -> Result<Vec<Row>> {
    let system = System::start(bre, false)?;
    system.psql(FILL)?;
    let binaries = Binaries::find(None)?;
    let mut backups = Vec::new();
    let mut restores = Vec::new();
    for round in 0..rounds {
        let base = system.folder.path().join(format!("base-{round}"));
        let ours = timed(|| system.bre(&["backup", "run"]).map(drop))?;
        let theirs = timed(|| base_backup(&system, &binaries, &base))?;
        backups.push((ours, theirs));

        let to = system.folder.path().join(format!("restored-{round}"));
        let ours = timed(|| {
            system
                .bre(&[
                    "restore",
                    "database",
                    "--latest",
                    "--to",
                    &to.to_string_lossy(),
                ])
                .map(drop)
        })?;
        let theirs = timed(|| restore_tar(&system, &binaries, &base))?;
        restores.push((ours, theirs));
        std::fs::remove_dir_all(&to)?;
        std::fs::remove_dir_all(&base)?;
    }
    Ok(vec![
        Row::new(
            "full backup, 500 MB",
            "wall",
            "s",
            "pg_basebackup -Ft -X stream -Z client-zstd:1",
            backups,
        ),
        Row::new(
            "restore to latest, 500 MB",
            "wall to consistent, stopped",
            "s",
            "untar, start, stop",
            restores,
        ),
    ])
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_secs_f64())
}

fn base_backup(system: &System, binaries: &Binaries, to: &Path) -> Result<()> {
    run(Command::new(binaries.program("pg_basebackup"))
        .args([
            "-d",
            &system.ready.database_url,
            "-Ft",
            "-X",
            "stream",
            "-c",
            "fast",
            "-Z",
            "client-zstd:1",
            "-D",
        ])
        .arg(to))
    .map(drop)
}

/// What a DBA does with such a backup: unpack, start, see that it is consistent, stop.
fn restore_tar(system: &System, binaries: &Binaries, from: &Path) -> Result<()> {
    let to = from.join("data");
    std::fs::create_dir(&to)?;
    let unpack = |archive: &str, into: &Path, compression: &[&str]| {
        run(Command::new("tar")
            .args(compression)
            .arg("-xf")
            .arg(from.join(archive))
            .arg("-C")
            .arg(into))
        .map(drop)
    };
    unpack("base.tar.zst", &to, &["--zstd"])?;
    unpack("pg_wal.tar", &to.join("pg_wal"), &[])?;
    let user = OsUser::for_server()?;
    std::fs::set_permissions(&to, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    user.own_tree(&to)?;
    std::fs::set_permissions(from, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
    let sockets = system.folder.path().join("sockets");
    std::fs::create_dir_all(&sockets)?;
    user.own(&sockets)?;
    let options = StartOptions::new(&sockets, 5432, system.folder.path().join("peer.log"));
    let mut server = Server::start(binaries, &user, &to, &options)?;
    server.stop(StopMode::Fast, Duration::from_secs(60))?;
    Ok(())
}
