//! Whole objects, ranges of them, and listings: exactly what was requested, or an error.

use std::time::Duration;

use aws_sdk_s3::{
    operation::get_object::GetObjectOutput, primitives::DateTime, types::ChecksumMode,
};
use repository::{
    StoreError,
    store::{ColdObject, ObjectInfo, check_name},
};

use super::{
    put::TOKEN,
    remote::{Operation, Remote, status_of},
};

/// A body that breaks off is asked for again so often.
const BODIES_MAX: u32 = 4;

#[derive(Debug)]
pub(super) struct ObjectHead {
    pub(super) size: u64,
    pub(super) token: Option<String>,
    /// None in a bucket that never kept versions.
    pub(super) version: Option<String>,
}

pub(super) async fn seen(remote: &Remote, name: &str) -> Result<Option<ObjectHead>, StoreError> {
    look(remote, name, None).await
}

pub(super) async fn seen_version(
    remote: &Remote,
    name: &str,
    version: &str,
) -> Result<Option<ObjectHead>, StoreError> {
    look(remote, name, Some(version.to_owned())).await
}

async fn look(
    remote: &Remote,
    name: &str,
    version: Option<String>,
) -> Result<Option<ObjectHead>, StoreError> {
    let head = remote
        .client
        .head_object()
        .bucket(&remote.bucket)
        .key(remote.key(name))
        .set_version_id(version);
    match head.send().await {
        Ok(head) => Ok(Some(ObjectHead {
            size: head
                .content_length
                .and_then(|n| u64::try_from(n).ok())
                .unwrap_or(0),
            token: head.metadata.and_then(|mut all| all.remove(TOKEN)),
            version: head.version_id,
        })),
        // A delete marker answers 405 when its version is asked for.
        Err(error) if matches!(status_of(&error), Some(404 | 405)) => Ok(None),
        Err(error) => Err(remote.fault(name, Operation::Reading, &error)),
    }
}

/// What the store says of an object that it hands out only after a restore.
pub(super) async fn cold(remote: &Remote, name: &str) -> Result<Option<ColdObject>, StoreError> {
    let head = remote
        .client
        .head_object()
        .bucket(&remote.bucket)
        .key(remote.key(name))
        .checksum_mode(ChecksumMode::Enabled);
    match head.send().await {
        Ok(head) => {
            let kept = [
                ("CRC32C", head.checksum_crc32_c()),
                ("CRC32", head.checksum_crc32()),
                ("CRC64NVME", head.checksum_crc64_nvme()),
                ("SHA-256", head.checksum_sha256()),
                ("SHA-1", head.checksum_sha1()),
            ];
            let checksum = kept
                .into_iter()
                .find_map(|(kind, value)| Some(format!("{kind} {}", value?)));
            Ok(Some(ColdObject {
                storage_class: head
                    .storage_class()
                    .map_or_else(|| "unnamed".to_owned(), |class| class.as_str().to_owned()),
                bytes: head
                    .content_length
                    .and_then(|n| u64::try_from(n).ok())
                    .unwrap_or(0),
                checksum,
            }))
        }
        Err(error) if matches!(status_of(&error), Some(404 | 405)) => Ok(None),
        Err(error) => Err(remote.fault(name, Operation::Reading, &error)),
    }
}

pub(super) async fn size(remote: &Remote, name: &str) -> Result<u64, StoreError> {
    if let Some(seen) = seen(remote, name).await? {
        return Ok(seen.size);
    }
    // That answer has no body to say which of the two is missing.
    match remote
        .client
        .head_bucket()
        .bucket(&remote.bucket)
        .send()
        .await
    {
        Ok(_) => Err(remote.not_found(name)),
        Err(error) if status_of(&error) == Some(404) => {
            Err(remote.away(format!("there is no bucket {}", remote.bucket)))
        }
        Err(error) => Err(remote.fault(name, Operation::Reading, &error)),
    }
}

pub(super) async fn whole(remote: &Remote, name: &str) -> Result<Vec<u8>, StoreError> {
    get(remote, name, None, None).await
}

