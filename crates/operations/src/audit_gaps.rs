//! What is missing of the logs that an audit asks for: the engine's own chain between database and archive, and the
//! chains of the other logs, each gap by its place, its time and its kind.

use std::{collections::VecDeque, ops::ControlFlow};

use audit::Entry;
use backup::audit_log::CursorFile;
use host::{instance::Instance, log::LOG};
use repository::{
    Progress, Repository,
    archive::{ArchivePart, archive_listing, read_archive},
    keys::RecipientPrivate,
    log_stretches::{ChainReport, KnownEnd, LogGap, LogKind, check_chain, log_sources},
};
use serde::Serialize;

use crate::{audit_logs::cursor_file, error::Error};

/// Position and canonical bytes.
pub type PlacedEntry = (u64, Vec<u8>);

/// Entries that one side has and the other has not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EntryGap {
    /// `database`: the chain of quotes and changes.
    pub kind: &'static str,
    pub from_position: u64,
    pub to_position: u64,
    pub from_micros: Option<i64>,
    pub to_micros: Option<i64>,
    pub lacks: Lacks,
    pub what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lacks {
    Archive,
    Database,
    /// Both have the position, with other entries.
    Agreement,
}

/// What the archive and the running database have of the same log.
#[derive(Debug, Default, Serialize)]
pub struct EntryComparison {
    /// Of those that were compared byte by byte.
    pub entries_compared: u64,
    pub archived_to: u64,
    /// None: the database was not asked.
    pub database_to: Option<u64>,
    pub gaps: Vec<EntryGap>,
}

/// Every chain of logs, also one of which the repository holds nothing any more and this host knows.
pub fn log_chains(
    repository: &Repository,
    instance: &Instance,
    progress: &dyn Progress,
) -> Result<Vec<ChainReport>, Error> {
    let mut known = log_sources(repository)?;
    known.extend(known_here(instance)?);
    let now = jiff::Timestamp::now().as_microsecond();
    let check = |(kind, source): (LogKind, String)| -> Result<ChainReport, Error> {
        let file = CursorFile::load(&cursor_file(instance, kind, &source))?;
        let end = file
            .filter(|file| file.place.number > 0)
            .map(|file| KnownEnd {
                number: file.place.number,
                digest: file.place.digest,
            });
        let place = (kind, source.as_str());
        Ok(check_chain(repository, place, end.as_ref(), now, progress)?)
    };
    known.into_iter().map(check).collect()
}

fn known_here(instance: &Instance) -> Result<Vec<(LogKind, String)>, Error> {
    let folder = crate::audit_logs::cursors(instance);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("cannot read", &folder)(error)),
    };
    let mut known = Vec::new();
    for entry in entries {
        let name = entry
            .map_err(Error::file("cannot read", &folder))?
            .file_name();
        let parts = name
            .to_str()
            .and_then(|name| name.strip_suffix(".json")?.split_once('.'));
        let kind = |name: &str| LogKind::ALL.into_iter().find(|kind| kind.name() == name);
        known.extend(parts.and_then(|(name, source)| Some((kind(name)?, source.to_owned()))));
    }
    Ok(known)
}

/// From the newest part back to the first, and where the first of them begins.
pub fn main_chain(all: &[ArchivePart]) -> (VecDeque<usize>, u64) {
    let mut chain = VecDeque::new();
    let places = || all.iter().enumerate();
    let mut next = places().max_by_key(|(_, part)| (part.epoch, part.to));
    let mut begins_at = 1;
    while let Some((at, part)) = next {
        begins_at = part.from;
        chain.push_front(at);
        next =
            places().find(|(_, before)| before.to + 1 == part.from && before.last == part.previous);
    }
    (chain, begins_at)
}

/// The archived entries in the order of their positions, without what a recovery left behind; a part that cannot be
/// read is passed over.
pub fn archived_entries(
    repository: &Repository,
    private: &RecipientPrivate,
    mut each: impl FnMut(u64, Vec<u8>) -> Result<(), Error>,
) -> Result<(), Error> {
    let listed = archive_listing(repository, LOG)?.into_iter();
    let parts: Vec<ArchivePart> = listed.filter_map(|(_, part)| part.ok()).collect();
    for part in lasting(&parts) {
        let Ok(content) = read_archive(repository, private, part) else {
            continue;
        };
        for (position, bytes) in (part.from..).zip(content.entries) {
            each(position, bytes)?;
        }
    }
    Ok(())
}

