//! The stream of WAL into the repository.
//!
//! [`Streamer`] keeps one slot and one connection: a receiving thread drains the socket and answers keep-alives, a
//! flushing thread appends to the repository. Whatever arrived during one append goes out with the next. A position is
//! confirmed to PostgreSQL only after the repository has it on disk; so in strict mode a commit means "in the repository".

mod attach;
mod queue;
mod session;
mod state;

pub use state::{Side, StreamState, StreamWatch};

use crate::now_micros;
use attach::attach;
use postgres_physical::wire::ConnectOptions;
use repository::{keys::RecipientPublic, store::Store};
use session::SessionEnd;
use state::SharedState;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Less than half of the lag that is aimed at.
const UNHURRIED: Duration = Duration::from_millis(2);
/// Between two looks whether a stream that was told to stop has ended.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Debug, Clone)]
pub struct StreamerConfig {
    /// A role with REPLICATION. Its application name is the one that strict mode waits for.
    pub connect: ConnectOptions,
    pub slot: String,
    /// Opened anew on every attach, so that a repository that was away is found again.
    pub store: Arc<dyn Store>,
    pub public: RecipientPublic,
    /// Received and not yet durable; beyond this nothing more is read from the server.
    pub buffer_bytes_max: usize,
    /// A repository that takes longer than this for one append counts as away, although it has not said no.
    pub append_timeout: Duration,
    /// From the beginning of one append to that of the next, unless there is much: each costs a sync of the repository, a message to the
    /// server and several wake-ups, whatever its size. Zero where commits wait for the repository.
    pub append_interval_min: Duration,
    /// Between attempts; doubles from a twentieth of it.
    pub retry_pause_max: Duration,
}

impl StreamerConfig {
    pub fn new(
        connect: ConnectOptions,
        slot: &str,
        store: Arc<dyn Store>,
        public: RecipientPublic,
    ) -> StreamerConfig {
        StreamerConfig {
            connect,
            slot: slot.to_owned(),
            store,
            public,
            buffer_bytes_max: 32 << 20,
            append_timeout: Duration::from_secs(5),
            append_interval_min: Duration::ZERO,
            retry_pause_max: Duration::from_secs(1),
        }
    }

    /// For a server whose commits do not wait for the repository.
    pub fn without_haste(mut self) -> StreamerConfig {
        self.append_interval_min = UNHURRIED;
        self
    }
}

/// Streams until it is stopped; dropping it stops it.
#[derive(Debug)]
pub struct Streamer {
    shared: Arc<SharedState>,
    thread: Option<JoinHandle<()>>,
}

impl Streamer {
    pub fn start(config: StreamerConfig) -> Streamer {
        let shared = Arc::new(SharedState::default());
        let inner = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("wal-stream".into())
            .spawn(move || run(&config, &inner));
        if let Err(error) = &thread {
            shared.update(|state| state.error = Some(format!("no thread for the stream: {error}")));
        }
        Streamer {
            shared,
            thread: thread.ok(),
        }
    }

    pub fn state(&self) -> StreamState {
        self.shared.state()
    }

    /// To look from elsewhere, and to wait for a change.
    pub fn watch(&self) -> StreamWatch {
        StreamWatch::new(Arc::clone(&self.shared))
    }

    /// Ends the stream: what was received is still written (unless the repository is away), then it lets go.
    pub fn stop(mut self) {
        self.end();
    }

    /// The same, but a repository that hangs is not waited for beyond that: the thread ends when it can, and writes nothing that another
    /// stream could not. False when it was left behind.
    pub fn stop_within(mut self, timeout: Duration) -> bool {
        self.shared.stop();
        let began = Instant::now();
        while let Some(thread) = self.thread.take_if(|thread| !thread.is_finished()) {
            if began.elapsed() > timeout {
                drop(thread);
                return false;
            }
            self.thread = Some(thread);
            std::thread::sleep(LOOK);
        }
        self.end();
        true
    }

    fn end(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Streamer {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(config: &StreamerConfig, shared: &SharedState) {
    let pause_min = config.retry_pause_max / 20;
    let mut pause = pause_min;
    while !shared.stopping() {
        let outcome = attach(config, shared).and_then(|attached| {
            pause = pause_min;
            session::run(config, shared, attached)
        });
        let error = match outcome {
            // The next timeline, or what waits in the server meanwhile, follows at once.
            Ok(SessionEnd::TimelineEnded | SessionEnd::LetGo) => {
                shared.update(|state| state.attached = false);
                continue;
            }
            Ok(SessionEnd::Stopped) => break,
            Err(error) => error,
        };
        if !shared.stopping() {
            tracing::warn!(%error, "the stream of WAL is detached");
        }
        shared.update(|state| {
            state.attached = false;
            (state.error, state.side) = (Some(error.to_string()), Some(Side::of(&error)));
            state.detached_at_micros.get_or_insert(now_micros());
        });
        shared.pause(pause);
        pause = (pause * 2).min(config.retry_pause_max);
    }
    shared.update(|state| state.attached = false);
}
