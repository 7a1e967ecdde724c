//! The named steps of a recovery, for whoever stands outside and wants something to happen right after one of them. `BRE_STEP_OBSERVER`
//! names a socket: each step is told there, and the engine goes on when the observer has answered. Tests lose things between
//! two steps this way; without the variable nothing is told.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

/// An observer that hangs holds nothing up for longer.
const TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Writer, stream and server of before are let go.
    LetGo,
    /// A spare was asked for, and taken if there was one.
    StandbyAsked,
    /// The backup is chosen.
    Planned,
    FilesRestored,
    /// The restored folder lies where the database belongs.
    InPlace,
    ServerStarted,
    StreamStarted,
    StreamAttached,
    StrictSettled,
    WriterResumed,
    WriterServing,
    Announced,
    Protected,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::LetGo => "let_go",
            Self::StandbyAsked => "spare_asked",
            Self::Planned => "planned",
            Self::FilesRestored => "files_restored",
            Self::InPlace => "in_place",
            Self::ServerStarted => "server_started",
            Self::StreamStarted => "stream_started",
            Self::StreamAttached => "stream_attached",
            Self::StrictSettled => "strict_settled",
            Self::WriterResumed => "writer_resumed",
            Self::WriterServing => "writer_serving",
            Self::Announced => "announced",
            Self::Protected => "protected",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Observer {
    socket: Option<PathBuf>,
}

impl Observer {
    pub(super) fn of_environment() -> Self {
        Self {
            socket: std::env::var_os("BRE_STEP_OBSERVER").map(PathBuf::from),
        }
    }

    /// Returns when the observer knows.
    pub(super) fn passed(&self, step: Step) {
        tracing::debug!(step = step.name(), "passed");
        let Some(socket) = &self.socket else {
            return;
        };
        let told = || -> std::io::Result<()> {
            let mut stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.write_all(format!("{}\n", step.name()).as_bytes())?;
            stream.read_exact(&mut [0])
        };
        if let Err(error) = told() {
            tracing::debug!(%error, step = step.name(), "nobody observes");
        }
    }
}
