//! `bre audit signing-key`: which keys vouch for the log, a new one that the old one vouches for, the end of one.

use std::{process::ExitCode, time::Duration};

use audit::{KeyId, KeyStatement, SignedHead, VerifyingKey};
use host::{
    control::Control,
    instance::Instance,
    keys::{signing, statements, trusted, verifying_key},
    log::LOG,
    record::Event,
    stored_heads,
};
use serde::Serialize;
use terminal::{self, KeyValue, instant, time};

use crate::{cli::SigningKeyCommand, error::Error};
use operations::{audit_statements::NAME, repository_handle::RepositoryHandle};

/// The engine looks at its keys once a second.
const TAKEN_TIMEOUT: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn run(
    instance: &Instance,
    json: bool,
    command: SigningKeyCommand,
) -> Result<ExitCode, Error> {
    match command {
        SigningKeyCommand::Show(args) => show(&RepositoryHandle::at(instance, &args)?, json)?,
        SigningKeyCommand::Rotate {
            revoke_old,
            from,
            repository,
        } => {
            let opened = RepositoryHandle::at(instance, &repository)?;
            let ends = revoke_old.then_some(from);
            rotate(instance, &opened, json, ends).await?;
        }
        SigningKeyCommand::Revoke {
            id,
            from,
            repository,
        } => {
            let opened = RepositoryHandle::at(instance, &repository)?;
            revoke(instance, &opened, json, &id, from).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Serialize)]
struct SigningKeyStatus {
    key_id: String,
    trusted: Vec<ShownKey>,
    statements: Vec<ShownStatement>,
}

#[derive(Debug, Serialize)]
struct ShownKey {
    key_id: String,
    public: String,
    /// From this epoch and position on its signatures are refused.
    revoked_from: Option<(u32, u64)>,
}

#[derive(Debug, Serialize)]
struct ShownStatement {
    said: String,
    at: String,
}

fn show(opened: &RepositoryHandle, json: bool) -> Result<(), Error> {
    let shown = SigningKeyStatus {
        key_id: verifying_key(&opened.keys)?.key_id().to_string(),
        trusted: trusted(&opened.keys, &opened.repository)?
            .iter()
            .map(|key| ShownKey {
                key_id: key.key_id().to_string(),
                public: audit::hex::encode(key.as_bytes()),
                revoked_from: key.revoked_from(),
            })
            .collect(),
        statements: statements::published(&opened.repository)?
            .iter()
            .map(|statement| ShownStatement {
                said: statement.to_string(),
                at: time(statement.at_micros),
            })
            .collect(),
    };
    terminal::result(json, &shown, || {
        let mut facts = KeyValue::new();
        facts.row("signs now", &shown.key_id);
        for key in &shown.trusted {
            let until = key
                .revoked_from
                .map_or_else(String::new, |(epoch, position)| {
                    format!(", revoked from epoch {epoch}, position {position} on")
                });
            facts.row("trusted", format!("{}{until}", key.key_id));
        }
        for statement in &shown.statements {
            facts.row(
                "said",
                format!("{} at {}", statement.said, instant(&statement.at)),
            );
        }
        facts.text()
    });
    Ok(())
}

#[derive(Debug, Serialize)]
struct KeyRotation {
    key_id: String,
    old_key_id: String,
    resumed: bool,
    /// From which epoch and position on the old key counts no more; null: it counts for ever.
    old_revoked_from: Option<(u32, u64)>,
}

/// `ends`: the old key ends as well, from the given position on or from the first that it has not signed.
async fn rotate(
    instance: &Instance,
    opened: &RepositoryHandle,
    json: bool,
    ends: Option<Option<u64>>,
) -> Result<(), Error> {
    // What is said of keys is on record, so there has to be somebody who records.
    let control = Control::to(instance)?;
    if let Some(Some(position)) = ends {
        let now = tip(&control).await?;
        let from = place(instance, stored_heads::place(&now), position).await?;
        no_opening_behind(instance, &verifying_key(&opened.keys)?, from).await?;
    }
    let rotation = signing::prepare(&opened.keys, &opened.repository, now())?;
    let old_id = rotation.old.key_id();
    record(instance, &rotation.statement, old_id).await?;
    signing::exchange(&opened.keys, &rotation)?;
    let (epoch, size) = taken(&control, rotation.new.key_id()).await?;
    let old_revoked_from = match ends {
        None => None,
        Some(from) => {
            // What the old key signed, it signed for a log that was no longer than this.
            let from = match from {
                None => (epoch, size + 1),
                Some(position) => place(instance, (epoch, size), position).await?,
            };
            no_opening_behind(instance, &rotation.old, from).await?;
            end(instance, opened, &rotation.old, from).await?;
            Some(from)
        }
    };
    let rotated = KeyRotation {
        key_id: rotation.new.key_id().to_string(),
        old_key_id: old_id.to_string(),
        resumed: rotation.resumed,
        old_revoked_from,
    };
    terminal::result(json, &rotated, || {
        let after = match rotated.old_revoked_from {
            Some((epoch, position)) => {
                format!("the old key counts no more from epoch {epoch}, position {position} on\n")
            }
            None => format!(
                "the old key still counts; if it may be in other hands: bre audit signing-key revoke {} --from POSITION\n",
                rotated.old_key_id
            ),
        };
        format!(
            "the log is signed by key {} now, which key {} vouches for; both said so in the log and in the repository\n\
             give {} to whoever verifies\n{after}",
            rotated.key_id,
            rotated.old_key_id,
            opened.keys.join("audit_signing.pub").display()
        )
    });
    Ok(())
}

/// A position of the log as it is, with its epoch; beyond its end, of the present one.
async fn place(
    instance: &Instance,
    (epoch, size): (u32, u64),
    position: u64,
) -> Result<(u32, u64), Error> {
    if position > size {
        return Ok((epoch, position));
    }
    let database = instance.running()?.database_url;
    let entry = services::entry(&database, LOG, position).await?;
    let found = entry.and_then(|entry| u32::try_from(entry.epoch).ok());
    let missing = || {
        Error::refused(
            "no key was revoked",
            format!("the log has no entry {position}"),
        )
    };
    Ok((found.ok_or_else(missing)?, position))
}

/// Where the running engine's log ends, signed with the key that it has.
async fn tip(control: &Control) -> Result<SignedHead, Error> {
    let head: serde_json::Value = control.get("/internal/audit/head").await?;
    Ok(SignedHead::from_json(head.to_string().as_bytes())?)
}

/// Waits until the running engine signs with it; where its log ended then.
async fn taken(control: &Control, key: KeyId) -> Result<(u32, u64), Error> {
    let asking = async {
        loop {
            if let Ok(head) = tip(control).await
                && head.key_id() == key
            {
                return (head.claimed().epoch, head.claimed().size);
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    let late = || {
        Error::failed(format!(
            "the key was exchanged, and the running engine does not sign with key {key} yet: look at its log, or start it again"
        ))
    };
    tokio::time::timeout(TAKEN_TIMEOUT, asking)
        .await
        .map_err(|_| late())
}

#[derive(Debug, Serialize)]
struct KeyRevocation {
    key_id: String,
    /// Epoch and position.
    from: (u32, u64),
}

async fn revoke(
    instance: &Instance,
    opened: &RepositoryHandle,
    json: bool,
    id: &str,
    from: u64,
) -> Result<(), Error> {
    let control = Control::to(instance)?;
    let refused = |reason: String| Error::refused("no key was revoked", reason);
    let keys = trusted(&opened.keys, &opened.repository)?;
    let key = keys.iter().find(|key| key.key_id().to_string() == id);
    let key = key.ok_or_else(|| {
        refused(format!(
            "no trusted key has the id {id}: bre audit signing-key show"
        ))
    })?;
    if key.is_same(&verifying_key(&opened.keys)?) {
        return Err(refused(
            "it is the key that signs now, and a key does not end itself: bre audit signing-key rotate --revoke-old".to_owned(),
        ));
    }
    let head = tip(&control).await?;
    let end_of_log = (head.claimed().epoch, head.claimed().size);
    let from = place(instance, end_of_log, from).await?;
    no_opening_behind(instance, key, from).await?;
    end(instance, opened, key, from).await?;
    let revoked = KeyRevocation {
        key_id: id.to_owned(),
        from,
    };
    terminal::result(json, &revoked, || {
        format!(
            "key {id} counts no more from epoch {}, position {} on\n",
            revoked.from.0, revoked.from.1
        )
    });
    Ok(())
}

async fn end(
    instance: &Instance,
    opened: &RepositoryHandle,
    key: &VerifyingKey,
    from: (u32, u64),
) -> Result<(), Error> {
    let statement = signing::revoke(&opened.keys, &opened.repository, key, from, now())?;
    record(instance, &statement, key.key_id()).await?;
    vouched(instance, opened).await
}

/// An opening that its key does not vouch for any more would break the chain for ever.
async fn no_opening_behind(
    instance: &Instance,
    key: &VerifyingKey,
    from: (u32, u64),
) -> Result<(), Error> {
    let (database, id) = (instance.running()?.database_url, key.key_id().to_string());
    let Some((epoch, position)) = services::opened_with(&database, LOG, &id, from).await? else {
        return Ok(());
    };
    Err(Error::refused(
        "no key was revoked",
        format!(
            "key {id} opened epoch {epoch} at position {position}, which is not before position {} of epoch {}: the \
             log would not verify any more. Revoke it from a later place (--from {}); if that opening is none of ours, \
             restore the database to before it",
            from.1,
            from.0,
            position + 1
        ),
    ))
}

/// What the ended key signed counts no more: a head by the key that signs now takes over, once the repository holds it.
async fn vouched(instance: &Instance, opened: &RepositoryHandle) -> Result<(), Error> {
    let end = tip(&Control::to(instance)?).await?;
    let end = stored_heads::place(&end);
    let trusted = trusted(&opened.keys, &opened.repository)?;
    let asking = async {
        loop {
            let newest = stored_heads::newest(&opened.repository, &trusted)?;
            if newest.iter().any(|head| stored_heads::place(head) >= end) {
                return Ok::<(), Error>(());
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    match tokio::time::timeout(TAKEN_TIMEOUT, asking).await {
        Ok(asked) => asked,
        Err(_) => Err(Error::failed(format!(
            "the key was ended, and no head that covers position {} is in the repository yet: look at the WAL stream \
             (bre status). Until there is one, nothing vouches for what the ended key signed last",
            end.1
        ))),
    }
}

async fn record(instance: &Instance, statement: &KeyStatement, before: KeyId) -> Result<(), Error> {
    let note = String::from_utf8_lossy(&statement.to_bytes()).into_owned();
    Event::by_person("ConfigurationChanged")
        .with("name", NAME)
        .with("before", before)
        .with("after", note)
        .record(instance)
        .await?;
    Ok(())
}

fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}
