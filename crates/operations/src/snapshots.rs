//! Snapshots of what is not the database: which sources there are on this host, and the sealed repository as their
//! sink.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use backup::{
    configuration::{self, ConfigurationError, ConfigurationSource},
    documents::{
        DocumentSource, Documents, Interruption, SealedDocuments, SealedError, SealedOutcome, take,
    },
    infrastructure::{cloudformation, terraform},
};
use host::{instance::Instance, keys, person::machine, progress::Steps};
use repository::{Repository, keys::ChunkIdKey, snapshot::SnapshotDocument};

use crate::{
    application_state::{self, StateComponent},
    error::Error,
    settings_file,
};

/// The instance's own configuration: where it is on this host.
#[derive(Debug)]
pub struct Configuration {
    settings: PathBuf,
    runbooks: PathBuf,
    root: PathBuf,
    plan: PlanDocument,
}

/// The table of jobs and rules as it follows from the settings: from a named file or, without one, from those of this
/// folder. None where those cannot be read: they are kept all the same.
pub type PlanDocument = fn(Option<&Path>, &Path) -> Option<Vec<u8>>;

impl Configuration {
    pub fn of(
        instance: &Instance,
        settings: Option<&Path>,
        plan: PlanDocument,
    ) -> Result<Self, Error> {
        let settings = match settings {
            Some(named) => std::path::absolute(named).map_err(Error::file("cannot find", named))?,
            None => instance.settings(),
        };
        Ok(Self {
            settings,
            runbooks: instance.runbooks(),
            root: instance.root().to_owned(),
            plan,
        })
    }

    fn source(&self) -> ConfigurationSource<'_> {
        let named = self.settings.exists().then_some(self.settings.as_path());
        ConfigurationSource {
            settings: &self.settings,
            plan: (self.plan)(named, &self.root),
            runbooks: &self.runbooks,
            redact_settings: &settings_file::redacted,
        }
    }

    pub fn run(
        &self,
        instance: &Instance,
        repository: &Repository,
        keys: &Path,
        steps: &Steps,
    ) -> Result<SealedOutcome, Error> {
        let mut sink = sealed(instance, repository, keys)?;
        let (outcome, ()) = take::<_, _, Error>(&self.source(), &mut sink, steps)?;
        Ok(outcome)
    }

    /// As they are now, to compare with a snapshot.
    pub fn documents(&self, steps: &Steps) -> Result<Documents, Error> {
        let (collection, ()) = self.source().collect(steps)?;
        Ok(collection.documents)
    }

    pub fn place_of(&self, document: &SnapshotDocument) -> Option<PathBuf> {
        configuration::place_of(&document.name, &self.settings, &self.runbooks)
    }
}

/// The repository as a sink, with what this host has of its keys.
pub(crate) fn sealed(
    instance: &Instance,
    repository: &Repository,
    keys: &Path,
) -> Result<SealedDocuments, Error> {
    let mut facts = BTreeMap::new();
    facts.insert("engine".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    facts.insert("folder".to_owned(), instance.root().display().to_string());
    facts.insert("host".to_owned(), machine());
    Ok(SealedDocuments {
        repository: repository.clone(),
        public: keys::writing_key(keys)?,
        chunk_key: ChunkIdKey::load(&keys.join("chunk_id.key"))?,
        cache: Some(instance.cache()),
        private: keys::reading_key_if_here(keys)?,
        facts,
    })
}

/// Without secrets, by the rules of its component. One that is not known here may be all secret.
pub fn redacted(
    configuration: &Configuration,
    component: &str,
    name: &str,
    content: &[u8],
) -> String {
    if let Some(of_cluster) = StateComponent::named(component) {
        return application_state::redacted(of_cluster, name, content);
    }
    match component {
        configuration::COMPONENT => configuration.source().redacted(name, content),
        // A template's own secrets are hidden by Amazon.
        cloudformation::COMPONENT => String::from_utf8_lossy(content).into_owned(),
        component if component.starts_with("terraform_") => terraform::redacted(name, content),
        _ => format!(
            "({} bytes; it is not known here what of them is secret)",
            content.len()
        ),
    }
}

impl From<Interruption> for Error {
    fn from(_: Interruption) -> Self {
        Self::failed("interrupted; no snapshot was taken")
    }
}

impl From<SealedError> for Error {
    fn from(error: SealedError) -> Self {
        match error {
            SealedError::Repository(error) => error.into(),
            SealedError::NotRead(_) => Self::refused("no snapshot was taken", error.to_string()),
            other @ SealedError::NotTheSame { .. } => Self::failed(other.to_string()),
        }
    }
}

impl From<ConfigurationError> for Error {
    fn from(error: ConfigurationError) -> Self {
        match error {
            ConfigurationError::File { what, path, source } => {
                host::Error::File { what, path, source }.into()
            }
            other @ ConfigurationError::Odd { .. } => {
                Self::refused("no snapshot was taken", other.to_string())
            }
        }
    }
}
