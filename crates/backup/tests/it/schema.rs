//! The schema in git: real git, real PostgreSQL, a remote that moves and one that is away.

use std::path::Path;
use std::process::Command;

use backup::schema::{SchemaBackup, SchemaOutcome, backup_schema};
use testkit::TestPostgres;

struct Fixture {
    postgres: TestPostgres,
    root: tempfile::TempDir,
}

impl Fixture {
    fn try_backup(&self, folder: &str, remote: Option<&str>) -> Result<SchemaOutcome, String> {
        let request = SchemaBackup {
            connect: &self.postgres.connect_options(),
            binaries: self.postgres.binaries(),
            user: self.postgres.os_user(),
            folder: &self.root.path().join(folder),
            remote,
        };
        backup_schema(&request, &()).map_err(|error| error.to_string())
    }

    fn backup(&self, folder: &str) -> SchemaOutcome {
        self.try_backup(folder, None).unwrap()
    }

    fn git(&self, folder: &Path, arguments: &[&str]) -> String {
        let folder = self.root.path().join(folder);
        let output = Command::new("git")
            .arg("-C")
            .arg(&folder)
            .args(["-c", "user.name=bob", "-c", "user.email=bob@localhost"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn commits(&self, folder: &str) -> Vec<String> {
        let subjects = self.git(
            Path::new(folder),
            &["log", "--format=%s", "--reverse", "HEAD"],
        );
        subjects.lines().map(str::to_owned).collect()
    }
}

fn desk() -> Fixture {
    let desk = Fixture {
        postgres: TestPostgres::start(),
        root: tempfile::tempdir().unwrap(),
    };
    desk.postgres.sql(
        "CREATE ROLE trader PASSWORD 's3cret'; CREATE TABLE orders (id serial PRIMARY KEY, price numeric(20,4) CHECK (price >= 0)); \
         CREATE FUNCTION twice(n integer) RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT 2 * n'; \
         CREATE INDEX twice_index ON orders (twice(id)); CREATE VIEW cheap AS SELECT id FROM orders WHERE price < 1; \
         GRANT SELECT ON orders TO trader; CREATE FOREIGN DATA WRAPPER far; CREATE SERVER far FOREIGN DATA WRAPPER far; \
         CREATE USER MAPPING FOR trader SERVER far OPTIONS (password 's3cret', \"user\" 'bob')",
    );
    desk.postgres.sql("CREATE DATABASE \"Second Desk\"");
    desk
}

#[test]
fn one_commit_for_every_change_and_none_without_one() {
    let desk = desk();
    let first = desk.backup("schema");
    assert_eq!(first.databases, ["Second Desk", "postgres", "template1"]);
    assert_eq!(first.not_read, []);
    assert!(first.commit.is_some() && !first.pushed);
    let read =
        |name: &str| std::fs::read_to_string(desk.root.path().join("schema").join(name)).unwrap();
    let all = read("databases/postgres.sql")
        + &read("globals.sql")
        + &read("databases/Second%20Desk.sql");
    assert!(all.contains("CREATE TABLE public.orders") && all.contains("CREATE ROLE trader"));
    for word in ["s3cret", "SCRAM", "restrict", "Dumped"] {
        assert!(!all.contains(word), "{word}");
    }
    // Rows are no schema.
    desk.postgres
        .sql("INSERT INTO orders (price) VALUES (1), (2)");
    assert_eq!(desk.backup("schema").commit, None);

    desk.postgres
        .sql("ALTER TABLE orders ADD COLUMN client text; CREATE TABLE clients (id integer)");
    let second = desk.backup("schema");
    assert_eq!(second.not_read, []);
    assert_eq!(
        second.changes,
        [
            "table public.clients added in postgres",
            "table public.orders altered in postgres"
        ]
    );
    desk.postgres
        .sql("DROP TABLE clients; ALTER ROLE trader LOGIN");
    desk.backup("schema");
    assert_eq!(desk.backup("schema").commit, None);
    let commits = desk.commits("schema");
    assert_eq!(commits.len(), 3, "{commits:?}");
    assert_eq!(
        commits[2],
        "table public.clients dropped in postgres, role trader altered"
    );

    // What is somebody else's in the same repository stays theirs; a commit that was interrupted is made by the next run.
    std::fs::write(desk.root.path().join("schema/README"), "mine").unwrap();
    desk.git(Path::new("schema"), &["add", "README"]);
    std::fs::write(desk.root.path().join("schema/globals.sql"), "half written").unwrap();
    assert_eq!(desk.backup("schema").commit, None);
    assert!(read("globals.sql").contains("CREATE ROLE trader"));
    desk.postgres.sql("DROP DATABASE \"Second Desk\"");
    assert_eq!(
        desk.backup("schema").changes,
        ["database Second%20Desk dropped"]
    );
    assert_eq!(
        desk.git(Path::new("schema"), &["status", "--porcelain"]),
        "A  README\n"
    );

    // The SQL makes the same schema: its dump is the same.
    desk.postgres.sql("CREATE DATABASE again");
    let path = desk.root.path().join("schema/databases/postgres.sql");
    let sql = desk.postgres.root().join("again.sql");
    std::fs::copy(&path, &sql).unwrap();
    let sockets = desk.postgres.socket_dir().to_str().unwrap().to_owned();
    let sql = sql.to_str().unwrap();
    desk.postgres.run(
        "psql",
        &[
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-h",
            &sockets,
            "-U",
            "postgres",
            "-d",
            "again",
            "-f",
            sql,
        ],
    );
    desk.backup("schema");
    assert_eq!(read("databases/again.sql"), read("databases/postgres.sql"));
}

#[test]
fn commits_reach_a_remote_when_it_is_there_and_come_after_those_of_others() {
    let desk = desk();
    desk.git(
        Path::new("."),
        &[
            "init",
            "--quiet",
            "--bare",
            "--initial-branch",
            "main",
            "remote.git",
        ],
    );
    let remote = desk
        .root
        .path()
        .join("remote.git")
        .to_str()
        .unwrap()
        .to_owned();
    let backup = || desk.try_backup("clone", Some(&remote));
    assert!(backup().unwrap().pushed);
    // Somebody else pushes.
    desk.git(Path::new("."), &["clone", "--quiet", &remote, "other"]);
    std::fs::write(desk.root.path().join("other/NOTES"), "theirs").unwrap();
    desk.git(Path::new("other"), &["add", "NOTES"]);
    desk.git(Path::new("other"), &["commit", "--quiet", "-m", "notes"]);
    // Meanwhile the remote is away: committed here, and said; pushed with the next.
    let away = desk.root.path().join("away.git");
    std::fs::rename(&remote, &away).unwrap();
    desk.postgres.sql("CREATE TABLE while_away (id integer)");
    let error = backup().unwrap_err();
    assert!(
        error.contains("not pushed") && error.contains("clone"),
        "{error}"
    );
    std::fs::rename(&away, &remote).unwrap();
    desk.git(
        Path::new("other"),
        &["push", "--quiet", "origin", "HEAD:main"],
    );
    let outcome = backup().unwrap();
    assert!(outcome.pushed && outcome.commit.is_none(), "{outcome:?}");
    let commits = desk.commits("remote.git");
    assert_eq!(
        commits[1..],
        ["notes", "table public.while_away added in postgres"]
    );
    // No credentials in what is said.
    let url = "http://bob:s3cret@127.0.0.1:9/x.git";
    let error = desk.try_backup("elsewhere", Some(url)).unwrap_err();
    assert!(
        error.contains("127.0.0.1") && !error.contains("s3cret"),
        "{error}"
    );
    // A folder of somebody's own files is left alone.
    std::fs::create_dir(desk.root.path().join("taken")).unwrap();
    std::fs::write(desk.root.path().join("taken/file"), "x").unwrap();
    let error = desk.try_backup("taken", None).unwrap_err();
    assert!(
        error.contains("neither empty nor a git repository"),
        "{error}"
    );
}
