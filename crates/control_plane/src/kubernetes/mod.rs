//! A Kubernetes API through `kubectl`: lists of objects, as they come, and objects applied.

mod object;

use std::io::{self, BufReader, Read};
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::Value;

use crate::call::{Call, ClientError, client};

pub(crate) use object::hide_secrets;
pub use object::{Object, ObjectError, bytes, merge_patch, wipe};

/// Writes under this name, so that what a restore set can be told from what others did.
pub const FIELD_MANAGER: &str = "bre-recovery";

/// What is needed to build a namespace again, besides its ConfigMaps and Secrets; in the order in which it is applied.
pub const KINDS: [&str; 15] = [
    "serviceaccounts",
    "roles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
    "resourcequotas",
    "limitranges",
    "networkpolicies.networking.k8s.io",
    "persistentvolumeclaims",
    "services",
    "deployments.apps",
    "statefulsets.apps",
    "daemonsets.apps",
    "cronjobs.batch",
    "horizontalpodautoscalers.autoscaling",
    "poddisruptionbudgets.policy",
    "ingresses.networking.k8s.io",
];

/// An answer to one question is small.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
const WATCH_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// All objects of a namespace.
const LIST_BYTES_MAX: u64 = 1 << 30;

#[derive(Debug, Clone)]
pub struct Kubectl {
    /// A name to be found on the PATH, or a path.
    pub program: PathBuf,
    /// Without it kubectl's own: `~/.kube/config`, or the account of the pod that this runs in.
    pub kubeconfig: Option<PathBuf>,
    /// Without it the current one.
    pub context: Option<String>,
    pub timeout: Duration,
}

impl Default for Kubectl {
    fn default() -> Self {
        Self {
            program: "kubectl".into(),
            kubeconfig: None,
            context: None,
            timeout: Duration::from_secs(60),
        }
    }
}

impl Kubectl {
    /// Whether it can be run here at all; asks no server.
    pub fn check_present(&self) -> Result<(), ClientError> {
        let arguments = ["version", "--client", "--output=json"];
        let call = self.call(&arguments, "version".to_owned(), b"", &|| false);
        call.output(ANSWER_BYTES_MAX).map(drop)
    }

    /// Each object of these kinds in a namespace, while they come. A kind of [`KINDS`] that the server does not know
    /// is left out.
    pub fn list(
        &self,
        namespace: &str,
        kinds: &[&str],
        cancelled: &dyn Fn() -> bool,
        each: &mut (dyn FnMut(Value) -> io::Result<()> + Send),
    ) -> Result<(), ClientError> {
        let mut kinds = kinds.to_vec();
        loop {
            let arguments = [
                "get",
                &kinds.join(","),
                "--namespace",
                namespace,
                "--output=json",
                "--chunk-size=500",
            ];
            let doing = format!("get in namespace {namespace}");
            let call = self.call(&arguments, doing, b"", cancelled);
            let each = &mut *each;
            let listed = call.read(move |out| objects(out, each));
            let Err(error) = listed else {
                return Ok(());
            };
            let unknown = kinds.iter().position(|kind| is_unknown(kind, error.said()));
            match unknown {
                Some(unknown) if kinds.len() > 1 => {
                    kinds.remove(unknown);
                }
                _ => return Err(error),
            }
        }
    }

