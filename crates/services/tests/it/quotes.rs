//! The record of quotes: complete, shared commits, replayed to the same bytes.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::harness::{GME, Instance, until};

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

/// A price that does not follow from its recorded inputs is named, although the entry is well formed.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_names_the_quote_whose_price_does_not_follow_from_its_inputs() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let mut places = Vec::new();
    for _ in 0..3 {
        let audit = instance.locate(&key, GME).await.json()["audit"].clone();
        places.push((
            audit["epoch"].as_i64().unwrap(),
            audit["position"].as_i64().unwrap(),
        ));
    }
    let replay = async || {
        let database = instance.login("bre_service");
        services::replay(&database, 0, services::Period::default(), |_| {})
            .await
            .unwrap()
    };
    assert_eq!(replay().await.mismatches.len(), 0);
    let (epoch, position) = places[1];
    let mut entry = instance.entry(&format!("0-{epoch}-{position}")).await;
    let outputs = entry.fields.get("outputs").unwrap();
    let last = outputs.rfind(|digit: char| digit.is_ascii_digit()).unwrap();
    let digit = if outputs[last..].starts_with('9') {
        "8"
    } else {
        "9"
    };
    let mut changed = outputs.to_owned();
    changed.replace_range(last..=last, digit);
    entry.fields.set("outputs", changed);
    let bytes = entry.to_bytes().unwrap();
    instance
        .sql(&format!(
            "ALTER TABLE audit_log DISABLE TRIGGER ALL; UPDATE audit_log SET canonical = decode('{}', 'hex'), \
             hash = decode('{}', 'hex') WHERE (log, epoch, position) = (0, {epoch}, {position})",
            audit::hex::encode(&bytes),
            audit::Entry::hash_of(&bytes),
        ))
        .await;
    let report = replay().await;
    assert_eq!(report.checked, 3);
    let named: Vec<(i64, i64)> = report
        .mismatches
        .iter()
        .map(|it| (it.epoch, it.position))
        .collect();
    assert_eq!(named, [(epoch, position)], "{:?}", report.mismatches);
}

/// While the commit cannot end, there is no answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_quote_is_answered_only_when_its_entry_is_committed() {
    let instance = Arc::new(Instance::start().await);
    let key = instance.key_for("standard").await;
    let (client, connection) =
        tokio_postgres::connect(&instance.login("postgres"), tokio_postgres::NoTls)
            .await
            .unwrap();
    tokio::spawn(connection);
    client
        .batch_execute("BEGIN; LOCK TABLE audit_log IN EXCLUSIVE MODE")
        .await
        .unwrap();
    let (asking, asked) = (Arc::clone(&instance), key.clone());
    let answer = tokio::spawn(async move { asking.locate(&asked, GME).await });
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bre audit writer' \
                   AND wait_event_type = 'Lock'";
    until(
        "the writer waits for the table",
        async || instance.value(waiting).await,
        |count: &String| count == "1",
    )
    .await;
    assert!(!answer.is_finished(), "answered before the commit");
    assert_eq!(instance.value("SELECT count(*) FROM quotes").await, "0");
    client.batch_execute("COMMIT").await.unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let id = answer.json()["quote_id"].as_str().unwrap().to_owned();
    let recorded = format!("SELECT count(*) FROM audit_log WHERE quote_id = '{id}'");
    assert_eq!(instance.value(&recorded).await, "1");
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
