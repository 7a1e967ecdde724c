//! Stretches of logs: what was put is read back, chained, held and expired; every loss has a name.

use jiff::civil::Date;

use super::*;
use crate::log_stretches::*;
use crate::retention::{DAY_MICROS, clear_hold, set_hold};

/// Midnight of day `n`; any day: only differences count.
fn day(n: i64) -> (Date, i64) {
    let micros = n * DAY_MICROS;
    let at = jiff::Timestamp::from_microsecond(micros).unwrap();
    (at.to_zoned(jiff::tz::TimeZone::UTC).date(), micros)
}

struct Logs {
    world: World,
    officer: RecipientPrivate,
    previous: (String, u64),
    number: u64,
}

impl Logs {
    fn new() -> Self {
        Self {
            world: World::new(),
            officer: RecipientPrivate::generate().unwrap(),
            previous: (NO_DIGEST.to_owned(), 0),
            number: 0,
        }
    }

    fn sealed(&self, kind: LogKind, at: i64, lines: &[&str]) -> SealedStretch {
        let facts = StretchFacts {
            kind,
            source: "journal-h1",
            number: self.number + 1,
            day: day(at).0,
            span_micros: (day(at).1 + 5, day(at).1 + 9),
            previous: (&self.previous.0, self.previous.1),
            cursor: "c",
            gaps: Vec::new(),
            host: "h1",
        };
        let lines: Vec<Vec<u8>> = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
        seal_stretch(&self.world.repository, self.officer.public(), facts, &lines).unwrap()
    }

    fn put(&mut self, kind: LogKind, at: i64, lines: &[&str]) -> SealedStretch {
        let sealed = self.sealed(kind, at, lines);
        sealed.put(&self.world.repository).unwrap();
        sealed.read_back(&self.world.repository).unwrap();
        self.previous = (sealed.digest.clone(), sealed.bytes());
        self.number += 1;
        sealed
    }

    fn check(&self, kind: LogKind, now: i64) -> ChainReport {
        let known = KnownEnd {
            number: self.number,
            digest: self.previous.0.clone(),
        };
        let place = (kind, "journal-h1");
        check_chain(&self.world.repository, place, Some(&known), day(now).1, &()).unwrap()
    }
}

fn gaps(report: &ChainReport) -> Vec<(u64, u64, LogGapCause)> {
    let gap = |gap: &LogGap| (gap.from_number, gap.to_number, gap.cause);
    report.gaps.iter().map(gap).collect()
}

#[test]
fn what_was_put_is_read_back_with_the_archives_key_alone() {
    let mut logs = Logs::new();
    let lines = ["one", "", "three"];
    let put = logs.put(LogKind::System, 20_000, &lines);
    let repository = &logs.world.repository;
    let (stretch, read) = read_stretch(repository, &logs.officer, &put.name).unwrap();
    assert_eq!(read, lines.map(|line| line.as_bytes().to_vec()));
    assert_eq!(stretch, stretch_facts(repository, &put.name).unwrap());
    let error = read_stretch(repository, &logs.world.private, &put.name).unwrap_err();
    assert!(matches!(error, Error::WrongKey(_)), "{error}");
    assert_eq!(ObjectClass::of(&put.name), ObjectClass::LogStretch);
    // A rotation of the archive's key takes them along.
    let next = RecipientPrivate::generate().unwrap();
    rewrap_in(repository, Vault::Audit, &logs.officer, &next, &()).unwrap();
    assert_eq!(read_stretch(repository, &next, &put.name).unwrap().1, read);
    // A store that hands out something else is no place for it.
    let torn = logs.sealed(LogKind::System, 20_001, &["x"]);
    torn.put(repository).unwrap();
    logs.world.memory.tamper(&torn.name, |bytes| bytes[40] ^= 1);
    assert!(torn.read_back(repository).unwrap_err().is_damage());
}

