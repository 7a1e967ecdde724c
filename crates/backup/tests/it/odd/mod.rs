//! Odd clusters, as they are met in the field. This is the short form, which CI runs; the long one is `make slow-odd-clusters`.

mod segments;
mod settings;

use std::net::TcpListener;
use std::path::Path;

use backup::database::verify_live;
use backup::schema::{SchemaBackup, SchemaOutcome, backup_schema};
use postgres_physical::page::PAGE_BYTES;
use testkit::{TestPostgres, odd};

fn schema(postgres: &TestPostgres, folder: &Path) -> SchemaOutcome {
    let request = SchemaBackup {
        connect: &postgres.connect_options(),
        binaries: postgres.binaries(),
        user: postgres.os_user(),
        folder,
        remote: None,
    };
    backup_schema(&request, &()).unwrap()
}

fn file_of(folder: &Path, database: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let name = database.bytes().map(|byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    let path = folder
        .join("databases")
        .join(name.collect::<String>() + ".sql");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{database:?}: {error}"))
}

#[test]
fn a_name_is_a_name_whatever_it_looks_like_and_one_database_costs_no_other() {
    let postgres = TestPostgres::start();
    // Whoever may make a database could lead us, with our password, to wherever it says.
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let port = elsewhere.local_addr().unwrap().port();
    let leading_away = [
        format!("host=127.0.0.1 port={port} dbname=x"),
        format!("postgresql://127.0.0.1:{port}/x"),
    ];
    odd::databases_of_every_name(&postgres, &odd::NAMES);
    odd::databases_of_every_name(&postgres, &leading_away.each_ref().map(String::as_str));
    odd::half_dropped(&postgres, "half dropped");
    odd::closed(&postgres, "closed");
    odd::database(&postgres, "cannot be entered");
    postgres.sql(
        "ALTER DATABASE \"cannot be entered\" SET local_preload_libraries = 'nowhere'; \
         CREATE TABLE kept (bytes bytea DEFAULT '\\x00ff', text text DEFAULT E'a\\\\b', gap interval DEFAULT '1 day 2 hours', rate float8 DEFAULT 0.1)",
    );

    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("schema");
    let outcome = schema(&postgres, &folder);
    for name in odd::NAMES
        .iter()
        .copied()
        .chain(leading_away.iter().map(String::as_str))
    {
        let text = file_of(&folder, name);
        let comment = format!(
            "COMMENT ON TABLE public.whose IS '{}'",
            name.replace('\'', "''")
        );
        let escaped = comment.replace("IS '", "IS E'").replace('\\', "\\\\");
        assert!(
            text.contains(&comment) || text.contains(&escaped),
            "{name:?}: {text}"
        );
        assert!(outcome.databases.iter().any(|it| it == name), "{name:?}");
    }
    assert!(elsewhere.accept().is_err(), "somebody was led away");
    let not_read: Vec<_> = outcome
        .not_read
        .iter()
        .map(|it| (it.database.as_str(), it.failed))
        .collect();
    assert_eq!(
        not_read,
        [
            ("cannot be entered", true),
            ("closed", false),
            ("half dropped", false)
        ]
    );
    let why = |at: usize| outcome.not_read[at].why.as_str();
    assert!(why(0).contains("nowhere"), "{}", why(0));
    assert!(why(1).ends_with("ALTER DATABASE \"closed\" ALLOW_CONNECTIONS true"));
    assert!(why(2).ends_with("DROP DATABASE \"half dropped\""));

    // What is not read is not dropped; settings that are made for applications change no definition.
    odd::settings_of_an_application(&postgres, "postgres");
    odd::close(&postgres, "UPPER");
    postgres.sql("DROP DATABASE \"dbname=UPPER\"");
    let outcome = schema(&postgres, &folder);
    assert_eq!(
        outcome.changes,
        [
            "database dbname%3DUPPER dropped".to_owned(),
            "role postgres altered".to_owned()
        ]
    );
    assert!(outcome.not_read.iter().any(|it| it.database == "UPPER"));
    assert!(file_of(&folder, "UPPER").contains("IS 'UPPER'"));
}

#[test]
fn a_damaged_page_of_a_database_that_nobody_can_enter_is_no_left_over_file() {
    let mut postgres = TestPostgres::start();
    odd::database(&postgres, "closed");
    let path = odd::client_of(&postgres, "closed")
        .value("SELECT pg_relation_filepath('whose')")
        .unwrap()
        .unwrap();
    odd::close(&postgres, "closed");
    postgres.stop(postgres_physical::server::StopMode::Fast);
    let file = postgres.data_dir().join(&path);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[PAGE_BYTES - 3] ^= 0xFF;
    std::fs::write(&file, bytes).unwrap();
    postgres.start_again();

    let found = verify_live(&postgres.connect_options(), &()).unwrap();
    let [page] = &found.damaged[..] else {
        panic!("{found:?}");
    };
    assert_eq!(page.owner.database.as_deref(), Some("closed"));
    let why = page.owner.unknown_because.as_deref().unwrap();
    assert!(why.contains("ALLOW_CONNECTIONS true"), "{why}");
}
