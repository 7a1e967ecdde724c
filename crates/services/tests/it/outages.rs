//! The database goes away and comes back: what is answered meanwhile, and what the log is afterwards.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use postgres_physical::server::StopMode;
use services::{RecoveryFact, WriterState};

use crate::harness::{self, Answer, GME, Instance, Options, SETTLED, http_client};

fn fact(id: &str) -> RecoveryFact {
    RecoveryFact {
        restore_id: id.to_owned(),
        timeline: 2,
        target_lsn: 0x0100_0000,
    }
}

async fn until(
    instance: &Instance,
    what: &str,
    reached: impl Fn(&WriterState) -> bool,
) -> WriterState {
    let mut state = instance.services().watch_writer();
    let waited = tokio::time::timeout(SETTLED, state.wait_for(|state| reached(state))).await;
    waited
        .unwrap_or_else(|_| panic!("{what}, but {:?}", instance.services().writer_state()))
        .unwrap()
        .clone()
}

/// The size of the newest head in the repository.
fn newest_published(instance: &Instance) -> u64 {
    let heads = instance.outside.heads.lock().unwrap();
    heads
        .iter()
        .map(|head| head.claimed().size)
        .max()
        .unwrap_or(0)
}

async fn serving(instance: &Instance) -> WriterState {
    until(instance, "serving", WriterState::is_serving).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rates_go_on_and_locates_say_what_is_missing() {
    let mut instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    assert_eq!(instance.locate(&key, GME).await.status, 200);
    instance.postgres.stop(StopMode::Immediate);
    until(&instance, "away", |state| {
        matches!(state, WriterState::Away { .. })
    })
    .await;
    assert_eq!(instance.get(&key, "/api/v1/rates/GME").await.status, 200);
    let answer = instance.locate(&key, GME).await;
    let body = answer.json();
    assert_eq!(
        (answer.status, body["error_code"].as_str()),
        (503, Some("EXTERNAL_API_UNAVAILABLE"))
    );
    assert_eq!(
        (
            body["details"]["part"].as_str(),
            body["details"]["outcome"].as_str()
        ),
        (Some("database"), Some("not_recorded"))
    );
    instance.postgres.start_again();
    serving(&instance).await;
    let answer = instance.locate(&key, GME).await;
    assert_eq!(
        answer.json()["audit"]["epoch"],
        1,
        "a restart is no recovery"
    );
    assert_eq!(instance.verify().await.log.first_bad, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_loses_no_acknowledged_quote() {
    let mut instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let url = instance.url("/api/v1/calculate-locate");
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (url, key, stop) = (url.clone(), key.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let (mut acknowledged, mut unknown) = (Vec::new(), 0);
                while !stop.load(Ordering::Relaxed) {
                    let request = http_client()
                        .post(&url)
                        .header("X-API-Key", &key)
                        .header("Content-Type", "application/json");
                    let answer = Answer::of(request.body(GME)).await;
                    match answer.status {
                        200 => acknowledged
                            .push(answer.json()["quote_id"].as_str().unwrap().to_owned()),
                        503 => {
                            unknown += u32::from(answer.body.contains("\"outcome\":\"unknown\""))
                        }
                        other => panic!("{other}: {}", answer.body),
                    }
                }
                (acknowledged, unknown)
            })
        })
        .collect();
    for _ in 0..2 {
        let before: i64 = instance
            .value("SELECT count(*) FROM quotes")
            .await
            .parse()
            .unwrap();
        while instance
            .value("SELECT count(*) FROM quotes")
            .await
            .parse::<i64>()
            .unwrap()
            < before + 50
        {}
        instance.postgres.stop(StopMode::Immediate);
        instance.postgres.start_again();
        serving(&instance).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut count = 0;
    for client in clients {
        for id in client.await.unwrap().0 {
            count += 1;
            assert_eq!(
                instance
                    .value(&format!(
                        "SELECT count(*) FROM quotes WHERE quote_id = '{id}'"
                    ))
                    .await,
                "1"
            );
        }
    }
    assert!(count >= 100);
    assert_eq!(instance.verify().await.log.first_bad, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_too_early_is_refused_until_a_recovery_is_recorded_and_what_it_lost_is_told()
 {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let mut quotes = Vec::new();
    for _ in 0..5 {
        let answer = instance.locate(&key, GME).await;
        assert_eq!(answer.status, 200);
        quotes.push(answer.json()["quote_id"].as_str().unwrap().to_owned());
    }
    // Only of an entry below a published head it is known later that it was there.
    let entries: u64 = instance
        .value("SELECT max(position) FROM audit_log")
        .await
        .parse()
        .unwrap();
    testkit::eventually_async("the head is published", async || {
        (newest_published(&instance) == entries).then_some(())
    })
    .await;
    instance.services().pause_writer().await;
    let paused = instance.locate(&key, GME).await;
    assert!(
        paused.status == 503 && paused.body.contains("being recovered"),
        "{}",
        paused.body
    );
    let end: u64 = instance
        .value("SELECT max(position) FROM audit_log")
        .await
        .parse()
        .unwrap();
    let cut = |table: &str| {
        format!(
            "ALTER TABLE {table} DISABLE TRIGGER append_only; DELETE FROM {table} WHERE position > {}; ALTER TABLE {table} ENABLE ALWAYS TRIGGER append_only;",
            end - 3
        )
    };
    instance
        .sql(&format!("{}{}", cut("audit_log"), cut("quotes")))
        .await;
    instance.services().resume_writer(None).await.unwrap();
    let state = until(&instance, "refusing", |state| {
        matches!(state, WriterState::Refusing { .. })
    })
    .await;
    let WriterState::Refusing { reason } = state else {
        unreachable!()
    };
    assert!(
        reason.contains("tampering or a restore by hand"),
        "{reason}"
    );
    let refused = instance.locate(&key, GME).await;
    assert!(
        refused.status == 503 && refused.body.contains("not what it should be"),
        "{}",
        refused.body
    );
    assert_eq!(instance.get(&key, "/api/v1/rates/GME").await.status, 200);
    instance
        .services()
        .resume_writer(Some(fact("restore-1")))
        .await
        .unwrap();
    assert_eq!(serving(&instance).await, WriterState::Serving { epoch: 2 });
    let answer = instance.locate(&key, GME).await.json();
    assert_eq!(
        (
            answer["audit"]["epoch"].as_u64(),
            answer["audit"]["position"].as_u64()
        ),
        (Some(2), Some(end - 1))
    );
    let verified = instance.verify().await;
    let report = verified.log;
    assert_eq!(report.first_bad, None, "{report:?}");
    assert_eq!((verified.verdict, report.lost_entries), ("known_loss", 3));
    let known: Vec<_> = report
        .known_losses
        .iter()
        .map(|lost| (lost.epoch, lost.size))
        .collect();
    assert!(known.contains(&(1, end)), "{known:?}");
    // Of what is lost it is told that it is; the rest is there, and what never was is not called lost.
    let path = |id: &str| format!("/api/v1/quotes/{id}");
    let lost = instance.get(&key, &path(&quotes[4])).await;
    assert_eq!(lost.status, 404, "{}", lost.body);
    assert!(lost.body.contains("of epoch 1, lost"), "{}", lost.body);
    assert_eq!(instance.get(&key, &path(&quotes[0])).await.status, 200);
    let never = instance
        .get(&key, &path("01900000-0000-7000-8000-000000000000"))
        .await;
    assert!(
        never.status == 404 && !never.body.contains("lost"),
        "{}",
        never.body
    );
    let epoch = report.epochs.last().unwrap();
    assert_eq!(
        (epoch.epoch, epoch.recovered_size, epoch.known_lost),
        (2, end - 3, Some(3))
    );
    assert_eq!(epoch.restore_id.as_deref(), Some("restore-1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_opens_a_new_epoch_even_if_nothing_was_lost_and_only_once() {
    let mut instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    assert_eq!(instance.locate(&key, GME).await.status, 200);
    instance.stop().await;
    instance.options.recovery = Some(fact("restore-2"));
    instance.launch().await;
    assert_eq!(serving(&instance).await, WriterState::Serving { epoch: 2 });
    instance.stop().await;
    instance.launch().await;
    assert_eq!(
        serving(&instance).await,
        WriterState::Serving { epoch: 2 },
        "the same restore opened an epoch twice"
    );
    instance.stop().await;
    instance.options.recovery = None;
    // The new epoch's heads were published; without them the opening itself has to do.
    instance
        .outside
        .heads
        .lock()
        .unwrap()
        .retain(|head| head.claimed().epoch == 1);
    instance.launch().await;
    assert_eq!(serving(&instance).await, WriterState::Serving { epoch: 2 });
    let report = instance.verify().await.log;
    assert_eq!(
        (report.first_bad, report.epochs.len()),
        (None, 2),
        "{report:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_this_engine_did_not_write_are_refused() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    assert_eq!(instance.locate(&key, GME).await.status, 200);
    instance.services().pause_writer().await;
    // A well-formed next entry, chained as it should be.
    let keys = [instance.key.verifying_key().clone()];
    let head = instance
        .services()
        .signed_head()
        .unwrap()
        .verify(&keys)
        .unwrap();
    let sql = format!(
        "SELECT encode(canonical, 'hex') FROM audit_log WHERE position = {}",
        head.size
    );
    let hex = instance.value(&sql).await;
    let bytes: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect();
    let last = audit::StoredEntry {
        epoch: 1,
        position: head.size as i64,
        bytes: audit::expand(&bytes).into_owned(),
        hash: head.last_hash.as_bytes().to_vec(),
    };
    let mut chain = audit::Chain::resume(0, Some(&head), [last], &keys).unwrap();
    let forged = chain
        .append(audit::Kind::BackupRun, 0, audit::Fields::new())
        .unwrap();
    let hex: String = forged
        .bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    instance
        .sql(&format!(
            "INSERT INTO audit_log (log, epoch, position, kind, recorded_at, canonical, hash) \
             VALUES (0, 1, {}, 7, 'epoch', '\\x{hex}', '\\x{}')",
            forged.entry.position, forged.hash
        ))
        .await;
    instance.services().resume_writer(None).await.unwrap();
    let state = until(&instance, "refusing", |state| {
        matches!(state, WriterState::Refusing { .. })
    })
    .await;
    assert!(
        format!("{state:?}").contains("not written by this engine"),
        "{state:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_mode_locates_only_under_protection() {
    let mut options = Options {
        strict: true,
        ..Options::default()
    };
    // One of them waits for what does not come.
    options.settings.quote_deadline = std::time::Duration::from_secs(2);
    let instance = Instance::with(options).await;
    let key = instance.key_for("standard").await;
    let unset = instance.locate(&key, GME).await;
    assert!(
        unset.status == 503 && unset.body.contains("does not wait for the stream"),
        "{}",
        unset.body
    );
    assert_eq!(instance.value("SELECT count(*) FROM quotes").await, "0");
    instance.outside.attached.store(false, Ordering::Relaxed);
    let detached = instance.locate(&key, GME).await;
    assert!(
        detached.status == 503 && detached.body.contains("not attached"),
        "{}",
        detached.body
    );
    assert_eq!(instance.get(&key, "/api/v1/rates/GME").await.status, 200);
    instance.outside.attached.store(true, Ordering::Relaxed);
    // The server is told to wait for a stream that never comes. Whether its commits obey already or not: the repository
    // holds nothing, so nothing is acknowledged.
    instance.outside.durable.store(0, Ordering::Relaxed);
    instance
        .sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        .await;
    instance.sql("SELECT pg_reload_conf()").await;
    let ask = async || instance.locate(&key, GME).await;
    let obeys = |answer: &Answer| !answer.body.contains("does not wait");
    let answer = harness::until("the setting is seen", ask, obeys).await;
    assert_eq!(
        answer.json()["details"]["outcome"],
        "unknown",
        "{}",
        answer.body
    );
    // Somebody cancels the wait: the server warns, and what it committed counts as unacknowledged even if the repository has it.
    instance.outside.durable.store(u64::MAX, Ordering::Relaxed);
    let ask = async || cancelled_locate(&instance, &key).await;
    let cancelled = harness::until("a wait is cancelled", ask, |answer| answer.status != 200).await;
    assert_eq!(
        (cancelled.status, &cancelled.json()["details"]["outcome"]),
        (503, &"unknown".into()),
        "{}",
        cancelled.body
    );
    assert_eq!(instance.verify().await.log.first_bad, None);
}

/// A locate during which every wait for the standby is cancelled.
async fn cancelled_locate(instance: &Instance, key: &str) -> Answer {
    let request = http_client()
        .post(instance.url("/api/v1/calculate-locate"))
        .header("X-API-Key", key);
    let request = request.header("Content-Type", "application/json").body(GME);
    let waiting = tokio::spawn(Answer::of(request));
    while !waiting.is_finished() {
        instance
            .sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
            .await;
    }
    waiting.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_is_published_only_when_the_repository_holds_its_entry() {
    let instance = Instance::start().await;
    instance.outside.durable.store(0, Ordering::Relaxed);
    let key = instance.key_for("standard").await;
    let position = instance.locate(&key, GME).await.json()["audit"]["position"]
        .as_u64()
        .unwrap();
    let newest = || newest_published(&instance);
    // The live head covers the entry already; the published ones do not.
    assert_eq!(
        instance.services().signed_head().unwrap().claimed().size,
        position
    );
    assert!(newest() < position);
    instance.outside.durable.store(u64::MAX, Ordering::Relaxed);
    tokio::task::block_in_place(|| {
        testkit::eventually("the head is published", || {
            (newest() == position).then_some(())
        })
    });
    let head = instance
        .outside
        .heads
        .lock()
        .unwrap()
        .last()
        .unwrap()
        .claimed()
        .clone();
    let behind = format!(
        "SELECT '{}'::text::numeric <= (pg_current_wal_flush_lsn() - '0/0')",
        head.lsn
    );
    assert!(head.lsn > 0 && instance.value(&behind).await == "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_nobody_trusted_signed_is_refused_and_rates_go_on() {
    let mut instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    assert_eq!(instance.locate(&key, GME).await.status, 200);
    let head = instance.services().signed_head().unwrap();
    instance.stop().await;
    let stranger = audit::SigningKey::generate().unwrap();
    let forged = stranger.sign(head.claimed());
    instance.outside.heads.lock().unwrap().push(forged);
    instance.launch().await;
    let refusing = |state: &WriterState| matches!(state, WriterState::Refusing { .. });
    let state = until(&instance, "refusing", refusing).await;
    assert!(
        format!("{state:?}").contains("a signed head is not valid"),
        "{state:?}"
    );
    let ask = async || instance.get(&key, "/api/v1/rates/GME").await;
    harness::until("rates", ask, |answer| answer.status == 200).await;
    assert_eq!(instance.locate(&key, GME).await.status, 503);
}

/// A session that is lost takes along what was being committed, and nothing that only waited behind it.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_behind_a_lost_transaction_is_not_in_doubt() {
    let instance = Instance::with(crate::locates::options()).await;
    let key = instance.key_for("standard").await;
    let quote = instance.locate(&key, GME).await.json();
    let wanted = serde_json::json!({ "quote_id": quote["quote_id"], "shares": 100 });
    let url = instance.url("/api/v1/locates");
    let order = || {
        let (url, key, wanted) = (url.clone(), key.clone(), wanted.clone());
        tokio::spawn(async move { crate::locates::post(url, &key, None, &wanted).await })
    };
    let price = || {
        let url = instance.url("/api/v1/calculate-locate");
        let request = http_client().post(url).header("X-API-Key", &key).body(GME);
        let request = request.header("Content-Type", "application/json");
        tokio::spawn(Answer::of(request))
    };
    // Another data-service decides on locates, and does not finish.
    let (other, connection) =
        tokio_postgres::connect(&instance.login("postgres"), tokio_postgres::NoTls)
            .await
            .unwrap();
    tokio::spawn(connection);
    let lock = "SELECT pg_advisory_lock(1651664193, 65536)";
    other.batch_execute(lock).await.unwrap();
    let waiting = "SELECT xact_start FROM pg_stat_activity \
         WHERE application_name = 'bre audit writer' AND wait_event_type = 'Lock'";
    let waits = async |after: &str| {
        let began = async || instance.value(waiting).await;
        harness::until("the writer waits for the lock", began, |at| {
            !at.is_empty() && at != after
        })
        .await
    };
    let mut answers = vec![order()];
    let first = waits("").await;
    // Until that one is given up all these wait, in the order in which they came.
    for _ in 0..10 {
        answers.extend([order(), price(), price()]);
    }
    waits(&first).await;
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bre audit writer'";
    instance.sql(kill).await;
    drop(other);
    for answer in answers {
        let answer = answer.await.unwrap();
        let outcome = &answer.json()["details"]["outcome"];
        assert!(
            answer.status == 200 || outcome == "not_recorded",
            "{answer:?}"
        );
    }
    serving(&instance).await;
    assert_eq!(instance.verify().await.log.first_bad, None);
}
