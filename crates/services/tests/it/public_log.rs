//! The log for outsiders: what is shown at `/log/`, what a client can prove, what a witness signs; all against a real database.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit::{
    Checkpoint, Hash, InclusionProof, Note, NoteKey, SignatureKind, SignedHead, SignedPlace,
    TileId, TiledTree, VerifyingKey, is_consistent, read_tile,
};
use services::{PublicLogConfig, PublicLogStore, RecoveryFact, Witness, WitnessConfig};
use tokio::net::TcpListener;

use crate::harness::{Answer, GME, Instance, Options, Outside, http_client, until};

/// What a repository keeps.
#[derive(Debug, Default)]
pub struct LogFolder {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    outside: Mutex<Option<Arc<Outside>>>,
}

impl LogFolder {
    fn put(&self, name: String, bytes: &[u8]) -> Result<(), String> {
        let mut objects = self.objects.lock().unwrap();
        let kept = objects.entry(name.clone()).or_insert(bytes.to_vec());
        match name.starts_with("tlog/") && kept != bytes {
            true => Err(format!("{name} is there with other bytes")),
            false => Ok(()),
        }
    }

    fn names(&self, prefix: &str) -> Vec<String> {
        let objects = self.objects.lock().unwrap();
        let names = objects.keys().filter(|name| name.starts_with(prefix));
        names.cloned().collect()
    }
}

impl PublicLogStore for LogFolder {
    fn tile(&self, began: u32, id: TileId) -> Result<Option<Vec<u8>>, String> {
        let name = format!("tlog/{began}/{}", id.path());
        Ok(self.objects.lock().unwrap().get(&name).cloned())
    }
    fn put_tile(&self, began: u32, id: TileId, bytes: &[u8]) -> Result<(), String> {
        self.put(format!("tlog/{began}/{}", id.path()), bytes)
    }
    fn origins(&self) -> Result<Vec<u32>, String> {
        let began = |name: &String| name.rsplit('/').next().unwrap().parse().unwrap();
        Ok(self.names("origins/").iter().map(began).collect())
    }
    fn put_first(&self, began: u32, checkpoint: &[u8]) -> Result<(), String> {
        self.put(format!("origins/{began}"), checkpoint)
    }
    fn put_cosigned(&self, head: (u32, u64), key: &NoteKey, note: &[u8]) -> Result<(), String> {
        self.put(format!("cosigned/{}-{}.{}", head.0, head.1, key.id()), note)
    }
    fn head(&self, epoch: u32, size: u64) -> Result<Option<SignedHead>, String> {
        let outside = self.outside.lock().unwrap();
        let heads = outside.as_ref().unwrap().heads.lock().unwrap();
        let is_it =
            |head: &&SignedHead| (head.claimed().epoch, head.claimed().size) == (epoch, size);
        Ok(heads.iter().find(is_it).cloned())
    }
    fn keep_head(&self, epoch: u32, size: u64) -> Result<(), String> {
        self.put(format!("kept/{epoch}-{size}"), &[])
    }
    fn statements(&self) -> Result<Vec<Vec<u8>>, String> {
        Ok(Vec::new())
    }
}

/// What an instance publishes its log with.
#[derive(Clone)]
pub struct Public {
    pub kept: Arc<LogFolder>,
    pub folder: std::path::PathBuf,
    pub witnesses: Vec<WitnessConfig>,
}

impl Public {
    pub fn config(&self, outside: &Arc<Outside>) -> PublicLogConfig {
        *self.kept.outside.lock().unwrap() = Some(Arc::clone(outside));
        PublicLogConfig {
            name: "log.example".to_owned(),
            folder: self.folder.clone(),
            store: Arc::clone(&self.kept) as _,
            witnesses: self.witnesses.clone(),
            witness_every: Duration::from_millis(50),
        }
    }
}

/// Ours, on a port of its own, until the sender is dropped.
struct Site {
    key: NoteKey,
    address: std::net::SocketAddr,
    _stop: tokio::sync::oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<()>,
}

