//! What comes over a raw connection: slow clients, huge heads, bytes that are no HTTP; and TLS.

use std::sync::Arc;
use std::time::Duration;

use services::InternalSecret;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::harness::{Answer, GME, Instance, Options, SETTLED, http_client};

/// What the other side says until it hangs up. It has to.
async fn all(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    // A connection that is cut is an end like any other.
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(SETTLED, read)
        .await
        .expect("the connection is left open");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn ask(instance: &Instance, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(instance.address()).await.unwrap();
    // The other side may hang up before it has read everything.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    all(&mut stream).await
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_and_odd_bytes_end_in_an_answer() {
    let mut options = Options::default();
    options.settings.head_timeout = Duration::from_millis(300);
    options.settings.quote_deadline = Duration::from_millis(300);
    let instance = Instance::with(options).await;
    let key = instance.key_for("standard").await;
    // A head that never ends, and a client that says nothing.
    for beginning in ["GET /api/v1/rates/GME HTTP/1.1\r\nX-API-", ""] {
        let mut stream = TcpStream::connect(instance.address()).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let answer = all(&mut stream).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
            "{answer}"
        );
    }
    // A body that never comes.
    let mut stream = TcpStream::connect(instance.address()).await.unwrap();
    let head = format!(
        "POST /api/v1/calculate-locate HTTP/1.1\r\nHost: bre\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: 80\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = all(&mut stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 400") && answer.contains("INVALID_PARAMETER"),
        "{answer}"
    );
    // 64 KiB of head, ten million bytes of body, more headers than anybody needs, and no HTTP at all.
    let big = "A".repeat(64 * 1024);
    let many: String = (0..200)
        .map(|number| format!("X-{number}: 1\r\n"))
        .collect();
    let body = "A".repeat(10_000_000);
    let start = "GET /api/v1/rates/GME HTTP/1.1\r\nHost: bre\r\nConnection: close\r\n";
    for (request, expected) in [
        (format!("{start}X-API-Key: {big}\r\n\r\n"), "431"),
        (format!("{start}{many}\r\n"), "431"),
        (
            format!(
                "POST /api/v1/calculate-locate HTTP/1.1\r\nHost: bre\r\nConnection: close\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: 10000000\r\n\r\n{body}"
            ),
            "413",
        ),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\r\n\r\n".to_owned(), "400"),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), "400"),
        (format!("GET /{big} HTTP/1.1\r\n\r\n"), "4"),
        (
            "GET /api/v1/rates/%ff%00%0a HTTP/1.1\r\nHost: bre\r\nConnection: close\r\n\r\n"
                .to_owned(),
            "401",
        ),
    ] {
        let answer = ask(&instance, request.as_bytes()).await;
        // So short is the timeout here that a busy machine may run out of it; what is answered has words.
        let refused = answer.is_empty() || answer.starts_with(&format!("HTTP/1.1 {expected}"));
        assert!(refused, "{expected}: {}", &answer[..answer.len().min(300)]);
        if !answer.is_empty() {
            has_words(&answer);
        }
    }
    assert_eq!(instance.locate(&key, GME).await.status, 200);
}

