//! What answers must be a PostgreSQL, reached as a session of our own: poolers that share sessions, and engines whose locks are none.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use postgres_physical::server::sql::Client;
use postgres_physical::wire::ConnectOptions;
use services::{DatabaseError, Services, WriterState};
use testkit::TestPgBouncer;

use crate::harness::{GME, Instance, Options, SETTLED, until};

const ID: &str = "00000000-0000-7000-8000-000000000000";

/// Why the SQL client would not have it; `None`: it got as far as asking for tables.
async fn refusal(words: &str) -> Option<String> {
    match services::places(words, 1, ID).await {
        Ok(_) | Err(DatabaseError::Query { .. }) => None,
        Err(error) => Some(error.to_string()),
    }
}

fn through(pooler: &TestPgBouncer, role: &str) -> String {
    let folder = pooler.folder().display();
    format!(
        "host={folder} port={} user={role} dbname=bre",
        pooler.port()
    )
}

#[tokio::test]
async fn poolers_that_share_sessions_are_refused_with_words() {
    let instance = Instance::prepared(Options::default());
    // Whether it refuses our parameter, or loses it, or hands its servers out in turn.
    for (mode, more) in [
        ("transaction", ""),
        ("transaction", "ignore_startup_parameters = options"),
        (
            "transaction",
            "ignore_startup_parameters = options\nserver_round_robin = 1\nmin_pool_size = 3",
        ),
        // Every session is given the same server.
        (
            "transaction",
            "ignore_startup_parameters = options\ndefault_pool_size = 1",
        ),
        ("statement", "ignore_startup_parameters = options"),
    ] {
        let Some(pooler) = TestPgBouncer::start(&instance.postgres, mode, more) else {
            return;
        };
        let words = through(&pooler, "bre_service");
        let said = refusal(&words).await.unwrap_or_default();
        assert!(
            said.contains("connection pooler") && said.contains("pool_mode"),
            "{mode} {more}: {said}"
        );
        // Nor by the client for administration: what it sets for itself would be in force for others.
        let options = ConnectOptions::from_url(&words).unwrap();
        // Beside the runtime, which has still to close the sessions from before: the pool may have no other server.
        let connected = tokio::task::spawn_blocking(move || Client::connect(&options));
        let error = connected.await.unwrap().unwrap_err().to_string();
        assert!(
            error.contains("connection pooler") && error.contains("pool_mode"),
            "{mode} {more}: {error}"
        );
        let mut config = instance.config().await;
        config.database.owner = through(&pooler, "bre_owner");
        let Err(error) = Services::start(config).await else {
            panic!("{mode} {more}: it started");
        };
        assert!(error.to_string().contains("connection pooler"), "{error}");
    }
}

/// A pooler that keeps a session on one server does no harm, and served before. What the start could not see, because it came later, is
/// seen by the batch that it matters to: nothing is recorded in another session than the one that holds the lock.
#[tokio::test]
async fn a_pool_of_sessions_serves_until_it_shares_them() {
    let mut instance = Instance::prepared(Options::default());
    let Some(mut pooler) = TestPgBouncer::start(&instance.postgres, "session", "") else {
        return;
    };
    let mut config = instance.config().await;
    config.database.owner = through(&pooler, "bre_owner");
    config.database.service = through(&pooler, "bre_service");
    // The writer looks at its log in the session that it writes in; here it does not within the test.
    config.audit.as_mut().unwrap().look_every = Duration::from_secs(3600);
    instance.services = Some(Services::start(config).await.unwrap());
    instance.services().wait_ready(SETTLED).await.unwrap();
    let key = instance.key_for("standard").await;
    let answer = instance.locate(&key, GME).await;
    assert_eq!(answer.status, 200);
    // Within a second of a commit the writer asks in the same session how far WAL is flushed, to sign a head. Had the
    // pooler begun to share sessions before, that question would give the writer's server up, and the locate after it
    // would be refused: another session's.
    let position = answer.json()["audit"]["position"].as_u64().unwrap();
    until(
        "the head of the locate is published",
        async || {
            let heads = instance.outside.heads.lock().unwrap();
            heads.iter().any(|head| head.claimed().size >= position)
        },
        |published| *published,
    )
    .await;

    let words = through(&pooler, "bre_service");
    let mut client = Client::connect(&ConnectOptions::from_url(&words).unwrap()).unwrap();
    assert_eq!(client.value("SELECT 1").unwrap().as_deref(), Some("1"));
    drop(client);

    pooler.set_pool_mode("transaction");
    until(
        "the pooler shares sessions",
        async || refusal(&words).await,
        Option::is_some,
    )
    .await;
    // The writer has its server until the end of its next transaction, which is this one; the one after that lands
    // wherever the pooler pleases.
    let answer = instance.locate(&key, GME).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let count = "SELECT count(*) FROM quotes";
    let answer = until(
        "a locate that the pooler spoils",
        async || {
            steal(&words).await;
            let before = instance.value(count).await;
            (instance.locate(&key, GME).await, before)
        },
        |(answer, _)| answer.status != 200,
    )
    .await;
    let (answer, before) = answer;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(answer.json()["details"]["outcome"], "not_recorded");
    assert_eq!(instance.value(count).await, before);
    let mut state = instance.services().watch_writer();
    let refused = |state: &WriterState| matches!(state, WriterState::Away { reason } if reason.contains("connection pooler"));
    let waited = tokio::time::timeout(SETTLED, state.wait_for(refused)).await;
    waited.expect("refused with words").unwrap();
    // The session that listens for changes is found out as well: without it the market would grow old unseen.
    let database = async || {
        steal(&words).await;
        let health = instance.get(&key, "/api/v1/health").await.json();
        health["components"]["database"]["status"].to_string()
    };
    until("the market's session is given up", database, |status| {
        status != "\"up\""
    })
    .await;
}

