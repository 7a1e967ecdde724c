//! An account as moto plays it, through the real client, into git and into sealed snapshots.
//! any day: the dates are versions of policy documents, or far in the past.

mod provider;

use std::path::Path;

use backup::documents::{GitOutcome, SealedDocuments, SealedOutcome, take};
use backup::infrastructure::cloudformation::{self, StackSource};
use backup::infrastructure::iam::IamSource;
use backup::infrastructure::network::NetworkSource;
use backup::infrastructure::terraform::{STATE, backup_states, component_of};
use backup::infrastructure::{
    InfrastructureError, InfrastructureReport, PlainInfrastructure, backup_to_git,
};
use control_plane::aws::{Aws, network::PARTS};
use control_plane::terraform::StateOrigin;
use repository::Progress;
use repository::snapshot::{SnapshotReader, snapshots};
use testkit::TestAws;

use crate::Vault;

pub(crate) struct Quiet;

impl Progress for Quiet {}

pub(crate) fn client(aws: &TestAws) -> Aws {
    Aws {
        program: aws.program(),
        endpoint_url: Some(aws.endpoint()),
        region: Some("us-east-1".to_owned()),
        ..Aws::default()
    }
}

fn into_git<S: PlainInfrastructure>(
    source: &S,
    folder: &Path,
) -> Result<(GitOutcome, InfrastructureReport), InfrastructureError> {
    backup_to_git(source, folder, None, &Quiet)
}

fn sink(vault: &Vault) -> SealedDocuments {
    SealedDocuments {
        repository: vault.repository.clone(),
        public: vault.public.clone(),
        chunk_key: vault.chunk_key.clone(),
        cache: None,
        private: Some(vault.private.clone()),
        facts: std::collections::BTreeMap::new(),
    }
}

#[test]
fn an_opened_port_is_a_commit_in_an_operators_words() {
    let Some(aws) = TestAws::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let group = aws.python(
        "ec2 = client('ec2')\n\
         group = ec2.create_security_group(GroupName='db', Description='db')['GroupId']\n\
         print(group)",
    );
    let client = client(&aws);
    // Each costs a start of the client.
    let short = [PARTS[3], PARTS[4]];
    let source = NetworkSource {
        aws: &client,
        parts: &short,
    };
    // The client asks again by itself when it is told to slow down.
    aws.refuse("DescribeSecurityGroups", "RequestLimitExceeded", 1);
    let (first, report) = into_git(&source, folder.path()).unwrap();
    assert!(first.commit.is_some(), "{first:?}");
    assert_eq!(report.not_read, []);
    assert_eq!(report.calls, 2);
    let acl = folder.path().join("network/network_acl");
    assert!(std::fs::read_dir(&acl).unwrap().count() > 0);

    aws.python(&format!(
        "client('ec2').authorize_security_group_ingress(GroupId='{group}', IpPermissions=[{{\
         'IpProtocol': 'tcp', 'FromPort': 5432, 'ToPort': 5432, 'IpRanges': [{{'CidrIp': '0.0.0.0/0'}}]}}])"
    ));
    aws.refuse("DescribeNetworkAcls", "UnauthorizedOperation", 1);
    let (second, report) = into_git(&source, folder.path()).unwrap();
    let expected = format!("port 5432 opened to 0.0.0.0/0 in {group} (db)");
    assert_eq!(second.changes, [expected]);
    let [unread] = report.not_read.as_slice() else {
        panic!("{report:?}");
    };
    assert_eq!(unread.part, "network acl");
    assert!(unread.why.contains("may not do it"), "{unread}");
    assert!(
        std::fs::read_dir(&acl).unwrap().count() > 0,
        "what was kept stays"
    );

    aws.refuse("DescribeSecurityGroups", "ExpiredToken", 1);
    let error = into_git(&source, folder.path()).unwrap_err().to_string();
    for words in ["expired", "[aws] profile", "earlier copies are untouched"] {
        assert!(error.contains(words), "{error}");
    }
}

