//! A state of Terraform, from a sealed snapshot back to where its configuration has it. Terraform itself writes it,
//! under its lock; it refuses another lineage, and so does the plan. Nothing is forced: the restored state gets a
//! serial above the one in force, and the state that was in force stays a version of its bucket.

use std::fs;

use control_plane::aws::{Aws, AwsRound};
use control_plane::terraform::{
    StateOrigin, Terraform, TerraformChanges, TerraformState, local_lock, lock_holder, with_serial,
};
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::InfrastructureError;
use crate::Progress;

#[derive(Debug, Clone, Copy)]
pub struct StateTarget<'a> {
    pub terraform: &'a Terraform,
    pub workspace: &'a str,
    /// Where the settings say that the state is.
    pub place: &'a StateOrigin,
    /// Of DynamoDB, where Terraform keeps its locks there.
    pub lock_table: Option<&'a str>,
    pub aws: &'a Aws,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatePlan {
    pub place: String,
    pub workspace: String,
    pub lineage: String,
    pub serial_of_backup: u64,
    /// Of the state in force; null where there is none.
    pub serial_in_force: Option<u64>,
    /// That the restored state gets.
    pub serial: u64,
    /// Resources that the state will know again.
    pub come: Vec<String>,
    /// Resources that it will not know any more. They stay as they are.
    pub go: Vec<String>,
    /// Nothing to do.
    pub is_same: bool,
}

/// Reads; changes nothing. Refuses a state of another lineage or another place, and while a lock is held.
pub fn plan(
    backup: &[u8],
    target: &StateTarget<'_>,
    progress: &dyn Progress,
) -> Result<StatePlan, InfrastructureError> {
    let cancelled = || progress.cancelled();
    let refused = |reason: String| Err(InfrastructureError::Refused(reason));
    let wanted = parse("the state of the snapshot", backup)?;
    progress.message("looking at the configuration and its workspace");
    let workspace = target.terraform.workspace(&cancelled)?;
    if workspace != target.workspace {
        return refused(format!(
            "the workspace of {} is {workspace}, and the settings name {}: run terraform workspace select {} there",
            target.terraform.folder.display(),
            target.workspace,
            target.workspace
        ));
    }
    check_place(target)?;
    progress.message("looking whether its lock is held");
    if let Some(holder) = lock(target, &target.aws.round(&cancelled))? {
        return refused(format!(
            "the state {} is locked by {holder}. Wait until it is done; if it is dead: terraform force-unlock ID",
            target.place
        ));
    }
    progress.message("reading the state in force");
    let in_force = target.terraform.pull(&cancelled)?;
    let live = match &in_force {
        Some(content) => Some(parse("the state in force", content)?),
        None => None,
    };
    // Where there is none, Terraform shows an empty one that nothing comes from.
    let live = live.filter(|live| !live.lineage.is_empty());
    if let Some(live) = &live
        && live.lineage != wanted.lineage
    {
        return refused(format!(
            "the state in force has the lineage {}, that of the snapshot {}: they are states of different systems",
            live.lineage, wanted.lineage
        ));
    }
    let is_same = in_force.as_ref().is_some_and(|it| same(it, backup));
    let known = live
        .as_ref()
        .map(|live| live.resources.clone())
        .unwrap_or_default();
    let serial_in_force = live.as_ref().map(|live| live.serial);
    Ok(StatePlan {
        place: target.place.to_string(),
        workspace,
        lineage: wanted.lineage,
        serial_of_backup: wanted.serial,
        serial_in_force,
        serial: serial_in_force.map_or(wanted.serial, |it| it.max(wanted.serial) + 1),
        come: wanted.resources.difference(&known).cloned().collect(),
        go: known.difference(&wanted.resources).cloned().collect(),
        is_same,
    })
}

/// Then it is read back. What is returned is what `terraform plan` would do now: nothing, where the world is as the
/// state has it.
pub fn apply(
    backup: &[u8],
    plan: &StatePlan,
    target: &StateTarget<'_>,
    progress: &dyn Progress,
) -> Result<TerraformChanges, InfrastructureError> {
    let cancelled = || progress.cancelled();
    if !plan.is_same {
        progress.message("putting the state in force");
        let raised =
            with_serial(backup, plan.serial).map_err(|reason| InfrastructureError::Document {
                name: "the state of the snapshot".to_owned(),
                reason,
            })?;
        target.terraform.push(&raised, &cancelled)?;
        let mut found = target.terraform.pull(&cancelled)?;
        // Where there was none, Terraform gives the first state a lineage of its own: later restores of this system's
        // snapshots would be refused. Only what was put there a moment ago is written over.
        let is_first = plan.serial_in_force.is_none();
        if is_first
            && found
                .as_ref()
                .is_some_and(|found| same_but_lineage(found, backup))
        {
            target.terraform.push_over(&raised, &cancelled)?;
            found = target.terraform.pull(&cancelled)?;
        }
        if !found.as_ref().is_some_and(|found| same(found, backup)) {
            let what = format!(
                "the state of {} is not the one that was put there",
                plan.place
            );
            return Err(InfrastructureError::NotTheSame(vec![what]));
        }
    }
    progress.message("planning with the restored state");
    Ok(target.terraform.plan(&cancelled)?)
}

