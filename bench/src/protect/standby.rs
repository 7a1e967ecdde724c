//! A spare that follows until it is told to take over.

use std::{
    io::BufRead,
    path::Path,
    sync::mpsc::{RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use postgres_physical::server::{Binaries, OsUser};
use recovery::standby::{Conditions, Phase, Settings, Standby};

use super::{Place, Result, say};

/// As often as the engine's own keeper.
const TURN: Duration = Duration::from_millis(50);

pub(super) fn run(place: &Place, to: &Path, sockets: &Path) -> Result<()> {
    let mut standby = Standby::open(Settings {
        repository: place.repository()?,
        private: place.private()?,
        folder: to.to_owned(),
        sockets: sockets.to_owned(),
        binaries: Binaries::find(None)?,
        user: OsUser::for_server()?,
        server: vec![("max_connections".to_owned(), "100".to_owned())],
    })?;
    let (told, asked) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(|line| line.ok()) {
            let _ = told.send(line);
        }
    });
    let mut follows = false;
    loop {
        standby.turn(&())?;
        if !follows && standby.watch().status().phase == Phase::Following {
            follows = true;
            say("following");
        }
        match asked.recv_timeout(TURN) {
            Ok(_) => break,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(standby.stop()?),
        }
    }
    let began = Instant::now();
    let promoted = standby.promote(Conditions::default(), &|_| Ok(()))?;
    let (seconds, folder) = (began.elapsed().as_secs_f64(), promoted.folder.display());
    say(&format!("promoted {seconds} {folder}"));
    Ok(standby.stop()?)
}
