//! Files and WAL of a real cluster.

use postgres_physical::lsn::{Lsn, segment_name};
use postgres_physical::page::{Fork, PAGE_BYTES, PageState, RelationFile, check, page_lsn};
use postgres_physical::pg_control::{ClusterState, ControlError, ControlFile};
use postgres_physical::server::StopMode;
use postgres_physical::wal::{
    Decoder, Follower, Record, Step, WalEnd, records, resource_manager_name,
};
use std::collections::BTreeMap;
use std::path::Path;
use testkit::TestPostgres;

fn pages(path: &Path) -> Vec<Box<[u8; PAGE_BYTES]>> {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(bytes.len() % PAGE_BYTES, 0, "{}", path.display());
    bytes
        .chunks(PAGE_BYTES)
        .map(|page| Box::new(page.try_into().unwrap()))
        .collect()
}

#[test]
fn every_page_of_a_cluster_is_good_and_a_damaged_one_is_not() {
    let mut postgres = TestPostgres::start();
    postgres.sql("CREATE TABLE t AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n; CREATE INDEX ON t (n)");
    postgres.sql("CHECKPOINT");
    let table = postgres.value("SELECT pg_relation_filepath('t')");
    postgres.stop(StopMode::Fast);
    let control = std::fs::read(postgres.data_dir().join("global/pg_control")).unwrap();
    let end = ControlFile::parse(&control).unwrap().checkpoint;
    let (mut good, mut new, mut newest) = (0, 0, Lsn(0));
    let databases = std::fs::read_dir(postgres.data_dir().join("base")).unwrap();
    for folder in databases
        .map(|entry| entry.unwrap().path())
        .chain([postgres.data_dir().join("global")])
    {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path
                .strip_prefix(postgres.data_dir())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            let Some(file) = RelationFile::parse(&name) else {
                continue;
            };
            for (index, page) in pages(&path).iter().enumerate() {
                match check(page, file.first_block() + index as u32) {
                    PageState::Good => good += 1,
                    PageState::New => new += 1,
                    bad @ PageState::Bad { .. } => panic!("{name} block {index}: {bad:?}"),
                }
                newest = newest.max(page_lsn(page));
            }
        }
    }
    assert!(good > 2500, "{good} good, {new} new");
    assert!(newest <= end && newest > Lsn(1 << 20));
    let file = pages(&postgres.data_dir().join(table));
    let mut damaged = file[3].clone();
    damaged[5000] ^= 1;
    assert!(matches!(check(&damaged, 3), PageState::Bad { .. }));
    assert!(
        matches!(check(&file[3], 4), PageState::Bad { .. }),
        "a page in the wrong place"
    );
}

#[test]
fn pg_control_says_what_pg_controldata_says() {
    let mut postgres = TestPostgres::builder().wal_segment_bytes(1 << 20).start();
    postgres.stop(StopMode::Fast);
    let dir = postgres.data_dir();
    let text = postgres.run("pg_controldata", &[dir.to_str().unwrap()]);
    let facts: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect();
    let bytes = std::fs::read(dir.join("global/pg_control")).unwrap();
    let control = ControlFile::parse(&bytes).unwrap();
    assert_eq!(
        facts["Database system identifier"],
        control.system_identifier.to_string()
    );
    assert_eq!(
        facts["Catalog version number"],
        control.catalog_version.to_string()
    );
    assert_eq!(
        (facts["Database cluster state"], control.state),
        ("shut down", ClusterState::ShutDown)
    );
    for (setting, value) in [
        ("max_connections setting", control.max_connections),
        ("max_worker_processes setting", control.max_worker_processes),
        ("max_wal_senders setting", control.max_wal_senders),
        (
            "max_prepared_xacts setting",
            control.max_prepared_transactions,
        ),
        (
            "max_locks_per_xact setting",
            control.max_locks_per_transaction,
        ),
    ] {
        assert_eq!(facts[setting], value.to_string(), "{setting}");
    }
    assert_eq!(
        facts["Latest checkpoint location"],
        control.checkpoint.to_string()
    );
    assert_eq!(
        facts["Latest checkpoint's REDO location"],
        control.redo.to_string()
    );
    assert_eq!(
        facts["Latest checkpoint's TimeLineID"],
        control.timeline.to_string()
    );
    assert_eq!(
        facts["Minimum recovery ending location"],
        control.min_recovery_point.to_string()
    );
    assert_eq!(
        facts["Bytes per WAL segment"],
        control.wal_segment_bytes.to_string()
    );
    assert_eq!(
        facts["Blocks per segment of large relation"],
        control.pages_per_segment.to_string()
    );
    assert_eq!(facts["WAL block size"], control.wal_page_bytes.to_string());
    assert!(control.checksums_enabled && facts["Data page checksum version"] == "1");
    let mut damaged = bytes.clone();
    damaged[41] ^= 1;
    assert!(matches!(
        ControlFile::parse(&damaged),
        Err(ControlError::Checksum { .. })
    ));
    assert_eq!(
        ControlFile::parse(&bytes[..100]),
        Err(ControlError::Short(100))
    );
}

