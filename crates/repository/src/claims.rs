//! Claims to the plan of jobs of a repository (`docs/formats/job_runs.md` §7): which of several engines starts them.
//! Nothing is safe because of a claim; two that both hold one do work twice.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    Repository,
    error::{Result, StoreError},
    keys::random_hex,
    retention::Clock,
};

const PREFIX: &str = "claims/";
/// By the store's clock: one that is older was left behind.
pub const CLAIM_LEASE: Duration = Duration::from_secs(360);

/// Who comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimRank {
    /// It has the lock in the database as well.
    WithDatabase,
    /// The database cannot be reached.
    RepositoryAlone,
}

impl ClaimRank {
    fn digit(self) -> char {
        match self {
            Self::WithDatabase => '0',
            Self::RepositoryAlone => '1',
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimHolder {
    /// This one.
    Own,
    /// Of this host.
    Other(String),
}

/// One engine's part in it.
#[derive(Debug)]
pub struct PlanClaim {
    id: String,
    host: String,
    renewals: u32,
    /// Its object, while it has one.
    object: Option<String>,
    /// Objects of others that were young, and when that was seen.
    seen: BTreeMap<String, Instant>,
}

/// What the name of an object says.
struct ClaimName<'a> {
    object: &'a str,
    modified_micros: i64,
    rank: char,
    id: &'a str,
    host: &'a str,
}

impl<'a> ClaimName<'a> {
    fn of(object: &'a str, modified_micros: i64) -> Option<Self> {
        let name = object.strip_prefix(PREFIX)?;
        let (order, rest) = name.split_once('.')?;
        let (_, host) = rest.split_once('.')?;
        let (rank, id) = order.split_once('-')?;
        Some(Self {
            object,
            modified_micros,
            rank: rank.chars().next()?,
            id,
            host,
        })
    }
}

impl PlanClaim {
    /// `id`: of an earlier process of the same instance; a new one where there was none. `host`: letters, digits and
    /// `-`.
    pub fn new(id: Option<String>, host: &str) -> Result<Self> {
        Ok(Self {
            id: match id.filter(|id| is_id(id)) {
                Some(id) => id,
                None => random_hex(8)?,
            },
            host: host.to_owned(),
            renewals: 0,
            object: None,
            seen: BTreeMap::new(),
        })
    }

    /// For the next process of the instance, which need not wait until this claim is old.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Takes it, keeps it, or says who has it. Well before [`CLAIM_LEASE`] is over, again and again.
    pub fn renew(&mut self, repository: &Repository, rank: ClaimRank) -> Result<ClaimHolder> {
        if self.object.is_none()
            && let Some(host) = self.held_by_other(repository, rank)?
        {
            return Ok(ClaimHolder::Other(host));
        }
        let own = self.put(repository, rank)?;
        let all = repository.store().list(PREFIX)?;
        let at = all.iter().find(|object| object.name == own);
        // A store that lists late: what it says of others is as good as ever.
        let now_micros = at.map_or_else(crate::store::now_micros, |own| own.modified_micros);
        let (mut first, mut left) = (None, Vec::new());
        for object in &all {
            let Some(named) = ClaimName::of(&object.name, object.modified_micros) else {
                continue;
            };
            let is_old = now_micros.saturating_sub(named.modified_micros) > lease_micros();
            let is_left = named.id == self.id && named.object != own;
            if is_left || is_old {
                left.push(named.object.to_owned());
            } else if first.is_none() {
                first = Some((named.id == self.id, named.host.to_owned()));
            }
        }
        // What its own or somebody's earlier process left.
        for object in &left {
            drop_claim(repository, object)?;
        }
        self.object = Some(own);
        match first {
            Some((false, host)) => {
                self.release(repository)?;
                Ok(ClaimHolder::Other(host))
            }
            _ => Ok(ClaimHolder::Own),
        }
    }

    /// Somebody else's that is young and comes before what this one would put.
    fn held_by_other(
        &mut self,
        repository: &Repository,
        rank: ClaimRank,
    ) -> Result<Option<String>> {
        let all = repository.store().list(PREFIX)?;
        let named = all
            .iter()
            .filter_map(|object| ClaimName::of(&object.name, object.modified_micros));
        let others: Vec<ClaimName<'_>> = named
            .filter(|named| named.id != self.id && named.rank <= rank.digit())
            .collect();
        self.seen
            .retain(|object, _| others.iter().any(|other| other.object == object));
        let mut store_micros = None;
        for other in &others {
            let seen = self.seen.get(other.object);
            let is_known = seen.is_some_and(|at| at.elapsed() <= CLAIM_LEASE);
            if !is_known {
                let now = match store_micros {
                    Some(now) => now,
                    None => Clock::read(repository, None)?.store_micros,
                };
                store_micros = Some(now);
                if now.saturating_sub(other.modified_micros) > lease_micros() {
                    continue;
                }
                self.seen.insert(other.object.to_owned(), Instant::now());
            }
            return Ok(Some(other.host.to_owned()));
        }
        Ok(None)
    }

    /// Under a new name: nothing is ever overwritten.
    fn put(&mut self, repository: &Repository, rank: ClaimRank) -> Result<String> {
        loop {
            self.renewals = self.renewals.wrapping_add(1);
            let (rank, id) = (rank.digit(), &self.id);
            let name = format!("{PREFIX}{rank}-{id}.{:08x}.{}", self.renewals, self.host);
            match repository.store().put(&name, b"") {
                // By an earlier process of this instance, or by a copy of it.
                Err(StoreError::AlreadyExists { .. }) if self.object.is_none() => {}
                other => return other.map(|()| name).map_err(Into::into),
            }
        }
    }

    /// The next one need not wait.
    pub fn release(&mut self, repository: &Repository) -> Result<()> {
        match self.object.take() {
            Some(object) => drop_claim(repository, &object),
            None => Ok(()),
        }
    }
}

fn lease_micros() -> i64 {
    i64::try_from(CLAIM_LEASE.as_micros()).unwrap_or(i64::MAX)
}

fn is_id(text: &str) -> bool {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.len() == 16 && text.bytes().all(is_hex)
}

fn drop_claim(repository: &Repository, object: &str) -> Result<()> {
    match repository.store().delete(object) {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::MemoryStore;

    const MINUTE: i64 = 60_000_000;

    struct World {
        store: MemoryStore,
        repository: Repository,
    }

    impl World {
        fn new() -> Self {
            let store = MemoryStore::new();
            store.set_clock(Some(0));
            let repository = Repository::init(Arc::new(store.clone())).unwrap();
            Self { store, repository }
        }

        fn renew(&self, claim: &mut PlanClaim, rank: ClaimRank) -> ClaimHolder {
            claim.renew(&self.repository, rank).unwrap()
        }

        fn objects(&self) -> Vec<String> {
            use crate::store::Store;
            let all = self.store.list(PREFIX).unwrap();
            all.into_iter().map(|object| object.name).collect()
        }
    }

    fn claim(digit: char, host: &str) -> PlanClaim {
        let id = std::iter::repeat_n(digit, 16).collect();
        PlanClaim::new(Some(id), host).unwrap()
    }

    use ClaimRank::{RepositoryAlone as Alone, WithDatabase};

    fn other(host: &str) -> ClaimHolder {
        ClaimHolder::Other(host.to_owned())
    }

    #[test]
    fn who_has_it_keeps_it_while_it_is_renewed_and_its_end_is_the_stores_to_tell() {
        let world = World::new();
        let (mut first, mut second) = (claim('b', "one"), claim('a', "two"));
        assert_eq!(world.renew(&mut first, Alone), ClaimHolder::Own);
        // A lower number is no reason: who sees a young one does not try.
        assert_eq!(world.renew(&mut second, Alone), other("one"));
        world.store.set_clock(Some(5 * MINUTE));
        assert_eq!(world.renew(&mut first, Alone), ClaimHolder::Own);
        assert_eq!(world.objects(), ["claims/1-bbbbbbbbbbbbbbbb.00000002.one"]);
        world.store.set_clock(Some(10 * MINUTE));
        assert_eq!(
            world.renew(&mut second, Alone),
            other("one"),
            "5 minutes old"
        );
        // Its engine is gone. The machine's own clock says nothing about it.
        world.store.set_clock(Some(12 * MINUTE));
        let mut third = claim('c', "three");
        assert_eq!(world.renew(&mut third, Alone), ClaimHolder::Own);
        assert_eq!(
            world.objects(),
            ["claims/1-cccccccccccccccc.00000001.three"]
        );
        // It was only slow: it finds that somebody else has it.
        assert_eq!(
            world.renew(&mut first, Alone),
            ClaimHolder::Own,
            "it comes first"
        );
        assert_eq!(world.renew(&mut third, Alone), other("one"));
        first.release(&world.repository).unwrap();
        assert_eq!(world.renew(&mut third, Alone), ClaimHolder::Own);
        third.release(&world.repository).unwrap();
        assert!(world.objects().is_empty());
    }

    #[test]
    fn the_lock_in_the_database_comes_first_and_the_next_process_of_an_instance_waits_for_nobody() {
        let world = World::new();
        let (mut away, mut near) = (claim('a', "away"), claim('b', "near"));
        assert_eq!(world.renew(&mut away, Alone), ClaimHolder::Own);
        assert_eq!(world.renew(&mut near, WithDatabase), ClaimHolder::Own);
        assert_eq!(world.renew(&mut away, Alone), other("near"));
        assert_eq!(world.objects(), ["claims/0-bbbbbbbbbbbbbbbb.00000001.near"]);
        // Killed, and started again.
        let mut again = PlanClaim::new(Some(near.id().to_owned()), "near").unwrap();
        assert_eq!(world.renew(&mut again, WithDatabase), ClaimHolder::Own);
        assert_eq!(world.objects(), ["claims/0-bbbbbbbbbbbbbbbb.00000002.near"]);
        // The database is away for it now: what it has is of the lower rank.
        assert_eq!(world.renew(&mut again, Alone), ClaimHolder::Own);
        assert_eq!(world.objects(), ["claims/1-bbbbbbbbbbbbbbbb.00000003.near"]);
        assert_eq!(world.renew(&mut away, WithDatabase), ClaimHolder::Own);
        assert_eq!(world.renew(&mut again, Alone), other("away"));
        // What is in a file that somebody wrote is no id.
        let made = PlanClaim::new(Some("../x".to_owned()), "near").unwrap();
        assert!(is_id(made.id()), "{}", made.id());
    }
}
