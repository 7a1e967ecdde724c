//! Create-only writes. A lost answer is no failure when the bytes arrived; a name that exists already is reported.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    primitives::{ByteStream, DateTime},
    types::{CompletedMultipartUpload, CompletedPart, ObjectLockMode},
};
use repository::{
    StoreError,
    store::{LockMode, MARKER},
};

use super::{
    delete, locks, read,
    remote::{Operation, Remote, code_of, status_of},
};

/// Metadata by which a writer knows its own put again.
pub(super) const TOKEN: &str = "bre-put";
const NEW_ONLY: &str = "*";
const CONFLICTS_MAX: u32 = 4;
const CLAIMS: &str = "probes/claim-";
/// A claim of a writer that was killed stands in nobody's way for longer.
const CLAIM_MICROS: i64 = 600_000_000;

pub(super) fn random_hex() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", random(), random())
}

/// How a put ended.
#[derive(Debug)]
pub(super) enum PutOutcome {
    Ok,
    /// The server says that the name is taken.
    Taken,
    /// Another put of the name was under way.
    Conflict,
    /// It may have arrived.
    Unknown(StoreError),
}

pub(super) async fn put_new(
    remote: &Remote,
    name: &str,
    bytes: Vec<u8>,
    refuses_second: bool,
) -> Result<(), StoreError> {
    let in_parts = bytes.len() > remote.part_bytes;
    if refuses_second {
        put_settled(remote, name, bytes, &random_hex()).await?;
        return locked_whole(remote, name, in_parts).await;
    }
    if read::seen(remote, name).await?.is_some() {
        return Err(taken(name));
    }
    if name == MARKER {
        return put_claimed(remote, name, bytes).await;
    }
    let token = random_hex();
    put_settled(remote, name, bytes, &token).await?;
    first_wins(remote, name, &token).await?;
    locked_whole(remote, name, in_parts).await
}

/// Ceph forgets the lock of what came in parts.
pub(super) async fn locked_whole(
    remote: &Remote,
    name: &str,
    in_parts: bool,
) -> Result<(), StoreError> {
    match remote
        .lock
        .filter(|_| in_parts)
        .and_then(|policy| policy.of(name))
    {
        Some(policy) => locks::lock_now(remote, name, policy).await,
        None => Ok(()),
    }
}

/// Sends until it is known how it ended.
async fn put_settled(
    remote: &Remote,
    name: &str,
    bytes: Vec<u8>,
    token: &str,
) -> Result<(), StoreError> {
    let body = bytes::Bytes::from(bytes);
    for conflicts in 0.. {
        let sent = send(remote, name, &body, token).await;
        match sent {
            PutOutcome::Ok => return Ok(()),
            PutOutcome::Conflict if conflicts < CONFLICTS_MAX => {
                tokio::time::sleep(Duration::from_millis(50 << conflicts)).await;
            }
            // One of our own attempts may have arrived without an answer.
            PutOutcome::Taken | PutOutcome::Conflict => {
                return match read::seen(remote, name).await? {
                    Some(seen) if seen.token.as_deref() == Some(token) => Ok(()),
                    Some(_) => Err(taken(name)),
                    None => Err(remote.away(format!("`{name}` is being written by another"))),
                };
            }
            PutOutcome::Unknown(error) => {
                return match read::seen(remote, name).await {
                    Ok(Some(seen)) if seen.token.as_deref() == Some(token) => Ok(()),
                    _ => Err(error),
                };
            }
        }
    }
    Err(remote.away("it is asked too often"))
}

async fn send(remote: &Remote, name: &str, body: &bytes::Bytes, token: &str) -> PutOutcome {
    if body.len() > remote.part_bytes {
        return send_in_parts(remote, name, body, token).await;
    }
    let mut put = remote
        .client
        .put_object()
        .bucket(&remote.bucket)
        .key(remote.key(name))
        .if_none_match(NEW_ONLY)
        // The server compares it before it says that it has the bytes.
        .set_checksum_algorithm(remote.checksum_for(name))
        .metadata(TOKEN, token)
        .body(ByteStream::from(body.clone()));
    if let Some((mode, until)) = lock_for(remote, name) {
        put = put
            .object_lock_mode(mode)
            .object_lock_retain_until_date(until);
    }
    let sent = put.customize().config_override(Remote::bounded(body.len()));
    match sent.send().await {
        Ok(_) => PutOutcome::Ok,
        Err(error) => ended(remote, name, &error),
    }
}

