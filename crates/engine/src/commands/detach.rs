//! `bre wal detach`: lets go of a cluster that the engine does not own any more. Without it the slot keeps WAL for
//! ever.

use backup::database::{drop_slot, set_strict, slot_status};
use host::{database::SLOT, instance::Instance};
use postgres_physical::wire::ConnectOptions;
use serde::Serialize;

use crate::{error::Error, question::confirmed};

#[derive(Debug, Serialize)]
struct DetachReport {
    slot: &'static str,
    dropped: bool,
}

pub(crate) fn run(instance: &Instance, json: bool, yes: bool) -> Result<(), Error> {
    let running = instance.running()?;
    let connect = ConnectOptions::from_url(&running.database_url)
        .map_err(|error| Error::failed(error.to_string()))?
        .with_database("postgres");
    let Some(status) = slot_status(&connect, SLOT)? else {
        terminal::result(
            json,
            &DetachReport {
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
        return Err(Error::refused(
            "nothing was changed",
            "give --yes to do it without asking",
        ));
    }
    if status.active {
        return Err(Error::refused(
            "the slot is in use by the running engine",
            "stop the engine first (Ctrl-C), start PostgreSQL alone, then detach",
        ));
    }
    set_strict(&connect, SLOT, false)?;
    let dropped = drop_slot(&connect, SLOT)?;
    terminal::result(
        json,
        &DetachReport {
            slot: SLOT,
            dropped,
        },
        || format!("dropped the slot {SLOT}"),
    );
    Ok(())
}
