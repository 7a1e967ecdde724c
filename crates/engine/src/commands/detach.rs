//! `bre detach`: lets go of a cluster that the engine does not own any more. Without it the slot keeps WAL for ever.

use std::io::{IsTerminal, Write};

use backup::database::{drop_slot, set_strict, slot_status};
use postgres_physical::wire::ConnectOptions;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::{error::Error, instance::Instance, terminal, up::protection::SLOT};

#[derive(Debug, Serialize)]
struct Detached {
    slot: &'static str,
    dropped: bool,
}

pub(crate) fn run(instance: &Instance, json: bool, yes: bool) -> Result<(), Error> {
    let running = instance.running()?;
    let connect = ConnectOptions::from_url(&running.database_url)
        .map_err(|error| Error::Failed(error.to_string()))?
        .with_database("postgres");
    let Some(status) = slot_status(&connect, SLOT)? else {
        terminal::result(
            json,
            &Detached {
                slot: SLOT,
                dropped: false,
            },
            || "there is no slot to drop".into(),
        );
        return Ok(());
    };
    let question = format!(
        "This drops the slot {SLOT} ({} bytes of WAL wait in it) and ends strict mode.\n\
         What is not in the repository by then never arrives; backups go on only with a new slot and a new full backup.",
        status.retained_bytes
    );
    if !yes && !confirmed(&question) {
        return Err(Error::Refused {
            what: "nothing was changed",
            reason: "give --yes to do it without asking".into(),
        });
    }
    if status.active {
        return Err(Error::Refused {
            what: "the slot is in use by the running engine",
            reason: "stop the engine first (Ctrl-C), start PostgreSQL alone, then detach".into(),
        });
    }
    set_strict(&connect, SLOT, false)?;
    let dropped = drop_slot(&connect, SLOT)?;
    terminal::result(
        json,
        &Detached {
            slot: SLOT,
            dropped,
        },
        || format!("dropped the slot {SLOT}"),
    );
    Ok(())
}

/// Between two looks whether the question is still open.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Asks a person; where there is none, only shows the question.
pub(crate) fn confirmed(question: &str) -> bool {
    confirmed_unless(question, &|| false)
}

/// The same. `gone`: nobody waits for the answer any more, which is no yes.
pub(super) fn confirmed_unless(question: &str, gone: &dyn Fn() -> bool) -> bool {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        terminal::note(question);
        return false;
    }
    terminal::note(&format!("{question}\nType yes to go on:"));
    let _ = std::io::stderr().flush();
    // A terminal hands over whole lines. A signal that we listen to does not end a read.
    loop {
        let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
        let readable = match poll(&mut ready, Some(&LOOK)) {
            Ok(count) => count > 0,
            Err(rustix::io::Errno::INTR) => false,
            Err(_) => return false,
        };
        if gone() {
            return false;
        }
        if readable {
            break;
        }
    }
    let mut answer = String::new();
    stdin.read_line(&mut answer).is_ok() && answer.trim() == "yes"
}
