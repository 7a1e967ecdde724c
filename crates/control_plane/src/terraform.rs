//! Terraform's state, and the client in a folder that holds a configuration. The folder was initialised by those who
//! own it: its backend says where the state is.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::aws::pass_credentials;
use crate::call::{Call, ClientError, client};
use crate::kubernetes::wipe;

/// A state of ten thousand resources is a few dozen MiB.
pub const STATE_BYTES_MAX: u64 = 256 << 20;
const PASSED: [&str; 4] = [
    "TF_CLI_CONFIG_FILE",
    "TF_DATA_DIR",
    "TF_PLUGIN_CACHE_DIR",
    "TF_WORKSPACE",
];

/// Where a state is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateOrigin {
    Bucket { bucket: String, key: String },
    File(PathBuf),
}

impl std::fmt::Display for StateOrigin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bucket { bucket, key } => write!(f, "s3://{bucket}/{key}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What a state says of itself, without a value of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TerraformState {
    pub serial: u64,
    /// The same for all states that come from one another.
    pub lineage: String,
    pub terraform_version: String,
    /// `module.shop.aws_db_instance.main["a"]`
    pub resources: BTreeSet<String>,
}

impl TerraformState {
    /// Refuses what is no state, and a form that is not known, in words without a value.
    pub fn parse(content: &[u8]) -> Result<Self, String> {
        let mut value: Value = serde_json::from_slice(content)
            .map_err(|error| format!("line {} is no JSON", error.line()))?;
        let state = Self::of(&value);
        wipe(&mut value);
        state
    }

    fn of(value: &Value) -> Result<Self, String> {
        match value["version"].as_u64() {
            Some(4) => {}
            Some(other) => return Err(format!("version {other} of a state; 4 is read here")),
            None => return Err("it is no state of Terraform".to_owned()),
        }
        let serial = value["serial"].as_u64();
        let lineage = value["lineage"].as_str().unwrap_or_default();
        let mut resources = BTreeSet::new();
        for resource in value["resources"].as_array().into_iter().flatten() {
            let text = |name: &str| resource[name].as_str().unwrap_or_default();
            let mut address = String::new();
            if !text("module").is_empty() {
                address.push_str(&format!("{}.", text("module")));
            }
            if text("mode") == "data" {
                address.push_str("data.");
            }
            address.push_str(&format!("{}.{}", text("type"), text("name")));
            for instance in resource["instances"].as_array().into_iter().flatten() {
                resources.insert(match &instance["index_key"] {
                    Value::Null => address.clone(),
                    key => format!("{address}[{key}]"),
                });
            }
        }
        Ok(Self {
            serial: serial.ok_or("it has no serial")?,
            lineage: lineage.to_owned(),
            terraform_version: value["terraform_version"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            resources,
        })
    }
}

/// The same state under another serial.
pub fn with_serial(content: &[u8], serial: u64) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut value: Value = serde_json::from_slice(content)
        .map_err(|error| format!("line {} is no JSON", error.line()))?;
    value["serial"] = serial.into();
    let bytes = serde_json::to_vec_pretty(&value);
    wipe(&mut value);
    bytes.map(Zeroizing::new).map_err(|error| error.to_string())
}

/// What `terraform plan` would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TerraformChanges {
    /// `create aws_db_instance.main`
    pub changes: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Terraform {
    /// A name to be found on the PATH, or a path.
    pub program: PathBuf,
    /// Holds the configuration; `terraform init` was run there.
    pub folder: PathBuf,
    pub timeout: Duration,
}

impl Terraform {
    #[must_use]
    pub fn new(program: PathBuf, folder: PathBuf) -> Self {
        Self {
            program,
            folder,
            // A plan asks for every resource.
            timeout: Duration::from_secs(30 * 60),
        }
    }

    pub fn workspace(&self, cancelled: &dyn Fn() -> bool) -> Result<String, ClientError> {
        let shown = self
            .call(&["workspace", "show"], b"", cancelled)
            .output(4096)?;
        Ok(String::from_utf8_lossy(&shown).trim().to_owned())
    }

