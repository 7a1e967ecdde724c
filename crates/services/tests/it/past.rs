//! Asking for the past: what would have been answered then, with what was known then.
//! any day: the files are of the past, and are asked for by their own times.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::feeds::real;
use crate::harness::{Answer, GME, Instance};

/// The six real files and the moments they were stored at.
const SNAPSHOTS: [(&str, &str); 6] = [
    ("usa_2026-03-23T13-23-27530aae", "2026-03-23T13:23:00Z"),
    ("usa_2026-03-24T11-38-0ba3e14d", "2026-03-24T11:38:00Z"),
    ("usa_2026-03-25T11-35-077a9dc1", "2026-03-25T11:35:00Z"),
    ("usa_2026-04-01T08-15-535d786f", "2026-04-01T08:15:00Z"),
    ("usa_2026-04-02T08-06-00d0bef3", "2026-04-02T08:06:00Z"),
    ("usa_2026-04-08T08-12-7b23c921", "2026-04-08T08:12:00Z"),
];

pub fn unpacked(packed: &[u8]) -> Vec<u8> {
    let mut gzip = Command::new("gzip")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = gzip.stdin.take().unwrap();
    let packed = packed.to_vec();
    let feeder = std::thread::spawn(move || input.write_all(&packed));
    let output = gzip.wait_with_output().unwrap();
    feeder.join().unwrap().unwrap();
    output.stdout
}

/// A twentieth of a file's names, the same in every file, and those that are asked for: as much is shown by them, in less time.
fn thinned(file: &str, symbols: &[&str]) -> String {
    let mut rows = file.lines();
    let mut thin = vec![rows.next().unwrap()];
    let kept = |row: &&str| {
        let symbol = row.split(',').next().unwrap();
        let sum: u32 = symbol.bytes().map(u32::from).sum();
        !row.starts_with('#') && (sum.is_multiple_of(20) || symbols.contains(&symbol))
    };
    thin.extend(rows.filter(kept));
    format!("{}\n#EOF,{},,,,,,,\n", thin.join("\n"), thin.len() - 1)
}

const SYMBOLS: [&str; 5] = ["GME", "AMC", "TSLA", "AAPL", "PLTR"];

/// What a file says of a symbol in dollars, as a fraction with 8 decimals: the percentage with its point moved.
fn fee_rate(file: &str, symbol: &str) -> String {
    let line = file
        .lines()
        .find(|line| line.starts_with(&format!("{symbol},USD,")))
        .unwrap();
    let percent = line.rsplit(',').nth(2).unwrap();
    let (whole, decimals) = percent.split_once('.').unwrap_or((percent, ""));
    let digits = format!("{whole:0>3}{decimals:0<6}");
    let (whole, decimals) = digits.split_at(digits.len() - 8);
    format!(
        "{}.{decimals}",
        whole.trim_start_matches('0').parse().unwrap_or(0)
    )
}

