//! Redis: written on every read of the database, read when the database is away at the start, never needed.

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
    let ttl = redis.command("TTL bre:1:rates").unwrap();
    let seconds: u32 = ttl.trim().trim_start_matches(':').parse().unwrap();
    assert!((1..=300).contains(&seconds), "{ttl}");
    assert!(
        !redis.command("GET bre:1:keys").unwrap().contains(&key),
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
