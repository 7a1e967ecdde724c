//! What may go, when, and why; and how it goes without ever breaking a restore (repository.md §11).
//!
//! Writers of backups call [`record_references`](crate::references::record_references) just before their manifest. Expiry is [`Survey::read`]
//! → [`plan`] → [`execute`]: reading, a pure decision, and deletions that can be interrupted anywhere and repeated.

mod clock;
mod execute;
mod holds;
mod plan;
mod rules;
mod snapshots;
mod stretches;
mod survey;
mod sweeping;
mod wal_plan;

pub use clock::Clock;
pub use execute::{ExpiryOutcome, execute};
pub(crate) use holds::held_names;
pub use holds::{Hold, HoldSize, clear_hold, holds, set_hold};
pub use plan::{Action, Decision, Plan, Subject, decide, plan};
pub use rules::{DAY_MICROS, HOUR_MICROS, Rules};
pub(crate) use snapshots::{kept_snapshots, packs_of_snapshot};
pub use survey::Survey;
pub(crate) use survey::packs_of;
pub(crate) use wal_plan::{WalDemand, wal_demand};
