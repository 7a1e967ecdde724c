//! PostgreSQL's own client programs, with their connection and session settings.

use std::process::Command;

use super::session::program_options;
use super::{Binaries, OsUser};
use crate::wire::{Address, ConnectOptions, Host, WireError, quote_conninfo};

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

/// Run as the server's account, which local authentication lets in, and as our own over TCP; never asks. Where to
/// connect, the demands on TLS and the password go through the environment, where only its own account can see them.
/// The database is named here and nowhere else: these programs take a name with a `=` in it, or one that begins like an
/// address, for a connection string, and would connect (with our password) to wherever it says. So they always get a
/// whole connection string, in which the name is quoted.
pub fn client_program(
    binaries: &Binaries,
    user: &OsUser,
    program: ClientProgram,
    connect: &ConnectOptions,
) -> Result<Command, WireError> {
    let local = |address: &Address| matches!(address.host, Host::Unix(_));
    // Local authentication asks who we are; over TCP our own files (certificates, keys) have to be read.
    let own = match connect.addresses.iter().any(local) {
        true => None,
        false => OsUser::current().ok(),
    };
    let user = own.as_ref().unwrap_or(user);
    let mut command = user.command(&binaries.program(program.name()));
    let database = format!("dbname={}", quote_conninfo(&connect.database));
    let said = connect.server_options.iter().cloned();
    let options: Vec<String> = said.chain([program_options()]).collect();
    command
        .args(["--no-password", program.database_option(), &database])
        .envs(connect.environment(binaries.major())?)
        .env("PGCLIENTENCODING", "UTF8")
        .env("PGOPTIONS", options.join(" "));
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_databases_name_is_never_an_argument_by_itself() {
        let Ok(binaries) = Binaries::find(None) else {
            testkit::skip!("postgresql", "scripts/setup installs it");
            return;
        };
        let user = OsUser::current().unwrap();
        let check = |program: ClientProgram, name: &str, expected: &str| {
            let connect = ConnectOptions::tcp("db", 5433, "bob", name).with_password("s3cret");
            let command = client_program(&binaries, &user, program, &connect).unwrap();
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
