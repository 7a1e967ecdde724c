//! An object of the API in its canonical form: what a person wrote, without what the server made of it; the same bytes
//! whenever it means the same. What the cluster makes by itself has none.

use std::fmt;

use serde_json::{Map, Value};
use zeroize::Zeroize;

/// Of an object's metadata: made by the server, different in every cluster.
const MADE_METADATA: [&str; 9] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
    "ownerReferences",
];

/// Written by clients and controllers for themselves.
const MADE_ANNOTATIONS: [&str; 9] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision",
    "deprecated.daemonset.template.generation",
    "autoscaling.alpha.kubernetes.io/conditions",
    "autoscaling.alpha.kubernetes.io/current-metrics",
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
];

const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Of the cluster's authority, published into every namespace by a controller.
const PUBLISHED_CONFIG_MAPS: [&str; 3] = [
    "kube-root-ca.crt",
    "openshift-service-ca.crt",
    "istio-ca-root-cert",
];
const ACCOUNT_TOKEN: &str = "kubernetes.io/service-account-token";
/// No value that short is looked for in a text: half of all words would hold it.
const HIDDEN_BYTES_MIN: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an object has no {0}")]
pub struct ObjectError(&'static str);

/// In its canonical form.
#[derive(Clone, PartialEq, Eq)]
pub struct Object {
    pub namespace: Option<String>,
    pub group: String,
    pub kind: String,
    pub name: String,
    pub value: Value,
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({self})")
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)?;
        match &self.namespace {
            Some(namespace) => write!(f, " in {namespace}"),
            None => Ok(()),
        }
    }
}

impl Object {
    /// `None`: the cluster makes it by itself, or it is being deleted.
    pub fn canonical(mut value: Value) -> Result<Option<Self>, ObjectError> {
        let is_made = is_made(&value);
        let object = Self::of(&value);
        match (is_made, object) {
            (true, _) => {
                wipe(&mut value);
                Ok(None)
            }
            (false, Err(error)) => {
                wipe(&mut value);
                Err(error)
            }
            (false, Ok(mut object)) => {
                strip(&mut value);
                object.value = value;
                Ok(Some(object))
            }
        }
    }

    /// From a document that was kept.
    pub fn parse(content: &[u8]) -> Result<Self, ObjectError> {
        let parsed = serde_json::from_slice(content);
        let value: Value = parsed.map_err(|_| ObjectError("JSON"))?;
        let mut object = Self::of(&value)?;
        object.value = value;
        Ok(object)
    }

    fn of(value: &Value) -> Result<Self, ObjectError> {
        let text = |pointer: &str, what| {
            let found = value.pointer(pointer).and_then(Value::as_str);
            let found = found.filter(|found| !found.is_empty());
            found.map(str::to_owned).ok_or(ObjectError(what))
        };
        let version = text("/apiVersion", "apiVersion")?;
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let name = text("/metadata/name", "metadata.name")?;
        // What a path is made of.
        if name.contains('/') || name == "." || name == ".." {
            return Err(ObjectError("usable metadata.name"));
        }
        Ok(Self {
            namespace: text("/metadata/namespace", "metadata.namespace").ok(),
            group: group.to_owned(),
            kind: text("/kind", "kind")?,
            name,
            value: Value::Null,
        })
    }

    /// `Deployment.apps`, as kubectl takes it.
    #[must_use]
    pub fn kind_and_group(&self) -> String {
        match self.group.as_str() {
            "" => self.kind.clone(),
            group => format!("{}.{group}", self.kind),
        }
    }

