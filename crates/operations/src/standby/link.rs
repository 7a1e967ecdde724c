//! How others speak to the process that keeps the spare: a line of JSON there, a line back.

use host::instance::Instance;
use recovery::standby::{Phase, PromotionReport, Status, Watch};
use serde::{Deserialize, Serialize};
use std::{
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    time::{Duration, Instant},
};

use crate::{error::Error, lost::LostPart};

/// A promotion first replays what is left, and a hand-over stops a server cleanly.
const TIMEOUT: Duration = Duration::from_secs(600);
/// How soon whoever waits for an answer sees that it has to stop.
const TURN: Duration = Duration::from_millis(100);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    Status,
    Promote { even_if_alive: bool },
    HandOver { to: PathBuf },
    Stop,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Status(Box<Status>),
    Promoted(PromotionReport),
    Stopping,
    Refused(String),
}

/// What was asked, and the way back.
pub(super) type PendingRequest = (Request, Reply);

/// Whoever acts writes the answer: another thread might come too late when the process ends with it. Dropped without one, it says that
/// the spare is ending.
#[derive(Debug)]
pub(super) struct Reply(Option<UnixStream>);

impl Reply {
    /// Who asked may have gone.
    pub(super) fn give(mut self, answer: &Answer) {
        self.write(answer);
    }

    fn write(&mut self, answer: &Answer) {
        let Some(mut stream) = self.0.take() else {
            return;
        };
        let written = serde_json::to_vec(answer)
            .map_err(std::io::Error::from)
            .and_then(|mut text| {
                text.push(b'\n');
                stream.write_all(&text)
            });
        if let Err(error) = written {
            tracing::warn!(%error, "a request to the spare was not answered");
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.write(&Answer::Refused("the spare is ending".to_owned()));
    }
}

/// The process's own end. Ends with the process.
pub(super) fn serve(listener: &UnixListener, watch: &Watch, requests: &Sender<PendingRequest>) {
    for stream in listener.incoming().flatten() {
        let (watch, requests) = (watch.clone(), requests.clone());
        std::thread::spawn(move || {
            if let Err(error) = answer(stream, &watch, &requests) {
                tracing::warn!(%error, "a request to the spare could not be read");
            }
        });
    }
}

fn answer(
    stream: UnixStream,
    watch: &Watch,
    requests: &Sender<PendingRequest>,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    stream.set_write_timeout(Some(REQUEST_TIMEOUT))?;
    let (status, reply) = (watch.status(), Reply(Some(stream)));
    match serde_json::from_str(&line) {
        Err(error) => reply.give(&Answer::Refused(format!(
            "the request cannot be understood: {error}"
        ))),
        // These do not wait for a turn that may take long.
        Ok(Request::Status) => reply.give(&Answer::Status(Box::new(status))),
        Ok(Request::Promote { .. }) if matches!(status.phase, Phase::Restoring) => {
            let why = "the spare is being restored; it cannot be promoted yet";
            reply.give(&Answer::Refused(why.to_owned()));
        }
        // Where nobody takes it any more, it comes back and is dropped.
        Ok(request) => drop(requests.send((request, reply))),
    }
    Ok(())
}

/// The other end.
#[derive(Debug)]
pub struct Link {
    socket: PathBuf,
}

impl Link {
    pub fn to(instance: &Instance) -> Self {
        Self {
            socket: super::control_socket(instance),
        }
    }

    /// `None` when no process keeps the spare.
    pub fn ask(&self, request: &Request) -> Result<Option<Answer>, Error> {
        self.ask_until(request, None)
    }

    /// The same until the flag is set. A promotion takes as long as there is WAL to replay, and whoever asked may have to stop.
    fn ask_until(
        &self,
        request: &Request,
        stop: Option<&AtomicBool>,
    ) -> Result<Option<Answer>, Error> {
        let failed =
            |error: std::io::Error| Error::file("cannot ask the spare at", &self.socket)(error);
        let mut stream = match UnixStream::connect(&self.socket) {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            other => other.map_err(failed)?,
        };
        stream.set_read_timeout(Some(TURN)).map_err(failed)?;
        let mut text = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        stream.write_all(&text).map_err(failed)?;
        let (mut line, mut reader) = (Vec::new(), BufReader::new(&stream));
        let began = Instant::now();
        // What has come stays in the line when the time of a turn is up.
        while let Err(error) = reader.read_until(b'\n', &mut line) {
            let waits = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            if !waits || began.elapsed() > TIMEOUT {
                return Err(failed(error));
            }
            if stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                return Err(LostPart::Stopping.into());
            }
        }
        match serde_json::from_slice(&line) {
            Ok(Answer::Refused(reason)) => Err(Error::refused("the spare", reason)),
            Ok(answer) => Ok(Some(answer)),
            Err(error) => Err(failed(error.into())),
        }
    }

    pub fn status(&self) -> Result<Option<Status>, Error> {
        match self.ask(&Request::Status)? {
            Some(Answer::Status(status)) => Ok(Some(*status)),
            _ => Ok(None),
        }
    }

    pub fn promoted(
        &self,
        request: &Request,
        stop: Option<&AtomicBool>,
    ) -> Result<Option<PromotionReport>, Error> {
        match self.ask_until(request, stop)? {
            Some(Answer::Promoted(promoted)) => Ok(Some(promoted)),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asked_is_answered_also_when_nobody_acts_any_more() {
        let heard = |end: UnixStream| {
            let mut line = String::new();
            BufReader::new(end).read_line(&mut line).unwrap();
            serde_json::from_str::<Answer>(&line).unwrap()
        };
        let (asker, end) = UnixStream::pair().unwrap();
        drop(Reply(Some(end)));
        assert!(matches!(heard(asker), Answer::Refused(why) if why == "the spare is ending"));

        let (asker, end) = UnixStream::pair().unwrap();
        Reply(Some(end)).give(&Answer::Stopping);
        assert!(matches!(heard(asker), Answer::Stopping));
    }
}
