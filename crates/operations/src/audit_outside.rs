//! What a verification of the audit log knows besides the entries, on each road to them: heads, anchors and thinnings,
//! which heads are missing, how far the archive and restore tests say that the log went. And what of it could not be
//! asked or compared.

use std::path::Path;

use audit::{
    Anchoring, BadEntry, Fault, Head, HeadError, SignedHead, Verdict, VerifyingKey, missing_heads,
    unexplained,
};
use host::{
    instance::Instance,
    log::LOG,
    stored_heads::{self, StoredHeads, StoredThinnings, UncountedHead},
};
use repository::Repository;
use serde::Serialize;
use services::Evidence;

use crate::{
    anchors::{self, AnchorFile},
    config::Config,
    error::Error,
    heads,
};

/// What is not named one by one.
const NAMED_MAX: usize = 200;

#[derive(Debug)]
pub struct Outside {
    /// Verified: of the repository, and every anchor.
    pub heads: Vec<Head>,
    /// Heads of the repository alone, and anchors.
    counted: usize,
    missing: Vec<(u32, u64)>,
    /// Objects and files that are not what a trusted key signed: the place that they are about, and in words.
    invalid: Vec<((u32, u64), String)>,
    anchors: Vec<Anchor>,
    evidence: Vec<Evidence>,
    not_asked: Vec<String>,
    /// Signed by keys that had ended by then.
    uncounted: Vec<UncountedHead>,
}

/// One, as the report shows it.
#[derive(Clone, Debug, Serialize)]
struct Anchor {
    /// `keys`, or the name of a further repository.
    place: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// Why it is not known what is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

impl Anchor {
    fn of(place: &str, head: &Head) -> Self {
        Self {
            place: place.to_owned(),
            epoch: Some(head.epoch),
            size: Some(head.size),
            trouble: None,
        }
    }
}

/// How much of what is known the entries of a road must hold.
#[derive(Debug)]
pub enum Extent {
    /// All of it.
    Whole,
    /// They end earlier by their nature: these heads are of later.
    Part { later: Vec<Head> },
}

/// What is known beside the entries, as every road's report shows it.
#[derive(Clone, Debug, Serialize)]
pub struct OutsideEvidence {
    /// Where else the newest head is kept, and which.
    anchors: Vec<Anchor>,
    /// What else says how far the log went.
    evidence: Vec<Said>,
    /// Each object and file beside the log that is not what a trusted key signed, or that is missing.
    beside_findings: Vec<String>,
    /// What keys signed that had ended by then: no evidence.
    not_counted: Vec<String>,
    /// What this road did not ask, or does not reach.
    not_compared: Vec<String>,
}

/// One piece of [`services::Evidence`].
#[derive(Clone, Debug, Serialize)]
struct Said {
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u32>,
    size: u64,
}

impl Outside {
    /// `beside`: the folder with the keys, which holds the anchor of the engine's host.
    pub fn gather(
        instance: &Instance,
        (repository, beside): (&Repository, &Path),
        keys: &[VerifyingKey],
    ) -> Result<Self, Error> {
        let mut all = Self {
            heads: Vec::new(),
            counted: 0,
            missing: Vec::new(),
            invalid: Vec::new(),
            anchors: Vec::new(),
            evidence: Vec::new(),
            not_asked: Vec::new(),
            uncounted: Vec::new(),
        };
        // Before the heads: an anchor is written after its head.
        let named = all.anchor_of_host((repository, beside), keys)?;
        all.ask_further(instance, keys);
        let stored = StoredHeads::read(repository, keys)?;
        for ((epoch, size), why) in stored.damaged {
            let what = format!(
                "the object in the repository that is named as the head of epoch {epoch} at size {size} is none: {why}"
            );
            all.invalid.push(((epoch, size), what));
        }
        all.uncounted.extend(stored.notices);
        // After them: what goes meanwhile is on record first.
        let mut thinned = StoredThinnings::read(repository, keys)?;
        for (name, why) in std::mem::take(&mut thinned.damaged) {
            let what = format!("`{}` is no record of thinned heads: {why}", name.object);
            all.invalid.push(((name.epoch, name.to), what));
        }
        all.uncounted.append(&mut thinned.notices);
        let (counted, uncounted) = (&stored.counted, &stored.uncounted);
        let thinnings = thinned.thinnings();
        all.missing = missing_heads(counted, uncounted, &thinnings, named.as_slice());
        all.counted = counted.len() + all.heads.len();
        for head in counted {
            all.heads.push(head.verify(keys)?);
        }
        match heads::evidence(repository) {
            Ok(evidence) => all.evidence = evidence,
            Err(error) => all.not_asked.push(format!(
                "how far the archive and the restore tests say that the log went: {error}"
            )),
        }
        Ok(all)
    }

