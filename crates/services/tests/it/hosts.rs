//! Several servers in one connection string, and a server that stops being the one that takes writes.

use postgres_physical::replication::Connection;
use postgres_physical::server::sql::Client;
use postgres_physical::server::{Server, StartOptions, StopMode, write_cluster_file};
use postgres_physical::wire::ConnectOptions;
use services::{DatabaseError, WriterState};
use testkit::{TestPostgres, eventually};

use crate::harness::{GME, Instance, Options, SETTLED, until};

/// A hot standby of a test's server; what streams to it is not the subject.
struct Standby {
    server: Server,
    folder: tempfile::TempDir,
}

impl Standby {
    fn of(primary: &TestPostgres) -> Standby {
        let folder = tempfile::Builder::new()
            .prefix("standby-")
            .tempdir()
            .unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), mode).unwrap();
        let user = primary.os_user();
        user.own(folder.path()).unwrap();
        let data = folder.path().join("data");
        let sockets = primary.socket_dir().display().to_string();
        let port = primary.port().to_string();
        primary.run(
            "pg_basebackup",
            &[
                "-h",
                &sockets,
                "-p",
                &port,
                "-U",
                "postgres",
                "-D",
                data.to_str().unwrap(),
                "--checkpoint=fast",
                "--wal-method=fetch",
                "--no-sync",
            ],
        );
        write_cluster_file(&data, "standby.signal", "", user).unwrap();
        let mut options = StartOptions::new(folder.path(), 5432, folder.path().join("log"));
        options.settings = vec![
            ("fsync".into(), "off".into()),
            ("shared_buffers".into(), "16MB".into()),
            (
                "primary_conninfo".into(),
                format!("host={sockets} port={port} user=postgres"),
            ),
        ];
        let server = Server::start(primary.binaries(), user, &data, &options).unwrap();
        Standby { server, folder }
    }

    fn address(&self) -> (String, u16) {
        (self.folder.path().display().to_string(), 5432)
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        let _ = self.server.stop(StopMode::Immediate, SETTLED);
    }
}

fn words(addresses: &[&(String, u16)], user: &str, more: &str) -> String {
    let hosts: Vec<&str> = addresses.iter().map(|(host, _)| host.as_str()).collect();
    let ports: Vec<String> = addresses.iter().map(|(_, port)| port.to_string()).collect();
    format!(
        "host={} port={} user={user} dbname=bre connect_timeout=5 {more}",
        hosts.join(","),
        ports.join(",")
    )
}

/// Every order of a primary, a standby and a server that is away, for both clients.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_that_takes_writes_is_found_in_every_order() {
    let mut instance = Instance::prepared(Options::default());
    let standby = Standby::of(&instance.postgres);
    let primary = (
        instance.postgres.socket_dir().display().to_string(),
        instance.postgres.port(),
    );
    let standing = standby.address();
    let away = (standing.0.clone(), 5999);
    eventually("the standby answers", || {
        let options = ConnectOptions::from_url(&words(&[&standing], "postgres", "")).unwrap();
        Client::connect(&options).ok()
    });
    let own = Client::connect(&instance.postgres.connect_options())
        .unwrap()
        .value("SELECT pg_postmaster_start_time()")
        .unwrap();
    let orders = [
        [&primary, &standing, &away],
        [&primary, &away, &standing],
        [&standing, &primary, &away],
        [&standing, &away, &primary],
        [&away, &primary, &standing],
        [&away, &standing, &primary],
    ];
    for order in &orders {
        let text = words(order, "postgres", "target_session_attrs=read-write");
        let options = ConnectOptions::from_url(&text).unwrap();
        let mut client = Client::connect(&options).unwrap();
        let found = client.value("SELECT pg_postmaster_start_time()").unwrap();
        assert_eq!(found, own, "{text}");
        let mut replication = Connection::connect(&options).unwrap();
        assert_eq!(replication.show("in_hot_standby").unwrap(), "off", "{text}");
        let text = words(order, "postgres", "target_session_attrs=standby");
        let options = ConnectOptions::from_url(&text).unwrap();
        let mut replication = Connection::connect(&options).unwrap();
        assert_eq!(replication.show("in_hot_standby").unwrap(), "on", "{text}");
    }
    let options = ConnectOptions::from_url(&words(
        &[&standing, &away],
        "postgres",
        "target_session_attrs=read-write",
    ));
    let error = Client::connect(&options.unwrap()).unwrap_err();
    assert!(
        error.is_away() && error.to_string().contains("standby"),
        "{error}"
    );

    // The services need the one that takes writes, whether the string says so or not.
    for (index, order) in orders.iter().enumerate() {
        let said = ["", "target_session_attrs=read-write"][index % 2];
        let mut config = instance.config().await;
        config.database.owner = words(order, "bre_owner", said);
        config.database.service = words(order, "bre_service", said);
        let services = services::Services::start(config).await.unwrap();
        instance.services = Some(services);
        instance.services().wait_ready(SETTLED).await.unwrap();
        let key = instance.key_for("standard").await;
        assert_eq!(instance.locate(&key, GME).await.status, 200, "{order:?}");
        instance.stop().await;
    }
    let id = "00000000-0000-7000-8000-000000000000";
    // Looking is done on whichever server is named.
    let looked = services::places(&words(&[&standing], "bre_service", ""), 0, id).await;
    assert!(
        matches!(looked, Ok(_) | Err(DatabaseError::Query { .. })),
        "{looked:?}"
    );
}

/// A server that becomes read-only under us (a failover that keeps its sessions) is away: 503, nothing recorded, served again when some
/// server takes writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_became_read_only_is_away() {
    let instance = Instance::start().await;
    let key = instance.key_for("standard").await;
    assert_eq!(instance.locate(&key, GME).await.status, 200);
    let set = async |value: &str| {
        instance
            .sql(&format!(
                "ALTER SYSTEM SET default_transaction_read_only = {value}"
            ))
            .await;
        instance.sql("SELECT pg_reload_conf()").await;
    };
    set("on").await;
    let answer = until(
        "a session that cannot write",
        async || instance.locate(&key, GME).await,
        |answer| answer.status != 200,
    )
    .await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    let details = &answer.json()["details"];
    assert_eq!(details["part"], "database", "{details}");
    assert_eq!(details["outcome"], "not_recorded", "{details}");
    let mut state = instance.services().watch_writer();
    let read_only = |state: &WriterState| matches!(state, WriterState::Away { reason } if reason.contains("read-only"));
    tokio::time::timeout(SETTLED, state.wait_for(read_only))
        .await
        .expect("away, and why")
        .unwrap();
    set("off").await;
    let answer = until(
        "served again",
        async || instance.locate(&key, GME).await,
        |answer| answer.status == 200,
    )
    .await;
    assert_eq!(answer.status, 200);
}
