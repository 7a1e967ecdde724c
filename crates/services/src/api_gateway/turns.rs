//! Turns for work that keeps a core busy: few at once, and fair among clients.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Whoever has no turn goes before whoever has one; among equals the first to come.
#[derive(Debug)]
pub(super) struct Turns {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    running: HashMap<Arc<str>, usize>,
    waiting: VecDeque<(Arc<str>, oneshot::Sender<Turn>)>,
    /// Works of a client, whether they wait, run or are being sent.
    held: HashMap<Arc<str>, usize>,
}

/// Dropped when the work is done.
#[derive(Debug)]
pub(super) struct Turn {
    client: Arc<str>,
    /// `None` once it was given on.
    turns: Option<Arc<Turns>>,
}

/// One of the few works that a client may have at a time, from its first byte to its last.
#[derive(Debug)]
pub(super) struct ClientSlot {
    client: Arc<str>,
    turns: Arc<Turns>,
}

impl Turns {
    pub(super) fn new(count: usize) -> Arc<Turns> {
        Arc::new(Turns {
            state: Mutex::new(State {
                free: count,
                running: HashMap::new(),
                waiting: VecDeque::new(),
                held: HashMap::new(),
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: this client has that many already.
    pub(super) fn place(self: &Arc<Turns>, client: &Arc<str>, max: usize) -> Option<ClientSlot> {
        let mut state = self.state();
        let held = state.held.entry(Arc::clone(client)).or_default();
        if *held >= max {
            return None;
        }
        *held += 1;
        Some(ClientSlot {
            client: Arc::clone(client),
            turns: Arc::clone(self),
        })
    }

    /// Waits for a turn. Who goes away while waiting leaves nothing behind.
    pub(super) async fn take(self: &Arc<Turns>, client: &Arc<str>) -> Turn {
        let (sender, receiver) = oneshot::channel();
        self.state().waiting.push_back((Arc::clone(client), sender));
        self.give();
        match receiver.await {
            Ok(turn) => turn,
            // Every sender is used before it is dropped.
            Err(_) => std::future::pending().await,
        }
    }

    pub(super) fn in_use(&self) -> usize {
        self.state().running.values().sum()
    }

    fn give(self: &Arc<Turns>) {
        let mut gone = Vec::new();
        let mut state = self.state();
        while state.free > 0 {
            let Some((client, sender)) = state.next() else {
                break;
            };
            let turn = Turn {
                client: Arc::clone(&client),
                turns: Some(Arc::clone(self)),
            };
            match sender.send(turn) {
                Ok(()) => {
                    state.free -= 1;
                    *state.running.entry(client).or_default() += 1;
                }
                Err(mut turn) => {
                    turn.turns = None;
                    gone.push(turn);
                }
            }
        }
    }
}

impl State {
    fn next(&mut self) -> Option<(Arc<str>, oneshot::Sender<Turn>)> {
        let running = |client: &Arc<str>| self.running.get(client).copied().unwrap_or(0);
        let waiting = self.waiting.iter().enumerate();
        let (at, _) = waiting.min_by_key(|(at, (client, _))| (running(client), *at))?;
        self.waiting.remove(at)
    }
}

fn less(counts: &mut HashMap<Arc<str>, usize>, client: &Arc<str>) {
    if let Some(count) = counts.get_mut(client) {
        *count -= 1;
        if *count == 0 {
            counts.remove(client);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(turns) = self.turns.take() else {
            return;
        };
        let mut state = turns.state();
        less(&mut state.running, &self.client);
        state.free += 1;
        drop(state);
        turns.give();
    }
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        less(&mut self.turns.state().held, &self.client);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// A turn that is there at once.
    fn now(taking: &mut (impl Future<Output = Turn> + Unpin)) -> Option<Turn> {
        taking.now_or_never()
    }

    #[test]
    fn nobody_has_a_second_turn_before_everybody_had_a_first() {
        let turns = Turns::new(2);
        let [a, b, c] = ["a", "b", "c"].map(Arc::<str>::from);
        let first = turns.take(&a).now_or_never().unwrap();
        // Nobody else waits: a second one is free.
        let second = turns.take(&a).now_or_never().unwrap();
        let mut third = Box::pin(turns.take(&a));
        assert!(now(&mut third).is_none());
        let mut of_b = Box::pin(turns.take(&b));
        assert!(now(&mut of_b).is_none());
        let mut of_c = Box::pin(turns.take(&c));
        assert!(now(&mut of_c).is_none());
        drop(first);
        // `a` came first, and has one.
        let of_b = now(&mut of_b).unwrap();
        assert!(now(&mut third).is_none());
        drop(second);
        // Now it has none, and came before `c`.
        let third = now(&mut third).unwrap();
        assert!(now(&mut of_c).is_none());
        drop(of_b);
        let of_c = now(&mut of_c).unwrap();
        drop((of_c, third));
        assert_eq!(turns.state().free, 2);
        assert!(turns.state().running.is_empty());
    }

    #[test]
    fn who_goes_away_leaves_no_turn_behind() {
        let turns = Turns::new(1);
        let [a, b] = ["a", "b"].map(Arc::<str>::from);
        let held = turns.take(&a).now_or_never().unwrap();
        let mut waits = Box::pin(turns.take(&b));
        assert!(now(&mut waits).is_none());
        drop(waits);
        let mut given = Box::pin(turns.take(&b));
        assert!(now(&mut given).is_none());
        drop(held);
        // Given, and never looked at.
        drop(given);
        assert!(turns.take(&a).now_or_never().is_some());
        assert_eq!(turns.state().free, 1);
    }

    #[test]
    fn a_client_has_a_few_places_and_gets_them_back() {
        let turns = Turns::new(1);
        let [a, b] = ["a", "b"].map(Arc::<str>::from);
        let first = turns.place(&a, 2);
        let second = turns.place(&a, 2);
        assert!(first.is_some() && second.is_some());
        assert!(turns.place(&a, 2).is_none());
        assert!(turns.place(&b, 2).is_some());
        drop(first);
        assert!(turns.place(&a, 2).is_some());
    }
}