/// Those that no other part replaces: what a recovery left behind has other entries in its place.
fn lasting(parts: &[ArchivePart]) -> Vec<&ArchivePart> {
    let (chain, _) = main_chain(parts);
    let in_chain: Vec<&ArchivePart> = chain.iter().map(|at| &parts[*at]).collect();
    let is_replaced = |part: &ArchivePart| {
        let overlaps = |it: &&ArchivePart| it.from <= part.to && part.from <= it.to;
        !in_chain.contains(&part) && in_chain.iter().any(overlaps)
    };
    let mut lasting: Vec<&ArchivePart> = parts.iter().filter(|part| !is_replaced(part)).collect();
    lasting.sort_by_key(|part| (part.from, part.to));
    lasting
}

/// Positions below the newest that no part of the archive holds; needs no key.
pub fn archive_holes(repository: &Repository) -> Result<Vec<(u64, u64)>, Error> {
    let listed = archive_listing(repository, LOG)?.into_iter();
    let mut ranges: Vec<(u64, u64)> = listed
        .filter_map(|(_, part)| part.ok())
        .map(|part| (part.from, part.to))
        .collect();
    ranges.sort_unstable();
    let (mut holes, mut next) = (Vec::new(), 1);
    for (from, to) in ranges {
        if from > next {
            holes.push((next, from - 1));
        }
        next = next.max(to + 1);
    }
    Ok(holes)
}

/// The archive against the database, where one runs; without it only what the archive itself lacks.
pub async fn compare_entries(
    repository: &Repository,
    private: &RecipientPrivate,
    database: Option<&str>,
) -> Result<EntryComparison, Error> {
    let listed = archive_listing(repository, LOG)?.into_iter();
    // Those that cannot be read are lacking, and the verification of the archive names them.
    let parts: Vec<ArchivePart> = listed.filter_map(|(_, part)| part.ok()).collect();
    let compared = lasting(&parts);
    let mut comparison = EntryComparison {
        archived_to: compared.iter().map(|part| part.to).max().unwrap_or(0),
        ..EntryComparison::default()
    };
    let mut next = 1;
    for part in &compared {
        if part.from > next {
            let gap = archive_gap(database, next, part.from - 1).await?;
            comparison.gaps.push(gap);
        }
        next = next.max(part.to + 1);
    }
    let Some(database) = database else {
        return Ok(comparison);
    };
    let mut last = 0;
    for part in compared {
        let Ok(content) = read_archive(repository, private, part) else {
            comparison
                .gaps
                .push(archive_gap(Some(database), part.from, part.to).await?);
            continue;
        };
        let archived: Vec<PlacedEntry> = (part.from..).zip(content.entries).collect();
        let there = entries_of(database, part.from, part.to).await?;
        comparison.entries_compared += archived.len() as u64;
        last = there.last().map_or(last, |(position, _)| *position);
        comparison.gaps.extend(differences(&archived, &there));
    }
    let newest = ends_of(database, comparison.archived_to + 1, u64::MAX).await?;
    comparison.database_to = Some(newest.map_or(last, |(_, (position, _))| position));
    comparison
        .gaps
        .sort_by_key(|gap| (gap.from_position, gap.to_position));
    Ok(comparison)
}

/// Positions that no part of the archive holds; when, by the database.
async fn archive_gap(database: Option<&str>, from: u64, to: u64) -> Result<EntryGap, Error> {
    let there = match database {
        Some(database) => ends_of(database, from, to).await?,
        None => None,
    };
    let held = match (database, &there) {
        (None, _) => "the database was not asked",
        (_, None) => "nor does the database",
        _ => {
            "and the database does: bre audit archive puts what follows the newest part only; \
             restore the part from a copy of the repository"
        }
    };
    let ends = there.map(|((_, first), (_, last))| (recorded(&first), recorded(&last)));
    let (from_micros, to_micros) = ends.unwrap_or_default();
    Ok(EntryGap {
        kind: "database",
        from_position: from,
        to_position: to,
        from_micros,
        to_micros,
        lacks: Lacks::Archive,
        what: format!("the archive does not hold these entries, {held}"),
    })
}

fn recorded(bytes: &[u8]) -> Option<i64> {
    Entry::parse(bytes)
        .ok()
        .map(|entry| entry.recorded_at_micros)
}

