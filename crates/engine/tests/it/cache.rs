//! The cache's jobs, its restores and its settings, by the command line: a Redis of somebody else over TLS and as a
//! user of an ACL, and the one that `bre up` starts.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc};

use redis_physical::{RedisSession, RedisSettings};
use repository::{
    Repository,
    keys::{ChunkIdKey, RecipientPrivate},
    store::PosixStore,
};
use serde_json::Value;
use testkit::{Authority, KeyKind, TestRedis};

use crate::{
    instance::{Folder, Instance},
    process::Output,
};

const PASSWORD: &str = "hush-hush-7";

/// A repository and keys, no engine, and a Redis that others run.
struct Fixture {
    redis: TestRedis,
    folder: Folder,
}

impl Fixture {
    fn new() -> Self {
        let authority = Authority::new("authority", KeyKind::EcdsaSha256);
        let desk = Self {
            redis: TestRedis::secured(&authority.server(&["localhost"]), &authority, false),
            folder: Folder::new(),
        };
        for name in ["repository", "keys"] {
            fs::create_dir_all(desk.data(name)).unwrap();
        }
        let store = PosixStore::new(desk.data("repository"));
        Repository::init(Arc::new(store)).unwrap();
        let key = RecipientPrivate::generate().unwrap();
        key.store(&desk.data("keys/recipient.key")).unwrap();
        key.public()
            .store(&desk.data("keys/recipient.pub"))
            .unwrap();
        let chunk_id = ChunkIdKey::generate().unwrap();
        chunk_id.store(&desk.data("keys/chunk_id.key")).unwrap();
        let (roots, password) = (desk.folder.join("roots.pem"), desk.folder.join("password"));
        fs::write(&roots, authority.certificate()).unwrap();
        let settings = format!(
            "[cache]\nurl = \"rediss://bre@localhost:{}/\"\nca_file = \"{}\"\npassword_file = \"{}\"\n",
            desk.redis.port(),
            roots.display(),
            password.display()
        );
        for (path, text) in [
            (password, PASSWORD.to_owned()),
            (desk.data("bre.toml"), settings),
        ] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        }
        // The rights that docs/operations/cache.md names.
        let rights = "+ping +select +info +config|get +bgsave +time +@read +@write +watch +unwatch +multi +exec \
                      +bgrewriteaof";
        desk.redis(&format!("ACL SETUSER bre on >{PASSWORD} ~* {rights}"));
        desk.redis("CONFIG SET appendonly yes");
        desk
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.join("data").join(name)
    }

    /// As its administrator.
    fn redis(&self, line: &str) -> String {
        let answer = self.redis.command(line).unwrap();
        assert!(!answer.starts_with('-'), "{line}: {answer}");
        answer
    }

    fn bre(&self, arguments: &[&str]) -> Output {
        let data = self.folder.join("data");
        let output = self
            .folder
            .run(&[&["--data", data.to_str().unwrap()], arguments].concat());
        assert!(
            !format!("{output:?}").contains(PASSWORD),
            "the password is shown: {output:?}"
        );
        output
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.bre(&[&["--json"], arguments].concat()).json()
    }
}

#[test]
fn a_cache_that_others_run_is_copied_and_restored_over_tls_as_a_user_with_few_rights() {
    let desk = Fixture::new();
    // Its settings are another right, and none of ours: said, and nothing is done.
    let check = desk.bre(&["check", "redis"]);
    assert!(
        check.exits(1).out.contains("aof-timestamp-enabled"),
        "{check:?}"
    );
    desk.bre(&["check", "redis", "--apply"])
        .refused(&["does not allow CONFIG", "ACL SETUSER"]);
    desk.redis("ACL SETUSER bre +config|set +config|rewrite");
    let applied = desk.bre(&["check", "redis", "--apply"]);
    assert!(
        applied
            .exits(0)
            .out
            .contains("set, and not kept: ERR The server is running without a config file"),
        "{applied:?}"
    );
    desk.bre(&["check", "redis"]).exits(0);
    desk.redis("ACL SETUSER bre -config|set -config|rewrite");

    for number in 0..20 {
        desk.redis(&format!("SET key-{number} {number} EX 3000"));
    }
    let copy = desk.json(&["job", "run", "cache.aof"]);
    assert_eq!(copy["facts"]["keys"], 20, "{copy}");
    let snapshot = desk.json(&["job", "run", "cache.rdb"]);
    assert_eq!(
        (&snapshot["component"], &snapshot["verified"]),
        (&"cache".into(), &true.into()),
        "{snapshot}"
    );
    let history = desk.json(&["job", "history", "cache.rdb"]);
    assert_eq!(history["runs"][0]["figures"]["keys"], 20, "{history}");

    for origin in ["aof", "rdb"] {
        desk.redis("FLUSHALL");
        // What came since is newer, and stays.
        desk.redis("SET key-3 newer EX 9000");
        let plan = desk.json(&["restore", "cache", "--from", origin, "--dry-run"]);
        assert_eq!(
            (&plan["create"], &plan["keep"], &plan["restored"]),
            (&19.into(), &1.into(), &Value::Null),
            "{plan}"
        );
        assert_eq!(desk.redis("DBSIZE"), ":1\r\n");
        desk.bre(&["restore", "cache", "--from", origin])
            .refused(&["--yes"]);
        let done = desk.json(&["restore", "cache", "--from", origin, "--yes"]);
        assert_eq!(
            (
                &done["restored"]["written"],
                &done["restored"]["append_only_file"]
            ),
            (&19.into(), &true.into()),
            "{done}"
        );
        assert_eq!(desk.redis("DBSIZE"), ":20\r\n");
        assert_eq!(desk.redis("GET key-3"), "$5\r\nnewer\r\n");
        let again = desk.bre(&["restore", "cache", "--from", origin, "--yes"]);
        assert!(again.exits(0).out.contains("nothing to do"), "{again:?}");
    }
    // Without an engine there is no database to fill it from: of the others the quicker one.
    let chosen = desk.json(&["restore", "cache", "--dry-run"]);
    let origins = chosen["chosen_from"].as_array().unwrap();
    assert_eq!(origins.len(), 3, "{chosen}");
    assert!(
        origins[0]["unavailable"].is_string() && origins[1]["millis"].is_u64(),
        "{chosen}"
    );
    let quickest = origins[1..]
        .iter()
        .min_by_key(|it| it["millis"].as_u64())
        .unwrap();
    assert_eq!(chosen["from"], quickest["origin"], "{chosen}");
}