fn parse(name: &str, content: &[u8]) -> Result<TerraformState, InfrastructureError> {
    TerraformState::parse(content).map_err(|reason| InfrastructureError::Document {
        name: name.to_owned(),
        reason,
    })
}

/// All but the serial, and which version of Terraform wrote it last.
fn same(one: &[u8], other: &[u8]) -> bool {
    same_but(&["serial", "terraform_version"], one, other)
}

fn same_but_lineage(one: &[u8], other: &[u8]) -> bool {
    same_but(&["serial", "terraform_version", "lineage"], one, other)
}

fn same_but(not_compared: &[&str], one: &[u8], other: &[u8]) -> bool {
    let plain = |content: &[u8]| -> Option<Zeroizing<String>> {
        let mut value: Value = serde_json::from_slice(content).ok()?;
        let fields = value.as_object_mut()?;
        fields.retain(|name, _| !not_compared.contains(&name.as_str()));
        // An empty list is written, or left out.
        fields.retain(|_, field| {
            !field.is_null() && field.as_array().is_none_or(|it| !it.is_empty())
        });
        let text = Zeroizing::new(value.to_string());
        control_plane::kubernetes::wipe(&mut value);
        Some(text)
    };
    plain(one).is_some_and(|one| plain(other) == Some(one))
}

/// The configuration's backend is where the settings say.
fn check_place(target: &StateTarget<'_>) -> Result<(), InfrastructureError> {
    let folder = &target.terraform.folder;
    let backend = target.terraform.backend().map_err(|error| {
        let path = folder.join(".terraform/terraform.tfstate");
        InfrastructureError::Failed {
            what: format!("cannot read {}", path.display()),
            said: error.to_string(),
        }
    })?;
    let text = |field: &str| {
        let config = backend.as_ref().map(|backend| &backend["config"][field]);
        config
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let kind = backend
        .as_ref()
        .map_or("local", |it| it["type"].as_str().unwrap_or("local"));
    let there = match kind {
        "s3" => {
            let prefix = match text("workspace_key_prefix") {
                empty if empty.is_empty() => "env:".to_owned(),
                prefix => prefix,
            };
            let key =
                control_plane::terraform::key_of_workspace(&text("key"), target.workspace, &prefix);
            format!("s3://{}/{key}", text("bucket"))
        }
        "local" => {
            let path = match (text("path"), target.workspace) {
                (path, _) if !path.is_empty() => folder.join(path),
                (_, "default") => folder.join("terraform.tfstate"),
                (_, name) => folder
                    .join("terraform.tfstate.d")
                    .join(name)
                    .join("terraform.tfstate"),
            };
            path.display().to_string()
        }
        other => format!("a backend of type {other}"),
    };
    match there == target.place.to_string() {
        true => Ok(()),
        false => Err(InfrastructureError::Refused(format!(
            "the configuration in {} has its state at {there}, and the settings name {}: it is the state of another \
             system. Look at [terraform] bucket, key, workspace and folder, or run terraform init there",
            folder.display(),
            target.place
        ))),
    }
}

/// Who holds it, wherever Terraform keeps it.
fn lock(
    target: &StateTarget<'_>,
    round: &AwsRound<'_>,
) -> Result<Option<String>, InfrastructureError> {
    match target.place {
        StateOrigin::File(path) => Ok(fs::read(local_lock(path)).ok().map(|it| lock_holder(&it))),
        StateOrigin::Bucket { bucket, key } => {
            match round.object(bucket, &format!("{key}.tflock"), None) {
                Ok(info) => return Ok(Some(lock_holder(&info))),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
            let Some(table) = target.lock_table else {
                return Ok(None);
            };
            let id = json!({"LockID": {"S": format!("{bucket}/{key}")}}).to_string();
            let item = round.json(&[
                "dynamodb",
                "get-item",
                "--consistent-read",
                "--table-name",
                table,
                "--key",
                &id,
            ])?;
            let info = item["Item"]["Info"]["S"].as_str();
            Ok(info.map(|info| lock_holder(info.as_bytes())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_the_same_whatever_its_serial() {
        let one = br#"{"version": 4, "serial": 1, "lineage": "l", "resources": [{"a": 1}], "check_results": null}"#;
        let two = br#"{"version": 4, "serial": 9, "lineage": "l", "outputs": [], "resources": [{"a": 1}]}"#;
        assert!(same(one, two));
        let other = br#"{"version": 4, "serial": 1, "lineage": "l", "resources": [{"a": 2}]}"#;
        assert!(!same(one, other) && !same(one, b"x") && !same(b"x", b"x"));
    }
}
