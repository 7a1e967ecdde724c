//! PostgreSQL's own client programs (`pg_dump`, `vacuumdb` …), told where to connect.

use std::process::Command;

use super::{Binaries, OsUser};
use crate::wire::{ConnectOptions, Host};

/// Run as the server's account, which local authentication lets in; never asks. A password goes through the environment, where only its
/// own account can see it, never through the arguments.
pub fn client_program(
    binaries: &Binaries,
    user: &OsUser,
    name: &str,
    connect: &ConnectOptions,
) -> Command {
    let mut command = user.command(&binaries.program(name));
    match &connect.host {
        Host::Unix(folder) => command.arg("--host").arg(folder),
        Host::Tcp(host) => command.arg("--host").arg(host),
    };
    command
        .args(["--port", &connect.port.to_string(), "--username"])
        .arg(&connect.user)
        .arg("--no-password");
    if let Some(password) = &connect.password {
        command.env("PGPASSWORD", password.expose());
    }
    command
}
