//! A stack of CloudFormation as it was, by a change set: the service says what it would do, a person decides, and only
//! then it is carried out.

use std::time::{Duration, Instant};

use control_plane::aws::{Aws, AwsRound};
use control_plane::git::Files;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{InfrastructureError, fields, texts};
use crate::Progress;

const CALLS_MAX: u32 = 10_000;
/// Between two questions for how far the service is.
const PAUSE: Duration = Duration::from_secs(3);
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// A database alone takes half an hour.
const EXECUTION_TIMEOUT: Duration = Duration::from_secs(3 * 3600);
/// More than this takes a bucket.
const TEMPLATE_BYTES_MAX: usize = 51_200;
/// In the place of a value that a template hides.
const HIDDEN: &str = "****";

/// What the service would do, as a change set that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StackProposal {
    pub stack: String,
    pub change_set: String,
    /// The stack is not there: it is made.
    pub is_new: bool,
    /// `Modify Database (AWS::RDS::DBInstance), replaced`
    pub changes: Vec<String>,
}

/// Of a stack: its template, and what it was made with.
#[derive(Debug)]
struct StackDocuments<'a> {
    template: &'a [u8],
    stack: Value,
}

/// Makes the change set, which changes nothing yet. None: the stack is as in the snapshot.
pub fn propose(
    documents: &Files,
    stack: &str,
    aws: &Aws,
    progress: &dyn Progress,
) -> Result<Option<StackProposal>, InfrastructureError> {
    let wanted = documents_of(documents, stack)?;
    let cancelled = || progress.cancelled();
    let round = aws.round_of(CALLS_MAX, &cancelled);
    let live = describe(&round, stack)?;
    // One that was proposed and never made has this state.
    let live = live.filter(|live| live["StackStatus"] != "REVIEW_IN_PROGRESS");
    let is_new = live.is_none();
    let parameters = parameters(stack, &wanted.stack, live.as_ref())?;
    let change_set = format!("bre-restore-{}", jiff::Timestamp::now().as_microsecond());
    let tags: Vec<Value> = fields(&wanted.stack, "tags")
        .iter()
        .map(|(key, value)| json!({"Key": key, "Value": value}))
        .collect();
    let (parameters, tags) = (json!(parameters).to_string(), json!(tags).to_string());
    let mut arguments = vec![
        "cloudformation",
        "create-change-set",
        "--stack-name",
        stack,
        "--change-set-name",
        &change_set,
        "--change-set-type",
        if is_new { "CREATE" } else { "UPDATE" },
        "--template-body",
        "file:///dev/stdin",
        "--parameters",
        &parameters,
        "--tags",
        &tags,
    ];
    let capabilities = texts(&wanted.stack["capabilities"]);
    if !capabilities.is_empty() {
        arguments.push("--capabilities");
        arguments.extend(capabilities.iter().map(String::as_str));
    }
    let topics = texts(&wanted.stack["notification_arns"]);
    if !topics.is_empty() {
        arguments.push("--notification-arns");
        arguments.extend(topics.iter().map(String::as_str));
    }
    if let Some(role) = wanted.stack["role_arn"].as_str() {
        arguments.extend(["--role-arn", role]);
    }
    progress.message(&format!(
        "asking what a restore of stack {stack} would change"
    ));
    round.json_with(&arguments, wanted.template)?;
    let proposal = |changes| StackProposal {
        stack: stack.to_owned(),
        change_set: change_set.clone(),
        is_new,
        changes,
    };
    let described = wait_for_proposal(&round, stack, &change_set, progress)?;
    match described["Status"].as_str().unwrap_or_default() {
        "CREATE_COMPLETE" => {
            let changes = described["Changes"].as_array().into_iter().flatten();
            let changes: Vec<String> = changes.map(change_text).collect();
            Ok(Some(proposal(changes)))
        }
        status => {
            discard(&proposal(Vec::new()), aws, progress)?;
            let reason = described["StatusReason"]
                .as_str()
                .unwrap_or(status)
                .to_owned();
            let is_same = reason.contains("didn't contain changes")
                || reason.contains("No updates are to be performed");
            match is_same {
                true => Ok(None),
                false => Err(InfrastructureError::Failed {
                    what: format!("CloudFormation makes no change set for stack {stack}"),
                    said: reason,
                }),
            }
        }
    }
}

