//! Whether a chain of stretches is whole: each has its predecessor, and what is missing has a name.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    LogKind, LogStretch, SourceGap, SourceGapCause, digest_of, log_stretches, stretch_facts,
    stretch_of,
};
use crate::error::{Error, Result, StoreError};
use crate::pipeline::ObjectHeader;
use crate::retention::DAY_MICROS;
use crate::{Progress, Repository};

/// How far a chain went, by another record than the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownEnd {
    pub number: u64,
    pub digest: String,
}

/// What is not there, by its place in the chain, its time and its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogGap {
    pub kind: LogKind,
    pub source: String,
    /// Numbers of the first stretch and of the last that are concerned.
    pub from_number: u64,
    pub to_number: u64,
    /// None where nothing that is there says it.
    pub from_micros: Option<i64>,
    pub to_micros: Option<i64>,
    pub cause: LogGapCause,
    pub what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogGapCause {
    /// Objects are not there.
    Missing,
    /// An object is not what was written.
    Damaged,
    /// The source had lost the lines when it was read.
    Source(SourceGapCause),
}

impl LogGapCause {
    /// The store lost something, or it was changed there; a copy of the repository may have it.
    #[must_use]
    pub fn is_of_store(self) -> bool {
        !matches!(self, Self::Source(_))
    }
}

/// Of one kind and source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainReport {
    pub kind: LogKind,
    pub source: String,
    pub stretches: u64,
    pub lines: u64,
    pub bytes: u64,
    pub first_number: u64,
    pub last_number: u64,
    pub from_micros: Option<i64>,
    pub to_micros: Option<i64>,
    /// In a storage class that hands nothing out: their digest is the store's word, or unknown.
    pub cold: u64,
    /// Numbers that two stretches have: lines that are there twice in part.
    pub doubled: u64,
    pub gaps: Vec<LogGap>,
}

impl ChainReport {
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.gaps.is_empty()
    }
}

/// A stretch that is there.
struct Link {
    name: String,
    /// None where the object is not handed out.
    digest: Option<String>,
    bytes: u64,
    /// None where the object is not handed out.
    stretch: Option<LogStretch>,
}

/// Reads every object of a chain, without a key. `now_micros`: what is older than its kind is kept for may have
/// expired.
pub fn check_chain(
    repository: &Repository,
    (kind, source): (LogKind, &str),
    known: Option<&KnownEnd>,
    now_micros: i64,
    progress: &dyn Progress,
) -> Result<ChainReport> {
    let mut check = Check {
        links: BTreeMap::new(),
        report: ChainReport {
            kind,
            source: source.to_owned(),
            stretches: 0,
            lines: 0,
            bytes: 0,
            first_number: 0,
            last_number: 0,
            from_micros: None,
            to_micros: None,
            cold: 0,
            doubled: 0,
            gaps: Vec::new(),
        },
    };
    let listed = log_stretches(repository, kind, source)?;
    progress.total(listed.iter().map(|it| it.bytes).sum());
    for object in listed {
        if progress.cancelled() {
            return Err(Error::Input(
                "interrupted; the chain was not read to its end".to_owned(),
            ));
        }
        check.read(repository, &object.name, object.number, object.bytes)?;
        progress.advance(object.bytes);
    }
    check.follow(now_micros);
    check.end(known);
    Ok(check.report)
}

fn begin_of<'a>(links: impl IntoIterator<Item = &'a Link>) -> Option<i64> {
    let stretches = links.into_iter().filter_map(|link| link.stretch.as_ref());
    stretches.map(|stretch| stretch.from_micros).min()
}

fn end_of<'a>(links: impl IntoIterator<Item = &'a Link>) -> Option<i64> {
    let stretches = links.into_iter().filter_map(|link| link.stretch.as_ref());
    stretches.map(|stretch| stretch.to_micros).max()
}

struct Check {
    /// By number; none where no object of it can be read.
    links: BTreeMap<u64, Vec<Link>>,
    report: ChainReport,
}

