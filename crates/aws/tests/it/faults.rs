//! The store on a bad line: requests that fail, arrive or not, take effect without an answer. `make s3-faults` runs
//! more seeds.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use aws::s3::S3Store;
use repository::{
    Repository, StoreError,
    keys::RecipientPrivate,
    store::{MARKER, Store, suite},
    wal::{WalReader, WalWriter},
};
use testkit::{S3Proxy, TestS3, Weather};

const ROUGH: Weather = Weather::Rough { percent: 35 };
const STORM: Weather = Weather::Storm { percent: 30 };

/// `SEED` (1) and `SEEDS` (4): the first, and how many.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str, usually| match std::env::var(name).as_deref() {
        Ok("") | Err(_) => usually,
        Ok(text) => text.parse().unwrap(),
    };
    let first = number("SEED", 1);
    first..first + number("SEEDS", 4)
}

/// A store behind a proxy of its own. When the test fails it tells what to repeat, and what happened.
struct Line {
    what: &'static str,
    seed: u64,
    proxy: S3Proxy,
    store: S3Store,
}

impl Line {
    fn to(s3: &TestS3, what: &'static str, seed: u64) -> Line {
        // Odd seeds go to a bucket that keeps versions; each to one of its own, because moto goes through all of a
        // bucket for every listing.
        let bucket = format!("{what}-{seed}");
        match seed % 2 {
            1 => s3.make_locking_bucket(&bucket),
            _ => s3.make_bucket(&bucket),
        }
        let proxy = S3Proxy::to(s3.port(), seed);
        let place = s3.location_through(&proxy.endpoint(), &bucket, what);
        let store = S3Store::open(&place.parse().unwrap(), None).unwrap();
        Line {
            what,
            seed,
            proxy,
            store: store.in_steps_of(5 << 20, 1000),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (what, seed) = (self.what, self.seed);
            let log = self.proxy.log();
            let last = log[log.len().saturating_sub(40)..].join("\n");
            eprintln!(
                "{what}: SEED={seed} SEEDS=1 make s3-faults repeats it; its last requests:\n{last}"
            );
        }
    }
}

/// A few seeds at a time: most of it is waiting before the next attempt.
fn each_seed(work: impl Fn(u64) + Sync) {
    let all: Vec<u64> = seeds().collect();
    for few in all.chunks(4) {
        std::thread::scope(|scope| {
            for seed in few {
                scope.spawn(|| work(*seed));
            }
        });
    }
}

#[test]
fn the_suite_passes_on_a_rough_line() {
    let Some(s3) = TestS3::start() else { return };
    let faults = AtomicUsize::new(0);
    each_seed(|seed| {
        let line = Line::to(&s3, "suite", seed);
        line.proxy.set(ROUGH);
        suite::check(&line.store);
        let log = line.proxy.log();
        let faulty = log.iter().filter(|text| !text.ends_with("Served"));
        faults.fetch_add(faulty.count(), Ordering::Relaxed);
    });
    assert!(faults.into_inner() > 0, "it was no test");
}

/// Operations drawn from the seed, some of which fail for good. What was acknowledged is there and stays; what is not
/// there was never acknowledged, or was deleted; nothing is overwritten; in spite of everything every answer is one
/// that can be true.
#[test]
fn every_answer_in_a_storm_is_true() {
    let Some(s3) = TestS3::start() else { return };
    let failed = AtomicUsize::new(0);
    each_seed(|seed| {
        let line = Line::to(&s3, "storm", seed);
        line.store.put(MARKER, b"{}").unwrap();
        let mut model = Model::new(seed);
        line.proxy.set(STORM);
        for _ in 0..30 {
            let ended = model.step(&line.store, true);
            failed.fetch_add(usize::from(!ended), Ordering::Relaxed);
        }
        line.proxy.set(Weather::Fair);
        model.settle(&line.store);
    });
    assert!(
        failed.into_inner() > 0,
        "no operation failed: it was no test"
    );
}

/// Every state that a name can be in, as far as the answers tell.
struct Model {
    dice: u64,
    written: u32,
    can_be: BTreeMap<String, Vec<Option<Vec<u8>>>>,
    ever: BTreeMap<String, Vec<u64>>,
}