async fn site(folder: &Path, log: &VerifyingKey, at: Option<std::net::SocketAddr>) -> Site {
    let known = NoteKey::new("log.example/log-0", SignatureKind::Plain, log.clone()).unwrap();
    let witness = Witness::open(folder, "witness.example/w", &[known]).unwrap();
    let here = at.unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
    let listener = TcpListener::bind(here).await.unwrap();
    let (address, key) = (listener.local_addr().unwrap(), witness.key().clone());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let ended = tokio::spawn(async move {
        let until = async { drop(stopped.await) };
        witness.serve(listener, until).await.unwrap();
    });
    Site {
        key,
        address,
        _stop: stop,
        ended,
    }
}

impl Site {
    async fn stop(self) {
        drop(self._stop);
        self.ended.await.unwrap();
    }
}

async fn log_file(instance: &Instance, path: &str) -> Option<Vec<u8>> {
    let url = instance.url(&format!("/log/log-0/{path}"));
    let response = http_client().get(url).send().await.unwrap();
    match response.status().as_u16() {
        200 => Some(response.bytes().await.unwrap().to_vec()),
        404 => None,
        other => panic!("{other}: {}", response.text().await.unwrap()),
    }
}

/// The newest checkpoint of an origin, as somebody reads it who has the log's key.
async fn checkpoint(instance: &Instance, began: u32) -> Option<Checkpoint> {
    let bytes = log_file(instance, &format!("{began}/checkpoint")).await?;
    let keys = [instance.key.verifying_key().clone()];
    Some(Checkpoint::verify(&Note::parse(&bytes).unwrap(), &keys).unwrap())
}

async fn checkpoint_of(instance: &Instance, began: u32, size: u64) -> Checkpoint {
    until(
        "a checkpoint that covers it",
        async || checkpoint(instance, began).await,
        |found| found.as_ref().is_some_and(|found| found.size >= size),
    )
    .await
    .unwrap()
}

/// All tiles that a proof in a tree of that size may need, over HTTP.
async fn tiles(instance: &Instance, began: u32, size: u64) -> BTreeMap<TileId, Vec<Hash>> {
    let mut tiles = BTreeMap::new();
    for level in 0..2 {
        let mut at = 0;
        while let Some(id) = TileId::holding(level, at, size) {
            let bytes = log_file(instance, &format!("{began}/{}", id.path())).await;
            tiles.insert(id, read_tile(id, &bytes.unwrap()).unwrap());
            at += 256;
        }
    }
    tiles
}

/// An outsider sees that the newer checkpoint continues the older one.
async fn follows(instance: &Instance, began: u32, old: &Checkpoint, new: &Checkpoint) {
    let tiles = tiles(instance, began, new.size).await;
    let mut tree = TiledTree::new(new.size, |id| tiles.get(&id).cloned().ok_or(id));
    assert_eq!(tree.root().unwrap(), new.root);
    let proof = tree.consistency(old.size).unwrap();
    assert!(is_consistent(
        (old.size, old.root),
        (new.size, new.root),
        &proof
    ));
}

async fn quote(instance: &Instance, key: &str) -> (String, u64) {
    let answer = instance.locate(key, GME).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let audit = &answer.json()["audit"];
    let position = audit["position"].as_u64().unwrap();
    let id = format!("{}-{}-{position}", audit["log"], audit["epoch"]);
    (id, position)
}

async fn part_of_health(instance: &Instance, part: &str) -> Option<String> {
    let health = instance.get("", "/health").await.json();
    let concerns = health["degraded"].as_array().unwrap();
    let ours = concerns.iter().find(|concern| concern["part"] == part)?;
    Some(ours["reason"].as_str().unwrap().to_owned())
}

