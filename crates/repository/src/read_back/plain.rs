//! Objects that are not sealed, or that only hold keys.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Evidence, EvidenceSource, HeadSaid, ManifestFacts, ObjectClass, Outcome, REMEDY_COPY, Reading,
};
use crate::backup::RestoreTestRecord;
use crate::error::{Error, Result};
use crate::heads::HeadName;
use crate::keys::{Vault, WrapHeader, WrapSuite, from_hex};
use crate::repository::to_json;
use crate::store::ObjectInfo;
use crate::wal::Hole;

/// Of wraps by HPKE.
const WRAP_BYTES: usize = 120;
const REMEDY_KEY: &str = "bre verify audit says whether that key is one of the log's";
/// A repository that says it was made so much later than its oldest object was not.
const CLOCKS_MICROS: i64 = 24 * 3_600_000_000;

#[derive(Deserialize)]
struct FolderReservation {
    restore_id: String,
}

#[derive(Deserialize)]
struct HoldRecord {
    version: u64,
    backup_id: String,
}

impl Reading<'_> {
    fn get(&self, name: &str) -> Result<Vec<u8>> {
        Ok(self.repository.store().get(name)?)
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<T> {
        let bytes = self.get(name)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::damaged(name, 0, format!("it cannot be parsed: {error}")))
    }

    /// What opening the repository does not look at.
    pub(super) fn format(&self, name: &str) -> Result<Outcome> {
        let marker: Map<String, Value> = self.json(name)?;
        let bad = |what: String| Err(Error::damaged(name, 0, what));
        let id = marker.get("repository_id").and_then(Value::as_str);
        let id = id.unwrap_or_default();
        let is_id = from_hex(id).is_some_and(|id| id.len() == 16) && id == id.to_lowercase();
        if !is_id {
            return bad(format!("`{id}` is no repository id"));
        }
        if let Some(known) = self.options.repository_id.filter(|known| *known != id) {
            return bad(format!(
                "it says that this is the repository {id}; the keys belong to {known} (repository.id beside them)"
            ));
        }
        let created = marker.get("created_at_micros").and_then(Value::as_i64);
        let possible = 0..=self.oldest_micros.saturating_add(CLOCKS_MICROS);
        if !created.is_some_and(|at| possible.contains(&at)) {
            return bad(
                "it says that it was made after its oldest object, or at no time".to_owned(),
            );
        }
        // The four fields, as they are written: nothing else has to be read as whole.
        let known = ["format", "version", "repository_id", "created_at_micros"];
        if let Some(unknown) = marker.keys().find(|key| !known.contains(&key.as_str())) {
            let what = format!("it has a field `{unknown}` that this program does not know");
            self.note(
                ObjectClass::Format,
                name,
                &what,
                "Nothing, if a newer engine wrote it",
            );
        }
        Ok(Outcome::Read)
    }

    pub(super) fn cluster(&self, name: &str) -> Result<Outcome> {
        let _: Map<String, Value> = self.json(name)?;
        self.repository.cluster()?;
        Ok(Outcome::Read)
    }

    pub(super) fn wrap(&self, name: &str) -> Result<Outcome> {
        let wrap = self.get(name)?;
        let bad = |what: &str| Error::damaged(name, 0, what);
        let header = WrapHeader::read(&wrap).ok_or_else(|| bad("it is no wrap"))?;
        let vault = Vault::of(name);
        let id = crate::keys::DataKeyId::from_hex(&header.data_key_id);
        let id = id.ok_or_else(|| bad("it names no data key"))?;
        if vault.wrap_name(id, &header.recipient_id) != name {
            return Err(bad("it is the wrap of another data key or recipient"));
        }
        if header.suite == WrapSuite::HpkeX25519 && wrap.len() != WRAP_BYTES {
            return Err(bad("it is not as long as a wrap is"));
        }
        let ours = match vault {
            Vault::Backups => self.options.private,
            Vault::Audit => self.options.archive,
        };
        // A provider is asked for the data keys that are needed, not for each wrap.
        let opener = ours.filter(|_| header.suite == WrapSuite::HpkeX25519);
        let Some(opener) = opener.and_then(|key| key.opener(&header)) else {
            return Ok(Outcome::NotOpened);
        };
        let binding = crate::keys::WrapBinding::new(self.repository.id(), id);
        match opener.unwrap(&binding, &wrap) {
            Ok(_) => Ok(Outcome::Read),
            Err(error) => Err(bad(&error.to_string())),
        }
    }

    pub(super) fn restore_test(&self, name: &str) -> Result<Outcome> {
        let bytes = self.get(name)?;
        let bad = |what: String| Error::damaged(name, 0, what);
        let record: RestoreTestRecord = serde_json::from_slice(&bytes)
            .map_err(|error| bad(format!("it cannot be parsed: {error}")))?;
        let (backup, at) = name
            .strip_prefix("backups/")
            .and_then(|rest| rest.split_once("/proof-"))
            .unwrap_or_default();
        if i64::from_str_radix(at, 16).ok() != Some(record.proved_at_micros) {
            return Err(bad("it says another time than its name".to_owned()));
        }
        let of = record.details.get("backup_id").and_then(Value::as_str);
        if of.is_some_and(|of| of != backup) {
            return Err(bad("it is the record of another backup".to_owned()));
        }
        // As it was written: a byte that changed shows unless what it says changed; that the audit log repeats.
        if to_json(&record) != bytes {
            return Err(bad(
                "it is not in the form in which records are written".to_owned()
            ));
        }
        if let Some(evidence) = Evidence::of_restore_test(name, &record) {
            super::locked(&self.evidence).push(evidence);
        }
        Ok(Outcome::Read)
    }

    /// Its name holds the hash of its bytes.
    pub(super) fn pack_list(&self, name: &str) -> Result<Outcome> {
        let bytes = self.get(name)?;
        let (backup, _) = name
            .strip_prefix("backups/")
            .and_then(|rest| rest.split_once('/'))
            .unwrap_or_default();
        match crate::references::read_list(backup, name, &bytes) {
            Some(_) => Ok(Outcome::Read),
            None => Err(Error::damaged(
                name,
                0,
                "it is not the list that its name promises: expiry without the private key keeps every pack",
            )),
        }
    }

    /// Lists are written just before manifests: one that is missing was lost, unless it is of a time before there were lists.
    pub(super) fn compare_lists(
        &self,
        lists: &[ObjectInfo],
        manifests: &[ManifestFacts],
    ) -> Result<()> {
        let mut listed: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for list in lists {
            let Some((backup, _)) = list
                .name
                .strip_prefix("backups/")
                .and_then(|rest| rest.split_once('/'))
            else {
                continue;
            };
            let packs = match self.repository.store().get(&list.name) {
                Ok(bytes) => crate::references::read_list(backup, &list.name, &bytes),
                Err(_) => None,
            };
            listed
                .entry(backup)
                .or_default()
                .extend(packs.into_iter().flatten());
        }
        let first_listed = listed.keys().next().copied();
        for manifest in manifests {
            let id = manifest.backup_id.as_str();
            let prefix = format!("backups/{id}/packs-…");
            match listed.get(id) {
                // Ids sort by time.
                None if first_listed.is_some_and(|first| first < id) => {
                    let what = "it is missing: expiry without the private key keeps every pack";
                    self.find(ObjectClass::PackList, &prefix, what, REMEDY_COPY);
                }
                None => {
                    let what = "there is none: the backup is of a time before there were lists, or it was lost";
                    self.note(
                        ObjectClass::PackList,
                        &prefix,
                        what,
                        "Expire where the private key is",
                    );
                }
                Some(listed) => {
                    let lacking = manifest.packs.keys().find(|pack| !listed.contains(*pack));
                    if let Some(pack) = lacking {
                        let what = format!(
                            "it lacks the pack {pack}, which the manifest refers to: expiry may delete it"
                        );
                        self.find(ObjectClass::PackList, &prefix, &what, "Put the backup on hold (bre repository hold set), and take a full backup");
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn reservation(&self, name: &str) -> Result<Outcome> {
        let reserved: FolderReservation = self.json(name)?;
        match name.ends_with(&format!(".reserved.{}", reserved.restore_id)) {
            true => Ok(Outcome::Read),
            false => Err(Error::damaged(
                name,
                0,
                "it is the claim of another restore",
            )),
        }
    }

    /// What a head says, by its place in `heads/` or beside it.
    fn said_by_head(&self, name: &str, place: &str) -> Result<HeadSaid> {
        let bytes = self.get(name)?;
        let head = HeadName::parse(place)
            .ok_or_else(|| Error::damaged(name, 0, "its name holds no epoch and size"))?;
        let said = self
            .options
            .audit
            .head(&head.log, head.epoch, head.size, &bytes);
        said.map_err(|what| Error::damaged(name, 0, what))
    }

    pub(super) fn head(&self, name: &str) -> Result<Outcome> {
        let mut evidence = match self.said_by_head(name, name)? {
            HeadSaid::Evidence(evidence) => evidence,
            HeadSaid::Nothing(why) => {
                self.note(ObjectClass::Head, name, &why, REMEDY_KEY);
                return Ok(Outcome::Read);
            }
        };
        evidence.source = EvidenceSource::SignedHead;
        evidence.object = Some(name.to_owned());
        // The newest of the newest epoch is all that is asked for.
        let mut all = super::locked(&self.evidence);
        let is_head = |it: &&mut Evidence| it.source == EvidenceSource::SignedHead;
        match all.iter_mut().find(is_head) {
            Some(known) if known.order() < evidence.order() => *known = evidence,
            Some(_) => {}
            None => all.push(evidence),
        }
        Ok(Outcome::Read)
    }

    /// It speaks of another repository, and of no WAL here.
    pub(super) fn anchor(&self, name: &str) -> Result<Outcome> {
        let place = name.replacen("anchors/", "heads/", 1);
        self.said_by_head(name, &place).map(|_| Outcome::Read)
    }

    pub(super) fn audit_record(&self, class: ObjectClass, name: &str) -> Result<Outcome> {
        let bytes = self.get(name)?;
        let said = self.options.audit.record(class, name, &bytes);
        if let Some(what) = said.map_err(|what| Error::damaged(name, 0, what))? {
            self.note(class, name, &what, REMEDY_KEY);
        }
        Ok(Outcome::Read)
    }

    pub(super) fn kept(&self, name: &str) -> Result<Outcome> {
        match self.get(name)?.is_empty() {
            true => Ok(Outcome::Read),
            false => Err(Error::damaged(
                name,
                0,
                "it holds something, and is to be empty",
            )),
        }
    }

    pub(super) fn tombstone(&self, name: &str) -> Result<Outcome> {
        let bytes = self.get(name)?;
        crate::references::check_tombstone(name, &bytes)?;
        Ok(Outcome::Read)
    }

    /// Nobody reads what is in one.
    pub(super) fn probe(&self, name: &str) -> Result<Outcome> {
        self.get(name).map(|_| Outcome::Read)
    }

    pub(super) fn hold(&self, name: &str) -> Result<Outcome> {
        let record: HoldRecord = self.json(name)?;
        if record.version != 1 {
            return Err(Error::Version {
                object: name.to_owned(),
                found: record.version,
            });
        }
        match name.starts_with(&format!("holds/{}/", record.backup_id)) {
            true => Ok(Outcome::Read),
            false => Err(Error::damaged(name, 0, "it is the hold of another backup")),
        }
    }

    pub(super) fn hole(&self, name: &str) -> Result<Outcome> {
        let hole: Hole = self.json(name)?;
        let said = format!(
            "holes/{:08x}/{:016x}-{:016x}.",
            hole.timeline, hole.start, hole.end
        );
        match name.starts_with(&said) {
            true => Ok(Outcome::Read),
            false => Err(Error::damaged(
                name,
                0,
                "it says another hole than its name",
            )),
        }
    }

    pub(super) fn run(&self, name: &str) -> Result<Outcome> {
        let bytes = self.get(name)?;
        crate::runs::check_run(name, &bytes)?;
        Ok(Outcome::Read)
    }

    pub(super) fn run_month(&self, name: &str) -> Result<Outcome> {
        let bytes = self.get(name)?;
        crate::runs::check_month(name, &bytes)?;
        Ok(Outcome::Read)
    }
}
