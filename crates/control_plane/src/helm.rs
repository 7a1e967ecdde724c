//! Releases of a namespace and their values, through `helm`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::call::{Call, ClientError, client};

const OUTPUT_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Clone)]
pub struct Helm {
    /// A name to be found on the PATH, or a path.
    pub program: PathBuf,
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
    pub timeout: Duration,
}

impl Default for Helm {
    fn default() -> Self {
        Self {
            program: "helm".into(),
            kubeconfig: None,
            context: None,
            timeout: Duration::from_secs(60),
        }
    }
}

/// Without when it was made: that is in git.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelmRelease {
    pub name: String,
    pub namespace: String,
    /// Name and version of its chart.
    pub chart: String,
    #[serde(default)]
    pub app_version: String,
    pub status: String,
    pub revision: String,
}

impl Helm {
    /// Whether it can be run here at all; asks no server.
    pub fn check_present(&self) -> Result<(), ClientError> {
        self.output(&["version", "--short"], "version".to_owned(), &|| false)
            .map(drop)
    }

    /// Those of a namespace, failed and pending ones too.
    pub fn releases(
        &self,
        namespace: &str,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<HelmRelease>, ClientError> {
        // helm 4 has no --all; 256 are shown unless more are asked for.
        let arguments = [
            "list",
            "--deployed",
            "--failed",
            "--pending",
            "--uninstalling",
            "--max=100000",
            "--namespace",
            namespace,
            "--output=json",
        ];
        let doing = format!("list in namespace {namespace}");
        let listed = self.output(&arguments, doing.clone(), cancelled)?;
        parsed(&listed, doing)
    }

    /// As its owner set them, without the chart's own.
    pub fn values(
        &self,
        release: &HelmRelease,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<BTreeMap<String, Value>, ClientError> {
        let arguments = [
            "get",
            "values",
            &release.name,
            "--namespace",
            &release.namespace,
            "--output=json",
        ];
        let doing = format!("get values of {} in {}", release.name, release.namespace);
        let values = self.output(&arguments, doing.clone(), cancelled)?;
        let values: Option<BTreeMap<String, Value>> = parsed(&values, doing)?;
        Ok(values.unwrap_or_default())
    }

    fn output(
        &self,
        arguments: &[&str],
        doing: String,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let mut command = client(&self.program);
        match &self.kubeconfig {
            Some(kubeconfig) => {
                command.env("KUBECONFIG", kubeconfig);
            }
            None => {
                if let Some(own) = std::env::var_os("KUBECONFIG") {
                    command.env("KUBECONFIG", own);
                }
            }
        }
        if let Some(context) = &self.context {
            command.args(["--kube-context", context]);
        }
        command.args(arguments);
        let call = Call {
            command,
            program: "helm",
            doing,
            input: b"",
            timeout: self.timeout,
            cancelled,
        };
        call.output(OUTPUT_BYTES_MAX)
    }
}

fn parsed<T: serde::de::DeserializeOwned>(output: &[u8], doing: String) -> Result<T, ClientError> {
    let parsed = serde_json::from_slice(output);
    parsed.map_err(|error| ClientError::Output {
        program: "helm".to_owned(),
        doing,
        // Its own words could quote a value.
        source: std::io::Error::other(format!("line {} is not as expected", error.line())),
    })
}
