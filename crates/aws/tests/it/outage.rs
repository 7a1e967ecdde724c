//! A database whose repository in S3 goes away, within the bound and beyond it, and a warm standby that knows nothing
//! but that bucket. `make s3-outage MINUTES=3` makes the first outage that long.

use std::{
    os::unix::fs::PermissionsExt,
    sync::Arc,
    time::{Duration, Instant},
};

use aws::s3::S3Store;
use backup::{
    database::{DatabaseBackup, SlotStatus, WalStatus, backup, slot_status},
    stream::{Streamer, StreamerConfig},
};
use postgres_physical::{lsn::Lsn, server::StopMode, wire::ConnectOptions};
use recovery::standby::{Conditions, Phase, Settings, Standby, Status};
use repository::{
    Repository,
    keys::{ChunkIdKey, RecipientPrivate},
    store::Store,
    wal::WalReader,
};
use testkit::{S3Proxy, TestPostgres, TestS3, Weather, eventually};

const MIB: u64 = 1 << 20;
const TIMEOUT: Duration = Duration::from_secs(60);
/// What PostgreSQL may keep for us, and what it keeps in any case (`max_wal_size`, and a segment or two that are being
/// made).
const KEEP_MIB: u64 = 8;
const USUAL_MIB: u64 = 5;
const SUM: &str = "SELECT count(*) || ' ' || coalesce(sum(n), 0) FROM t";

struct Fixture {
    root: tempfile::TempDir,
    postgres: TestPostgres,
    repository: Repository,
    private: RecipientPrivate,
    streamer: Streamer,
    written: u64,
}

impl Fixture {
    fn on(store: Arc<dyn Store>) -> Fixture {
        let postgres = TestPostgres::builder()
            .wal_segment_bytes(MIB)
            .set("max_slot_wal_keep_size", format!("{KEEP_MIB}MB"))
            .set("wal_keep_size", 0)
            .set("min_wal_size", "2MB")
            .set("max_wal_size", "2MB")
            .start();
        let root = tempfile::tempdir().unwrap();
        std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let repository = Repository::init(Arc::clone(&store)).unwrap();
        let private = RecipientPrivate::generate().unwrap();
        let connect = postgres.connect_options();
        let mut config = StreamerConfig::new(connect, "bre", store, private.public().clone());
        // Little waits in our own memory: it is PostgreSQL that has to keep it.
        (config.buffer_bytes_max, config.retry_pause_max) = (MIB as usize, TIMEOUT / 300);
        let streamer = Streamer::start(config);
        let attached = streamer.watch().wait_until(TIMEOUT, |state| state.attached);
        assert!(attached.is_some(), "{:?}", streamer.state());
        postgres.sql("CREATE TABLE t (n int, filler text)");
        Fixture {
            root,
            postgres,
            repository,
            private,
            streamer,
            written: 0,
        }
    }

    /// A MiB of WAL, and a row.
    fn write(&mut self) {
        self.written += 1;
        let fill = "SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1048576))";
        self.postgres.sql(fill);
        let row = format!("INSERT INTO t VALUES ({}, 'x')", self.written);
        self.postgres.sql(&row);
    }

    fn slot(&self) -> SlotStatus {
        let connect = self.postgres.connect_options();
        slot_status(&connect, "bre").unwrap().unwrap()
    }

    fn kept_mib(&self) -> u64 {
        let sum = "SELECT sum(size)::int8 / 1048576 FROM pg_ls_waldir()";
        self.postgres.value(sum).parse().unwrap()
    }

    fn caught_up(&self) -> u64 {
        let flushed = self.postgres.value("SELECT pg_current_wal_flush_lsn()");
        let flushed = flushed.parse::<Lsn>().unwrap().0;
        let reached = self
            .streamer
            .watch()
            .wait_until(TIMEOUT, |state| state.durable_lsn >= flushed);
        assert!(reached.is_some(), "{:?}", self.streamer.state());
        flushed
    }

    fn backup(&self) {
        let connect = self.postgres.connect_options();
        let (public, chunk_key) = (self.private.public(), ChunkIdKey::generate().unwrap());
        let request = DatabaseBackup {
            wal_timeout: TIMEOUT,
            ..DatabaseBackup::new(&connect, &self.repository, public, &chunk_key)
        };
        backup(&request, &()).unwrap();
    }

    fn holes(&self) -> usize {
        let reader = WalReader::new(&self.repository, &self.private);
        let inventory = reader.inventory().unwrap();
        inventory.timelines[&1].holes.len()
    }

    fn standby(&self) -> Follower {
        let folder = self.root.path().join("spare");
        let sockets = folder.join("run");
        std::fs::create_dir_all(&sockets).unwrap();
        self.postgres.os_user().own(&sockets).unwrap();
        let connect = ConnectOptions::unix(&sockets, 5432, "postgres", "postgres");
        let settings = Settings {
            repository: self.repository.clone(),
            private: self.private.clone(),
            folder,
            sockets,
            binaries: self.postgres.binaries().clone(),
            user: self.postgres.os_user().clone(),
            server: vec![("shared_buffers".into(), "16MB".into())],
        };
        Follower {
            standby: Standby::open(settings).unwrap(),
            connect,
        }
    }
}

struct Follower {
    standby: Standby,
    connect: ConnectOptions,
}

