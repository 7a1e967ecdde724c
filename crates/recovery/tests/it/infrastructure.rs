//! An account as moto plays it and the real Terraform: changed behind our back, planned, restored, read back.
//! any day: the dates are versions of policy documents, or far in the past.

use std::path::Path;
use std::process::{Command, Stdio};

use backup::documents::DocumentSource;
use backup::infrastructure::backup_to_git;
use backup::infrastructure::cloudformation::StackSource;
use backup::infrastructure::iam::IamSource;
use control_plane::aws::Aws;
use control_plane::aws::iam::{IamKind, IamName};
use control_plane::git::Files;
use control_plane::terraform::{StateOrigin, Terraform};
use recovery::Progress;
use recovery::infrastructure::terraform::StateTarget;
use recovery::infrastructure::{InfrastructureError, cloudformation, iam, terraform};
use testkit::TestAws;

struct Quiet;

impl Progress for Quiet {}

fn client(aws: &TestAws) -> Aws {
    Aws {
        program: aws.program(),
        endpoint_url: Some(aws.endpoint()),
        region: Some("us-east-1".to_owned()),
        ..Aws::default()
    }
}

/// The short form of the next one.
#[test]
fn a_role_is_restored_by_the_calls_that_were_shown() {
    let Some(aws) = TestAws::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    aws.python(
        "iam = client('iam')\n\
         doc = json.dumps({'Version': '2012-10-17', 'Statement': [{'Effect': 'Allow', 'Action': 'sts:AssumeRole', \
         'Principal': {'AWS': '123456789012'}}]})\n\
         iam.create_role(RoleName='api', AssumeRolePolicyDocument=doc)\n\
         iam.create_policy(PolicyName='audit', PolicyDocument=json.dumps({'Version': '2012-10-17', \
         'Statement': [{'Effect': 'Allow', 'Action': 's3:GetObject', 'Resource': '*'}]}))",
    );
    let client = client(&aws);
    let source = IamSource { aws: &client };
    backup_to_git(&source, folder.path(), None, &Quiet).unwrap();
    let backup = control_plane::git::files(folder.path(), "HEAD", &["iam"], ".json").unwrap();
    aws.python(
        "iam = client('iam')\n\
         iam.update_assume_role_policy(RoleName='api', PolicyDocument=json.dumps({'Version': '2012-10-17', \
         'Statement': [{'Effect': 'Allow', 'Action': 'sts:AssumeRole', \
         'Principal': {'Service': 'ec2.amazonaws.com'}}]}))\n\
         iam.attach_role_policy(RoleName='api', PolicyArn='arn:aws:iam::123456789012:policy/audit')",
    );
    let first = iam::plan(&backup, None, &[], &client, &Quiet).unwrap();
    let calls: Vec<String> = first
        .changes()
        .flat_map(|step| &step.calls)
        .map(ToString::to_string)
        .collect();
    let expected = [
        "aws iam update-assume-role-policy --role-name api --policy-document file:///dev/stdin",
        "aws iam detach-role-policy --role-name api --policy-arn arn:aws:iam::123456789012:policy/audit",
    ];
    assert_eq!(calls, expected);
    let second = iam::apply(&backup, &first, &[], &client, &Quiet).unwrap();
    assert!(second.is_empty(), "{second:?}");
}

