//! Definitions as SQL that is the same whenever they are the same.

use std::collections::BTreeMap;

use postgres_physical::server::sql::Client;
use postgres_physical::server::{ClientProgram, ListedDatabase, client_program, databases};

use super::{DATABASES, GLOBALS, SchemaError, SchemaSource, UnreadDatabase};
use crate::Progress;

/// Path in the repository → content.
pub(super) type Files = BTreeMap<String, String>;

pub(super) struct Dump {
    pub(super) files: Files,
    pub(super) databases: Vec<String>,
    pub(super) not_read: Vec<UnreadDatabase>,
}

/// One database's failure costs that database only. An error when nothing at all could be read.
pub(super) fn dump(
    request: &SchemaSource<'_>,
    progress: &dyn Progress,
) -> Result<Dump, SchemaError> {
    let mut client = Client::connect(request.connect)?;
    let listed = databases(&mut client)?;
    let mut dump = Dump {
        files: Files::new(),
        databases: Vec::new(),
        not_read: Vec::new(),
    };
    let mut first_error = None;
    for ListedDatabase { name, .. } in listed.iter().filter(|it| it.is_open()) {
        if progress.cancelled() {
            return Err(SchemaError::Cancelled);
        }
        progress.message(&format!("reading the definitions of {name:?}"));
        match definitions(request, name) {
            Ok(text) => {
                dump.files.insert(path_of(name), text);
                dump.databases.push(name.clone());
            }
            Err(error @ SchemaError::ProgramMissing { .. }) => return Err(error),
            Err(error) => {
                dump.not_read.push(UnreadDatabase::failed(name, &error));
                first_error.get_or_insert(error);
            }
        }
    }
    let closed = listed.iter().filter(|it| !it.is_pristine_template());
    dump.not_read
        .extend(closed.filter_map(|it| Some(UnreadDatabase::closed(&it.name, it.why_closed()?))));
    match roles(request) {
        Ok(text) => drop(dump.files.insert(GLOBALS.to_owned(), text)),
        Err(error) => {
            dump.not_read.push(UnreadDatabase::failed(ROLES, &error));
            first_error.get_or_insert(error);
        }
    }
    match first_error {
        Some(error) if dump.files.is_empty() => Err(error),
        _ => Ok(dump),
    }
}

const ROLES: &str = "roles and tablespaces";

/// Without CREATE DATABASE: so it restores under any name.
fn definitions(request: &SchemaSource<'_>, database: &str) -> Result<String, SchemaError> {
    let connect = request.connect.clone().with_database(database);
    let program = ClientProgram::PgDump;
    let mut command = client_program(request.binaries, request.user, program, &connect)?;
    // Whoever holds a table for long is not queued behind.
    command.args(["--schema-only", "--lock-wait-timeout=30s"]);
    Ok(plain(&output(program, database, &mut command)?))
}

fn roles(request: &SchemaSource<'_>) -> Result<String, SchemaError> {
    let program = ClientProgram::PgDumpAll;
    let mut command = client_program(request.binaries, request.user, program, request.connect)?;
    command.args(["--globals-only", "--no-role-passwords"]);
    Ok(plain(&output(program, ROLES, &mut command)?))
}

/// Where in the repository a database's definitions lie.
pub(super) fn path_of(database: &str) -> String {
    format!("{DATABASES}/{}.sql", file_name(database))
}

impl UnreadDatabase {
    fn failed(database: &str, error: &SchemaError) -> Self {
        let why = match error {
            SchemaError::Dump { program, said, .. } => format!("{program}: {said}"),
            other => other.to_string(),
        };
        Self {
            database: database.to_owned(),
            why,
            failed: true,
        }
    }

    fn closed(database: &str, why: String) -> Self {
        Self {
            database: database.to_owned(),
            why,
            failed: false,
        }
    }

    /// Its definitions as they were last read: they are not dropped by not being read.
    pub(super) fn path(&self) -> String {
        match self.database.as_str() {
            ROLES if self.failed => GLOBALS.to_owned(),
            database => path_of(database),
        }
    }
}

