//! The repository with keys in a KMS: moto's, over HTTP. moto proves the calls, not AWS's policies.

use std::sync::Arc;

use aws::kms::{KmsAccess, KmsKey, KmsLocation, resolve};
use repository::{
    Error, Repository, Result,
    backup::{BackupFacts, BackupKind, BackupReader, BackupStop, BackupWriter},
    keys::{
        ChunkIdKey, KeyTrouble, RecipientPrivate, RecipientPublic, UnwrapKeys, WrapBinding,
        WrapHeader, WrapKeys, WrapSuite, not_sealed_to, retire, rewrap, seal_also,
    },
    outlook::key_outlook,
    store::MemoryStore,
    wal::{WalReader, WalWriter},
};
use serde_json::json;
use testkit::TestS3;

use crate::kms_gate::Gate;

const SYSTEM: u64 = 7_301_234_567_890_123_456;
const SEGMENT: u64 = 1 << 16;

struct World {
    _moto: TestS3,
    gate: Gate,
    credentials: tempfile::NamedTempFile,
    repository: Repository,
}

impl World {
    fn start() -> Option<Self> {
        let moto = TestS3::start()?;
        let credentials = tempfile::NamedTempFile::new().unwrap();
        let text = "[default]\naws_access_key_id = test\naws_secret_access_key = test\n";
        std::fs::write(credentials.path(), text).unwrap();
        Some(Self {
            gate: Gate::before(moto.port()),
            _moto: moto,
            credentials,
            repository: Repository::init(Arc::new(MemoryStore::new())).unwrap(),
        })
    }

    fn access(&self) -> KmsAccess {
        KmsAccess {
            endpoint: Some(self.gate.endpoint()),
            profile: None,
            credentials_file: Some(self.credentials.path().to_owned()),
        }
    }

    fn key(&self, arn: &str) -> RecipientPrivate {
        self.provider(arn).recipient()
    }

    fn provider(&self, arn: &str) -> Arc<KmsKey> {
        KmsKey::open(KmsLocation {
            arn: arn.to_owned(),
            access: self.access(),
        })
    }

    /// A full backup of one file, and then the WAL of one segment from its start.
    fn protect(&self, to: &RecipientPublic, id: &str, segment: u64) -> Result<()> {
        let at = segment * SEGMENT;
        let facts = BackupFacts {
            id: id.to_owned(),
            kind: BackupKind::Full,
            parent: None,
            label: "test".to_owned(),
            system_identifier: SYSTEM,
            timeline: 1,
            start_lsn: at,
            pg_version: 150_008,
            wal_segment_bytes: SEGMENT,
            started_at_micros: 1_000_000 + i64::try_from(segment).unwrap(),
        };
        let chunk_key = ChunkIdKey::generate()?;
        let backup = BackupWriter::begin(&self.repository, to, &chunk_key, facts)?;
        backup.blob("PG_VERSION", 0o600, 7, id.as_bytes())?;
        backup.finish(BackupStop {
            stop_lsn: at + 100,
            finished_at_micros: 2_000_000,
            ..BackupStop::default()
        })?;
        let mut wal = self.wal(to, at)?;
        wal.append(at, &vec![7; usize::try_from(SEGMENT).unwrap()], 1)?;
        wal.finish()
    }

    fn wal(&self, to: &RecipientPublic, at: u64) -> Result<WalWriter> {
        WalWriter::new(&self.repository, to, SYSTEM, 1, SEGMENT, "s", at)
    }

    fn reads(&self, key: &RecipientPrivate, id: &str, segment: u64) -> Result<()> {
        let backup = BackupReader::open(&self.repository, key, id)?;
        assert_eq!(backup.verify(1, &|_| {})?.damaged, []);
        let wal = WalReader::new(&self.repository, key);
        let at = segment * SEGMENT;
        assert_eq!(wal.bytes(1, at, at + 100)?, [7; 100]);
        Ok(())
    }
}

const FIRST: &str = "20261123T081530Z-00000001";
const SECOND: &str = "20261123T091530Z-00000002";

fn binding(digit: char) -> WrapBinding {
    WrapBinding {
        repository_id: "1".repeat(32),
        data_key_id: digit.to_string().repeat(32),
    }
}

#[test]
fn kms_says_how_often_it_replaces_a_keys_material() {
    let Some(world) = World::start() else { return };
    let arn = world.gate.make_key();
    let key = world.provider(&arn);
    assert_eq!(key.rotation_period_days(), Ok(None));
    let often = json!({"KeyId": arn, "RotationPeriodInDays": 90});
    world.gate.administer("EnableKeyRotation", often);
    // moto knows no other period than the default.
    assert_eq!(key.rotation_period_days(), Ok(Some(365)));
    let unknown = arn.replace("key/", "key/0");
    let error = world.provider(&unknown).rotation_period_days().unwrap_err();
    assert!(matches!(error.trouble, KeyTrouble::Gone { .. }), "{error}");
}

