//! Secrets Manager by the real `aws` on moto: backed up, deleted, restored with the same versions and labels, and the
//! same snapshot afterwards.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use backup::application_state::backup_sealed;
use backup::application_state::secrets::AllSecrets;
use backup::application_state::secrets_manager::SecretsManagerSource;
use backup::documents::SealedDocuments;
use control_plane::aws::{Aws, CALLS_MAX, secrets};
use recovery::application_state::documents_of_snapshot;
use recovery::application_state::secrets_manager::{ManagerAction, apply, plan};
use repository::Repository;
use repository::keys::{ChunkIdKey, RecipientPrivate};
use repository::snapshot::SnapshotReader;
use repository::store::{MemoryStore, Store};
use testkit::TestAws;

const SEED: &str = r#"
manager = client("secretsmanager")
manager.create_secret(Name="prod/db", Description="of prod", SecretString="planted-first",
    Tags=[{"Key": "team", "Value": "desk"}])
manager.put_secret_value(SecretId="prod/db", SecretString="planted-second\r\n")
manager.create_secret(Name="other", SecretString="planted-other")
"#;
const SEED_MORE: &str = r#"
manager.create_secret(Name="prod/key", SecretString="planted-old")
manager.put_secret_value(SecretId="prod/key", SecretString="planted-key")
manager.create_secret(Name="prod/bytes", SecretBinary=bytes(range(256)))
"#;
/// One is gone, one waits for its deletion, one has another value.
const LOSE: &str = r#"
manager = client("secretsmanager")
manager.delete_secret(SecretId="prod/db", ForceDeleteWithoutRecovery=True)
"#;
const LOSE_MORE: &str = r#"
manager.delete_secret(SecretId="prod/bytes", RecoveryWindowInDays=7)
manager.put_secret_value(SecretId="prod/key", SecretString="planted-wrong")
"#;
const LOOK: &str = r#"
manager = client("secretsmanager")
for stage in ["AWSPREVIOUS", "AWSCURRENT"]:
    print(repr(manager.get_secret_value(SecretId="prod/db", VersionStage=stage)["SecretString"]))
print(manager.describe_secret(SecretId="prod/db")["Tags"])
"#;
const LOOK_MORE: &str = r#"
print(repr(manager.get_secret_value(SecretId="prod/key", VersionStage="AWSCURRENT")["SecretString"]))
print(manager.get_secret_value(SecretId="prod/bytes")["SecretBinary"] == bytes(range(256)))
"#;

#[test]
fn a_deleted_secret_comes_back_with_its_versions_and_labels() {
    round_trip(false);
}

#[test]
#[ignore = "make slow-secrets-manager"]
fn deleted_and_changed_secrets_come_back_with_their_versions_and_labels() {
    round_trip(true);
}

fn round_trip(all: bool) {
    let with = |first: &str, more: &str| match all {
        true => format!("{first}{more}"),
        false => first.to_owned(),
    };
    let Some(stand_in) = TestAws::start() else {
        return;
    };
    let root = tempfile::tempdir().unwrap();
    let (calls, program) = (root.path().join("calls"), root.path().join("aws"));
    // The real one, with what it was given on record.
    let script = format!(
        "#!/bin/sh\n{{ echo \"call $*\"; env; }} >>'{}'\nexec '{}' \"$@\"\n",
        calls.display(),
        stand_in.program().display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let aws = Aws {
        program,
        endpoint_url: Some(stand_in.endpoint()),
        region: Some("us-east-1".to_owned()),
        ..Aws::default()
    };
    let store = Arc::new(MemoryStore::new());
    let private = RecipientPrivate::generate().unwrap();
    let mut sink = SealedDocuments {
        repository: Repository::init(Arc::clone(&store) as Arc<dyn Store>).unwrap(),
        public: private.public().clone(),
        chunk_key: ChunkIdKey::generate().unwrap(),
        cache: Some(root.path().join("cache")),
        private: Some(private.clone()),
        facts: Default::default(),
    };
    let prefixes = ["prod/".to_owned()];
    let source = AllSecrets {
        cluster: None,
        manager: Some(SecretsManagerSource {
            aws: &aws,
            prefixes: &prefixes,
        }),
    };
    let called = || {
        let text = fs::read_to_string(&calls).unwrap_or_default();
        text.lines()
            .filter(|line| line.starts_with("call "))
            .count()
    };
    stand_in.python(&with(SEED, SEED_MORE));
    let (first, report) = backup_sealed(&source, &mut sink, &()).unwrap();
    let objects = if all { 3 } else { 1 };
    assert_eq!((report.objects, report.earlier_not_read), (objects, 0));
    assert!(!report.is_partial(), "{report:?}");
    assert!(
        called() <= usize::try_from(CALLS_MAX).unwrap(),
        "{}",
        called()
    );
    let id = first.snapshot.id;
    let reader = SnapshotReader::open(&sink.repository, &private, "secrets", &id).unwrap();
    let documents = documents_of_snapshot(&reader).unwrap();

    stand_in.python(&with(LOSE, LOSE_MORE));
    let never = || false;
    let round = aws.round_of(100, &never);
    let lost = plan(&documents, &secrets::list(&round).unwrap()).unwrap();
    let actions: Vec<(&str, ManagerAction)> = lost
        .steps
        .iter()
        .map(|step| (step.secret.as_str(), step.action))
        .collect();
    let mut expected = vec![("prod/db", ManagerAction::Create)];
    if all {
        expected.insert(0, ("prod/bytes", ManagerAction::Undelete));
        expected.push(("prod/key", ManagerAction::Change));
    }
    assert_eq!(actions, expected);
    assert_eq!(lost.only_live, ["other"]);
    let second = apply(&documents, &lost, &round).unwrap();
    assert!(second.is_empty(), "{second:?}");
    let expected = "'planted-first'\n'planted-second\\r\\n'\n[{'Key': 'team', 'Value': 'desk'}]";
    let expected = with(expected, "\n'planted-key'\nTrue");
    assert_eq!(stand_in.python(&with(LOOK, LOOK_MORE)), expected);
    // The same bytes: no new snapshot.
    let (again, _) = backup_sealed(&source, &mut sink, &()).unwrap();
    let changes = &again.snapshot.changes;
    assert_eq!(
        (again.snapshot.is_new, &again.snapshot.id),
        (false, &id),
        "{changes:?}"
    );

    let recorded = fs::read(&calls).unwrap();
    assert!(String::from_utf8_lossy(&recorded).contains("--cli-input-json file:///dev/stdin"));
    let kept = store.list("").unwrap().into_iter();
    let kept = kept.map(|object| store.get(&object.name).unwrap());
    for bytes in kept.chain([recorded]) {
        assert!(!bytes.windows(8).any(|window| window == b"planted-"));
    }

    stand_in.refuse("ListSecrets", "ExpiredTokenException", 1);
    let error = backup_sealed(&source, &mut sink, &())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("credentials") && error.contains("expired"),
        "{error}"
    );
}
