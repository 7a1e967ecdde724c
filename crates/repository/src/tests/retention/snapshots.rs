//! Snapshots of two components in the life of a cluster, and the model's word of which must be there.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use super::model::Cluster;
use crate::snapshot::{
    SnapshotOptions, SnapshotReader, SnapshotState, SnapshotWriter, put_verification, snapshots,
    verify,
};

pub(super) type Documents = BTreeMap<String, Vec<u8>>;
pub(super) type SnapshotKey = (String, String);

#[derive(Debug, Default)]
pub(super) struct Snapshots {
    now: BTreeMap<String, Documents>,
    pub(super) taken: BTreeMap<SnapshotKey, (i64, Documents)>,
    verified: BTreeMap<SnapshotKey, i64>,
    pub(super) shared: u64,
    pub(super) unchanged: u64,
}

impl Cluster {
    fn change_documents(&mut self, component: &str) {
        let (number, seed) = (self.dice.below(6), self.dice.below(250));
        let documents = self.snapshots.now.entry(component.to_owned()).or_default();
        let seed = u8::try_from(seed).unwrap();
        match number {
            0 => drop(documents.pop_first()),
            1 => drop(documents.insert(format!("big/{seed}"), noise((1 << 20) + 700, seed))),
            // Nothing changes.
            2 => {}
            _ => drop(documents.insert(format!("small/{number}"), noise(300, seed))),
        }
        while documents.len() > 6 {
            documents.pop_last();
        }
    }

    fn write_snapshot(&mut self, component: &str) -> Result<()> {
        let options = SnapshotOptions {
            cache: Some(self.cache.path().to_owned()),
            ..SnapshotOptions::default()
        };
        let (repository, public) = (&self.world.repository, self.world.private.public());
        let key = &self.world.chunk_key;
        let mut writer =
            SnapshotWriter::begin(repository, public, key, component, self.now, options)?;
        let documents = self
            .snapshots
            .now
            .get(component)
            .cloned()
            .unwrap_or_default();
        for (name, bytes) in &documents {
            writer.document(name, BTreeMap::new(), &mut bytes.as_slice())?;
        }
        let outcome = writer.finish(BTreeMap::new(), self.now)?;
        self.snapshots.shared += u64::from(outcome.bytes_reused > 0 && outcome.is_new);
        let place = (component.to_owned(), outcome.id.clone());
        match outcome.is_new {
            true => drop(self.snapshots.taken.insert(place, (self.now, documents))),
            false => {
                assert_eq!(self.snapshots.taken[&place].1, documents, "{place:?}");
                self.snapshots.unchanged += 1;
            }
        }
        Ok(())
    }

    pub(super) fn snapshot(&mut self) {
        let component = ["configuration", "kubernetes"][usize::from(self.dice.below(3) == 0)];
        self.change_documents(component);
        // Two of one moment have no order.
        self.pass(1_000_000);
        self.write_snapshot(component).unwrap();
    }

    /// Killed at one of its writes: a wrap, a pack, a list, and no manifest; unless it was to be killed later.
    pub(super) fn killed_snapshot(&mut self) {
        self.change_documents("configuration");
        self.pass(1_000_000);
        let at = self.dice.below(5);
        self.world.faults.crash_at_write(Some(at));
        let outcome = self.write_snapshot("configuration");
        self.world.faults.crash_at_write(None);
        drop(outcome);
    }

    pub(super) fn verify_snapshot(&mut self) {
        let live = self.live_snapshots();
        let Some(place) = live.iter().nth(self.pick_below(live.len())) else {
            return;
        };
        let (repository, private) = (&self.world.repository, &self.world.private);
        let record = verify(repository, private, &place.0, &place.1, self.now).unwrap();
        assert!(record.passed, "{record:?}");
        put_verification(repository, &place.0, &place.1, &record).unwrap();
        self.snapshots.verified.insert(place.clone(), self.now);
    }

    fn pick_below(&mut self, len: usize) -> usize {
        usize::try_from(self.dice.below(len.max(1) as u64)).unwrap_or(0)
    }

    pub(super) fn live_snapshots(&self) -> BTreeSet<SnapshotKey> {
        let all = snapshots(&self.world.repository).unwrap();
        assert!(all.damaged.is_empty(), "{:?}", all.damaged);
        let live = all.snapshots.into_iter();
        live.filter(|it| it.state == SnapshotState::Complete)
            .map(|it| (it.component, it.id))
            .collect()
    }

    /// From the model alone: what was in force at any moment of the limit is there, and so are the newest and the
    /// newest verified one of a component; and what is there holds every byte.
    pub(super) fn check_snapshots(&self) -> u64 {
        let live = self.live_snapshots();
        for place in &live {
            self.check_snapshot(place);
        }
        let components: BTreeSet<&String> = self.snapshots.taken.keys().map(|(it, _)| it).collect();
        for component in components {
            let of_it = || {
                let all = self.snapshots.taken.iter();
                all.filter(move |((it, _), _)| it == component)
            };
            let from = self.now - self.rules.snapshot_micros;
            let moments = of_it().map(|(_, (at, _))| *at).filter(|at| *at >= from);
            for moment in moments.chain([from, self.now]) {
                let in_force = of_it()
                    .filter(|(_, (at, _))| *at <= moment)
                    .max_by_key(|(_, (at, _))| *at);
                if let Some((place, _)) = in_force {
                    assert!(
                        live.contains(place),
                        "{place:?} was in force at {moment} and is gone"
                    );
                }
            }
            let verified = of_it().filter(|(place, _)| self.snapshots.verified.contains_key(place));
            if let Some((place, _)) = verified.max_by_key(|(_, (at, _))| *at) {
                assert!(
                    live.contains(place),
                    "{place:?} is the newest verified one and is gone"
                );
            }
        }
        live.len() as u64
    }

    fn check_snapshot(&self, place: &SnapshotKey) {
        let (_, documents) = &self.snapshots.taken[place];
        let (repository, private) = (&self.world.repository, &self.world.private);
        let reader = SnapshotReader::open(repository, private, &place.0, &place.1).unwrap();
        let found: Documents = reader
            .documents()
            .iter()
            .map(|it| (it.name.clone(), reader.read(it).unwrap().to_vec()))
            .collect();
        assert!(found == *documents, "snapshot {place:?} reads differently");
    }
}