/// The facts of one line of `pg_waldump`, in a form both sides can print.
fn from_waldump(line: &str) -> String {
    let between = |from: &str, to: &str| {
        line.split_once(from)
            .unwrap()
            .1
            .split(to)
            .next()
            .unwrap()
            .trim()
            .to_owned()
    };
    let lsn: Lsn = between("lsn: ", ",").parse().unwrap();
    let previous: Lsn = between("prev ", ",").parse().unwrap();
    let length = between("len (rec/tot):", ",")
        .split_once('/')
        .unwrap()
        .1
        .trim()
        .to_owned();
    let mut text = format!(
        "{} {lsn} {previous} {length} {}",
        between("rmgr: ", " "),
        between("tx:", ",")
    );
    for reference in line.split(", blkref #").skip(1) {
        let words: Vec<&str> = reference.trim_end_matches(';').split_whitespace().collect();
        let value = |name: &str| {
            words
                .iter()
                .position(|word| *word == name)
                .map(|at| words[at + 1].trim_end_matches(&[';', ','][..]))
        };
        let image = reference.contains("FPW") && !reference.contains("for WAL verification");
        let fork = value("fork").unwrap_or("main");
        text.push_str(&format!(
            " {}/{fork}/{}/{image}",
            value("rel").unwrap(),
            value("blk").unwrap()
        ));
    }
    if line.contains("rmgr: Transaction") && line.contains("desc: COMMIT") {
        text.push_str(
            &between("desc: COMMIT", "UTC").replace(|c: char| c.is_ascii_whitespace(), "T"),
        );
    }
    text
}

fn from_record(record: &Record, time_of: &dyn Fn(i64) -> String) -> String {
    let name = resource_manager_name(record.resource_manager).unwrap();
    let mut text = format!(
        "{name} {} {} {} {}",
        record.lsn,
        record.previous,
        record.length(),
        record.transaction
    );
    for block in record.blocks().unwrap() {
        let relation = block.relation;
        let fork = match relation.fork {
            Fork::Main => "main",
            Fork::FreeSpace => "fsm",
            Fork::Visibility => "vm",
            Fork::Init => "init",
        };
        let (tablespace, database, number) =
            (relation.tablespace, relation.database, relation.number);
        text.push_str(&format!(
            " {tablespace}/{database}/{number}/{fork}/{}/{}",
            block.block, block.has_image
        ));
    }
    if let Some(micros) = record.commit_micros() {
        text.push_str(&time_of(micros));
    }
    text
}

#[test]
fn records_are_those_of_pg_waldump() {
    const SEGMENT: u64 = 1 << 20;
    let mut postgres = TestPostgres::builder()
        .wal_segment_bytes(SEGMENT)
        .set("wal_compression", "pglz")
        .set("wal_keep_size", "1GB")
        .start();
    let first: Lsn = postgres
        .value("SELECT pg_current_wal_flush_lsn()")
        .parse()
        .unwrap();
    postgres.sql("CREATE TABLE t (n int PRIMARY KEY, text text)");
    postgres.sql("INSERT INTO t SELECT n, repeat(md5(n::text), 3) FROM generate_series(1, 8000) n");
    postgres.sql("CHECKPOINT");
    postgres.sql("UPDATE t SET text = 'x' WHERE n % 10 = 0");
    postgres.sql("SELECT pg_switch_wal()");
    postgres.sql("SELECT pg_logical_emit_message(true, 'big', repeat('z', 3000000))");
    postgres.sql("BEGIN; DELETE FROM t WHERE n > 7000; ROLLBACK");
    postgres.sql("VACUUM t");
    // A record that is there whole when its transaction has committed. What the server has flushed may end inside a
    // record that it is writing just then.
    let end: Lsn = postgres
        .value("SELECT pg_logical_emit_message(true, 'end', '')")
        .parse()
        .unwrap();

    let start = first.segment_start(SEGMENT);
    let mut bytes = Vec::new();
    for number in start.segment_number(SEGMENT)..=end.segment_number(SEGMENT) {
        let path = postgres
            .data_dir()
            .join("pg_wal")
            .join(segment_name(1, number, SEGMENT));
        bytes.extend_from_slice(&std::fs::read(path).unwrap());
    }
    let (found, wal_end) = records(start, SEGMENT, &bytes);
    let wal = postgres.data_dir().join("pg_wal");
    let arguments = [
        "-p",
        wal.to_str().unwrap(),
        "-s",
        &found[0].lsn.to_string(),
        "-e",
        &end.to_string(),
    ];
    let dump = postgres.run("pg_waldump", &arguments);
    let time_of = |micros: i64| {
        let text = format!(
            "SELECT to_char(to_timestamp({}) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS')",
            micros / 1_000_000
        );
        format!("{}.{:06}", postgres.value(&text), micros % 1_000_000)
    };
    let expected: Vec<String> = dump.lines().map(from_waldump).collect();
    assert!(expected.len() > 8000, "{}", expected.len());
    assert!(
        expected.iter().any(|line| line.ends_with("/true")),
        "some full-page image"
    );
    for (record, line) in found.iter().zip(&expected) {
        assert_eq!(&from_record(record, &time_of), line);
    }
    assert!(found.len() >= expected.len());
    let wal_end = wal_end.expect("WAL ends inside the last file");
    assert!(wal_end.at >= end, "{wal_end:?}, the server says {end}");
    check_pieces(&bytes, start, &found);
    check_damage(&bytes, start, &found);
    check_followed(&bytes, start, &found);
    postgres.stop(StopMode::Immediate);
}