#[test]
fn what_keeps_the_cache_from_being_copied_is_said_and_earlier_copies_stay() {
    let desk = Fixture::new();
    desk.redis("SET a 1 EX 3000");
    desk.json(&["job", "run", "cache.aof"]);
    desk.json(&["job", "run", "cache.rdb"]);
    // As of a Redis on another host, or in a container: what it writes is not in the folder of that name here.
    let aof = desk.redis.folder().join("appendonlydir");
    let away = desk.redis.folder().join("away");
    fs::rename(&aof, &away).unwrap();
    desk.bre(&["job", "run", "cache.aof"])
        .refused(&["no appendonly.aof.manifest", "runs on another host"])
        .exits(3);
    fs::rename(&away, &aof).unwrap();
    // Its own word, without a password, and which setting to look at.
    desk.redis("ACL SETUSER bre resetpass >another");
    desk.bre(&["job", "run", "cache.rdb"])
        .refused(&["refuses a login"]);
    let restored = desk.bre(&["restore", "cache", "--from", "aof", "--yes"]);
    restored.refused(&["refuses a login"]);
    fs::write(
        desk.data("bre.toml"),
        "[cache]\nca_file = \"/nowhere.pem\"\n",
    )
    .unwrap();
    desk.bre(&["restore", "cache", "--from", "aof"])
        .refused(&["[cache]", "names no url"]);
    fs::write(
        desk.data("bre.toml"),
        "[cache]\nurl = \"redis://127.0.0.1:1/\"\n",
    )
    .unwrap();
    desk.bre(&["job", "run", "cache.aof"])
        .refused(&["127.0.0.1:1", "does not answer"]);
    desk.bre(&["restore", "cache", "--from", "rdb", "--yes"])
        .refused(&["does not answer"])
        .exits(4);
    let copies = fs::read_dir(desk.data("cache_copies")).unwrap().count();
    assert_eq!(copies, 1, "the copy that was there is there still");
    let list = desk.json(&["snapshot", "list", "cache"]);
    assert_eq!(
        list["snapshots"].as_array().map(Vec::len),
        Some(1),
        "{list}"
    );
}

#[test]
fn the_cache_of_an_instance_is_filled_from_its_database_and_copied() {
    let instance = Instance::start();
    let settings = RedisSettings::from(instance.ready("cache_url").to_owned());
    let mut redis = RedisSession::open(&settings).unwrap();
    // The guide's five settings, and time marks.
    instance.bre(&["check", "redis"]).exits(0);
    redis.ask::<()>(&["FLUSHALL"]).unwrap();
    let warmed = instance.bre(&["restore", "cache"]).json();
    assert_eq!(warmed["from"], "database", "{warmed}");
    assert_eq!(warmed["requests_before"]["hits"], 0, "{warmed}");
    let after = &warmed["requests_after"];
    assert_eq!(
        (&after["hits"], &after["requests"]),
        (&10.into(), &10.into())
    );
    let newest = "SELECT count(DISTINCT ticker) FROM base_rates";
    assert_eq!(
        warmed["rates"].to_string(),
        instance.value(newest),
        "{warmed}"
    );
    let metrics = instance.get("/metrics").text;
    for result in ["hit", "miss"] {
        let line = format!("bre_cache_requests_total{{result=\"{result}\"}} 1");
        assert!(metrics.contains(&line), "{line} is not in:\n{metrics}");
    }
    let copy = instance.bre(&["job", "run", "cache.aof"]).json();
    let keys = copy["facts"]["keys"].as_u64().unwrap();
    assert!(keys > 10, "{copy}");
    redis.ask::<()>(&["FLUSHALL"]).unwrap();
    let restored = instance
        .bre(&["restore", "cache", "--from", "aof", "--yes"])
        .json();
    let written = restored["restored"]["written"].as_u64().unwrap();
    // The engine writes beside it: what it wrote meanwhile is newer.
    assert!(written > 0, "{restored}");
    // A restore is entry kind 8.
    let recorded = "SELECT count(*) FROM audit_log WHERE kind = 8";
    assert_eq!(instance.value(recorded), "1");
}
