//! The same with a real PostgreSQL: its stream and its backups are stopped at a seeded write, twice; what the
//! repository then holds is restored, started, and has every row whose commit was durable in it.

use std::sync::Arc;

use backup::database::{DatabaseBackup, backup};
use backup::stream::{Streamer, StreamerConfig};
use recovery::database::Target;
use repository::{
    Repository,
    backup::{BackupState, catalogue},
};

use super::dice::Dice;
use super::disk::{Disk, Trouble};
use crate::{TIMEOUT, World, lsn};

const WRITES_IN_A_LIFE: usize = 30;

struct Real {
    world: World,
    dice: Dice,
    disk: Disk,
    rows: u64,
    /// Rows whose commit the stream said to be durable.
    durable_rows: u64,
}

/// True when a machine stopped on the way.
pub(super) fn run(seed: u64) -> bool {
    let world = World::new();
    world.postgres.sql("CREATE TABLE rows (number bigint)");
    let dice = Dice::new(seed);
    let mut real = Real {
        disk: Disk::new(Arc::clone(&world.store), dice.clone(), true),
        world,
        dice,
        rows: 0,
        durable_rows: 0,
    };
    let mut stopped = false;
    for number in 0..2 {
        let stops_at = real.dice.below(WRITES_IN_A_LIFE) as u64;
        let life = real.disk.next_life(
            Some(stops_at),
            Trouble::default(),
            Dice::apart(seed, number),
        );
        real.live(&life);
        stopped |= life.is_down();
        if real.has_complete_backup() {
            real.check(&format!("after life {number}"));
        }
    }
    let last = real
        .disk
        .next_life(None, Trouble::default(), Dice::apart(seed, 2));
    real.live(&last);
    assert!(real.has_complete_backup());
    real.check("at the end");
    stopped
}

impl Real {
    fn live(&mut self, life: &Disk) {
        let connect = self.world.postgres.connect_options();
        let public = self.world.private.public().clone();
        let config = StreamerConfig::new(connect.clone(), "bre", Arc::new(life.clone()), public);
        let streamer = Streamer::start(config);
        let watch = streamer.watch();
        watch.wait_until(TIMEOUT, |state| state.attached || life.is_down());
        for number in 0..4 {
            self.insert();
            let flushed = lsn(&self
                .world
                .postgres
                .value("SELECT pg_current_wal_flush_lsn()"));
            let state = watch.wait_until(TIMEOUT, |state| {
                state.durable_lsn >= flushed || state.error.is_some() && life.is_down()
            });
            match state.is_some_and(|state| state.durable_lsn >= flushed) {
                true => self.durable_rows = self.rows,
                false => assert!(life.is_down(), "{:?}", streamer.state()),
            }
            if number == 1
                && let Ok(repository) = Repository::open(Arc::new(life.clone()))
            {
                let request = DatabaseBackup {
                    wal_timeout: TIMEOUT,
                    ..DatabaseBackup::new(
                        &connect,
                        &repository,
                        self.world.private.public(),
                        &self.world.chunk_key,
                    )
                };
                let outcome = backup(&request, &());
                assert!(outcome.is_ok() || life.is_down(), "{outcome:?}");
            }
        }
        streamer.stop();
    }

    fn insert(&mut self) {
        let more = 1 + self.dice.below(2000) as u64;
        let (from, to) = (self.rows + 1, self.rows + more);
        self.world.postgres.sql(&format!(
            "INSERT INTO rows SELECT generate_series({from}, {to})"
        ));
        self.rows = to;
    }

    fn has_complete_backup(&self) -> bool {
        let catalogue = catalogue(&self.world.repository).unwrap();
        assert!(catalogue.damaged.is_empty(), "{:?}", catalogue.damaged);
        let mut backups = catalogue.backups.iter();
        backups.any(|backup| backup.state == BackupState::Complete)
    }

    fn check(&self, when: &str) {
        let words = self.disk.last_words();
        let recovered = self.world.restore_and_replay(Target::latest(), "restored");
        recovered.unwrap_or_else(|error| panic!("{when}, stopped at {words}: {error}"));
        let restored = self.world.start("restored");
        let found = restored.value("SELECT count(*) || ' ' || coalesce(max(number), 0) FROM rows");
        drop(restored);
        std::fs::remove_dir_all(self.world.folder("restored")).unwrap();
        let (count, max) = found.split_once(' ').unwrap();
        assert_eq!(
            count, max,
            "{when}, stopped at {words}: rows are missing inside"
        );
        assert!(
            count.parse::<u64>().unwrap() >= self.durable_rows,
            "{when}, stopped at {words}: {count} of {} durable rows",
            self.durable_rows
        );
    }
}
