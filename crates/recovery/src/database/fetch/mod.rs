//! Gives WAL to a recovering PostgreSQL over a unix socket, so that its account needs neither key nor repository.

mod client;
mod segment_file;
mod server;

pub use client::{FetchOutcome, wal_fetch};
pub use segment_file::place_segment;
pub use server::{FetchServer, Scope};

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use postgres_physical::server::{OsUser, check_traversable};

use crate::{Error, Result};

/// One request per connection: the name and a newline; the answer is one of these, a length (8 bytes, big endian), and
/// the bytes or a message.
const FOUND: u8 = 0;
const ABSENT: u8 = 1;
const TROUBLE: u8 = 2;
/// The bytes that follow are the path of a file that is to be moved.
const STAGED: u8 = 3;

/// What `restore_command` runs.
#[derive(Debug, Clone)]
pub enum FetchCommand {
    /// `<program> wal fetch --socket <socket> %f %p`
    Program(PathBuf),
    /// These words; `%s` becomes the socket, PostgreSQL replaces `%f` and `%p`.
    Words(Vec<String>),
}

impl FetchCommand {
    /// A shell command. A program that the server's account cannot run is copied into `work`.
    pub(super) fn for_shell(&self, socket: &Path, work: &Path, user: &OsUser) -> Result<String> {
        let socket = socket.display().to_string();
        let words = match self {
            Self::Words(words) => words
                .iter()
                .map(|word| word.replace("%s", &socket))
                .collect(),
            Self::Program(program) => {
                let program = runnable(program, work, user)?.display().to_string();
                let fixed = ["wal", "fetch", "--socket", &socket, "%f", "%p"].map(str::to_owned);
                [vec![program.replace('%', "%%")], fixed.to_vec()].concat()
            }
        };
        let quoted: Vec<String> = words
            .iter()
            .map(|word| format!("'{}'", word.replace('\'', r"'\''")))
            .collect();
        Ok(quoted.join(" "))
    }
}

fn runnable(program: &Path, work: &Path, user: &OsUser) -> Result<PathBuf> {
    let meta = fs::metadata(program).map_err(Error::io("look at", program))?;
    let may_run = meta.mode() & 0o001 != 0 || (meta.uid() == user.uid && meta.mode() & 0o100 != 0);
    if may_run && check_traversable(program, user).is_ok() {
        return Ok(program.to_owned());
    }
    let copy = work.join("fetch-program");
    fs::copy(program, &copy).map_err(Error::io("copy to", &copy))?;
    fs::set_permissions(&copy, Permissions::from_mode(0o755))
        .map_err(Error::io("set the mode of", &copy))?;
    Ok(copy)
}
