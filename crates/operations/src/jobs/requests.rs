//! Runs that persons ask the process for that has the plan: a socket of its own, because the process of a named cluster
//! has no other. Lines of JSON in both directions.

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use host::{instance::Instance, person::who, sockets};
use jobs::{Driver, FinishedRun, RunProgress, RunRecord};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{answer, environment::lock};
use crate::{command_output::CommandOutput, error::Error, exit::Exit};

/// How soon the driver looks at a request. One that does not is busy with a recovery.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a person waits for a run that was told to end.
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// How soon a person's signal is seen.
const TURN: Duration = Duration::from_millis(100);
/// A client that does not read is not waited for.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an answer waits until what was done is in the audit log.
const RECORD_TIMEOUT: Duration = Duration::from_secs(5);

/// By the person's process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Run {
        job: String,
        by: String,
        options: Option<String>,
    },
    /// The run shall end.
    Cancel,
    /// Nothing shall be started any more.
    Withdraw,
}

/// By the process that has the plan.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Started,
    Progress {
        step: String,
        bytes_total: u64,
        bytes: u64,
    },
    Ended {
        record: Box<RunRecord>,
        answer: Option<String>,
        is_recorded: bool,
    },
    Refused {
        words: String,
        exit: Exit,
    },
    /// This process cannot run it at all.
    Unavailable,
    Withdrawn,
}

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// The person's end of a connection.
#[derive(Debug)]
struct Peer {
    stream: UnixStream,
    state: AtomicU8,
    is_cancelled: AtomicBool,
}

impl Peer {
    /// Whether the request is the driver's, or the person's again: the first to move it has it.
    fn moves_to(&self, state: u8) -> bool {
        self.state
            .compare_exchange(WAITING, state, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// The process that asked may have ended.
    fn tell(&self, answer: &Answer) {
        if let Err(error) = write_line(&self.stream, answer) {
            tracing::debug!(%error, "the process that asked for a run does not hear of it");
        }
    }
}

fn write_line(mut stream: &UnixStream, line: &impl Serialize) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    stream.write_all(&text)
}

#[derive(Debug)]
struct PendingRun {
    job: String,
    by: String,
    options: Option<String>,
    peer: Arc<Peer>,
}

#[derive(Debug)]
struct ActiveRun {
    run_id: String,
    peer: Arc<Peer>,
    told: RunProgress,
}

/// One that has ended, and is answered when it is on record.
#[derive(Debug)]
struct FinishedRequest {
    ended: FinishedRun,
    peer: Arc<Peer>,
    at: Instant,
}

/// The side of the process that has the plan.
#[derive(Debug)]
pub struct RunRequests {
    socket: PathBuf,
    /// Of the instance's sockets.
    folder: PathBuf,
    ends: Arc<AtomicBool>,
    pending: Arc<Mutex<VecDeque<PendingRun>>>,
    under_way: Vec<ActiveRun>,
    unanswered: Vec<FinishedRequest>,
}

impl RunRequests {
    pub fn listen(instance: &Instance) -> Result<Self, Error> {
        let requests = Self {
            socket: instance.jobs_socket(),
            folder: instance.run(),
            ends: Arc::default(),
            pending: Arc::default(),
            under_way: Vec::new(),
            unanswered: Vec::new(),
        };
        requests.listen_again()?;
        Ok(requests)
    }

    fn listen_again(&self) -> Result<(), Error> {
        let listener = sockets::listen(&self.socket, &self.folder)?;
        let (pending, ends) = (Arc::clone(&self.pending), Arc::clone(&self.ends));
        std::thread::spawn(move || accept(&listener, &pending, &ends));
        Ok(())
    }

    /// Whether a turn is wanted at once: a person waits for what it would do.
    pub fn are_waiting(&self, driver: &Driver) -> bool {
        let ends = !self.under_way.is_empty() && driver.has_finished();
        ends || !self.unanswered.is_empty() || !lock(&self.pending).is_empty()
    }

