//! Snapshots: manifests, their lists and verifications, and what they refer to.

use std::collections::{BTreeMap, BTreeSet};

use super::{ObjectClass, Outcome, REMEDY_COPY, Reading, is_of_all, locked};
use crate::error::{Error, Result, StoreError};
use crate::keys::ChunkIdKey;
use crate::pipeline::{BoxKind, ObjectHeader, ObjectKind, open_single};
use crate::progress::Progress;
use crate::repository::to_json;
use crate::snapshot::{
    SnapshotReader, folder_of, is_newer, parse_body, parse_verification, place_of, prefix_of,
    read_snapshot_header,
};
use crate::store::ObjectInfo;

/// What the manifest of a snapshot says of the packs that it refers to.
pub(super) struct SnapshotFacts {
    component: String,
    id: String,
    packs: BTreeMap<String, u64>,
}

impl Reading<'_> {
    pub(super) fn snapshot(&self, name: &str) -> Result<Outcome> {
        let bytes = self.repository.store().get(name)?;
        let header = ObjectHeader::decode(name, &bytes).map(|(header, _)| header);
        let said = header.and_then(|header| read_snapshot_header(name, &header));
        if let Some(version) = said.as_ref().err().and_then(is_newer) {
            return Ok(self.newer_snapshot(name, version));
        }
        let said = said?;
        let kinds = (ObjectKind::Snapshot, BoxKind::Snapshot);
        let header = Self::clear_box(name, &bytes, kinds)?;
        let Some(ring) = self.ring(self.backups.as_ref(), name, &header)? else {
            return Ok(Outcome::NotOpened);
        };
        let (_, opened) = open_single(ring, name, &bytes, kinds)?;
        let body = parse_body(name, &zeroize::Zeroizing::new(opened.raw))?;
        let key = ChunkIdKey::from_hex(&body.chunk_id_key)
            .ok_or_else(|| Error::damaged(name, 0, "its chunk id key is none"))?;
        self.identify_by(&body.chunk_id_key, &key);
        let packs = body.packs.iter().map(|pack| (pack.id.clone(), pack.bytes));
        locked(&self.snapshots).push(SnapshotFacts {
            component: said.component,
            id: said.snapshot_id,
            packs: packs.collect(),
        });
        Ok(Outcome::Read)
    }

    fn newer_snapshot(&self, name: &str, version: u64) -> Outcome {
        let what = format!(
            "it has format version {version}, this program reads version 1: it was not read"
        );
        let remedy = "Use a newer program to read it; expiry keeps it, and what it refers to";
        self.note(ObjectClass::Snapshot, name, &what, remedy);
        let why = format!("snapshots of format version {version}, this program reads version 1");
        locked(&self.closed).insert(why);
        Outcome::NotOpened
    }

    pub(super) fn snapshot_pack_list(&self, name: &str) -> Result<Outcome> {
        let bytes = self.repository.store().get(name)?;
        let (component, id) = place_of(name).unwrap_or_default();
        let folder = folder_of(component, id);
        match crate::references::read_list_below(&folder, name, &bytes) {
            Some(_) => Ok(Outcome::Read),
            None => Err(Error::damaged(
                name,
                0,
                "it is not the list that its name promises: expiry without the private key keeps every pack",
            )),
        }
    }

    pub(super) fn snapshot_verification(&self, name: &str) -> Result<Outcome> {
        let bytes = self.repository.store().get(name)?;
        let record = parse_verification(name, &bytes)?;
        match to_json(&record) == bytes {
            true => Ok(Outcome::Read),
            false => Err(Error::damaged(
                name,
                0,
                "it is not in the form in which records are written",
            )),
        }
    }

    /// Packs that a manifest names are here, as long as it says and on its list; every chunk is in one of them.
    pub(super) fn compare_snapshots(
        &self,
        objects: &BTreeMap<ObjectClass, Vec<ObjectInfo>>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let none = Vec::new();
        let packs = objects.get(&ObjectClass::Pack).unwrap_or(&none).iter();
        let packs: BTreeMap<&str, u64> = packs
            .filter_map(|it| Some((it.name.strip_prefix("packs/")?, it.size)))
            .collect();
        let expiring = crate::references::expiring_snapshots(self.repository)?;
        for facts in std::mem::take(&mut *locked(&self.snapshots)) {
            let place = (facts.component.clone(), facts.id.clone());
            if progress.cancelled() || expiring.contains(&place) {
                continue;
            }
            let what = format!("snapshot {}/{}", facts.component, facts.id);
            for (pack, bytes) in &facts.packs {
                let name = format!("packs/{pack}");
                let found = match packs.get(pack.as_str()) {
                    Some(size) if size == bytes => continue,
                    Some(size) => format!("it has {size} bytes, {what} wrote {bytes}"),
                    // Expired since the listing.
                    None if self.repository.store().size(&name).is_ok() => continue,
                    None => format!("it is missing; {what} refers to it"),
                };
                self.find(ObjectClass::Pack, &name, &found, REMEDY_COPY);
            }
            self.compare_snapshot_list(&facts)?;
            self.compare_documents(&facts)?;
        }
        Ok(())
    }

    fn compare_snapshot_list(&self, facts: &SnapshotFacts) -> Result<()> {
        let (component, id) = (facts.component.as_str(), facts.id.as_str());
        let folder = folder_of(component, id);
        let lists = self.repository.store().list(&format!("{folder}/packs-"))?;
        let mut listed = BTreeSet::new();
        for list in &lists {
            if let Ok(bytes) = self.repository.store().get(&list.name) {
                let packs = crate::references::read_list_below(&folder, &list.name, &bytes);
                listed.extend(packs.into_iter().flatten());
            }
        }
        let lacking = facts.packs.keys().find(|pack| !listed.contains(*pack));
        let what = match (lists.is_empty(), lacking) {
            (true, _) => {
                "it is missing: expiry without the private key keeps every pack".to_owned()
            }
            (false, None) => return Ok(()),
            (false, Some(pack)) => format!(
                "it lacks the pack {pack}, which the manifest refers to: expiry may delete it"
            ),
        };
        let name = format!("{}packs-…", prefix_of(component, id));
        let remedy = "Put the snapshot on hold (bre repository hold set), and take another one";
        self.find(ObjectClass::SnapshotPackList, &name, &what, remedy);
        Ok(())
    }

    fn compare_documents(&self, facts: &SnapshotFacts) -> Result<()> {
        let Some(private) = self.options.private else {
            return Ok(());
        };
        let (component, id) = (facts.component.as_str(), facts.id.as_str());
        let name = crate::snapshot::manifest_of(component, id);
        let class = ObjectClass::Snapshot;
        match SnapshotReader::open(self.repository, private, component, id) {
            Ok(reader) => {
                if let Some(document) = reader.unindexed_document() {
                    let what =
                        format!("a chunk of the document `{document}` is in no pack that it names");
                    self.find(class, &name, &what, REMEDY_COPY);
                }
            }
            Err(Error::Store(StoreError::NotFound { .. } | StoreError::Cold { .. })) => {}
            Err(error) if is_of_all(&error) => return Err(error),
            Err(Error::WrongKey(_) | Error::KeyClosed(_)) => {}
            Err(error) => self.found(class, &name, &error),
        }
        Ok(())
    }
}
