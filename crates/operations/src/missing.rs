//! What a restore does not bring back although it was asked for, for how many seconds, and who knows of it.

use host::stored_heads::newest;
use postgres_physical::lsn::Lsn;
use recovery::database::{Plan, Point, Target};
use repository::{
    Repository,
    read_back::{Evidence, EvidenceSource, Shortfall, newest_known, shortfall},
};
use terminal::time;

use crate::error::Error;

/// One thing that is not brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    pub sentence: String,
    /// Of the server's time; `None` when nobody can tell.
    pub seconds: Option<u64>,
    /// Who knows that there was more.
    pub known_by: String,
}

/// Who knows of WAL that was here. To be asked before a restore is planned: what is written and signed meanwhile is not missing.
pub fn known(
    repository: &Repository,
    target: &Target,
    elsewhere: Vec<Evidence>,
) -> Result<Vec<Evidence>, Error> {
    if target.point != Point::Latest {
        return Ok(Vec::new());
    }
    let mut known = newest_known(repository)?;
    known.extend(newest_head(repository)?);
    known.extend(elsewhere);
    Ok(known)
}

/// The same from signed heads alone, for a recovery that somebody waits for.
pub fn known_by_heads(repository: &Repository, target: &Target) -> Result<Vec<Evidence>, Error> {
    match target.point {
        Point::Latest => Ok(newest_head(repository)?.into_iter().collect()),
        _ => Ok(Vec::new()),
    }
}

/// WAL behind a hole, or WAL that was there once.
pub fn from(
    repository: &Repository,
    plan: &Plan,
    known: &[Evidence],
) -> Result<Vec<Missing>, Error> {
    if let Some(beyond) = &plan.beyond {
        let micros = beyond.to_micros.saturating_sub(plan.span.to_micros);
        let is_timed = beyond.to_micros > 0 && plan.span.to_micros > 0;
        let seconds = is_timed.then(|| u64::try_from(micros).unwrap_or(0).div_ceil(1_000_000));
        // The heads of what lies behind a hole are known to be beyond the end.
        return Ok(vec![Missing {
            sentence: format!(
                "{}{}. After the restore take a full backup: bre backup run",
                beyond.describe(),
                seconds.map_or_else(String::new, |seconds| format!(": {seconds} s"))
            ),
            seconds,
            known_by: "the WAL behind the hole".to_owned(),
        }]);
    }
    if plan.target.point != Point::Latest {
        return Ok(Vec::new());
    }
    let newest = newest_of(repository, plan, known.to_vec())?;
    Ok(newest
        .filter(|newest| newest.is_missing)
        .map(in_words)
        .into_iter()
        .collect())
}

fn newest_of(
    repository: &Repository,
    plan: &Plan,
    mut known: Vec<Evidence>,
) -> Result<Option<Shortfall>, Error> {
    let Some(last) = plan.span.links.last() else {
        return Ok(None);
    };
    let histories = repository
        .store()
        .list("timelines/")
        .map_err(repository::Error::from)?;
    let history = |timeline: u32| format!("timelines/{timeline:08x}.history");
    let began = histories
        .iter()
        .find(|it| it.name == history(last.timeline));
    let began_micros = began.map_or(0, |it| it.modified_micros);
    // Who names a timeline wants no other; of one that is not the newest, what names none says nothing.
    if plan.target.timeline.is_some() {
        let is_newest = !histories
            .iter()
            .any(|it| it.name > history(last.timeline) && it.name.ends_with(".history"));
        known.retain(|it| match it.timeline {
            Some(timeline) => timeline == last.timeline,
            None => is_newest,
        });
    }
    let end = (last.timeline, plan.span.to_lsn(), plan.span.to_micros);
    Ok(shortfall(&known, end, began_micros))
}

/// A head of the audit log is signed only when the repository holds the WAL of its last entry.
fn newest_head(repository: &Repository) -> Result<Option<Evidence>, Error> {
    // By any key: what says that there was more WAL only has to be looked into.
    let heads = newest(repository, &[])?;
    Ok(heads.last().map(|head| {
        let head = head.claimed();
        Evidence {
            source: EvidenceSource::SignedHead,
            object: Some(format!(
                "heads/{}/{:08x}-{:016x}",
                head.log, head.epoch, head.size
            )),
            timeline: None,
            epoch: head.epoch,
            lsn: head.lsn,
            at_micros: head.at_micros,
        }
    }))
}

fn in_words(found: Shortfall) -> Missing {
    let known_by = found.evidence.describe();
    let span = match found.missing_seconds {
        Some(seconds) => format!("{seconds} s are missing"),
        None => "for how long nobody can tell".to_owned(),
    };
    let held = match found.evidence.source.was_here() {
        true => "the repository held WAL up to",
        false => "there was WAL up to",
    };
    let waits = match found.evidence.source.was_here() {
        true => "is lost unless the missing `wal/` or `tail/` objects come back",
        false => "is lost, or on its way still while the stream runs",
    };
    let until = match found.end_at_micros {
        0 => String::new(),
        micros => format!(" ({})", time(micros)),
    };
    Missing {
        sentence: format!(
            "the newest WAL is gone, {span}: {known_by} says that on {} {held} {}; now it ends at {} of timeline {}{until}. What was committed \
             between {waits}. `bre verify repository` says what else is missing; after the restore `bre verify audit` says how many entries",
            time(found.evidence.at_micros),
            Lsn(found.evidence.lsn),
            Lsn(found.end_lsn),
            found.timeline,
        ),
        seconds: found.missing_seconds,
        known_by,
    }
}