    /// Below the folder of its component.
    #[must_use]
    pub fn path(&self) -> String {
        match &self.namespace {
            None => format!("{}/{}.json", self.name, self.kind.to_lowercase()),
            Some(namespace) => {
                let kind = self.kind_and_group().to_lowercase();
                format!("{namespace}/{kind}/{}.json", self.name)
            }
        }
    }

    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        bytes(&self.value)
    }

    /// Who would undo what is applied to it, as its labels and annotations tell.
    #[must_use]
    pub fn reconciler(&self) -> Option<String> {
        let field = |of: &str, name: &str| {
            let found = self.value.get("metadata")?.get(of)?.get(name)?;
            Some(found.as_str().unwrap_or_default().to_owned())
        };
        let (label, annotation) = (
            |name: &str| field("labels", name),
            |name: &str| field("annotations", name),
        );
        let argo = annotation("argocd.argoproj.io/tracking-id")
            .map(|id| id.split(':').next().unwrap_or_default().to_owned())
            .or_else(|| label("argocd.argoproj.io/instance"));
        if let Some(application) = argo {
            return Some(format!("Argo CD (application {application})"));
        }
        if let Some(name) = label("kustomize.toolkit.fluxcd.io/name") {
            return Some(format!("Flux (Kustomization {name})"));
        }
        if let Some(name) = label("helm.toolkit.fluxcd.io/name") {
            return Some(format!("Flux (HelmRelease {name})"));
        }
        if label("app.kubernetes.io/managed-by").as_deref() == Some("Helm") {
            let release = annotation("meta.helm.sh/release-name");
            return Some(format!("Helm (release {})", release.unwrap_or_default()));
        }
        None
    }
}

fn is_made(value: &Value) -> bool {
    let text = |pointer: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (kind, name) = (text("/kind"), text("/metadata/name"));
    let has = |of: &str, key: &str| {
        let found = value.get("metadata").and_then(|metadata| metadata.get(of));
        found.is_some_and(|found| found.get(key).is_some())
    };
    let owners = value
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array);
    let is_controlled =
        owners.is_some_and(|owners| owners.iter().any(|owner| owner["controller"] == true));
    is_controlled
        || value.pointer("/metadata/deletionTimestamp").is_some()
        || has("annotations", LEADER)
        || has("labels", "kubernetes.io/bootstrapping")
        || match kind {
            "ServiceAccount" => name == "default",
            "ConfigMap" => PUBLISHED_CONFIG_MAPS.contains(&name),
            "Secret" => text("/type") == ACCOUNT_TOKEN,
            "Service" => name == "kubernetes" && text("/metadata/namespace") == "default",
            _ => false,
        }
}

fn strip(value: &mut Value) {
    let Some(object) = value.as_object_mut() else {
        return;
    };
    object.remove("status");
    let kind = object
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let mut account = String::new();
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.retain(|name, _| !MADE_METADATA.contains(&name.as_str()));
        if kind == "ServiceAccount" {
            account = metadata["name"].as_str().unwrap_or_default().to_owned();
        }
        remove_of(metadata, "annotations", &MADE_ANNOTATIONS);
        if kind == "Namespace" {
            remove_of(metadata, "labels", &["kubernetes.io/metadata.name"]);
        }
    }
    match kind.as_str() {
        "Namespace" => remove_of(object, "spec", &["finalizers"]),
        "PersistentVolumeClaim" => remove_of(object, "spec", &["volumeName"]),
        // `None` is a wish (a headless service), an address is the server's choice.
        "Service"
            if object
                .get("spec")
                .is_some_and(|spec| spec["clusterIP"] != "None") =>
        {
            remove_of(
                object,
                "spec",
                &["clusterIP", "clusterIPs", "healthCheckNodePort"],
            );
        }
        "ServiceAccount" => {
            let is_token = |secret: &Value| {
                let name = secret["name"].as_str().unwrap_or_default();
                let rest = name.strip_prefix(&account).unwrap_or_default();
                rest.starts_with("-token-") || rest.starts_with("-dockercfg-")
            };
            if let Some(Value::Array(secrets)) = object.get_mut("secrets") {
                secrets.retain(|secret| !is_token(secret));
                if secrets.is_empty() {
                    object.remove("secrets");
                }
            }
        }
        _ => {}
    }
    without_null(value);
}

/// And the whole of it, once nothing is left.
fn remove_of(object: &mut Map<String, Value>, name: &str, fields: &[&str]) {
    if let Some(Value::Object(inner)) = object.get_mut(name) {
        inner.retain(|field, _| !fields.contains(&field.as_str()));
        if inner.is_empty() {
            object.remove(name);
        }
    }
}