/// As a superuser who means ill does it.
fn cut_to(size: u64) -> String {
    let tables = ["quotes", "audit_log"];
    tables
        .map(|table| {
            format!(
                "ALTER TABLE {table} DISABLE TRIGGER ALL; DELETE FROM {table} WHERE position > {size}; ALTER TABLE {table} ENABLE TRIGGER ALL;"
            )
        })
        .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn outsiders_watch_clients_prove_and_witnesses_sign() {
    let folder = tempfile::tempdir().unwrap();
    let mut instance = Instance::prepared(Options::default());
    let log_key = instance.key.verifying_key().clone();
    let first = site(&folder.path().join("witness"), &log_key, None).await;
    let (address, witness) = (first.address, first.key.clone());
    let public = Public {
        kept: Arc::default(),
        folder: folder.path().join("public"),
        witnesses: vec![WitnessConfig {
            url: format!("http://{address}"),
            key: witness.clone(),
        }],
    };
    instance.options.public = Some(public.clone());
    instance.launch().await;
    instance
        .services()
        .wait_ready(crate::harness::SETTLED)
        .await
        .unwrap();
    let key = instance.key_for("standard").await;

    // A proof comes when a published head covers the entry, and 202 before; held back, it is 202 for certain.
    instance
        .outside
        .durable
        .store(0, std::sync::atomic::Ordering::Relaxed);
    let (held, position) = quote(&instance, &key).await;
    let path = format!("/api/v1/audit/{held}/proof");
    let waiting = instance.get(&key, &path).await;
    assert_eq!(waiting.status, 202, "{}", waiting.body);
    assert!(
        waiting
            .headers
            .iter()
            .any(|(name, value)| name == "retry-after" && value == "1")
    );
    instance
        .outside
        .durable
        .store(u64::MAX, std::sync::atomic::Ordering::Relaxed);
    let proved = until(
        "a proof",
        async || instance.get(&key, &path).await,
        |a: &Answer| a.status != 202,
    )
    .await;
    assert_eq!(proved.status, 200, "{}", proved.body);
    let proof = InclusionProof::from_json(proved.body.as_bytes()).unwrap();
    let said = proof.verify(std::slice::from_ref(&log_key)).unwrap();
    assert_eq!(said.entry.position, position);
    let entry = instance
        .get(&key, &format!("/api/v1/audit/{held}"))
        .await
        .json();
    assert_eq!(entry["hash"], said.hash.to_string());
    // The head that it was made with is kept, and serves as long as it covers what is asked for.
    assert_eq!(instance.get(&key, &path).await.body, proved.body);
    let head = format!("kept/{}-{}", said.head.epoch, said.head.size);
    assert_eq!(public.kept.names("kept/"), [head]);
    // Of another client's nothing is told.
    let other = instance.key_for("premium").await;
    assert_eq!(instance.get(&other, &path).await.status, 404);
    assert_eq!(instance.get("", &path).await.status, 401);

    // The log grows past a full tile, and an outsider follows it.
    let old = checkpoint_of(&instance, 1, position).await;
    let mut last = position;
    while last < 300 {
        let asks = (0..24).map(|_| quote(&instance, &key));
        let done = futures_util::future::join_all(asks).await;
        last = done.iter().map(|(_, position)| *position).max().unwrap();
    }
    let new = checkpoint_of(&instance, 1, last).await;
    follows(&instance, 1, &old, &new).await;
    assert_eq!(public.kept.names("tlog/"), ["tlog/1/tile/0/000"]);
    for nothing in [
        "1/tile/entries/000",
        "1/tile/0/001",
        "1/../../etc/passwd",
        "7/checkpoint",
    ] {
        assert_eq!(log_file(&instance, nothing).await, None, "{nothing}");
    }

    // The witness signed, over the very text.
    let cosigned = async || {
        let note = Note::parse(&log_file(&instance, "1/cosigned").await?).unwrap();
        assert!(
            witness
                .signed(&note, SignedPlace::Nowhere)
                .unwrap()
                .is_some()
        );
        Some(
            Checkpoint::verify(&note, std::slice::from_ref(&log_key))
                .unwrap()
                .size,
        )
    };
    until("a cosignature", cosigned, |size| *size >= Some(last)).await;
    assert!(
        public
            .kept
            .names("cosigned/")
            .iter()
            .any(|name| name.ends_with(&witness.id().to_string()))
    );
    // A silent one is told in health and stops nobody; back, it goes on from what it has on disk.
    first.stop().await;
    let (_, after) = quote(&instance, &key).await;
    checkpoint_of(&instance, 1, after).await;
    let part = "witness.witness.example/w";
    until(
        "the silent witness is told",
        async || part_of_health(&instance, part).await,
        Option::is_some,
    )
    .await;
    let again = site(&folder.path().join("witness"), &log_key, Some(address)).await;
    until("a cosignature again", cosigned, |size| *size >= Some(after)).await;
    until(
        "all is well",
        async || part_of_health(&instance, part).await,
        Option::is_none,
    )
    .await;

    // Deleted, the folder comes back; a start goes on from the tiles.
    instance.stop().await;
    std::fs::remove_dir_all(&public.folder).unwrap();
    instance.launch().await;
    instance
        .services()
        .wait_ready(crate::harness::SETTLED)
        .await
        .unwrap();
    let key = instance.key_for("standard").await;
    let (_, position) = quote(&instance, &key).await;
    let newer = checkpoint_of(&instance, 1, position).await;
    follows(&instance, 1, &new, &newer).await;
    assert!(public.folder.join("log-0/1/tile/0/000").is_file());

    // Database, heads and repository rolled back together look whole from inside; the witness remembers.
    instance.stop().await;
    let size = || {
        instance
            .outside
            .heads
            .lock()
            .unwrap()
            .last()
            .unwrap()
            .claimed()
            .size
    };
    let back = size() - 2;
    instance.sql(&cut_to(back)).await;
    instance
        .outside
        .heads
        .lock()
        .unwrap()
        .retain(|head| head.claimed().size <= back);
    instance.launch().await;
    instance
        .services()
        .wait_ready(crate::harness::SETTLED)
        .await
        .unwrap();
    let convicted = |told: &Option<String>| {
        told.as_ref()
            .is_some_and(|told| told.contains("bre verify audit"))
    };
    until(
        "the witness convicts it",
        async || part_of_health(&instance, part).await,
        convicted,
    )
    .await;

    // A recovery that leaves published entries behind begins a new origin, which says what was.
    instance.stop().await;
    let published = instance.outside.heads.lock().unwrap().clone();
    let newest = published
        .iter()
        .max_by_key(|head| head.claimed().size)
        .unwrap()
        .claimed()
        .clone();
    let gone = newest.size - 3;
    instance.sql(&cut_to(gone)).await;
    instance.options.recovery = Some(RecoveryFact {
        restore_id: "r-1".to_owned(),
        timeline: 4,
        target_lsn: 7,
    });
    instance.launch().await;
    let begun = checkpoint_of(&instance, 4, gone + 1).await;
    assert_eq!(begun.origin, "log.example/log-0/4");
    let left = begun.left_behind().unwrap().unwrap();
    assert_eq!(
        (left.origin.as_str(), left.size, left.root),
        ("log.example/log-0/1", newest.size, Some(newest.root))
    );
    let first = Note::parse(&public.kept.objects.lock().unwrap()["origins/4"].clone()).unwrap();
    assert_eq!(
        Checkpoint::read(&first).unwrap().left_behind(),
        Ok(Some(left))
    );
    let origins = log_file(&instance, "origins").await.unwrap();
    assert_eq!(
        String::from_utf8(origins).unwrap(),
        "log.example/log-0/1\nlog.example/log-0/4\n"
    );
    instance.stop().await;
    again.stop().await;
}

/// A root that the entries do not lead to is never shown.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_behind_the_log_is_not_published() {
    let folder = tempfile::tempdir().unwrap();
    let mut instance = Instance::prepared(Options::default());
    let public = Public {
        kept: Arc::default(),
        folder: folder.path().join("public"),
        witnesses: Vec::new(),
    };
    instance.options.public = Some(public);
    instance.launch().await;
    instance
        .services()
        .wait_ready(crate::harness::SETTLED)
        .await
        .unwrap();
    let key = instance.key_for("standard").await;
    let (_, position) = quote(&instance, &key).await;
    let shown = checkpoint_of(&instance, 1, position).await;
    instance.stop().await;
    instance.sql("ALTER TABLE audit_log DISABLE TRIGGER ALL; UPDATE audit_log SET hash = sha256(hash) WHERE position = 2").await;
    instance.launch().await;
    instance
        .services()
        .wait_ready(crate::harness::SETTLED)
        .await
        .unwrap();
    let why = until(
        "it is told",
        async || part_of_health(&instance, "public_log").await,
        Option::is_some,
    )
    .await;
    assert!(why.unwrap().contains("bre verify audit"));
    assert_eq!(checkpoint(&instance, 1).await.unwrap(), shown);
}
