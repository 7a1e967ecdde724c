//! How a dropped table is created again: PostgreSQL's own dump of its definition, taken from the scratch cluster.

use postgres_physical::server::sql::quote_identifier;
use postgres_physical::server::{Binaries, ClientProgram, OsUser, client_program};
use postgres_physical::wire::ConnectOptions;

use super::{TableError, TableName};

/// The programs, and the account that the scratch cluster lets in.
#[derive(Debug, Clone, Copy)]
pub struct Dump<'a> {
    pub binaries: &'a Binaries,
    pub user: &'a OsUser,
}

impl Dump<'_> {
    /// `pre-data`: the table itself; `post-data`: indexes, constraints and triggers, which are added when its rows are
    /// in.
    pub(super) fn section(
        &self,
        connect: &ConnectOptions,
        table: &TableName,
        section: &str,
    ) -> Result<String, TableError> {
        let failed = |reason: String| TableError::Dump {
            table: table.to_string(),
            reason,
        };
        let mut command = client_program(self.binaries, self.user, ClientProgram::PgDump, connect)?;
        let name = format!(
            "{}.{}",
            quote_identifier(&table.schema),
            quote_identifier(&table.name)
        );
        command.args(["--schema-only", "--section", section, "--table", &name]);
        let output = command
            .output()
            .map_err(|error| failed(format!("cannot run pg_dump: {error}")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(failed(said.trim().to_owned()));
        }
        let text = String::from_utf8(output.stdout).map_err(|error| failed(error.to_string()))?;
        Ok(statements(&text))
    }
}

/// Without psql's own commands: newer dumps guard themselves with a pair of them.
fn statements(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with('\\'));
    lines.map(|line| format!("{line}\n")).collect()
}
