//! What a client asks beside its locates: what-if rates, lists, its own record; and what it may hold on to.

use reqwest::Client;
use serde_json::json;
use services::Settings;

use crate::api::check;
use crate::harness::{Answer, GME, Instance, Options};

#[tokio::test(flavor = "multi_thread")]
async fn rates_as_supposed_and_by_status() {
    let mut options = Options::default();
    let shipped = Settings::default();
    options.settings.quote_deadline = shipped.quote_deadline;
    options.settings.request_deadline = shipped.request_deadline;
    let instance = Instance::with(options).await;
    let key = instance.key_for("standard").await;
    let get = async |path: &str| instance.get(&key, path).await;
    let supposed = "volatility_index=25&event_risk_factor=2&base_rate=0.05";
    check(
        "what_if",
        get(&format!("/api/v1/rates/GME/calculate?{supposed}")).await,
    );
    check(
        "what_if_negative",
        get("/api/v1/rates/GME/calculate?volatility_index=-1&event_risk_factor=11&base_rate=-0")
            .await,
    );
    check(
        "status_unknown",
        get("/api/v1/rates/status/easy?limit=101&skip=-1").await,
    );
    check(
        "status_page",
        get("/api/v1/rates/status/EASY?skip=1&limit=2").await,
    );
    // Every ticker has one status, and a list taken page by page is the list.
    let mut tickers = 0;
    for status in ["EASY", "MEDIUM", "HARD"] {
        let (mut skip, mut seen) = (0, Vec::new());
        loop {
            let path = format!("/api/v1/rates/status/{status}?skip={skip}&limit=2");
            let page = get(&path).await.json();
            let items = page["items"].as_array().unwrap();
            for item in items {
                assert_eq!(item["borrow_status"], status);
                seen.push(item["ticker"].as_str().unwrap().to_owned());
            }
            skip += items.len();
            if page["pagination"]["has_more"] == false {
                assert_eq!(page["pagination"]["total"], seen.len());
                break;
            }
        }
        assert!(seen.is_sorted());
        tickers += seen.len();
    }
    let known = instance
        .value("SELECT count(DISTINCT ticker) FROM base_rates")
        .await;
    assert_eq!(tickers.to_string(), known);
    check("config", get("/api/v1/config").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_by_another_name() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    for (asked, ticker) in [("FB", "META"), ("BRK%20A", "BRK.A"), ("META", "META")] {
        let rate = instance.get(&key, &format!("/api/v1/rates/{asked}")).await;
        let body = rate.json();
        assert_eq!((rate.status, &body["ticker"]), (200, &json!(ticker)));
        let asked = asked.replace("%20", " ");
        let told = Some(asked.as_str()).filter(|asked| *asked != ticker);
        assert_eq!(body["requested_ticker"].as_str(), told);
    }
    let quote = instance
        .locate(&key, &GME.replace("GME", "FB"))
        .await
        .json();
    assert_eq!(
        (&quote["ticker"], &quote["requested_ticker"]),
        (&json!("META"), &json!("FB"))
    );
    let id = quote["quote_id"].as_str().unwrap();
    let read = instance
        .get(&key, &format!("/api/v1/quotes/{id}"))
        .await
        .json();
    assert_eq!(read["requested_ticker"], "FB");
    // A new listing under the old name is itself.
    instance
        .sql("INSERT INTO stocks (ticker, minimum_rate) VALUES ('FB', 0.01); NOTIFY bre_market")
        .await;
    let rate = async || instance.get(&key, "/api/v1/rates/FB").await.json();
    let itself = |body: &serde_json::Value| body["ticker"] == "FB";
    crate::harness::until("FB is FB", rate, itself).await;
}

/// Nobody waits until millions are counted: beyond ten thousand the total is what there is at least.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_record_is_counted_up_to_ten_thousand() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    assert_eq!(instance.locate(&key, GME).await.status, 200);
    let pagination = async |query: &str| {
        let list = instance.get(&key, &format!("/api/v1/audit{query}")).await;
        let mut body = list.json();
        let items = body["items"].as_array().unwrap().len();
        (items, body["pagination"].take())
    };
    let said = |total: u32, more: bool, minimum: bool| {
        move |pagination: &serde_json::Value| {
            let minimum_said = pagination["total_is_minimum"].as_bool().unwrap_or(false);
            assert_eq!(pagination["total"], total, "{pagination}");
            assert_eq!(
                (pagination["has_more"].as_bool(), minimum_said),
                (Some(more), minimum),
                "{pagination}"
            );
        }
    };
    // The quote, and the key and the terms of this client.
    let (_, short) = pagination("").await;
    said(3, false, false)(&short);
    // Of a log of its own, so that ours goes on.
    instance
        .sql(
            "INSERT INTO audit_log SELECT 7, epoch, n, kind, recorded_at, client_id, ticker, request_id, quote_id, canonical, hash \
             FROM (SELECT * FROM audit_log WHERE kind = 1) AS quote, generate_series(1, 9998) AS n",
        )
        .await;
    let (items, long) = pagination("?page_size=100").await;
    assert_eq!(items, 100);
    said(10_000, true, true)(&long);
    let (_, fewer) = pagination("?ticker=GME").await;
    said(9_999, true, false)(&fewer);
    // A page behind all that was counted has been seen.
    let (items, last) = pagination("?page=101&page_size=100").await;
    assert_eq!(items, 1);
    said(10_001, false, true)(&last);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_reads_its_own_record() {
    let instance = Instance::start().await;
    let ours = instance.key_for("standard").await;
    let theirs = instance.key_for("premium").await;
    let mut quotes = Vec::new();
    for ticker in ["GME", "AAPL", "GME"] {
        let quote = instance.locate(&ours, &GME.replace("GME", ticker)).await;
        quotes.push(quote.json());
    }
    let get = async |path: &str| instance.get(&ours, path).await;
    let list = get("/api/v1/audit?ticker=GME&client_id=standard").await;
    let body = list.json();
    assert_eq!(body["pagination"]["total"], 2, "{}", list.body);
    assert_eq!(
        body["items"][0]["fields"]["quote_id"],
        quotes[2]["quote_id"]
    );
    let page = get("/api/v1/audit?page=2&page_size=2").await.json();
    // Three quotes, and the key and the terms of this client.
    assert_eq!(page["pagination"]["total"], 5);
    assert_eq!(page["pagination"]["skip"], 2);
    assert_eq!(page["pagination"]["has_more"], true);
    // any day: long before anything was recorded.
    let none = get("/api/v1/audit?end_date=2020-01-01").await.json();
    assert_eq!(none["pagination"]["total"], 0);
    let id = body["items"][0]["id"].as_str().unwrap();
    let entry = get(&format!("/api/v1/audit/{id}")).await;
    let by_quote = quotes[2]["quote_id"].as_str().unwrap();
    assert_eq!(
        get(&format!("/api/v1/audit/{by_quote}")).await.body,
        entry.body
    );
    let fields = entry.json();
    assert_eq!(fields["hash_matches"], true);
    assert!(
        entry.body.contains("\"total_fee\":1992.6712"),
        "{}",
        entry.body
    );
    let by_them = instance.get(&theirs, &format!("/api/v1/audit/{id}")).await;
    check("audit_of_others", by_them);
    check(
        "audit_for_others",
        instance
            .get(&theirs, "/api/v1/audit?client_id=standard")
            .await,
    );
    // any day: these are no dates, or in no order.
    check(
        "audit_bad_dates",
        get("/api/v1/audit?start_date=2026-13-01&end_date=yesterday&page=0&page_size=101&ticker=gme")
            .await,
    );
    let never = get("/api/v1/audit?start_date=2026-02-02&end_date=2026-02-01").await;
    assert_eq!(never.json()["pagination"]["total"], 0);
    check("audit_bad_id", get("/api/v1/audit/1-2").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_that_did_not_change_is_not_sent_again() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let ask = async |path: &str, tag: &str| {
        let request = Client::new().get(instance.url(path));
        let request = request.header("X-API-Key", &key);
        Answer::of(request.header("If-None-Match", tag)).await
    };
    let header = |answer: &Answer, name: &str| {
        let found = answer.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let first = ask("/api/v1/rates/GME", "\"other\"").await;
    let tag = header(&first, "etag");
    assert_eq!(
        header(&first, "cache-control"),
        "private, max-age=60, must-revalidate"
    );
    assert!(header(&first, "last-modified").ends_with("GMT"));
    let second = ask("/api/v1/rates/GME", &tag).await;
    assert_eq!((second.status, second.body.as_str()), (304, ""));
    assert_eq!(header(&second, "etag"), tag);
    let third = ask("/api/v1/rates/GME?use_cache=false", &tag).await;
    assert_eq!((third.status, &third.body), (200, &first.body));
    assert_eq!(header(&third, "cache-control"), "no-store");
    let other = ask("/api/v1/rates/AAPL", &tag).await;
    assert_eq!(other.status, 200);
    // A locate is new every time.
    let query = "ticker=GME&position_value=1&loan_days=1&client_id=standard";
    let locate = ask(&format!("/api/v1/calculate-locate?{query}"), "*").await;
    assert_eq!(
        (locate.status, header(&locate, "cache-control").as_str()),
        (200, "no-store")
    );
    assert_eq!(header(&locate, "etag"), "");
    // What changes changes the tag.
    instance
        .sql("INSERT INTO stocks (ticker, minimum_rate) VALUES ('GME', 0.5) ON CONFLICT (ticker) DO UPDATE SET minimum_rate = 0.5; NOTIFY bre_market")
        .await;
    let again = async || ask("/api/v1/rates/GME", &tag).await;
    let changed = crate::harness::until("a new rate", again, |answer| answer.status == 200).await;
    assert!(changed.body.contains("\"current_rate\":0.50000000"));
}
