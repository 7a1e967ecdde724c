//! What is not a database: named documents of one component. A [`DocumentSource`] says what they are now, a
//! [`DocumentSink`] keeps them, and [`take`] is the one operation between the two: collect, bring into canonical
//! form, compare with the newest, keep what differs.

mod git;
mod sealed;

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::Progress;

pub(crate) use git::{GitDocuments, present};
pub use git::{GitError, GitOutcome, without_credentials};
pub use sealed::{SealedDocuments, SealedError, SealedOutcome};

/// Wiped when it is dropped: many hold secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    pub content: Zeroizing<Vec<u8>>,
    /// `mode` (octal, of a file) and `derived` ("true": made from others, not to be restored) are understood by all.
    pub attributes: BTreeMap<String, String>,
}

/// By name: a relative path.
pub type Documents = BTreeMap<String, Document>;

/// What a source found.
#[derive(Debug, Default)]
pub struct Collection {
    pub documents: Documents,
    /// Names of those that exist and could not be read: what was kept of them before stays. A name that ends with `/`
    /// is all below it.
    pub not_read: Vec<String>,
}

/// One component of a system.
pub trait DocumentSource {
    type Error;
    /// What else it has to say of a collection.
    type Report;

    /// As the repository names it.
    fn component(&self) -> &str;
    fn collect(&self, progress: &dyn Progress) -> Result<(Collection, Self::Report), Self::Error>;
    /// The same bytes whenever a document means the same.
    fn canonical(&self, name: &str, document: Document) -> Document {
        let _ = name;
        document
    }
    /// For display: without a secret.
    fn redacted(&self, name: &str, content: &[u8]) -> String;
    /// What changed, one line each, where the sink can compare contents.
    fn changes(&self, before: &Documents, after: &Documents) -> Vec<String> {
        let mut changes = Vec::new();
        for (name, document) in after {
            match before.get(name) {
                None => changes.push(format!("{name} added")),
                Some(earlier) if earlier != document => changes.push(format!("{name} changed")),
                Some(_) => {}
            }
        }
        let gone = before.keys().filter(|name| !after.contains_key(*name));
        changes.extend(gone.map(|name| format!("{name} removed")));
        changes
    }
}

/// Where documents are kept.
pub trait DocumentSink {
    type Error;
    type Outcome;

    /// Before anything is collected: a sink that cannot be reached costs the source nothing.
    fn prepare(&mut self, progress: &dyn Progress) -> Result<(), Self::Error>;
    /// Nothing is written where nothing differs from the newest.
    fn keep(
        &mut self,
        component: &str,
        collection: Collection,
        changes: &dyn Fn(&Documents, &Documents) -> Vec<String>,
    ) -> Result<Self::Outcome, Self::Error>;
}

/// Somebody asked to stop before anything was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interruption;

pub fn take<S: DocumentSource, K: DocumentSink, E>(
    source: &S,
    sink: &mut K,
    progress: &dyn Progress,
) -> Result<(K::Outcome, S::Report), E>
where
    E: From<S::Error> + From<K::Error> + From<Interruption>,
{
    sink.prepare(progress)?;
    let (mut collection, report) = source.collect(progress)?;
    if progress.cancelled() {
        return Err(Interruption.into());
    }
    collection.documents = collection
        .documents
        .into_iter()
        .map(|(name, document)| {
            let document = source.canonical(&name, document);
            (name, document)
        })
        .collect();
    let changes = |before: &Documents, after: &Documents| source.changes(before, after);
    let outcome = sink.keep(source.component(), collection, &changes)?;
    Ok((outcome, report))
}
