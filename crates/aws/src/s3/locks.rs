//! Retention dates and legal holds. They are read, set and extended; nothing here shortens one.

use std::{sync::Arc, time::SystemTime};

use aws_sdk_s3::{
    primitives::DateTime,
    types::{
        ObjectLockLegalHold, ObjectLockLegalHoldStatus, ObjectLockMode, ObjectLockRetention,
        ObjectLockRetentionMode,
    },
};
use repository::{
    StoreError,
    store::{Lock, LockMode, LockPolicy},
};
use tokio::task::JoinSet;

use super::{
    read::micros,
    remote::{Operation, Remote, status_of},
};

/// A backup refers to thousands of packs.
const AT_ONCE: usize = 32;

pub(super) async fn lock_of(remote: &Remote, name: &str) -> Result<Option<Lock>, StoreError> {
    lock_of_version(remote, name, None).await
}

/// What stands against deleting it now.
pub(super) async fn lock_of_version(
    remote: &Remote,
    name: &str,
    version: Option<&str>,
) -> Result<Option<Lock>, StoreError> {
    let lock = any_lock(remote, name, version).await?;
    Ok(lock.and_then(|lock| lock.at(micros(&DateTime::from(SystemTime::now())))))
}

/// Also one whose day is over.
async fn any_lock(
    remote: &Remote,
    name: &str,
    version: Option<&str>,
) -> Result<Option<Lock>, StoreError> {
    let head = remote
        .client
        .head_object()
        .bucket(&remote.bucket)
        .key(remote.key(name))
        .set_version_id(version.map(str::to_owned))
        .send()
        .await;
    match head {
        Ok(head) => Ok(Some(Lock {
            mode: match &head.object_lock_mode {
                Some(ObjectLockMode::Compliance) => Some(LockMode::Compliance),
                Some(ObjectLockMode::Governance) => Some(LockMode::Governance),
                _ => None,
            },
            until_micros: head
                .object_lock_mode
                .and(head.object_lock_retain_until_date.as_ref().map(micros)),
            hold: head.object_lock_legal_hold_status == Some(ObjectLockLegalHoldStatus::On),
        })),
        Err(error) if matches!(status_of(&error), Some(404 | 405)) => Ok(None),
        Err(error) => Err(remote.fault(name, Operation::Reading, &error)),
    }
}

pub(super) async fn keep_longer(remote: Arc<Remote>, names: Vec<String>) -> Result<(), StoreError> {
    let Some(policy) = remote.lock else {
        return Ok(());
    };
    let until = policy.until(micros(&DateTime::from(SystemTime::now())));
    let names = names.into_iter().filter(|name| LockPolicy::covers(name));
    each(&remote, AT_ONCE, names, move |remote, name| async move {
        keep_until(&remote, &name, policy, until).await
    })
    .await
}

/// At least for as long as a new object.
pub(super) async fn lock_now(
    remote: &Remote,
    name: &str,
    policy: LockPolicy,
) -> Result<(), StoreError> {
    // To the second, so that a lock that was set a moment ago counts.
    let until = DateTime::from(SystemTime::now()).secs() - 60 + i64::from(policy.days) * 86_400;
    keep_until(remote, name, policy, until * 1_000_000).await
}

async fn keep_until(
    remote: &Remote,
    name: &str,
    policy: LockPolicy,
    until_micros: i64,
) -> Result<(), StoreError> {
    let Some(lock) = any_lock(remote, name, None).await? else {
        return Err(remote.not_found(name));
    };
    // Not every server refuses to shorten one.
    if lock.until_micros >= Some(until_micros) {
        return Ok(());
    }
    let mode = match policy.mode {
        LockMode::Compliance => ObjectLockRetentionMode::Compliance,
        LockMode::Governance => ObjectLockRetentionMode::Governance,
    };
    let retention = ObjectLockRetention::builder()
        .mode(mode)
        .retain_until_date(DateTime::from_secs(until_micros / 1_000_000));
    remote
        .client
        .put_object_retention()
        .bucket(&remote.bucket)
        .key(remote.key(name))
        .retention(retention.build())
        .send()
        .await
        .map(drop)
        .map_err(|error| remote.fault(name, Operation::Writing, &error))
}

/// Where the bucket has no locks the server says so, and what is on record below `holds/` is all there is.
pub(super) async fn set_hold(
    remote: Arc<Remote>,
    names: Vec<String>,
    on: bool,
) -> Result<(), StoreError> {
    if remote.lock.is_none() {
        return Ok(());
    }
    let status = match on {
        true => ObjectLockLegalHoldStatus::On,
        false => ObjectLockLegalHoldStatus::Off,
    };
    each(&remote, AT_ONCE, names.into_iter(), move |remote, name| {
        let hold = ObjectLockLegalHold::builder()
            .status(status.clone())
            .build();
        async move {
            let put = remote
                .client
                .put_object_legal_hold()
                .bucket(&remote.bucket)
                .key(remote.key(&name))
                .legal_hold(hold);
            match put.send().await {
                Ok(_) => Ok(()),
                Err(error) => Err(remote.fault(&name, Operation::Writing, &error)),
            }
        }
    })
    .await
}

/// Several at a time; the first error ends it.
pub(super) async fn each<F>(
    remote: &Arc<Remote>,
    at_once: usize,
    names: impl Iterator<Item = String>,
    mut work: impl FnMut(Arc<Remote>, String) -> F,
) -> Result<(), StoreError>
where
    F: Future<Output = Result<(), StoreError>> + Send + 'static,
{
    let mut running = JoinSet::new();
    for name in names {
        if running.len() >= at_once {
            ended(remote, running.join_next().await)?;
        }
        running.spawn(work(Arc::clone(remote), name));
    }
    while !running.is_empty() {
        ended(remote, running.join_next().await)?;
    }
    Ok(())
}

fn ended(
    remote: &Remote,
    joined: Option<Result<Result<(), StoreError>, tokio::task::JoinError>>,
) -> Result<(), StoreError> {
    match joined {
        Some(Ok(done)) => done,
        Some(Err(_)) => Err(remote.away("the thread that asks it ended")),
        None => Ok(()),
    }
}
