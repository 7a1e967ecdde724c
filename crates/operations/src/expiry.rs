//! One expiry, whoever asks for it: survey, clocks, decision, record, deletion.

use host::{progress::Steps, record::Event};
use postgres_physical::{server::sql::Client, wire::ConnectOptions};
use repository::{
    Repository,
    keys::RecipientPrivate,
    retention::{self, Action, Clock, ExpiryOutcome, Plan, Rules, Subject, execute},
};

use crate::error::Error;

/// How often it is decided anew because a backup came in between.
const DECIDED_MAX: usize = 3;

/// Without the private key it decides the same, from pack lists and clear headers. `connect`: whose clock ours is compared with, where one
/// can be asked.
pub fn decide(
    repository: &Repository,
    private: Option<&RecipientPrivate>,
    connect: Option<&ConnectOptions>,
    rules: &Rules,
) -> Result<Plan, Error> {
    let clock = || {
        let postgres = connect.map(postgres_micros).transpose()?;
        Ok::<_, Error>(Clock::read(repository, postgres)?)
    };
    let plan = retention::decide(repository, private, rules, clock)?;
    for warning in &plan.warnings {
        tracing::warn!(%warning, "expiry");
    }
    Ok(plan)
}

/// Says what went.
pub fn expire(
    repository: &Repository,
    private: Option<&RecipientPrivate>,
    connect: Option<&ConnectOptions>,
    rules: &Rules,
    steps: &Steps,
    log: &Log<'_>,
) -> Result<String, Error> {
    let mut decided = 0;
    loop {
        let plan = decide(repository, private, connect, rules)?;
        decided += 1;
        match carry_out(repository, &plan, steps, log)? {
            Err(repository::Error::PlanIsOld { .. }) if decided < DECIDED_MAX => {}
            other => return Ok(sentence(&other?)),
        }
    }
}

/// The audit log, where there is one: who asks, and what puts an entry into it.
pub struct Log<'a> {
    pub asked_by: Event,
    pub record: &'a dyn Fn(&Event) -> Result<(), Error>,
}

impl std::fmt::Debug for Log<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("asked_by", &self.asked_by)
            .finish_non_exhaustive()
    }
}

/// More of them are counted only.
const NAMED_MAX: usize = 200;

/// Nothing is let go of before it is on record that it will be. The inner error is the repository's.
pub fn carry_out(
    repository: &Repository,
    plan: &Plan,
    steps: &Steps,
    log: &Log<'_>,
) -> Result<Result<ExpiryOutcome, repository::Error>, Error> {
    let event = || log.asked_by.clone().with("kind", "expire");
    let changes = plan.changes_anything();
    if changes {
        let mut begun = event()
            .with("state", "begun")
            .with("backups", named(plan, Action::Expire, Subjects::Backups))
            .with(
                "backups_deleted",
                named(plan, Action::Sweep, Subjects::Backups),
            );
        // Where there are any: most repositories hold none.
        let snapshots = [
            ("snapshots", Action::Expire),
            ("snapshots_deleted", Action::Sweep),
        ];
        for (field, action) in snapshots {
            let ids = named(plan, action, Subjects::Snapshots);
            if !ids.is_empty() {
                begun = begun.with(field, ids);
            }
        }
        (log.record)(&begun)?;
    }
    let done = execute(repository, plan, steps);
    let ended = match &done {
        Ok(done) => event()
            .with("state", "complete")
            .with("marked", done.marked)
            .with("deleted", done.deleted),
        Err(error) => event().with("state", "failed").with("why", error),
    };
    // What was begun is on record; that it ended is worth less than what it did.
    if changes && let Err(error) = (log.record)(&ended) {
        tracing::warn!(%error, "how the expiry ended is not in the audit log");
    }
    Ok(done)
}

/// What expires by name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Subjects {
    Backups,
    Snapshots,
}

/// Ids of those that get a tombstone, or whose tombstone's time is over; of snapshots `component/id`.
fn named(plan: &Plan, action: Action, what: Subjects) -> String {
    let id = |subject: Subject, which: &str| match (action, subject, what) {
        (Action::Sweep, Subject::Tombstone, _) => {
            let name = which.rsplit('/').next()?;
            match what {
                Subjects::Backups => name.strip_prefix("backup.").map(str::to_owned),
                Subjects::Snapshots => Some(name.strip_prefix("snapshot.")?.replacen('.', "/", 1)),
            }
        }
        (Action::Expire, Subject::Backup, Subjects::Backups)
        | (Action::Expire, Subject::Snapshot, Subjects::Snapshots) => Some(which.to_owned()),
        _ => None,
    };
    let decided = plan.decisions.iter().filter(|it| it.action == action);
    let ids: Vec<String> = decided
        .filter_map(|decision| id(decision.subject, &decision.which))
        .collect();
    let named = ids.len().min(NAMED_MAX);
    match ids.len() - named {
        0 => ids.join(","),
        more => format!("{},and {more} more", ids[..named].join(",")),
    }
}

pub fn sentence(done: &ExpiryOutcome) -> String {
    let mut text = format!(
        "{} objects marked to go, {} deleted",
        done.marked, done.deleted
    );
    if done.locked > 0 {
        text.push_str(&format!(", {} locked and left for later", done.locked));
    }
    if let Some(reason) = &done.refused_reason {
        text.push_str(&format!(
            ", {} left because the store refuses to delete them: {reason}",
            done.refused
        ));
    }
    text
}

fn postgres_micros(connect: &ConnectOptions) -> Result<i64, Error> {
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let found = Client::connect(connect)?.value(sql)?;
    found
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::failed("PostgreSQL does not tell the time"))
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, sync::Arc};

    use repository::store::{MemoryStore, Store};

    use super::*;

    /// A killed backup's packs, which nothing refers to.
    fn leftovers() -> (MemoryStore, Repository) {
        let store = MemoryStore::new();
        let repository = Repository::init(Arc::new(store.clone())).unwrap();
        let pack = format!("packs/{}", "5a".repeat(16));
        store.put(&pack, b"sealed").unwrap();
        (store, repository)
    }

    fn names(store: &MemoryStore) -> Vec<String> {
        let all = store.list("").unwrap();
        all.into_iter().map(|object| object.name).collect()
    }

    #[test]
    fn nothing_goes_before_it_is_on_record() {
        let (store, repository) = leftovers();
        let rules = Rules {
            grace_micros: 0,
            ..Rules::default()
        };
        let plan = decide(&repository, None, None, &rules).unwrap();
        assert!(plan.changes_anything());
        let before = names(&store);
        let asked_by = Event::by_engine("BackupRun");
        let steps = Steps::logged();
        let refuse = Log {
            asked_by: asked_by.clone(),
            record: &|_| Err(Error::failed("no log")),
        };
        assert!(carry_out(&repository, &plan, &steps, &refuse).is_err());
        assert_eq!(names(&store), before);

        let entries = RefCell::new(Vec::new());
        let log = Log {
            asked_by,
            record: &|event| {
                let there = names(&store) == before;
                entries.borrow_mut().push((format!("{event:?}"), there));
                Ok(())
            },
        };
        let done = carry_out(&repository, &plan, &steps, &log)
            .unwrap()
            .unwrap();
        assert!(done.marked > 0);
        let entries = entries.into_inner();
        let [(begun, true), (complete, false)] = &entries[..] else {
            panic!("{entries:?}");
        };
        assert!(
            begun.contains("begun") && complete.contains("complete"),
            "{entries:?}"
        );
        let marked = format!("\"marked\": String(\"{}\")", done.marked);
        assert!(complete.contains(&marked), "{complete}");
    }
}
