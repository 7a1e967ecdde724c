//! Whoever changes the record is found out: each change is made in SQL by a superuser who switched the triggers off.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::harness::{GME, Instance, NotedLines, Options, until};

/// Every change, and a part of the reason that must be given. The log of the test: opening, 4 brokers, book, index, key, 6 quotes.
const CHANGES: &[(&str, &str)] = &[
    (
        "UPDATE audit_log SET recorded_at = recorded_at + interval '1 microsecond' WHERE position = 10",
        "audit_log.recorded_at",
    ),
    (
        "UPDATE audit_log SET kind = 9 WHERE position = 10",
        "audit_log.kind",
    ),
    (
        "UPDATE audit_log SET client_id = 'premium' WHERE position = 10",
        "audit_log.client_id",
    ),
    (
        "UPDATE audit_log SET ticker = NULL WHERE position = 10",
        "audit_log.ticker",
    ),
    (
        "UPDATE audit_log SET request_id = 'other' WHERE position = 10",
        "audit_log.request_id",
    ),
    (
        "UPDATE audit_log SET quote_id = gen_random_uuid() WHERE position = 10",
        "audit_log.quote_id",
    ),
    (
        "UPDATE audit_log SET hash = sha256('x') WHERE position = 10",
        "stored hash",
    ),
    (
        "UPDATE audit_log SET canonical = set_byte(canonical, 60, 9) WHERE position = 10",
        "hash",
    ),
    // Of the compressed fields: their beginning, and all of them by those of another quote.
    (
        "UPDATE audit_log SET canonical = set_byte(canonical, 66, 0) WHERE position = 10",
        "do not open",
    ),
    (
        "UPDATE audit_log AS a SET canonical = substr(a.canonical, 1, 65) || substr(b.canonical, 66) FROM audit_log AS b \
         WHERE a.position = 10 AND b.position = 11",
        "hash",
    ),
    (
        "UPDATE audit_log SET epoch = 2 WHERE position = 10",
        "epoch",
    ),
    (
        "UPDATE audit_log SET position = 100 WHERE position = 10",
        "missing",
    ),
    ("UPDATE audit_log SET log = 1 WHERE position = 14", "cut"),
    ("DELETE FROM audit_log WHERE position = 10", "missing"),
    ("DELETE FROM audit_log WHERE position = 14", "cut"),
    ("DELETE FROM audit_log WHERE position >= 10", "cut"),
    ("DELETE FROM audit_log WHERE position = 1", "missing"),
    ("TRUNCATE audit_log", "cut"),
    ("TRUNCATE audit_log, quotes", "cut"),
    ("TRUNCATE quotes", "row in quotes is missing"),
    (
        "DELETE FROM quotes WHERE position = 10",
        "row in quotes is missing",
    ),
    (
        "INSERT INTO audit_log SELECT log, epoch, 15, kind, recorded_at, client_id, ticker, request_id, quote_id, canonical, hash FROM audit_log WHERE position = 10",
        "position",
    ),
    (
        "INSERT INTO audit_log SELECT log, 2, position, kind, recorded_at, client_id, ticker, request_id, quote_id, canonical, hash FROM audit_log WHERE position = 10",
        "second entry",
    ),
    (
        "UPDATE audit_log AS a SET canonical = b.canonical, hash = b.hash FROM audit_log AS b \
         WHERE (a.position, b.position) IN ((10, 11), (11, 10))",
        "position",
    ),
    (
        "UPDATE quotes SET position = 30 - position",
        "row in quotes is missing",
    ),
    (
        "UPDATE quotes SET log = 1 WHERE position = 10",
        "row in quotes is missing",
    ),
    (
        "CREATE TEMP TABLE copy AS SELECT * FROM quotes LIMIT 1; UPDATE copy SET quote_id = gen_random_uuid(), position = 99; INSERT INTO quotes SELECT * FROM copy",
        "no such quote",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_found() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    for _ in 0..6 {
        assert_eq!(instance.locate(&key, GME).await.status, 200);
    }
    let sound = instance.verify().await;
    assert_eq!(
        (
            sound.log.first_bad,
            sound.log.entries,
            sound.log.verified,
            sound.log.covered_to,
            sound.quotes
        ),
        (None, 14, 14, 14, 6)
    );
    instance.sql("CREATE TABLE kept_log AS SELECT * FROM audit_log; CREATE TABLE kept_quotes AS SELECT * FROM quotes").await;
    for (change, reason) in CHANGES {
        found(&instance, change, reason).await;
    }
    // Every column of quotes, whatever its type.
    let columns = "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'quotes' ORDER BY ordinal_position";
    let columns = instance.sql(columns).await;
    assert_eq!(columns.len(), 25);
    for column in columns {
        let (name, sql_type) = (&column[0], &column[1]);
        let other = match sql_type.as_str() {
            "uuid" => "gen_random_uuid()".to_owned(),
            "text" => format!("coalesce({name}, '') || 'x'"),
            "boolean" => format!("NOT {name}"),
            "timestamp with time zone" => {
                format!("coalesce({name}, now()) + interval '1 microsecond'")
            }
            "numeric" => format!("coalesce({name}, 0) + 0.0001"),
            _ => format!("coalesce({name}, 0) + 100"),
        };
        let reason = if ["log", "epoch", "position"].contains(&name.as_str()) {
            "quotes"
        } else {
            &format!("quotes.{name}")
        };
        found(
            &instance,
            &format!("UPDATE quotes SET {name} = {other} WHERE position = 11"),
            reason,
        )
        .await;
    }
}

async fn found(instance: &Instance, change: &str, reason: &str) {
    instance.sql(&format!("SET session_replication_role = replica; ALTER TABLE audit_log DISABLE TRIGGER ALL; ALTER TABLE quotes DISABLE TRIGGER ALL; {change}")).await;
    let report = instance.verify().await.log;
    let told = report.reason.clone().unwrap_or_default();
    assert!(
        report.first_bad.is_some() && told.contains(reason),
        "{change}: {report:?}"
    );
    instance.sql("TRUNCATE audit_log, quotes; INSERT INTO audit_log SELECT * FROM kept_log; INSERT INTO quotes SELECT * FROM kept_quotes").await;
    assert_eq!(instance.verify().await.log.first_bad, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wholly_rewritten_chain_disagrees_with_the_heads() {
    let mut instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    assert_eq!(instance.locate(&key, GME).await.status, 200);
    instance.stop().await;
    let heads = instance.outside.heads.lock().unwrap().clone();
    let last = heads.last().unwrap().claimed().clone();
    assert_eq!(
        last.size.to_string(),
        instance.value("SELECT max(position) FROM audit_log").await,
        "a stop publishes the last head"
    );
    // Somebody with the database and the engine's own code, but an epoch opened again: everything hangs together, but for the heads.
    instance.sql("ALTER TABLE audit_log DISABLE TRIGGER ALL; ALTER TABLE quotes DISABLE TRIGGER ALL; TRUNCATE audit_log, quotes").await;
    instance.outside.heads.lock().unwrap().clear();
    instance.launch().await;
    instance
        .services()
        .wait_ready(crate::harness::SETTLED)
        .await
        .unwrap();
    for _ in 0..20 {
        assert_eq!(instance.locate(&key, GME).await.status, 200);
    }
    assert_eq!(instance.verify().await.log.first_bad, None);
    instance.outside.heads.lock().unwrap().extend(heads);
    let report = instance.verify().await.log;
    assert!(
        report
            .reason
            .as_deref()
            .is_some_and(|reason| reason.contains("rewritten")),
        "{report:?}"
    );
}

/// No head was signed behind entries that are gone, and the engine is started again: the end that it noted has the tree,
/// and from then on the opening.
#[tokio::test(flavor = "multi_thread")]
async fn a_loss_before_any_head_behind_it_is_accepted_after_a_restart_too() {
    let mut instance = Instance::with(Options {
        look_every: Duration::from_millis(100),
        ..Options::default()
    })
    .await;
    *instance.outside.noted.lock().unwrap() = Some(NotedLines::default());
    let key = instance.key_for("standard").await;
    let quote = async |instance: &Instance| {
        let answer = instance.locate(&key, GME).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["audit"]["position"].as_u64().unwrap()
    };
    let signed = quote(&instance).await;
    let newest = async || {
        let heads = instance.outside.heads.lock().unwrap();
        heads.last().map_or(0, |head| head.claimed().size)
    };
    until("a head", newest, |size| *size >= signed).await;
    // From here on no head is published.
    let durable = &instance.outside.durable;
    durable.store(0, Ordering::Relaxed);
    let gone = quote(&instance).await;
    let last = quote(&instance).await;
    instance
        .sql(&format!(
            "ALTER TABLE audit_log DISABLE TRIGGER ALL; ALTER TABLE quotes DISABLE TRIGGER ALL; \
             DELETE FROM audit_log WHERE position = {gone}; DELETE FROM quotes WHERE position = {gone}"
        ))
        .await;
    let noted = async || instance.outside.noted.lock().unwrap().clone();
    let has_end = |noted: &Option<NotedLines>| noted.as_ref().is_some_and(|(_, end)| end.is_some());
    until("the damage is noted", noted, has_end).await;
    instance.stop().await;
    instance.launch().await;
    let words = br#"{"reason": "a row was deleted by hand", "by": "ops"}"#;
    let reopen = async || {
        let path = "/internal/audit/reopen";
        instance.control("POST", path, words).await
    };
    // Before it has looked it has nothing to refuse.
    let (status, answer) = until("it is reopened", reopen, |(status, answer)| {
        *status == 200 || !answer.contains("against the audit log")
    })
    .await;
    assert_eq!(status, 200, "{answer}");
    // Nor is there a head behind the opening yet.
    instance.stop().await;
    instance.launch().await;
    instance
        .services()
        .wait_ready(crate::harness::SETTLED)
        .await
        .unwrap();
    let after = quote(&instance).await;
    assert!(after > last + 1, "{after}");
    let report = instance.verify().await;
    assert_eq!(report.log.verdict(), "known_loss", "{:?}", report.log);
    let opening = report.log.epochs.last().unwrap();
    let stretch = audit::Stretch {
        from: gone,
        to: gone,
    };
    assert_eq!(opening.missing_entries, [stretch]);
    assert_eq!(report.log.covered_to, after);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_serving_role_and_the_owner_cannot_change_the_record() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    assert_eq!(instance.locate(&key, GME).await.status, 200);
    for role in ["bre_service", "bre_owner", "postgres"] {
        let (client, connection) =
            tokio_postgres::connect(&instance.login(role), tokio_postgres::NoTls)
                .await
                .unwrap();
        tokio::spawn(connection);
        for table in ["audit_log", "quotes"] {
            for change in [
                format!("UPDATE {table} SET epoch = 9"),
                format!("DELETE FROM {table}"),
                format!("TRUNCATE {table}"),
            ] {
                for mode in ["origin", "replica"] {
                    if mode == "replica" && role != "postgres" {
                        continue;
                    }
                    client
                        .batch_execute(&format!("SET session_replication_role = {mode}"))
                        .await
                        .ok();
                    let error = client.batch_execute(&change).await.unwrap_err();
                    let code = error.code().unwrap().code().to_owned();
                    assert_eq!(code, "42501", "{role} {mode}: {change}");
                }
            }
        }
    }
    let owned = "SELECT count(*) FROM pg_class WHERE relowner = 'bre_service'::regrole";
    assert_eq!(instance.value(owned).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_restores_and_drills_go_on_record() {
    let instance = Instance::start().await;
    let body = br#"{"kind":"BackupRun","fields":{"backup_id":"20261123T081530Z-01020304","state":"complete","by":"root"}}"#;
    let (status, answer) = instance
        .control("POST", "/internal/audit/entries", body)
        .await;
    assert_eq!(status, 200, "{answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let position = answer["audit"]["position"].as_u64().unwrap();
    let kind = format!("SELECT kind FROM audit_log WHERE position = {position}");
    assert_eq!(instance.value(&kind).await, "7");
    // A quote, an opening or a key change is the engine's own to write.
    for kind in ["Quote", "EpochOpened", "KeyChanged", "Other(99)"] {
        let body = format!("{{\"kind\":\"{kind}\",\"fields\":{{}}}}");
        let (status, _) = instance
            .control("POST", "/internal/audit/entries", body.as_bytes())
            .await;
        assert_eq!(status, 400, "{kind}");
    }
    let (status, head) = instance.control("GET", "/internal/audit/head", b"").await;
    let head = audit::SignedHead::from_json(head.as_bytes()).unwrap();
    let head = head
        .verify(&[instance.key.verifying_key().clone()])
        .unwrap();
    assert_eq!((status, head.size), (200, position));
    let (status, body) = instance.control("GET", "/internal/status", b"").await;
    let told: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (status, told["audit"]["position"].as_u64()),
        (200, Some(position))
    );
    assert_eq!(instance.verify().await.log.first_bad, None);
}
