//! Limits over several gateways: the windows are Redis'.

use std::sync::Arc;

use reqwest::Client;
use testkit::TestRedis;

use crate::harness::{Answer, Instance, Options, until};

const LIMIT: u32 = 60;

async fn gateway(redis: &TestRedis) -> Instance {
    let mut options = Options {
        redis: Some(redis.url().into()),
        ..Options::default()
    };
    options.settings.requests_per_minute.standard = LIMIT;
    Instance::with(options).await
}

async fn shared(instance: &Instance) -> String {
    let ask = async || Answer::of(Client::new().get(instance.url("/api/v1/health"))).await;
    let health = until("the limits are shared or not", ask, |health| {
        health.status == 200
    })
    .await;
    health.json()["components"]["rate_limits"]["shared"].to_string()
}

/// The minute of Redis' clock.
fn minute(redis: &TestRedis) -> u64 {
    let answer = redis.command("TIME").unwrap();
    answer.lines().nth(2).unwrap().parse::<u64>().unwrap() / 60
}

/// A key that both gateways know, as if they had one database.
async fn key_for_both(one: &Instance, other: &Instance) -> (String, String) {
    let key = one.key_for("standard").await;
    let row = one
        .sql("SELECT key_id, encode(hash, 'hex'), expires_at FROM api_keys ORDER BY created_at DESC LIMIT 1")
        .await
        .remove(0);
    other
        .sql(&format!(
            "INSERT INTO api_keys (key_id, hash, client_id, tier, created_at, expires_at) \
             VALUES ('{}', decode('{}', 'hex'), 'standard', 'standard', now(), '{}'); NOTIFY bre_keys",
            row[0], row[1], row[2]
        ))
        .await;
    let known = async || other.get(&key, "/api/v1/rates/GME").await.status;
    until("the other gateway knows the key", known, |status| {
        *status == 200
    })
    .await;
    (key, row[0].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_at_once_through_two_gateways_get_exactly_what_is_left() {
    let mut redis = TestRedis::start();
    let gateways = [gateway(&redis).await, gateway(&redis).await].map(Arc::new);
    // All of it has to fall into one minute of Redis' clock, and Redis has to answer in time on a busy machine: a run without shows
    // nothing and is made again.
    let mut runs = 0;
    let (key, allowed) = loop {
        runs += 1;
        assert!(
            runs <= 10,
            "no run was shared from its beginning to its end"
        );
        for gateway in &gateways {
            let ask = async || shared(gateway).await;
            until("the limits are shared", ask, |shared| shared == "true").await;
        }
        let began = minute(&redis);
        let (key, id) = key_for_both(&gateways[0], &gateways[1]).await;
        let window = format!("GET bre:1:limit:{{{id}}}:{began}");
        // What looking for the key took: the second line of a bulk answer, or nothing.
        let answer = redis.command(&window).unwrap();
        let used: usize = answer
            .lines()
            .nth(1)
            .map_or(0, |used| used.parse().unwrap());
        let tasks: Vec<_> = (0..200)
            .map(|number| {
                let (gateway, key) = (Arc::clone(&gateways[number % 2]), key.clone());
                tokio::spawn(async move { gateway.get(&key, "/api/v1/rates/GME").await })
            })
            .collect();
        let mut allowed = 0;
        let mut all_shared = true;
        let mut remaining = std::collections::BTreeSet::new();
        for task in tasks {
            let answer = task.await.unwrap();
            assert!(matches!(answer.status, 200 | 429), "{}", answer.body);
            let header = |name: &str| {
                let found = answer.headers.iter().find(|(known, _)| known == name);
                found.unwrap().1.clone()
            };
            all_shared &= header("x-ratelimit-scope") == "shared";
            if answer.status == 200 {
                allowed += 1;
                remaining.insert(header("x-ratelimit-remaining").parse::<u32>().unwrap());
            }
        }
        if all_shared && minute(&redis) == began {
            assert_eq!(
                remaining.len(),
                allowed,
                "two answers claim the same request"
            );
            break (key, allowed + used);
        }
    };
    assert_eq!(allowed, LIMIT as usize);
    // Redis goes: each counts for itself, goes on from what it knows, and says so.
    redis.kill();
    let ask = async || gateways[0].get(&key, "/api/v1/rates/GME").await;
    let alone = |answer: &Answer| {
        let scope = ("x-ratelimit-scope".to_owned(), "gateway".to_owned());
        answer.headers.contains(&scope)
    };
    until("counted by the gateway alone", ask, alone).await;
    assert_eq!(shared(&gateways[0]).await, "false");
    let metrics = Answer::of(Client::new().get(gateways[0].url("/metrics"))).await;
    assert!(metrics.body.contains("bre_rate_limits_shared 0"));
}
