//! Creates a new data folder and says who may log in.

use super::{Binaries, OsUser, ServerError, check_traversable};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[derive(Debug, Clone)]
pub struct InitOptions {
    pub superuser: String,
    /// In bytes; `None` is the server's default (16 MiB).
    pub wal_segment_bytes: Option<u64>,
    /// Skips the final fsync: for throw-away clusters only.
    pub no_sync: bool,
    /// `trust` or `peer` for local connections of a fresh cluster.
    pub local_authentication: &'static str,
}

impl Default for InitOptions {
    fn default() -> InitOptions {
        InitOptions {
            superuser: "postgres".into(),
            wal_segment_bytes: None,
            no_sync: false,
            local_authentication: "peer",
        }
    }
}

/// Creates a cluster with page checksums, UTF-8 and the C locale in `dir` (made here when missing; must be empty).
/// The parent folders must already exist and let `user` through.
pub fn initdb(
    binaries: &Binaries,
    user: &OsUser,
    dir: &Path,
    options: &InitOptions,
) -> Result<(), ServerError> {
    std::fs::create_dir_all(dir).map_err(ServerError::io("create", dir))?;
    std::fs::set_permissions(dir, PermissionsExt::from_mode(0o700))
        .map_err(ServerError::io("set the mode of", dir))?;
    user.own(dir)?;
    check_traversable(dir, user)?;
    let mut command = user.command(&binaries.program("initdb"));
    command.arg("--pgdata").arg(dir);
    command.args([
        "--data-checksums",
        "--encoding=UTF8",
        "--locale=C",
        "--no-instructions",
    ]);
    command.arg(format!("--username={}", options.superuser));
    command
        .arg(format!("--auth-local={}", options.local_authentication))
        .arg("--auth-host=scram-sha-256");
    if let Some(bytes) = options.wal_segment_bytes {
        command.arg(format!("--wal-segsize={}", bytes >> 20));
    }
    if options.no_sync {
        command.arg("--no-sync");
    }
    let output = command
        .output()
        .map_err(ServerError::io("run", binaries.program("initdb")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(ServerError::ProgramFailed {
        program: "initdb".into(),
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Writes one file of a data folder (replacing it as a whole) and gives it to the server's account.
pub fn write_cluster_file(
    dir: &Path,
    name: &str,
    text: &str,
    user: &OsUser,
) -> Result<(), ServerError> {
    let path = dir.join(name);
    let temporary = dir.join(format!("{name}.new"));
    std::fs::write(&temporary, text).map_err(ServerError::io("write", &temporary))?;
    std::fs::set_permissions(&temporary, PermissionsExt::from_mode(0o600))
        .map_err(ServerError::io("set the mode of", &temporary))?;
    user.own(&temporary)?;
    std::fs::rename(&temporary, &path).map_err(ServerError::io("replace", &path))
}

/// Local `peer` logins only: each of `os_users` may log in as each of `roles`, for SQL and for replication. Nothing
/// listens for passwords, so there is none to keep.
pub fn write_peer_access(
    dir: &Path,
    user: &OsUser,
    os_users: &[&str],
    roles: &[&str],
) -> Result<(), ServerError> {
    let hba = "# Written at set-up. Local sockets only; the map in pg_ident.conf says who may be whom.\n\
               local all all peer map=bre\n\
               local replication all peer map=bre\n";
    let mut ident = String::from("# map  operating-system user  database role\n");
    for os_user in os_users {
        for role in roles {
            ident.push_str(&format!("bre \"{os_user}\" \"{role}\"\n"));
        }
    }
    write_cluster_file(dir, "pg_hba.conf", hba, user)?;
    write_cluster_file(dir, "pg_ident.conf", &ident, user)
}