/// `creationTimestamp: null` of a template, and all else that says nothing.
fn without_null(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

/// Keys in order, two spaces a level, a newline at the end.
#[must_use]
pub fn bytes(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(value, 0, &mut out);
    out.push(b'\n');
    out
}

fn write(value: &Value, level: usize, out: &mut Vec<u8>) {
    let line = |level: usize, out: &mut Vec<u8>| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', 2 * level));
    };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            // Whether a map keeps its keys in order is a feature of serde_json that any crate may switch.
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            for (number, (name, field)) in fields.into_iter().enumerate() {
                out.push(if number == 0 { b'{' } else { b',' });
                line(level + 1, out);
                out.extend(Value::from(name.as_str()).to_string().bytes());
                out.extend(b": ");
                write(field, level + 1, out);
            }
            line(level, out);
            out.push(b'}');
        }
        Value::Array(items) if !items.is_empty() => {
            for (number, item) in items.iter().enumerate() {
                out.push(if number == 0 { b'[' } else { b',' });
                line(level + 1, out);
                write(item, level + 1, out);
            }
            line(level, out);
            out.push(b']');
        }
        other => out.extend(other.to_string().bytes()),
    }
}

/// Every text of it, overwritten: it may be a secret.
pub fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(fields) => fields.values_mut().for_each(wipe),
        _ => {}
    }
}

/// The merge patch (RFC 7396) that makes `before` into `after`; `None` where they are the same.
#[must_use]
pub fn merge_patch(before: &Value, after: &Value) -> Option<Value> {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return (before != after).then(|| after.clone());
    };
    let mut patch = Map::new();
    for (name, field) in after {
        let changed = match before.get(name) {
            None => Some(field.clone()),
            Some(earlier) => merge_patch(earlier, field),
        };
        if let Some(changed) = changed {
            patch.insert(name.clone(), changed);
        }
    }
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Out of a text: each value of each Secret of what was given, as it was given and decoded.
pub(crate) fn hide_secrets(given: &Value, text: &mut String) {
    for object in given["items"]
        .as_array()
        .map_or(std::slice::from_ref(given), Vec::as_slice)
    {
        // A patch has no kind; it may be one of a Secret.
        if object["kind"] != "Secret" && !object["kind"].is_null() {
            continue;
        }
        for field in ["data", "stringData"] {
            let Some(values) = object[field].as_object() else {
                continue;
            };
            for value in values.values().filter_map(Value::as_str) {
                hide(value, text);
                if let Some(mut plain) = decoded(value).and_then(|it| String::from_utf8(it).ok()) {
                    hide(&plain, text);
                    plain.zeroize();
                }
            }
        }
    }
}

fn hide(value: &str, text: &mut String) {
    if value.len() >= HIDDEN_BYTES_MIN && text.contains(value) {
        *text = text.replace(value, "…");
    }
}

