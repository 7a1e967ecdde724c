//! Cosignatures: each witness is shown the newest checkpoint, in its own time. A silent one is told in health and holds up nobody.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use audit::{
    ANSWER_BYTES_MAX, AddCheckpoint, KeyStatement, Note, NoteKey, NoteSignature, SignedPlace,
};

use super::folder::Resource;
use super::{PublicLog, PublishedTree, WitnessConfig};

/// Longer than a witness across an ocean needs.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The size it told may be overtaken by another writer's; more often it is a fault.
const ROUNDS: usize = 3;

#[derive(Debug)]
pub(crate) struct Witness {
    url: String,
    /// Of ours alone: where it is told of keys.
    keys_url: String,
    key: NoteKey,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of which origin it signed which size last.
    cosigned: Option<(String, u64)>,
    /// The published keys that it was told of last.
    told_keys: Option<Vec<u8>>,
    trouble: Option<String>,
}

impl Witness {
    pub(super) fn new(config: WitnessConfig) -> Witness {
        Witness {
            url: format!("{}/add-checkpoint", config.url.trim_end_matches('/')),
            keys_url: format!("{}/add-key-statements", config.url.trim_end_matches('/')),
            key: config.key,
            state: Mutex::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        self.key.name()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.state().trouble.clone()
    }

    /// What it signed last of that origin, as far as is known here.
    fn known(&self, origin: &str) -> u64 {
        match &self.state().cosigned {
            Some((of, size)) if of == origin => *size,
            _ => 0,
        }
    }
}

enum Answer {
    Signed(Note),
    /// It is at that size.
    At(u64),
}

impl PublicLog {
    /// Shows it checkpoints until it is dropped.
    pub(crate) async fn ask(self: Arc<Self>, witness: Arc<Witness>) {
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let http = match http {
            Ok(http) => http,
            Err(error) => {
                witness.state().trouble = Some(error.to_string());
                return;
            }
        };
        let mut told = self.told.subscribe();
        told.mark_changed();
        while told.changed().await.is_ok() {
            told.borrow_and_update();
            let Some(published) = self.published.load_full() else {
                continue;
            };
            let asked = self.cosign(&http, &witness, &published).await;
            if let Err(why) = &asked {
                tracing::warn!(witness = witness.name(), why, "no cosignature");
                // A witness that comes back is asked again although the log did not grow.
                told.mark_changed();
            }
            witness.state().trouble = asked.err();
            tokio::time::sleep(self.witness_every).await;
        }
    }

    async fn cosign(
        self: &Arc<Self>,
        http: &reqwest::Client,
        witness: &Witness,
        published: &Arc<PublishedTree>,
    ) -> Result<(), String> {
        let origin = published.origin.to_string();
        let mut old = witness.known(&origin);
        if old == published.size() {
            return Ok(());
        }
        self.tell_keys(http, witness).await?;
        for _ in 0..ROUNDS {
            match self.request(http, witness, published, old).await? {
                Answer::Signed(note) => {
                    witness.state().cosigned = Some((origin, published.size()));
                    return self.keep(witness, published, note).await;
                }
                Answer::At(size) if size > published.size() => {
                    return Err(format!(
                        "it has seen {size} entries of {origin}, and this log has published {}: the log was cut, or two engines write it. Run: bre verify audit",
                        published.size()
                    ));
                }
                Answer::At(size) if size == old => {
                    return Err(format!(
                        "it has seen another tree of {size} entries of {origin}: the log was rewritten. Run: bre verify audit"
                    ));
                }
                Answer::At(size) => old = size,
            }
        }
        Err("it names another size each time it is asked".to_owned())
    }

