//! Connections that real servers demand: TLS with real certificates, for the SQL client and for the replication client alike.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use postgres_physical::replication::Connection;
use postgres_physical::server::{ClientProgram, client_program};
use postgres_physical::wire::ConnectOptions;
use services::DatabaseError;
use testkit::{Authority, IssuedCertificate, KeyKind, TestPostgres, base64, eventually};

const HBA: &str = "local all all trust\n\
     hostssl all,replication cert_user 127.0.0.1/32 cert\n\
     hostssl all,replication scram_user 127.0.0.1/32 scram-sha-256\n\
     hostssl all,replication clear_user 127.0.0.1/32 password\n\
     host all,replication plain_user 127.0.0.1/32 trust\n";
const NAME: &str = "db.test";

/// A server, and the files that clients look at.
struct SecuredServer {
    postgres: TestPostgres,
    folder: tempfile::TempDir,
}

impl SecuredServer {
    fn start() -> SecuredServer {
        let postgres = TestPostgres::builder().tcp().hba(HBA).start();
        postgres.sql(
            "CREATE ROLE scram_user LOGIN REPLICATION PASSWORD 'pw'; CREATE ROLE clear_user LOGIN REPLICATION PASSWORD 'pw'; \
             CREATE ROLE cert_user LOGIN REPLICATION; CREATE ROLE plain_user LOGIN REPLICATION",
        );
        SecuredServer {
            postgres,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    fn words(&self, user: &str, more: &str) -> String {
        format!(
            "host={NAME} hostaddr=127.0.0.1 port={} user={user} password=pw dbname=postgres {more}",
            self.postgres.port()
        )
    }

    /// Shows another certificate, and waits until the server does.
    fn show(&self, issued: &IssuedCertificate, clients: Option<&Authority>) {
        self.postgres.show(issued, clients);
        let body = |pem: &str| {
            pem.lines()
                .filter(|line| !line.starts_with('-'))
                .collect::<String>()
        };
        let wanted = body(&issued.certificate);
        eventually("the server shows its new certificate", || {
            let shown = self.shown()?;
            (base64(&shown) == wanted).then_some(())
        });
    }

    fn shown(&self) -> Option<Vec<u8>> {
        let options = ConnectOptions::from_url(&self.words("nobody", "sslmode=require")).unwrap();
        let tls = options.tls().unwrap()?;
        let name = tls.server_name(&options.addresses[0]).unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", self.postgres.port())).ok()?;
        stream.write_all(&[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f]).ok()?;
        let mut answer = [0];
        stream.read_exact(&mut answer).ok()?;
        let mut session = rustls::ClientConnection::new(tls.config, name).unwrap();
        while session.is_handshaking() {
            session.complete_io(&mut stream).ok()?;
        }
        Some(session.peer_certificates()?.first()?.to_vec())
    }
}

/// `Ok`: the SQL client got as far as asking for tables (which are not there).
async fn by_sql(words: &str) -> Result<(), String> {
    let id = "00000000-0000-7000-8000-000000000000";
    match services::places(words, 1, id).await {
        Ok(_) | Err(DatabaseError::Query { .. }) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

fn by_replication(words: &str) -> Result<(), String> {
    let options = ConnectOptions::from_url(words).map_err(|error| error.to_string())?;
    let mut connection = Connection::connect(&options).map_err(|error| error.to_string())?;
    connection
        .identify_system()
        .map_err(|error| error.to_string())?;
    Ok(())
}

async fn by_both(words: &str) -> [Result<(), String>; 2] {
    [by_sql(words).await, by_replication(words)]
}

#[track_caller]
fn refused(results: [Result<(), String>; 2], says: &str, what: &str) {
    for (client, result) in ["sql", "replication"].into_iter().zip(results) {
        match result {
            Ok(()) => panic!("{client}, {what}: connected"),
            Err(error) => assert!(error.contains(says), "{client}, {what}: {error}"),
        }
    }
}

#[track_caller]
fn let_in(results: [Result<(), String>; 2], what: &str) {
    assert_eq!(results, [Ok(()), Ok(())], "{what}");
}

/// What is expected of a certificate.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Good,
    /// Good, but nothing can be bound to it.
    Unbindable,
    WrongHost,
    Refused(&'static str),
}

/// Every sort of certificate × `verify-ca`, `verify-full` × channel binding, for both clients.
#[tokio::test]
async fn certificates_are_judged_as_demanded() {
    let server = SecuredServer::start();
    let kinds = [
        KeyKind::RsaSha256,
        KeyKind::RsaSha384,
        KeyKind::EcdsaSha256,
        KeyKind::EcdsaSha384,
        KeyKind::Ed25519,
    ];
    let authorities = kinds.map(|kind| Authority::new(&format!("{kind:?}"), kind));
    let roots: String = authorities.iter().map(Authority::certificate).collect();
    let roots = server.file("roots.pem", &roots);
    let stranger = Authority::new("stranger", KeyKind::EcdsaSha256);
    let ecdsa = &authorities[2];
    let mut cases: Vec<(String, IssuedCertificate, Fate)> = Vec::new();
    for (kind, authority) in kinds.iter().zip(&authorities) {
        let fate = match kind {
            KeyKind::Ed25519 => Fate::Unbindable,
            _ => Fate::Good,
        };
        cases.push((format!("{kind:?}"), authority.server(&[NAME]), fate));
    }
    cases.extend([
        (
            "other host".to_owned(),
            ecdsa.server(&["other.test"]),
            Fate::WrongHost,
        ),
        (
            "expired".to_owned(),
            ecdsa.expired(&[NAME]),
            Fate::Refused("expired"),
        ),
        (
            "stranger".to_owned(),
            stranger.server(&[NAME]),
            Fate::Refused("UnknownIssuer"),
        ),
    ]);
    for (name, issued, fate) in &cases {
        server.show(issued, None);
        for mode in ["verify-ca", "verify-full"] {
            for binding in ["disable", "prefer", "require"] {
                let what = format!("{name}, {mode}, channel_binding={binding}");
                let more = format!(
                    "sslmode={mode} sslrootcert='{}' channel_binding={binding}",
                    roots.display()
                );
                let results = by_both(&server.words("scram_user", &more)).await;
                match fate {
                    Fate::Refused(says) => refused(results, says, &what),
                    Fate::WrongHost if mode == "verify-full" => refused(results, NAME, &what),
                    Fate::Unbindable if binding == "require" => refused(results, "Ed25519", &what),
                    _ => let_in(results, &what),
                }
            }
        }
    }
    // The last one shown is of an authority that nobody knows: encrypted, which is all that these ask for.
    for more in ["sslmode=require", "sslmode=prefer", ""] {
        let_in(by_both(&server.words("scram_user", more)).await, more);
    }
    let require = format!("sslmode=require sslrootcert='{}'", roots.display());
    let results = by_both(&server.words("scram_user", &require)).await;
    refused(
        results,
        "UnknownIssuer",
        "require with authorities named, as libpq",
    );
    // Its own certificate in the file is trusted as it is, as with libpq.
    let own = server.file("own.pem", &cases[7].1.certificate);
    let pinned = format!("sslmode=verify-full sslrootcert='{}'", own.display());
    let_in(
        by_both(&server.words("scram_user", &pinned)).await,
        "pinned",
    );
    let clear = server.words("clear_user", "sslmode=require channel_binding=require");
    let unbound = by_both(&clear);
    refused(unbound.await, "channel binding", "a password in clear text");
    let signer = server.file("stranger.pem", stranger.certificate());
    programs_get_the_same_demands(&server, &roots, &signer);
}

/// PostgreSQL's own programs are told the same: what our clients refuse, they refuse.
fn programs_get_the_same_demands(server: &SecuredServer, unknown: &Path, known: &Path) {
    let postgres = &server.postgres;
    let dump = |roots: &Path| {
        let more = format!("sslmode=verify-ca sslrootcert='{}'", roots.display());
        let options = ConnectOptions::from_url(&server.words("scram_user", &more)).unwrap();
        let command = client_program(
            postgres.binaries(),
            postgres.os_user(),
            ClientProgram::PgDump,
            &options,
        );
        let output = command.unwrap().arg("--schema-only").output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (done, said) = dump(unknown);
    assert!(
        !done && said.contains("certificate verify failed"),
        "{said}"
    );
    let (done, said) = dump(known);
    assert!(done, "{said}");
}

/// Whoever demands TLS never speaks in clear.
#[tokio::test]
async fn a_server_without_tls_is_refused_where_it_is_demanded() {
    let server = SecuredServer::start();
    let authority = Authority::new("authority", KeyKind::EcdsaSha256);
    let roots = server.file("roots.pem", authority.certificate());
    for mode in ["require", "verify-ca", "verify-full"] {
        let more = format!("sslmode={mode} sslrootcert='{}'", roots.display());
        let results = by_both(&server.words("plain_user", &more)).await;
        refused(results, "offers no TLS", mode);
    }
    for mode in ["disable", "prefer"] {
        let more = format!("sslmode={mode}");
        let_in(by_both(&server.words("plain_user", &more)).await, mode);
    }
    let results = by_both(&server.words("plain_user", "channel_binding=require")).await;
    refused(results, "channel binding", "trusted without TLS");

    // A handshake that fails is no reason for plain text either, which this user would be let in with.
    let liar = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = liar.local_addr().unwrap().port();
    let heard = std::thread::spawn(move || {
        let mut heard = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = liar.accept().unwrap();
            let mut request = [0; 8];
            stream.read_exact(&mut request).unwrap();
            stream
                .write_all(b"Sno TLS at all, whatever was said")
                .unwrap();
            stream.read_to_end(&mut heard).ok();
        }
        heard
    });
    let words = format!("host=127.0.0.1 port={port} user=plain_user password=hush sslmode=prefer");
    refused(by_both(&words).await, "TLS", "prefer");
    let heard = heard.join().unwrap();
    let has = |word: &[u8]| heard.windows(word.len()).any(|window| window == word);
    assert!(!has(b"plain_user") && !has(b"hush"));
}

#[tokio::test]
async fn clients_show_certificates_of_their_own() {
    let server = SecuredServer::start();
    let authority = Authority::new("authority", KeyKind::EcdsaSha256);
    let clients = Authority::new("clients", KeyKind::EcdsaSha256);
    server.show(&authority.server(&[NAME]), Some(&clients));
    let roots = server.file("roots.pem", authority.certificate());
    let own = clients.client("cert_user");
    let certificate = server.file("client.crt", &own.certificate);
    let key = server.file("client.key", &own.key);
    let verified = format!("sslmode=verify-full sslrootcert='{}'", roots.display());
    let with = |certificate: &Path, key: &Path| {
        let shown = (certificate.display(), key.display());
        let more = format!("{verified} sslcert='{}' sslkey='{}'", shown.0, shown.1);
        server.words("cert_user", &more)
    };
    // The server reads the authority of clients by the same reload as its certificate.
    let words = with(&certificate, &key);
    eventually("the server knows who may sign clients", || {
        by_replication(&words).ok()
    });
    let_in(by_both(&words).await, "its own certificate");
    let none = by_both(&server.words("cert_user", &verified)).await;
    refused(none, "certificate", "no certificate");
    let stranger = authority.client("cert_user");
    let wrong = with(
        &server.file("stranger.crt", &stranger.certificate),
        &server.file("stranger.key", &stranger.key),
    );
    assert!(
        by_both(&wrong).await.iter().all(Result::is_err),
        "a stranger's"
    );
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    refused(
        by_both(&words).await,
        "chmod 600",
        "a key that all may read",
    );
    server.file("client.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n");
    refused(by_both(&words).await, "encrypted", "a key under a password");
    server.file("client.key", "nothing");
    refused(by_both(&words).await, "no private key", "no key");
}

/// A password that is asked for at each connect: whoever changes it changes it for the next session.
#[tokio::test]
async fn passwords_are_asked_for_at_each_connect() {
    let server = SecuredServer::start();
    let authority = Authority::new("authority", KeyKind::EcdsaSha256);
    server.show(&authority.server(&[NAME]), None);
    let file = server.file("password", "pw\n");
    let line = server.file("pgpass", &format!("{NAME}:*:*:scram_user:pw\n"));
    let plain = format!(
        "host={NAME} hostaddr=127.0.0.1 port={} user=scram_user dbname=postgres sslmode=require channel_binding=require ",
        server.postgres.port()
    );
    let ways = [
        format!("password_file='{}'", file.display()),
        format!("passfile='{}'", line.display()),
        format!("password_command='cat {}'", file.display()),
    ];
    for way in &ways {
        let_in(by_both(&format!("{plain}{way}")).await, way);
    }
    server.postgres.sql("ALTER ROLE scram_user PASSWORD 'next'");
    let old = by_both(&format!("{plain}{}", ways[0])).await;
    refused(
        old,
        "password authentication failed",
        "the password of before",
    );
    server.file("password", "next\n");
    for way in [&ways[0], &ways[2]] {
        let_in(by_both(&format!("{plain}{way}")).await, way);
    }
    let failing = by_both(&format!("{plain}password_command='echo hush; exit 7'")).await;
    assert!(!format!("{failing:?}").contains("hush"));
    refused(failing, "exit status: 7", "a command that fails");
    refused(by_both(&plain).await, "password", "none");
}
