//! Redis: written on every read of the database, read when the database is away at the start, never needed.

use serde_json::Value;
use testkit::TestRedis;

use crate::harness::{Answer, GME, Instance, Options, http_client, until};

#[tokio::test(flavor = "multi_thread")]
async fn rates_come_from_the_cache_when_the_database_is_away_at_the_start() {
    let mut redis = TestRedis::start();
    let mut instance = Instance::with(Options {
        redis: Some(redis.url().into()),
        ..Options::default()
    })
    .await;
    let key = instance.key_for("standard").await;
    let ttl = redis.command("TTL bre:2:rates").unwrap();
    let seconds: u32 = ttl.trim().trim_start_matches(':').parse().unwrap();
    assert!((1..=300).contains(&seconds), "{ttl}");
    assert!(
        !redis.command("GET bre:2:keys").unwrap().contains(&key),
        "a key itself is in the cache"
    );
    instance.stop().await;
    instance
        .postgres
        .stop(postgres_physical::server::StopMode::Fast);
    instance.launch().await;
    let rate = async || instance.get(&key, "/api/v1/rates/GME").await;
    let answer = until("a rate", rate, |answer| answer.status != 503).await;
    let body = answer.json();
    assert_eq!(
        (answer.status, body["stale"].as_bool()),
        (200, Some(true)),
        "{}",
        answer.body
    );
    let locate = instance.locate(&key, GME).await;
    assert!(
        locate.status == 503 && locate.body.contains("\"part\":\"database\""),
        "{}",
        locate.body
    );
    // And without either: the database is back, Redis is gone.
    redis.kill();
    instance.postgres.start_again();
    instance
        .services()
        .wait_ready(crate::harness::SETTLED)
        .await
        .unwrap();
    assert_eq!(instance.locate(&key, GME).await.status, 200);
    let ask = async || {
        Answer::of(http_client().get(instance.url("/api/v1/health")))
            .await
            .body
    };
    let down = "\"cache\":{\"status\":\"down\"}";
    let health = until("health tells", ask, |health| health.contains(down)).await;
    assert!(health.contains("\"status\":\"degraded\""), "{health}");
}

async fn health(instance: &Instance) -> Value {
    Answer::of(http_client().get(instance.url("/api/v1/health")))
        .await
        .json()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_system_left_in_the_cache_is_not_read_and_is_told_of() {
    let redis = TestRedis::start();
    let options = Options {
        redis: Some(redis.url().into()),
        ..Options::default()
    };
    let other = Instance::with(options.clone()).await;
    let stranger = other.key_for("standard").await;
    assert_eq!(other.get(&stranger, "/api/v1/rates/GME").await.status, 200);
    // Its database has never answered; whatever there is in the cache is the other one's.
    let mut ours = Instance::prepared(options);
    ours.postgres
        .stop(postgres_physical::server::StopMode::Fast);
    ours.launch().await;
    let noticed = until(
        "the other one's objects are noticed",
        async || health(&ours).await,
        |health| health["components"]["cache"]["foreign_objects"].as_u64() > Some(0),
    )
    .await;
    assert_eq!(noticed["components"]["market_view"]["status"], "empty");
    assert_eq!(noticed["components"]["cache"]["status"], "degraded");
    let answer = ours.get(&stranger, "/api/v1/rates/GME").await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    // With a database of its own the cache is filled anew, and the other one hears of it.
    ours.postgres.start_again();
    ours.services()
        .wait_ready(crate::harness::SETTLED)
        .await
        .unwrap();
    assert_eq!(ours.get(&stranger, "/api/v1/rates/GME").await.status, 401);
    other.services().set_feeds(Default::default());
    let told = until(
        "the other one notices",
        async || health(&other).await,
        |health| health["components"]["cache"]["foreign_objects"].as_u64() > Some(0),
    )
    .await;
    assert_eq!(told["status"], "degraded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_refuses_is_told_of_in_its_own_words() {
    let redis = TestRedis::start();
    let instance = Instance::with(Options {
        redis: Some(redis.url().into()),
        ..Options::default()
    })
    .await;
    let part = async |part: &'static str, wanted: &'static str| {
        let health = until(
            wanted,
            async || health(&instance).await,
            |health| health["components"][part].to_string().contains(wanted),
        );
        health.await
    };
    let is_well = async || {
        part("cache", "\"up\"").await;
        let health = part("rate_limits", "\"shared\":true").await;
        // The sample's own age is a concern as well.
        let concerns = health["degraded"].to_string();
        assert!(
            !concerns.contains("\"cache\"") && !concerns.contains("rate_limits"),
            "{health}"
        );
    };
    is_well().await;
    let both = async |word: &'static str| {
        part("cache", word).await;
        let health = part("rate_limits", word).await;
        assert_eq!(health["status"], "degraded", "{health}");
        for part in ["cache", "rate_limits"] {
            assert_eq!(health["components"][part]["status"], "degraded", "{health}");
            let concerns = health["degraded"].as_array().unwrap();
            let concern = concerns.iter().find(|concern| concern["part"] == part);
            assert!(
                concern.unwrap()["reason"].to_string().contains(word),
                "{health}"
            );
        }
        // It refuses for as long as it refuses, and does not say yes in between.
        let began = std::time::Instant::now();
        while began.elapsed() < std::time::Duration::from_millis(1300) {
            let health = self::health(&instance).await;
            assert_eq!(
                health["components"]["rate_limits"]["shared"], false,
                "{health}"
            );
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    redis.command("REPLICAOF 127.0.0.1 1").unwrap();
    both("READONLY").await;
    redis.command("REPLICAOF NO ONE").unwrap();
    is_well().await;
    redis
        .command("ACL SETUSER default -eval -set -setex")
        .unwrap();
    both("NOPERM").await;
    redis.command("ACL SETUSER default +@all").unwrap();
    is_well().await;
    redis.command("CONFIG SET maxmemory 1").unwrap();
    both("OOM").await;
    redis.command("CONFIG SET maxmemory 0").unwrap();
    is_well().await;
    // Its snapshot cannot be written where a folder has the file's name; from then on it takes no writes.
    std::fs::create_dir(redis.socket().with_file_name("dump.rdb")).unwrap();
    redis.command("CONFIG SET save \"3600 1\"").unwrap();
    redis.command("BGSAVE").unwrap();
    testkit::eventually("the snapshot fails", || {
        let state = redis.command("INFO persistence").unwrap();
        state.contains("rdb_last_bgsave_status:err").then_some(())
    });
    both("MISCONF").await;
    redis.command("CONFIG SET save \"\"").unwrap();
    is_well().await;
}
