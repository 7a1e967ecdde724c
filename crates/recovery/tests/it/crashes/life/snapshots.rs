//! Snapshots in the life of a machine that stops, and the model's word of which must be there afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use repository::keys::RecipientPrivate;
use repository::snapshot::{
    SnapshotOptions, SnapshotReader, SnapshotState, SnapshotWriter, put_verification, snapshots,
    verify,
};
use repository::{Error, Repository, Result};

use super::super::dice::noise;
use super::super::model::Files;
use super::{RULES, World};

type SnapshotKey = (String, String);

/// One that was begun; it exists for certain once its `finish` returned.
#[derive(Debug, Clone)]
struct SnapshotStart {
    at: i64,
    is_acknowledged: bool,
    is_verified: bool,
    /// A machine that stopped during the last write of a verification may have written it.
    may_be_verified: bool,
    documents: Files,
}

#[derive(Debug, Default)]
pub(super) struct Snapshots {
    now: BTreeMap<String, Files>,
    begun: BTreeMap<SnapshotKey, SnapshotStart>,
}

impl World {
    fn change_documents(&mut self, component: &str) {
        let (what, number) = (self.dice.below(5), self.dice.below(1 << 30) as u64);
        let documents = self.snapshots.now.entry(component.to_owned()).or_default();
        match what {
            // Nothing changes.
            0 => {}
            1 => drop(documents.pop_first()),
            _ => drop(documents.insert(format!("{what}/{}", number % 3), noise(number, 0, 900))),
        }
    }

    pub(super) fn snapshot(&mut self, repository: &Repository) -> Result<()> {
        let component = (*self.dice.pick(&["configuration", "kubernetes"])).to_owned();
        self.change_documents(&component);
        let documents = self.snapshots.now[&component].clone();
        let cache: PathBuf = self.folder.path().join("cache");
        let (public, key, at) = (self.key.public(), &self.chunk_key, self.model.now);
        let options = SnapshotOptions {
            cache: self.dice.percent(90).then_some(cache),
            ..SnapshotOptions::default()
        };
        let mut writer = SnapshotWriter::begin(repository, public, key, &component, at, options)?;
        for (name, bytes) in &documents {
            writer.document(name, BTreeMap::new(), &mut bytes.as_slice())?;
        }
        // Another job of the same host.
        let expired_meanwhile = self.dice.percent(20);
        if expired_meanwhile {
            self.expire(repository)?;
        }
        let place = (component, writer.id().to_owned());
        self.tell(|| format!("snapshot {place:?} of {} documents", documents.len()));
        let begun = SnapshotStart {
            at,
            is_acknowledged: false,
            is_verified: false,
            may_be_verified: false,
            documents: documents.clone(),
        };
        // Stopped during the last write, it may exist; then it must be whole.
        self.snapshots.begun.insert(place.clone(), begun);
        let finished = writer.finish(BTreeMap::new(), self.model.now);
        if expired_meanwhile && matches!(finished, Err(Error::Missing { .. })) {
            // Refused, because it refers to what just expired: the next one stores it again.
            return Ok(());
        }
        let outcome = finished?;
        self.seen.snapshots += 1;
        self.seen.snapshots_shared += u64::from(outcome.is_new && outcome.bytes_reused > 0);
        if outcome.is_new {
            if let Some(begun) = self.snapshots.begun.get_mut(&place) {
                begun.is_acknowledged = true;
            }
            return Ok(());
        }
        self.snapshots.begun.remove(&place);
        let same = (place.0, outcome.id);
        let held = self.snapshots.begun.get(&same).map(|it| &it.documents);
        match held == Some(&documents) {
            true => Ok(()),
            false => Err(Error::Input(format!(
                "{same:?} was called the same, and is not"
            ))),
        }
    }

