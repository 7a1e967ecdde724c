//! The record of quotes: complete, shared commits, replayed to the same bytes.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::harness::{GME, Instance};

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_at_once_share_commits_and_are_all_there() {
    let instance = Arc::new(Instance::start().await);
    let key = instance.key_for("standard").await;
    let before: u64 = instance
        .value("SELECT pg_stat_get_db_xact_commit(oid) FROM pg_database WHERE datname = 'bre'")
        .await
        .parse()
        .unwrap();
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let (instance, key) = (Arc::clone(&instance), key.clone());
            tokio::spawn(async move { instance.locate(&key, GME).await })
        })
        .collect();
    let mut places = BTreeSet::new();
    for task in tasks {
        let answer = task.await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.body);
        let body = answer.json();
        let place = (
            body["audit"]["epoch"].as_u64().unwrap(),
            body["audit"]["position"].as_u64().unwrap(),
        );
        let sql = format!(
            "SELECT quote_id FROM audit_log WHERE (epoch, position) = ({}, {})",
            place.0, place.1
        );
        assert_eq!(
            instance.value(&sql).await,
            body["quote_id"].as_str().unwrap()
        );
        places.insert(place);
    }
    assert_eq!(places.len(), 200);
    assert_eq!(instance.value("SELECT count(*) FROM quotes").await, "200");
    // Rows of one commit carry one transaction id.
    let commits: u64 = instance
        .value("SELECT count(DISTINCT xmin::text) FROM quotes")
        .await
        .parse()
        .unwrap();
    assert!(
        commits < 200,
        "{commits} commits for 200 quotes (of {before} before)"
    );
    let report = instance.verify().await;
    assert_eq!((report.log.first_bad, report.quotes), (None, 200));
    let replayed = services::replay(
        &instance.login("bre_service"),
        0,
        services::Period::default(),
        |_| {},
    )
    .await
    .unwrap();
    assert_eq!((replayed.checked, replayed.mismatches.len()), (200, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_finds_its_own_quotes_only() {
    let instance = Instance::start().await;
    let (ours, theirs) = (
        instance.key_for("standard").await,
        instance.key_for("premium").await,
    );
    let answer = instance.locate(&ours, GME).await;
    let quote = answer.json();
    let id = quote["quote_id"].as_str().unwrap();
    let found = instance.get(&ours, &format!("/api/v1/quotes/{id}")).await;
    let mut body = found.json();
    body.as_object_mut().unwrap().remove("recorded_at").unwrap();
    assert_eq!(body, quote, "a quote reads back as it was answered");
    assert_eq!(
        instance
            .get(&theirs, &format!("/api/v1/quotes/{id}"))
            .await
            .status,
        404
    );
    let list = instance
        .get(&ours, "/api/v1/quotes?request_id=test-1")
        .await
        .json();
    assert_eq!(
        (
            list["pagination"]["total"].as_u64(),
            list["items"][0]["quote_id"].as_str()
        ),
        (Some(1), Some(id))
    );
    assert_eq!(
        instance
            .get(&theirs, "/api/v1/quotes?request_id=test-1")
            .await
            .json()["pagination"]["total"],
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fee_agrees_with_the_formula_worked_out_here() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let answer = instance.locate(&key, GME).await;
    // base 0.19, index 20, no event: 0.19 x 1.2 = 0.228; 100000 x 0.228 x 30 / 365 = 1873.97260..., 5 % of it, 25 flat.
    for part in [
        "\"borrow_rate_used\":0.22800000",
        "\"borrow_cost\":1873.9726",
        "\"markup\":93.6986",
        "\"transaction_fees\":25.0000",
        "\"total_fee\":1992.6712",
    ] {
        assert!(answer.body.contains(part), "{part} in {}", answer.body);
    }
}
