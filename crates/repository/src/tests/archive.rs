use super::*;
use crate::retention::{Clock, DAY_MICROS, HOUR_MICROS, Rules, Survey, execute, plan};

const ID: &str = "20261123T081530Z-00000001";

fn part(from: u64, to: u64) -> ArchivePart {
    ArchivePart::new(1, 1, (from, to), "0".repeat(64), format!("{to:064x}"))
}

fn content(from: u64, to: u64) -> ArchivedEntries {
    ArchivedEntries {
        signed_head: b"head".to_vec(),
        entries: (from..=to)
            .map(|n| format!("entry {n}").into_bytes())
            .collect(),
    }
}

/// Whoever has the key of the backups does not read the archive, and the other way round.
#[test]
fn the_archive_opens_with_its_own_key_alone() {
    let world = World::new();
    world.backup(ID).unwrap();
    let (officer, dba) = (RecipientPrivate::generate().unwrap(), &world.private);
    let part = part(1, 3);
    put_archive(&world.repository, officer.public(), &part, &content(1, 3)).unwrap();
    // Repeated, by a host that was stopped before it heard of its success.
    put_archive(&world.repository, officer.public(), &part, &content(1, 3)).unwrap();
    assert_eq!(
        archive_parts(&world.repository, 1).unwrap(),
        std::slice::from_ref(&part)
    );
    assert_eq!(archived_to(&world.repository, 1).unwrap(), Some(3));
    assert_eq!(archived_to(&world.repository, 2).unwrap(), None);
    let read = read_archive(&world.repository, &officer, &part).unwrap();
    assert_eq!(read, content(1, 3));

    let error = read_archive(&world.repository, dba, &part).unwrap_err();
    assert!(matches!(error, Error::WrongKey(_)), "{error}");
    assert!(error.to_string().contains("audit archive"), "{error}");
    let error = BackupReader::open(&world.repository, &officer, ID).unwrap_err();
    assert!(matches!(error, Error::WrongKey(_)), "{error}");
    // A rotation of the backups' key neither misses the archive's data keys nor seals them to anybody.
    assert_eq!(not_sealed_to(&world.repository, dba.public()).unwrap(), 0);
    let next = RecipientPrivate::generate().unwrap();
    rewrap(&world.repository, dba, &next, &()).unwrap();
    assert!(read_archive(&world.repository, &next, &part).is_err());

    // A rotation of the archive's own key: the new one reads all of it, and after the old one's retirement nobody else does.
    let successor = RecipientPrivate::generate().unwrap();
    let repository = &world.repository;
    let done = rewrap_in(repository, Vault::Audit, &officer, &successor, &()).unwrap();
    assert_eq!((done.data_keys, done.wrapped), (1, 1));
    assert_eq!(
        not_sealed_to_in(repository, Vault::Audit, successor.public()).unwrap(),
        0
    );
    assert_eq!(read_archive(repository, &successor, &part).unwrap(), read);
    let old = officer.public().id();
    assert!(retire_in(repository, Vault::Audit, &old, dba, &()).is_err());
    assert_eq!(
        recipients_in(repository, Vault::Audit).unwrap().len(),
        2,
        "nothing went without proof"
    );
    retire_in(repository, Vault::Audit, &old, &successor, &()).unwrap();
    assert_eq!(read_archive(repository, &successor, &part).unwrap(), read);
    assert!(read_archive(repository, &officer, &part).is_err());
    let officer = successor;

    let other = ArchivePart::new(1, 1, (1, 3), "0".repeat(64), "f".repeat(64));
    let error = put_archive(&world.repository, officer.public(), &other, &content(1, 3));
    assert!(error.unwrap_err().to_string().contains("another chain"));
    world.memory.tamper(&part.name(), |bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    });
    assert!(
        read_archive(&world.repository, &officer, &part)
            .unwrap_err()
            .is_damage()
    );
}

/// A second repository has the archive too; the first one's wraps open it.
#[test]
fn a_copy_brings_the_archive() {
    let world = World::new();
    world.backup(ID).unwrap();
    let officer = RecipientPrivate::generate().unwrap();
    put_archive(
        &world.repository,
        officer.public(),
        &part(1, 2),
        &content(1, 2),
    )
    .unwrap();
    let other = World::new();
    let options = CopyOptions {
        backup: None,
        rules: RULES,
        private: None,
        now_micros: crate::store::now_micros(),
    };
    copy(&world.repository, &other.repository, &options, &()).unwrap();
    let parts = archive_parts(&other.repository, 1).unwrap();
    let read = read_archive(&other.repository, &officer, &parts[0]).unwrap();
    assert_eq!(read, content(1, 2));
}

const RULES: Rules = Rules {
    full_micros: DAY_MICROS,
    incremental_micros: DAY_MICROS,
    wal_micros: DAY_MICROS,
    schema_micros: DAY_MICROS,
    snapshot_micros: DAY_MICROS,
    cache_micros: DAY_MICROS,
    secrets_micros: DAY_MICROS,
    grace_micros: HOUR_MICROS,
    wal_at_once: false,
};

#[test]
fn expiry_never_touches_the_archive() {
    let world = World::new();
    world.backup(ID).unwrap();
    let officer = RecipientPrivate::generate().unwrap();
    put_archive(
        &world.repository,
        officer.public(),
        &part(1, 2),
        &content(1, 2),
    )
    .unwrap();
    let before = world.names("audit/");
    assert_eq!(before.len(), 2);
    // A writer that was killed leaves a wrap of which nothing hangs.
    drop(world.writer(SEGMENT).unwrap());
    let wraps = world.names("wraps/").len();
    // Years later, again and again.
    for year in 1..=8 {
        let survey = Survey::read(&world.repository, Some(&world.private)).unwrap();
        let now = crate::store::now_micros() + year * 365 * DAY_MICROS;
        let clock = Clock {
            now_micros: now,
            store_micros: now,
            postgres_micros: None,
        };
        let decided = plan(&survey, &clock, &RULES).unwrap();
        execute(&world.repository, &decided, &()).unwrap();
    }
    assert!(
        world.names("wraps/").len() < wraps,
        "nothing expired at all"
    );
    assert_eq!(world.names("audit/"), before);
}

/// Where the store locks, the archive is locked for seven years, with what opens it.
#[test]
fn a_locking_store_keeps_the_archive_for_seven_years() {
    let policy = LockPolicy {
        mode: LockMode::Compliance,
        days: 30,
    };
    let days = |name: &str| policy.of(name).map(|policy| policy.days);
    assert_eq!(days("packs/0011"), Some(30));
    assert_eq!(days("wraps/00/11"), None);
    assert_eq!(days(&part(1, 2).name()), Some(2557));
    assert_eq!(days("audit/wraps/00/11"), Some(2557));
    let longer = LockPolicy {
        days: 3000,
        ..policy
    };
    assert_eq!(
        longer.of("audit/entries/1/x").map(|policy| policy.days),
        Some(3000)
    );
}
