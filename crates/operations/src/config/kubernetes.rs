//! `[kubernetes]`: the namespaces whose state is backed up, the clients that read it, and where it goes.

use std::{
    collections::BTreeSet,
    num::NonZeroU16,
    path::{Path, PathBuf},
    time::Duration,
};

use control_plane::{
    helm::Helm,
    kubernetes::{Kubectl, check_namespace},
};
use serde::Deserialize;

use super::Remote;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kubernetes {
    pub namespaces: Vec<String>,
    /// Of the kubeconfig; its current one when absent.
    context: Option<String>,
    /// kubectl's own when absent, or the account of the pod that this runs in.
    kubeconfig: Option<PathBuf>,
    /// Besides the usual ones, as kubectl takes them: `certificates.cert-manager.io`.
    #[serde(default)]
    pub kinds: Vec<String>,
    /// Names to be found on the PATH, or paths.
    #[serde(default = "kubectl")]
    pub kubectl: PathBuf,
    #[serde(default = "helm")]
    pub helm: PathBuf,
    /// A folder, or a remote of git; DIR/application_state when absent.
    pub git: Option<Remote>,
    /// After which a client that does not answer is ended.
    #[serde(default = "minute")]
    timeout_seconds: NonZeroU16,
}

fn kubectl() -> PathBuf {
    "kubectl".into()
}

fn helm() -> PathBuf {
    "helm".into()
}

fn minute() -> NonZeroU16 {
    NonZeroU16::MIN.saturating_add(59)
}

impl Kubernetes {
    /// Why it makes no sense.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.namespaces.is_empty() {
            return Err("namespaces is empty: name those that are to be backed up".to_owned());
        }
        let mut seen = BTreeSet::new();
        for name in &self.namespaces {
            check_namespace(name).map_err(|reason| format!("namespaces: {reason}"))?;
            if !seen.insert(name) {
                return Err(format!("namespaces: {name:?} is named twice"));
            }
        }
        if let Some(context) = &self.context
            && (context.is_empty() || context.starts_with('-'))
        {
            return Err(format!(
                "context = {context:?}: a context of the kubeconfig, as kubectl config get-contexts lists them"
            ));
        }
        for kind in &self.kinds {
            check_kind(kind)?;
        }
        for (setting, program) in [("kubectl", &self.kubectl), ("helm", &self.helm)] {
            let is_relative_path = program.components().count() > 1 && program.is_relative();
            if program.as_os_str().is_empty() || is_relative_path {
                return Err(format!(
                    "{setting} = {:?}: a name that is on the PATH, or an absolute path",
                    program.display().to_string()
                ));
            }
        }
        match &self.kubeconfig {
            Some(path) if !path.is_absolute() => Err(format!(
                "kubeconfig = {:?}: an absolute path",
                path.display().to_string()
            )),
            _ => self.check_git(),
        }
    }

    fn check_git(&self) -> Result<(), String> {
        let Some(Remote(to)) = &self.git else {
            return Ok(());
        };
        match to.is_empty() || to.starts_with('-') {
            true => Err("git: a folder, or an address that git understands".to_owned()),
            false => Ok(()),
        }
    }

    pub fn kubectl(&self) -> Kubectl {
        Kubectl {
            program: self.kubectl.clone(),
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            timeout: self.timeout(),
        }
    }

    pub fn helm(&self) -> Helm {
        Helm {
            program: self.helm.clone(),
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            timeout: self.timeout(),
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(u64::from(self.timeout_seconds.get()))
    }

    /// Of a program that is not there: the line that mends it.
    pub fn lacks(&self, setting: &str, program: &Path) -> Option<String> {
        (!control_plane::is_program(program)).then(|| {
            format!(
                "{} is not on this host: install it, or name its path: [kubernetes] {setting} = \"/path/to/{setting}\"",
                program.display()
            )
        })
    }
}

/// Goes to kubectl among others, with commas between. Those that have components of their own would be in git as they
/// are: a Secret must never be.
fn check_kind(kind: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
    let is_plain = kind.bytes().all(plain) && kind.starts_with(|c: char| c.is_ascii_lowercase());
    let first = kind.split('.').next().unwrap_or_default();
    match first {
        _ if !is_plain => Err(format!(
            "kinds: {kind:?} is no kind: lower-case letters, digits, dots and -, as certificates.cert-manager.io"
        )),
        "secret" | "secrets"
            if !kind.contains('.') || kind.ends_with(".v1") || kind.ends_with('.') =>
        {
            Err(
                "kinds: secrets are never put into git; the job kubernetes.secrets seals them"
                    .to_owned(),
            )
        }
        "configmap" | "configmaps" | "cm" if !kind.contains('.') => {
            Err("kinds: configmaps have a job of their own, kubernetes.configmaps".to_owned())
        }
        "all" => Err("kinds: name each kind; \"all\" is a group of them".to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    fn parse(text: &str) -> Result<Config, String> {
        let text = format!("[kubernetes]\n{text}");
        Config::parse(&text, Path::new("bre.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn nonsense_is_refused_with_words() {
        let check = |text: &str, says: &str| {
            let error = parse(text).unwrap_err();
            assert!(
                error.contains(says) && error.contains("bre.toml"),
                "{text}: {error}"
            );
        };
        check("", "namespaces");
        check("namespaces = []", "namespaces is empty");
        check("namespaces = [\"Shop\"]", "\"Shop\" is no namespace");
        check("namespaces = [\"--all\"]", "is no namespace");
        check("namespaces = [\"shop\", \"shop\"]", "named twice");
        let of = |line: &str, says: &str| check(&format!("namespaces = [\"shop\"]\n{line}"), says);
        of("context = \"\"", "get-contexts");
        of("context = \"--kubeconfig=x\"", "get-contexts");
        of("kinds = [\"Deployment\"]", "is no kind");
        of("kinds = [\"a,b\"]", "is no kind");
        of("kinds = [\"-o\"]", "is no kind");
        of("kinds = [\"secrets\"]", "never put into git");
        of("kinds = [\"secret.v1.\"]", "never put into git");
        of("kinds = [\"configmaps\"]", "kubernetes.configmaps");
        of("kinds = [\"all\"]", "name each kind");
        of("kubectl = \"bin/kubectl\"", "absolute path");
        of("helm = \"\"", "on the PATH");
        of("kubeconfig = \"kubeconfig\"", "absolute path");
        of("git = \"--upload-pack=x\"", "git understands");
        of("timeout_seconds = 0", "timeout_seconds");
        of("namespace = \"x\"", "namespace");
    }

    #[test]
    fn a_cluster_is_what_the_clients_are_told() {
        let text = "namespaces = [\"shop\"]\ncontext = \"production\"\nkinds = [\"secretstores.external-secrets.io\"]";
        let kubernetes = parse(text).unwrap().backup.kubernetes.unwrap();
        let kubectl = kubernetes.kubectl();
        assert_eq!(kubectl.program, Path::new("kubectl"));
        assert_eq!(kubectl.context.as_deref(), Some("production"));
        assert_eq!(kubectl.timeout.as_secs(), 60);
        assert!(
            parse("namespaces = [\"shop\"]")
                .unwrap()
                .kubernetes
                .is_some()
        );
        let none = Config::parse("", Path::new("bre.toml")).unwrap();
        assert!(none.backup.kubernetes.is_none());
    }
}
