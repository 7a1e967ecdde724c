//! Speaks as much of the Kubernetes API as kubectl asks for: discovery, objects and their lists, server-side apply,
//! merge patches, deletion. It adds to each object what a server adds. Only for tests without a cluster: what a real
//! kube-apiserver does is tested on one (`make slow-kubernetes`).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// Group, version, plural, kind. There is no `policy`: a kind that a server does not know.
const KINDS: [(&str, &str, &str, &str); 17] = [
    ("", "v1", "namespaces", "Namespace"),
    ("", "v1", "configmaps", "ConfigMap"),
    ("", "v1", "secrets", "Secret"),
    ("", "v1", "serviceaccounts", "ServiceAccount"),
    ("", "v1", "services", "Service"),
    ("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
    ("", "v1", "resourcequotas", "ResourceQuota"),
    ("", "v1", "limitranges", "LimitRange"),
    ("apps", "v1", "deployments", "Deployment"),
    ("apps", "v1", "statefulsets", "StatefulSet"),
    ("apps", "v1", "daemonsets", "DaemonSet"),
    ("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    (
        "rbac.authorization.k8s.io",
        "v1",
        "rolebindings",
        "RoleBinding",
    ),
    ("networking.k8s.io", "v1", "ingresses", "Ingress"),
    (
        "networking.k8s.io",
        "v1",
        "networkpolicies",
        "NetworkPolicy",
    ),
    ("batch", "v1", "cronjobs", "CronJob"),
    (
        "autoscaling",
        "v2",
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler",
    ),
];

/// Nothing in it may be read.
pub(super) const CLOSED: &str = "closed";

#[derive(Default)]
struct State {
    /// By the path of each.
    objects: BTreeMap<String, Value>,
    version: u64,
}

pub(super) struct StandIn {
    pub(super) port: u16,
}

impl StandIn {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                std::thread::spawn(move || serve(&stream, &state));
            }
        });
        Self { port }
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut input = BufReader::new(stream);
    let mut line = String::new();
    input.read_line(&mut line).ok()?;
    let mut parts = line.split_whitespace();
    let (method, target) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let mut bytes = 0;
    loop {
        line.clear();
        input.read_line(&mut line).ok()?;
        let head = line.trim().to_ascii_lowercase();
        if let Some(length) = head.strip_prefix("content-length:") {
            bytes = length.trim().parse().ok()?;
        }
        if head.is_empty() {
            break;
        }
    }
    let mut body = vec![0; bytes];
    input.read_exact(&mut body).ok()?;
    let path = target.split('?').next()?;
    let (code, answer) = state.lock().unwrap().answer(&method, path, &body);
    let answer = answer.to_string();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{answer}",
        answer.len()
    )
    .ok()
}

fn status(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
        "message": message, "code": code});
    (code, status)
}

impl State {
    fn answer(&mut self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        if method == "GET"
            && let Some(answer) = discovery(path)
        {
            return (200, answer);
        }
        let Some(place) = Place::of(path) else {
            return status(
                404,
                "NotFound",
                "the server could not find the requested resource",
            );
        };
        if place.namespace == Some(CLOSED)
            || (place.namespace.is_none() && place.name == Some(CLOSED))
        {
            let message = format!("{} is forbidden: User \"bre\" cannot list it", place.plural);
            return status(403, "Forbidden", &message);
        }
        match (method, place.name) {
            ("GET", None) => (200, self.list(path, &place)),
            ("GET", Some(name)) => match self.objects.get(path) {
                Some(object) => (200, object.clone()),
                None => not_found(&place, name),
            },
            ("PATCH", Some(name)) => self.patch(path, &place, name, body),
            ("DELETE", Some(name)) => match self.objects.remove(path) {
                None => not_found(&place, name),
                Some(object) => {
                    if place.plural == "namespaces" {
                        let inside = format!("/namespaces/{name}/");
                        self.objects.retain(|path, _| !path.contains(&inside));
                    }
                    (200, object)
                }
            },
            _ => status(405, "MethodNotAllowed", method),
        }
    }

    fn list(&self, path: &str, place: &Place<'_>) -> Value {
        let below = format!("{path}/");
        let found = self.objects.iter().filter(|(path, _)| {
            let name = path.strip_prefix(&below);
            name.is_some_and(|name| !name.contains('/'))
        });
        let items: Vec<&Value> = found.map(|(_, object)| object).collect();
        json!({"kind": format!("{}List", place.kind), "apiVersion": place.api_version(),
            "metadata": {"resourceVersion": self.version.to_string()}, "items": items})
    }