    pub(super) fn verify_snapshot(&mut self, repository: &Repository) -> Result<()> {
        let mut live = snapshots(repository)?.snapshots;
        live.retain(|it| it.state == SnapshotState::Complete);
        if live.is_empty() {
            return Ok(());
        }
        let one = self.dice.pick(&live);
        let record = verify(
            repository,
            &self.key,
            &one.component,
            &one.id,
            self.model.now,
        )?;
        let place = (one.component.clone(), one.id.clone());
        if let Some(begun) = self.snapshots.begun.get_mut(&place) {
            begun.may_be_verified = true;
        }
        put_verification(repository, &one.component, &one.id, &record)?;
        if let Some(begun) = self.snapshots.begun.get_mut(&place)
            && !self.disk.lists_late()
        {
            begun.is_verified = true;
        }
        Ok(())
    }
}

impl Snapshots {
    /// Everything that was promised, from the repository and this key alone.
    pub(super) fn check(
        &self,
        repository: &Repository,
        private: &RecipientPrivate,
        now: i64,
    ) -> std::result::Result<u64, String> {
        let live = self.check_all(repository, std::slice::from_ref(private))?;
        let components: BTreeSet<&String> = self.begun.keys().map(|(it, _)| it).collect();
        for component in components {
            self.check_component(component, &live, now)?;
        }
        Ok(live.len() as u64)
    }

    /// What is there is whole, here or in a copy.
    pub(super) fn check_all(
        &self,
        repository: &Repository,
        keys: &[RecipientPrivate],
    ) -> std::result::Result<BTreeSet<SnapshotKey>, String> {
        let text = |error: Error| error.to_string();
        let all = snapshots(repository).map_err(text)?;
        if let Some(damaged) = all.damaged.first() {
            return Err(format!("the catalogue of snapshots: {damaged}"));
        }
        let mut live = BTreeSet::new();
        for it in all.snapshots {
            if it.state != SnapshotState::Complete {
                continue;
            }
            let place = (it.component, it.id);
            let begun = self.begun.get(&place);
            let begun = begun.ok_or_else(|| format!("{place:?} was never taken"))?;
            let mut failed = String::new();
            let opened = keys.iter().rev().any(|key| {
                let found = documents(repository, key, &place);
                found
                    .map(|found| found == begun.documents)
                    .map_err(|error| failed = error.to_string())
                    .unwrap_or(false)
            });
            if !opened {
                return Err(format!("{place:?} is not what was taken: {failed}"));
            }
            live.insert(place);
        }
        Ok(live)
    }

    fn check_component(
        &self,
        component: &str,
        live: &BTreeSet<SnapshotKey>,
        now: i64,
    ) -> std::result::Result<(), String> {
        let of_it = || self.begun.iter().filter(|((it, _), _)| it == component);
        let certain = || of_it().filter(|(_, it)| it.is_acknowledged);
        let from = now - RULES.snapshot_micros;
        let moments = certain().map(|(_, it)| it.at).filter(|at| *at >= from);
        for moment in moments.chain([from, now]) {
            let in_force = certain().filter(|(_, it)| it.at <= moment);
            let Some((place, begun)) = in_force.max_by_key(|(_, it)| it.at) else {
                continue;
            };
            // One may have come between: then it may have taken its place.
            let replaced =
                |it: &SnapshotStart| !it.is_acknowledged && it.at > begun.at && it.at <= moment;
            if !live.contains(place) && !of_it().any(|(_, it)| replaced(it)) {
                return Err(format!("{place:?} was in force at {moment} and is gone"));
            }
        }
        let verified = of_it().filter(|(_, it)| it.is_verified);
        let Some((place, newest)) = verified.max_by_key(|(_, it)| it.at) else {
            return Ok(());
        };
        let newer = |(place, it): (&SnapshotKey, &SnapshotStart)| {
            it.may_be_verified && it.at > newest.at && live.contains(place)
        };
        if !live.contains(place) && !of_it().any(newer) {
            return Err(format!("{place:?} is the newest verified one and is gone"));
        }
        Ok(())
    }
}

fn documents(
    repository: &Repository,
    key: &RecipientPrivate,
    place: &SnapshotKey,
) -> Result<Files> {
    let reader = SnapshotReader::open(repository, key, &place.0, &place.1)?;
    let mut found = Files::new();
    for document in reader.documents() {
        found.insert(document.name.clone(), reader.read(document)?.to_vec());
    }
    Ok(found)
}
