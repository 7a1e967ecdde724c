//! The claim in the repository: for engines of one plan that reach no database in common.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use host::files::write_whole;
use jobs::{Claim, Claims};
use repository::claims::{CLAIM_LEASE, ClaimHolder, ClaimRank, PlanClaim};

use super::{
    JobEnvironment,
    claim_state::{ClaimState, ClaimThread},
    claims::DatabaseLock,
    environment::lock,
    host_name,
};
use crate::error::Error;

/// A third of the lease: one that fails is tried again in time.
const RENEW_PAUSE: Duration = Duration::from_secs(120);
/// Of an engine that waits, and after trouble with the store.
const LOOK_PAUSE: Duration = Duration::from_secs(30);
const TURN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct OfRepository {
    inner: Arc<RepositoryClaim>,
    _thread: ClaimThread,
    /// Which taking of it the driver knows.
    known: u64,
}

#[derive(Debug)]
struct RepositoryClaim {
    environment: Arc<JobEnvironment>,
    database: DatabaseLock,
    look_pause: Duration,
    /// Held, it was taken so many times; and when that was found out.
    state: Mutex<(ClaimState, Instant)>,
}

impl OfRepository {
    /// `database`: who has the lock there starts jobs before who has not.
    pub fn start(environment: &Arc<JobEnvironment>, database: DatabaseLock) -> Self {
        Self::start_with(environment, database, LOOK_PAUSE)
    }

    pub(super) fn start_with(
        environment: &Arc<JobEnvironment>,
        database: DatabaseLock,
        look_pause: Duration,
    ) -> Self {
        let asking = ClaimState::Elsewhere("the repository is being asked".to_owned());
        let inner = Arc::new(RepositoryClaim {
            environment: Arc::clone(environment),
            database,
            look_pause,
            state: Mutex::new((asking, Instant::now())),
        });
        let of_thread = Arc::clone(&inner);
        Self {
            inner,
            _thread: ClaimThread::start(move |ends| of_thread.keep(ends)),
            known: 0,
        }
    }
}

impl Claims for OfRepository {
    fn name(&self) -> &'static str {
        "repository"
    }

    fn hold(&mut self) -> Claim {
        let (state, said_at) = lock(&self.inner.state).clone();
        if said_at.elapsed() > CLAIM_LEASE {
            return Claim::Unknown("the repository does not answer".to_owned());
        }
        state.claim(&mut self.known)
    }
}

impl RepositoryClaim {
    fn keep(&self, ends: &AtomicBool) {
        let repository = self.environment.moment().repository;
        let (mut claim, mut renewed, mut times) = (None, None::<(Instant, ClaimRank)>, 0);
        while !ends.load(Ordering::Relaxed) {
            let rank = self.database.rank();
            let is_held = self.is_held();
            let pause = if is_held {
                RENEW_PAUSE
            } else {
                self.look_pause
            };
            let is_due = renewed.is_none_or(|(at, before)| {
                at.elapsed() >= pause || rank.is_some_and(|rank| rank != before)
            });
            match rank {
                // An engine without the lock in the database keeps no other from anything.
                None => {
                    if let Some(claim) = &mut claim {
                        self.release(claim);
                    }
                    renewed = None;
                    self.say(ClaimState::Elsewhere(
                        "the lock in the database decides".to_owned(),
                    ));
                }
                Some(rank) if is_due => {
                    renewed = Some((Instant::now(), rank));
                    match self.renew(&mut claim, &repository, rank) {
                        Ok(ClaimHolder::Own) => {
                            times += u64::from(!is_held);
                            self.say(ClaimState::Held(times));
                        }
                        Ok(ClaimHolder::Other(host)) => {
                            let who = format!("the claim in the repository is held by {host}");
                            self.say(ClaimState::Elsewhere(who));
                        }
                        Err(error) => self.doubt(&error, is_held),
                    }
                }
                Some(_) => {}
            }
            std::thread::park_timeout(TURN);
        }
        if let Some(claim) = &mut claim {
            self.release(claim);
        }
    }

    fn renew(
        &self,
        claim: &mut Option<PlanClaim>,
        repository: &repository::Repository,
        rank: ClaimRank,
    ) -> Result<ClaimHolder, Error> {
        let claim = match claim {
            Some(claim) => claim,
            None => claim.insert(self.of_this_instance()?),
        };
        Ok(claim.renew(repository, rank)?)
    }

    /// With the id of the process before, so that a start after a kill does not wait for itself.
    fn of_this_instance(&self) -> Result<PlanClaim, Error> {
        let file = self.id_file();
        let before = std::fs::read_to_string(&file).ok();
        let id = before.as_ref().map(|id| id.trim().to_owned());
        let claim = PlanClaim::new(id, &host_name())?;
        if before.as_deref() != Some(claim.id())
            && let Err(error) = write_whole(&file, claim.id().as_bytes(), 0o600)
        {
            tracing::debug!(%error, "a start after a kill will wait until this claim is old");
        }
        Ok(claim)
    }

    fn id_file(&self) -> PathBuf {
        self.environment.instance.run().join("plan_claim.id")
    }

    /// What is held is held as long as the lease is: it is tried again before that.
    fn doubt(&self, error: &Error, is_held: bool) {
        tracing::debug!(%error, "the claim in the repository cannot be told");
        if !is_held {
            self.say(ClaimState::Unknown(error.to_string()));
        }
    }

    fn release(&self, claim: &mut PlanClaim) {
        if let Err(error) = claim.release(&self.environment.moment().repository) {
            tracing::debug!(%error, "a claim stays in the repository until it is old");
        }
    }

    /// Without a gap since it was taken.
    fn is_held(&self) -> bool {
        let state = lock(&self.state);
        matches!(state.0, ClaimState::Held(_)) && state.1.elapsed() <= CLAIM_LEASE
    }

    fn say(&self, state: ClaimState) {
        *lock(&self.state) = (state, Instant::now());
    }
}
