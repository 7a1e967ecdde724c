use postgres_physical::server::sql::Client;
use postgres_physical::server::{
    Leftover, Server, ServerError, StartOptions, StopMode, write_peer_access,
};
use postgres_physical::wire::WireError;
use std::time::Duration;
use testkit::{TestPostgres, TestRedis};

#[test]
fn a_cluster_starts_answers_and_stops() {
    let mut postgres = TestPostgres::start();
    assert_eq!(postgres.value("SELECT 40 + 2"), "42");
    assert_eq!(postgres.value("SHOW data_checksums"), "on");
    let mut client = postgres.client();
    let rows = client
        .query("SELECT 1 AS a, NULL AS b; DO $$BEGIN RAISE WARNING 'careful'; END$$")
        .unwrap();
    assert_eq!(rows.columns, ["a", "b"]);
    assert_eq!(rows.rows, [[Some("1".to_owned()), None]]);
    assert_eq!(client.take_notices()[0].message, "careful");
    let error = client.query("SELECT nonsense").unwrap_err();
    assert_eq!(error.sqlstate(), Some("42703"));
    assert_eq!(
        client.value("SELECT 'still here'").unwrap().as_deref(),
        Some("still here")
    );

    let exit = postgres
        .server()
        .stop(StopMode::Fast, Duration::from_secs(30))
        .unwrap();
    assert!(exit.clean, "{exit:?}");
    assert!(matches!(
        client.query("SELECT 1"),
        Err(WireError::Server { .. } | WireError::Lost(_))
    ));
}

#[test]
fn a_killed_server_is_noticed_and_starts_again_with_its_rows() {
    let mut postgres = TestPostgres::start();
    postgres.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
    assert_eq!(postgres.server().exited(), None);
    postgres.stop(StopMode::Kill);
    assert_eq!(Leftover::detect(&postgres.data_dir()), None);
    postgres.start_again();
    assert_eq!(postgres.value("SELECT sum(n) FROM t"), "500500");
}

#[test]
fn a_second_server_on_the_folder_is_refused_and_a_leftover_can_be_stopped() {
    let mut postgres = TestPostgres::start();
    let (dir, log) = (postgres.data_dir(), postgres.root().join("log2"));
    let options = StartOptions::new(postgres.root(), 5433, log);
    let second = Server::start(postgres.binaries(), postgres.os_user(), &dir, &options);
    let pid = postgres.server().pid();
    assert!(
        matches!(second, Err(ServerError::AlreadyRunning { pid: found, .. }) if found == pid),
        "{second:?}"
    );

    let leftover = Leftover::detect(&dir).unwrap();
    assert_eq!(leftover.postmaster, Some(pid));
    assert!(leftover.processes.len() > 3, "{leftover:?}");
    leftover.stop(Duration::from_secs(30)).unwrap();
    assert!(postgres.server().exited().unwrap().clean);
    assert_eq!(Leftover::detect(&dir), None);
}

#[test]
fn a_server_that_cannot_start_shows_the_end_of_its_log() {
    let mut postgres = TestPostgres::start();
    postgres.stop(StopMode::Fast);
    let options = StartOptions::new(postgres.root(), 5432, postgres.root().join("log"))
        .set("no_such_setting", 1);
    let error = Server::start(
        postgres.binaries(),
        postgres.os_user(),
        &postgres.data_dir(),
        &options,
    )
    .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("unrecognized configuration parameter \"no_such_setting\""),
        "{error}"
    );
}

#[test]
fn every_kind_of_authentication() {
    let hba = "local all postgres trust\n\
               host all scram_user 127.0.0.1/32 scram-sha-256\n\
               host all md5_user 127.0.0.1/32 md5\n\
               host all clear_user 127.0.0.1/32 password\n\
               local all peer_user peer map=m\n";
    let postgres = TestPostgres::builder().tcp().hba(hba).start();
    postgres.sql(
        "SET password_encryption = 'scram-sha-256'; CREATE ROLE scram_user LOGIN PASSWORD 'pä55'; \
         CREATE ROLE clear_user LOGIN PASSWORD 'pä55'; CREATE ROLE peer_user LOGIN; \
         SET password_encryption = 'md5'; CREATE ROLE md5_user LOGIN PASSWORD 'pä55'",
    );
    for user in ["scram_user", "md5_user", "clear_user"] {
        let options = postgres_physical::wire::ConnectOptions::tcp(
            "127.0.0.1",
            postgres.port(),
            user,
            "postgres",
        );
        let mut client = Client::connect(&options.clone().with_password("pä55")).unwrap();
        assert_eq!(
            client.value("SELECT current_user").unwrap().as_deref(),
            Some(user)
        );
        let missing = Client::connect(&options).unwrap_err();
        assert!(
            matches!(missing, WireError::PasswordMissing { .. }),
            "{missing}"
        );
        let wrong = Client::connect(&options.with_password("wrong-secret")).unwrap_err();
        assert_eq!(wrong.sqlstate(), Some("28P01"));
        assert!(!format!("{wrong} {wrong:?}").contains("wrong-secret"));
    }
    let os_user = postgres_physical::server::OsUser::current().unwrap();
    let roles = ["postgres", "peer_user"];
    write_peer_access(
        &postgres.data_dir(),
        postgres.os_user(),
        &[&os_user.name],
        &roles,
    )
    .unwrap();
    postgres.sql("SELECT pg_reload_conf()");
    let refused = testkit::eventually("only the map counts", || {
        Client::connect(&postgres.connect_options().with_user("md5_user")).err()
    });
    assert_eq!(refused.sqlstate(), Some("28000"), "{refused}");
    testkit::eventually("peer login", || {
        Client::connect(&postgres.connect_options().with_user("peer_user")).ok()
    });
}

#[test]
fn a_throw_away_redis_answers() {
    let mut redis = TestRedis::start();
    assert_eq!(redis.command("SET a 1").unwrap(), "+OK\r\n");
    redis.kill();
    redis.command("PING").unwrap_err();
}