async fn entries_of(database: &str, from: u64, to: u64) -> Result<Vec<PlacedEntry>, Error> {
    let mut entries = Vec::new();
    services::export_from(database, LOG, from, |stored| {
        let position = u64::try_from(stored.position).unwrap_or(0);
        if position > to {
            return ControlFlow::Break(());
        }
        entries.push((position, stored.bytes));
        ControlFlow::Continue(())
    })
    .await?;
    Ok(entries)
}

/// The first entry and the last of a range.
async fn ends_of(
    database: &str,
    from: u64,
    to: u64,
) -> Result<Option<(PlacedEntry, PlacedEntry)>, Error> {
    let mut ends: Option<(PlacedEntry, PlacedEntry)> = None;
    services::export_from(database, LOG, from, |stored| {
        let position = u64::try_from(stored.position).unwrap_or(0);
        if position > to {
            return ControlFlow::Break(());
        }
        let entry = (position, stored.bytes);
        match &mut ends {
            Some((_, last)) => *last = entry,
            None => ends = Some((entry.clone(), entry)),
        }
        ControlFlow::Continue(())
    })
    .await?;
    Ok(ends)
}

/// Runs of positions of the same kind of difference; both in ascending order.
fn differences(archived: &[PlacedEntry], there: &[PlacedEntry]) -> Vec<EntryGap> {
    let mut gaps: Vec<EntryGap> = Vec::new();
    let mut there = there.iter().peekable();
    for (position, bytes) in archived {
        while there.peek().is_some_and(|(at, _)| at < position) {
            there.next();
        }
        let lacks = match there.peek() {
            Some((at, held)) if at == position => match held == bytes {
                true => continue,
                false => Lacks::Agreement,
            },
            _ => Lacks::Database,
        };
        let at = recorded(bytes);
        match gaps.last_mut() {
            Some(gap) if gap.to_position + 1 == *position && gap.lacks == lacks => {
                gap.to_position = *position;
                gap.to_micros = at;
            }
            _ => gaps.push(EntryGap {
                kind: "database",
                from_position: *position,
                to_position: *position,
                from_micros: at,
                to_micros: at,
                lacks,
                what: match lacks {
                    Lacks::Database => {
                        "the database does not hold these entries, and the archive does: \
                                        bre restore audit-log brings them back beside it"
                    }
                    _ => "the database holds other entries at these positions than the archive",
                }
                .to_owned(),
            }),
        }
    }
    gaps
}

fn when(from: Option<i64>, to: Option<i64>) -> String {
    let moment = |at: Option<i64>| {
        let at = at.and_then(|at| jiff::Timestamp::from_microsecond(at).ok());
        at.map_or_else(|| "?".to_owned(), |at| format!("{at:.0}"))
    };
    format!("{} to {}", moment(from), moment(to))
}

impl EntryGap {
    pub fn sentence(&self) -> String {
        format!(
            "{}: positions {} to {}, {}: {}",
            self.kind,
            self.from_position,
            self.to_position,
            when(self.from_micros, self.to_micros),
            self.what
        )
    }
}

/// For people.
pub fn gap_sentence(gap: &LogGap) -> String {
    format!(
        "{} {}: stretches {} to {}, {}: {}",
        gap.kind,
        gap.source,
        gap.from_number,
        gap.to_number,
        when(gap.from_micros, gap.to_micros),
        gap.what
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_runs_of_positions() {
        let entries = |positions: &[u64], of: &[u8]| -> Vec<PlacedEntry> {
            positions.iter().map(|at| (*at, of.to_vec())).collect()
        };
        let archived = entries(&[3, 4, 5, 6, 7, 8], b"x");
        let runs = |there: &[PlacedEntry]| -> Vec<(u64, u64, Lacks)> {
            let gaps = differences(&archived, there);
            let run = |gap: EntryGap| (gap.from_position, gap.to_position, gap.lacks);
            gaps.into_iter().map(run).collect()
        };
        assert_eq!(runs(&entries(&[1, 2, 3, 4, 5, 6, 7, 8, 9], b"x")), []);
        assert_eq!(runs(&[]), [(3, 8, Lacks::Database)]);
        let mut there = entries(&[3, 4], b"x");
        there.extend(entries(&[6], b"y"));
        there.extend(entries(&[8], b"x"));
        let expected = [
            (5, 5, Lacks::Database),
            (6, 6, Lacks::Agreement),
            (7, 7, Lacks::Database),
        ];
        assert_eq!(runs(&there), expected);
    }
}