    /// The anchor beside the keys; the head that it says to be in this repository.
    fn anchor_of_host(
        &mut self,
        (repository, beside): (&Repository, &Path),
        keys: &[VerifyingKey],
    ) -> Result<Option<audit::LostHead>, Error> {
        let read = AnchorFile::read(beside).and_then(|file| {
            let head = file.as_ref().map(AnchorFile::head).transpose()?;
            Ok(file.zip(head))
        });
        let (file, signed) = match read {
            Ok(Some(read)) => read,
            Ok(None) => {
                self.not_asked.push(format!(
                    "the anchor of the engine's host: there is none in {}",
                    beside.display()
                ));
                return Ok(None);
            }
            Err(error) => {
                let what = format!("the anchor beside the keys is none: {error}");
                self.invalid.push(((0, 0), what));
                return Ok(None);
            }
        };
        let Some(signed) = signed else {
            return Ok(None);
        };
        match signed.verify(keys) {
            Ok(head) => {
                self.anchors.push(Anchor::of("keys", &head));
                self.heads.push(head);
                heads::anchored_in(&file, repository)
            }
            Err(error) => {
                if !self.is_uncounted(&signed, &error) {
                    let what = format!("the anchor beside the keys is none: {error}");
                    self.invalid.push((stored_heads::place(&signed), what));
                }
                Ok(None)
            }
        }
    }

    /// What else was met that keys signed which had ended.
    pub fn also_uncounted(&mut self, found: Vec<UncountedHead>) {
        self.uncounted.extend(found);
    }

    fn is_uncounted(&mut self, signed: &SignedHead, error: &HeadError) -> bool {
        let found = stored_heads::uncounted_head(signed, error);
        let is_one = found.is_some();
        let anchor = |found| UncountedHead {
            what: "anchors",
            ..found
        };
        self.uncounted.extend(found.map(anchor));
        is_one
    }

    /// Of the settings of this instance, where there are any.
    fn ask_further(&mut self, instance: &Instance, keys: &[VerifyingKey]) {
        let config = match Config::read(None, instance.root()) {
            Ok(config) => config,
            Err(error) => {
                self.not_asked.push(format!(
                    "the anchors in further repositories: the settings that name them cannot be read ({error})"
                ));
                return;
            }
        };
        for far in anchors::of_further(&config.repositories, keys) {
            let heads = match far.heads {
                Ok(heads) => heads,
                Err(trouble) => {
                    self.anchors.push(Anchor {
                        place: far.name,
                        epoch: None,
                        size: None,
                        trouble: Some(trouble),
                    });
                    continue;
                }
            };
            for signed in heads {
                match signed.verify(keys) {
                    Ok(head) => {
                        self.anchors.push(Anchor::of(&far.name, &head));
                        self.heads.push(head);
                    }
                    Err(error) if self.is_uncounted(&signed, &error) => {}
                    // An intruder at that place makes nothing of this log unsound with it.
                    Err(error) => self.not_asked.push(format!(
                        "a head in the repository {} of epoch {} at size {}: {error}",
                        far.name,
                        signed.claimed().epoch,
                        signed.claimed().size
                    )),
                }
            }
        }
    }

    /// The first entry that is not the one that the archive says stood there; for a road that asks a database.
    pub async fn contradiction(&self, database: &str) -> Result<Option<(BadEntry, String)>, Error> {
        for said in &self.evidence {
            let Some(hash) = said.hash else { continue };
            let Some(entry) = services::entry(database, LOG, said.size).await? else {
                continue;
            };
            let of_epoch = entry.epoch == i64::from(said.epoch);
            if of_epoch && audit::Entry::hash_of(&entry.bytes) != hash {
                let bad = BadEntry {
                    epoch: entry.epoch,
                    position: entry.position,
                };
                let reason = format!("it is not the entry that {} holds", said.what);
                return Ok(Some((bad, reason)));
            }
        }
        Ok(None)
    }

