//! Roles, policies, groups and users, from the documents of a commit: backup, account and git side by side. Each
//! difference becomes one call of the client, which an operator can run by hand as it is shown.

use std::fmt;

use control_plane::aws::Aws;
use control_plane::aws::iam::{IamKind, IamName, IamObjects, differences, read, recanonical};
use control_plane::git::Files;
use serde::Serialize;
use serde_json::{Value, json};

use super::{InfrastructureError, fields, texts};
use crate::Progress;

const CALLS_MAX: u32 = 2000;
/// Amazon keeps so many of a policy.
const POLICY_VERSIONS_MAX: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IamAction {
    Create,
    Change,
    /// Nothing to do.
    Same,
}

/// What the newest commit has, beside the backup and the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GitState {
    Absent,
    AsInTheBackup,
    AsInTheAccount,
    /// A third version.
    Different,
}

impl fmt::Display for GitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "not in git",
            Self::AsInTheBackup => "git as in the backup",
            Self::AsInTheAccount => "git as in the account",
            Self::Different => "git different from both",
        })
    }
}

/// One call of the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IamCall {
    pub arguments: Vec<String>,
    /// What the argument `file:///dev/stdin` gives.
    pub input: Option<Value>,
}

impl fmt::Display for IamCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "aws {}", self.arguments.join(" "))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IamStep {
    pub name: String,
    pub action: IamAction,
    /// From the account to the backup, in words.
    pub differences: Vec<String>,
    pub calls: Vec<IamCall>,
    pub git: GitState,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IamPlan {
    /// In the order in which they are applied: policies before those that they are attached to.
    pub steps: Vec<IamStep>,
    /// In the account and not in the backup: left alone.
    pub only_live: Vec<String>,
}

impl IamPlan {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes().next().is_none()
    }

    pub fn changes(&self) -> impl Iterator<Item = &IamStep> {
        let steps = self.steps.iter();
        steps.filter(|step| step.action != IamAction::Same)
    }
}

/// `names`: those to be restored, as `role api`; all where none is named. Reads; changes nothing.
pub fn plan(
    backup: &Files,
    git: Option<&Files>,
    names: &[IamName],
    aws: &Aws,
    progress: &dyn Progress,
) -> Result<IamPlan, InfrastructureError> {
    let mut wanted = objects(backup)?;
    if let Some(name) = names.iter().find(|name| !wanted.contains_key(*name)) {
        return Err(InfrastructureError::Refused(format!(
            "the backup has no {name}"
        )));
    }
    let git = git.map(objects).transpose()?.unwrap_or_default();
    progress.message("reading users, groups, roles and policies");
    let cancelled = || progress.cancelled();
    let round = aws.round_of(CALLS_MAX, &cancelled);
    let identity = round.json(&["sts", "get-caller-identity"])?;
    check_account(&wanted, identity["Account"].as_str().unwrap_or_default())?;
    let live = read(&round)?;
    let only_live = live.keys().filter(|name| !wanted.contains_key(*name));
    let only_live = only_live.map(ToString::to_string).collect();
    wanted.retain(|name, _| names.is_empty() || names.contains(name));
    let mut steps = Vec::new();
    for (name, wanted) in &wanted {
        let live = live.get(name);
        let calls = calls(name, wanted, live)?;
        let git = match git.get(name) {
            None => GitState::Absent,
            Some(git) if git == wanted => GitState::AsInTheBackup,
            Some(git) if Some(git) == live => GitState::AsInTheAccount,
            Some(_) => GitState::Different,
        };
        steps.push(IamStep {
            name: name.to_string(),
            action: match live {
                None => IamAction::Create,
                Some(_) if calls.is_empty() => IamAction::Same,
                Some(_) => IamAction::Change,
            },
            differences: match live {
                None => vec![format!("{name} added")],
                Some(_) if calls.is_empty() => Vec::new(),
                Some(live) => differences(name, live, wanted),
            },
            calls,
            git,
        });
    }
    Ok(IamPlan { steps, only_live })
}