    /// The namespace itself; an error where there is none.
    pub fn namespace(
        &self,
        namespace: &str,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Value, ClientError> {
        let arguments = ["get", "namespace", namespace, "--output=json"];
        let doing = format!("get namespace {namespace}");
        let call = self.call(&arguments, doing, b"", cancelled);
        call.read(|out| {
            Ok(serde_json::from_reader(BufReader::new(
                out.take(ANSWER_BYTES_MAX),
            ))?)
        })
    }

    /// Waits for changes of one kind in a namespace until the server ends it, or a day is over. `each`: for every
    /// event. The server prints a line of a table for one: what a Secret holds does not travel.
    pub fn watch(
        &self,
        namespace: &str,
        kind: &str,
        selector: Option<&str>,
        cancelled: &dyn Fn() -> bool,
        each: &(dyn Fn() + Sync),
    ) -> Result<(), ClientError> {
        let mut arguments = vec!["get", kind, "--namespace", namespace];
        arguments.extend(["--watch-only", "--no-headers"]);
        if let Some(selector) = selector {
            arguments.extend(["--selector", selector]);
        }
        let doing = format!("get --watch in namespace {namespace}");
        let mut call = self.call(&arguments, doing, b"", cancelled);
        call.timeout = WATCH_TIMEOUT;
        call.read(|out| {
            let mut lines = [0; 4096];
            loop {
                match out.read(&mut lines)? {
                    0 => return Ok(()),
                    count if lines[..count].contains(&b'\n') => each(),
                    _ => {}
                }
            }
        })
    }

    /// Objects by server-side apply, as one field manager. `force`: fields that others hold are taken from them.
    pub fn apply(
        &self,
        objects: &[&Value],
        force: bool,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), ClientError> {
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let input = zeroize::Zeroizing::new(list.to_string().into_bytes());
        let manager = format!("--field-manager={FIELD_MANAGER}");
        let force = format!("--force-conflicts={force}");
        // The server checks; the client's own check would need the server's schema, which is megabytes.
        let arguments = [
            "apply",
            "--server-side",
            &manager,
            &force,
            "--validate=false",
            "--filename=-",
        ];
        let doing = format!("apply of {} objects", objects.len());
        let call = self.call(&arguments, doing, &input, cancelled);
        call.output(ANSWER_BYTES_MAX).map(drop)
    }

    /// A merge patch of one object.
    pub fn patch(
        &self,
        object: &Object,
        patch: &Value,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<(), ClientError> {
        let input = zeroize::Zeroizing::new(patch.to_string().into_bytes());
        let manager = format!("--field-manager={FIELD_MANAGER}");
        let kind = object.kind_and_group();
        let mut arguments = vec!["patch", &kind, &object.name, "--type=merge", &manager];
        arguments.push("--patch-file=/dev/stdin");
        if let Some(namespace) = &object.namespace {
            arguments.extend(["--namespace", namespace]);
        }
        let doing = format!("patch of {object}");
        let call = self.call(&arguments, doing, &input, cancelled);
        call.output(ANSWER_BYTES_MAX).map(drop)
    }

    fn call<'a>(
        &'a self,
        arguments: &[&str],
        doing: String,
        input: &'a [u8],
        cancelled: &'a dyn Fn() -> bool,
    ) -> Call<'a> {
        let mut command = client(&self.program);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        } else if let Some(own) = std::env::var_os("KUBECONFIG") {
            command.env("KUBECONFIG", own);
        }
        if let Some(context) = &self.context {
            command.args(["--context", context]);
        }
        command.args(arguments);
        Call {
            command,
            program: "kubectl",
            doing,
            input,
            timeout: self.timeout,
            cancelled,
        }
    }
}

/// Whether kubectl says that the server has no such kind, one of the usual ones.
fn is_unknown(kind: &str, said: &str) -> bool {
    let short = kind.split('.').next().unwrap_or(kind);
    let named = |name: &str| said.contains(&format!("have a resource type \"{name}\""));
    KINDS.contains(&kind) && (named(kind) || named(short))
}

/// A name that is given to kubectl as an argument: a DNS label, as the API wants it.
pub fn check_namespace(name: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let framed = !name.starts_with('-') && !name.ends_with('-');
    match !name.is_empty() && name.len() <= 63 && framed && name.bytes().all(plain) {
        true => Ok(()),
        false => Err(format!(
            "{name:?} is no namespace: lower-case letters, digits and -, at most 63 characters"
        )),
    }
}

/// The items of a List, one after the other: the list as a whole is never in memory.
fn objects(
    out: &mut dyn Read,
    each: &mut (dyn FnMut(Value) -> io::Result<()> + Send),
) -> io::Result<()> {
    let mut input = serde_json::Deserializer::from_reader(BufReader::new(out.take(LIST_BYTES_MAX)));
    ListOfObjects(each).deserialize(&mut input)?;
    Ok(input.end()?)
}

struct ListOfObjects<'a>(&'a mut (dyn FnMut(Value) -> io::Result<()> + Send));

impl<'de> DeserializeSeed<'de> for ListOfObjects<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ListOfObjects<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a List of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut has_items = false;
        while let Some(key) = map.next_key::<String>()? {
            if key == "items" {
                has_items = true;
                map.next_value_seed(Items(&mut *self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        has_items
            .then_some(())
            .ok_or_else(|| A::Error::missing_field("items"))
    }
}

struct Items<'a>(&'a mut (dyn FnMut(Value) -> io::Result<()> + Send));

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(object) = seq.next_element::<Value>()? {
            (self.0)(object).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_object_by_object_and_a_cut_one_is_refused() {
        let list = br#"{"kind": "List", "items": [{"a": 1}, {"a": 2}], "metadata": {}}"#;
        let mut found = Vec::new();
        let mut keep = |object: Value| {
            found.push(object);
            Ok(())
        };
        objects(&mut &list[..], &mut keep).unwrap();
        assert_eq!(found.len(), 2);
        let mut ignore = |_: Value| Ok(());
        for cut in 0..list.len() {
            assert!(
                objects(&mut &list[..cut], &mut ignore).is_err(),
                "cut at {cut}"
            );
        }
        assert!(objects(&mut &b"{}"[..], &mut ignore).is_err());
    }

    #[test]
    fn a_name_that_kubectl_would_take_for_an_option_is_no_namespace() {
        assert!(check_namespace("borrow-rate-engine").is_ok());
        for name in ["", "-n", "a-", "A", "a/b", "a,b", "a b", &"a".repeat(64)] {
            assert!(check_namespace(name).is_err(), "{name:?}");
        }
    }
}
