//! The other services as they are seen from here: asked again and again, so that health can name the part that is ill and is
//! green again by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use super::client::Peer;
use super::paths;
use crate::service::Service;

const LOOK_EVERY: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(1);

/// What the last look at a service showed.
#[derive(Debug, Clone)]
pub(crate) struct PeerReport {
    /// `None`: it answered.
    pub(crate) error: Option<String>,
    pub(crate) answer: Value,
}

/// One line of health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PeerHealth {
    status: &'static str,
    /// Its own word: healthy, degraded, unhealthy.
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A service that is looked at.
#[derive(Debug)]
pub(crate) struct WatchedPeer {
    pub(crate) peer: Peer,
    seen: watch::Sender<PeerReport>,
}

impl WatchedPeer {
    pub(crate) fn new(peer: Peer) -> WatchedPeer {
        let seen = PeerReport {
            error: Some("it was not asked yet".to_owned()),
            answer: Value::Null,
        };
        WatchedPeer {
            peer,
            seen: watch::channel(seen).0,
        }
    }

    pub(crate) fn seen(&self) -> watch::Receiver<PeerReport> {
        self.seen.subscribe()
    }

    pub(crate) async fn look(self: Arc<Self>) {
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let path = match self.peer.service() {
                Service::DataService => paths::STATE,
                _ => paths::HEALTH,
            };
            let seen = match self.peer.get::<Value>(path, TIMEOUT).await {
                Ok(answer) => PeerReport {
                    error: None,
                    answer,
                },
                Err(error) => PeerReport {
                    error: Some(error.to_string()),
                    answer: Value::Null,
                },
            };
            self.note(seen);
        }
    }

    fn note(&self, seen: PeerReport) {
        let name = self.peer.name();
        let was_up = self.seen.borrow().error.is_none();
        match (&seen.error, was_up) {
            (Some(error), true) => tracing::warn!(service = name, %error, "a service is away"),
            (None, false) => tracing::info!(service = name, "a service is there"),
            _ => {}
        }
        metrics::gauge!("bre_service_up", "service" => name).set(u32::from(seen.error.is_none()));
        self.seen.send_replace(seen);
    }

    fn health(&self) -> PeerHealth {
        let seen = self.seen.borrow();
        PeerHealth {
            status: if seen.error.is_none() { "up" } else { "down" },
            health: seen.answer["status"].as_str().map(ToOwned::to_owned),
            reason: seen.error.clone(),
        }
    }
}

/// All that this process depends on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peers(Arc<[Arc<WatchedPeer>]>);

impl Peers {
    pub(crate) fn new(watched: Vec<Arc<WatchedPeer>>) -> Peers {
        Peers(watched.into())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<WatchedPeer>> {
        self.0.iter()
    }

    /// For health: by name, empty when everything runs in this process.
    pub(crate) fn health(&self) -> BTreeMap<&'static str, PeerHealth> {
        self.iter()
            .map(|watched| (watched.peer.name(), watched.health()))
            .collect()
    }

    pub(crate) fn are_up(&self) -> bool {
        self.iter()
            .all(|watched| watched.seen.borrow().error.is_none())
    }
}