/// Carries it out, waits for its end, and reads the stack back.
pub fn execute(
    documents: &Files,
    proposal: &StackProposal,
    aws: &Aws,
    progress: &dyn Progress,
) -> Result<(), InfrastructureError> {
    let cancelled = || progress.cancelled();
    let round = aws.round_of(CALLS_MAX, &cancelled);
    let stack = &proposal.stack;
    let execute = [
        "cloudformation",
        "execute-change-set",
        "--stack-name",
        stack,
        "--change-set-name",
        &proposal.change_set,
    ];
    round.json(&execute).map_err(InfrastructureError::Apply)?;
    let began = Instant::now();
    let live = loop {
        let live = describe(&round, stack)?.unwrap_or_default();
        let status = live["StackStatus"].as_str().unwrap_or_default().to_owned();
        progress.message(&format!("stack {stack}: {status}"));
        if !status.ends_with("_IN_PROGRESS") {
            break live;
        }
        pause(began, EXECUTION_TIMEOUT, stack, progress)?;
    };
    let status = live["StackStatus"].as_str().unwrap_or("gone");
    if !matches!(status, "CREATE_COMPLETE" | "UPDATE_COMPLETE") {
        let reason = live["StackStatusReason"].as_str().unwrap_or_default();
        return Err(InfrastructureError::Failed {
            what: format!("stack {stack} ended as {status}"),
            said: format!(
                "{reason}; aws cloudformation describe-stack-events --stack-name {stack} says which resource"
            ),
        });
    }
    let wanted = documents_of(documents, stack)?;
    let mut differ = Vec::new();
    let live_parameters = pairs(&live["Parameters"], "ParameterKey", "ParameterValue");
    for (name, value) in fields(&wanted.stack, "parameters") {
        if live_parameters.get(&name) != Some(&value) {
            differ.push(format!("parameter {name} of stack {stack}"));
        }
    }
    let answer = round.json(&["cloudformation", "get-template", "--stack-name", stack])?;
    if !same_template(&answer["TemplateBody"], wanted.template) {
        differ.push(format!("the template of stack {stack}"));
    }
    match differ.is_empty() {
        true => Ok(()),
        false => Err(InfrastructureError::NotTheSame(differ)),
    }
}

/// It was not wanted: nothing of it stays.
pub fn discard(
    proposal: &StackProposal,
    aws: &Aws,
    progress: &dyn Progress,
) -> Result<(), InfrastructureError> {
    let cancelled = || progress.cancelled();
    let round = aws.round_of(CALLS_MAX, &cancelled);
    let stack = &proposal.stack;
    let delete = [
        "cloudformation",
        "delete-change-set",
        "--stack-name",
        stack,
        "--change-set-name",
        &proposal.change_set,
    ];
    round.json(&delete)?;
    if !proposal.is_new {
        return Ok(());
    }
    // The empty stack that a change set of a new one leaves.
    let left = describe(&round, stack)?;
    if left.is_some_and(|left| left["StackStatus"] == "REVIEW_IN_PROGRESS") {
        round.json(&["cloudformation", "delete-stack", "--stack-name", stack])?;
    }
    Ok(())
}

/// Names of stacks that a snapshot holds.
#[must_use]
pub fn stacks_of(documents: &Files) -> Vec<String> {
    let name = |document: &String| Some(document.strip_suffix("/stack.json")?.to_owned());
    documents.keys().filter_map(name).collect()
}

fn documents_of<'a>(
    documents: &'a Files,
    stack: &str,
) -> Result<StackDocuments<'a>, InfrastructureError> {
    let odd = |name: String, reason: &str| InfrastructureError::Document {
        name,
        reason: reason.to_owned(),
    };
    let Some(content) = documents.get(&format!("{stack}/stack.json")) else {
        return Err(InfrastructureError::Refused(format!(
            "the snapshot has no stack {stack}; it has: {}",
            stacks_of(documents).join(", ")
        )));
    };
    let template = ["json", "yaml"].map(|ending| format!("{stack}/template.{ending}"));
    let template = template.iter().find_map(|name| documents.get(name));
    let template = template.ok_or_else(|| odd(format!("{stack}/template"), "it is missing"))?;
    if template.len() > TEMPLATE_BYTES_MAX {
        return Err(odd(
            format!("{stack}/template"),
            "CloudFormation takes more than 51,200 bytes from a bucket only: put it there with bre snapshot restore \
             cloudformation --to DIR and aws s3 cp, and name it with --template-url",
        ));
    }
    let parsed = serde_json::from_slice(content);
    Ok(StackDocuments {
        template,
        stack: parsed.map_err(|_| odd(format!("{stack}/stack.json"), "it is no JSON"))?,
    })
}