#[test]
fn a_wrap_opens_for_its_data_key_of_its_repository_with_its_key() {
    let Some(world) = World::start() else { return };
    let arn = world.gate.make_key();
    let alias = json!({"AliasName": "alias/bre", "TargetKeyId": arn});
    world.gate.administer("CreateAlias", alias);
    let location = resolve("alias/bre", Some("us-east-1"), world.access()).unwrap();
    assert_eq!(location.arn, arn);
    assert_eq!(location.to_string().parse(), Ok(location.clone()));

    let key = KmsKey::open(location);
    let (secret, wrap) = key.generate(&binding('a')).unwrap();
    let header = WrapHeader::read(&wrap).unwrap();
    assert_eq!(
        (header.suite, header.key_name.as_str()),
        (WrapSuite::Kms, &*arn)
    );
    assert_eq!(key.unwrap(&binding('a'), &wrap).unwrap(), secret);
    let again = key.wrap(&binding('b'), &secret).unwrap();
    assert_eq!(key.unwrap(&binding('b'), &again).unwrap(), secret);

    // In a copy of the repository, which has another id, it opens as well.
    let copy = WrapBinding {
        repository_id: "2".repeat(32),
        ..binding('a')
    };
    assert_eq!(key.unwrap(&copy, &wrap).unwrap(), secret);
    // KMS itself refuses what was changed, the repository that it was made in included; what was moved to another data
    // key does not get that far.
    let wrong = |for_key, at: usize| {
        let mut wrap = wrap.clone();
        wrap[at] ^= u8::from(at > 0);
        let error = key.unwrap(&binding(for_key), &wrap).unwrap_err();
        assert!(matches!(error.trouble, KeyTrouble::Wrong { .. }), "{error}");
    };
    wrong('b', 0);
    wrong('a', 40);
    wrong('a', wrap.len() - 1);

    // From inside another runtime, and dropped there.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let unwrapped = runtime.block_on(async move { key.unwrap(&binding('a'), &wrap) });
    assert_eq!(unwrapped.unwrap(), secret);

    let gone = format!("{}0", &arn[..arn.len() - 1].replace("key/", "key/0"));
    let error = world.provider(&gone).generate(&binding('a')).unwrap_err();
    assert!(error.to_string().contains(&gone), "{error}");
    assert!(matches!(error.trouble, KeyTrouble::Gone { .. }), "{error}");
}

#[test]
fn whoever_writes_needs_generate_data_key_and_nothing_else() {
    let Some(world) = World::start() else { return };
    let key = world.key(&world.gate.make_key());
    let others = [
        "Decrypt",
        "Encrypt",
        "DescribeKey",
        "GenerateDataKeyWithoutPlaintext",
    ];
    world.gate.rules(|rules| rules.denied.extend(others));
    world.protect(key.public(), FIRST, 1).unwrap();
    let asked = world.gate.rules(|rules| rules.asked.clone());
    assert!(
        asked.len() >= 2 && asked.iter().all(|call| call == "GenerateDataKey"),
        "{asked:?}"
    );

    let error = world.reads(&key, FIRST, 1).unwrap_err();
    assert!(
        matches!(&error, Error::KeyClosed(closed) if matches!(closed.keys[0].trouble, KeyTrouble::Denied { .. })),
        "{error}"
    );
    world.gate.rules(|rules| rules.denied.clear());
    world.reads(&key, FIRST, 1).unwrap();
}

/// The property of the whole: a key that does not open takes what is sealed only to it, says so, and nothing else.
#[test]
fn a_disabled_key_takes_only_what_hangs_on_it() {
    let Some(world) = World::start() else { return };
    let (old_arn, new_arn) = (world.gate.make_key(), world.gate.make_key());
    let (old, new) = (world.key(&old_arn), world.key(&new_arn));
    world.protect(old.public(), FIRST, 1).unwrap();
    world.protect(new.public(), SECOND, 2).unwrap();
    world.reads(&new, FIRST, 1).unwrap();
    // moto's administration knows keys by the last part of their ARN only.
    let old_key = old_arn.rsplit('/').next().unwrap().to_owned();

    let acts = [
        ("DisableKey", json!({"KeyId": old_key}), "disabled"),
        (
            "ScheduleKeyDeletion",
            json!({"KeyId": old_key, "PendingWindowInDays": 7}),
            "pending deletion",
        ),
    ];
    for (act, body, word) in acts {
        world.gate.administer(act, body);
        world.reads(&new, SECOND, 2).unwrap();
        let error = world.reads(&new, FIRST, 1).unwrap_err();
        assert!(matches!(error, Error::KeyClosed(_)), "{error}");
        let outlook = key_outlook(&world.repository, Some(&new)).unwrap();
        let said = error.to_string();
        // The error and what `repository-key show` prints agree, because they are the same.
        for part in [&old_arn, FIRST, SECOND, &outlook.sentence()] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert_eq!(outlook.closed.backups, [FIRST]);
        assert_eq!(outlook.left.backups, [SECOND]);
        let lsn = |reach: &[repository::outlook::WalReach]| (reach[0].start_lsn, reach[0].end_lsn);
        assert_eq!(lsn(&outlook.closed.wal), (SEGMENT, 2 * SEGMENT));
        assert_eq!(lsn(&outlook.left.wal), (2 * SEGMENT, 3 * SEGMENT));
        let state = outlook.keys.iter().find(|key| key.name == old_arn).unwrap();
        assert_eq!((state.state, state.provider), (word, "kms"));
        assert_eq!(state.only, outlook.closed);
    }
    let wal = WalReader::new(&world.repository, &new);
    assert!(wal.bytes(1, SEGMENT, SEGMENT + 1).is_err());

    world
        .gate
        .administer("CancelKeyDeletion", json!({"KeyId": old_key}));
    world
        .gate
        .administer("EnableKey", json!({"KeyId": old_key}));
    world.reads(&new, FIRST, 1).unwrap();

    // Rotated in time, the old key may go.
    let done = rewrap(&world.repository, &old, &new, &()).unwrap();
    assert!(done.wrapped >= 2 && done.closed == 0, "{done:?}");
    world
        .gate
        .administer("DisableKey", json!({"KeyId": old_key}));
    world.reads(&new, FIRST, 1).unwrap();
    assert!(
        key_outlook(&world.repository, Some(&new))
            .unwrap()
            .closed
            .is_empty()
    );
    retire(&world.repository, &old.public().id(), &new, &()).unwrap();
    world.reads(&new, FIRST, 1).unwrap();
}