fn output(
    program: ClientProgram,
    what: &str,
    command: &mut std::process::Command,
) -> Result<String, SchemaError> {
    let missing = |source| SchemaError::ProgramMissing {
        program: program.name(),
        package: "postgresql-client",
        source,
    };
    let failed = |said: String| SchemaError::Dump {
        program: program.name(),
        what: what.to_owned(),
        said,
    };
    let output = command.output().map_err(missing)?;
    if !output.status.success() {
        return Err(failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ));
    }
    // Of an SQL_ASCII database they are whatever bytes somebody put there.
    let text = String::from_utf8(output.stdout);
    text.map_err(|error| failed(format!("its definitions are not UTF-8 ({error})")))
}

/// Without psql's own commands (a random pair of them guards newer dumps), without versions, and without passwords.
fn plain(text: &str) -> String {
    let chatter = |line: &&str| {
        line.starts_with("\\restrict ")
            || line.starts_with("\\unrestrict ")
            || line.starts_with("-- Dumped from database version ")
            || line.starts_with("-- Dumped by pg_dump")
    };
    let mut plain = String::with_capacity(text.len());
    let mut empty = 0;
    let mut mapping = false;
    for line in text.lines().filter(|line| !chatter(line)) {
        // Where lines were taken out, empty ones are left over.
        empty = if line.is_empty() { empty + 1 } else { 0 };
        if empty > 2 {
            continue;
        }
        mapping = line.starts_with("CREATE USER MAPPING") || mapping && !line.is_empty();
        plain.push_str(&without_password(line, mapping));
        plain.push('\n');
    }
    plain
}

const NOT_KEPT: &str = "(not kept)";

/// `password 'secret'` of a user mapping, `password=secret` of a subscription's connection.
fn without_password(line: &str, mapping: bool) -> String {
    if mapping && let Some((before, rest)) = line.split_once("password '") {
        let end = rest.replace("''", "\0\0").find('\'').unwrap_or(rest.len());
        return format!("{before}password '{NOT_KEPT}{}", &rest[end..]);
    }
    if line.starts_with("CREATE SUBSCRIPTION ")
        && let Some((before, rest)) = line.split_once("password=")
    {
        let end = rest.find([' ', '\'']).unwrap_or(rest.len());
        let end = if rest.starts_with("''") || rest.starts_with('\\') {
            rest.rfind("' PUBLICATION").unwrap_or(rest.len())
        } else {
            end
        };
        return format!("{before}password={NOT_KEPT}{}", &rest[end..]);
    }
    line.to_owned()
}

/// What a path may hold; everything else as %XX.
fn file_name(database: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    database.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_and_what_is_secret_is_taken_out() {
        let check = |text: &str, expected: &str| assert_eq!(plain(text), expected);
        check(
            "--\n-- PostgreSQL database dump\n--\n\n\\restrict aB3\n\n-- Dumped from database version 15.18 (Debian)\n-- Dumped by pg_dump version 15.18\n\nSET x;\n\\unrestrict aB3\n",
            "--\n-- PostgreSQL database dump\n--\n\n\nSET x;\n",
        );
        check(
            "CREATE USER MAPPING FOR bob SERVER far OPTIONS (\n    password 'it''s',\n    \"user\" 'bob'\n);\n",
            "CREATE USER MAPPING FOR bob SERVER far OPTIONS (\n    password '(not kept)',\n    \"user\" 'bob'\n);\n",
        );
        check(
            "CREATE SUBSCRIPTION s CONNECTION 'host=a password=b user=c' PUBLICATION p;\n",
            "CREATE SUBSCRIPTION s CONNECTION 'host=a password=(not kept) user=c' PUBLICATION p;\n",
        );
        check(
            "COMMENT ON TABLE t IS 'password ''x''';\n",
            "COMMENT ON TABLE t IS 'password ''x''';\n",
        );
    }

    #[test]
    fn databases_with_odd_names_get_plain_files() {
        assert_eq!(file_name("bre"), "bre");
        assert_eq!(file_name("../Desk é"), "%2E%2E%2FDesk%20%C3%A9");
    }
}
