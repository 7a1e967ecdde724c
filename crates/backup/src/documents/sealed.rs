//! Into the sealed repository, as a snapshot. Where the private key is here what was written is read back and
//! compared, and the result is recorded; elsewhere it cannot be.

use std::path::PathBuf;

use repository::Repository;
use repository::keys::{ChunkIdKey, RecipientPrivate, RecipientPublic};
use repository::snapshot::{
    SnapshotOptions, SnapshotOutcome, SnapshotReader, SnapshotWriter, Verification,
    put_verification,
};
use serde_json::Map;

use super::{Collection, DocumentSink, Documents};
use crate::{Progress, now_micros};

#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    #[error(transparent)]
    Repository(#[from] repository::Error),
    #[error(
        "{} of the documents could not be read, {} for one: no snapshot is taken of a part. Make them readable, \
         or take them away",
        .0.len(), .0.first().map_or("none", String::as_str)
    )]
    NotRead(Vec<String>),
    #[error(
        "snapshot {id} of {component} was written and does not read back as it was: {what}. It stays, marked as \
         failed; take another one, and look at the repository (bre verify repository)"
    )]
    NotTheSame {
        component: String,
        id: String,
        what: String,
    },
}

#[derive(Debug)]
pub struct SealedDocuments {
    pub repository: Repository,
    pub public: RecipientPublic,
    pub chunk_key: ChunkIdKey,
    /// Of the writing host; without it everything is stored again each time.
    pub cache: Option<PathBuf>,
    /// Where it is here: to read back.
    pub private: Option<RecipientPrivate>,
    /// Facts about who takes it, sealed: `host`, `engine`, `folder`.
    pub facts: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
pub struct SealedOutcome {
    pub snapshot: SnapshotOutcome,
    /// False: the private key is not here, or it was verified when it was taken.
    pub is_read_back: bool,
}

impl DocumentSink for SealedDocuments {
    type Error = SealedError;
    type Outcome = SealedOutcome;

    fn prepare(&mut self, progress: &dyn Progress) -> Result<(), SealedError> {
        progress.message("looking at the repository");
        // A store that is away says so before anything is collected.
        self.repository
            .store()
            .size(repository::store::MARKER)
            .map_err(repository::Error::from)?;
        Ok(())
    }

    fn keep(
        &mut self,
        component: &str,
        collection: Collection,
        _: &dyn Fn(&Documents, &Documents) -> Vec<String>,
    ) -> Result<SealedOutcome, SealedError> {
        if !collection.not_read.is_empty() {
            return Err(SealedError::NotRead(collection.not_read));
        }
        let options = SnapshotOptions {
            cache: self.cache.clone(),
            ..SnapshotOptions::default()
        };
        let mut writer = SnapshotWriter::begin(
            &self.repository,
            &self.public,
            &self.chunk_key,
            component,
            now_micros(),
            options,
        )?;
        for (name, document) in &collection.documents {
            let content = &mut document.content.as_slice();
            writer.document(name, document.attributes.clone(), content)?;
        }
        let snapshot = writer.finish(self.facts.clone(), now_micros())?;
        let is_read_back = match &self.private {
            Some(private) if snapshot.is_new => {
                self.read_back(private, component, &snapshot.id, &collection.documents)?;
                true
            }
            _ => false,
        };
        Ok(SealedOutcome {
            snapshot,
            is_read_back,
        })
    }
}

impl SealedDocuments {
    /// Every byte, against what was collected.
    fn read_back(
        &self,
        private: &RecipientPrivate,
        component: &str,
        id: &str,
        documents: &Documents,
    ) -> Result<(), SealedError> {
        let found = self.compare(private, component, id, documents);
        let difference = match &found {
            Err(error) if !error.is_damage() => return Ok(found.map(drop)?),
            Err(error) => Some(error.to_string()),
            Ok(difference) => difference.clone(),
        };
        let mut record = Verification {
            verified_at_micros: now_micros(),
            passed: difference.is_none(),
            details: Map::new(),
        };
        let count = documents.len() as u64;
        record.details.insert("documents".to_owned(), count.into());
        if difference.is_some() {
            // The record is not sealed: it names no document.
            let why = "it does not read back as it was collected";
            record.details.insert("why".to_owned(), why.into());
        }
        put_verification(&self.repository, component, id, &record)?;
        match difference {
            None => Ok(()),
            Some(what) => Err(SealedError::NotTheSame {
                component: component.to_owned(),
                id: id.to_owned(),
                what,
            }),
        }
    }

    /// What differs, if anything does.
    fn compare(
        &self,
        private: &RecipientPrivate,
        component: &str,
        id: &str,
        documents: &Documents,
    ) -> Result<Option<String>, repository::Error> {
        let reader = SnapshotReader::open(&self.repository, private, component, id)?;
        if reader.documents().len() != documents.len() {
            return Ok(Some("it holds another number of documents".to_owned()));
        }
        for found in reader.documents() {
            let taken = documents.get(&found.name);
            let content = reader.read(found)?;
            let same =
                taken.is_some_and(|it| it.content == content && it.attributes == found.attributes);
            if !same {
                return Ok(Some(format!("the document {}", found.name)));
            }
        }
        Ok(None)
    }
}