#[test]
fn from_a_file_to_kms_and_back_rewrites_wraps_only() {
    let Some(world) = World::start() else { return };
    let (file, kms) = (
        RecipientPrivate::generate().unwrap(),
        world.key(&world.gate.make_key()),
    );
    world.protect(file.public(), FIRST, 1).unwrap();
    let data = || {
        let objects = world.repository.store().list("").unwrap();
        let names = objects.into_iter().map(|object| object.name);
        names
            .filter(|name| !name.starts_with("wraps/"))
            .collect::<Vec<_>>()
    };
    let before = data();
    rewrap(&world.repository, &file, &kms, &()).unwrap();
    retire(&world.repository, &file.public().id(), &kms, &()).unwrap();
    world.reads(&kms, FIRST, 1).unwrap();
    assert!(matches!(
        world.reads(&file, FIRST, 1),
        Err(Error::WrongKey(_))
    ));

    let next = RecipientPrivate::generate().unwrap();
    rewrap(&world.repository, &kms, &next, &()).unwrap();
    retire(&world.repository, &kms.public().id(), &next, &()).unwrap();
    world.reads(&next, FIRST, 1).unwrap();
    assert_eq!(before, data());
}

/// KMS away: what is open continues, what is new waits and can be tried again; the second recipient, kept offline,
/// opens everything.
#[test]
fn while_kms_is_away_an_open_span_goes_on_and_the_spare_key_opens_all() {
    let Some(mut world) = World::start() else {
        return;
    };
    let (kms, second) = (
        world.key(&world.gate.make_key()),
        RecipientPrivate::generate().unwrap(),
    );
    world.protect(kms.public(), FIRST, 1).unwrap();
    let both = kms.public().clone().and(second.public());
    assert_eq!(both.id(), kms.public().id());
    world.protect(&both, SECOND, 2).unwrap();
    world.gate.rules(|rules| rules.failing = 1);
    let mut open = world.wal(&both, 3 * SEGMENT).unwrap();

    let before = not_sealed_to(&world.repository, second.public()).unwrap();
    let sealed = seal_also(&world.repository, &kms, second.public(), &()).unwrap();
    assert_eq!((sealed.wrapped, before > 0), (before, true));

    world.gate.rules(|rules| rules.silent = true);
    open.append(3 * SEGMENT, &[7; 100], 1).unwrap();
    let error = world.wal(&both, 4 * SEGMENT).unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(error.to_string().contains("key provider"), "{error}");
    world
        .gate
        .rules(|rules| (rules.silent, rules.failing) = (false, u32::MAX));
    let error = world.reads(&kms, FIRST, 1).unwrap_err();
    assert!(error.is_unavailable(), "not verdict, a pause: {error}");
    world.reads(&second, FIRST, 1).unwrap();
    world.reads(&second, SECOND, 2).unwrap();

    world
        .gate
        .rules(|rules| *rules = crate::kms_gate::Rules::default());
    world.wal(&both, 4 * SEGMENT).unwrap();
    world.reads(&kms, SECOND, 2).unwrap();
    // Nobody listens there at all.
    world._moto.kill();
    let nowhere = KmsKey::open(KmsLocation {
        arn: "arn:aws:kms:us-east-1:123456789012:key/a".to_owned(),
        access: KmsAccess {
            endpoint: Some(format!("http://127.0.0.1:{}", world._moto.port())),
            ..world.access()
        },
    });
    let error = nowhere.generate(&binding('a')).unwrap_err();
    assert!(error.trouble.may_pass(), "{error}");
}