/// Base64 with padding, as the API has it.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for b in text.trim_end_matches('=').bytes() {
        let six = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).unwrap_or_default());
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_server_made_is_gone_and_what_a_person_wrote_stays() {
        let live = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "api", "namespace": "shop", "uid": "1", "resourceVersion": "2", "selfLink": "/x",
                "creationTimestamp": "2020-01-01T00:00:00Z", "managedFields": [{"manager": "kubectl"}],
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
                "labels": {"z": "1", "a": "2"}
            },
            "spec": {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": [{"port": 80, "nodePort": 30080}]},
            "status": {"loadBalancer": {}}
        });
        let object = Object::canonical(live).unwrap().unwrap();
        assert_eq!(object.path(), "shop/service/api.json");
        let text = String::from_utf8(object.bytes()).unwrap();
        let expected = r#"{
  "apiVersion": "v1",
  "kind": "Service",
  "metadata": {
    "labels": {
      "a": "2",
      "z": "1"
    },
    "name": "api",
    "namespace": "shop"
  },
  "spec": {
    "ports": [
      {
        "nodePort": 30080,
        "port": 80
      }
    ]
  }
}
"#;
        assert_eq!(text, expected);
        // What was kept is its own canonical form.
        let again = Object::parse(&object.bytes()).unwrap();
        assert_eq!(again, object);
        assert_eq!(Object::canonical(again.value).unwrap().unwrap(), object);
    }

    #[test]
    fn a_headless_service_stays_headless() {
        let live = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db", "namespace": "shop"},
            "spec": {"clusterIP": "None", "clusterIPs": ["None"]}});
        let object = Object::canonical(live).unwrap().unwrap();
        assert_eq!(object.value["spec"]["clusterIP"], "None");
    }

    #[test]
    fn what_the_cluster_makes_by_itself_is_left_out() {
        let check = |object: Value| assert_eq!(Object::canonical(object), Ok(None));
        let object = |kind: &str, name: &str| {
            let metadata = json!({"name": name, "namespace": "shop"});
            json!({"apiVersion": "v1", "kind": kind, "metadata": metadata})
        };
        check(object("ServiceAccount", "default"));
        check(object("ConfigMap", "kube-root-ca.crt"));
        let mut token = object("Secret", "default-token-x");
        token["type"] = ACCOUNT_TOKEN.into();
        check(token);
        let mut made = object("ReplicaSet", "api-1");
        made["metadata"]["ownerReferences"] = json!([{"controller": true, "kind": "Deployment"}]);
        check(made);
        let mut going = object("ConfigMap", "going");
        going["metadata"]["deletionTimestamp"] = "2020-01-01T00:00:00Z".into();
        check(going);
        assert!(
            Object::canonical(object("ServiceAccount", "api"))
                .unwrap()
                .is_some()
        );
        assert!(Object::canonical(json!({"kind": "ConfigMap"})).is_err());
        assert!(Object::canonical(object("ConfigMap", "a/../b")).is_err());
    }

    #[test]
    fn an_account_keeps_its_own_secrets_and_not_its_token() {
        let live = json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "api", "namespace": "shop"},
            "secrets": [{"name": "api-token-x7k2p"}, {"name": "registry"}]});
        let object = Object::canonical(live).unwrap().unwrap();
        assert_eq!(object.value["secrets"], json!([{"name": "registry"}]));
    }

    #[test]
    fn a_merge_patch_makes_one_into_the_other() {
        let before = json!({"data": {"a": "1", "b": "2"}, "list": [1, 2], "same": {"x": 1}});
        let after = json!({"data": {"a": "1", "c": "3"}, "list": [2], "same": {"x": 1}});
        let patch = merge_patch(&before, &after).unwrap();
        assert_eq!(patch, json!({"data": {"b": null, "c": "3"}, "list": [2]}));
        assert_eq!(merge_patch(&after, &after), None);
    }

    #[test]
    fn who_would_undo_it_is_named() {
        let check = |metadata: Value, expected: Option<&str>| {
            let mut value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
            value["metadata"]["name"] = "x".into();
            let object = Object::canonical(value).unwrap().unwrap();
            assert_eq!(object.reconciler().as_deref(), expected);
        };
        check(json!({}), None);
        let tracked = json!({"annotations": {"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:shop/api"}});
        check(tracked, Some("Argo CD (application shop)"));
        let flux = json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}});
        check(flux, Some("Flux (Kustomization apps)"));
        let helm = json!({"labels": {"app.kubernetes.io/managed-by": "Helm"},
            "annotations": {"meta.helm.sh/release-name": "redis"}});
        check(helm, Some("Helm (release redis)"));
    }

    #[test]
    fn base64_is_decoded_as_the_api_has_it() {
        assert_eq!(decoded("aHVudGVyMg==").unwrap(), b"hunter2");
        assert_eq!(decoded("YQ==").unwrap(), b"a");
        assert_eq!(decoded("YWJj").unwrap(), b"abc");
        assert!(decoded("not base64!").is_none());
    }
}
