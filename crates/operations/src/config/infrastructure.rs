//! What a system is built of, and where that is kept: `[infrastructure]`, `[terraform.NAME]`, `[cloudformation]`,
//! `[rds]` and `[elasticache]`.

use std::{
    collections::BTreeMap,
    num::NonZeroU16,
    path::{Path, PathBuf},
};

use control_plane::terraform::{StateOrigin, Terraform};
use serde::Deserialize;

use super::Remote;

/// As the plan has it.
#[derive(Clone, Debug, Default)]
pub struct Infrastructure {
    /// A folder, or a remote of git; DIR/infrastructure when absent.
    pub git: Option<Remote>,
    pub terraform: BTreeMap<String, TerraformConfig>,
    /// Those named; all of the region where none is.
    pub stacks: Vec<String>,
    pub rds: Option<RdsConfig>,
    pub elasticache: Option<ElastiCacheConfig>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InfrastructureConfig {
    pub git: Option<Remote>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloudFormationConfig {
    pub stacks: Vec<String>,
}

/// One state: in a bucket, or in a file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TerraformConfig {
    bucket: Option<String>,
    /// As the backend names it: without the workspace.
    key: Option<String>,
    /// Of DynamoDB, where Terraform keeps its locks there.
    pub lock_table: Option<String>,
    file: Option<PathBuf>,
    workspace: Option<String>,
    workspace_key_prefix: Option<String>,
    /// Of the configuration, where `terraform init` was run: wanted by a restore.
    folder: Option<PathBuf>,
    /// `terraform` on the PATH when absent.
    program: Option<PathBuf>,
}

impl TerraformConfig {
    pub fn workspace(&self) -> &str {
        self.workspace.as_deref().unwrap_or("default")
    }

    pub fn origin(&self) -> Result<StateOrigin, String> {
        match (&self.bucket, &self.key, &self.file) {
            (Some(bucket), Some(key), None) => {
                let prefix = self.workspace_key_prefix.as_deref().unwrap_or("env:");
                Ok(StateOrigin::Bucket {
                    bucket: bucket.clone(),
                    key: control_plane::terraform::key_of_workspace(key, self.workspace(), prefix),
                })
            }
            (None, None, Some(file)) if self.lock_table.is_none() => {
                Ok(StateOrigin::File(file.clone()))
            }
            _ => Err("name bucket and key, or file".to_owned()),
        }
    }

    pub fn needs_aws(&self) -> bool {
        self.bucket.is_some()
    }

    /// What a restore needs besides.
    pub fn client(&self, name: &str) -> Result<Terraform, String> {
        let folder = self.folder.clone().ok_or_else(|| {
            format!(
                "where its configuration is was not said: [terraform.{name}] folder = \"…\", where terraform init was \
                 run"
            )
        })?;
        let program = self.program.clone().unwrap_or_else(|| "terraform".into());
        Ok(Terraform::new(program, folder))
    }
}

/// An instance of RDS, and what is demanded of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RdsConfig {
    pub instance: String,
    /// Automated backups reach back at least so far.
    #[serde(default = "week")]
    pub automated_days: NonZeroU16,
    #[serde(default = "yes")]
    pub multi_az: bool,
    /// Its ARN, or the end of it. Encrypted by any key when absent.
    pub kms_key: Option<String>,
    /// Of the manual snapshots that the job makes.
    #[serde(default = "month")]
    pub keep_days: NonZeroU16,
    /// Besides those that say who made them.
    #[serde(default = "tags")]
    pub tags: BTreeMap<String, String>,
}

/// A replication group of ElastiCache, and what is demanded of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ElastiCacheConfig {
    pub group: String,
    /// Automated snapshots are kept at least so long.
    #[serde(default = "day")]
    pub automated_days: NonZeroU16,
    #[serde(default = "yes")]
    pub multi_az: bool,
    pub kms_key: Option<String>,
    #[serde(default = "week")]
    pub keep_days: NonZeroU16,
    #[serde(default = "tags")]
    pub tags: BTreeMap<String, String>,
}

fn yes() -> bool {
    true
}

fn day() -> NonZeroU16 {
    NonZeroU16::MIN
}

fn week() -> NonZeroU16 {
    NonZeroU16::MIN.saturating_add(6)
}

fn month() -> NonZeroU16 {
    NonZeroU16::MIN.saturating_add(29)
}

/// The guide's.
fn tags() -> BTreeMap<String, String> {
    let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    BTreeMap::from([
        tag("Purpose", "ManualBackup"),
        tag("Environment", "Production"),
    ])
}

/// What is wrong with the states that are named.
pub(super) fn check_terraform(states: &BTreeMap<String, TerraformConfig>) -> Result<(), String> {
    for (name, state) in states {
        let section = format!("[terraform.{name}]");
        let is_plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if name.is_empty() || name.len() > 30 || !name.bytes().all(is_plain) {
            return Err(format!(
                "{section}: its name becomes part of a snapshot's: lower-case letters, digits and _, at most 30"
            ));
        }
        state
            .origin()
            .map_err(|reason| format!("{section}: {reason}"))?;
        for (setting, path) in [("file", &state.file), ("folder", &state.folder)] {
            if path
                .as_deref()
                .is_some_and(|path: &Path| !path.is_absolute())
            {
                return Err(format!("{section} {setting}: an absolute path"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("bre.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_state_is_in_a_bucket_or_in_a_file() {
        let origin = |text: &str| {
            let config = parse(&format!("[terraform.prod]\n{text}")).unwrap();
            config.backup.infrastructure.terraform["prod"]
                .origin()
                .unwrap()
                .to_string()
        };
        assert_eq!(origin("bucket = 'b'\nkey = 'prod/t'"), "s3://b/prod/t");
        assert_eq!(
            origin("bucket = 'b'\nkey = 'prod/t'\nworkspace = 'blue'"),
            "s3://b/env:/blue/prod/t"
        );
        assert_eq!(origin("file = '/a/t.tfstate'"), "/a/t.tfstate");
        let check = |text: &str, says: &str| {
            let error = parse(text).unwrap_err();
            assert!(
                error.contains(says) && error.contains("bre.toml"),
                "{error}"
            );
        };
        check(
            "[terraform.prod]",
            "[terraform.prod]: name bucket and key, or file",
        );
        check("[terraform.prod]\nbucket = 'b'", "name bucket and key");
        check(
            "[terraform.prod]\nbucket = 'b'\nkey = 'k'\nfile = '/f'",
            "or file",
        );
        check("[terraform.prod]\nfile = 'f'", "absolute path");
        check("[terraform.Prod]\nfile = '/f'", "lower-case");
        check("[terraform.prod]\nbuckets = 'b'", "buckets");
        check("[rds]\nmulti_az = true", "instance");
        let rds = parse("[rds]\ninstance = 'db'")
            .unwrap()
            .backup
            .infrastructure
            .rds
            .unwrap();
        assert_eq!(
            (rds.automated_days.get(), rds.multi_az, rds.keep_days.get()),
            (7, true, 30)
        );
        assert_eq!(rds.tags["Purpose"], "ManualBackup");
    }
}