#[test]
#[ignore = "many calls of clients, each half a second: make slow-infrastructure"]
fn a_role_that_was_changed_is_as_it_was() {
    let Some(aws) = TestAws::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let made = "iam = client('iam')\n\
         def policy(action):\n    return json.dumps({'Version': '2012-10-17', 'Statement': \
         [{'Effect': 'Allow', 'Action': action, 'Resource': '*'}]})\n\
         def trust(service):\n    return json.dumps({'Version': '2012-10-17', 'Statement': \
         [{'Effect': 'Allow', 'Action': 'sts:AssumeRole', 'Principal': {'Service': service}}]})\n";
    aws.python(&format!(
        "{made}\
         arn = iam.create_policy(PolicyName='audit', PolicyDocument=policy('s3:GetObject'))['Policy']['Arn']\n\
         for name in ['api', 'other']:\n    \
         iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust('ec2.amazonaws.com'), \
         Tags=[{{'Key': 'team', 'Value': 'desk'}}])\n    \
         iam.put_role_policy(RoleName=name, PolicyName='read', PolicyDocument=policy('s3:List*'))\n    \
         iam.attach_role_policy(RoleName=name, PolicyArn=arn)"
    ));
    let client = client(&aws);
    let source = IamSource { aws: &client };
    backup_to_git(&source, folder.path(), None, &Quiet).unwrap();
    let files = |folder: &Path| -> Files {
        control_plane::git::files(folder, "HEAD", &["iam"], ".json").unwrap()
    };
    let backup = files(folder.path());
    aws.python(&format!(
        "{made}\
         arn = iam.list_policies(Scope='Local')['Policies'][0]['Arn']\n\
         for n in range(4):\n    \
         iam.create_policy_version(PolicyArn=arn, PolicyDocument=policy('s3:*'), SetAsDefault=True)\n\
         iam.detach_role_policy(RoleName='api', PolicyArn=arn)\n\
         iam.update_assume_role_policy(RoleName='api', PolicyDocument=trust('lambda.amazonaws.com'))\n\
         iam.put_role_policy(RoleName='api', PolicyName='more', PolicyDocument=policy('*'))\n\
         iam.untag_role(RoleName='api', TagKeys=['team'])\n\
         iam.detach_role_policy(RoleName='other', PolicyArn=arn)\n\
         iam.delete_role_policy(RoleName='other', PolicyName='read')\n\
         iam.delete_role(RoleName='other')\n\
         iam.create_role(RoleName='mine', AssumeRolePolicyDocument=trust('ec2.amazonaws.com'))"
    ));
    let plan = |names: &[IamName]| iam::plan(&backup, Some(&backup), names, &client, &Quiet);
    let first = plan(&[]).unwrap();
    assert_eq!(first.only_live, ["role mine"]);
    let said: Vec<&str> = first
        .changes()
        .flat_map(|it| &it.differences)
        .map(String::as_str)
        .collect();
    let expected = [
        "what is allowed by policy audit changed",
        "policy audit attached to role api",
        "inline policy more of role api removed",
        "who may take role api changed",
        "tags of role api changed",
        "role other added",
    ];
    assert_eq!(said, expected);
    assert!(
        first
            .changes()
            .all(|it| it.git == iam::GitState::AsInTheBackup)
    );
    let absent = IamName {
        kind: IamKind::Role,
        name: "absent".to_owned(),
    };
    assert!(plan(&[absent]).unwrap_err().is_refusal());
    let second = iam::apply(&backup, &first, &[], &client, &Quiet).unwrap();
    assert!(second.is_empty(), "{second:?}");
    // The same bytes as before: a backup has nothing to commit but the role that is only there.
    let (outcome, _) = backup_to_git(&source, folder.path(), None, &Quiet).unwrap();
    assert_eq!(outcome.changes, ["role mine added"]);
}

#[test]
#[ignore = "many calls of clients, each half a second: make slow-infrastructure"]
fn a_stack_comes_back_by_a_change_set_that_was_shown() {
    let Some(aws) = TestAws::start() else {
        return;
    };
    aws.python(
        "cf = client('cloudformation')\n\
         body = {'Parameters': {'Name': {'Type': 'String'}}, \
         'Resources': {'Topic': {'Type': 'AWS::SNS::Topic', 'Properties': {'TopicName': {'Ref': 'Name'}}}}}\n\
         cf.create_stack(StackName='alerts', TemplateBody=json.dumps(body), \
         Parameters=[{'ParameterKey': 'Name', 'ParameterValue': 'backup-alerts'}])",
    );
    let client = client(&aws);
    let source = StackSource {
        aws: &client,
        stacks: &[],
    };
    let (collection, _) = source.collect(&Quiet).unwrap();
    let documents: Files = collection
        .documents
        .into_iter()
        .map(|(name, document)| (name, document.content))
        .collect();
    aws.python("client('cloudformation').delete_stack(StackName='alerts')");
    let error = cloudformation::propose(&documents, "absent", &client, &Quiet).unwrap_err();
    assert!(
        error.is_refusal() && error.to_string().contains("alerts"),
        "{error}"
    );
    let proposal = cloudformation::propose(&documents, "alerts", &client, &Quiet);
    let proposal = proposal.unwrap().unwrap();
    assert!(proposal.is_new);
    assert_eq!(proposal.changes, ["Add Topic (AWS::SNS::Topic)"]);
    let topics = || aws.python("print(len(client('sns').list_topics()['Topics']))");
    assert_eq!(topics(), "0", "a proposal changes nothing");
    cloudformation::execute(&documents, &proposal, &client, &Quiet).unwrap();
    assert_eq!(topics(), "1");
    let topic = aws.python("print(client('sns').list_topics()['Topics'][0]['TopicArn'])");
    assert!(topic.ends_with(":backup-alerts"), "{topic}");
}

/// A configuration with its state in moto's bucket.
fn configuration(folder: &Path, aws: &TestAws, key: &str, resources: &[&str]) {
    let endpoint = aws.moto().endpoint();
    let mut text = format!(
        "terraform {{\n backend \"s3\" {{\n  bucket = \"states\"\n  key = \"{key}\"\n  region = \"us-east-1\"\n  \
         use_lockfile = true\n  dynamodb_table = \"terraform-locks\"\n  use_path_style = true\n  \
         skip_credentials_validation = true\n  skip_requesting_account_id = true\n  skip_metadata_api_check = true\n  \
         skip_region_validation = true\n  access_key = \"test\"\n  secret_key = \"test\"\n  \
         endpoints = {{ s3 = \"{endpoint}\", dynamodb = \"{endpoint}\" }}\n }}\n}}\n"
    );
    for name in resources {
        text.push_str(&format!(
            "resource \"terraform_data\" \"{name}\" {{ input = \"planted\" }}\n"
        ));
    }
    std::fs::write(folder.join("main.tf"), text).unwrap();
}

