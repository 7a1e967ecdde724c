//! PostgreSQL's own client programs, told where to connect and how their session is.

use std::process::Command;

use super::session::program_options;
use super::{Binaries, OsUser};
use crate::wire::{ConnectOptions, Host, quote_conninfo};

/// The programs that are run, each with its own way to name a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientProgram {
    PgDump,
    PgDumpAll,
}

impl ClientProgram {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ClientProgram::PgDump => "pg_dump",
            ClientProgram::PgDumpAll => "pg_dumpall",
        }
    }

    fn database_option(self) -> &'static str {
        match self {
            ClientProgram::PgDump => "--dbname",
            // Its `--dbname` leaves the name of the database aside.
            ClientProgram::PgDumpAll => "--database",
        }
    }
}

/// Run as the server's account, which local authentication lets in; never asks. A password goes through the environment, where only its
/// own account can see it, never through the arguments. The database is named here and nowhere else: these programs take a name with a `=`
/// in it, or one that begins like an address, for a connection string, and would connect (with our password) to wherever it says. So they
/// always get a whole connection string, in which the name is quoted.
pub fn client_program(
    binaries: &Binaries,
    user: &OsUser,
    program: ClientProgram,
    connect: &ConnectOptions,
) -> Command {
    let mut command = user.command(&binaries.program(program.name()));
    match &connect.host {
        Host::Unix(folder) => command.arg("--host").arg(folder),
        Host::Tcp(host) => command.arg("--host").arg(host),
    };
    let database = format!("dbname={}", quote_conninfo(&connect.database));
    command
        .args(["--port", &connect.port.to_string(), "--username"])
        .arg(&connect.user)
        .args(["--no-password", program.database_option(), &database])
        .env("PGAPPNAME", &connect.application_name)
        .env("PGCLIENTENCODING", "UTF8")
        .env("PGOPTIONS", program_options());
    if let Some(password) = &connect.password {
        command.env("PGPASSWORD", password.expose());
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_databases_name_is_never_an_argument_by_itself() {
        let Ok(binaries) = Binaries::find(None) else {
            eprintln!("skipped: no PostgreSQL here");
            return;
        };
        let user = OsUser::current().unwrap();
        let check = |program: ClientProgram, name: &str, expected: &str| {
            let connect = ConnectOptions::tcp("db", 5433, "bob", name).with_password("s3cret");
            let command = client_program(&binaries, &user, program, &connect);
            let arguments: Vec<_> = command
                .get_args()
                .map(|it| it.to_string_lossy().into_owned())
                .collect();
            assert_eq!(arguments.last().unwrap(), expected);
            assert!(
                !arguments
                    .iter()
                    .any(|it| it == name || it.contains("s3cret"))
            );
        };
        use ClientProgram::{PgDump, PgDumpAll};
        check(PgDump, "a=b", "dbname='a=b'");
        check(PgDumpAll, "host=far port=1", "dbname='host=far port=1'");
        check(PgDump, "postgresql://far/x", "dbname='postgresql://far/x'");
        check(PgDump, "x' host='far", r"dbname='x\' host=\'far'");
        check(PgDump, r"x\' host=far", r"dbname='x\\\' host=far'");
    }
}