    /// Where the folder's backend has its state, as `terraform init` wrote it down; none: in the folder itself.
    pub fn backend(&self) -> Result<Option<Value>, Error> {
        let path = self.folder.join(".terraform/terraform.tfstate");
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => Zeroizing::new(other?),
        };
        let mut value: Value = serde_json::from_slice(&text)
            .map_err(|_| Error::new(ErrorKind::InvalidData, "it is no JSON"))?;
        let backend = value["backend"].take();
        wipe(&mut value);
        Ok((!backend.is_null()).then_some(backend))
    }

    /// The state that is in force; none where there is none yet.
    pub fn pull(
        &self,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, ClientError> {
        let state = self
            .call(&["state", "pull"], b"", cancelled)
            .output(STATE_BYTES_MAX)?;
        Ok((!state.iter().all(u8::is_ascii_whitespace)).then_some(state))
    }

    /// Takes the lock; refuses another lineage and a lower serial.
    pub fn push(&self, state: &[u8], cancelled: &dyn Fn() -> bool) -> Result<(), ClientError> {
        let arguments = ["state", "push", "-lock-timeout=0s", "-"];
        self.call(&arguments, state, cancelled)
            .output(1 << 20)
            .map(drop)
    }

    /// Takes the lock, and looks at neither lineage nor serial of what is there.
    pub fn push_over(&self, state: &[u8], cancelled: &dyn Fn() -> bool) -> Result<(), ClientError> {
        let arguments = ["state", "push", "-lock-timeout=0s", "-force", "-"];
        self.call(&arguments, state, cancelled)
            .output(1 << 20)
            .map(drop)
    }

    /// Changes nothing. Takes the lock.
    pub fn plan(&self, cancelled: &dyn Fn() -> bool) -> Result<TerraformChanges, ClientError> {
        let arguments = ["plan", "-json", "-input=false", "-lock-timeout=30s"];
        self.call(&arguments, b"", cancelled).read(changes)
    }

    fn call<'a>(
        &self,
        arguments: &[&str],
        input: &'a [u8],
        cancelled: &'a dyn Fn() -> bool,
    ) -> Call<'a> {
        let mut command = client(&self.program);
        pass_credentials(&mut command);
        let named = PASSED
            .iter()
            .filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)));
        let is_variable = |name: &std::ffi::OsStr| {
            name.to_str()
                .is_some_and(|name| name.starts_with("TF_VAR_"))
        };
        let variables = std::env::vars_os().filter(|(name, _)| is_variable(name));
        let passed: Vec<(std::ffi::OsString, _)> = named.chain(variables).collect();
        command
            .envs(passed)
            .env("TF_IN_AUTOMATION", "1")
            .env("TF_INPUT", "0")
            .env("CHECKPOINT_DISABLE", "1")
            .current_dir(&self.folder)
            .args(arguments);
        Call {
            command,
            program: "terraform",
            doing: arguments
                .iter()
                .take(2)
                .copied()
                .collect::<Vec<_>>()
                .join(" "),
            input,
            timeout: self.timeout,
            cancelled,
        }
    }
}

/// Of lines of JSON, one an event; values of resources are in none that is read here.
fn changes(out: &mut dyn Read) -> Result<TerraformChanges, Error> {
    let mut changes = TerraformChanges::default();
    let mut is_whole = false;
    for line in BufReader::new(out).lines() {
        let line = line?;
        let Ok(event) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        match event["type"].as_str() {
            Some("planned_change") => {
                let change = &event["change"];
                let address = change["resource"]["addr"].as_str().unwrap_or("?");
                let action = change["action"].as_str().unwrap_or("change");
                changes.changes.push(format!("{action} {address}"));
            }
            Some("change_summary") => is_whole = true,
            Some("outputs") => {
                let outputs = event["outputs"].as_object().into_iter().flatten();
                let changed = outputs.filter(|(_, output)| {
                    let action = output["action"].as_str();
                    action.is_some_and(|action| action != "noop")
                });
                changes
                    .changes
                    .extend(changed.map(|(name, _)| format!("change output.{name}")));
            }
            _ => {}
        }
    }
    match is_whole {
        true => Ok(changes),
        false => Err(Error::new(
            ErrorKind::InvalidData,
            "the plan did not come to its end",
        )),
    }
}