#[test]
fn every_loss_is_named_by_number_and_time() {
    let mut logs = Logs::new();
    let put: Vec<_> = (0..5)
        .map(|n| logs.put(LogKind::Postgres, 20_000 + n, &["a", "b"]))
        .collect();
    let whole = logs.check(LogKind::Postgres, 20_005);
    assert!(whole.is_whole(), "{whole:?}");
    assert_eq!((whole.stretches, whole.lines), (5, 10));
    let memory = logs.world.memory.clone();
    let check = |logs: &Logs| gaps(&logs.check(LogKind::Postgres, 20_005));

    let kept = memory.get(&put[2].name).unwrap();
    memory.delete(&put[2].name).unwrap();
    let report = logs.check(LogKind::Postgres, 20_005);
    assert_eq!(gaps(&report), [(3, 3, LogGapCause::Missing)]);
    let gap = &report.gaps[0];
    assert_eq!(gap.from_micros, Some(day(20_001).1 + 9));
    assert_eq!(gap.to_micros, Some(day(20_003).1 + 5));
    // Another object in its place, as whole as any.
    let facts = StretchFacts {
        kind: LogKind::Postgres,
        source: "journal-h1",
        number: 3,
        day: day(20_002).0,
        span_micros: (day(20_002).1, day(20_002).1),
        previous: (&put[1].digest, put[1].bytes()),
        cursor: "c",
        gaps: Vec::new(),
        host: "h1",
    };
    let forged = seal_stretch(&logs.world.repository, logs.officer.public(), facts, &[]).unwrap();
    forged.put(&logs.world.repository).unwrap();
    assert_eq!(check(&logs), [(3, 3, LogGapCause::Damaged)]);
    // Beside the true one it is a second of that number: lines twice, none lost.
    memory.put(&put[2].name, &kept).unwrap();
    let report = logs.check(LogKind::Postgres, 20_005);
    assert!(report.is_whole() && report.doubled == 1, "{report:?}");
    memory.delete(&forged.name).unwrap();

    // A flipped byte of the clear part, and one of the sealed.
    for at in [30, 5000] {
        memory.tamper(&put[1].name, |bytes| {
            let at = at.min(bytes.len() - 1);
            bytes[at] ^= 1;
        });
        assert_eq!(check(&logs), [(2, 2, LogGapCause::Damaged)], "byte {at}");
        memory.tamper(&put[1].name, |bytes| {
            let at = at.min(bytes.len() - 1);
            bytes[at] ^= 1;
        });
    }
    // The end, which only another record knows; and the beginning.
    let last = memory.get(&put[4].name).unwrap();
    memory.delete(&put[4].name).unwrap();
    assert_eq!(check(&logs), [(5, 5, LogGapCause::Missing)]);
    memory.put(&put[4].name, &last).unwrap();
    memory.delete(&put[0].name).unwrap();
    assert_eq!(check(&logs), [(1, 1, LogGapCause::Missing)]);
    // Years later it may have expired.
    let later = 20_002 + i64::from(LogKind::Postgres.days());
    assert_eq!(gaps(&logs.check(LogKind::Postgres, later)), []);
}

#[test]
fn a_stretch_expires_after_its_years_and_never_on_hold() {
    let mut logs = Logs::new();
    let today = crate::store::now_micros() / DAY_MICROS;
    let put: Vec<_> = (0..3)
        .map(|n| logs.put(LogKind::System, today + n, &["a"]))
        .collect();
    let repository = &logs.world.repository;
    let expire = |now: i64, days: u16| {
        let place = (LogKind::System, "journal-h1");
        let done = expire_logs(repository, place, days, day(now).1).unwrap();
        (done.deleted, done.held)
    };
    // Fewer days than the kind has count for nothing.
    assert_eq!(expire(today + 731, 1), (0, 0));
    let (from, to) = (day(today + 1).0, day(today + 1).0);
    let kind = Some(LogKind::System);
    let hold = hold_name(&LogHold { kind, from, to });
    let size = set_hold(repository, None, &hold, "inquiry 7").unwrap();
    assert_eq!(size.objects, 1);
    assert_eq!(expire(today + 900, 731), (1, 1));
    assert_eq!(
        logs.world.names("logs/"),
        [put[1].name.clone(), put[2].name.clone()]
    );
    clear_hold(repository, None, &hold, "closed").unwrap();
    assert_eq!(expire(today + 900, 731), (2, 0));
}

#[test]
fn each_kind_is_locked_for_its_years() {
    let policy = LockPolicy {
        mode: LockMode::Governance,
        days: 30,
    };
    let of = |name: &str| policy.of(name).map(|it| (it.mode, it.days));
    let compliance = |days| Some((LockMode::Compliance, days));
    assert_eq!(of("logs/system/journal-h1/x"), compliance(731));
    assert_eq!(of("logs/application/engine/x"), compliance(2557));
    assert_eq!(of("logs/postgres/main/x"), compliance(2557));
    assert!(LockPolicy::covers("logs/system/journal-h1/x"));
}
