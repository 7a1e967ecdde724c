//! Which of two engines of one plan runs its jobs.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::Thread,
    time::Duration,
};

use jobs::{Claim, Claims};
use postgres_physical::server::sql::Client;
use repository::claims::ClaimRank;

use super::{Shared, shared::held};

/// The process that runs this has the instance's folder: `Instance::lock`.
#[derive(Debug)]
pub(crate) struct OfInstance;

impl Claims for OfInstance {
    fn name(&self) -> &'static str {
        "instance"
    }

    fn hold(&mut self) -> Claim {
        Claim::Held
    }
}

/// Marks the lock among others of the same database: "breJ".
const CLASS: i32 = 0x6272_654A;
/// The plan of the instance's own cluster.
const PLAN: i32 = 1;
const PAUSE: Duration = Duration::from_secs(1);

/// A lock in the database whose jobs these are, held by a session: it goes with its process and with its server.
/// A thread keeps it, because a server that hangs must not hold up anybody.
#[derive(Debug)]
pub(crate) struct OfDatabase {
    kept: Arc<Kept>,
    thread: Thread,
    asked: u64,
}

#[derive(Debug)]
pub(crate) struct Kept {
    shared: Arc<Shared>,
    state: Mutex<State>,
    ends: AtomicBool,
}

#[derive(Clone, Debug)]
enum State {
    /// In the session of this number.
    Held(u64),
    Elsewhere(String),
    Unknown(String),
}

/// What the lock in the database says to an engine that claims the plan in the repository.
#[derive(Clone, Debug, Default)]
pub(crate) struct DatabaseLock(Option<Arc<Kept>>);

impl DatabaseLock {
    /// None: another engine has it.
    pub(super) fn rank(&self) -> Option<ClaimRank> {
        let state = self.0.as_ref().map(|kept| held(&kept.state).clone());
        match state {
            Some(State::Held(_)) => Some(ClaimRank::WithDatabase),
            Some(State::Elsewhere(_)) => None,
            Some(State::Unknown(_)) | None => Some(ClaimRank::RepositoryAlone),
        }
    }
}

impl OfDatabase {
    pub(crate) fn lock(&self) -> DatabaseLock {
        DatabaseLock(Some(Arc::clone(&self.kept)))
    }

    pub(crate) fn start(shared: &Arc<Shared>) -> Self {
        let kept = Arc::new(Kept {
            shared: Arc::clone(shared),
            state: Mutex::new(State::Elsewhere("it is being asked for".to_owned())),
            ends: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&kept);
        let thread = std::thread::spawn(move || of_thread.keep());
        Self {
            kept,
            thread: thread.thread().clone(),
            asked: 0,
        }
    }
}

impl Drop for OfDatabase {
    fn drop(&mut self) {
        self.kept.ends.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }
}

impl Claims for OfDatabase {
    fn name(&self) -> &'static str {
        "database"
    }

    fn hold(&mut self) -> Claim {
        match held(&self.kept.state).clone() {
            State::Held(session) if session == self.asked => Claim::Held,
            State::Held(session) => {
                self.asked = session;
                Claim::Taken
            }
            State::Elsewhere(who) => Claim::Elsewhere(who),
            State::Unknown(reason) => Claim::Unknown(reason),
        }
    }
}

impl Kept {
    fn keep(&self) {
        let (mut session, mut number) = (None, 0);
        while !self.ends.load(Ordering::Relaxed) {
            if session.is_none() {
                number += 1;
                session = self.connect();
            }
            if let Some(client) = &mut session {
                match self.ask(client, number) {
                    Ok(state) => self.say(state),
                    Err(reason) => {
                        session = None;
                        self.say(State::Unknown(reason));
                    }
                }
            }
            std::thread::park_timeout(PAUSE);
        }
    }

    /// To the database that every engine of this plan names alike.
    fn connect(&self) -> Option<Client> {
        let connected = match self.shared.moment().connect {
            Some(connect) => Client::connect(&connect).map_err(|error| error.to_string()),
            None => Err("there is no connection to the database".to_owned()),
        };
        connected
            .map_err(|reason| self.say(State::Unknown(reason)))
            .ok()
    }

    fn say(&self, state: State) {
        *held(&self.state) = state;
    }

    /// A session that has the lock keeps it; asking is how it is known to live.
    fn ask(&self, client: &mut Client, number: u64) -> Result<State, String> {
        let is_held = matches!(&*held(&self.state), State::Held(session) if *session == number);
        let mut value = |query: &str| client.value(query).map_err(|error| error.to_string());
        if is_held {
            value("SELECT 1")?;
            return Ok(State::Held(number));
        }
        let taken = value(&format!("SELECT pg_try_advisory_lock({CLASS}, {PLAN})"))?;
        if taken.as_deref() == Some("t") {
            return Ok(State::Held(number));
        }
        let who = value(&format!(
            "SELECT coalesce(client_addr::text, 'this machine') || ', process ' || pid FROM pg_locks \
             JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND classid = {CLASS} \
             AND objid = {PLAN} AND pg_locks.granted LIMIT 1"
        ))?;
        let who = who.unwrap_or_else(|| "another session".to_owned());
        Ok(State::Elsewhere(format!(
            "the lock in the database is held from {who}"
        )))
    }
}