/// Whether a lock is held by another: as Terraform writes it, in JSON, wherever it keeps it.
#[must_use]
pub fn lock_holder(info: &[u8]) -> String {
    let Ok(info) = serde_json::from_slice::<Value>(info) else {
        return "a lock that cannot be read".to_owned();
    };
    let field = |name: &str| info[name].as_str().unwrap_or("?").to_owned();
    let (who, what, since) = (field("Who"), field("Operation"), field("Created"));
    format!("{who}, {what}, since {since}, lock {}", field("ID"))
}

/// Where Terraform keeps the state of a workspace below an S3 backend's key.
#[must_use]
pub fn key_of_workspace(key: &str, workspace: &str, prefix: &str) -> String {
    match workspace {
        "default" => key.to_owned(),
        _ => format!("{prefix}/{workspace}/{key}"),
    }
}

/// Whether the folder's local state is locked.
#[must_use]
pub fn local_lock(state: &Path) -> PathBuf {
    let name = state.file_name().unwrap_or_default().to_string_lossy();
    state.with_file_name(format!(".{name}.lock.info"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_told_from_what_is_none_and_no_value_is_in_what_is_said() {
        let text = br#"{"version": 4, "terraform_version": "1.11.4", "serial": 7, "lineage": "l", "resources": [
            {"mode": "managed", "type": "aws_db_instance", "name": "main", "module": "module.shop",
             "instances": [{"attributes": {"password": "hunter2"}}]},
            {"mode": "data", "type": "aws_ami", "name": "x", "instances": [{"index_key": 0}, {"index_key": "a"}]},
            {"mode": "managed", "type": "none", "name": "left", "instances": []}]}"#;
        let state = TerraformState::parse(text).unwrap();
        assert_eq!((state.serial, state.lineage.as_str()), (7, "l"));
        let resources: Vec<&String> = state.resources.iter().collect();
        let expected = [
            "data.aws_ami.x[\"a\"]",
            "data.aws_ami.x[0]",
            "module.shop.aws_db_instance.main",
        ];
        assert_eq!(resources, expected);
        assert!(!format!("{state:?}").contains("hunter2"));
        let raised = with_serial(text, 9).unwrap();
        assert_eq!(TerraformState::parse(&raised).unwrap().serial, 9);
        assert!(String::from_utf8_lossy(&raised).contains("hunter2"));
        let check = |text: &str, says: &str| {
            let error = TerraformState::parse(text.as_bytes()).unwrap_err();
            assert!(
                error.contains(says) && !error.contains("hunter2"),
                "{error}"
            );
        };
        check("hunter2", "line 1 is no JSON");
        check("{\"version\": 3, \"serial\": 1}", "version 3");
        check("{\"serial\": 1}", "no state of Terraform");
        check("{\"version\": 4}", "no serial");
        check("[\"hunter2\"]", "no state of Terraform");
    }

    #[test]
    fn a_plan_is_read_to_its_end() {
        let lines = r#"{"type":"version"}
Warning: not JSON
{"type":"planned_change","change":{"resource":{"addr":"a.b"},"action":"create"}}
{"type":"outputs","outputs":{"x":{"action":"create"},"y":{"action":"noop"}}}
{"type":"change_summary","changes":{"add":1}}"#;
        let found = changes(&mut lines.as_bytes()).unwrap();
        assert_eq!(found.changes, ["create a.b", "change output.x"]);
        assert!(changes(&mut &lines.as_bytes()[..100]).is_err());
    }

    #[test]
    fn a_lock_says_who_holds_it() {
        let info =
            br#"{"ID": "1", "Who": "bob@desk", "Operation": "OperationTypeApply", "Created": "t"}"#;
        let holder = lock_holder(info);
        assert!(
            holder.contains("bob@desk") && holder.contains("Apply"),
            "{holder}"
        );
        assert_eq!(lock_holder(b"x"), "a lock that cannot be read");
        assert_eq!(
            local_lock(Path::new("/a/x.tfstate")),
            Path::new("/a/.x.tfstate.lock.info")
        );
        assert_eq!(key_of_workspace("p/t", "blue", "env:"), "env:/blue/p/t");
    }
}