impl Model {
    fn new(seed: u64) -> Model {
        Model {
            dice: seed,
            written: 0,
            can_be: BTreeMap::new(),
            ever: BTreeMap::new(),
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005);
        self.dice = self.dice.wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % below
    }

    fn name(&mut self) -> String {
        let folders = ["packs", "tail/00000001", "heads"];
        let folder = folders[usize::try_from(self.draw(3)).unwrap()];
        format!("{folder}/{}", self.draw(4))
    }

    fn states(&mut self, name: &str) -> &mut Vec<Option<Vec<u8>>> {
        let absent = || vec![None];
        self.can_be.entry(name.to_owned()).or_insert_with(absent)
    }

    /// Only these are possible any more; there must be one.
    fn narrow(&mut self, what: &str, name: &str, keep: impl Fn(&Option<Vec<u8>>) -> bool) {
        let states = self.states(name);
        let before = states.clone();
        states.retain(keep);
        assert!(!states.is_empty(), "{what} of {name} cannot be: {before:?}");
    }

    fn may_be(&mut self, name: &str, state: Option<Vec<u8>>) {
        let states = self.states(name);
        if !states.contains(&state) {
            states.push(state);
        }
    }

    /// False when it failed.
    fn step(&mut self, store: &S3Store, stale: bool) -> bool {
        let name = self.name();
        match self.draw(10) {
            0..=3 => self.put(store, &name),
            4 | 5 => self.get(store, &name),
            6 | 7 => self.delete(store, &name),
            8 => self.delete_all(store),
            _ => self.list(store, stale),
        }
    }

    fn put(&mut self, store: &S3Store, name: &str) -> bool {
        self.written += 1;
        let mut bytes = format!("{}:", self.written).into_bytes();
        // Now and then one that goes in parts.
        bytes.resize(if self.draw(25) == 0 { 6 << 20 } else { 2000 }, b'x');
        let sizes = self.ever.entry(name.to_owned()).or_default();
        sizes.push(bytes.len() as u64);
        match store.put(name, &bytes) {
            Ok(()) => {
                self.narrow("put", name, Option::is_none);
                *self.states(name) = vec![Some(bytes)];
                true
            }
            Err(StoreError::AlreadyExists { .. }) => {
                self.narrow("already there", name, Option::is_some);
                true
            }
            Err(_) => {
                if self.states(name).contains(&None) {
                    self.may_be(name, Some(bytes));
                }
                false
            }
        }
    }

    fn get(&mut self, store: &S3Store, name: &str) -> bool {
        match store.get(name) {
            Ok(bytes) => {
                let size = bytes.len();
                self.narrow("get", name, |state| state.as_ref() == Some(&bytes));
                assert_eq!(store.get_range(name, 0, 0).unwrap_or_default(), b"");
                self.ever
                    .entry(name.to_owned())
                    .or_default()
                    .push(size as u64);
                true
            }
            Err(StoreError::NotFound { .. }) => {
                self.narrow("absence", name, Option::is_none);
                true
            }
            Err(_) => false,
        }
    }

    fn delete(&mut self, store: &S3Store, name: &str) -> bool {
        match store.delete(name) {
            Ok(()) => {
                self.narrow("deletion", name, Option::is_some);
                *self.states(name) = vec![None];
                true
            }
            Err(StoreError::NotFound { .. }) => {
                self.narrow("absence", name, Option::is_none);
                true
            }
            Err(_) => {
                self.may_be(name, None);
                false
            }
        }
    }

    fn delete_all(&mut self, store: &S3Store) -> bool {
        let names: Vec<String> = (0..3).map(|_| self.name()).collect();
        let deleted = store.delete_all(&names).is_ok();
        for name in &names {
            match deleted {
                true => *self.states(name) = vec![None],
                false => self.may_be(name, None),
            }
        }
        deleted
    }

