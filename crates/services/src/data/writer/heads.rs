//! Signed heads: what is known of this log outside the database, and the thread of work that adds to it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use audit::{
    Chain, EpochRecord, Head, HeadError, HeadRange, LostHead, SignedHead, SigningKey, VerifyingKey,
};
use tokio::sync::watch;

use crate::domain::known_log::{Claim, KnownLog};
use crate::domain::protection::HeadPublisher;

#[derive(Debug)]
pub(crate) struct HeadSigner {
    /// Replaced when the key is rotated.
    key: Mutex<Arc<SigningKey>>,
    /// Whose signatures count on this log.
    trusted: Mutex<Vec<VerifyingKey>>,
    /// Heads of this log whose signatures were checked, and those signed since.
    verified: Mutex<Vec<Head>>,
    invalid: Option<String>,
    pub(super) known: KnownLog,
    /// By this process.
    claimed: Mutex<Option<Claim>>,
    opened: AtomicBool,
    /// This process opened a log in the place of one that is lost.
    continued: AtomicBool,
    /// What was found damaged. Nothing is signed until a person has looked, or a restore has brought it back.
    damage: watch::Sender<Option<String>>,
    /// Heads that openings of the log name.
    named: Mutex<Vec<(u32, u64)>>,
    /// Heads that they name as missing.
    missing: Mutex<Vec<HeadRange>>,
    offered: watch::Sender<Option<Head>>,
    /// Counts withdrawals: an offer from before the last one is void.
    withdrawals: AtomicU64,
    publisher: Arc<dyn HeadPublisher>,
    pub(super) look_every: Duration,
    /// The newest head that is kept outside the database.
    published: watch::Sender<Option<SignedHead>>,
}

/// How often the repository's progress is asked for while something waits for it.
const ASK_FIRST: Duration = Duration::from_millis(1);
const ASK_LAST: Duration = Duration::from_millis(50);

fn lost(head: &Head) -> LostHead {
    LostHead {
        epoch: head.epoch,
        size: head.size,
        hash: head.last_hash,
    }
}

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