fn ended<E>(remote: &Remote, name: &str, error: &SdkError<E, HttpResponse>) -> PutOutcome
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    match (status_of(error), code_of(error)) {
        (Some(412), _) => PutOutcome::Taken,
        (Some(409), "ConditionalRequestConflict" | "OperationAborted") => PutOutcome::Conflict,
        _ => PutOutcome::Unknown(remote.fault(name, Operation::Writing, error)),
    }
}

/// Nothing is visible before all parts are there; what was begun and failed is thrown away.
async fn send_in_parts(
    remote: &Remote,
    name: &str,
    body: &bytes::Bytes,
    token: &str,
) -> PutOutcome {
    let id = match begin_parts(remote, name, token).await {
        Ok(id) => id,
        Err(sent) => return sent,
    };
    let sent = send_parts(remote, name, body, &id).await;
    if !matches!(sent, PutOutcome::Ok) {
        abort_parts(remote, name, &id).await;
    }
    sent
}

/// The upload's id.
pub(super) async fn begin_parts(
    remote: &Remote,
    name: &str,
    token: &str,
) -> Result<String, PutOutcome> {
    let mut create = remote
        .client
        .create_multipart_upload()
        .bucket(&remote.bucket)
        .key(remote.key(name))
        .set_checksum_algorithm(remote.checksum_for(name))
        .metadata(TOKEN, token);
    if let Some((mode, until)) = lock_for(remote, name) {
        create = create
            .object_lock_mode(mode)
            .object_lock_retain_until_date(until);
    }
    match create.send().await {
        Ok(created) => Ok(created.upload_id.unwrap_or_default()),
        Err(error) => Err(ended(remote, name, &error)),
    }
}

/// What stays behind in spite of it is the bucket's lifecycle rule's to remove: docs/operations/s3.md.
pub(super) async fn abort_parts(remote: &Remote, name: &str, id: &str) {
    let _ = remote
        .client
        .abort_multipart_upload()
        .bucket(&remote.bucket)
        .key(remote.key(name))
        .upload_id(id)
        .send()
        .await;
}

async fn send_parts(remote: &Remote, name: &str, body: &bytes::Bytes, id: &str) -> PutOutcome {
    let mut parts = Vec::new();
    for (number, from) in (1..).zip((0..body.len()).step_by(remote.part_bytes)) {
        let part = body.slice(from..body.len().min(from + remote.part_bytes));
        match send_part(remote, name, (id, number), part).await {
            Ok(part) => parts.push(part),
            Err(sent) => return sent,
        }
    }
    complete_parts(remote, name, id, (parts, body.len())).await
}

/// `number`: from 1.
pub(super) async fn send_part(
    remote: &Remote,
    name: &str,
    (id, number): (&str, i32),
    part: bytes::Bytes,
) -> Result<CompletedPart, PutOutcome> {
    let sent = remote
        .client
        .upload_part()
        .bucket(&remote.bucket)
        .key(remote.key(name))
        .upload_id(id)
        .part_number(number)
        .set_checksum_algorithm(remote.checksum_for(name))
        .body(ByteStream::from(part.clone()))
        .customize()
        .config_override(Remote::bounded(part.len()))
        .send()
        .await;
    match sent {
        Ok(sent) => Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(sent.e_tag)
            .set_checksum_crc32_c(sent.checksum_crc32_c)
            .build()),
        Err(error) => Err(ended(remote, name, &error)),
    }
}

pub(super) async fn complete_parts(
    remote: &Remote,
    name: &str,
    id: &str,
    (parts, len): (Vec<CompletedPart>, usize),
) -> PutOutcome {
    let all = CompletedMultipartUpload::builder().set_parts(Some(parts));
    let completed = remote
        .client
        .complete_multipart_upload()
        .bucket(&remote.bucket)
        .key(remote.key(name))
        .upload_id(id)
        .if_none_match(NEW_ONLY)
        .multipart_upload(all.build())
        .customize()
        .config_override(Remote::bounded(len))
        .send()
        .await;
    match completed {
        Ok(_) => PutOutcome::Ok,
        Err(error) => ended(remote, name, &error),
    }
}

