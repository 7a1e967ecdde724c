//! Sealed objects: opened with the keys at hand, or checked by what is clear of them.

use super::{ManifestFacts, Outcome, Reading};
use crate::archive::{content_of, part_of};
use crate::error::{Error, Result};
use crate::keys::{ChunkIdKey, KeyRing};
use crate::manifest::ManifestBody;
use crate::pack::{Identifier, check_pack};
use crate::pipeline::{
    BOX_HEADER, BoxHeader, BoxKind, ObjectHeader, ObjectKind, open_single, read_header,
};
use crate::store::ObjectInfo;
use crate::wal::{check_clear_segment, check_segment, check_tail};

impl Reading<'_> {
    /// The ring that opens this object; `None` when none does.
    pub(super) fn ring<'s>(
        &'s self,
        ring: Option<&'s KeyRing>,
        name: &str,
        header: &ObjectHeader,
    ) -> Result<Option<&'s KeyRing>> {
        Ok(match self.key(ring, name, header.data_key)? {
            true => ring,
            false => None,
        })
    }

    /// One box to the end of the object, for which there is no key.
    pub(super) fn clear_box(
        name: &str,
        bytes: &[u8],
        kinds: (ObjectKind, BoxKind),
    ) -> Result<ObjectHeader> {
        let (header, len) = ObjectHeader::decode(name, bytes)?;
        let boxes = boxes_of(name, &bytes[len..], len as u64)?;
        match (header.kind == kinds.0, boxes.as_slice()) {
            (true, [only]) if only.kind == kinds.1 => Ok(header),
            _ => Err(Error::damaged(
                name,
                len as u64,
                "it is of another kind than its name says",
            )),
        }
    }

    pub(super) fn pack(&self, object: &ObjectInfo) -> Result<Outcome> {
        let name = object.name.as_str();
        let bytes = self.repository.store().get(name)?;
        let (header, _) = ObjectHeader::decode(name, &bytes)?;
        let ring = self.ring(self.backups.as_ref(), name, &header)?;
        let key = ring
            .map(|ring| ring.key(name, header.data_key))
            .transpose()?;
        let identifiers = super::locked(&self.identifiers).clone();
        let identifiers: Vec<Identifier> = identifiers.into_iter().map(|(_, it)| it).collect();
        check_pack(name, &bytes, key.as_deref(), &identifiers)?;
        Ok(match key {
            Some(_) => Outcome::Read,
            None => Outcome::NotOpened,
        })
    }

    pub(super) fn manifest(&self, name: &str) -> Result<Outcome> {
        let bytes = self.repository.store().get(name)?;
        let kinds = (ObjectKind::Manifest, BoxKind::Manifest);
        let header = Self::clear_box(name, &bytes, kinds)?;
        let summary = crate::backup::read_summary(self.repository, name, &header.clear)?;
        super::locked(&self.evidence).push(super::Evidence::of_backup(&summary));
        let Some(ring) = self.ring(self.backups.as_ref(), name, &header)? else {
            return Ok(Outcome::NotOpened);
        };
        let (_, opened) = open_single(ring, name, &bytes, kinds)?;
        let raw = zeroize::Zeroizing::new(opened.raw);
        let bad = |what: &str| Error::damaged(name, 0, what);
        let body: ManifestBody =
            serde_json::from_slice(&raw).map_err(|_| bad("its body cannot be parsed"))?;
        let key = ChunkIdKey::from_hex(&body.chunk_id_key)
            .ok_or_else(|| bad("its chunk id key is none"))?;
        self.identify_by(&body.chunk_id_key, &key);
        super::locked(&self.manifests).push(ManifestFacts {
            backup_id: summary.id,
            packs: body
                .packs
                .iter()
                .map(|pack| (pack.id.clone(), pack.bytes))
                .collect(),
        });
        Ok(Outcome::Read)
    }

    /// Packs hold what its ids say under one of the keys that manifests name.
    pub(super) fn identify_by(&self, hex: &str, key: &ChunkIdKey) {
        let mut identifiers = super::locked(&self.identifiers);
        if !identifiers.iter().any(|(known, _)| known == hex) {
            identifiers.push((hex.to_owned(), Identifier::new(key)));
        }
    }

    pub(super) fn segment(&self, name: &str) -> Result<Outcome> {
        let (header, _) = read_header(self.repository.store(), name)?;
        match self.ring(self.backups.as_ref(), name, &header)? {
            Some(ring) => check_segment(ring, name).map(|()| Outcome::Read),
            None => check_clear_segment(self.repository, name).map(|()| Outcome::NotOpened),
        }
    }

    pub(super) fn tail(&self, name: &str) -> Result<Outcome> {
        let key = |id| match self.key(self.backups.as_ref(), name, id)? {
            true => self
                .backups
                .as_ref()
                .map(|ring| ring.key(name, id))
                .transpose(),
            false => Ok(None),
        };
        Ok(match check_tail(self.repository, name, &key)? {
            true => Outcome::Read,
            false => Outcome::NotOpened,
        })
    }

    pub(super) fn history(&self, name: &str) -> Result<Outcome> {
        let bytes = self.repository.store().get(name)?;
        let kinds = (ObjectKind::History, BoxKind::History);
        let header = Self::clear_box(name, &bytes, kinds)?;
        let Some(ring) = self.ring(self.backups.as_ref(), name, &header)? else {
            return Ok(Outcome::NotOpened);
        };
        let (_, opened) = open_single(ring, name, &bytes, kinds)?;
        match crate::timelines::parse(&opened.raw) {
            Some(_) => Ok(Outcome::Read),
            None => Err(Error::damaged(name, 0, "it is no timeline history")),
        }
    }

    pub(super) fn audit_entries(&self, name: &str) -> Result<Outcome> {
        let bytes = self.repository.store().get(name)?;
        let kinds = (ObjectKind::AuditArchive, BoxKind::AuditEntries);
        let header = Self::clear_box(name, &bytes, kinds)?;
        let part = part_of(name, &header)?;
        let Some(ring) = self.ring(self.archive.as_ref(), name, &header)? else {
            return Ok(Outcome::NotOpened);
        };
        let (_, opened) = open_single(ring, name, &bytes, kinds)?;
        let content = content_of(name, &part, &opened.raw)?;
        let said = self.options.audit.stretch(&part, &content);
        said.map_err(|what| Error::damaged(name, 0, what))?;
        Ok(Outcome::Read)
    }

    pub(super) fn log_stretch(&self, name: &str) -> Result<Outcome> {
        let bytes = self.repository.store().get(name)?;
        let kinds = (ObjectKind::LogStretch, BoxKind::LogLines);
        let header = Self::clear_box(name, &bytes, kinds)?;
        let stretch = crate::log_stretches::stretch_of(name, &header)?;
        let Some(ring) = self.ring(self.archive.as_ref(), name, &header)? else {
            return Ok(Outcome::NotOpened);
        };
        let (_, opened) = open_single(ring, name, &bytes, kinds)?;
        crate::log_stretches::lines_of(name, &stretch, &opened.raw).map(|_| Outcome::Read)
    }
}

/// The headers of boxes that follow each other to the end of `bytes`, the first of which lies at `offset` of the object.
pub(crate) fn boxes_of(name: &str, bytes: &[u8], offset: u64) -> Result<Vec<BoxHeader>> {
    let (mut boxes, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let start = at;
        let damaged = |what: &str| Error::damaged(name, offset + start as u64, what);
        let header = bytes.get(at..at + BOX_HEADER);
        let header = header.and_then(|header| header.first_chunk());
        let header = header.and_then(BoxHeader::decode);
        let header = header.ok_or_else(|| damaged("a box header does not match its check"))?;
        at += header.box_len();
        if at > bytes.len() {
            return Err(damaged("it ends inside a box"));
        }
        boxes.push(header);
    }
    Ok(boxes)
}
