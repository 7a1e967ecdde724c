//! Orders never use more than was granted: many clients, two gateways with a data-service each, either killed amid the work. SEED, CLIENTS,
//! ORDERS (in all) and KILLS choose and repeat a run (`make slow-uses` is the large one).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit::SigningKey;
use jiff::ToSpan;
use serde_json::{Value, json};

use crate::harness::{Instance, until};
use crate::locates::{IMPORT, file, options, wanted};
use crate::locates_under_fire::{Dice, Process, setting};

/// A locate that the clients fight over.
#[derive(Debug, Clone)]
struct Grant {
    id: String,
    shares: i64,
    reusable: bool,
}

/// What was answered: each order's outcome.
#[derive(Debug, Default)]
struct ClientView {
    /// By locate and order: what it sold (above 0), or bought back.
    done: Mutex<BTreeMap<(String, String), i64>>,
    refused: AtomicU64,
    answers: AtomicU64,
}

/// Sends one order until it has an answer, at whichever gateway is up: its id sees to it that it counts once.
async fn settle(
    engines: &[Process; 2],
    client: &reqwest::Client,
    key: &str,
    dice: &mut Dice,
    id: &str,
    order: &Value,
) -> Value {
    loop {
        if let Some(address) = engines[dice.below(2)].address() {
            let url = format!("http://{address}/api/v1/locates/{id}/uses");
            let request = client.post(url).header("X-API-Key", key).json(order);
            if let Ok(answer) = request.send().await
                && answer.status() != 503
                && let Ok(body) = answer.json::<Value>().await
            {
                return body;
            }
        }
        // Nobody is there: the one that starts needs the cores more.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_at_two_gateways_with_kills_never_use_more_than_was_granted() {
    let seed = setting("SEED", u64::from(std::process::id()) * 7919 + 1);
    let (clients, orders) = (setting("CLIENTS", 40), setting("ORDERS", 400));
    let kills = setting("KILLS", 2);
    println!("SEED={seed} CLIENTS={clients} ORDERS={orders} KILLS={kills}");
    let instance = Instance::with(options()).await;
    let list = file(&[("GME", "10000000"), ("AMC", "1000")], 1.minute());
    let (status, body) = instance.control("POST", IMPORT, &list).await;
    assert_eq!(status, 200, "{body}");
    let key = instance.key_for("standard").await;
    // Orders want some three times what is granted.
    let share = i64::try_from(orders).unwrap() * 5 / 8 / 3;
    let mut grants = Vec::new();
    for number in 0..8_i64 {
        let reusable = number % 2 == 1;
        let shares = (share / 100 + 1) * 100;
        grants.push(granted(&instance, &key, shares, reusable).await);
    }
    let grants = Arc::new(grants);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    // Log 0 stays with the test's own engine, which only looks on.
    let engines = Arc::new([1, 2].map(|log| Process::start(&instance, &path, log)));
    let told = Arc::new(ClientView::default());
    let tasks: Vec<_> = (0..clients)
        .map(|number| {
            let (engines, told, grants, key) = (
                Arc::clone(&engines),
                Arc::clone(&told),
                Arc::clone(&grants),
                key.clone(),
            );
            tokio::spawn(async move {
                let builder = reqwest::Client::builder().tls_certs_only([]);
                let client = builder.timeout(Duration::from_secs(5)).build().unwrap();
                let mut dice = Dice(seed + number + 1);
                let own = orders / clients + u64::from(number < orders % clients);
                for order in 0..own {
                    let grant = &grants[dice.below(grants.len())];
                    let cover = dice.below(5) == 0;
                    let shares = 1 + dice.below(9) as i64;
                    let side = if cover { "buy_to_cover" } else { "sell_short" };
                    let name = format!("{number}-{order}");
                    let body = json!({ "order_id": name, "side": side, "shares": shares });
                    let answer = settle(&engines, &client, &key, &mut dice, &grant.id, &body).await;
                    told.answers.fetch_add(1, Ordering::Relaxed);
                    match (answer["status"].as_str(), answer["error_code"].as_str()) {
                        (Some("success"), _) => {
                            let moved = if cover { -shares } else { shares };
                            let mut done = told.done.lock().unwrap();
                            done.insert((grant.id.clone(), name), moved);
                        }
                        (_, Some("USE_TOO_LARGE")) => {
                            told.refused.fetch_add(1, Ordering::Relaxed);
                        }
                        _ => panic!("{answer}"),
                    }
                }
            })
        })
        .collect();
    let mut dice = Dice(seed);
    for kill in 1..=kills {
        // Spread over the work; the rest of the moment is the dice's.
        let target = orders * kill / (kills + 1);
        let answers = async || {
            tokio::time::sleep(Duration::from_millis(1)).await;
            told.answers.load(Ordering::Relaxed)
        };
        until("work goes on", answers, |answers| *answers >= target).await;
        tokio::time::sleep(Duration::from_micros(dice.below(5_000) as u64)).await;
        engines[dice.below(2)].kill(&instance);
        sound(&instance).await;
    }
    for task in tasks {
        task.await.unwrap();
    }
    sound(&instance).await;
    agrees(&instance, &told, &grants).await;
    let (answers, refused) = (
        told.answers.load(Ordering::Relaxed),
        told.refused.load(Ordering::Relaxed),
    );
    println!("{answers} orders answered, {refused} of them refused");
    assert_eq!(answers, orders);
    assert!(
        refused > 0,
        "nobody was refused: there was nothing to fight for"
    );
}

async fn granted(instance: &Instance, key: &str, shares: i64, reusable: bool) -> Grant {
    let mut body = wanted("GME", shares.unsigned_abs());
    body["type"] = json!(if reusable { "reusable" } else { "single_use" });
    let url = instance.url("/api/v1/locates");
    let offered = crate::locates::post(url.clone(), key, None, &body).await;
    let id = offered.json()["locate_id"].as_str().unwrap().to_owned();
    let accept = format!("{url}/{id}/accept");
    let filled = crate::locates::post(accept, key, None, &json!({})).await;
    assert_eq!(filled.json()["granted"], shares, "{}", filled.body);
    Grant {
        id,
        shares,
        reusable,
    }
}

/// What every log, its rows and their sums say.
async fn sound(instance: &Instance) {
    let others = [8, 9].map(|seed| SigningKey::from_seed(&[seed; 32]).unwrap());
    let keys = [&*instance.key, &others[0], &others[1]];
    // The logs share the tables of terms and feeds: each is verified with the keys of all.
    let trusted = keys.map(|key| key.verifying_key().clone());
    for log in 0..keys.len() {
        let database = instance.login("bre_service");
        let report = services::verify(&database, log as u16, &[], &trusted)
            .await
            .unwrap();
        assert_eq!(report.log.reason, None, "log {log}");
    }
    let over = "SELECT count(*) FROM locates WHERE used + reserved > granted - returned";
    assert_eq!(instance.value(over).await, "0");
}

/// Every order that was told to be done is on record once, with that many shares, and no other is.
async fn agrees(instance: &Instance, told: &ClientView, grants: &[Grant]) {
    let rows = "SELECT locate_id, order_id, CASE order_side WHEN 'sell_short' THEN order_shares ELSE -order_shares END \
                FROM locates WHERE order_id IS NOT NULL";
    let mut recorded = BTreeMap::new();
    for row in instance.sql(rows).await {
        let name = (row[0].clone(), row[1].clone());
        let twice = recorded.insert(name, row[2].parse::<i64>().unwrap());
        assert_eq!(twice, None, "{row:?} is there twice");
    }
    let done = told.done.lock().unwrap().clone();
    assert_eq!(done, recorded, "told, and recorded");
    for grant in grants {
        let mut used = 0;
        for ((id, _), moved) in done.iter() {
            if *id == grant.id && (*moved > 0 || grant.reusable) {
                used += moved;
            }
        }
        let sql = format!(
            "SELECT used FROM locates WHERE locate_id = '{}' ORDER BY sequence DESC LIMIT 1",
            grant.id
        );
        assert_eq!(instance.value(&sql).await, used.to_string(), "{grant:?}");
        assert!(
            (0..=grant.shares).contains(&used),
            "{used} used of {grant:?}"
        );
    }
}