pub(super) async fn range(
    remote: &Remote,
    name: &str,
    offset: u64,
    len: usize,
) -> Result<Vec<u8>, StoreError> {
    let end = offset + len as u64;
    let short = || short(name, offset, len);
    // S3 knows no empty range.
    if len == 0 {
        return match size(remote, name).await? {
            size if size >= offset => Ok(Vec::new()),
            _ => Err(short()),
        };
    }
    let asked = format!("bytes={offset}-{}", end - 1);
    let bytes = match get(remote, name, Some(asked), Some(len)).await {
        Err(StoreError::Damaged { .. }) => return Err(short()),
        other => other?,
    };
    if bytes.len() == len {
        Ok(bytes)
    } else {
        Err(short())
    }
}

pub(super) fn short(name: &str, offset: u64, len: usize) -> StoreError {
    StoreError::Damaged {
        object: name.to_owned(),
        what: format!("bytes {offset} to {} were asked for", offset + len as u64),
    }
}

/// As many bytes as there are, up to `len`.
pub(super) async fn block(
    remote: &Remote,
    name: &str,
    from: u64,
    len: u64,
) -> Result<Vec<u8>, StoreError> {
    let asked = format!("bytes={from}-{}", from + len - 1);
    let expected = usize::try_from(len).ok();
    match get(remote, name, Some(asked), expected).await {
        Err(StoreError::Damaged { .. }) => Ok(Vec::new()),
        other => other,
    }
}

/// `len`: what is expected, for the bounds of time.
async fn get(
    remote: &Remote,
    name: &str,
    range: Option<String>,
    len: Option<usize>,
) -> Result<Vec<u8>, StoreError> {
    let mut broken = String::new();
    for attempt in 0..BODIES_MAX {
        if attempt > 0 {
            tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
        }
        let get = remote
            .client
            .get_object()
            .bucket(&remote.bucket)
            .key(remote.key(name))
            .set_range(range.clone());
        let bounded = Remote::bounded(len.unwrap_or_default());
        match get.customize().config_override(bounded).send().await {
            Ok(answer) => match body(answer).await {
                Ok(bytes) => return Ok(bytes),
                Err(what) => broken = what,
            },
            Err(error) if status_of(&error) == Some(416) => {
                return Err(StoreError::Damaged {
                    object: name.to_owned(),
                    what: "it ends earlier".to_owned(),
                });
            }
            Err(error) => return Err(remote.fault(name, Operation::Reading, &error)),
        }
    }
    Err(remote.away(format!("`{name}` breaks off: {broken}")))
}

async fn body(answer: GetObjectOutput) -> Result<Vec<u8>, String> {
    let announced = answer.content_length.and_then(|n| usize::try_from(n).ok());
    let bytes = answer.body.collect().await.map_err(|e| e.to_string())?;
    let bytes = bytes.into_bytes();
    match announced {
        Some(len) if len != bytes.len() => Err(format!("{} of {len} bytes came", bytes.len())),
        _ => Ok(bytes.into()),
    }
}

/// All pages, or an error.
pub(super) async fn list(remote: &Remote, prefix: &str) -> Result<Vec<ObjectInfo>, StoreError> {
    let mut found = Vec::new();
    let mut from = None;
    loop {
        let page = remote
            .client
            .list_objects_v2()
            .bucket(&remote.bucket)
            .prefix(remote.key(prefix))
            .max_keys(remote.page_names)
            .set_continuation_token(from.clone())
            .send()
            .await
            .map_err(|error| remote.fault(prefix, Operation::Reading, &error))?;
        for object in page.contents.unwrap_or_default() {
            let key = object.key.unwrap_or_default();
            let Some(name) = key.strip_prefix(&remote.prefix) else {
                continue;
            };
            if check_name(name).is_err() {
                continue;
            }
            found.push(ObjectInfo {
                name: name.to_owned(),
                size: object.size.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
                modified_micros: object.last_modified.as_ref().map_or(0, micros),
            });
        }
        let next = page.next_continuation_token;
        match (page.is_truncated.unwrap_or(false), next) {
            (false, _) => break,
            (true, Some(next)) if Some(&next) != from.as_ref() => from = Some(next),
            (true, _) => return Err(remote.io(prefix, "its listing does not continue")),
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

pub(super) fn micros(time: &DateTime) -> i64 {
    time.secs() * 1_000_000 + i64::from(time.subsec_nanos() / 1000)
}