/// In the plan's order, then read back. Interrupted anywhere it is planned and applied again. What is returned is the
/// second plan: empty.
pub fn apply(
    backup: &Files,
    first: &IamPlan,
    names: &[IamName],
    aws: &Aws,
    progress: &dyn Progress,
) -> Result<IamPlan, InfrastructureError> {
    let cancelled = || progress.cancelled();
    let round = aws.round_of(CALLS_MAX, &cancelled);
    for step in first.changes() {
        progress.message(&format!("restoring {}", step.name));
        for call in &step.calls {
            if call
                .arguments
                .iter()
                .any(|it| it == "create-policy-version")
            {
                make_room(&round, call)?;
            }
            let arguments: Vec<&str> = call.arguments.iter().map(String::as_str).collect();
            let input = call.input.as_ref().map(Value::to_string);
            let input = input.unwrap_or_default();
            match round.json_with(&arguments, input.as_bytes()) {
                // IamCalls by an earlier try.
                Err(error) if error.code() == "EntityAlreadyExists" && is_profile(call) => {}
                other => drop(other.map_err(InfrastructureError::Apply)?),
            }
        }
    }
    let last = plan(backup, None, names, aws, progress)?;
    let left: Vec<String> = last
        .changes()
        .flat_map(|it| it.differences.clone())
        .collect();
    match left.is_empty() {
        true => Ok(last),
        false => Err(InfrastructureError::NotTheSame(left)),
    }
}

fn is_profile(call: &IamCall) -> bool {
    call.arguments
        .iter()
        .any(|it| it == "create-instance-profile")
}

/// The oldest version that is not in force goes, where there are as many as Amazon keeps.
fn make_room(
    round: &control_plane::aws::AwsRound<'_>,
    call: &IamCall,
) -> Result<(), InfrastructureError> {
    let arn = call.arguments.iter().skip_while(|it| *it != "--policy-arn");
    let Some(arn) = arn.into_iter().nth(1) else {
        return Ok(());
    };
    let listing = ["iam", "list-policy-versions", "--policy-arn", arn];
    let listed = round.json(&listing).map_err(InfrastructureError::Apply)?;
    let versions = listed["Versions"].as_array().cloned().unwrap_or_default();
    if versions.len() < POLICY_VERSIONS_MAX {
        return Ok(());
    }
    let number = |version: &&Value| -> u64 {
        let id = version["VersionId"].as_str().unwrap_or_default();
        id.trim_start_matches('v').parse().unwrap_or(u64::MAX)
    };
    let idle = versions.iter().filter(|it| it["IsDefaultVersion"] != true);
    let Some(oldest) = idle
        .min_by_key(number)
        .and_then(|it| it["VersionId"].as_str())
    else {
        return Ok(());
    };
    let delete = [
        "iam",
        "delete-policy-version",
        "--policy-arn",
        arn,
        "--version-id",
        oldest,
    ];
    round.json(&delete).map_err(InfrastructureError::Apply)?;
    Ok(())
}

fn objects(documents: &Files) -> Result<IamObjects, InfrastructureError> {
    let mut objects = IamObjects::new();
    for (document, content) in documents {
        let mut parts = document.splitn(3, '/');
        let (folder, kind, name) = (parts.next(), parts.next(), parts.next());
        if folder != Some("iam") {
            continue;
        }
        let odd = |reason: &str| InfrastructureError::Document {
            name: document.clone(),
            reason: reason.to_owned(),
        };
        let kind = kind.and_then(IamKind::of_word);
        let kind = kind.ok_or_else(|| odd("it is of no kind that is known here"))?;
        let name = name.and_then(|name| name.strip_suffix(".json"));
        let name = name.ok_or_else(|| odd("it has no name"))?.to_owned();
        let value = serde_json::from_slice(content).map_err(|_| odd("it is no JSON"))?;
        objects.insert(IamName { kind, name }, recanonical(value));
    }
    Ok(objects)
}

/// An ARN of the backup names its account.
fn check_account(wanted: &IamObjects, account: &str) -> Result<(), InfrastructureError> {
    for (name, object) in wanted {
        // arn:PARTITION:iam::ACCOUNT:…
        let of = object["arn"].as_str().and_then(|arn| arn.split(':').nth(4));
        if let Some(of) = of.filter(|of| *of != account) {
            return Err(InfrastructureError::Refused(format!(
                "{name} is of account {of}, and the credentials are of account {account}. Name another profile: [aws] \
                 profile"
            )));
        }
    }
    Ok(())
}

