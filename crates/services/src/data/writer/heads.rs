//! Signed heads: what is known of this log outside the database, and the thread of work that adds to it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use audit::{Head, SignedHead, SigningKey, VerifyingKey};
use tokio::sync::watch;

use crate::config::HeadPublisher;

#[derive(Debug)]
pub(crate) struct HeadKeeper {
    /// Replaced when the key is rotated.
    key: Mutex<Arc<SigningKey>>,
    /// Whose signatures count on this log.
    trusted: Mutex<Vec<VerifyingKey>>,
    /// Heads of this log whose signatures were checked, and those signed since.
    verified: Mutex<Vec<Head>>,
    invalid: Option<String>,
    offered: watch::Sender<Option<Head>>,
    /// Counts withdrawals: an offer from before the last one is void.
    withdrawals: AtomicU64,
    publisher: Arc<dyn HeadPublisher>,
    /// The newest head that is kept outside the database.
    published: watch::Sender<Option<SignedHead>>,
}

/// How often the repository's progress is asked for while something waits for it.
const ASK_FIRST: Duration = Duration::from_millis(1);
const ASK_LAST: Duration = Duration::from_millis(50);

async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Heads kept in memory; one a second would fill it otherwise.
const REMEMBERED_MAX: usize = 4096;

/// Drops every second of the older half, but never an epoch's newest.
fn thin(heads: &mut Vec<Head>) {
    let half = heads.len() / 2;
    let keep: Vec<bool> = (0..heads.len())
        .map(|i| {
            i >= half
                || i % 2 == 0
                || heads
                    .get(i + 1)
                    .is_none_or(|next| next.epoch != heads[i].epoch)
        })
        .collect();
    let mut keep = keep.into_iter();
    heads.retain(|_| keep.next().unwrap_or(true));
}

impl HeadKeeper {
    pub(crate) fn new(
        log: u16,
        key: Arc<SigningKey>,
        publisher: Arc<dyn HeadPublisher>,
        heads: &[SignedHead],
        keys: &[VerifyingKey],
    ) -> HeadKeeper {
        let ours = heads.iter().filter(|head| head.claimed().log == log);
        let newest = ours
            .clone()
            .max_by_key(|head| (head.claimed().epoch, head.claimed().size));
        let newest = newest.filter(|head| head.verify(keys).is_ok()).cloned();
        let verified = ours
            .map(|head| head.verify(keys))
            .collect::<Result<Vec<_>, _>>();
        let (verified, invalid) = match verified {
            Ok(verified) => (verified, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        HeadKeeper {
            key: Mutex::new(key),
            trusted: Mutex::new(keys.to_vec()),
            published: watch::channel(newest).0,
            verified: Mutex::new(verified),
            invalid,
            offered: watch::channel(None).0,
            withdrawals: AtomicU64::new(0),
            publisher,
        }
    }

    /// A head among those given that nobody trusted has signed: somebody put it there.
    pub(crate) fn invalid(&self) -> Option<&str> {
        self.invalid.as_deref()
    }

    pub(crate) fn signing_key(&self) -> Arc<SigningKey> {
        Arc::clone(&self.key.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn trusted(&self) -> Vec<VerifyingKey> {
        self.trusted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What is signed from now on is signed by this one; whose signatures count is said anew.
    pub(crate) fn set_signing_key(&self, key: Arc<SigningKey>, trusted: Vec<VerifyingKey>) {
        // Trusted before it signs.
        *self.trusted.lock().unwrap_or_else(PoisonError::into_inner) = trusted;
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = key;
    }

    /// The newest head that is kept outside the database, now and from now on.
    pub(crate) fn published(&self) -> watch::Receiver<Option<SignedHead>> {
        self.published.subscribe()
    }

    pub(crate) fn verified(&self) -> Vec<Head> {
        self.verified
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A newer offer replaces one that nobody took up yet; one that was taken up is published.
    pub(crate) fn offer(&self, head: Head) {
        self.offered.send_replace(Some(head));
    }

    /// What was offered and is not published yet never will be.
    pub(crate) fn withdraw(&self) {
        self.withdrawals.fetch_add(1, Ordering::SeqCst);
        self.offered.send_replace(None);
    }

    /// Publishes heads as the repository catches up with them, until the sender of `stop` says so; then the last one, if
    /// the repository gets there within `patience`.
    pub(crate) async fn publish_all(
        self: Arc<Self>,
        mut stop: watch::Receiver<bool>,
        patience: Duration,
    ) {
        let mut offered = self.offered.subscribe();
        let mut published = (0, 0);
        loop {
            tokio::select! {
                biased;
                changed = offered.changed() => if changed.is_err() { return },
                () = told(&mut stop) => break,
            }
            let withdrawals = self.withdrawals.load(Ordering::SeqCst);
            let head = offered.borrow_and_update().clone();
            let Some(head) = head.filter(|head| (head.epoch, head.size) > published) else {
                continue;
            };
            tokio::select! {
                biased;
                held = self.held_unless_withdrawn(head.lsn, withdrawals) => if held {
                    published = (head.epoch, head.size);
                    self.publish(head).await;
                },
                () = told(&mut stop) => break,
            }
        }
        let last = offered.borrow().clone();
        if let Some(head) = last.filter(|head| (head.epoch, head.size) > published)
            && tokio::time::timeout(patience, self.held(head.lsn))
                .await
                .is_ok()
        {
            self.publish(head).await;
        }
    }

    fn remember(&self, head: Head) {
        let mut heads = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        heads.push(head);
        if heads.len() > REMEMBERED_MAX {
            thin(&mut heads);
        }
    }

    async fn held_unless_withdrawn(&self, lsn: u64, withdrawals: u64) -> bool {
        let valid = || self.withdrawals.load(Ordering::SeqCst) == withdrawals;
        while valid() {
            if tokio::time::timeout(ASK_LAST, self.held(lsn)).await.is_ok() {
                return valid();
            }
        }
        false
    }

    /// Returns when the repository holds everything up to there.
    pub(super) async fn held(&self, lsn: u64) {
        let mut pause = ASK_FIRST;
        while self
            .publisher
            .durable_lsn()
            .is_none_or(|durable| durable < lsn)
        {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(ASK_LAST);
        }
    }

    async fn publish(self: &Arc<Self>, head: Head) {
        let keeper = Arc::clone(self);
        // Known from here on, whether or not the store confirms it: a recovery has to account for it either way.
        self.remember(head.clone());
        let done = tokio::task::spawn_blocking(move || {
            let signed = keeper.signing_key().sign(&head);
            let done = keeper.publisher.publish(&signed);
            if done.is_ok() {
                keeper.published.send_replace(Some(signed));
            }
            done
        })
        .await;
        match done {
            Ok(Ok(())) => metrics::counter!("bre_heads_published_total").increment(1),
            Ok(Err(error)) => {
                tracing::warn!(%error, "a signed head could not be published; the next one will")
            }
            Err(error) => tracing::error!(%error, "publishing a signed head failed"),
        }
    }
}
