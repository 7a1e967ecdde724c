//! Calendars are data: what is shipped counts until another is imported, which counts at once; beyond its range nothing is guessed.
//! (any day: the dates that are written out are asked about, not lived through; a calendar for today is made from today.)

use jiff::ToSpan;
use jiff::civil::Date;
use serde_json::{Value, json};

use crate::harness::{Answer, Instance};
use crate::locates::{options, post, wanted};

fn date_of(value: &Value) -> Date {
    value.as_str().unwrap().parse().unwrap()
}

/// In a calendar of some weeks around it, days that are closed though they are weekdays.
fn calendar(version: u8, first: Date, last: Date, closed: &[Date]) -> String {
    let mut text = format!(
        "# calendar: test\n# version: {version}\n# source: a test\n# first_day: {first}\n# last_day: {last}\n# close: 16:00\n\
         # session_end: 20:00\nday,trading,settlement,close,session_end,name\n"
    );
    for day in closed {
        text.push_str(&format!("{day},no,no,,,closed for a test\n"));
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_calendar_is_imported_like_a_feed_and_counts_at_once() {
    let instance = Instance::with(options()).await;
    let key = instance.key_for("standard").await;
    let day = async |date: &str| -> Value {
        let path = format!("/api/v1/calendar?date={date}");
        instance.get(&key, &path).await.json()
    };
    let christmas = day("2026-12-25").await;
    assert_eq!(
        (&christmas["trading"], &christmas["name"]),
        (&json!(false), &json!("Christmas"))
    );
    let short = day("2026-11-27").await;
    assert_eq!(
        (&short["closes_at"], &short["session_ends_at"]),
        (
            &json!("2026-11-27T18:00:00.000000Z"),
            &json!("2026-11-27T22:00:00.000000Z")
        )
    );
    let columbus = day("2026-10-12").await;
    assert_eq!(
        (
            &columbus["trading"],
            &columbus["settlement"],
            &columbus["settlement_date"]
        ),
        (&json!(true), &json!(false), &json!("2026-10-13"))
    );
    let beyond = instance.get(&key, "/api/v1/calendar?date=2099-01-01").await;
    let why = beyond.json()["details"].to_string();
    assert_eq!(beyond.status, 404, "{why}");
    assert!(
        why.contains("beyond the calendar us-equities 4.13-1"),
        "{why}"
    );

    let ask = async |kind: &str| -> Answer {
        let mut order = wanted("GME", 100);
        (order["type"], order["loan_days"]) = (json!(kind), json!(30));
        post(instance.url("/api/v1/locates"), &key, None, &order).await
    };
    let offered = ask("single_use").await.json();
    assert_eq!(offered["calendar"], "us-equities 4.13-1", "{offered}");
    let today = date_of(&offered["trade_date"]);
    assert!(date_of(&offered["settlement_date"]) > today);

    let import = async |file: String| {
        let path = "/internal/import?kind=calendar&by=test";
        instance.control("POST", path, file.as_bytes()).await
    };
    let (first, last) = (today - 30.days(), today + 90.days());
    let (status, body) = import(calendar(1, first, last, &[today])).await;
    assert_eq!(status, 200, "{body}");
    let moved = ask("pre_borrow").await.json();
    assert_eq!(moved["calendar"], "test 1", "{moved}");
    let next = date_of(&moved["trade_date"]);
    assert!(
        next > today,
        "{next} comes after {today}, which is closed now"
    );
    let loaded: Value = serde_json::from_str(&body).unwrap();
    let position = loaded["audit"]["position"].as_u64().unwrap();
    let entry = instance.entry(&format!("0-1-{position}")).await;
    assert_eq!(entry.fields.get("feed"), Some("calendar"));

    // What was decided by the one before keeps its dates.
    let id = offered["locate_id"].as_str().unwrap();
    let accepted = instance.url(&format!("/api/v1/locates/{id}/accept"));
    let accepted = post(accepted, &key, None, &json!({})).await.json();
    assert_eq!(
        (&accepted["trade_date"], &accepted["expires_at"]),
        (&offered["trade_date"], &offered["expires_at"]),
        "{accepted}"
    );

    // One that ends too early for a loan, and for a sale to settle.
    let (status, body) = import(calendar(2, first, next, &[today])).await;
    assert_eq!(status, 200, "{body}");
    let health = instance.get(&key, "/api/v1/health").await.json();
    let parts = health["degraded"].as_array().unwrap();
    let part = parts
        .iter()
        .find(|part| part["part"] == "calendar")
        .unwrap();
    let reason = part["reason"].as_str().unwrap();
    assert!(reason.starts_with("test 2 ends on"), "{reason}");
    assert_eq!(health["status"], "degraded");
    for kind in ["pre_borrow", "reusable"] {
        refused_by_the_calendar(&ask(kind).await);
    }
    // One that has ended, one with a mistake: nothing is taken, the last one stays.
    for (file, why) in [
        (
            calendar(3, first, first + 7.days(), &[]),
            "is not among them",
        ),
        (calendar(3, first, last, &[today, today]), "each once"),
    ] {
        let (status, body) = import(file).await;
        assert_eq!(status, 400, "{body}");
        assert!(body.contains(why), "{body}");
    }
    let answer = day(&next.to_string()).await;
    assert_eq!(answer["calendar"]["version"], "2", "{answer}");
    assert_eq!(instance.verify().await.log.reason, None);
}

#[track_caller]
fn refused_by_the_calendar(answer: &Answer) {
    let body = answer.json();
    assert_eq!(answer.status, 503, "{body}");
    assert_eq!(body["details"]["part"], "calendar", "{body}");
    let detail = body["details"]["detail"].as_str().unwrap();
    assert!(detail.contains("beyond the calendar"), "{detail}");
}
