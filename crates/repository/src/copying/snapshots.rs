//! Snapshots go along: packs, list, manifest, as for backups. Verifications stay behind: a copy is verified when it
//! was read itself.

use std::collections::BTreeSet;

use super::{Copy, CopyReport};
use crate::error::{Error, Result, StoreError};
use crate::references;
use crate::retention::{kept_snapshots, packs_of_snapshot};
use crate::snapshot::{SnapshotState, folder_of, manifest_of, prefix_of, snapshots};

impl Copy<'_> {
    /// What the other repository's rules keep; nothing when one backup alone was asked for.
    pub(super) fn bring_snapshots(&self, done: &mut CopyReport) -> Result<()> {
        if self.options.backup.is_some() {
            return Ok(());
        }
        // From names alone, most of the time: this runs every few seconds.
        let names = |repository: &crate::Repository| -> Result<BTreeSet<String>> {
            let objects = repository.store().list("snapshots/")?.into_iter();
            Ok(objects.map(|object| object.name).collect())
        };
        let there = names(self.to)?;
        let is_new = |name: &String| name.ends_with("/manifest") && !there.contains(name);
        if !names(self.from)?.iter().any(is_new) {
            return Ok(());
        }
        let all = snapshots(self.from)?;
        let mut live = all.snapshots;
        live.retain(|snapshot| snapshot.state == SnapshotState::Complete);
        let kept = kept_snapshots(&self.options.rules, self.now, &live);
        let newer = all.newer.into_iter().map(|it| (it.component, it.id));
        let places: BTreeSet<(String, String)> = kept.into_keys().chain(newer).collect();
        let expiring = references::expiring_snapshots(self.to)?;
        for place in places {
            if self.progress.cancelled() {
                return Ok(());
            }
            let (component, id) = (&place.0, &place.1);
            let is_there = there.contains(&manifest_of(component, id));
            if is_there || expiring.contains(&place) {
                continue;
            }
            match self.bring_snapshot(component, id) {
                Ok(()) => done.snapshots += 1,
                // Expiry at the source does not wait for us.
                Err(Error::Store(StoreError::NotFound { object, .. })) => done.notes.push(format!(
                    "snapshot {component}/{id} was not copied: `{object}` is gone at the source"
                )),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn bring_snapshot(&self, component: &str, id: &str) -> Result<()> {
        self.progress.message(&format!("snapshot {component}/{id}"));
        let packs = packs_of_snapshot(self.from, self.options.private, component, id)?;
        let packs = packs.ok_or_else(|| Error::Missing {
            object: format!("{}packs-…", prefix_of(component, id)),
            needed_by: "the copy".to_owned(),
            remedy: "Copy it where the private key is: the manifest says it too",
        })?;
        self.bring_packs(&packs, &format!("snapshot {component}/{id}"))?;
        let packs: Vec<String> = packs.into_iter().collect();
        references::record_references_below(self.to, &folder_of(component, id), &packs)?;
        // What else a newer format puts there, before the manifest that says that it exists.
        let manifest = manifest_of(component, id);
        for object in self.from.store().list(&prefix_of(component, id))? {
            let name = object.name.as_str();
            if name != manifest && !name.contains("/verified-") && !name.contains("/packs-") {
                self.one(name, Some(object.size))?;
            }
        }
        self.one(&manifest, None)
    }
}
