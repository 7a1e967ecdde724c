//! Logs into stretches: stopped at any line, rotated in every way, from real journals. Each line is there at least
//! once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use backup::Progress;
use backup::audit_log::{
    FileLog, JournalLog, LogError, LogItem, LogReading, LogSource, SYSTEM_IDENTIFIERS, Shipment,
    ShipmentReport,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use repository::log_stretches::{
    ChainReport, KnownEnd, LogKind, SourceGapCause, check_chain, log_stretches, read_stretch,
};
use repository::store::{FaultyStore, MemoryStore};

use super::Vault;

const DAY_MICROS: i64 = 86_400_000_000;
const SOURCE: &str = "log-h1";

/// Ends what it watches at a certain question whether to end.
struct StopAt(AtomicI64);

impl Progress for StopAt {
    fn cancelled(&self) -> bool {
        self.0.fetch_sub(1, Ordering::Relaxed) <= 0
    }
}

struct World {
    vault: Vault,
    faults: FaultyStore,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let faults = FaultyStore::new(Arc::new(MemoryStore::new()), 1);
        Self {
            vault: Vault::on(Arc::new(faults.clone())),
            faults,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn cursor_file(&self) -> PathBuf {
        self.folder.path().join("cursor.json")
    }

    fn ship(
        &self,
        source: &dyn LogSource,
        progress: &dyn Progress,
    ) -> Result<ShipmentReport, LogError> {
        let shipment = Shipment {
            repository: &self.vault.repository,
            recipient: &self.vault.public,
            kind: LogKind::Application,
            source: SOURCE,
            cursor_file: &self.cursor_file(),
            host: "h1",
        };
        shipment.ship(source, progress)
    }

    fn check(&self) -> ChainReport {
        let known = backup::audit_log::CursorFile::load(&self.cursor_file()).unwrap();
        let known = known.map(|file| KnownEnd {
            number: file.place.number,
            digest: file.place.digest,
        });
        let now = jiff::Timestamp::now().as_microsecond();
        let place = (LogKind::Application, SOURCE);
        check_chain(&self.vault.repository, place, known.as_ref(), now, &()).unwrap()
    }

    /// How often each line is there.
    fn lines(&self) -> BTreeMap<String, u64> {
        let mut lines = BTreeMap::new();
        let repository = &self.vault.repository;
        for listed in log_stretches(repository, LogKind::Application, SOURCE).unwrap() {
            let (_, read) = read_stretch(repository, &self.vault.private, &listed.name).unwrap();
            for line in read {
                *lines.entry(String::from_utf8(line).unwrap()).or_default() += 1;
            }
        }
        lines
    }
}

/// Lines in memory; its cursor is a number.
#[derive(Default)]
struct Model(RefCell<Vec<(i64, String)>>);

struct ModelReading {
    rest: Vec<(i64, String)>,
    at: usize,
    from: usize,
}

impl LogSource for Model {
    fn open(
        &self,
        cursor: Option<&str>,
        _: &[u8; 32],
    ) -> Result<Box<dyn LogReading + '_>, LogError> {
        let from = cursor.map_or(0, |cursor| cursor.parse().unwrap());
        let rest = self.0.borrow()[from..].to_vec();
        Ok(Box::new(ModelReading { rest, at: 0, from }))
    }
}

impl LogReading for ModelReading {
    fn next(&mut self) -> Result<Option<LogItem>, LogError> {
        let next = self.rest.get(self.at).cloned();
        self.at += usize::from(next.is_some());
        Ok(next.map(|(at_micros, line)| LogItem::Line {
            at_micros,
            bytes: line.into_bytes(),
        }))
    }

    fn cursor(&self, before_last: bool) -> String {
        (self.from + self.at - usize::from(before_last)).to_string()
    }
}

fn seeds(few: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok()?.parse().ok();
    let first = number("SEED").unwrap_or(1);
    first..first + number("SEEDS").unwrap_or(few)
}

/// Stopped at any line of the program and at any write of the store, and now and then without its cursor file.
#[test]
fn a_line_is_perhaps_there_twice_and_never_not() {
    let (mut stops, mut doubled) = (0, 0);
    for seed in seeds(150) {
        let mut random = SmallRng::seed_from_u64(seed);
        let world = World::new();
        let model = Model::default();
        let mut at = 20_000 * DAY_MICROS;
        for _ in 0..random.random_range(3..9) {
            for _ in 0..random.random_range(0..6) {
                at += random.random_range(1..DAY_MICROS / 2);
                let line = format!("line {}", model.0.borrow().len());
                model.0.borrow_mut().push((at, line));
            }
            let writes = random.random_bool(0.5).then(|| random.random_range(0..8));
            world.faults.crash_at_write(writes);
            let stop = match random.random_bool(0.7) {
                true => random.random_range(1..70),
                false => i64::MAX,
            };
            stops += u64::from(world.ship(&model, &StopAt(AtomicI64::new(stop))).is_err());
            world.faults.crash_at_write(None);
            if random.random_bool(0.05) {
                let _ = fs::remove_file(world.cursor_file());
            }
        }
        world.ship(&model, &()).unwrap();
        let lines = world.lines();
        for (_, line) in model.0.borrow().iter() {
            assert!(lines.contains_key(line), "SEED={seed}: {line} is not there");
        }
        assert_eq!(lines.len(), model.0.borrow().len(), "SEED={seed}");
        doubled += lines.values().filter(|times| **times > 1).count();
        let chain = world.check();
        assert!(chain.is_whole(), "SEED={seed}: {chain:#?}");
        // Nothing new: nothing is put.
        assert_eq!(world.ship(&model, &()).unwrap().stretches, 0, "SEED={seed}");
    }
    println!("{stops} runs were stopped; {doubled} lines are there more than once");
    assert!(stops > 0);
}

/// A program that logs, and what turns its log over.
struct Writer {
    path: PathBuf,
    written: u64,
}

impl Writer {
    fn log(&mut self, lines: u64) {
        let mut options = File::options();
        let mut file = options.append(true).create(true).open(&self.path).unwrap();
        for _ in 0..lines {
            // any day: the stamp is data.
            self.written += 1;
            writeln!(
                file,
                "2026-11-30T08:00:00Z a line of some length, the {}th",
                self.written
            )
            .unwrap();
        }
    }

    fn numbered(&self, number: u32, packed: bool) -> PathBuf {
        let name = self.path.file_name().unwrap().to_str().unwrap();
        let end = if packed { ".gz" } else { "" };
        self.path.with_file_name(format!("{name}.{number}{end}"))
    }

    /// As logrotate does it: older ones move on, the second and older are compressed.
    fn rotate(&self, copy: bool) {
        for number in (1..9).rev() {
            for packed in [false, true] {
                let from = self.numbered(number, packed);
                if from.exists() {
                    fs::rename(&from, self.numbered(number + 1, packed)).unwrap();
                }
            }
        }
        if !self.path.exists() {
            return;
        }
        match copy {
            true => {
                fs::copy(&self.path, self.numbered(1, false)).unwrap();
                File::options()
                    .write(true)
                    .truncate(true)
                    .open(&self.path)
                    .unwrap();
            }
            false => fs::rename(&self.path, self.numbered(1, false)).unwrap(),
        }
        let second = self.numbered(2, false);
        if second.exists() {
            assert!(
                Command::new("gzip")
                    .arg(&second)
                    .status()
                    .unwrap()
                    .success()
            );
        }
    }
}

#[test]
fn files_are_followed_through_every_kind_of_rotation() {
    let mut doubled = 0;
    for seed in seeds(40) {
        let mut random = SmallRng::seed_from_u64(seed);
        let world = World::new();
        let path = world.folder.path().join("app.log");
        let source = FileLog::new(&path).unwrap();
        let mut writer = Writer { path, written: 0 };
        let mut turns = 0;
        for _ in 0..random.random_range(5..25) {
            match random.random_range(0..10) {
                0..5 => writer.log(random.random_range(1..30)),
                // The ninth is the last that is kept: what was shipped may go.
                5 if turns < 7 => {
                    turns += 1;
                    writer.rotate(false);
                }
                6 if turns < 7 => {
                    turns += 1;
                    writer.rotate(true);
                }
                _ => {
                    let stop = match random.random_bool(0.3) {
                        true => random.random_range(1..120),
                        false => i64::MAX,
                    };
                    let shipped = world.ship(&source, &StopAt(AtomicI64::new(stop)));
                    let gaps = shipped.map_or(Vec::new(), |shipped| shipped.gaps);
                    assert!(gaps.is_empty(), "SEED={seed}: {gaps:?}");
                }
            }
        }
        let shipped = world.ship(&source, &()).unwrap();
        assert!(shipped.gaps.is_empty(), "SEED={seed}: {shipped:?}");
        let lines = world.lines();
        assert_eq!(lines.len() as u64, writer.written, "SEED={seed}");
        doubled += lines.values().filter(|times| **times > 1).count();
        assert!(world.check().is_whole(), "SEED={seed}");
    }
    println!("{doubled} lines are there more than once");
}

#[test]
fn what_a_file_loses_is_named_and_half_a_line_waits() {
    let world = World::new();
    let path = world.folder.path().join("app.log");
    let source = FileLog::new(&path).unwrap();
    let mut writer = Writer {
        path: path.clone(),
        written: 0,
    };
    writer.log(3);
    let mut half = File::options().append(true).open(&path).unwrap();
    half.write_all(b"half a").unwrap();
    assert_eq!(world.ship(&source, &()).unwrap().lines, 3);
    // The rest comes when the file has been turned over already.
    half.write_all(b" line").unwrap();
    writer.rotate(false);
    writer.log(1);
    assert_eq!(world.ship(&source, &()).unwrap().lines, 2);
    assert!(world.lines().contains_key("half a line"));
    // Emptied, and nowhere kept.
    fs::write(&path, b"").unwrap();
    let gaps = world.ship(&source, &()).unwrap().gaps;
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0].why, SourceGapCause::Truncated);
    assert!(gaps[0].what.contains("app.log"), "{}", gaps[0].what);
    // Deleted with all that it was: what had been read whole is no loss, the one that grew is.
    writer.log(2);
    world.ship(&source, &()).unwrap();
    fs::remove_file(writer.numbered(1, false)).unwrap();
    fs::remove_file(&path).unwrap();
    let gaps = world.ship(&source, &()).unwrap().gaps;
    let why: Vec<_> = gaps.iter().map(|gap| gap.why).collect();
    assert_eq!(why, [SourceGapCause::FileGone], "{gaps:?}");
    let named = world.check().gaps;
    assert_eq!(named.len(), 2, "{named:#?}");
    // Nothing is lost twice.
    assert!(world.ship(&source, &()).unwrap().gaps.is_empty());
    for bad in ["relative.log", "/a/*/b.log", "/a/x*y*.log"] {
        assert!(FileLog::new(Path::new(bad)).is_err(), "{bad}");
    }
}

