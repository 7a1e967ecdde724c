//! Limits shared by several gateways: the windows are kept in Redis, by Redis' clock. Like quotes, requests that arrive while Redis is
//! being asked wait together and are asked for at once, so that every request is counted exactly and few wait for a round trip of
//! their own. Without Redis each gateway counts for itself, and says so.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::cache::{RedisSettings, Trouble, client};
use crate::domain::limits::{Scope, Verdict};

/// A request waits for Redis no longer than this; then it is counted here.
const TIMEOUT: Duration = Duration::from_millis(250);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How often an idle connection is tried.
const CHECK_EVERY: Duration = Duration::from_secs(5);
const WAITING_MAX: usize = 16 * 1024;
const TOGETHER_MAX: usize = 1024;

/// `KEYS[1]`: the key's windows. `ARGV`: how many are asked for, the limit. Answers: used before, granted now, seconds to the next
/// window. A window outlives its minute, so that a clock that steps back finds it.
const SCRIPT: &str = r"
local time = redis.call('TIME')
local seconds = tonumber(time[1])
local window = KEYS[1] .. ':' .. math.floor(seconds / 60)
local used = tonumber(redis.call('GET', window) or '0')
local granted = math.max(0, math.min(tonumber(ARGV[1]), tonumber(ARGV[2]) - used))
if granted > 0 then
  redis.call('INCRBY', window, granted)
  redis.call('EXPIRE', window, 180)
end
return {used, granted, 60 - seconds % 60}
";

#[derive(Debug)]
struct Ask {
    key_id: Arc<str>,
    limit: u32,
    answer: oneshot::Sender<Verdict>,
}

#[derive(Debug)]
pub(crate) struct SharedLimits {
    asks: mpsc::Sender<Ask>,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    shared: AtomicBool,
    /// Why not.
    trouble: ArcSwapOption<String>,
}

impl State {
    fn counts(&self) {
        self.trouble.store(None);
        self.shared.store(true, Ordering::Relaxed);
    }

    fn fails(&self, trouble: &Trouble) {
        let word = match trouble {
            Trouble::Away => "Redis does not answer",
            Trouble::Refused(word) => word,
        };
        let was_shared = self.shared.swap(false, Ordering::Relaxed);
        let before = self.trouble.swap(Some(Arc::new(word.to_owned())));
        if was_shared || before.is_none_or(|before| *before != word) {
            tracing::warn!(
                word,
                "each gateway holds its own rate limits: Redis does not count"
            );
        }
    }
}

impl Drop for SharedLimits {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SharedLimits {
    pub(crate) fn start(settings: RedisSettings) -> SharedLimits {
        let (asks, waiting) = mpsc::channel(WAITING_MAX);
        let state = Arc::<State>::default();
        let task = tokio::spawn(run(settings, waiting, Arc::clone(&state)));
        SharedLimits { asks, state, task }
    }

    /// Whether the windows are Redis' right now.
    pub(crate) fn is_shared(&self) -> bool {
        self.state.shared.load(Ordering::Relaxed)
    }

    /// Why they are not: in Redis' own words, where it has any.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.state.trouble.load().as_deref().cloned()
    }

    /// `None`: Redis gave no answer; count here.
    pub(crate) async fn take(&self, key_id: &Arc<str>, limit: u32) -> Option<Verdict> {
        if !self.is_shared() {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        let ask = Ask {
            key_id: Arc::clone(key_id),
            limit,
            answer,
        };
        self.asks.try_send(ask).ok()?;
        answered.await.ok()
    }
}

/// Connects, serves, and connects again. An ask that is dropped is counted by its gateway.
async fn run(settings: RedisSettings, mut waiting: mpsc::Receiver<Ask>, state: Arc<State>) {
    loop {
        let connecting = async {
            let client = client(&settings).await.map_err(Trouble::Refused)?;
            let connected = client.get_multiplexed_async_connection().await;
            connected.map_err(|error| Trouble::of(&error))
        };
        let trouble = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(mut connection)) => serve(&mut connection, &mut waiting, &state).await,
            Ok(Err(trouble)) => Some(trouble),
            Err(_) => Some(Trouble::Away),
        };
        if let Some(trouble) = trouble {
            state.fails(&trouble);
        }
        if waiting.is_closed() {
            return;
        }
        while waiting.try_recv().is_ok() {}
        tokio::time::sleep(RETRY_EVERY).await;
    }
}

/// Until Redis does not count any more; `None`: nobody asks. They are shared from the first time on that it has counted: one that
/// takes connections and refuses to count would otherwise look shared between two requests.
async fn serve(
    connection: &mut MultiplexedConnection,
    waiting: &mut mpsc::Receiver<Ask>,
    state: &State,
) -> Option<Trouble> {
    let mut together = Vec::new();
    loop {
        let asked = tokio::time::timeout(TIMEOUT, ask(connection, &mut together));
        match asked.await {
            Ok(Ok(())) => state.counts(),
            Ok(Err(error)) => return Some(Trouble::of(&error)),
            Err(_) => return Some(Trouble::Away),
        }
        let received = waiting.recv_many(&mut together, TOGETHER_MAX);
        match tokio::time::timeout(CHECK_EVERY, received).await {
            Ok(0) => return None,
            Ok(_) => {}
            // Nothing to ask: still, it is wanted that it could.
            Err(_) => together.clear(),
        }
    }
}

async fn ask(
    connection: &mut MultiplexedConnection,
    together: &mut Vec<Ask>,
) -> redis::RedisResult<()> {
    let mut by_key: HashMap<Arc<str>, Vec<Ask>> = HashMap::new();
    for ask in together.drain(..) {
        by_key.entry(Arc::clone(&ask.key_id)).or_default().push(ask);
    }
    let mut pipe = redis::pipe();
    // With nothing to ask for a count of nothing in particular: only what writes shows that it may.
    if by_key.is_empty() {
        pipe.cmd("EVAL")
            .arg(SCRIPT)
            .arg(1)
            .arg("bre:1:limit:{probe}")
            .arg(1)
            .arg(u32::MAX)
            .ignore();
    }
    let groups: Vec<(Arc<str>, Vec<Ask>)> = by_key.into_iter().collect();
    for (key_id, asks) in &groups {
        let limit = asks.first().map_or(0, |ask| ask.limit);
        // The braces keep a key's windows on one node of a cluster.
        pipe.cmd("EVAL")
            .arg(SCRIPT)
            .arg(1)
            .arg(format!("bre:1:limit:{{{key_id}}}"))
            .arg(asks.len())
            .arg(limit);
    }
    let counted: Vec<(u32, u32, u64)> = pipe.query_async(connection).await?;
    for ((_, asks), (used, granted, reset_seconds)) in groups.into_iter().zip(counted) {
        for (number, ask) in (1..).zip(asks) {
            let _ = ask.answer.send(Verdict {
                allowed: number <= granted,
                limit: ask.limit,
                remaining: ask.limit.saturating_sub(used + number.min(granted)),
                reset_seconds,
                scope: Scope::Shared,
            });
        }
    }
    Ok(())
}