/// Another client of the pooler, on the server that it gives out.
async fn steal(words: &str) {
    let connected = tokio_postgres::connect(words, tokio_postgres::NoTls).await;
    let (client, connection) = connected.unwrap();
    let driver = tokio::spawn(connection);
    let set = "SELECT set_config('bre.session', 'another', false)";
    client.simple_query(set).await.unwrap();
    drop(client);
    driver.await.unwrap().unwrap();
}

/// The batch itself compares: nothing is recorded in a session that another one was at, and the next session serves again.
#[tokio::test]
async fn a_batch_in_another_session_records_nothing() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    // After the first batch the session is another's, as it is behind a pooler when somebody else was on this server.
    instance
        .sql(
            "CREATE FUNCTION stolen() RETURNS trigger LANGUAGE plpgsql AS \
             $$BEGIN PERFORM set_config('bre.session', 'another', false); RETURN NULL; END$$; \
             CREATE TRIGGER stolen AFTER INSERT ON quotes EXECUTE FUNCTION stolen()",
        )
        .await;
    assert_eq!(instance.locate(&key, GME).await.status, 200);
    instance.sql("DROP TRIGGER stolen ON quotes").await;
    let count = "SELECT count(*) FROM quotes";
    let before = instance.value(count).await;
    let answer = instance.locate(&key, GME).await;
    let details = answer.json()["details"].clone();
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(
        details["detail"].to_string().contains("another session"),
        "{details}"
    );
    assert_eq!(details["outcome"], "not_recorded");
    assert_eq!(instance.value(count).await, before);
    let again = async || instance.locate(&key, GME).await.status;
    until("served again", again, |status| *status == 200).await;
}

/// Speaks just enough of the protocol to name itself.
fn stub(version: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = converse(stream.unwrap(), version);
        }
    });
    port
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

fn converse(mut stream: TcpStream, version: &str) -> std::io::Result<()> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut startup)?;
    let ready = message(b'Z', b"I");
    stream.write_all(&[message(b'R', &[0; 4]), ready.clone()].concat())?;
    loop {
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = vec![0; length as usize - 4];
        stream.read_exact(&mut body)?;
        let answer = if head[0] == b'Q' && body.starts_with(b"SELECT pg_catalog.version()") {
            let name = [
                &b"\0\x01version\0"[..],
                &[0; 6],
                &25_u32.to_be_bytes(),
                &[0xff, 0xff],
                &[0xff; 4],
                &[0, 0],
            ];
            let size = u32::try_from(version.len()).unwrap().to_be_bytes();
            let row = [&[0, 1][..], &size, version.as_bytes()].concat();
            [
                message(b'T', &name.concat()),
                message(b'D', &row),
                message(b'C', b"SELECT 1\0"),
            ]
            .concat()
        } else {
            message(b'E', b"SERROR\0C0A000\0Munimplemented\0\0")
        };
        stream.write_all(&[answer, ready.clone()].concat())?;
    }
}

#[tokio::test]
async fn engines_whose_locks_are_none_are_refused_by_name() {
    for (version, name) in [
        (
            "CockroachDB CCL v24.1.0 (x86_64-pc-linux-gnu)",
            "CockroachDB",
        ),
        (
            "PostgreSQL 11.2-YB-2.20.1.0-b0 on x86_64-pc-linux-gnu",
            "YugabyteDB",
        ),
    ] {
        let words = format!(
            "host=127.0.0.1 port={} user=bre_service dbname=bre sslmode=disable",
            stub(version)
        );
        let said = refusal(&words).await.unwrap_or_default();
        assert!(
            said.contains(name) && said.contains("pg_advisory_lock"),
            "{said}"
        );
    }
}