    /// Before a turn of the driver.
    pub fn start_runs(&mut self, driver: &mut Driver) {
        // The folder of sockets may be deleted while the process runs.
        if !self.socket.exists()
            && let Err(error) = self.listen_again()
        {
            tracing::warn!(%error, "no run of a job can be asked for");
        }
        let pending = std::mem::take(&mut *lock(&self.pending));
        for PendingRun {
            job,
            by,
            options,
            peer,
        } in pending
        {
            if !peer.moves_to(TAKEN) {
                continue;
            }
            tracing::info!(job, by, "a run was asked for");
            match driver.run_now(&job, by, options) {
                Ok(run_id) => {
                    peer.tell(&Answer::Started);
                    self.under_way.push(ActiveRun {
                        run_id,
                        peer,
                        told: RunProgress::default(),
                    });
                }
                Err(jobs::Error::Unavailable { .. }) => peer.tell(&Answer::Unavailable),
                Err(error) => {
                    let error = Error::from(error);
                    let (words, exit) = (error.to_string(), error.exit());
                    peer.tell(&Answer::Refused { words, exit });
                }
            }
        }
        for run in &self.under_way {
            if run.peer.is_cancelled.load(Ordering::Acquire) {
                driver.cancel_run(&run.run_id);
            }
        }
    }

    /// After a turn of the driver. `is_recorded`: all that was done is in the audit log.
    pub fn answer(&mut self, driver: &Driver, ended: Vec<FinishedRun>, is_recorded: bool) {
        for ended in ended {
            let is_its = |run: &ActiveRun| run.run_id == ended.record.run_id;
            let Some(place) = self.under_way.iter().position(is_its) else {
                continue;
            };
            let peer = self.under_way.swap_remove(place).peer;
            let at = Instant::now();
            self.unanswered.push(FinishedRequest { ended, peer, at });
        }
        for run in &mut self.under_way {
            let progress = driver.progress_of(&run.run_id).unwrap_or_default();
            if progress != run.told {
                run.peer.tell(&Answer::Progress {
                    step: progress.step.clone(),
                    bytes_total: progress.bytes_total,
                    bytes: progress.bytes,
                });
                run.told = progress;
            }
        }
        let is_over = |run: &FinishedRequest| is_recorded || run.at.elapsed() >= RECORD_TIMEOUT;
        for run in std::mem::take(&mut self.unanswered) {
            match is_over(&run) {
                true => run.peer.tell(&Answer::Ended {
                    record: Box::new(run.ended.record),
                    answer: run.ended.answer,
                    is_recorded,
                }),
                false => self.unanswered.push(run),
            }
        }
    }

