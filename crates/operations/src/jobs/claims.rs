//! Which of two engines of one plan runs its jobs.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jobs::{Claim, Claims};
use postgres_physical::server::sql::Client;
use repository::claims::ClaimRank;

use super::{
    JobEnvironment,
    claim_state::{ClaimState, ClaimThread},
    environment::lock,
};

/// The process that runs this has the instance's folder: `Instance::lock`.
#[derive(Debug)]
pub struct OfInstance;

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
const OWN_PLAN: i32 = 1;
const PAUSE: Duration = Duration::from_secs(1);

/// A lock in the database whose jobs these are, held by a session: it goes with its process and with its server.
#[derive(Debug)]
pub struct OfDatabase {
    inner: Arc<DatabaseClaim>,
    _thread: ClaimThread,
    /// The session that the driver knows to have it.
    known: u64,
}

#[derive(Debug)]
pub(super) struct DatabaseClaim {
    environment: Arc<JobEnvironment>,
    plan: i32,
    /// Held in the session of its number.
    state: Mutex<ClaimState>,
}

/// A cluster may have an engine of its own and be named by others: one repository has one plan.
fn plan_number(environment: &JobEnvironment) -> i32 {
    if environment.config.cluster.is_none() {
        return OWN_PLAN;
    }
    let repository = environment.moment().repository;
    let digits = repository.id().get(..8).unwrap_or_default();
    let number = u32::from_str_radix(digits, 16).unwrap_or_default();
    i32::from_ne_bytes(number.to_ne_bytes()).max(OWN_PLAN + 1)
}

/// What the lock in the database says to an engine that claims the plan in the repository.
#[derive(Clone, Debug, Default)]
pub struct DatabaseLock(Option<Arc<DatabaseClaim>>);

impl DatabaseLock {
    /// None: another engine has it.
    pub(super) fn rank(&self) -> Option<ClaimRank> {
        let state = self.0.as_ref().map(|inner| lock(&inner.state).clone());
        match state {
            Some(ClaimState::Held(_)) => Some(ClaimRank::WithDatabase),
            Some(ClaimState::Elsewhere(_)) => None,
            Some(ClaimState::Unknown(_)) | None => Some(ClaimRank::RepositoryAlone),
        }
    }
}

impl OfDatabase {
    pub fn lock(&self) -> DatabaseLock {
        DatabaseLock(Some(Arc::clone(&self.inner)))
    }

    pub fn start(environment: &Arc<JobEnvironment>) -> Self {
        let inner = Arc::new(DatabaseClaim {
            environment: Arc::clone(environment),
            plan: plan_number(environment),
            state: Mutex::new(ClaimState::Elsewhere("it is being asked for".to_owned())),
        });
        let of_thread = Arc::clone(&inner);
        Self {
            inner,
            _thread: ClaimThread::start(move |ends| of_thread.keep(ends)),
            known: 0,
        }
    }
}

impl Claims for OfDatabase {
    fn name(&self) -> &'static str {
        "database"
    }

    fn hold(&mut self) -> Claim {
        let state = lock(&self.inner.state).clone();
        state.claim(&mut self.known)
    }
}

impl DatabaseClaim {
    fn keep(&self, ends: &AtomicBool) {
        let (mut session, mut number) = (None, 0);
        while !ends.load(Ordering::Relaxed) {
            if session.is_none() {
                number += 1;
                session = self.connect();
            }
            if let Some(client) = &mut session {
                match self.ask(client, number) {
                    Ok(state) => self.say(state),
                    Err(reason) => {
                        session = None;
                        self.say(ClaimState::Unknown(reason));
                    }
                }
            }
            std::thread::park_timeout(PAUSE);
        }
    }

    /// To the database that every engine of this plan names alike.
    fn connect(&self) -> Option<Client> {
        let connected = match self.environment.moment().connect {
            Some(connect) => Client::connect(&connect).map_err(|error| error.to_string()),
            None => Err("there is no connection to the database".to_owned()),
        };
        connected
            .map_err(|reason| self.say(ClaimState::Unknown(reason)))
            .ok()
    }

    fn say(&self, state: ClaimState) {
        *lock(&self.state) = state;
    }

    /// A session that has the lock keeps it; asking is how it is known to live.
    fn ask(&self, client: &mut Client, number: u64) -> Result<ClaimState, String> {
        let is_held =
            matches!(&*lock(&self.state), ClaimState::Held(session) if *session == number);
        let mut value = |query: &str| client.value(query).map_err(|error| error.to_string());
        if is_held {
            value("SELECT 1")?;
            return Ok(ClaimState::Held(number));
        }
        let plan = self.plan;
        let taken = value(&format!("SELECT pg_try_advisory_lock({CLASS}, {plan})"))?;
        if taken.as_deref() == Some("t") {
            return Ok(ClaimState::Held(number));
        }
        let who = value(&format!(
            "SELECT coalesce(client_addr::text, 'this machine') || ', process ' || pid FROM pg_locks \
             JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND classid = {CLASS} \
             AND objid = {plan} AND pg_locks.granted LIMIT 1"
        ))?;
        let who = who.unwrap_or_else(|| "another session".to_owned());
        Ok(ClaimState::Elsewhere(format!(
            "the lock in the database is held from {who}"
        )))
    }
}
