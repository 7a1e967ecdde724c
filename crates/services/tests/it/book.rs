//! Whole books over HTTP and over the control socket, against the real market where it is.

use std::path::Path;

use sha2_of::sha256;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::feeds::real;
use crate::harness::{Answer, Instance, http_client, until};

/// SHA-256 in hexadecimal, by the tool of the system: another implementation than the one that is tested.
mod sha2_of {
    use std::io::Write;
    use std::process::{Command, Stdio};

    pub(super) fn sha256(bytes: &[u8]) -> String {
        let mut tool = Command::new("sha256sum")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        tool.stdin.take().unwrap().write_all(bytes).unwrap();
        let output = tool.wait_with_output().unwrap().stdout;
        String::from_utf8_lossy(&output[..64]).into_owned()
    }
}

impl Instance {
    async fn book(&self, key: &str, query: &str, file: &[u8]) -> Answer {
        let request = http_client()
            .post(self.url(&format!("/api/v1/book{query}")))
            .header("X-API-Key", key)
            .header("Content-Type", "text/csv");
        Answer::of(request.body(file.to_vec())).await
    }
}

fn entry_id(answer: &Answer) -> &str {
    let header = answer
        .headers
        .iter()
        .find(|(name, _)| name == "x-audit-entry");
    &header.unwrap().1
}

