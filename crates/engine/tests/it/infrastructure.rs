//! The infrastructure through `bre`, without an engine: jobs by hand and restores, on an account as moto plays it.
//! any day: the dates are versions of policy documents, or far in the past.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc};

use repository::{
    Repository,
    keys::{ChunkIdKey, RecipientPrivate},
    store::PosixStore,
};
use testkit::TestAws;

use crate::{instance::Folder, process::Output};

struct Fixture {
    folder: Folder,
    aws: TestAws,
}

impl Fixture {
    fn new() -> Option<Self> {
        let fixture = Self {
            folder: Folder::new(),
            aws: TestAws::start()?,
        };
        for name in ["repository", "keys"] {
            fs::create_dir_all(fixture.data(name)).unwrap();
        }
        let store = PosixStore::new(fixture.data("repository"));
        Repository::init(Arc::new(store)).unwrap();
        let key = RecipientPrivate::generate().unwrap();
        key.store(&fixture.data("keys/recipient.key")).unwrap();
        let public = fixture.data("keys/recipient.pub");
        key.public().store(&public).unwrap();
        let chunk_id = ChunkIdKey::generate().unwrap();
        chunk_id.store(&fixture.data("keys/chunk_id.key")).unwrap();
        let settings = format!(
            "{}[rds]\ninstance = \"db\"\n[terraform.prod]\nfile = \"{}\"\n\
             [jobs.\"network.configuration\"]\nprovided_by = \"aws-config\"\n",
            fixture.aws.settings(),
            fixture.data("t.tfstate").display()
        );
        fs::write(fixture.data("bre.toml"), settings).unwrap();
        let mode = fs::Permissions::from_mode(0o600);
        fs::set_permissions(fixture.data("bre.toml"), mode).unwrap();
        Some(fixture)
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.join("data").join(name)
    }

    fn bre(&self, arguments: &[&str]) -> Output {
        let data = self.folder.join("data");
        let first = ["--data", data.to_str().unwrap(), "--json"];
        self.folder.run(&[&first[..], arguments].concat())
    }
}

#[test]
#[ignore = "many calls of clients, each half a second: make slow-infrastructure"]
fn roles_stacks_and_states_are_kept_and_come_back() {
    let Some(fixture) = Fixture::new() else {
        return;
    };
    let aws = &fixture.aws;
    aws.python(
        "trust = json.dumps({'Version': '2012-10-17', 'Statement': [{'Effect': 'Allow', 'Action': 'sts:AssumeRole', \
         'Principal': {'Service': 'ec2.amazonaws.com'}}]})\n\
         client('iam').create_role(RoleName='api', AssumeRolePolicyDocument=trust)\n\
         body = {'Resources': {'Topic': {'Type': 'AWS::SNS::Topic', 'Properties': {'TopicName': 'alerts'}}}}\n\
         client('cloudformation').create_stack(StackName='alerts', TemplateBody=json.dumps(body))",
    );
    // A service that is named in a job's place is asked.
    let checked = fixture.bre(&["plan", "check"]).exits(1).parsed();
    let rows = checked["rows"].as_array().unwrap();
    let mut rows = rows
        .iter()
        .filter(|row| row["job"] == "network.configuration");
    let row = rows.next().unwrap();
    assert_eq!(row["verdict"], "wrong", "{row}");
    let mend = row["mend"].as_str().unwrap();
    assert!(mend.contains("start-configuration-recorder"), "{row}");
    let kept = fixture.bre(&["job", "run", "iam.policies"]).json();
    assert_eq!(
        kept["changes"],
        serde_json::json!(["role api added"]),
        "{kept}"
    );
    let taken = fixture.bre(&["job", "run", "cloudformation.stacks"]).json();
    assert_eq!(taken["stacks"], 1, "{taken}");
    aws.python(
        "client('iam').delete_role(RoleName='api')\nclient('cloudformation').delete_stack(StackName='alerts')",
    );
    let planned = fixture.bre(&["restore", "iam", "--dry-run"]).json();
    assert_eq!(planned["restored"], false);
    assert_eq!(planned["steps"][0]["action"], "create", "{planned}");
    // There is no one to ask.
    fixture
        .bre(&["restore", "iam"])
        .exits(3)
        .refused(&["--yes"]);
    fixture
        .bre(&["restore", "iam", "role/none", "--yes"])
        .exits(3);
    fixture
        .bre(&["restore", "iam", "api", "--yes"])
        .exits(2)
        .refused(&["role/api"]);
    let restored = fixture.bre(&["restore", "iam", "role/api", "--yes"]).json();
    assert_eq!(restored["restored"], true, "{restored}");
    let again = fixture.bre(&["restore", "iam"]).json();
    assert_eq!(again["restored"], false, "a second plan is empty: {again}");
    let stack = ["snapshot", "restore", "cloudformation", "--stack", "alerts"];
    fixture.bre(&stack).exits(3).refused(&["--yes"]);
    let stacks =
        "print([s['StackName'] for s in client('cloudformation').describe_stacks()['Stacks']])";
    assert_eq!(
        aws.python(stacks),
        "[]",
        "what was declined is not left behind"
    );
    let restored = fixture.bre(&[&stack[..], &["--yes"]].concat()).json();
    assert_eq!(
        restored["changes"],
        serde_json::json!(["Add Topic (AWS::SNS::Topic)"])
    );
    assert_eq!(aws.python(stacks), "['alerts']");

    let state = r#"{"version": 4, "serial": 1, "lineage": "l", "terraform_version": "1.11.4", "resources": [
        {"mode": "managed", "type": "a", "name": "b", "instances": [{"attributes": {"p": "hunter2"}}]}]}"#;
    fs::write(fixture.data("t.tfstate"), state).unwrap();
    let kept = fixture.bre(&["job", "run", "terraform.state"]).json();
    assert_eq!(
        kept["versions"][0]["came"],
        serde_json::json!(["a.b"]),
        "{kept}"
    );
    let shown = fixture.bre(&[
        "snapshot",
        "show",
        "terraform_prod",
        "--document",
        "state.json",
    ]);
    assert!(
        shown.out.contains("a.b") && !shown.out.contains("hunter2"),
        "{shown:?}"
    );

    aws.python(
        "client('rds').create_db_instance(DBInstanceIdentifier='db', Engine='postgres', \
         DBInstanceClass='db.t3.medium', AllocatedStorage=20, MasterUsername='a', MasterUserPassword='abcdefgh1', \
         BackupRetentionPeriod=7, MultiAZ=True, StorageEncrypted=True)",
    );
    let made = fixture.bre(&["job", "run", "rds.snapshots"]).json();
    assert_eq!(made["kept"], 1, "{made}");
    let status = fixture.bre(&["status"]).parsed();
    let said = status["provider_snapshots"]["rds.snapshots"].as_str();
    assert!(
        said.is_some_and(|said| said.contains("can be restored")),
        "{status}"
    );
    // Where its configuration is was not said.
    let restore = [
        "snapshot",
        "restore",
        "terraform_prod",
        "--in-place",
        "--yes",
    ];
    fixture
        .bre(&restore)
        .exits(3)
        .refused(&["[terraform.prod] folder"]);
}