impl Check {
    fn read(&mut self, repository: &Repository, name: &str, number: u64, bytes: u64) -> Result<()> {
        let links = self.links.entry(number).or_default();
        let (stretch, digest) = match repository.store().get(name) {
            Ok(object) => {
                let header = ObjectHeader::decode(name, &object);
                let stretch = header.and_then(|(header, _)| stretch_of(name, &header));
                (stretch, Some(digest_of(&object)))
            }
            // The clear part is not handed out either.
            Err(StoreError::Cold { .. }) => {
                self.report.cold += 1;
                (stretch_facts(repository, name), None)
            }
            Err(StoreError::NotFound { .. }) => return Ok(()),
            Err(error @ StoreError::Damaged { .. }) => (Err(error.into()), None),
            Err(error) => return Err(error.into()),
        };
        match stretch {
            Ok(stretch) => {
                self.report.stretches += 1;
                self.report.lines += stretch.lines;
                self.report.bytes += bytes;
                let name = name.to_owned();
                links.push(Link {
                    name,
                    digest,
                    bytes,
                    stretch: Some(stretch),
                });
            }
            Err(Error::Store(StoreError::Cold { .. })) => {
                self.report.stretches += 1;
                self.report.bytes += bytes;
                let name = name.to_owned();
                links.push(Link {
                    name,
                    digest: None,
                    bytes,
                    stretch: None,
                });
            }
            Err(error) if error.is_damage() => {
                let what = error.to_string();
                self.gap((number, number), (None, None), LogGapCause::Damaged, what);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn gap(
        &mut self,
        (from_number, to_number): (u64, u64),
        (from_micros, to_micros): (Option<i64>, Option<i64>),
        cause: LogGapCause,
        what: String,
    ) {
        self.report.gaps.push(LogGap {
            kind: self.report.kind,
            source: self.report.source.clone(),
            from_number,
            to_number,
            from_micros,
            to_micros,
            cause,
            what,
        });
    }

    fn follow(&mut self, now_micros: i64) {
        let links = std::mem::take(&mut self.links);
        let all = || links.values().flatten();
        self.report.from_micros = begin_of(all());
        self.report.to_micros = end_of(all());
        self.report.first_number = links.keys().next().copied().unwrap_or(0);
        self.report.last_number = links.keys().next_back().copied().unwrap_or(0);
        self.report.doubled = links.values().filter(|at| at.len() > 1).count() as u64;
        let kept_micros = i64::from(self.report.kind.days()) * DAY_MICROS;
        let mut before: Option<(u64, &Vec<Link>)> = None;
        for (number, at) in &links {
            let begins = begin_of(at);
            let expected = before.map_or(1, |(number, _)| number + 1);
            let ended = before.and_then(|(_, at)| end_of(at));
            let expired =
                before.is_none() && begins.is_some_and(|at| at < now_micros - kept_micros);
            if *number > expected && !expired {
                let what = match before {
                    Some((before, _)) => {
                        format!("the stretches between {before} and {number} are not there")
                    }
                    None => format!(
                        "the stretches before {number} are not there, and are not old enough to have expired"
                    ),
                };
                self.gap(
                    (expected, number - 1),
                    (ended, begins),
                    LogGapCause::Missing,
                    what,
                );
            } else if let Some((before, previous)) = before {
                self.compare(before, previous, at);
            }
            for stretch in at.iter().filter_map(|link| link.stretch.as_ref()) {
                for gap in &stretch.gaps {
                    self.source_gap(*number, gap);
                }
            }
            before = Some((*number, at));
        }
        self.links = links;
    }

    /// Every stretch has its predecessor among those of the number before.
    fn compare(&mut self, number: u64, before: &[Link], at: &[Link]) {
        let mut lacking = BTreeSet::new();
        for stretch in at.iter().filter_map(|link| link.stretch.as_ref()) {
            // Of one that is not handed out, the length is all that the listing says.
            let is_it = |it: &Link| match &it.digest {
                Some(digest) => *digest == stretch.previous,
                None => it.bytes == stretch.previous_bytes,
            };
            if !before.iter().any(is_it) {
                lacking.insert(stretch.previous.clone());
            }
        }
        if lacking.is_empty() || before.is_empty() {
            return;
        }
        let named: Vec<&str> = before.iter().map(|link| link.name.as_str()).collect();
        let span = (begin_of(before), end_of(before));
        let what = format!(
            "`{}` is not the object that the next one was chained to (SHA-256 {})",
            named.join("`, `"),
            lacking.into_iter().collect::<Vec<_>>().join(", ")
        );
        self.gap((number, number), span, LogGapCause::Damaged, what);
    }

    fn source_gap(&mut self, number: u64, gap: &SourceGap) {
        let span = (Some(gap.from_micros), Some(gap.to_micros));
        let cause = LogGapCause::Source(gap.why);
        self.gap((number, number), span, cause, gap.what.clone());
    }

    /// What the end itself does not tell.
    fn end(&mut self, known: Option<&KnownEnd>) {
        let Some(known) = known else {
            return;
        };
        let last = self.report.last_number;
        if known.number > last {
            let what = format!("the chain went to {} and ends at {last}", known.number);
            let since = self.report.to_micros;
            self.gap(
                (last + 1, known.number),
                (since, None),
                LogGapCause::Missing,
                what,
            );
            return;
        }
        let at = self.links.get(&known.number).filter(|at| !at.is_empty());
        let is_known = |link: &Link| link.digest.as_ref().is_none_or(|it| *it == known.digest);
        let damaged = self
            .report
            .gaps
            .iter()
            .any(|gap| gap.from_number == known.number);
        if at.is_some_and(|at| !at.iter().any(is_known)) && !damaged {
            let what = format!(
                "it is not the object that was put (SHA-256 {})",
                known.digest
            );
            let number = (known.number, known.number);
            self.gap(number, (None, None), LogGapCause::Damaged, what);
        }
    }
}
