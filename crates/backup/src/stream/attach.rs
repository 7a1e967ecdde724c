//! Before the first byte: which cluster, which timeline, from where on.

use super::StreamerConfig;
use super::state::SharedState;
use crate::database::{WalStatus, slot_status};
use crate::{BackupError, Result, random_suffix};
use postgres_physical::lsn::Lsn;
use postgres_physical::replication::{
    Connection, SQLSTATE_DUPLICATE, SQLSTATE_WAL_REMOVED, SystemIdentity, WalStream,
};
use postgres_physical::timeline::History;
use postgres_physical::wire::WireError;
use repository::{
    Repository,
    wal::{Hole, Inventory, WalWriter},
};

/// A stream that flows and a writer that waits at the same position.
pub(super) struct Attachment {
    pub(super) stream: WalStream,
    pub(super) writer: WalWriter,
    pub(super) segment_bytes: u64,
    pub(super) start: Lsn,
    /// What earlier streams made durable; never less is confirmed.
    pub(super) durable: Lsn,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Beginning {
    timeline: u32,
    /// The start of a segment: a segment is sealed by the writer that saw all of it.
    start: Lsn,
    durable: Lsn,
}

pub(super) fn attach(config: &StreamerConfig, shared: &SharedState) -> Result<Attachment> {
    let repository = Repository::open(std::sync::Arc::clone(&config.store))?;
    let mut connection = Connection::connect(&config.connect)?;
    let identity = connection.identify_system()?;
    let segment_bytes = connection.wal_segment_bytes()?;
    repository.bind_cluster(identity.system_identifier, "the stream of WAL")?;
    let streamer_id = random_suffix();
    let ancestry = ancestry(&mut connection, &repository, config, identity.timeline)?;
    let slot = ensure_slot(config, &mut connection)?;
    let inventory = repository::wal::wal_inventory_to_go_on(&repository)?;
    let begin = choose(&inventory, &ancestry, identity, slot, segment_bytes)?;
    let begin = begin_or_leave_a_hole(
        config,
        &repository,
        begin,
        identity,
        segment_bytes,
        &streamer_id,
    )?;

    let stream = connection.start_streaming(Some(&config.slot), begin.start, begin.timeline)?;
    let (id, public) = (identity.system_identifier, &config.public);
    let writer = WalWriter::new(
        &repository,
        public,
        id,
        begin.timeline,
        segment_bytes,
        &streamer_id,
        begin.start.0,
    )?;
    let hole = open_hole(&repository, &ancestry)?;
    let (timeline, start, durable) = (begin.timeline, begin.start, begin.durable);
    tracing::info!(timeline, %start, %durable, "the stream of WAL is attached");
    shared.update(|state| {
        state.attached = true;
        state.attachments += 1;
        state.system_identifier = Some(id);
        (state.timeline, state.segment_bytes) = (begin.timeline, segment_bytes);
        state.durable_lsn = begin.durable.0;
        state.received_lsn = begin.durable.0;
        state.server_lsn = identity.lsn.0;
        (state.error, state.side, state.detached_at_micros) = (None, None, None);
        state.needs_full_backup = hole.is_some();
        state.hole = hole;
    });
    Ok(Attachment {
        stream,
        writer,
        segment_bytes,
        start: begin.start,
        durable: begin.durable,
    })
}

/// The server's timeline and those it descends from, newest first, each with the point where it was left. Their
/// histories are stored before any of their WAL.
fn ancestry(
    connection: &mut Connection,
    repository: &Repository,
    config: &StreamerConfig,
    current: u32,
) -> Result<Vec<(u32, Option<Lsn>)>> {
    let mut ancestry = vec![(current, None)];
    if current == 1 {
        return Ok(ancestry);
    }
    let text = connection.timeline_history(current)?;
    let history = History::parse(&text).map_err(|error| BackupError::Setting(error.to_string()))?;
    for switch in history.switches.iter().rev() {
        ancestry.push((switch.parent, Some(switch.switch)));
        if switch.parent == 1 {
            continue;
        }
        match connection.timeline_history(switch.parent) {
            Ok(text) => repository::timelines::put_history(
                repository,
                &config.public,
                switch.parent,
                text.as_bytes(),
            )?,
            // An ancestor's own file may be long gone; the newest one tells all that is needed.
            Err(error) if error.sqlstate().is_some() => {
                tracing::debug!(%error, timeline = switch.parent, "no history file")
            }
            Err(error) => return Err(error.into()),
        }
    }
    repository::timelines::put_history(repository, &config.public, current, text.as_bytes())?;
    Ok(ancestry)
}

/// The position from which the server keeps WAL for us. A slot that lost its WAL is replaced.
fn ensure_slot(config: &StreamerConfig, connection: &mut Connection) -> Result<Lsn> {
    // Best effort: a role that may only replicate cannot ask, and the protocol tells most of it.
    let status = slot_status(
        &config.connect.clone().with_database("postgres"),
        &config.slot,
    )
    .ok()
    .flatten();
    let mut position = connection.read_slot(&config.slot)?;
    let useless = |lsn: Option<Lsn>| {
        lsn.is_none()
            || status
                .as_ref()
                .is_some_and(|s| s.wal_status == WalStatus::Lost)
    };
    if position.is_some_and(|position| useless(position.restart_lsn)) {
        connection.drop_slot(&config.slot, true)?;
        position = None;
    }
    if position.is_none() {
        match connection.create_physical_slot(&config.slot) {
            Err(error) if error.sqlstate() != Some(SQLSTATE_DUPLICATE) => return Err(error.into()),
            _ => position = connection.read_slot(&config.slot)?,
        }
    }
    let missing = || {
        BackupError::Setting(format!(
            "the slot {} keeps no WAL; drop it and let it be made anew",
            config.slot
        ))
    };
    position
        .and_then(|position| position.restart_lsn)
        .ok_or_else(missing)
}

fn choose(
    inventory: &Inventory,
    ancestry: &[(u32, Option<Lsn>)],
    identity: SystemIdentity,
    slot: Lsn,
    segment_bytes: u64,
) -> Result<Beginning> {
    let durable_on = |timeline: u32| {
        inventory
            .timelines
            .get(&timeline)
            .and_then(|wal| wal.end())
            .map(Lsn)
    };
    for (index, (timeline, left_at)) in ancestry.iter().enumerate() {
        let Some(durable) = durable_on(*timeline) else {
            continue;
        };
        match left_at {
            None if durable > identity.lsn => {
                return Err(BackupError::SetBack {
                    timeline: *timeline,
                    server: identity.lsn,
                    repository: durable,
                });
            }
            Some(left_at) if durable >= *left_at => {
                // All of this timeline is here; the one after it begins in the segment where this one was left.
                let next = ancestry[index - 1].0;
                let start = left_at.segment_start(segment_bytes);
                return Ok(Beginning {
                    timeline: next,
                    start,
                    durable: *left_at,
                });
            }
            _ => {
                return Ok(Beginning {
                    timeline: *timeline,
                    start: durable.segment_start(segment_bytes),
                    durable,
                });
            }
        }
    }
    // The first WAL of this cluster in the repository.
    let branch = ancestry
        .get(1)
        .and_then(|(_, left_at)| *left_at)
        .unwrap_or_default();
    let start = slot.max(branch).segment_start(segment_bytes);
    Ok(Beginning {
        timeline: identity.timeline,
        start,
        durable: start,
    })
}

/// Asks the server for the first bytes. When they are gone, that is put on record and the stream begins with what the
/// server still keeps.
fn begin_or_leave_a_hole(
    config: &StreamerConfig,
    repository: &Repository,
    begin: Beginning,
    identity: SystemIdentity,
    segment_bytes: u64,
    streamer_id: &str,
) -> Result<Beginning> {
    if begin.start >= identity.lsn {
        // Nothing was written there yet.
        return Ok(begin);
    }
    match probe(config, begin) {
        Ok(()) => return Ok(begin),
        Err(error) if error.sqlstate() == Some(SQLSTATE_WAL_REMOVED) => {}
        Err(error) => return Err(error.into()),
    }
    let mut connection = Connection::connect(&config.connect)?;
    connection.drop_slot(&config.slot, true)?;
    connection.create_physical_slot(&config.slot)?;
    let kept = connection
        .read_slot(&config.slot)?
        .and_then(|slot| slot.restart_lsn)
        .unwrap_or(identity.lsn);
    let start = kept.segment_start(segment_bytes);
    let begin_again = Beginning {
        timeline: identity.timeline,
        start,
        durable: start,
    };
    if start > begin.durable {
        let reason = "the server had removed this WAL before the repository could take it";
        tracing::error!(timeline = begin.timeline, from = %begin.durable, to = %start, reason, "a hole in the WAL");
        repository::wal::record_hole(
            repository,
            begin.timeline,
            begin.durable.0,
            start.0,
            streamer_id,
            reason,
        )?;
    }
    Ok(begin_again)
}

/// A short stream of its own: the server reports missing WAL only once it reads the file.
fn probe(config: &StreamerConfig, begin: Beginning) -> Result<(), WireError> {
    let connection =
        Connection::connect(&config.connect.clone().with_application_name("bre-probe"))?;
    let mut stream = connection.start_streaming(None, begin.start, begin.timeline)?;
    let timeout = config.connect.timeout;
    match stream.next_event(timeout) {
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The newest hole on the way to the server's present that no backup makes up for.
fn open_hole(repository: &Repository, ancestry: &[(u32, Option<Lsn>)]) -> Result<Option<Hole>> {
    let inventory = repository::wal::wal_inventory(repository)?;
    let mut holes = holes_on_the_way(&inventory, ancestry);
    if holes.is_empty() {
        return Ok(None);
    }
    let backups = repository::backup::catalogue(repository)?.backups;
    holes.retain(|hole| !hole.is_made_up_for(&backups));
    Ok(holes.into_iter().max_by_key(|hole| hole.end))
}

/// A hole behind the point where a timeline was left is on another way.
fn holes_on_the_way(inventory: &Inventory, ancestry: &[(u32, Option<Lsn>)]) -> Vec<Hole> {
    ancestry
        .iter()
        .filter_map(|(timeline, left_at)| {
            let holes = &inventory.timelines.get(timeline)?.holes;
            Some(
                holes
                    .iter()
                    .filter(move |hole| left_at.is_none_or(|left_at| hole.start < left_at.0)),
            )
        })
        .flatten()
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use repository::wal::{Interval, TimelineWal};

    const SEGMENT: u64 = 0x100;

    fn check(
        durable: &[(u32, u64)],
        ancestry: &[(u32, Option<Lsn>)],
        server: u64,
        expected: Option<(u32, u64, u64)>,
    ) {
        let mut inventory = Inventory::default();
        for (timeline, end) in durable {
            let interval = Interval {
                start: 0,
                end: *end,
                end_time_micros: 0,
            };
            inventory.timelines.insert(
                *timeline,
                TimelineWal {
                    intervals: vec![interval],
                    ..TimelineWal::default()
                },
            );
        }
        let identity = SystemIdentity {
            system_identifier: 1,
            timeline: ancestry[0].0,
            lsn: Lsn(server),
        };
        let chosen = choose(&inventory, ancestry, identity, Lsn(0x420), SEGMENT).ok();
        assert_eq!(
            chosen.map(|b| (b.timeline, b.start.0, b.durable.0)),
            expected,
            "{durable:?} {ancestry:?}"
        );
    }

    #[test]
    fn where_a_stream_begins() {
        // Nothing held: where the slot keeps.
        check(&[], &[(1, None)], 0x500, Some((1, 0x400, 0x400)));
        check(
            &[],
            &[(2, None), (1, Some(Lsn(0x610)))],
            0x700,
            Some((2, 0x600, 0x600)),
        );
        // Goes on where the repository ends, from the segment's start.
        check(&[(1, 0x350)], &[(1, None)], 0x500, Some((1, 0x300, 0x350)));
        // The old timeline first, as far as it goes.
        check(
            &[(1, 0x350)],
            &[(2, None), (1, Some(Lsn(0x410)))],
            0x500,
            Some((1, 0x300, 0x350)),
        );
        // The old one is complete (or longer than where it was left).
        check(
            &[(1, 0x410)],
            &[(2, None), (1, Some(Lsn(0x410)))],
            0x500,
            Some((2, 0x400, 0x410)),
        );
        check(
            &[(1, 0x499)],
            &[(2, None), (1, Some(Lsn(0x410)))],
            0x500,
            Some((2, 0x400, 0x410)),
        );
        check(
            &[(1, 0x499), (2, 0x444)],
            &[(2, None), (1, Some(Lsn(0x410)))],
            0x500,
            Some((2, 0x400, 0x444)),
        );
        // A timeline that is no ancestor does not count.
        check(
            &[(1, 0x410), (2, 0x900)],
            &[(3, None), (1, Some(Lsn(0x410)))],
            0x500,
            Some((3, 0x400, 0x410)),
        );
        // The server is behind what the repository holds of the same timeline.
        check(&[(1, 0x600)], &[(1, None)], 0x500, None);
    }

    #[test]
    fn a_hole_on_an_abandoned_branch_asks_for_nothing() {
        let mut inventory = Inventory::default();
        let hole = |start, end| repository::wal::Hole {
            timeline: 1,
            start,
            end,
            reason: "test".to_owned(),
            recorded_at_micros: 0,
        };
        let wal = TimelineWal {
            holes: vec![hole(0x100, 0x200), hole(0x800, 0x900)],
            ..TimelineWal::default()
        };
        inventory.timelines.insert(1, wal);
        let ends = |ancestry: &[(u32, Option<Lsn>)]| -> Vec<u64> {
            let holes = holes_on_the_way(&inventory, ancestry);
            holes.iter().map(|hole| hole.end).collect()
        };
        assert_eq!(ends(&[(1, None)]), [0x200, 0x900]);
        assert_eq!(ends(&[(2, None), (1, Some(Lsn(0x500)))]), [0x200]);
        assert!(ends(&[(2, None), (1, Some(Lsn(0x80)))]).is_empty());
    }
}