/// Every refusal is an answer like all others: JSON of the one shape, an id to ask with, the headers that a scanner expects.
fn has_words(answer: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").expect(answer);
    for header in [
        "x-request-id: ",
        "x-content-type-options: nosniff",
        "content-type: application/json",
    ] {
        assert!(head.contains(header), "{header}: {head}");
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    assert_eq!(length, Some(body.len().to_string().as_str()), "{answer}");
    let body: serde_json::Value = serde_json::from_str(body).expect(body);
    assert_eq!(body["status"], "error");
    for field in ["error", "error_code"] {
        assert!(
            body[field].as_str().is_some_and(|text| !text.is_empty()),
            "{body}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_no_http_are_answered_with_words() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    let head = format!("GET /api/v1/rates/GME HTTP/1.1\r\nHost: bre\r\nX-API-Key: {key}\r\n");
    for (request, status, code) in [
        ("GET /\r\n\r\n".to_owned(), 400, "INVALID_PARAMETER"),
        (
            "\u{1}\u{2}garbage\r\n\r\n".to_owned(),
            400,
            "INVALID_PARAMETER",
        ),
        (
            format!("{head}Content-Length: -1\r\n\r\n"),
            400,
            "INVALID_PARAMETER",
        ),
        (
            format!("{head}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
            400,
            "INVALID_PARAMETER",
        ),
        (
            format!("{head}X-One: a\u{0}b\r\n\r\n"),
            400,
            "INVALID_PARAMETER",
        ),
        (
            format!("{head}X-Long: {}\r\n\r\n", "A".repeat(64 * 1024)),
            431,
            "HEAD_TOO_LARGE",
        ),
    ] {
        let answer = ask(&instance, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request:?}: {answer}"
        );
        assert!(answer.contains(code), "{answer}");
        has_words(&answer);
    }
    // Behind an answer that was asked for well.
    let answer = ask(&instance, format!("{head}\r\n\u{1}\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_, second) = answer.split_once("}HTTP/1.1 400").expect(&answer);
    has_words(&format!("HTTP/1.1 400{second}"));
    // A client that says nothing more still gets its answer. Many times: whether the server sees the end of the stream before its
    // own answer is ready is chance.
    for _ in 0..200 {
        let answer = ask(&instance, format!("{head}\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    }
    // What a client sends into an answer's head is an id, or is not sent back.
    let evil = "evil%0d%0aX-Evil: 1";
    let answer = ask(
        &instance,
        format!(
            "{head}X-Request-ID: {evil}\r\nX-Correlation-ID: {evil}\r\nConnection: close\r\n\r\n"
        )
        .as_bytes(),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!answer.to_lowercase().contains("evil"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_port_speaks_tls() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut options = Options::default();
    options.settings.tls = Some(services::Tls {
        certificate: made.cert.pem().into_bytes(),
        key: made.signing_key.serialize_pem().into_bytes(),
    });
    options.settings.head_timeout = Duration::from_millis(300);
    let mut instance = Instance::with(options).await;
    let key = instance.key_for("standard").await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let request = format!(
        "GET /api/v1/rates/GME HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nConnection: close\r\n\r\n"
    );
    let stream = TcpStream::connect(instance.address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    let answer = spoken(&mut stream, &request).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"current_rate\":0.22800000"),
        "{answer}"
    );
    // The same words in the clear are no answer.
    let plain = ask(&instance, request.as_bytes()).await;
    assert!(!plain.contains("HTTP/1.1"), "{plain}");
    instance.stop().await;
}

async fn spoken(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    all(stream).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_does_not_fit_is_refused_at_the_start() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let pem = |text: String| text.into_bytes();
    for (certificate, key, says) in [
        (
            pem(made.cert.pem()),
            pem(other.signing_key.serialize_pem()),
            "do not work",
        ),
        (
            b"nonsense".to_vec(),
            pem(made.signing_key.serialize_pem()),
            "no certificate",
        ),
        (
            pem(made.cert.pem()),
            b"nonsense".to_vec(),
            "not a PEM private key",
        ),
    ] {
        let mut options = Options::default();
        options.settings.tls = Some(services::Tls { certificate, key });
        let error = Instance::prepared(options).refused().await;
        assert!(error.contains(says), "{error}");
        assert!(!error.contains("PRIVATE KEY-----"), "{error}");
    }
}

/// What two readers could take differently is not guessed at: whom a request is for, what its body is, what an empty body's type says.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_leaves_open_is_not_guessed() {
    let mut options = Options::default();
    let token = "0123456789abcdef0123456789abcdef";
    options.settings.metrics.token = Some(InternalSecret::new(token).unwrap());
    let instance = Instance::with(options).await;
    let key = instance.key_for("standard").await;
    let get = async |version: &str, hosts: &str| {
        let head = format!(
            "GET /api/v1/health/liveness HTTP/{version}\r\n{hosts}Connection: close\r\n\r\n"
        );
        ask(&instance, head.as_bytes()).await
    };
    for (version, hosts, expected) in [
        ("1.1", "Host: bre\r\n", "200"),
        ("1.1", "Host: bre.example:8000\r\n", "200"),
        ("1.1", "Host: [::1]:8000\r\n", "200"),
        ("1.1", "", "400"),
        ("1.1", "Host:\r\n", "400"),
        ("1.1", "Host: a\r\nHost: a\r\n", "400"),
        ("1.1", "Host: a\r\nHost: b\r\n", "400"),
        ("1.1", "Host: a, b\r\n", "400"),
        ("1.1", "Host: user@bre\r\n", "400"),
        ("1.1", "Host: bre/path\r\n", "400"),
        // Older monitors send none.
        ("1.0", "", "200"),
        ("1.0", "Host: a\r\nHost: b\r\n", "400"),
    ] {
        let answer = get(version, hosts).await;
        let status = answer.split(' ').nth(1).unwrap();
        assert_eq!(status, expected, "{hosts:?}: {answer}");
        if expected == "400" {
            has_words(&answer);
            assert!(answer.contains("\"Host\""), "{answer}");
        }
    }

    let post = async |path: &str, headers: &[(&str, &str)], body: &str| {
        let mut request = http_client()
            .post(instance.url(path))
            .header("X-API-Key", &key);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request.body(body.to_owned())).await
    };
    let json = ("Content-Type", "application/json");
    let book = "ticker,client,days,value\nGME,standard,30,1\n";
    for coding in ["gzip", "br", "identity, gzip", "zstd"] {
        let coded = ("Content-Encoding", coding);
        for answer in [
            post("/api/v1/calculate-locate", &[json, coded], GME).await,
            post(
                "/api/v1/locates/0190163d-8694-739b-aea5-966c26f8ad91/accept",
                &[coded],
                "",
            )
            .await,
            post("/api/v1/book", &[coded], book).await,
        ] {
            assert_eq!(answer.status, 415, "{coding}: {}", answer.body);
            assert!(answer.body.contains("Content-Encoding"), "{}", answer.body);
            let takes = ("accept-encoding".to_owned(), "identity".to_owned());
            assert!(answer.headers.contains(&takes));
        }
    }
    let plain = ("Content-Encoding", "identity");
    let answer = post("/api/v1/calculate-locate", &[json, plain], GME).await;
    assert_eq!(answer.status, 200, "{}", answer.body);

    // Nothing to say has no type: these get as far as that there is no such locate.
    for kind in ["application/octet-stream", "text/plain", "application/json"] {
        for step in ["accept", "decline", "return"] {
            let path = format!("/api/v1/locates/0190163d-8694-739b-aea5-966c26f8ad91/{step}");
            let answer = post(&path, &[("Content-Type", kind)], "").await;
            assert_eq!(answer.status, 404, "{step} {kind}: {}", answer.body);
        }
    }
    let path = "/api/v1/locates/0190163d-8694-739b-aea5-966c26f8ad91/accept";
    let answer = post(path, &[("Content-Type", "text/plain")], "{}").await;
    assert_eq!(answer.status, 415, "{}", answer.body);

    // The metrics: this machine, or the token; what a proxy passes on comes from elsewhere.
    let metrics = async |headers: &[(&str, &str)]| {
        let mut request = http_client().get(instance.url("/metrics"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request).await
    };
    let elsewhere = ("X-Forwarded-For", "203.0.113.9");
    let bearer = format!("Bearer {token}");
    assert_eq!(metrics(&[]).await.status, 200);
    assert_eq!(
        metrics(&[elsewhere, ("Authorization", &bearer)])
            .await
            .status,
        200
    );
    for wrong in [
        &[elsewhere][..],
        &[elsewhere, ("Authorization", "Bearer no")],
    ] {
        let answer = metrics(wrong).await;
        assert_eq!(answer.status, 401, "{}", answer.body);
        assert!(
            answer
                .headers
                .contains(&("www-authenticate".to_owned(), "Bearer".to_owned()))
        );
        assert!(!answer.body.contains("bre_"), "{}", answer.body);
    }
    // Who guesses is counted by where he is, told, and slowed after a burst; who has the token is not.
    // Many at once: one a second is none too many, and a busy machine may take that long for each.
    let mut wrong = 1;
    crate::harness::until(
        "the guesses are told",
        async || {
            let guess = &[elsewhere, ("Authorization", "Bearer guess")];
            for answer in futures_util::future::join_all((0..30).map(|_| metrics(guess))).await {
                assert_eq!(answer.status, 401);
                wrong += 1;
            }
            Answer::of(http_client().get(instance.url("/health"))).await
        },
        |health| health.body.contains("wrong keys came from"),
    )
    .await;
    let counted = metrics(&[]).await.body;
    let line = format!("bre_wrong_keys_total{{door=\"metrics\"}} {wrong}");
    assert!(counted.lines().any(|it| it == line), "{line}: {counted}");
}

/// Whoever starts the services may have something to do before anybody is told that they are ready.
#[tokio::test(flavor = "multi_thread")]
async fn ready_is_said_when_the_start_is_over() {
    let mut options = Options::default();
    options.settings.starts_later = true;
    let instance = Instance::with(options).await;
    let readiness = async || {
        let request = http_client().get(instance.url("/api/v1/health/readiness"));
        Answer::of(request).await.status
    };
    assert_eq!(readiness().await, 503);
    instance.services().started();
    assert_eq!(readiness().await, 200);
}