fn lines(answer: &Answer) -> Vec<serde_json::Value> {
    let lines = answer.body.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

const BOOK: &str = "ticker,client,days,value\nGME,standard,30,100000\nAMC,standard,7,2500.50\nNOSUCH,standard,30,1\nGME,standard,0,1\nGME,premium,30,1\nGME,standard,30\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_book_is_answered_line_by_line_and_is_one_entry() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let locate = instance.locate(&key, crate::harness::GME).await.json();
    let answer = instance.book(&key, "", BOOK.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let lines = lines(&answer);
    let told: Vec<String> = lines[1..lines.len() - 1]
        .iter()
        .map(|line| {
            let what = line.get("error_code").unwrap_or(&line["total_fee"]);
            format!("{} {}", line["line"], what)
        })
        .collect();
    assert_eq!(
        told,
        [
            format!("2 {}", locate["total_fee"]),
            format!("3 {}", lines[2]["total_fee"]),
            "4 \"TICKER_NOT_FOUND\"".to_owned(),
            "5 \"INVALID_PARAMETER\"".to_owned(),
            "6 \"FORBIDDEN\"".to_owned(),
            "7 \"INVALID_PARAMETER\"".to_owned(),
        ]
    );
    let trailer = lines.last().unwrap();
    assert_eq!(
        (&trailer["lines"], &trailer["priced"], &trailer["refused"]),
        (&6.into(), &2.into(), &4.into())
    );
    assert_eq!(instance.value("SELECT count(*) FROM quotes").await, "1");
    let entry = instance.entry(entry_id(&answer)).await;
    let field = |name: &str| entry.fields.get(name).unwrap();
    assert_eq!(field("results_sha256"), sha256(answer.body.as_bytes()));
    assert_eq!(field("input_sha256"), sha256(BOOK.as_bytes()));
    assert_eq!(instance.verify().await.log.first_bad, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_book_is_refused_whole_and_leaves_no_entry() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let before = instance.value("SELECT count(*) FROM audit_log").await;
    for (file, why) in [
        (&b""[..], "empty"),
        (b"ticker,client,days\nGME,standard,30\n", "position_value"),
        (b"\xff\xfet\0", "UTF-16"),
        (b"PAR1 a Parquet file that was cut short", "cannot be read"),
        (b"{\"ticker\":\"GME\"}", "needs the columns"),
    ] {
        let answer = instance.book(&key, "", file).await;
        assert_eq!(answer.status, 400, "{}", answer.body);
        assert!(answer.body.contains(why), "{why}: {}", answer.body);
    }
    let answer = instance
        .book(&key, "?as_of=tomorrow", BOOK.as_bytes())
        .await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    let after = instance.value("SELECT count(*) FROM audit_log").await;
    assert_eq!(before, after);
}

impl Instance {
    /// The head of a book, and this much of its body.
    async fn begin_book(&self, key: &str, length: usize, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address()).await.unwrap();
        let head = format!(
            "POST /api/v1/book HTTP/1.1\r\nHost: bre\r\nX-API-Key: {key}\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        stream
    }

    async fn turns_in_use(&self, key: &str, count: u32) {
        let line = format!("bre_book_turns_in_use {count}\n");
        let ask = async || self.get(key, "/metrics").await.body;
        until(&line, ask, |metrics| metrics.contains(&line)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_still_coming_keep_nobody_waiting() {
    let instance = Instance::start().await;
    let slow = instance.key_for("premium").await;
    let mut bodies = Vec::new();
    for _ in 0..4 {
        bodies.push(instance.begin_book(&slow, 200_000_000, b"ticker").await);
    }
    let key = instance.key_for("standard").await;
    let answer = instance.book(&key, "", BOOK.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    // Whoever has so many books on their way gets no fifth.
    let full = async || instance.book(&slow, "", BOOK.as_bytes()).await;
    let refused = until("a fifth is refused", full, |answer| answer.status == 429).await;
    assert!(
        refused
            .headers
            .iter()
            .any(|(name, _)| name == "retry-after")
    );
    drop(bodies.pop());
    let taken = async || instance.book(&slow, "", BOOK.as_bytes()).await;
    until("a place is free again", taken, |answer| {
        answer.status == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_for_a_client_that_is_gone_ends_and_leaves_no_entry() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let entries = "SELECT count(*) FROM audit_log";
    let before = instance.value(entries).await;
    // Pricing waits for what it must know.
    let (client, connection) =
        tokio_postgres::connect(&instance.login("postgres"), tokio_postgres::NoTls)
            .await
            .unwrap();
    tokio::spawn(connection);
    client
        .batch_execute("BEGIN; LOCK TABLE brokers IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let mut books = Vec::new();
    for _ in 0..2 {
        books.push(instance.begin_book(&key, BOOK.len(), BOOK.as_bytes()).await);
    }
    instance.turns_in_use(&key, 2).await;
    for book in books {
        // As when a program is killed with an answer still to come.
        book.set_zero_linger().unwrap();
        drop(book);
    }
    instance.turns_in_use(&key, 0).await;
    client.batch_execute("ROLLBACK").await.unwrap();
    let answer = instance.book(&key, "", BOOK.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let new: i64 = instance.value(entries).await.parse().unwrap();
    let before: i64 = before.parse().unwrap();
    assert_eq!(new - before, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_client_that_reads_nothing() {
    let mut instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let mut book = String::from("ticker,client,days,value\n");
    for days in 1..=10_000 {
        book.push_str(&format!("GME,standard,{},100\n", 1 + days % 365));
    }
    // Its answer is longer than what the connection holds.
    let stream = instance.begin_book(&key, book.len(), book.as_bytes()).await;
    let priced = "SELECT count(*) FROM audit_log WHERE kind = 11";
    until(
        "it is priced",
        async || instance.value(priced).await,
        |count| count == "1",
    )
    .await;
    let stopping = tokio::time::timeout(
        std::time::Duration::from_secs(services::Running::STOP_SECONDS_MAX),
        instance.stop(),
    );
    assert!(stopping.await.is_ok(), "it does not stop");
    drop(stream);
}

fn write(folder: &Path, name: &str, answer: &(u16, String)) -> std::path::PathBuf {
    assert_eq!(answer.0, 200, "{}", answer.1);
    let path = folder.join(name);
    std::fs::write(&path, &answer.1).unwrap();
    path
}

/// A million lines and all real names, by hand.
fn is_long() -> bool {
    std::env::var_os("BRE_TEST_LONG").is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_lines_with_ten_broken_ones() {
    let instance = Instance::start().await;
    let mut book = String::from("ticker,client_id,loan_days,position_value\n");
    let lines = if is_long() { 1_000_000 } else { 100_000 };
    for line in 0..lines {
        let days = if line % (lines / 10) == 7 {
            0
        } else {
            1 + line % 365
        };
        let ticker = ["GME", "AMC", "AAPL", "TSLA"][line % 4];
        let client = ["standard", "premium", "discount", "institutional"][line / 4 % 4];
        book.push_str(&format!(
            "{ticker},{client},{days},{}.{:02}\n",
            1 + line,
            line % 100
        ));
    }
    let (status, body) = instance
        .control("POST", "/internal/book", book.as_bytes())
        .await;
    assert_eq!(status, 200);
    let refused: Vec<&str> = body
        .lines()
        .filter(|line| line.contains("\"status\":\"refused\""))
        .collect();
    assert_eq!(refused.len(), 10);
    assert!(
        refused
            .iter()
            .all(|line| line.contains("loan_days must be")),
        "{refused:?}"
    );
    let trailer: serde_json::Value = serde_json::from_str(body.lines().last().unwrap()).unwrap();
    assert_eq!(trailer["priced"], lines - 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_book_for_four_clients_again_as_of_then_and_what_changed_since() {
    let (Some(first), Some(history)) = (real("ibkr_usa_2025-12-28.txt"), real("vix-daily.csv"))
    else {
        return;
    };
    let Some(packed) = real("ibkr_snapshots/usa_2026-03-23T13-23-27530aae.csv.gz") else {
        return;
    };
    let instance = Instance::start().await;
    let import = async |query: &str, file: &[u8]| {
        let path = format!("/internal/import?accept_jumps=true&{query}");
        let (status, body) = instance.control("POST", &path, file).await;
        assert_eq!(status, 200, "{body}");
    };
    import("kind=ibkr", &first).await;
    let mut book = String::from("ticker,client_id,loan_days,position_value\n");
    let text = String::from_utf8_lossy(&first);
    let every = if is_long() { 1 } else { 20 };
    let rows = text.lines().filter(|row| !row.starts_with('#'));
    for row in rows.step_by(every) {
        let symbol = row.split('|').next().unwrap();
        for client in ["standard", "premium", "discount", "institutional"] {
            book.push_str(&format!("{symbol},{client},30,100000.00\n"));
        }
    }
    let price = async |query: &str| {
        let path = format!("/internal/book{query}");
        instance.control("POST", &path, book.as_bytes()).await
    };
    let folder = tempfile::tempdir().unwrap();
    let then = write(folder.path(), "then", &price("").await);
    let header = std::fs::read_to_string(&then).unwrap();
    let header: serde_json::Value = serde_json::from_str(header.lines().next().unwrap()).unwrap();
    let as_of = header["as_of"].as_str().unwrap();

    // any day: the file's own time.
    import(
        "kind=ibkr&valid_at=2026-03-23T13:23:00Z",
        &crate::past::unpacked(&packed),
    )
    .await;
    import("kind=vix", &history).await;
    let terms = "client_id,markup_percent,fee_type,fee_amount,tier,convention,policy,active\npremium,3.5,PERCENTAGE,0.75,premium,act365-1,standard-1,true\n";
    import("kind=brokers", terms.as_bytes()).await;

    let again = write(
        folder.path(),
        "again",
        &price(&format!("?as_of={as_of}")).await,
    );
    assert!(
        std::fs::read(&then).unwrap() == std::fs::read(&again).unwrap(),
        "a book of then has other bytes when it is asked for later"
    );
    let now = write(folder.path(), "now", &price("").await);
    let mut changes = 0;
    let report = services::diff_books(&then, &now, &mut |change| {
        changes += 1;
        if let (services::Side::Total(from), services::Side::Total(to)) = (&change.from, &change.to)
        {
            let moved: i64 = change.causes.iter().map(|(_, by)| by.units()).sum();
            assert_eq!(moved, to.units() - from.units(), "{change:?}");
        }
    })
    .unwrap();
    let lines = book.lines().count() as u64 - 1;
    assert_eq!(report.lines, (lines, lines));
    assert_eq!(report.changed + report.one_sided, changes);
    let causes = serde_json::to_value(&report.causes["USD"]).unwrap();
    for cause in ["base_rate", "volatility", "client_settings"] {
        assert!(causes[cause][0].as_u64() > Some(lines / 10), "{causes}");
    }
    let nothing = services::diff_books(&then, &again, &mut |change| panic!("{change:?}")).unwrap();
    assert_eq!((nothing.changed, nothing.one_sided), (0, 0));
}
