//! Feeds over HTTP, asked of a real server in this process that answers, lies, stalls and floods as it is told.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use services::{HttpSettings, SampleRates};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::{Instance, Options, SETTLED, until};

#[derive(Debug, Clone)]
enum Behaviour {
    /// By the end of the path.
    Answers(Vec<(&'static str, String)>),
    /// The same, and 422 for these ends of paths.
    Members(Vec<(&'static str, String)>, &'static [&'static str]),
    Status(&'static str),
    /// Headers, and then nothing.
    Stalls,
    /// A body that does not end.
    Floods,
    /// To itself, again and again.
    Redirects,
    HangsUp,
}

struct Server {
    address: String,
    behaviour: Arc<Mutex<Behaviour>>,
    asked: Arc<AtomicUsize>,
    /// The head of the last request.
    seen: Arc<Mutex<String>>,
}

impl Server {
    async fn start(behaviour: Behaviour) -> Server {
        Server::speaking(behaviour, None).await
    }

    async fn speaking(behaviour: Behaviour, tls: Option<tokio_rustls::TlsAcceptor>) -> Server {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let server = Server {
            address: format!("{scheme}://{}", listener.local_addr().unwrap()),
            behaviour: Arc::new(Mutex::new(behaviour)),
            asked: Arc::default(),
            seen: Arc::default(),
        };
        let (behaviour, asked, seen) = (
            Arc::clone(&server.behaviour),
            Arc::clone(&server.asked),
            Arc::clone(&server.seen),
        );
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (behaviour, asked, seen) = (
                    Arc::clone(&behaviour),
                    Arc::clone(&asked),
                    Arc::clone(&seen),
                );
                let tls = tls.clone();
                tokio::spawn(async move {
                    // What a client thinks of us is its own business.
                    let _ = match tls {
                        None => converse(stream, &behaviour, &asked, &seen).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => converse(stream, &behaviour, &asked, &seen).await,
                            Err(error) => Err(error),
                        },
                    };
                });
            }
        });
        server
    }

    fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    behaviour: &Mutex<Behaviour>,
    asked: &AtomicUsize,
    seen: &Mutex<String>,
) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&buffer[..read]);
    }
    let head = String::from_utf8_lossy(&request).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    *seen.lock().unwrap() = head;
    asked.fetch_add(1, Ordering::Relaxed);
    let behaviour = behaviour.lock().unwrap().clone();
    let whole = |status: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    match behaviour {
        Behaviour::Members(_, refused) if refused.iter().any(|end| path.ends_with(end)) => {
            let answer = whole("422 Unprocessable Content", "{}");
            stream.write_all(answer.as_bytes()).await
        }
        Behaviour::Answers(answers) | Behaviour::Members(answers, _) => {
            let found = answers.iter().find(|(end, _)| path.ends_with(end));
            let answer = match found {
                Some((_, body)) => whole("200 OK", body),
                None => whole("404 Not Found", "{}"),
            };
            stream.write_all(answer.as_bytes()).await
        }
        Behaviour::Status(status) => stream.write_all(whole(status, "{}").as_bytes()).await,
        Behaviour::Stalls => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
                .await?;
            std::future::pending().await
        }
        Behaviour::Floods => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await?;
            let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
            loop {
                stream.write_all(chunk.as_bytes()).await?;
            }
        }
        Behaviour::Redirects => {
            let answer = format!(
                "HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: {path}\r\nContent-Length: 0\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await
        }
        Behaviour::HangsUp => Ok(()),
    }
}

fn hurried(base: &str) -> HttpSettings {
    HttpSettings {
        poll_seconds: 1,
        timeout_seconds: 1,
        retry_milliseconds: 1,
        pause_seconds: Some(1),
        ..HttpSettings::at(base)
    }
}

fn borrows(rate: &str) -> Behaviour {
    let body = format!(
        r#"{{"borrows":[{{"ticker":"GME","rate":{rate},"status":"HARD"}},{{"ticker":"AMC","rate":0.07}}]}}"#
    );
    Behaviour::Answers(vec![("/api/borrows/batch", body)])
}

