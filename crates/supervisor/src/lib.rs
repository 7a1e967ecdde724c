//! What keeps an engine running until it is told to stop: `up` runs everything on one machine, `serve` some of the
//! services on a database that others run. Both protect their log in the same way: [`protection`]. Neither reads a
//! command line nor prints: a callback is told when they are ready.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod leftovers;
mod listener;
mod protection;
mod reachable;
mod reload;
pub mod serve;
pub mod up;