    fn patch(&mut self, path: &str, place: &Place<'_>, name: &str, body: &[u8]) -> (u16, Value) {
        let Ok(patch) = serde_json::from_slice::<Value>(body) else {
            return status(400, "BadRequest", "no JSON");
        };
        self.version += 1;
        let is_new = !self.objects.contains_key(path);
        let mut object = self.objects.get(path).cloned().unwrap_or_else(|| json!({}));
        merge(&mut object, &patch);
        let version = self.version.to_string();
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = version.as_str().into();
        metadata["managedFields"] = json!([{"manager": "bre-recovery", "operation": "Apply"}]);
        if is_new {
            metadata["uid"] = format!("00000000-0000-0000-0000-{version:0>12}").into();
            metadata["creationTimestamp"] = "1970-01-01T00:00:00Z".into();
            metadata["generation"] = 1.into();
            if place.kind == "Service" {
                object["spec"]["clusterIP"] = format!("10.96.0.{version}").into();
            }
        }
        object["status"] = json!({"observed": version});
        self.objects.insert(path.to_owned(), object.clone());
        if is_new && place.plural == "namespaces" {
            self.fill(name);
        }
        (if is_new { 201 } else { 200 }, object)
    }

    /// What a cluster makes by itself in each namespace.
    fn fill(&mut self, namespace: &str) {
        let made = [
            (
                "configmaps",
                "ConfigMap",
                "kube-root-ca.crt",
                "data",
                json!({"ca.crt": "made"}),
            ),
            (
                "serviceaccounts",
                "ServiceAccount",
                "default",
                "secrets",
                json!([{"name": "default-token-x"}]),
            ),
            (
                "secrets",
                "Secret",
                "default-token-x",
                "type",
                "kubernetes.io/service-account-token".into(),
            ),
        ];
        for (plural, kind, name, field, value) in made {
            let metadata = json!({"name": name, "namespace": namespace, "uid": "made"});
            let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": metadata});
            object[field] = value;
            let path = format!("/api/v1/namespaces/{namespace}/{plural}/{name}");
            self.objects.insert(path, object);
        }
    }
}

fn not_found(place: &Place<'_>, name: &str) -> (u16, Value) {
    status(
        404,
        "NotFound",
        &format!("{} \"{name}\" not found", place.plural),
    )
}

fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (name, field) in fields {
        if field.is_null() {
            object.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut object[name.as_str()], field);
        }
    }
}

struct Place<'a> {
    group: &'a str,
    version: &'a str,
    plural: &'a str,
    kind: &'static str,
    namespace: Option<&'a str>,
    name: Option<&'a str>,
}

impl<'a> Place<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts[..] {
            ["api", version, ..] => ("", version, &parts[2..]),
            ["apis", group, version, ..] => (group, version, &parts[3..]),
            _ => return None,
        };
        let (namespace, plural, name) = match rest[..] {
            [plural] => (None, plural, None),
            [plural, name] => (None, plural, Some(name)),
            ["namespaces", namespace, plural] => (Some(namespace), plural, None),
            ["namespaces", namespace, plural, name] => (Some(namespace), plural, Some(name)),
            _ => return None,
        };
        let is_it = |known: &&(&str, &str, &str, &str)| {
            (known.0, known.1, known.2) == (group, version, plural)
        };
        let (_, _, _, kind) = KINDS.iter().find(is_it)?;
        Some(Self {
            group,
            version,
            plural,
            kind,
            namespace,
            name,
        })
    }

    fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }
}

fn discovery(path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts[..] {
        ["version"] => Some(json!({"major": "1", "minor": "32", "gitVersion": "v1.32.4"})),
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
        ["apis"] => {
            let mut groups: Vec<(&str, &str)> = KINDS.iter().map(|kind| (kind.0, kind.1)).collect();
            groups.retain(|(group, _)| !group.is_empty());
            groups.dedup();
            let group = |(group, version): &(&str, &str)| {
                let version =
                    json!({"groupVersion": format!("{group}/{version}"), "version": version});
                json!({"name": group, "versions": [version], "preferredVersion": version})
            };
            let groups: Vec<Value> = groups.iter().map(group).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["api", version] => Some(resources("", version)),
        ["apis", group, version] => Some(resources(group, version)),
        _ => None,
    }
}

fn resources(group: &str, version: &str) -> Value {
    let of = KINDS
        .iter()
        .filter(|kind| (kind.0, kind.1) == (group, version));
    let resource = |(_, _, plural, kind): &(&str, &str, &str, &str)| {
        json!({"name": plural, "singularName": kind.to_lowercase(), "namespaced": *plural != "namespaces",
            "kind": kind, "verbs": ["get", "list", "patch", "delete", "create", "update", "watch"]})
    };
    let resources: Vec<Value> = of.map(resource).collect();
    let group_version = match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources})
}