/// Entries `from..to` as a journal file has them, one every second from noon; every fourth is of cron.
fn journal(file: &Path, from: u64, to: u64) {
    let identifiers = ["sshd", "sudo", "kernel", "cron"];
    let mut text = String::new();
    for n in from..to {
        let identifier = identifiers[n as usize % 4];
        let transport = if identifier == "kernel" {
            "kernel"
        } else {
            "syslog"
        };
        let at = 20_000 * DAY_MICROS as u64 + DAY_MICROS as u64 / 2 + n * 1_000_000;
        text.push_str(&format!(
            "__REALTIME_TIMESTAMP={at}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID=0123456789abcdef0123456789abcdef\n\
             _TRANSPORT={transport}\nSYSLOG_IDENTIFIER={identifier}\nMESSAGE=entry {n}\n\n",
            (n + 1) * 1_000_000
        ));
    }
    let mut child = Command::new("/lib/systemd/systemd-journal-remote")
        .arg("-o")
        .arg(file)
        .args(["--split-mode=none", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_journal_is_read_from_its_cursor_and_a_vacuumed_one_is_a_gap() {
    if !Path::new("/lib/systemd/systemd-journal-remote").exists() {
        testkit::skip!("journal", "systemd-journal-remote is not installed");
        return;
    }
    let world = World::new();
    let folder = world.folder.path().join("journal");
    fs::create_dir(&folder).unwrap();
    let source = JournalLog {
        place: folder.clone(),
        identifiers: SYSTEM_IDENTIFIERS.map(str::to_owned).to_vec(),
    };
    journal(&folder.join("a.journal"), 0, 20);
    assert_eq!(world.ship(&source, &()).unwrap().lines, 15);
    assert_eq!(world.ship(&source, &()).unwrap().lines, 0);
    // Over midnight: two stretches.
    journal(&folder.join("a.journal"), 43_190, 43_210);
    let shipped = world.ship(&source, &()).unwrap();
    assert_eq!((shipped.lines, shipped.stretches), (15, 2), "{shipped:?}");
    let messages = |world: &World| {
        let lines = world.lines().into_keys();
        let message = |line: String| {
            let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
            entry["MESSAGE"].as_str().unwrap().to_owned()
        };
        lines
            .map(message)
            .collect::<std::collections::BTreeSet<_>>()
    };
    let all = messages(&world);
    assert_eq!(all.len(), 30);
    assert!(
        all.contains("entry 43209") && !all.contains("entry 3"),
        "{all:?}"
    );
    // Vacuumed: the file with the cursor's entry is gone, a newer one is there.
    fs::remove_file(folder.join("a.journal")).unwrap();
    journal(&folder.join("b.journal"), 50_000, 50_004);
    let shipped = world.ship(&source, &()).unwrap();
    assert_eq!(shipped.lines, 3);
    let [gap] = shipped.gaps.as_slice() else {
        panic!("{:?}", shipped.gaps);
    };
    assert_eq!(gap.why, SourceGapCause::CursorGone);
    let noon = 20_000 * DAY_MICROS + DAY_MICROS / 2;
    assert_eq!(gap.from_micros, noon + 43_209 * 1_000_000);
    assert_eq!(gap.to_micros, noon + 50_000 * 1_000_000);
    let named = world.check().gaps;
    assert_eq!(named.len(), 1, "{named:#?}");
    assert!(world.ship(&source, &()).unwrap().gaps.is_empty());
    // What is no journal is an error that says so.
    let missing = JournalLog {
        place: folder.join("x"),
        ..source.clone()
    };
    let error = world.ship(&missing, &()).unwrap_err().to_string();
    assert!(error.contains("/x"), "{error}");
    fs::write(folder.join("c.journal"), b"LPKSHHRHnothing").unwrap();
    let broken = JournalLog {
        place: folder.join("c.journal"),
        ..source
    };
    let error = world.ship(&broken, &()).unwrap_err().to_string();
    assert!(error.contains("c.journal"), "{error}");
}