#[test]
#[ignore = "many calls of clients, each half a second: make slow-infrastructure"]
fn a_policy_that_amazon_rewrote_is_no_change() {
    let Some(aws) = TestAws::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let trust = |principal: &str| {
        format!(
            "{{'Version': '2012-10-17', 'Statement': [{{'Effect': 'Allow', 'Action': 'sts:AssumeRole', \
             'Principal': {{'AWS': {principal}}}}}]}}"
        )
    };
    aws.python(&format!(
        "iam = client('iam')\n\
         iam.create_role(RoleName='api', AssumeRolePolicyDocument=json.dumps({}))\n\
         iam.put_role_policy(RoleName='api', PolicyName='read', PolicyDocument=json.dumps(\
         {{'Version': '2012-10-17', 'Statement': {{'Effect': 'Allow', 'Action': ['s3:List*', 's3:Get*'], \
         'Resource': '*'}}}}))\n\
         iam.create_policy(PolicyName='audit', PolicyDocument=json.dumps({{'Version': '2012-10-17', \
         'Statement': [{{'Effect': 'Allow', 'Action': 's3:GetObject', 'Resource': '*'}}]}}))",
        trust("'123456789012'")
    ));
    let client = client(&aws);
    let source = IamSource { aws: &client };
    let (first, report) = into_git(&source, folder.path()).unwrap();
    assert_eq!(
        (first.changes.len(), report.objects, report.calls),
        (2, 2, 1),
        "{first:?}"
    );
    let role = std::fs::read_to_string(folder.path().join("iam/role/api.json")).unwrap();
    assert!(role.contains("arn:aws:iam::123456789012:root"), "{role}");

    aws.python(&format!(
        "iam = client('iam')\n\
         iam.update_assume_role_policy(RoleName='api', PolicyDocument=json.dumps({}))\n\
         iam.put_role_policy(RoleName='api', PolicyName='read', PolicyDocument=json.dumps(\
         {{'Version': '2012-10-17', 'Statement': [{{'Resource': ['*'], 'Action': ['s3:Get*', 's3:List*'], \
         'Effect': 'Allow'}}]}}))",
        trust("['arn:aws:iam::123456789012:root']")
    ));
    let (second, _) = into_git(&source, folder.path()).unwrap();
    assert_eq!(second.commit, None, "{second:?}");

    aws.python(
        "iam = client('iam')\n\
         arn = iam.list_policies(Scope='Local')['Policies'][0]['Arn']\n\
         iam.attach_role_policy(RoleName='api', PolicyArn=arn)",
    );
    let (third, _) = into_git(&source, folder.path()).unwrap();
    assert_eq!(third.changes, ["policy audit attached to role api"]);

    aws.refuse("GetAccountAuthorizationDetails", "AccessDenied", 1);
    let error = into_git(&source, folder.path()).unwrap_err().to_string();
    assert!(error.contains("may not do it"), "{error}");
}

fn state(serial: u64, resources: &[&str]) -> String {
    let resource = |name: &&str| {
        serde_json::json!({"mode": "managed", "type": "terraform_data", "name": name,
            "instances": [{"attributes": {"input": "hunter2"}}]})
    };
    let resources: Vec<_> = resources.iter().map(resource).collect();
    serde_json::json!({"version": 4, "terraform_version": "1.11.4", "serial": serial, "lineage": "l-1",
        "resources": resources})
    .to_string()
}