impl Follower {
    fn reaches(&mut self, what: &str, is_it: impl Fn(&Status) -> bool) -> Status {
        let watch = self.standby.watch();
        eventually(what, || {
            // What is wrong for now is told by its status.
            let _ = self.standby.turn(&());
            let status = watch.status();
            is_it(&status).then_some(status)
        })
    }

    fn follows_to(&mut self, lsn: u64) -> Status {
        let at = |status: &Status| status.replayed_lsn.parse::<Lsn>().ok();
        self.reaches(&format!("the spare at {}", Lsn(lsn)), |status| {
            status.healthy && at(status).is_some_and(|at| at.0 >= lsn)
        })
    }

    fn value(&self, sql: &str) -> String {
        let mut client = postgres_physical::server::sql::Client::connect(&self.connect).unwrap();
        client.value(sql).unwrap().unwrap_or_default()
    }
}

/// `MINUTES`: how long the first outage lasts; without it, until there is enough to catch up with.
fn outage_lasts() -> Duration {
    let minutes = std::env::var("MINUTES").unwrap_or_default();
    Duration::from_secs(minutes.parse().unwrap_or(0) * 60)
}

#[test]
fn outages_are_ridden_out_within_the_bound_and_told_beyond_it_and_the_spare_is_promoted() {
    let Some(s3) = TestS3::start() else { return };
    s3.make_bucket("bucket");
    let proxy = S3Proxy::to(s3.port(), 1);
    let place = s3.location_through(&proxy.endpoint(), "bucket", "p");
    let store = Arc::new(S3Store::open(&place.parse().unwrap(), None).unwrap());
    let mut desk = Fixture::on(store);
    desk.backup();
    let mut standby = desk.standby();
    desk.write();
    standby.follows_to(desk.caught_up());

    within_the_bound(&mut desk, &proxy);
    standby.follows_to(desk.caught_up());
    assert_eq!(desk.holes(), 0);
    assert_eq!(standby.value(SUM), desk.postgres.value(SUM));

    beyond_the_bound(&mut desk, &proxy);
    desk.caught_up();
    assert_eq!(desk.holes(), 1);
    standby.reaches("the hole is seen", |status| status.phase == Phase::Lost);
    desk.backup();
    desk.write();
    let status = standby.follows_to(desk.caught_up());
    assert!(status.restored_anew.is_some(), "{status:?}");

    // The primary is lost; everything that it committed is in the bucket.
    let expected = desk.postgres.value(SUM);
    desk.streamer.stop();
    desk.postgres.stop(StopMode::Kill);
    let promoted = standby
        .standby
        .promote(Conditions::default(), &|_| Ok(()))
        .unwrap();
    assert_eq!((promoted.timeline, promoted.parent_timeline), (2, 1));
    assert_eq!(standby.value(SUM), expected);
    standby.value("INSERT INTO t VALUES (0, 'promoted')");
    standby.standby.stop().unwrap();
}

/// All of it waits in PostgreSQL, and no more than it may.
fn within_the_bound(desk: &mut Fixture, proxy: &S3Proxy) {
    proxy.set(Weather::Away);
    let began = Instant::now();
    let lasts = outage_lasts();
    desk.write();
    eventually("the outage is noticed", || desk.streamer.state().error);
    while desk.slot().retained_bytes < KEEP_MIB * MIB / 2 {
        desk.write();
    }
    let rest = lasts.saturating_sub(began.elapsed());
    // An outage of minutes is one: nothing can be waited for.
    std::thread::sleep(rest);
    desk.postgres.sql("CHECKPOINT");
    let (slot, state) = (desk.slot(), desk.streamer.state());
    assert!(
        matches!(slot.wal_status, WalStatus::Reserved | WalStatus::Extended),
        "{slot:?}"
    );
    assert!(!state.attached && state.error.is_some(), "{state:?}");
    assert!(
        desk.kept_mib() <= KEEP_MIB + USUAL_MIB,
        "{} MiB",
        desk.kept_mib()
    );
    proxy.set(Weather::Fair);
    desk.caught_up();
    let state = desk.streamer.state();
    assert!(
        state.attached && state.error.is_none() && !state.needs_full_backup,
        "{state:?}"
    );
}

/// PostgreSQL lets go instead of filling its disk. That is told: a hole on record, and a full backup is asked for.
fn beyond_the_bound(desk: &mut Fixture, proxy: &S3Proxy) {
    proxy.set(Weather::Busy);
    eventually("the slot is given up", || {
        desk.write();
        desk.postgres.sql("CHECKPOINT");
        (desk.slot().wal_status == WalStatus::Lost).then_some(())
    });
    // Enough that what the stream had received itself does not reach to what is kept.
    for _ in 0..2 * USUAL_MIB {
        desk.write();
    }
    desk.postgres.sql("CHECKPOINT");
    assert!(
        desk.kept_mib() <= KEEP_MIB + USUAL_MIB,
        "{} MiB",
        desk.kept_mib()
    );
    proxy.set(Weather::Fair);
    let again = desk
        .streamer
        .watch()
        .wait_until(TIMEOUT, |state| state.attached && state.needs_full_backup);
    assert!(again.is_some(), "{:?}", desk.streamer.state());
    let slot = desk.slot();
    assert_eq!(slot.limit_bytes, Some(KEEP_MIB * MIB), "{slot:?}");
    assert_ne!(slot.wal_status, WalStatus::Lost, "{slot:?}");
}