fn lock_for(remote: &Remote, name: &str) -> Option<(ObjectLockMode, DateTime)> {
    let policy = remote.lock?.of(name)?;
    let mode = match policy.mode {
        LockMode::Compliance => ObjectLockMode::Compliance,
        LockMode::Governance => ObjectLockMode::Governance,
    };
    // A date, not a number of days: servers count days and years in different ways.
    let now = DateTime::from(std::time::SystemTime::now());
    let until = now.secs() + i64::from(policy.days) * 86_400;
    Some((mode, DateTime::from_secs(until)))
}

pub(super) fn taken(name: &str) -> StoreError {
    StoreError::AlreadyExists {
        object: name.to_owned(),
    }
}

/// True when the server refuses to write a name twice.
pub(super) async fn refuses_second(remote: &Remote) -> Result<bool, StoreError> {
    let name = format!("probes/{}", &random_hex()[..16]);
    let probe = bytes::Bytes::new();
    let put = || send(remote, &name, &probe, "probe");
    match put().await {
        PutOutcome::Ok => {}
        // The first attempt may have arrived, and the second met it.
        PutOutcome::Taken => {}
        PutOutcome::Conflict => return Err(remote.away("a probe met another's")),
        PutOutcome::Unknown(error) => return Err(error),
    }
    let refuses = match put().await {
        PutOutcome::Ok => false,
        PutOutcome::Taken => true,
        PutOutcome::Conflict => return Err(remote.away("a probe met another's")),
        PutOutcome::Unknown(error) => return Err(error),
    };
    // One that stays (the bucket locks all by default) is swept as a leftover some day.
    let _ = delete::delete(remote, &name).await;
    Ok(refuses)
}

/// Where the server keeps versions, both of two writers' puts are there, in their order: the first has won, and every
/// other takes its own away again. Without versions only names that cannot collide come here; see 0053.
async fn first_wins(remote: &Remote, name: &str, token: &str) -> Result<(), StoreError> {
    if ["packs/", "wal/", "tail/", "probes/"]
        .iter()
        .any(|own| name.starts_with(own))
    {
        return Ok(());
    }
    let versions = delete::versions(remote, name).await?;
    let (Some(first), true) = (versions.last(), versions.len() > 1) else {
        return Ok(());
    };
    let mine = |seen: &read::ObjectHead| seen.token.as_deref() == Some(token);
    if read::seen_version(remote, name, &first.id)
        .await?
        .is_some_and(|seen| mine(&seen))
    {
        return Ok(());
    }
    for version in &versions {
        if read::seen_version(remote, name, &version.id)
            .await?
            .is_some_and(|seen| mine(&seen))
        {
            delete::delete_version(remote, name, &version.id).await?;
        }
    }
    Err(taken(name))
}

/// The marker makes a repository: two writers that do so at once, on a server that neither refuses nor keeps versions,
/// each put a claim first and go on only where they see no other's. Whoever comes later sees the claim, or the marker.
async fn put_claimed(remote: &Remote, name: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
    let token = random_hex();
    let claim = format!("{CLAIMS}{token}");
    put_settled(remote, &claim, Vec::new(), &token).await?;
    let claims = read::list(remote, CLAIMS).await?;
    let own = claims.iter().find(|other| other.name == claim);
    let now = own.map_or(0, |own| own.modified_micros);
    let alone = claims
        .iter()
        .all(|other| other.name == claim || other.modified_micros < now - CLAIM_MICROS);
    let put = match (alone, read::seen(remote, name).await?) {
        (_, Some(_)) => Err(taken(name)),
        (true, None) => put_settled(remote, name, bytes, &token).await,
        (false, None) => Err(remote.away(
            "somebody else is making a repository there at this moment. Do it again when that is done",
        )),
    };
    let _ = delete::delete(remote, &claim).await;
    put
}