#[test]
#[ignore = "many calls of clients, each half a second: make slow-infrastructure"]
fn every_version_of_a_state_is_kept_once() {
    let Some(aws) = TestAws::start() else {
        return;
    };
    let vault = Vault::new();
    let folder = tempfile::tempdir().unwrap();
    let memory = folder.path().join("memory/terraform_prod.json");
    let put = |key: &str, text: &str| {
        aws.python(&format!(
            "client('s3').put_object(Bucket='states', Key='{key}', Body={text:?})"
        ));
    };
    aws.python(
        "s3 = client('s3')\ns3.create_bucket(Bucket='states')\n\
         s3.put_bucket_versioning(Bucket='states', VersioningConfiguration={'Status': 'Enabled'})",
    );
    put("prod/t", &state(1, &["a"]));
    put("prod/t.tflock", r#"{"ID": "x", "Who": "bob@desk"}"#);
    put("prod/t", &state(2, &["a", "b"]));
    put("prod/t", "no state");
    put("prod/t", &state(3, &["b"]));
    let origin = StateOrigin::Bucket {
        bucket: "states".to_owned(),
        key: "prod/t".to_owned(),
    };
    let client = client(&aws);
    let run = |calls_max: u32| {
        let round = client.round_of(calls_max, &|| false);
        backup_states("prod", &origin, &round, &mut sink(&vault), &memory, &Quiet)
    };
    let first = run(4).unwrap();
    assert!(
        first.left >= 2,
        "a run makes at most so many calls: {first:?}"
    );
    let said = |outcomes: &[backup::infrastructure::terraform::StateOutcome]| -> Vec<String> {
        outcomes.iter().map(|it| it.change.to_string()).collect()
    };
    let second = run(12).unwrap();
    assert_eq!(second.left, 0);
    let all = [said(&first.outcomes), said(&second.outcomes)].concat();
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(
        all[0].starts_with("serial 1, terraform_data.a came"),
        "{all:?}"
    );
    assert!(
        all[1].starts_with("serial 2, terraform_data.b came"),
        "{all:?}"
    );
    assert!(
        all[2].starts_with("serial 3, terraform_data.a went"),
        "{all:?}"
    );
    assert!(all[2].ends_with("by bob@desk"), "{all:?}");
    let [unread] = second.report.not_read.as_slice() else {
        panic!("{:?}", second.report);
    };
    assert!(unread.why.contains("no JSON"), "{unread}");
    let third = run(12).unwrap();
    assert_eq!((third.outcomes.len(), third.report.calls), (0, 1));

    let component = component_of("prod");
    let kept = snapshots(&vault.repository).unwrap().snapshots;
    assert_eq!(kept.len(), 3);
    let newest = kept.iter().max_by_key(|it| it.taken_at_micros).unwrap();
    let private = &vault.private;
    let reader = SnapshotReader::open(&vault.repository, private, &component, &newest.id).unwrap();
    let content = reader.read(reader.document(STATE).unwrap()).unwrap();
    assert_eq!(std::str::from_utf8(&content).unwrap(), state(3, &["b"]));
    // What this host remembers holds no value.
    let remembered = std::fs::read_to_string(&memory).unwrap();
    assert!(remembered.contains("terraform_data.b") && !remembered.contains("hunter2"));
    for name in vault.store.list("").unwrap() {
        let bytes = vault.store.get(&name.name).unwrap();
        let planted = bytes.windows(7).any(|window| window == b"hunter2");
        assert!(!planted, "{}", name.name);
    }
}

#[test]
#[ignore = "many calls of clients, each half a second: make slow-infrastructure"]
fn stacks_are_kept_with_what_it_takes_to_make_them_again() {
    let Some(aws) = TestAws::start() else {
        return;
    };
    let vault = Vault::new();
    aws.python(
        "cf = client('cloudformation')\n\
         body = {'Parameters': {'Name': {'Type': 'String'}}, \
         'Resources': {'Topic': {'Type': 'AWS::SNS::Topic', 'Properties': {'TopicName': {'Ref': 'Name'}}}}}\n\
         cf.create_stack(StackName='alerts', TemplateBody=json.dumps(body), \
         Parameters=[{'ParameterKey': 'Name', 'ParameterValue': 'backup-alerts'}], \
         Tags=[{'Key': 'team', 'Value': 'desk'}])",
    );
    let client = client(&aws);
    let taken =
        |stacks: &[String]| -> Result<(SealedOutcome, InfrastructureReport), InfrastructureError> {
            let source = StackSource {
                aws: &client,
                stacks,
            };
            take(&source, &mut sink(&vault), &Quiet)
        };
    let (outcome, report) = taken(&["alerts".to_owned(), "absent".to_owned()]).unwrap();
    assert_eq!(
        (report.objects, report.not_read.len()),
        (1, 1),
        "{report:?}"
    );
    assert!(outcome.is_read_back);
    let id = &outcome.snapshot.id;
    let component = cloudformation::COMPONENT;
    let reader = SnapshotReader::open(&vault.repository, &vault.private, component, id).unwrap();
    let text = |name: &str| {
        let content = reader.read(reader.document(name).unwrap()).unwrap();
        String::from_utf8(content.to_vec()).unwrap()
    };
    assert!(text("alerts/template.json").contains("AWS::SNS::Topic"));
    let stack = text("alerts/stack.json");
    assert!(
        stack.contains("backup-alerts") && stack.contains("desk"),
        "{stack}"
    );
    assert!(text(cloudformation::NOT_READ).contains("absent"));
    let error = taken(&["absent".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("no stack of this name"), "{error}");
}