/// The same records when the bytes come in odd pieces.
fn check_pieces(bytes: &[u8], start: Lsn, expected: &[Record]) {
    let mut decoder = Decoder::new(start, 1 << 20);
    let mut found = Vec::new();
    'pieces: for piece in bytes.chunks(77_777) {
        decoder.push(piece);
        loop {
            match decoder.step() {
                Step::Record(record) => found.push(record),
                Step::NeedMore => break,
                Step::End(_) => break 'pieces,
            }
        }
    }
    assert_eq!(found.len(), expected.len());
    assert!(found == expected);
    assert!(decoder.system_identifier().is_some() && decoder.timeline() == 1);
}

/// Whoever only follows says of WAL what whoever reads it says, in pieces of any size, and is not deceived by zeros
/// that stand where a server whose files are gone makes them again: from a page on, in a page, for a whole segment.
fn check_followed(bytes: &[u8], start: Lsn, found: &[Record]) {
    const SEGMENT: u64 = 1 << 20;
    let follow = |bytes: &[u8], start: Lsn, piece: usize| -> (Lsn, Result<(), WalEnd>) {
        let mut follower = Follower::new(start, SEGMENT);
        let taken = bytes
            .chunks(piece)
            .try_for_each(|piece| follower.take(piece));
        (follower.whole_to(), taken)
    };
    let offset = |lsn: u64| (lsn - start.0) as usize;
    let last = found.last().unwrap();
    let whole = &bytes[..offset(last.end.0)];
    for piece in [1, 7, 4096, 8192, 77_777, whole.len()] {
        let (whole_to, taken) = follow(whole, start, piece);
        assert_eq!(taken, Ok(()), "{piece}");
        assert_eq!(whole_to.0, last.end.0.next_multiple_of(8), "{piece}");
    }
    // From any segment on, in the middle of a record of several segments too.
    for begin in (start.0..last.end.0).step_by(SEGMENT as usize) {
        let (_, taken) = follow(&whole[offset(begin)..], Lsn(begin), 5000);
        assert_eq!(taken, Ok(()), "{begin:x}");
    }
    let middle = found[found.len() / 2].end.0;
    for (from, to) in [
        (
            middle.next_multiple_of(8192),
            middle.next_multiple_of(8192) + 8192,
        ),
        (middle + 100, middle.next_multiple_of(8192)),
        (
            middle.next_multiple_of(SEGMENT),
            middle.next_multiple_of(SEGMENT) + SEGMENT,
        ),
    ] {
        let mut zeroed = whole.to_vec();
        let end = offset(to).min(zeroed.len());
        zeroed[offset(from)..end].fill(0);
        let (decoded, _) = records(start, SEGMENT, &zeroed);
        for piece in [1, 6000, zeroed.len()] {
            let (whole_to, taken) = follow(&zeroed, start, piece);
            assert!(taken.is_err(), "{from:x} to {to:x}");
            let decoded_to = decoded.last().unwrap().end.0.next_multiple_of(8);
            assert_eq!(whole_to.0, decoded_to, "{from:x} to {to:x}");
        }
    }
}

/// Records end before a flipped bit, and starting at a record in the middle works.
fn check_damage(bytes: &[u8], start: Lsn, expected: &[Record]) {
    let victim = &expected[expected.len() / 2];
    let mut damaged = bytes.to_vec();
    damaged[(victim.end.0 - start.0) as usize - 1] ^= 1;
    let (found, end) = records(start, 1 << 20, &damaged);
    let end = end.unwrap();
    assert_eq!(
        (found.len(), end.at),
        (expected.len() / 2, victim.lsn),
        "{end:?}"
    );
    assert!(end.reason.contains("checksum"), "{end:?}");
    let (rest, _) = records(
        victim.lsn,
        1 << 20,
        &bytes[(victim.lsn.0 - start.0) as usize..],
    );
    assert_eq!(rest.len(), expected.len() - expected.len() / 2);
}