    /// Nothing is waited for any more. A client whose run continues sees that its process ended.
    pub fn end(&mut self, driver: &Driver, ended: Vec<FinishedRun>) {
        self.answer(driver, ended, false);
        for run in self.unanswered.drain(..) {
            run.peer.tell(&Answer::Ended {
                record: Box::new(run.ended.record),
                answer: run.ended.answer,
                is_recorded: false,
            });
        }
        self.under_way.clear();
    }
}

impl Drop for RunRequests {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // Wakes the thread that accepts.
        drop(UnixStream::connect(&self.socket));
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn accept(listener: &UnixListener, pending: &Arc<Mutex<VecDeque<PendingRun>>>, ends: &AtomicBool) {
    for stream in listener.incoming().flatten() {
        if ends.load(Ordering::Acquire) {
            return;
        }
        let pending = Arc::clone(pending);
        std::thread::spawn(move || {
            if let Err(error) = hear(stream, &pending) {
                tracing::debug!(%error, "a request for a run could not be read");
            }
        });
    }
}

/// As long as the person's process lives.
fn hear(stream: UnixStream, pending: &Mutex<VecDeque<PendingRun>>) -> std::io::Result<()> {
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let lines = BufReader::new(stream.try_clone()?).lines();
    let peer = Arc::new(Peer {
        stream,
        state: AtomicU8::new(WAITING),
        is_cancelled: AtomicBool::new(false),
    });
    for line in lines {
        match serde_json::from_str(&line?) {
            Ok(Request::Run { job, by, options }) => lock(pending).push_back(PendingRun {
                job,
                by,
                options,
                peer: Arc::clone(&peer),
            }),
            Ok(Request::Cancel) => peer.is_cancelled.store(true, Ordering::Release),
            Ok(Request::Withdraw) => {
                if peer.moves_to(WITHDRAWN) {
                    peer.tell(&Answer::Withdrawn);
                }
            }
            Err(error) => peer.tell(&Answer::Refused {
                words: format!("the request cannot be understood: {error}"),
                exit: Exit::Failed,
            }),
        }
    }
    // Who is gone before anything was started does not want it any more.
    peer.moves_to(WITHDRAWN);
    Ok(())
}

/// The person's side: `None` where no process answers that can run it.
pub fn run_there(
    instance: &Instance,
    json: bool,
    job: &str,
    options: Option<String>,
    interrupted: &AtomicBool,
) -> Result<Option<CommandOutput>, Error> {
    let socket = instance.jobs_socket();
    let Ok(stream) = UnixStream::connect(&socket) else {
        return Ok(None);
    };
    let failed = |error: std::io::Error| Error::file("cannot ask for the run at", &socket)(error);
    stream.set_read_timeout(Some(TURN)).map_err(failed)?;
    let request = Request::Run {
        job: job.to_owned(),
        by: who(),
        options,
    };
    write_line(&stream, &request).map_err(failed)?;
    let mut person = Person {
        json,
        shown: None,
        began: Instant::now(),
        is_started: false,
        is_withdrawn: false,
        cancelled_at: None,
    };
    let mut lines = Lines::of(&stream);
    loop {
        let answer = match lines.next::<Answer>() {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                person.look(&stream, interrupted).map_err(failed)?;
                continue;
            }
            // It ends before it took the request.
            Err(_) if !person.is_started => return Ok(None),
            Err(error) => return Err(gone(&error)),
        };
        match answer {
            Answer::Started => person.is_started = true,
            Answer::Progress {
                step,
                bytes_total,
                bytes,
            } => person.show(RunProgress {
                step,
                bytes_total,
                bytes,
            }),
            Answer::Ended {
                record,
                answer,
                is_recorded,
            } => {
                drop(person);
                if !is_recorded {
                    terminal::note("bre: it is done but not in the audit log yet");
                }
                return answer::read(&record, answer).map(Some);
            }
            Answer::Refused { words, exit } => return Err(Error::OfRun { words, exit }),
            Answer::Withdrawn if interrupted.load(Ordering::Relaxed) => {
                let nothing = "nothing was started";
                return Err(Error::refused(nothing, "it was interrupted before that"));
            }
            Answer::Unavailable | Answer::Withdrawn => return Ok(None),
        }
    }
}

fn gone(error: &std::io::Error) -> Error {
    Error::unreachable(
        "the process that runs it ended",
        format!("{error}; what became of the run says bre job history"),
    )
}

/// What the person's process knows.
struct Person {
    json: bool,
    shown: Option<(terminal::Progress, RunProgress)>,
    began: Instant,
    is_started: bool,
    is_withdrawn: bool,
    cancelled_at: Option<Instant>,
}

impl Person {
    fn show(&mut self, progress: RunProgress) {
        let (bar, last) = self.shown.get_or_insert_with(|| {
            (
                terminal::Progress::new(self.json, "run"),
                RunProgress::default(),
            )
        });
        if progress.bytes_total != last.bytes_total || progress.bytes < last.bytes {
            bar.total(progress.bytes_total);
            last.bytes = 0;
        }
        bar.advance(progress.bytes.saturating_sub(last.bytes));
        if progress.step != last.step {
            bar.message(&progress.step);
        }
        *last = progress;
    }

    /// While nothing comes.
    fn look(&mut self, stream: &UnixStream, interrupted: &AtomicBool) -> std::io::Result<()> {
        let is_late = self.began.elapsed() >= BEGIN_TIMEOUT;
        let is_interrupted = interrupted.load(Ordering::Relaxed);
        if !self.is_started && !self.is_withdrawn && (is_late || is_interrupted) {
            self.is_withdrawn = true;
            write_line(stream, &Request::Withdraw)?;
        }
        match self.cancelled_at {
            None if self.is_started && is_interrupted => {
                self.cancelled_at = Some(Instant::now());
                write_line(stream, &Request::Cancel)
            }
            Some(at) if at.elapsed() >= END_TIMEOUT => Err(std::io::Error::other(
                "the run was told to end and continues: bre job list says what it does",
            )),
            _ => Ok(()),
        }
    }
}

/// What has come of a line stays when the time of a turn is up.
struct Lines<'a> {
    reader: BufReader<&'a UnixStream>,
    line: Vec<u8>,
}

impl<'a> Lines<'a> {
    fn of(stream: &'a UnixStream) -> Self {
        Self {
            reader: BufReader::new(stream),
            line: Vec::new(),
        }
    }

    /// `None`: not within a turn.
    fn next<T: DeserializeOwned>(&mut self) -> std::io::Result<Option<T>> {
        use std::io::ErrorKind;
        match self.reader.read_until(b'\n', &mut self.line) {
            Ok(_) if self.line.ends_with(b"\n") => {
                let line = std::mem::take(&mut self.line);
                Ok(Some(serde_json::from_slice(&line)?))
            }
            Ok(_) => Err(ErrorKind::UnexpectedEof.into()),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            },
        }
    }
}