    fn list(&mut self, store: &S3Store, stale: bool) -> bool {
        let Ok(found) = store.list("") else {
            return false;
        };
        let found: BTreeMap<String, u64> = found
            .into_iter()
            .filter(|object| object.name != MARKER && !object.name.starts_with("probes/"))
            .map(|object| (object.name, object.size))
            .collect();
        for (name, size) in &found {
            let ever = self.ever.get(name);
            assert!(ever.is_some_and(|sizes| sizes.contains(size)), "{name}");
        }
        // One of an earlier moment tells nothing about now.
        if !stale {
            for name in self.can_be.keys().cloned().collect::<Vec<_>>() {
                let size = found.get(&name).copied();
                let as_listed =
                    |state: &Option<Vec<u8>>| state.as_ref().map(|it| it.len() as u64) == size;
                self.narrow("listing", &name, as_listed);
            }
        }
        true
    }

    /// On a good line everything can be known, and is as it was told.
    fn settle(&mut self, store: &S3Store) {
        for name in self.can_be.keys().cloned().collect::<Vec<_>>() {
            assert!(self.get(store, &name), "{name} on a good line");
        }
        assert!(self.list(store, false));
        for name in self.can_be.keys().cloned().collect::<Vec<_>>() {
            let there = self.states(&name).contains(&None);
            assert!(if there {
                self.put(store, &name)
            } else {
                self.delete(store, &name)
            });
        }
    }
}

/// Many requests to a repository that is away take nothing from one on a bad line: its requests are repeated as often
/// as ever.
#[test]
fn a_store_that_is_away_takes_no_retries_from_another() {
    let Some(s3) = TestS3::start() else { return };
    let away = {
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", nobody.local_addr().unwrap());
        s3.location_through(&endpoint, "away", "")
    };
    let away = S3Store::open(&away.parse().unwrap(), None).unwrap();
    // Four retries each, at five of the five hundred that the SDK grants to all together.
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| assert!(away.list("heads/").is_err()));
        }
    });
    let line = Line::to(&s3, "beside", 2);
    line.store.put(MARKER, b"{}").unwrap();
    line.proxy.set(ROUGH);
    for number in 0..12 {
        line.store.put(&format!("heads/{number}"), b"x").unwrap();
    }
    let log = line.proxy.log();
    assert!(
        log.iter().any(|text| !text.ends_with("Served")),
        "it was no test"
    );
}

/// The stream's way to a whole segment: a put a flush, then the segment; what is in tails is not read again, and a
/// deletion looks at one name only. Each of these was a request that the next flush waited for.
#[test]
fn tidying_up_after_a_segment_costs_few_requests() {
    const SEGMENT: u64 = 1 << 20;
    let Some(s3) = TestS3::start() else { return };
    let line = Line::to(&s3, "segment", 2);
    let proxy = &line.proxy;
    let place = s3.location_through(&proxy.endpoint(), "segment-2", "segment");
    let store: Arc<dyn Store> = Arc::new(S3Store::open(&place.parse().unwrap(), None).unwrap());
    let repository = Repository::init(Arc::clone(&store)).unwrap();
    let private = RecipientPrivate::generate().unwrap();
    let micros = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_micros();
    let now = i64::try_from(micros).unwrap();
    let wal: Vec<u8> = (0..SEGMENT + 1000).map(|n| (n % 251) as u8).collect();
    let mut writer =
        WalWriter::new(&repository, private.public(), 7, 1, SEGMENT, "s", SEGMENT).unwrap();
    for (number, piece) in wal.chunks(200_000).enumerate() {
        let at = SEGMENT + (number * 200_000) as u64;
        writer.append(at, piece, now).unwrap();
    }
    writer.finish().unwrap();
    let log = proxy.log();
    let count = |method: &str, what: &str| {
        let asked = |line: &&String| line.starts_with(method) && line.contains(what);
        log.iter().filter(asked).count()
    };
    assert_eq!(count("PUT", "/tail/"), 7, "{log:#?}");
    assert_eq!(count("GET", "/tail/"), 0, "{log:#?}");
    assert_eq!(count("GET", "versions"), 0, "{log:#?}");
    assert_eq!(count("DELETE", "/tail/"), 6, "{log:#?}");
    let reader = WalReader::new(&repository, &private);
    let read = reader.bytes(1, SEGMENT, 2 * SEGMENT + 1000).unwrap();
    assert!(read == wal);
}
