//! Speaks as much of the Kubernetes API as kubectl asks for: discovery, objects and their lists, server-side apply,
//! merge patches, deletion. It adds to each object what a server adds. Only for tests without a cluster: what a real
//! kube-apiserver does is tested on one (`make slow-kubernetes`).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

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
pub const CLOSED_NAMESPACE: &str = "closed";

#[derive(Default)]
struct State {
    /// By the path of each.
    objects: BTreeMap<String, Value>,
    version: u64,
    /// In their order: the path of the list that it belongs to, and what a watch of that says.
    events: Vec<(String, Value)>,
}

#[derive(Default)]
struct Cluster {
    state: Mutex<State>,
    changed: Condvar,
    /// Of every client.
    credentials_expired: AtomicBool,
}

/// A Kubernetes API on 127.0.0.1, until the test's process ends.
pub struct KubernetesApi {
    pub port: u16,
    cluster: Arc<Cluster>,
}

impl std::fmt::Debug for KubernetesApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KubernetesApi({})", self.port)
    }
}

impl KubernetesApi {
    pub fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let cluster = Arc::new(Cluster::default());
        let served = Arc::clone(&cluster);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let cluster = Arc::clone(&served);
                std::thread::spawn(move || serve(&stream, &cluster));
            }
        });
        Self { port, cluster }
    }

    /// An object is there, as its owner wrote it: `/api/v1/namespaces/shop/configmaps/a`.
    pub fn put(&self, path: &str, object: Value) {
        lock(&self.cluster.state)
            .objects
            .insert(path.to_owned(), object);
    }

    /// From now on no credentials are good enough.
    pub fn expire_credentials(&self) {
        self.cluster
            .credentials_expired
            .store(true, Ordering::Release);
    }

    /// A kubeconfig for it, with one context: `test`.
    pub fn kubeconfig(&self, token: &str) -> String {
        let server = format!("http://127.0.0.1:{}", self.port);
        json!({"apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "users": [{"name": "test", "user": {"token": token}}]})
        .to_string()
    }
}

fn serve(stream: &TcpStream, cluster: &Cluster) -> Option<()> {
    let mut input = BufReader::new(stream);
    let mut line = String::new();
    input.read_line(&mut line).ok()?;
    let mut parts = line.split_whitespace();
    let (method, target) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let mut bytes = 0;
    loop {
        line.clear();
        input.read_line(&mut line).ok()?;
        let head = line.trim();
        if let Some(length) = head.to_ascii_lowercase().strip_prefix("content-length:") {
            bytes = length.trim().parse().ok()?;
        }
        if head.is_empty() {
            break;
        }
    }
    let mut body = vec![0; bytes];
    input.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut stream = stream;
    if cluster.credentials_expired.load(Ordering::Acquire) {
        return reply(&mut stream, &status(401, "Unauthorized", "Unauthorized"));
    }
    if query.contains("watch=") && !query.contains("watch=false") {
        return watch(&mut stream, path, cluster);
    }
    let answer = lock(&cluster.state).answer(&method, path, query, &body);
    cluster.changed.notify_all();
    reply(&mut stream, &answer)
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn reply(stream: &mut impl Write, (code, answer): &(u16, Value)) -> Option<()> {
    let answer = answer.to_string();
    write!(
        stream,
        "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{answer}",
        answer.len()
    )
    .ok()
}

/// Events from now on, until the client is gone.
fn watch(stream: &mut impl Write, path: &str, cluster: &Cluster) -> Option<()> {
    let head = "HTTP/1.1 200 X\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).ok()?;
    stream.flush().ok()?;
    let mut state = lock(&cluster.state);
    let mut seen = state.events.len();
    loop {
        let new = state.events.get(seen..).unwrap_or_default().iter();
        let of_path = new.filter(|(list, _)| list == path);
        let lines: Vec<String> = of_path.map(|(_, event)| format!("{event}\n")).collect();
        seen = state.events.len();
        drop(state);
        stream.write_all(lines.concat().as_bytes()).ok()?;
        stream.flush().ok()?;
        state = lock(&cluster.state);
        while state.events.len() == seen {
            state = cluster
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn status(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
        "message": message, "code": code});
    (code, status)
}

impl State {
    fn answer(&mut self, method: &str, path: &str, query: &str, body: &[u8]) -> (u16, Value) {
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
        if place.namespace == Some(CLOSED_NAMESPACE)
            || (place.namespace.is_none() && place.name == Some(CLOSED_NAMESPACE))
        {
            let message = format!("{} is forbidden: User \"bre\" cannot list it", place.plural);
            return status(403, "Forbidden", &message);
        }
        match (method, place.name) {
            ("GET", None) => (200, self.list(path, query, &place)),
            ("POST", None) => self.create(path, &place, body),
            ("GET", Some(name)) => match self.objects.get(path) {
                Some(object) => (200, object.clone()),
                None => not_found(&place, name),
            },
            ("PATCH" | "PUT", Some(name)) => self.patch(path, &place, name, body),
            ("DELETE", Some(name)) => match self.objects.remove(path) {
                None => not_found(&place, name),
                Some(object) => {
                    self.tell("DELETED", path, &object);
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

    fn tell(&mut self, what: &str, path: &str, object: &Value) {
        let list = path.rsplit_once('/').map_or(path, |(list, _)| list);
        let event = json!({"type": what, "object": object});
        self.events.push((list.to_owned(), event));
    }

    fn create(&mut self, path: &str, place: &Place<'_>, body: &[u8]) -> (u16, Value) {
        let name = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let Some(name) = name["metadata"]["name"].as_str() else {
            return status(400, "BadRequest", "no name");
        };
        let path = format!("{path}/{name}");
        match self.objects.contains_key(&path) {
            true => status(
                409,
                "AlreadyExists",
                &format!("{} \"{name}\" already exists", place.plural),
            ),
            false => self.patch(&path, place, name, body),
        }
    }

    fn list(&self, path: &str, query: &str, place: &Place<'_>) -> Value {
        let below = format!("{path}/");
        let found = self.objects.iter().filter(|(path, _)| {
            let name = path.strip_prefix(&below);
            name.is_some_and(|name| !name.contains('/'))
        });
        let labels = labels(query);
        let is_of = |object: &&Value| {
            let mut labels = labels.iter();
            labels.all(|(name, value)| object["metadata"]["labels"][name] == value.as_str())
        };
        let items: Vec<&Value> = found.map(|(_, object)| object).filter(is_of).collect();
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
        let what = if is_new { "ADDED" } else { "MODIFIED" };
        self.tell(what, path, &object);
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

/// `labelSelector=a%3Db%2Cc%3Dd`: those that name one value.
fn labels(query: &str) -> Vec<(String, String)> {
    let selector = query
        .split('&')
        .find_map(|part| part.strip_prefix("labelSelector="));
    let selector = selector
        .unwrap_or_default()
        .replace("%3D", "=")
        .replace("%2C", ",");
    let label = |label: &str| {
        let (name, value) = label.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    selector.split(',').filter_map(label).collect()
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
            object.as_object_mut().map(|fields| fields.remove(name));
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