fn calls(
    name: &IamName,
    wanted: &Value,
    live: Option<&Value>,
) -> Result<Vec<IamCall>, InfrastructureError> {
    let mut made = IamCalls {
        word: name.kind.word(),
        name: &name.name,
        calls: Vec::new(),
    };
    if let Some(live) = live.filter(|live| live["path"] != wanted["path"]) {
        return Err(InfrastructureError::Refused(format!(
            "the path of {name} is {} in the account and {} in the backup, and Amazon changes no path: delete it there \
             first",
            live["path"], wanted["path"]
        )));
    }
    match name.kind {
        IamKind::Policy => made.policy(wanted, live),
        IamKind::Role | IamKind::Group | IamKind::User => made.principal(name.kind, wanted, live),
    }
    Ok(made.calls)
}

struct IamCalls<'a> {
    word: &'static str,
    name: &'a str,
    calls: Vec<IamCall>,
}

const STDIN: &str = "file:///dev/stdin";

impl IamCalls<'_> {
    fn add(&mut self, arguments: &[&str], input: Option<&Value>) {
        let arguments = ["iam"].iter().chain(arguments);
        self.calls.push(IamCall {
            arguments: arguments.map(|it| (*it).to_owned()).collect(),
            input: input.cloned(),
        });
    }

    fn policy(&mut self, wanted: &Value, live: Option<&Value>) {
        let document = &wanted["document"];
        match live {
            None => {
                let path = wanted["path"].as_str().unwrap_or("/");
                let mut arguments =
                    vec!["create-policy", "--policy-name", self.name, "--path", path];
                if let Some(description) = wanted["description"].as_str() {
                    arguments.extend(["--description", description]);
                }
                arguments.extend(["--policy-document", STDIN]);
                self.add(&arguments, Some(document));
            }
            Some(live) if live["document"] != *document => {
                let arn = live["arn"].as_str().unwrap_or_default();
                let call = [
                    "create-policy-version",
                    "--policy-arn",
                    arn,
                    "--set-as-default",
                ];
                let call = [&call[..], &["--policy-document", STDIN]].concat();
                self.add(&call, Some(document));
            }
            Some(_) => {}
        }
    }

    fn principal(&mut self, kind: IamKind, wanted: &Value, live: Option<&Value>) {
        let own = format!("--{}-name", self.word);
        let nothing = json!({});
        let is_new = live.is_none();
        let live = live.unwrap_or(&nothing);
        if is_new {
            let create = format!("create-{}", self.word);
            let path = wanted["path"].as_str().unwrap_or("/");
            let mut arguments = vec![create.as_str(), &own, self.name, "--path", path];
            let trust = &wanted["trust"];
            if kind == IamKind::Role {
                arguments.extend(["--assume-role-policy-document", STDIN]);
            }
            self.add(&arguments, (kind == IamKind::Role).then_some(trust));
        } else if kind == IamKind::Role && live["trust"] != wanted["trust"] {
            let call = [
                "update-assume-role-policy",
                &own,
                self.name,
                "--policy-document",
                STDIN,
            ];
            self.add(&call, Some(&wanted["trust"]));
        }
        self.boundary(&own, wanted, live);
        self.inline_policies(&own, wanted, live);
        for (added, removed, field, argument) in [
            ("attach", "detach", "attached_policies", "--policy-arn"),
            (
                "add",
                "remove",
                "instance_profiles",
                "--instance-profile-name",
            ),
            ("add", "remove", "groups", "--group-name"),
        ] {
            let (wanted, live) = (texts(&wanted[field]), texts(&live[field]));
            let call = |how: &str| match field {
                "attached_policies" => format!("{how}-{}-policy", self.word),
                "groups" if how == "add" => "add-user-to-group".to_owned(),
                "groups" => "remove-user-from-group".to_owned(),
                _ if how == "add" => "add-role-to-instance-profile".to_owned(),
                _ => "remove-role-from-instance-profile".to_owned(),
            };
            let (add, remove) = (call(added), call(removed));
            for it in wanted.iter().filter(|it| !live.contains(it)) {
                if field == "instance_profiles" {
                    self.add(&["create-instance-profile", argument, it], None);
                }
                self.add(&[&add, &own, self.name, argument, it], None);
            }
            for it in live.iter().filter(|it| !wanted.contains(it)) {
                self.add(&[&remove, &own, self.name, argument, it], None);
            }
        }
        if kind != IamKind::Group {
            self.tags(&own, wanted, live);
        }
    }

    fn boundary(&mut self, own: &str, wanted: &Value, live: &Value) {
        let field = "permissions_boundary";
        if wanted[field] == live[field] {
            return;
        }
        match wanted[field].as_str() {
            Some(arn) => {
                let put = format!("put-{}-permissions-boundary", self.word);
                self.add(&[&put, own, self.name, "--permissions-boundary", arn], None);
            }
            None => {
                let delete = format!("delete-{}-permissions-boundary", self.word);
                self.add(&[&delete, own, self.name], None);
            }
        }
    }

    fn inline_policies(&mut self, own: &str, wanted: &Value, live: &Value) {
        let (wanted, live) = (
            fields(wanted, "inline_policies"),
            fields(live, "inline_policies"),
        );
        let (put, delete) = (
            format!("put-{}-policy", self.word),
            format!("delete-{}-policy", self.word),
        );
        for (policy, document) in &wanted {
            if live.get(policy) != Some(document) {
                let call = [put.as_str(), own, self.name, "--policy-name", policy];
                let call = [&call[..], &["--policy-document", STDIN]].concat();
                self.add(&call, Some(document));
            }
        }
        for policy in live.keys().filter(|policy| !wanted.contains_key(*policy)) {
            self.add(&[&delete, own, self.name, "--policy-name", policy], None);
        }
    }

    fn tags(&mut self, own: &str, wanted: &Value, live: &Value) {
        let (wanted, live) = (fields(wanted, "tags"), fields(live, "tags"));
        let new = wanted
            .iter()
            .filter(|(key, value)| live.get(*key) != Some(value));
        let new: Vec<Value> = new
            .map(|(key, value)| json!({"Key": key, "Value": value}))
            .collect();
        if !new.is_empty() {
            let (tag, tags) = (format!("tag-{}", self.word), json!(new).to_string());
            self.add(&[&tag, own, self.name, "--tags", &tags], None);
        }
        let gone: Vec<&str> = live
            .keys()
            .filter(|key| !wanted.contains_key(*key))
            .map(String::as_str)
            .collect();
        if !gone.is_empty() {
            let untag = format!("untag-{}", self.word);
            let call = [&[&untag, own, self.name, "--tag-keys"][..], &gone].concat();
            self.add(&call, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_difference_is_one_call() {
        let name = IamName {
            kind: IamKind::Role,
            name: "api".to_owned(),
        };
        let wanted = json!({"path": "/", "trust": {"a": 1}, "inline_policies": {"read": {"x": 1}},
            "attached_policies": ["arn:p"], "instance_profiles": [], "tags": {"team": "desk"}});
        let check = |change: &dyn Fn(&mut Value), expected: &[&str]| {
            let mut live = wanted.clone();
            change(&mut live);
            let made = calls(&name, &wanted, Some(&live)).unwrap();
            let made: Vec<String> = made.iter().map(ToString::to_string).collect();
            assert_eq!(made, expected);
        };
        check(&|_| {}, &[]);
        check(
            &|live| live["trust"] = json!({}),
            &[
                "aws iam update-assume-role-policy --role-name api --policy-document file:///dev/stdin",
            ],
        );
        check(
            &|live| live["attached_policies"] = json!(["arn:q"]),
            &[
                "aws iam attach-role-policy --role-name api --policy-arn arn:p",
                "aws iam detach-role-policy --role-name api --policy-arn arn:q",
            ],
        );
        check(
            &|live| live["inline_policies"] = json!({"read": {"x": 2}, "write": {}}),
            &[
                "aws iam put-role-policy --role-name api --policy-name read --policy-document file:///dev/stdin",
                "aws iam delete-role-policy --role-name api --policy-name write",
            ],
        );
        check(
            &|live| live["tags"] = json!({"team": "x", "old": "y"}),
            &[
                "aws iam tag-role --role-name api --tags [{\"Key\":\"team\",\"Value\":\"desk\"}]",
                "aws iam untag-role --role-name api --tag-keys old",
            ],
        );
        let mut moved = wanted.clone();
        moved["path"] = json!("/x/");
        let error = calls(&name, &wanted, Some(&moved)).unwrap_err();
        assert!(error.is_refusal(), "{error}");
        assert_eq!(calls(&name, &wanted, None).unwrap().len(), 4);
    }

    #[test]
    fn another_account_is_refused() {
        let name = IamName {
            kind: IamKind::Policy,
            name: "a".to_owned(),
        };
        let wanted =
            IamObjects::from([(name, json!({"arn": "arn:aws:iam::111111111111:policy/a"}))]);
        assert!(check_account(&wanted, "111111111111").is_ok());
        let error = check_account(&wanted, "222222222222")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("111111111111") && error.contains("[aws] profile"),
            "{error}"
        );
    }
}