impl HeadSigner {
    pub(crate) fn new(
        log: u16,
        key: Arc<SigningKey>,
        publisher: Arc<dyn HeadPublisher>,
        heads: &[SignedHead],
        keys: &[VerifyingKey],
        look_every: Duration,
    ) -> HeadSigner {
        let known = publisher.known();
        let verified = |heads: &[SignedHead]| {
            let ours = heads.iter().filter(|head| head.claimed().log == log);
            // What a key signed that had ended by then is no evidence, and no attack.
            let counted = ours.filter_map(|head| match head.verify(keys) {
                Err(HeadError::Revoked { .. }) => None,
                verified => Some(verified),
            });
            counted.collect::<Result<Vec<_>, _>>()
        };
        let found = verified(heads).and_then(|published| {
            let mut all = published;
            for anchor in verified(&known.anchors)? {
                if !all.iter().any(|head| lost(head) == lost(&anchor)) {
                    all.push(anchor);
                }
            }
            Ok(all)
        });
        let newest = heads
            .iter()
            .filter(|head| head.claimed().log == log && head.verify(keys).is_ok())
            .max_by_key(|head| (head.claimed().epoch, head.claimed().size));
        let newest = newest.cloned();
        let (verified, invalid) = match found {
            Ok(verified) => (verified, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        HeadSigner {
            key: Mutex::new(key),
            trusted: Mutex::new(keys.to_vec()),
            published: watch::channel(newest).0,
            verified: Mutex::new(verified),
            invalid,
            damage: watch::channel(known.damage.clone()).0,
            known,
            claimed: Mutex::default(),
            opened: AtomicBool::new(false),
            continued: AtomicBool::new(false),
            named: Mutex::default(),
            missing: Mutex::default(),
            offered: watch::channel(None).0,
            withdrawals: AtomicU64::new(0),
            publisher,
            look_every,
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

    /// What was found damaged and nobody has looked at yet.
    pub(crate) fn damage(&self) -> Option<String> {
        self.damage.borrow().clone()
    }

    pub(super) fn watch_damage(&self) -> watch::Receiver<Option<String>> {
        self.damage.subscribe()
    }

    /// From here on nothing is signed. The first thing found counts, also at the next start.
    pub(super) fn note_damage(&self, reason: &str) {
        let is_first = self.damage.send_if_modified(|damage| {
            let is_first = damage.is_none();
            damage.get_or_insert_with(|| reason.to_owned());
            is_first
        });
        self.withdraw();
        if !is_first {
            return;
        }
        tracing::error!(%reason, "the audit log is damaged: nothing is recorded or signed until somebody has looked");
        metrics::gauge!("bre_log_damaged").set(1);
        self.outside("noting the damage", |publisher| {
            publisher.note_damage(Some(reason))
        });
    }

    /// Where this process left the log that is damaged now: its tree continues from there, after a restart too.
    pub(super) fn note_end(&self, end: Option<&Chain>) {
        let head = end.and_then(|end| end.head(crate::domain::time::now_micros(), 0));
        if let Some(head) = head {
            let signed = self.signing_key().sign(&head);
            self.outside("noting the log's end", |publisher| {
                publisher.note_end(&signed)
            });
        }
    }

    /// What the process before this one noted so.
    pub(super) fn left_at(&self) -> Option<Head> {
        let noted = self.known.left_at.as_ref()?;
        noted.verify(&self.trusted()).ok()
    }

    /// A person has looked, or a restore has brought back what was gone.
    pub(super) fn forget_damage(&self) {
        let was = self.damage.send_replace(None);
        if was.is_some() {
            metrics::gauge!("bre_log_damaged").set(0);
            self.outside("forgetting the damage", |publisher| {
                publisher.note_damage(None)
            });
        }
    }

    fn outside(
        &self,
        what: &'static str,
        act: impl FnOnce(&dyn HeadPublisher) -> Result<(), String>,
    ) {
        let act = || act(&*self.publisher);
        // A small file on this host: not worth a thread of its own.
        if let Err(error) = act() {
            tracing::error!(%error, what, "failed: after a restart of the engine it would not be known");
        }
    }

    /// The epoch that was last claimed on this host, by this process or one before.
    pub(super) fn last_claim(&self) -> Option<Claim> {
        let ours = self.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        ours.clone().or_else(|| self.known.claimed.clone())
    }

    /// A person has asked for a log in the place of one that is lost whole. Holds until a log was opened.
    pub(super) fn may_continue(&self) -> bool {
        self.known.continue_log && !self.opened.load(Ordering::SeqCst)
    }

    pub(super) fn note_opened(&self) {
        self.opened.store(true, Ordering::SeqCst);
    }

    pub(super) fn note_continued(&self) {
        self.continued.store(true, Ordering::SeqCst);
    }

    /// Whether this process opened a log in the place of one that is lost: nothing that was entered before is in it.
    pub(crate) fn has_continued(&self) -> bool {
        self.continued.load(Ordering::SeqCst)
    }

    pub(super) fn set_named(&self, openings: &[EpochRecord]) {
        let named = openings.iter().flat_map(|record| &record.old_heads);
        let named = named.map(|head| (head.epoch, head.size)).collect();
        let missing = openings.iter().flat_map(|record| &record.missing_heads);
        *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = missing.copied().collect();
        *self.named.lock().unwrap_or_else(PoisonError::into_inner) = named;
    }

    /// Durable when it returns.
    pub(super) async fn claim(self: &Arc<Self>, claim: Claim) -> Result<(), String> {
        let ours = claim.clone();
        self.elsewhere(move |signer| signer.publisher.claim(&claim))
            .await?;
        *self.claimed.lock().unwrap_or_else(PoisonError::into_inner) = Some(ours);
        Ok(())
    }

    pub(super) async fn missing(self: &Arc<Self>, whole: bool) -> Result<Vec<HeadRange>, String> {
        self.elsewhere(move |signer| signer.publisher.missing(whole))
            .await
    }

    /// In a thread that may wait for a store.
    async fn elsewhere<T: Send + 'static>(
        self: &Arc<Self>,
        act: impl FnOnce(&HeadSigner) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let signer = Arc::clone(self);
        tokio::task::spawn_blocking(move || act(&signer))
            .await
            .unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Looks for heads that have disappeared, and lets go of old ones, until it is ended.
    pub(crate) async fn watch_over(self: Arc<Self>) {
        let mut turns = tokio::time::interval(self.look_every);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // At once there is nothing to see: a start looks by itself.
        turns.tick().await;
        loop {
            turns.tick().await;
            if self.damage().is_some() {
                continue;
            }
            match self.elsewhere(HeadSigner::trust_anew).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, "whose signatures count on the log could not be read; it is tried again");
                }
            }
            match self.elsewhere(HeadSigner::look).await {
                Ok(None) => {}
                Ok(Some(reason)) => {
                    self.note_damage(&reason);
                    continue;
                }
                // The store is away; that it is is told elsewhere.
                Err(error) => {
                    tracing::debug!(%error, "the signed heads could not be looked at");
                    continue;
                }
            }
            let thinned = self.elsewhere(|signer| {
                let named = signer.named.lock().unwrap_or_else(PoisonError::into_inner);
                let named = named.clone();
                signer.publisher.thin(&named)
            });
            if let Err(error) = thinned.await {
                tracing::warn!(%error, "old signed heads were not thinned; it is tried again");
            }
        }
    }

    /// A key may be ended while this runs.
    fn trust_anew(&self) -> Result<(), String> {
        if let Some(trusted) = self.publisher.trusted()? {
            *self.trusted.lock().unwrap_or_else(PoisonError::into_inner) = trusted;
        }
        Ok(())
    }

    fn look(&self) -> Result<Option<String>, String> {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = missing.clone();
        self.publisher.look(&missing)
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
    /// the repository gets there within `timeout`.
    pub(crate) async fn publish_all(
        self: Arc<Self>,
        mut stop: watch::Receiver<bool>,
        timeout: Duration,
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
                durable = self.durable_unless_withdrawn(head.lsn, withdrawals) => if durable {
                    published = (head.epoch, head.size);
                    self.publish(head).await;
                },
                () = told(&mut stop) => break,
            }
        }
        let last = offered.borrow().clone();
        if let Some(head) = last.filter(|head| (head.epoch, head.size) > published)
            && tokio::time::timeout(timeout, self.until_durable(head.lsn))
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

    async fn durable_unless_withdrawn(&self, lsn: u64, withdrawals: u64) -> bool {
        let valid = || self.withdrawals.load(Ordering::SeqCst) == withdrawals;
        while valid() {
            if tokio::time::timeout(ASK_LAST, self.until_durable(lsn))
                .await
                .is_ok()
            {
                return valid();
            }
        }
        false
    }

    /// Returns when the repository holds everything up to there.
    pub(super) async fn until_durable(&self, lsn: u64) {
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
        if self.damage().is_some() {
            return;
        }
        let signer = Arc::clone(self);
        // Known from here on, whether or not the store confirms it: a recovery has to account for it either way.
        self.remember(head.clone());
        // The last one that the repository is known to hold: this one names it.
        let before = self
            .published
            .borrow()
            .as_ref()
            .map(|head| lost(head.claimed()));
        let done = tokio::task::spawn_blocking(move || {
            let key = signer.signing_key();
            let signed = key.sign(&head);
            let signed = match before.filter(|before| *before != lost(&head)) {
                Some(before) => signed.after(before, &key),
                None => signed,
            };
            let done = signer.publisher.publish(&signed);
            if done.is_ok() {
                signer.published.send_replace(Some(signed));
            }
            done
        })
        .await;
        match done {
            Ok(Ok(())) => {
                metrics::counter!("bre_heads_published_total").increment(1);
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "a signed head could not be published; the next one will")
            }
            Err(error) => tracing::error!(%error, "publishing a signed head failed"),
        }
    }
}