#[tokio::test(flavor = "multi_thread")]
async fn polled_rates_are_prices_and_a_hostile_server_changes_none() {
    let server = Server::start(borrows("0.15")).await;
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("key");
    std::fs::write(&key_file, "secret-of-the-feed\n").unwrap();
    std::fs::set_permissions(&key_file, PermissionsExt::from_mode(0o600)).unwrap();
    let mut options = Options::default();
    options.settings.feeds.seclend = Some(HttpSettings {
        api_key_file: Some(key_file),
        tickers: vec!["GME".to_owned(), "AMC".to_owned()],
        ..hurried(&server.address)
    });
    let instance = Instance::with(options).await;
    let key = instance.key_for("standard").await;
    let gme = async || instance.get(&key, "/api/v1/rates/GME").await.json();
    let is = |rate: &'static str| {
        move |answer: &serde_json::Value| {
            let found = answer["base_rate"].to_string();
            found == rate
        }
    };
    let answer = until("the first polled rate", &gme, is("0.15")).await;
    assert_eq!(answer["data_sources"]["base_rate"]["source"], "seclend");
    assert_eq!(answer["borrow_status"], "HARD");
    let head = server.seen.lock().unwrap().to_lowercase();
    assert!(head.contains("x-api-key: secret-of-the-feed"), "{head}");
    let state = async || {
        instance.get(&key, "/api/v1/health").await.json()["components"]["feeds"]["sources"]["seclend"].clone()
    };
    let says = |name: &'static str, word: &'static str| {
        move |state: &serde_json::Value| {
            state[name].as_str().is_some_and(|text| text.contains(word))
        }
    };
    let json = |body: &str| Behaviour::Answers(vec![("/api/borrows/batch", body.to_owned())]);
    let hostile = [
        (json("<html>"), "last_refusal", "answer"),
        (json(""), "last_refusal", "empty"),
        (
            json(r#"[{"ticker":"GME","rate":1e400}]"#),
            "last_refusal",
            "mostly_bad",
        ),
        (
            Behaviour::Status("503 Service Unavailable"),
            "last_failure",
            "503",
        ),
        (Behaviour::Redirects, "last_failure", "302"),
        (Behaviour::Floods, "last_failure", "longer than"),
        (Behaviour::Stalls, "last_failure", "in time"),
        (Behaviour::HangsUp, "breaker", "open"),
        (
            json(r#"[{"ticker":"GME","rate":-0.15},{"ticker":"AMC","rate":-1}]"#),
            "last_refusal",
            "mostly_bad",
        ),
    ];
    for (behaviour, name, word) in hostile {
        println!("{behaviour:?}: {name} {word}");
        server.behave(behaviour);
        until(word, &state, says(name, word)).await;
        assert!(is("0.15")(&gme().await), "{word}");
        if word == "open" {
            let health = instance.get(&key, "/api/v1/health").await.json();
            assert_eq!(health["status"], "degraded", "{health}");
            assert_eq!(health["degraded"][0]["part"], "feeds.seclend", "{health}");
        }
    }
    let jump = r#"[{"ticker":"GME","rate":15},{"ticker":"AMC","rate":0.07}]"#;
    server.behave(json(jump));
    until("closed again", &state, says("breaker", "closed")).await;
    assert!(is("0.15")(&gme().await), "a hundredfold rate was believed");
    server.behave(borrows("0.16"));
    until("the rate after it recovered", &gme, is("0.16")).await;
    let on_record = |word: &str| {
        format!(
            "SELECT count(*) > 0 FROM audit_log WHERE kind = 3 AND position(convert_to('{word}', 'UTF8') IN canonical) > 0"
        )
    };
    for word in ["breaker_opened", "breaker_closed", "mostly_bad"] {
        assert_eq!(instance.value(&on_record(word)).await, "t", "{word}");
    }
    assert_eq!(instance.value(&on_record("secret-of-the-feed")).await, "f");
    assert_eq!(instance.verify().await.log.first_bad, None);
}

/// The first run looks whether the database has a book of its own. A feed's delivery that came before that was taken for
/// one, and the sample book was never loaded; nor was its second file after a kill between the two.
#[tokio::test(flavor = "multi_thread")]
async fn no_feed_is_asked_before_the_sample_book_is_whole() {
    let index = r#"{"value":33.25}"#.to_owned();
    let server = Server::start(Behaviour::Answers(vec![("/api/market/volatility", index)])).await;
    let whole = SampleRates::shipped();
    let mut options = Options::default();
    options.settings.feeds.volatility = Some(hurried(&server.address));
    options.sample = Some(SampleRates {
        volatility: b"no index",
        ..whole
    });
    let mut instance = Instance::prepared(options);
    instance.launch().await;
    let short = std::time::Duration::from_millis(1);
    let ask = async || instance.services().wait_ready(short).await;
    let refused = until("the second file is refused", ask, |ready| {
        let refused = ready.as_ref().err().map(ToString::to_string);
        refused.is_some_and(|why| why.contains("the sample book is not valid"))
    })
    .await;
    assert!(refused.is_err());
    assert_eq!(server.asked.load(Ordering::Relaxed), 0);
    let sample = "SELECT count(*) FROM feed_batches WHERE source = 'sample'";
    assert_eq!(instance.value(sample).await, "1");
    instance.stop().await;
    instance.options.sample = Some(whole);
    instance.launch().await;
    instance.services().wait_ready(SETTLED).await.unwrap();
    assert_eq!(instance.value(sample).await, "2");
    let asked = async || server.asked.load(Ordering::Relaxed);
    until("the feed is asked", asked, |asked| *asked > 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn polled_volatility_and_events_are_prices_and_one_ticker_at_a_time_works() {
    let answers = vec![
        ("/api/market/volatility", r#"{"value":33.25}"#.to_owned()),
        (
            "/api/market/volatility/AMC",
            r#"{"volatility":"41"}"#.to_owned(),
        ),
        ("/risk-factor/GME", r#"{"risk_factor":7}"#.to_owned()),
        ("/risk-factor/AMC", "99".to_owned()),
        (
            "/api/borrows/GME",
            r#"{"rate":0.15,"status":"HARD"}"#.to_owned(),
        ),
        ("/api/borrows/BRK.A", r#"{"rate":"0.004"}"#.to_owned()),
    ];
    let server = Server::start(Behaviour::Answers(answers)).await;
    // Nothing stalls here but a busy machine.
    let patient = HttpSettings {
        timeout_seconds: 30,
        ..hurried(&server.address)
    };
    let mut options = Options::default();
    let feeds = &mut options.settings.feeds;
    feeds.volatility = Some(HttpSettings {
        tickers: vec!["AMC".to_owned()],
        ..patient.clone()
    });
    feeds.events = Some(patient.clone());
    feeds.seclend = Some(HttpSettings {
        batch_path: String::new(),
        ..patient.clone()
    });
    let instance = Instance::with(options).await;
    let key = instance.key_for("standard").await;
    let of = async |ticker: &str| {
        instance
            .get(&key, &format!("/api/v1/rates/{ticker}"))
            .await
            .json()
    };
    let gme = until(
        "all three for GME",
        async || of("GME").await,
        |answer| {
            let sources = &answer["data_sources"];
            ["base_rate", "volatility_index", "event_risk_factor"]
                .iter()
                .zip(["seclend", "volatility", "events"])
                .all(|(input, source)| sources[input]["source"] == source)
        },
    )
    .await;
    assert_eq!(
        (
            gme["base_rate"].to_string(),
            gme["volatility_index"].to_string(),
            gme["event_risk_factor"].as_u64()
        ),
        ("0.15".to_owned(), "33.25".to_owned(), Some(7))
    );
    let amc = until(
        "its own index",
        async || of("AMC").await,
        |answer| answer["volatility_index"].to_string().starts_with("41"),
    )
    .await;
    assert_eq!(amc["event_risk_factor"], 0, "99 is no factor: {amc}");
    let brk = until(
        "the one with a dot",
        async || of("BRK.A").await,
        |answer| answer["data_sources"]["base_rate"]["source"] == "seclend",
    )
    .await;
    assert_eq!(brk["base_rate"].to_string(), "0.004");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_is_asked_by_its_own_symbols() {
    let own = |borrows: (&'static str, &str)| {
        vec![
            ("/api/market/volatility", r#"{"value":20}"#.to_owned()),
            ("/api/market/volatility/G%2FS", r#"{"value":41}"#.to_owned()),
            ("/risk-factor/G%2FS", r#"{"risk_factor":7}"#.to_owned()),
            (borrows.0, borrows.1.to_owned()),
        ]
    };
    let batch = r#"{"borrows":[{"ticker":"G/S","rate":0.15}]}"#;
    let server = Server::start(Behaviour::Answers(own(("/api/borrows/batch", batch)))).await;
    let of_gme = HttpSettings {
        tickers: vec!["GME".to_owned()],
        timeout_seconds: 30,
        ..hurried(&server.address)
    };
    let mut options = Options::default();
    let feeds = &mut options.settings.feeds;
    feeds.volatility = Some(of_gme.clone());
    feeds.events = Some(of_gme.clone());
    feeds.seclend = Some(of_gme);
    let instance = Instance::with(options).await;
    for feed in ["volatility", "events", "seclend"] {
        let sql = format!(
            "INSERT INTO aliases VALUES ('{feed}', 'G/S', 'GME', '-infinity', 'infinity', now())"
        );
        instance.sql(&sql).await;
    }
    let key = instance.key_for("standard").await;
    let figures = async || {
        let answer = instance.get(&key, "/api/v1/rates/GME").await.json();
        ["base_rate", "volatility_index", "event_risk_factor"].map(|name| answer[name].to_string())
    };
    let first = ["0.15", "41.0", "7"].map(str::to_owned);
    until("its own figures", &figures, |found| *found == first).await;
    // The same where it takes one ticker a request.
    let one = own(("/api/borrows/G%2FS", r#"{"symbol":"G/S","rate":0.16}"#));
    server.behave(Behaviour::Members(one, &["/api/borrows/batch"]));
    let second = ["0.16", "41.0", "7"].map(str::to_owned);
    until("one at a time", &figures, |found| *found == second).await;
}

/// An authority of our own, and a certificate of it for this machine.
fn authority() -> (rcgen::Certificate, tokio_rustls::TlsAcceptor) {
    use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio_rustls::rustls::{ServerConfig, crypto};
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let root = parameters.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(parameters, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (root, tokio_rustls::TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_over_tls_is_believed_by_its_authority_alone() {
    let (root, tls) = authority();
    let server = Server::speaking(borrows("0.15"), Some(tls)).await;
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, root.pem()).unwrap();
    let known = HttpSettings {
        ca_file: Some(ca_file.clone()),
        tickers: vec!["GME".to_owned(), "AMC".to_owned()],
        ..hurried(&server.address)
    };
    let stranger = HttpSettings {
        ca_file: None,
        ..known.clone()
    };
    let mut options = Options::default();
    options.settings.feeds.seclend = Some(stranger);
    let instance = Instance::with(options).await;
    let key = instance.key_for("standard").await;
    let source = async || {
        instance.get(&key, "/api/v1/health").await.json()["components"]["feeds"]["sources"]["seclend"].clone()
    };
    let distrusted = |state: &serde_json::Value| {
        let failure = state["last_failure"].as_str().unwrap_or_default();
        failure.contains("certificate")
    };
    until("a certificate that nobody vouches for", &source, distrusted).await;
    assert_eq!(server.asked.load(Ordering::Relaxed), 0, "nothing was sent");
    let mut feeds = instance.options.settings.feeds.clone();
    feeds.seclend = Some(known.clone());
    instance.services().set_feeds(feeds.clone());
    let gme = async || instance.get(&key, "/api/v1/rates/GME").await.json();
    until("a rate over TLS", &gme, |answer| {
        answer["base_rate"] == 0.15
    })
    .await;
    // A file that is none is told, with its name.
    std::fs::write(&ca_file, "nonsense").unwrap();
    feeds.seclend = Some(HttpSettings {
        poll_seconds: 2,
        ..known
    });
    instance.services().set_feeds(feeds);
    let named = |state: &serde_json::Value| {
        let failure = state["last_failure"].as_str().unwrap_or_default();
        failure.contains("ca.pem") && failure.contains("no certificate")
    };
    until("a file without certificates", &source, named).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_ticker_of_a_feed_costs_the_others_nothing() {
    let answers = vec![
        ("/api/market/volatility", r#"{"value":20}"#.to_owned()),
        // First in the list, and never an answer that can be used.
        ("/api/market/volatility/AAPL", r#"{"value":0}"#.to_owned()),
        (
            "/api/market/volatility/GME",
            r#"{"volatility_index":45}"#.to_owned(),
        ),
        ("/risk-factor/AMC", r#"{"risk_factor":11}"#.to_owned()),
        ("/risk-factor/GME", r#"{"risk_factor":7}"#.to_owned()),
        // This server takes no batch, in whatever form.
        ("/api/borrows/GME", r#"{"rate":0.15}"#.to_owned()),
    ];
    let server = Server::start(Behaviour::Members(
        answers,
        &["/api/borrows/batch", "/api/borrows/AAPL"],
    ))
    .await;
    let of = |tickers: &[&str]| HttpSettings {
        tickers: tickers.iter().map(|ticker| (*ticker).to_owned()).collect(),
        timeout_seconds: 30,
        ..hurried(&server.address)
    };
    let mut options = Options::default();
    let feeds = &mut options.settings.feeds;
    feeds.volatility = Some(of(&["AAPL", "GME"]));
    feeds.events = Some(of(&["AMC", "GME"]));
    feeds.seclend = Some(of(&["AAPL", "GME"]));
    let instance = Instance::with(options).await;
    let key = instance.key_for("standard").await;
    let rate = async |ticker: &str| {
        let path = format!("/api/v1/rates/{ticker}");
        let answer = instance.get(&key, &path).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    };
    let figures = |answer: &serde_json::Value| {
        let figure = |name: &str| answer[name].to_string();
        [
            figure("base_rate"),
            figure("volatility_index"),
            figure("event_risk_factor"),
        ]
    };
    until(
        "its own figures for the good one",
        async || rate("GME").await,
        |answer| figures(answer) == ["0.15", "45.0", "7"].map(str::to_owned),
    )
    .await;
    let health = async || instance.get(&key, "/api/v1/health").await.json();
    let told = until("each feed's failing member", &health, |health| {
        let sources = &health["components"]["feeds"]["sources"];
        ["volatility", "events", "seclend"]
            .iter()
            .all(|source| sources[source]["failing_count"] == 1)
    })
    .await;
    // Many rounds later it is still the member that fails, and not the feed.
    let before = server.asked.load(Ordering::Relaxed);
    until(
        "many more rounds",
        async || server.asked.load(Ordering::Relaxed),
        |asked| *asked > before + 60,
    )
    .await;
    let later = health().await;
    for told in [&told, &later] {
        assert_eq!(told["status"], "degraded", "{told}");
        let sources = &told["components"]["feeds"]["sources"];
        for (source, member) in [
            ("volatility", "AAPL"),
            ("events", "AMC"),
            ("seclend", "AAPL"),
        ] {
            assert_eq!(sources[source]["breaker"], "closed", "{sources}");
            assert_eq!(sources[source]["failing"][0], member, "{sources}");
        }
    }
    // The bad ones say that they have not what they should have.
    let aapl = rate("AAPL").await;
    assert_eq!(
        aapl["data_sources"]["volatility_index"]["source"],
        "volatility"
    );
    for input in ["volatility_index", "base_rate"] {
        assert_eq!(
            aapl["data_sources"][input]["fallback"], true,
            "{input}: {aapl}"
        );
    }
    let amc = rate("AMC").await;
    assert_eq!(
        amc["data_sources"]["event_risk_factor"]["fallback"], true,
        "{amc}"
    );
    assert_eq!(
        rate("GME").await["data_sources"]["volatility_index"]["fallback"],
        false
    );
}
