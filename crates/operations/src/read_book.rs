//! `bre read-book`, which the engine starts for each book in Parquet: a process of its own that decodes a file from standard input to
//! standard output and may not take more than its limits. Whatever a hostile file does to its reader, it does it here.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::process::CommandExt},
    process::Command,
};

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use services::BookReader;

const NAME: &str = "read-book";
/// Two standard streams and the clones of each.
const FILES_MAX: u64 = 32;
/// This program, also when its file was replaced since it was started.
const OURSELVES: &str = "/proc/self/exe";

/// How the services start it.
pub fn reader() -> BookReader {
    BookReader {
        program: OURSELVES.into(),
        arguments: vec![NAME.to_owned()],
    }
}

pub fn run(limited: bool) -> Result<(), String> {
    if limited {
        return decode();
    }
    // What was allocated before the limits counts as well: begin anew under them.
    limit().map_err(|error| error.to_string())?;
    let again = Command::new(OURSELVES).args([NAME, "--limited"]).exec();
    Err(format!("the reader of books cannot be started: {again}"))
}

fn decode() -> Result<(), String> {
    let own = |stream: io::Result<std::os::fd::OwnedFd>| {
        stream.map(File::from).map_err(|error| error.to_string())
    };
    let file = own(io::stdin().as_fd().try_clone_to_owned())?;
    let out = own(io::stdout().as_fd().try_clone_to_owned())?;
    services::decode_book(&file, out)
}

fn limit() -> io::Result<()> {
    let limits = BookReader::LIMITS;
    // The engine may be killed: nobody would read what this one writes.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    for (resource, most) in [
        (Resource::Cpu, limits.cpu_seconds),
        (Resource::Data, limits.memory_bytes),
        (Resource::Fsize, limits.file_bytes),
        (Resource::Nofile, FILES_MAX),
        (Resource::Core, 0),
    ] {
        let most = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, most)?;
    }
    Ok(())
}