fn run(program: &Path, folder: &Path, arguments: &[&str]) {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env_remove("TF_CLI_CONFIG_FILE")
        .env("CHECKPOINT_DISABLE", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
}

#[test]
#[ignore = "many calls of clients, each half a second: make slow-infrastructure"]
fn a_state_that_lost_its_resources_knows_them_again() {
    let (Some(program), Some(aws)) = (testkit::terraform(), TestAws::start()) else {
        return;
    };
    aws.python(
        "s3 = client('s3')\ns3.create_bucket(Bucket='states')\n\
         s3.put_bucket_versioning(Bucket='states', VersioningConfiguration={'Status': 'Enabled'})\n\
         client('dynamodb').create_table(TableName='terraform-locks', BillingMode='PAY_PER_REQUEST', \
         AttributeDefinitions=[{'AttributeName': 'LockID', 'AttributeType': 'S'}], \
         KeySchema=[{'AttributeName': 'LockID', 'KeyType': 'HASH'}])",
    );
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    configuration(folder, &aws, "prod/t", &["a", "b"]);
    run(&program, folder, &["init", "-input=false"]);
    run(
        &program,
        folder,
        &["apply", "-auto-approve", "-input=false"],
    );
    let client = client(&aws);
    let backup = client
        .round(&|| false)
        .object("states", "prod/t", None)
        .unwrap();
    run(&program, folder, &["state", "rm", "terraform_data.a"]);
    let tool = Terraform::new(program.clone(), folder.to_owned());
    let place = StateOrigin::Bucket {
        bucket: "states".to_owned(),
        key: "prod/t".to_owned(),
    };
    let target = StateTarget {
        terraform: &tool,
        workspace: "default",
        place: &place,
        lock_table: Some("terraform-locks"),
        aws: &client,
    };
    let refused = |backup: &[u8], target: &StateTarget<'_>, says: &str| {
        let error = terraform::plan(backup, target, &Quiet).unwrap_err();
        assert!(
            error.is_refusal() && error.to_string().contains(says),
            "{error}"
        );
        error
    };
    // Another lineage, another workspace, another key.
    let other = String::from_utf8(backup.to_vec()).unwrap();
    let lineage = control_plane::terraform::TerraformState::parse(&backup)
        .unwrap()
        .lineage;
    refused(
        other.replace(&lineage, "another").as_bytes(),
        &target,
        "lineage",
    );
    let blue = StateTarget {
        workspace: "blue",
        ..target
    };
    refused(&backup, &blue, "workspace");
    let elsewhere = StateOrigin::Bucket {
        bucket: "states".to_owned(),
        key: "test/t".to_owned(),
    };
    let elsewhere = StateTarget {
        place: &elsewhere,
        ..target
    };
    refused(&backup, &elsewhere, "another system");
    // Either lock.
    aws.python(
        "client('s3').put_object(Bucket='states', Key='prod/t.tflock', Body='{\"Who\": \"bob@desk\", \"ID\": \"1\"}')",
    );
    let error: InfrastructureError = refused(&backup, &target, "locked by bob@desk");
    assert!(error.to_string().contains("Nothing was changed"), "{error}");
    aws.python(
        "client('s3').delete_object(Bucket='states', Key='prod/t.tflock')\n\
         client('dynamodb').put_item(TableName='terraform-locks', Item={'LockID': {'S': 'states/prod/t'}, \
         'Info': {'S': '{\"Who\": \"eve@desk\"}'}})",
    );
    refused(&backup, &target, "locked by eve@desk");
    aws.python(
        "client('dynamodb').delete_item(TableName='terraform-locks', Key={'LockID': {'S': 'states/prod/t'}})",
    );
    let plan = terraform::plan(&backup, &target, &Quiet).unwrap();
    assert_eq!(plan.come, ["terraform_data.a"]);
    assert!(plan.go.is_empty() && !plan.is_same, "{plan:?}");
    assert_eq!(
        Some(plan.serial),
        plan.serial_in_force.map(|serial| serial + 1)
    );
    let left = terraform::apply(&backup, &plan, &target, &Quiet).unwrap();
    assert_eq!(left.changes, Vec::<String>::new(), "its plan is empty");
    let again = terraform::plan(&backup, &target, &Quiet).unwrap();
    assert!(again.is_same, "{again:?}");

    // The bucket was emptied.
    aws.python(
        "s3 = client('s3')\n\
         for it in s3.list_object_versions(Bucket='states', Prefix='prod/t')['Versions']:\n    \
         s3.delete_object(Bucket='states', Key=it['Key'], VersionId=it['VersionId'])\n\
         client('dynamodb').delete_item(TableName='terraform-locks', \
         Key={'LockID': {'S': 'states/prod/t-md5'}})",
    );
    let plan = terraform::plan(&backup, &target, &Quiet).unwrap();
    assert_eq!(
        (plan.serial_in_force, plan.come.len()),
        (None, 2),
        "{plan:?}"
    );
    let left = terraform::apply(&backup, &plan, &target, &Quiet).unwrap();
    assert_eq!(left.changes, Vec::<String>::new());
    let again = terraform::plan(&backup, &target, &Quiet).unwrap();
    assert!(again.is_same && again.lineage == lineage, "{again:?}");
}
