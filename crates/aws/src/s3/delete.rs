//! Deletion removes the bytes: in a bucket that keeps versions a plain deletion would only hide them.

use std::sync::Arc;

use repository::StoreError;

use super::{
    locks, read,
    remote::{Operation, Remote, code_of, status_of},
};

/// What an object is called that is in a bucket without versions. Named by it, it is deleted or nothing is: in a
/// bucket that keeps versions since a moment ago, nothing is hidden.
const ONLY_VERSION: &str = "null";
/// The stream's own puts go through the same server.
const AT_ONCE: usize = 4;

#[derive(Debug)]
pub(super) struct Version {
    pub(super) id: String,
}

/// Those that hold bytes, newest first. `null` is the one of a bucket that keeps none.
pub(super) async fn versions(remote: &Remote, name: &str) -> Result<Vec<Version>, StoreError> {
    let key = remote.key(name);
    let (mut found, mut key_from, mut version_from) = (Vec::new(), None, None);
    loop {
        let page = remote
            .client
            .list_object_versions()
            .bucket(&remote.bucket)
            .prefix(&key)
            .max_keys(remote.page_names)
            .set_key_marker(key_from.clone())
            .set_version_id_marker(version_from.clone())
            .send()
            .await
            .map_err(|error| remote.fault(name, Operation::Reading, &error))?;
        let all = page.versions.unwrap_or_default();
        let past = all
            .iter()
            .any(|version| version.key.as_deref().is_some_and(|k| k > &*key));
        let own = all
            .into_iter()
            .filter(|version| version.key.as_deref() == Some(&*key));
        found.extend(own.map(|version| {
            Version {
                id: version
                    .version_id
                    .unwrap_or_else(|| ONLY_VERSION.to_owned()),
            }
        }));
        // Others' names that begin alike come after it.
        if past || !page.is_truncated.unwrap_or(false) {
            return Ok(found);
        }
        (key_from, version_from) = (page.next_key_marker, page.next_version_id_marker);
        if key_from.is_none() {
            return Err(remote.io(name, "the listing of its versions does not continue"));
        }
    }
}

pub(super) async fn delete(remote: &Remote, name: &str) -> Result<(), StoreError> {
    // A look at one name is cheap everywhere. A listing of versions costs as much as a put, and some servers walk the
    // whole bucket for it, which the stream would wait for.
    if let Some(seen) = read::seen(remote, name).await?
        && seen.version.is_none()
    {
        return delete_version(remote, name, ONLY_VERSION).await;
    }
    let versions = versions(remote, name).await?;
    if versions.is_empty() {
        return Err(remote.not_found(name));
    }
    // The oldest last: while a part of it is left, the name is not free.
    for version in &versions {
        delete_version(remote, name, &version.id).await?;
    }
    Ok(())
}

/// Several at a time; those that are gone already count as deleted.
pub(super) async fn delete_all(remote: Arc<Remote>, names: Vec<String>) -> Result<(), StoreError> {
    let names = names.into_iter();
    locks::each(&remote, AT_ONCE, names, |remote, name| async move {
        match delete(&remote, &name).await {
            Err(StoreError::NotFound { .. }) => Ok(()),
            other => other,
        }
    })
    .await
}

/// By its id, which is refused while it is locked.
pub(super) async fn delete_version(
    remote: &Remote,
    name: &str,
    version: &str,
) -> Result<(), StoreError> {
    let deleted = remote
        .client
        .delete_object()
        .bucket(&remote.bucket)
        .key(remote.key(name))
        .version_id(version)
        .send()
        .await;
    let Err(error) = deleted else { return Ok(()) };
    // Where even that cannot be asked, the server's own word about the deletion counts.
    if matches!(status_of(&error), Some(400 | 403))
        && let Ok(Some(lock)) = locks::lock_of_version(remote, name, Some(version)).await
    {
        return Err(StoreError::Locked {
            object: name.to_owned(),
            lock,
        });
    }
    let is_gone =
        code_of(&error) == "NoSuchVersion" || matches!(read::seen(remote, name).await, Ok(None));
    if is_gone {
        return Ok(());
    }
    Err(remote.fault(name, Operation::Writing, &error))
}