fn describe(round: &AwsRound<'_>, stack: &str) -> Result<Option<Value>, InfrastructureError> {
    match round.json(&["cloudformation", "describe-stacks", "--stack-name", stack]) {
        Ok(answer) => Ok(answer["Stacks"].get(0).cloned()),
        // As the service words it: a validation error.
        Err(error) if error.to_string().contains("does not exist") => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn wait_for_proposal(
    round: &AwsRound<'_>,
    stack: &str,
    change_set: &str,
    progress: &dyn Progress,
) -> Result<Value, InfrastructureError> {
    let began = Instant::now();
    let arguments = [
        "cloudformation",
        "describe-change-set",
        "--stack-name",
        stack,
        "--change-set-name",
        change_set,
    ];
    loop {
        let described = round.json(&arguments)?;
        let status = described["Status"].as_str().unwrap_or_default();
        if !matches!(status, "CREATE_PENDING" | "CREATE_IN_PROGRESS") {
            return Ok(described);
        }
        pause(began, PROPOSAL_TIMEOUT, stack, progress)?;
    }
}

/// The service does not tell when it is done: it is asked again.
fn pause(
    began: Instant,
    timeout: Duration,
    stack: &str,
    progress: &dyn Progress,
) -> Result<(), InfrastructureError> {
    let failed = |said: String| InfrastructureError::Failed {
        what: format!("stack {stack}"),
        said,
    };
    if began.elapsed() >= timeout {
        return Err(failed(format!(
            "not done within {} s; CloudFormation continues: aws cloudformation describe-stacks",
            timeout.as_secs()
        )));
    }
    let pause_began = Instant::now();
    while pause_began.elapsed() < PAUSE {
        if progress.cancelled() {
            return Err(failed(
                "interrupted; CloudFormation continues with what it was given".to_owned(),
            ));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Of the snapshot; one that a template hides stays what the stack has.
fn parameters(
    stack: &str,
    wanted: &Value,
    live: Option<&Value>,
) -> Result<Vec<Value>, InfrastructureError> {
    let known = live.map(|live| pairs(&live["Parameters"], "ParameterKey", "ParameterValue"));
    let mut parameters = Vec::new();
    let mut hidden = Vec::new();
    for (name, value) in fields(wanted, "parameters") {
        let is_known = known
            .as_ref()
            .is_some_and(|known| known.contains_key(&name));
        if value != HIDDEN {
            parameters.push(json!({"ParameterKey": name, "ParameterValue": value}));
        } else if is_known {
            parameters.push(json!({"ParameterKey": name, "UsePreviousValue": true}));
        } else {
            hidden.push(name);
        }
    }
    match hidden.is_empty() {
        true => Ok(parameters),
        false => Err(InfrastructureError::Refused(format!(
            "stack {stack} is gone, and with it the values of {}, which its template hides (NoEcho). Restore the \
             snapshot into a folder (--to DIR), and make the stack with them by hand",
            hidden.join(", ")
        ))),
    }
}

fn change_text(change: &Value) -> String {
    let change = &change["ResourceChange"];
    let text = |field: &str| change[field].as_str().unwrap_or("?").to_owned();
    let replaced = match change["Replacement"].as_str() {
        Some("True") => ", replaced",
        Some("Conditional") => ", perhaps replaced",
        _ => "",
    };
    format!(
        "{} {} ({}){replaced}",
        text("Action"),
        text("LogicalResourceId"),
        text("ResourceType")
    )
}

fn same_template(live: &Value, wanted: &[u8]) -> bool {
    let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
    let wanted = String::from_utf8_lossy(wanted);
    match live {
        Value::String(text) => {
            let same_text = text.trim_end() == wanted.trim_end();
            same_text || parsed(text).is_some_and(|live| parsed(&wanted) == Some(live))
        }
        value => parsed(&wanted).as_ref() == Some(value),
    }
}

fn pairs(list: &Value, key: &str, value: &str) -> Map<String, Value> {
    let items = list.as_array().into_iter().flatten();
    let pair = |it: &Value| Some((it[key].as_str()?.to_owned(), it[value].clone()));
    items.filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_value_stays_what_it_is_or_is_asked_for() {
        let wanted = json!({"parameters": {"Name": "a", "Password": "****"}});
        let live = json!({"Parameters": [{"ParameterKey": "Password", "ParameterValue": "****"}]});
        let made = parameters("db", &wanted, Some(&live)).unwrap();
        let previous = json!({"ParameterKey": "Password", "UsePreviousValue": true});
        assert!(made.contains(&previous), "{made:?}");
        let error = parameters("db", &wanted, None).unwrap_err();
        assert!(
            error.is_refusal() && error.to_string().contains("Password"),
            "{error}"
        );
    }

    #[test]
    fn a_change_names_what_is_replaced_and_templates_compare_by_meaning() {
        let change = json!({"ResourceChange": {"Action": "Modify", "LogicalResourceId": "Database",
            "ResourceType": "AWS::RDS::DBInstance", "Replacement": "True"}});
        assert_eq!(
            change_text(&change),
            "Modify Database (AWS::RDS::DBInstance), replaced"
        );
        assert!(same_template(&json!("{\"a\": 1}"), b"{\n \"a\": 1}\n"));
        assert!(same_template(&json!({"a": 1}), b"{\"a\":1}"));
        assert!(same_template(&json!("a: 1\n"), b"a: 1"));
        assert!(!same_template(&json!("a: 2"), b"a: 1"));
    }
}
