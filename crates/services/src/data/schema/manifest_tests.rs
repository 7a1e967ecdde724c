//! A database made by the migrations is what the manifest says, at every version; and one that somebody lives in is still that.

use testkit::TestPostgres;

use super::*;
use crate::data::migrations::{known, migrate, migrate_to};

struct World {
    postgres: TestPostgres,
}

impl World {
    fn new(postgres: TestPostgres) -> World {
        for sql in [
            "CREATE ROLE bre_owner LOGIN",
            "CREATE ROLE bre_service LOGIN",
            "CREATE DATABASE bre OWNER bre_owner",
        ] {
            postgres.sql(sql);
        }
        World { postgres }
    }

    fn url(&self, role: &str) -> String {
        format!(
            "postgres://{role}@/bre?host={}&port={}",
            self.postgres.socket_dir().display(),
            self.postgres.port()
        )
    }

    async fn facts(&self) -> Facts {
        let session = Verifying::begin(&self.url("postgres")).await.unwrap();
        let catalog = Catalog {
            client: session.client(),
            schema: session.schema(),
        };
        let all = "SELECT c.relname::text FROM pg_catalog.pg_class AS c WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace";
        let rows = session.client().query(all, &[]).await.unwrap();
        let tables: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
        let owner = catalog.owner().await.unwrap();
        catalog.facts(&tables, &owner).await.unwrap()
    }

    async fn sql(&self, sql: &str) {
        let client = connect(&self.url("postgres")).await;
        let done = client.batch_execute(sql).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    async fn report(&self, role: &str) -> SchemaReport {
        check_schema(&self.url(role)).await.unwrap()
    }
}

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/data/schema/manifest.txt");

/// After a new migration: RENEW_MANIFEST=1 with this test writes the file anew. Look at the difference before it is committed.
#[tokio::test]
async fn the_manifest_is_what_the_migrations_make_at_every_version() {
    let world = World::new(TestPostgres::start());
    let mut versions = Vec::new();
    for migration in known() {
        migrate_to(&world.url("bre_owner"), migration.version).await;
        versions.push((migration.version, world.facts().await));
        if std::env::var_os("RENEW_MANIFEST").is_none() {
            // An older database is compared with what was made up to there, whether the list of migrations may be read or not.
            for role in ["postgres", "bre_service"] {
                let report = world.report(role).await;
                assert_eq!(report.findings, [], "{role} at {}", migration.version);
                assert_eq!(report.notes.is_empty(), report.version == report.newest);
                // Some versions differ in nothing that is compared.
                match role {
                    "postgres" => assert_eq!(report.version, migration.version),
                    _ => assert!(report.version >= migration.version),
                }
            }
        }
    }
    let made = Manifest::made(&versions);
    let text = made.text();
    if std::env::var_os("RENEW_MANIFEST").is_some() {
        std::fs::write(FILE, &text).unwrap();
        return;
    }
    assert!(
        text == std::fs::read_to_string(FILE).unwrap(),
        "the migrations make something else than src/data/schema/manifest.txt says; \
         run: RENEW_MANIFEST=1 cargo test -p services the_manifest_is_what_the_migrations_make, and look at what changed"
    );
    assert_eq!(Manifest::embedded(), made);
}

/// What a DBA does with a database that is his: none of it is a finding.
const INNOCENT: &[&str] = &[
    "ALTER DATABASE bre SET datestyle = 'German'; ALTER DATABASE bre SET intervalstyle = 'iso_8601'; ALTER DATABASE bre SET timezone = 'Asia/Kathmandu'; \
     ALTER DATABASE bre SET bytea_output = 'escape'; ALTER DATABASE bre SET extra_float_digits = -5; ALTER ROLE bre_service SET lc_messages = 'C'; \
     ALTER ROLE bre_service SET statement_timeout = '1h'; ALTER DATABASE bre SET quote_all_identifiers = on; \
     ALTER DATABASE bre SET standard_conforming_strings = off; ALTER DATABASE bre SET row_security = on; ALTER DATABASE bre SET transform_null_equals = on",
    "CREATE TABLE notes (id serial PRIMARY KEY, quote_id uuid REFERENCES quotes); CREATE TABLE measurements (day date) PARTITION BY RANGE (day); \
     CREATE TABLE measurements_all PARTITION OF measurements DEFAULT; CREATE VIEW fees AS SELECT client_id, sum(total_fee) FROM quotes GROUP BY 1; \
     CREATE MATERIALIZED VIEW daily AS SELECT count(*) FROM audit_log; CREATE FUNCTION twice(integer) RETURNS integer LANGUAGE sql AS 'SELECT 2 * $1'",
    "CREATE SCHEMA archive; CREATE TABLE archive.quotes AS TABLE quotes; CREATE TABLE archive.audit_log AS TABLE audit_log",
    "CREATE INDEX dba_total ON quotes (total_fee); CREATE INDEX dba_lower ON quotes (lower(ticker)); CREATE INDEX dba_brin ON audit_log USING brin (position)",
    "CREATE STATISTICS dba_stats ON client_id, ticker FROM quotes; ALTER TABLE quotes ALTER ticker SET STATISTICS 500; ANALYZE quotes; \
     COMMENT ON TABLE quotes IS 'ours'; COMMENT ON COLUMN quotes.ticker IS 'theirs'; ALTER TABLE quotes SET (fillfactor = 90, autovacuum_enabled = on); \
     ALTER TABLE quotes CLUSTER ON quotes_pkey; ALTER TABLE quotes REPLICA IDENTITY FULL",
    "CREATE ROLE reporting; GRANT SELECT ON ALL TABLES IN SCHEMA public TO reporting; GRANT SELECT (ticker) ON quotes TO PUBLIC; \
     CREATE ROLE analyst IN ROLE reporting; GRANT CREATE ON DATABASE bre TO analyst; CREATE ROLE dba SUPERUSER; GRANT bre_owner TO dba",
    "CREATE PUBLICATION everything FOR ALL TABLES; \
     ALTER ROLE analyst SET search_path = archive, public; ALTER ROLE bre_service SET search_path = \"$user\", public, archive",
    "UPDATE pg_database SET datcollversion = '0.0' WHERE datname = 'bre'; ALTER SYSTEM SET datestyle = 'SQL, DMY'; SELECT pg_reload_conf()",
    "REINDEX INDEX quotes_pkey; VACUUM FREEZE quotes",
    "DROP INDEX quotes_request",
];

#[tokio::test]
async fn an_innocent_database_is_never_called_tampered() {
    let mut servers = vec![TestPostgres::start()];
    if let Some(binaries) = testkit::postgres_17_or_newer() {
        servers.push(TestPostgres::builder().binaries(binaries).start());
    }
    for postgres in servers {
        let world = World::new(postgres);
        migrate(&world.url("bre_owner")).await.unwrap();
        for change in INNOCENT {
            // Statements that take no transaction go one by one.
            match change.contains("VACUUM") || change.contains("ALTER SYSTEM") {
                true => {
                    for statement in change.split(';') {
                        world.sql(statement).await;
                    }
                }
                false => world.sql(change).await,
            }
        }
        for role in ["postgres", "bre_service", "bre_owner"] {
            let report = world.report(role).await;
            assert_eq!(report.findings, [], "{role}");
            assert!(report.compared > 200, "{report:?}");
        }
    }
}