    /// A key that signs now, and that the witness was not started with, counts there when one that it knows vouches for
    /// it. A witness of others knows no such request, and is told by its operator.
    async fn tell_keys(
        self: &Arc<Self>,
        http: &reqwest::Client,
        witness: &Witness,
    ) -> Result<(), String> {
        let log = Arc::clone(self);
        let published = tokio::task::spawn_blocking(move || {
            log.folder
                .read(&Resource::keys(log.log))
                .map(Option::unwrap_or_default)
        });
        let published = published.await.map_err(|error| error.to_string())??;
        let speaks = KeyStatement::parse_all(&published).is_ok_and(|all| !all.is_empty());
        if !speaks || witness.state().told_keys.as_ref() == Some(&published) {
            return Ok(());
        }
        let asked = http
            .post(&witness.keys_url)
            .body(published.clone())
            .send()
            .await;
        // One that cannot be reached is named by the request for a cosignature.
        let Ok(answer) = asked else { return Ok(()) };
        match answer.status().as_u16() {
            409 => {
                return Err(
                    "it knows another key that the old one vouches for: one of the two is a thief's. Look at its \
                     folder `statements` and at bre audit signing-key show"
                        .to_owned(),
                );
            }
            500.. => return Err(format!("{} answers {}", witness.keys_url, answer.status())),
            _ => witness.state().told_keys = Some(published),
        }
        Ok(())
    }

    async fn request(
        self: &Arc<Self>,
        http: &reqwest::Client,
        witness: &Witness,
        published: &Arc<PublishedTree>,
        old: u64,
    ) -> Result<Answer, String> {
        let (log, tree) = (Arc::clone(self), Arc::clone(published));
        let proof = tokio::task::spawn_blocking(move || {
            let proof = log.tree(&tree).consistency(old);
            proof.map_err(|error| error.to_string())
        });
        let proof = proof.await.map_err(|error| error.to_string())??;
        let body = AddCheckpoint {
            old,
            proof,
            checkpoint: published.note.clone(),
        };
        let failed = |error: reqwest::Error| match error.is_timeout() {
            true => format!(
                "{} does not answer within {} s",
                witness.url,
                TIMEOUT.as_secs()
            ),
            false => format!("{}: {error}", witness.url),
        };
        let mut response = http
            .post(&witness.url)
            .body(body.to_bytes())
            .send()
            .await
            .map_err(failed)?;
        let status = response.status().as_u16();
        let mut bytes = Vec::new();
        while let Some(part) = response.chunk().await.map_err(failed)? {
            bytes.extend_from_slice(&part);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(format!("{} answers without an end", witness.url));
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        match status {
            200 => cosigned(witness, published, &text).map(Answer::Signed),
            409 => {
                text.trim_end().parse().map(Answer::At).map_err(|_| {
                    format!("{} answers 409 without the size that it is at", witness.url)
                })
            }
            422 => {
                let said: String = text.trim_end().chars().take(200).collect();
                Err(format!(
                    "it signs nothing: {}. The log was rewritten, or left behind more than it says. Run: bre verify audit",
                    said.escape_debug()
                ))
            }
            _ => {
                let said: String = text.chars().take(200).collect();
                Err(format!(
                    "{} answers {status}: {}",
                    witness.url,
                    said.escape_debug()
                ))
            }
        }
    }

    async fn keep(
        self: &Arc<Self>,
        witness: &Witness,
        published: &Arc<PublishedTree>,
        note: Note,
    ) -> Result<(), String> {
        let (log, key, published) = (Arc::clone(self), witness.key.clone(), Arc::clone(published));
        let kept = tokio::task::spawn_blocking(move || {
            let head = published.head.claimed();
            log.store
                .put_cosigned((head.epoch, head.size), &key, &note.to_bytes())?;
            let shown = Resource::cosigned(log.log, published.origin.began);
            // Others may have signed the same checkpoint.
            let mut all = note;
            let before = log.folder.read(&shown)?;
            if let Some(before) = before.and_then(|bytes| Note::parse(&bytes).ok())
                && before.text() == all.text()
            {
                before
                    .signatures()
                    .iter()
                    .for_each(|line| all.add(line.clone()));
            }
            log.folder.put(&shown, &all.to_bytes())
        });
        kept.await.map_err(|error| error.to_string())?
    }
}

/// The checkpoint with the signatures of this witness that hold.
fn cosigned(witness: &Witness, published: &PublishedTree, lines: &str) -> Result<Note, String> {
    let mut note = published.note.clone();
    for line in lines.lines() {
        let line = NoteSignature::parse(line).map_err(|error| error.to_string())?;
        if line.name() == witness.key.name() && line.id() == witness.key.id() {
            note.add(line);
        }
    }
    match witness.key.signed(&note, SignedPlace::Nowhere) {
        Ok(Some(_)) => Ok(note),
        Ok(None) => {
            Err("its answer is not signed by the key that [audit] witnesses names".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}