    /// The verdict, the report that says why, and what is known beside the entries. `now_micros`: entries from a
    /// minute before it on need no head yet.
    pub fn judge(
        &self,
        report: &mut audit::Report,
        extent: &Extent,
        now_micros: i64,
    ) -> (Verdict, OutsideEvidence) {
        let mut not_compared = self.not_asked.clone();
        let findings: Vec<String> = self.invalid.iter().map(|(_, what)| what.clone()).collect();
        if let (Some((place, what)), true) = (self.invalid.first(), report.is_sound()) {
            report.first_bad = Some(bad_at(*place));
            report.reason = Some(what.clone());
        }
        let later: &[Head] = match extent {
            Extent::Whole => &[],
            Extent::Part { later } => later,
        };
        if let Some(newest) = later.iter().max_by_key(|head| (head.epoch, head.size)) {
            not_compared.push(format!(
                "{} signed heads and anchors of later, the newest of epoch {} at size {}: this road ends at {}",
                later.len(),
                newest.epoch,
                newest.size,
                report.entries
            ));
        }
        self.compare_evidence(report, extent, &mut not_compared);
        let gone = unexplained(&self.missing, &report.epochs);
        let mut missing: Vec<String> = gone
            .iter()
            .map(|(epoch, size)| format!("the head of epoch {epoch} at size {size} was taken away"))
            .collect();
        // An opening behind the end of this road may account for it.
        let is_judged = later.is_empty();
        if !is_judged && let Some((epoch, size)) = gone.first() {
            missing.clear();
            not_compared.push(format!(
                "{} heads that are missing from the repository, the first of epoch {epoch} at size {size}: an opening \
                 behind the end of this road may account for them; bre verify audit --from-wal sees it",
                gone.len()
            ));
        }
        let verdict = report.anchored(&Anchoring {
            // Those of later vouch for nothing here.
            heads: self.counted.saturating_sub(later.len()),
            missing: if is_judged { &self.missing } else { &[] },
            now_micros,
        });
        let mut beside_findings = findings;
        beside_findings.extend(missing);
        let all = beside_findings.len();
        if all > NAMED_MAX {
            beside_findings.truncate(NAMED_MAX);
            beside_findings.push(format!("and {} more", all - NAMED_MAX));
        }
        let beside = OutsideEvidence {
            anchors: self.anchors.clone(),
            evidence: self.evidence.iter().map(Said::of).collect(),
            beside_findings,
            not_counted: stored_heads::sentences(&self.uncounted),
            not_compared,
        };
        (verdict, beside)
    }

    /// Unsigned things that say that the log went further.
    fn compare_evidence(
        &self,
        report: &mut audit::Report,
        extent: &Extent,
        not_compared: &mut Vec<String>,
    ) {
        let epoch = report.epochs.last().map_or(0, |opening| opening.epoch);
        let end = report.entries;
        for said in self.evidence.iter().filter(|it| it.is_beyond(epoch, end)) {
            let reason = format!(
                "{} says that the log had {} entries, and it ends at {end}",
                said.what, said.size
            );
            match extent {
                Extent::Part { .. } => not_compared.push(reason),
                Extent::Whole if report.is_sound() => {
                    report.fault = Some(Fault::Cut);
                    report.first_bad = Some(bad_at((epoch, end + 1)));
                    report.reason =
                        Some(format!("{reason}; no recovery accounts for the difference"));
                }
                Extent::Whole => {}
            }
        }
    }
}

fn bad_at((epoch, position): (u32, u64)) -> BadEntry {
    BadEntry {
        epoch: i64::from(epoch),
        position: i64::try_from(position).unwrap_or(i64::MAX),
    }
}

impl Said {
    fn of(evidence: &Evidence) -> Self {
        Self {
            what: evidence.what.clone(),
            epoch: (evidence.epoch > 0).then_some(evidence.epoch),
            size: evidence.size,
        }
    }
}

impl OutsideEvidence {
    pub fn also_not_compared(&mut self, what: Option<String>) {
        self.not_compared.extend(what);
    }

    /// Lines about it, for people.
    pub fn sentences(&self) -> String {
        let mut text = String::new();
        for anchor in &self.anchors {
            let place = &anchor.place;
            match (anchor.epoch, anchor.size, &anchor.trouble) {
                (Some(epoch), Some(size), _) => {
                    text.push_str(&format!("anchor in {place}: epoch {epoch} size {size}\n"));
                }
                (.., trouble) => text.push_str(&format!(
                    "anchor in {place}: not known ({})\n",
                    trouble.as_deref().unwrap_or("no reason given")
                )),
            }
        }
        for said in &self.evidence {
            text.push_str(&format!("{}: {} entries\n", said.what, said.size));
        }
        for finding in &self.beside_findings {
            text.push_str(&format!("FOUND: {finding}\n"));
        }
        for what in &self.not_counted {
            text.push_str(&format!("note: {what}\n"));
        }
        for what in &self.not_compared {
            text.push_str(&format!("not compared: {what}\n"));
        }
        text
    }
}