fn base_rate(answer: &Answer) -> &str {
    let rest = answer.body.split("\"base_rate\":").nth(1);
    rest.unwrap_or_else(|| panic!("{}", answer.body))
        .split(',')
        .next()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn between_two_real_files_the_earlier_one_answers() {
    let mut files = Vec::new();
    for (name, valid_at) in SNAPSHOTS {
        let Some(packed) = real(&format!("ibkr_snapshots/{name}.csv.gz")) else {
            return;
        };
        let file = String::from_utf8(unpacked(&packed)).unwrap();
        files.push((thinned(&file, &SYMBOLS), valid_at));
    }
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    for (file, valid_at) in &files {
        let import = format!("/internal/import?kind=ibkr&valid_at={valid_at}");
        let (status, body) = instance.control("POST", &import, file.as_bytes()).await;
        assert_eq!(status, 200, "{body}");
    }
    let mut differing = 0;
    for (index, (file, valid_at)) in files.iter().enumerate() {
        let valid: jiff::Timestamp = valid_at.parse().unwrap();
        let last_instant = match files.get(index + 1) {
            Some((_, next)) => {
                next.parse::<jiff::Timestamp>().unwrap() - jiff::SignedDuration::from_micros(1)
            }
            None => valid + jiff::SignedDuration::from_hours(24 * 30),
        };
        for symbol in SYMBOLS {
            let expected = fee_rate(file, symbol);
            for moment in [
                valid,
                valid + jiff::SignedDuration::from_hours(1),
                last_instant,
            ] {
                let path = format!("/api/v1/rates/{symbol}?as_of={moment}");
                let answer = instance.get(&key, &path).await;
                assert_eq!(base_rate(&answer), expected, "{path}: {}", answer.body);
            }
            let next = files.get(index + 1).map(|(next, _)| fee_rate(next, symbol));
            differing += usize::from(next.is_some_and(|next| next != expected));
        }
    }
    assert!(differing > 5, "the files say the same: nothing was shown");
    // Before all of them there is the sample alone.
    let before = instance
        .get(&key, "/api/v1/rates/PLTR?as_of=2026-03-23T13:22:59Z")
        .await;
    assert_eq!(before.status, 404, "{}", before.body);
}

fn book(date: &str, fee: &str, rebate: &str) -> String {
    format!(
        "#BOF|{date}|00:00:00\n#SYM|CUR|NAME|CON|ISIN|REBATERATE|FEERATE|AVAILABLE|FIGI|\nGME|USD|G|1|X|{rebate}|{fee}|5000|F|\n#EOF|1\n"
    )
}

async fn take(instance: &Instance, kind: &str, text: &str) {
    let path = format!("/internal/import?kind={kind}&by=tester&accept_jumps=true");
    let (status, body) = instance.control("POST", &path, text.as_bytes()).await;
    assert_eq!(status, 200, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quote_of_then_asked_for_later_has_the_same_bytes() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let entry = async |answer: &Answer| {
        let audit = &answer.json()["audit"];
        let id = format!("{}-{}-{}", audit["log"], audit["epoch"], audit["position"]);
        let fields = instance.entry(&id).await.fields;
        let text = |name: &str| fields.get(name).unwrap().to_owned();
        (text("inputs"), text("outputs"))
    };
    take(
        &instance,
        "ibkr",
        &book("2025.07.01", "50.0000", "-46.0000"),
    )
    .await;
    let then = instance.locate(&key, GME).await;
    assert_eq!(then.status, 200, "{}", then.body);
    let quote_id = then.json()["quote_id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/quotes/{quote_id}/explanation");
    let explanation = instance.get(&key, &path).await;
    assert_eq!(explanation.json()["replayed"], true, "{}", explanation.body);
    let priced_at = explanation.json()["explanation"]["inputs"]["priced_at_micros"]
        .as_i64()
        .unwrap();
    let priced_at = jiff::Timestamp::from_microsecond(priced_at).unwrap();

    // Everything that a price is made from changes: the rate, the index, the client's terms.
    take(
        &instance,
        "ibkr",
        &book("2025.07.02", "70.0000", "-66.0000"),
    )
    .await;
    take(
        &instance,
        "vix",
        "DATE,OPEN,HIGH,LOW,CLOSE\n2025-07-01,30.0,31.0,29.0,30.5\n",
    )
    .await;
    let terms = "client_id,markup_percent,fee_type,fee_amount,tier,convention,policy,active\nstandard,7.5,FLAT,99,standard,act365-1,sequential-1,true\n";
    take(&instance, "brokers", terms).await;
    let now = instance.locate(&key, GME).await;
    assert_ne!(now.json()["total_fee"], then.json()["total_fee"]);

    let body = GME.replace('}', &format!(",\"as_of\":\"{priced_at:.6}\"}}"));
    let again = instance.locate(&key, &body).await;
    assert_eq!(again.status, 200, "{}", again.body);
    assert_eq!(entry(&again).await, entry(&then).await);
    let again = again.json();
    assert_eq!(again["as_of"], format!("{priced_at:.6}"));
    assert_eq!(again["known_at"], again["as_of"], "nothing later may count");
    assert_eq!(again["expires_at"], again["as_of"], "over when it is given");

    // The same moment with what is known now: the rate of that day was corrected meanwhile.
    let corrected = GME.replace(
        '}',
        &format!(
            ",\"as_of\":\"{priced_at:.6}\",\"known_at\":\"{}\"}}",
            jiff::Timestamp::now()
        ),
    );
    let corrected = instance.locate(&key, &corrected).await;
    assert_eq!(
        corrected.json()["borrow_rate_used"],
        now.json()["borrow_rate_used"]
    );
    let report = instance.verify().await;
    assert_eq!(report.log.first_bad, None, "{report:?}");

    // Three were priced after the moment of the first; all four replay, whatever became of their policy.
    instance
        .sql("DELETE FROM policies; DELETE FROM brokers")
        .await;
    let replay = async |from: Option<i64>, to: Option<i64>| {
        let period = services::Period {
            from_micros: from,
            to_micros: to,
        };
        let report = services::replay(&instance.login("bre_service"), 0, period, |_| {})
            .await
            .unwrap();
        assert_eq!(report.mismatches, []);
        report.checked
    };
    let middle = priced_at.as_microsecond() + 1_000_000 * 60 * 60;
    assert_eq!(replay(None, None).await, 4);
    assert_eq!(replay(None, Some(priced_at.as_microsecond())).await, 0);
    assert_eq!(
        replay(Some(priced_at.as_microsecond()), Some(middle)).await,
        4
    );
    assert_eq!(replay(Some(middle), None).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_of_an_alias_is_kept() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    take(
        &instance,
        "aliases",
        "source,symbol,ticker,valid_from,valid_to\napi,SHOP,GME,2020-01-01,\n",
    )
    .await;
    let first = jiff::Timestamp::now();
    take(
        &instance,
        "aliases",
        "source,symbol,ticker,valid_from,valid_to\napi,SHOP,AMC,2020-01-01,\n",
    )
    .await;
    let ticker = async |query: &str| {
        let answer = instance
            .get(&key, &format!("/api/v1/rates/SHOP{query}"))
            .await;
        answer.json()["ticker"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(ticker("").await, "AMC");
    assert_eq!(ticker(&format!("?as_of={first}")).await, "GME");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_of_the_past_is_refused() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    for query in [
        "as_of=2999-01-01T00:00:00Z",
        "as_of=yesterday",
        "as_of=2026-04-01T10:31:00",
        "known_at=2026-04-01T10:31:00Z",
        "as_of=2026-04-01T10:31:00Z&as_of=2026-04-01T10:31:00Z",
    ] {
        let path = format!("/api/v1/rates/GME?{query}");
        let answer = instance.get(&key, &path).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.body);
        assert_eq!(answer.json()["error_code"], "INVALID_PARAMETER");
    }
    // Nothing at all was known in 1999.
    let old = "/api/v1/rates/GME?as_of=2026-04-01T10:31:00Z&known_at=1999-01-01T00:00:00Z";
    assert_eq!(instance.get(&key, old).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_new_is_known_about_is_not_read_again() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    // History that is loaded later: then, nothing was known yet.
    let day = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(40 * 24);
    let date = day.strftime("%Y.%m.%d").to_string();
    take(&instance, "ibkr", &book(&date, "50.0000", "-46.0000")).await;
    let as_of = day + jiff::SignedDuration::from_hours(24);
    let path = format!("/api/v1/rates/GME?as_of={as_of}");
    let first = instance.get(&key, &path).await;
    assert_eq!(first.status, 200, "{}", first.body);
    // Whoever had to read the rates would wait for this lock for ever.
    let (client, connection) =
        tokio_postgres::connect(&instance.login("postgres"), tokio_postgres::NoTls)
            .await
            .unwrap();
    tokio::spawn(connection);
    let lock = "BEGIN; LOCK TABLE base_rates IN ACCESS EXCLUSIVE MODE";
    client.batch_execute(lock).await.unwrap();
    for _ in 0..3 {
        let again = instance.get(&key, &path).await;
        assert_eq!(again.status, 200, "{}", again.body);
        assert_eq!(base_rate(&again), base_rate(&first));
        assert_ne!(again.json()["known_at"], first.json()["known_at"]);
    }
    client.batch_execute("ROLLBACK").await.unwrap();
    // A correction of that day is something new.
    take(&instance, "ibkr", &book(&date, "70.0000", "-66.0000")).await;
    let corrected = instance.get(&key, &path).await;
    assert_ne!(base_rate(&corrected), base_rate(&first));
}
