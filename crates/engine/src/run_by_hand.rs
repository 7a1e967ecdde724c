//! A job that a person runs now, in a process of its own: the same job, lock and record as the engine's.

use std::sync::Arc;

use jobs::{OneRun, Outcome, RunContext};
use postgres_physical::{
    server::{Binaries, OsUser},
    wire::ConnectOptions,
};
use repository::keys::ChunkIdKey;

use host::{
    database::{BACKUP, DATABASE, SUPERUSER},
    instance::Instance,
    keys,
    person::who,
    signals::interrupted,
};

use crate::{
    backup_request::{Reading, ReadingSelection},
    config::Config,
    error::Error,
    jobs::{
        Caller, JobResult, Moment, RunArchive, Shared, host_name, names, needs_the_engine,
        registry, settings,
    },
    repository_handle::{RepositoryHandle, RepositorySelection},
};

/// None: there is nothing to show of it. `json`: of what it says meanwhile.
pub(crate) fn run_by_hand(
    instance: &Instance,
    json: bool,
    name: &str,
    reading: ReadingSelection,
) -> Result<Option<JobResult>, Error> {
    let config = settings::load(None, instance.root())?;
    let needs_the_engine =
        needs_the_engine(&config.backup, name).ok_or_else(|| jobs::Error::UnknownJob {
            name: name.to_owned(),
            known: names(&config.backup),
        })?;
    let database = match needs_the_engine {
        true => Some(instance.running()?.database_url),
        false => None,
    };
    let opened = RepositoryHandle::at(instance, RepositorySelection::default())?;
    let moment = Moment {
        reading: Reading::new(&config.backup, reading),
        ..moment(instance, &config, &opened, database.as_deref())?
    };
    let caller = Caller::Person { json };
    let shared = Arc::new(Shared::new(instance, &config.backup, caller, moment));
    let archive = RunArchive(opened.repository);
    let one = OneRun {
        root: instance.root(),
        archive: Some(&archive),
        host: &host_name(),
    };
    let context = RunContext::asked(who(), interrupted()?);
    let record = one.run(&registry(&shared)?, name, &context)?;
    if let Some(result) = shared.take_result() {
        return Ok(Some(result));
    }
    match shared.take_failure() {
        Some(error) => Err(error),
        None if record.outcome == Outcome::Succeeded => Ok(None),
        None => Err(Error::failed(record.reason.unwrap_or(record.summary))),
    }
}

/// As far as this host has it; what a job lacks it says itself.
fn moment(
    instance: &Instance,
    config: &Config,
    opened: &RepositoryHandle,
    database: Option<&str>,
) -> Result<Moment, Error> {
    let connect = database
        .map(ConnectOptions::from_url)
        .transpose()
        .map_err(|error| Error::failed(error.to_string()))?;
    let as_role = |role: &str, database: &str| {
        let connect = connect.clone()?;
        Some(connect.with_user(role).with_database(database))
    };
    Ok(Moment {
        repository: opened.repository.clone(),
        private: keys::reading_key_if_here(&opened.keys)?,
        public: keys::writing_key(&opened.keys).ok(),
        chunk_id: ChunkIdKey::load(&instance.keys().join("chunk_id.key")).ok(),
        binaries: Binaries::find(config.database.binaries.as_deref()).ok(),
        user: OsUser::for_server().ok(),
        connect: as_role(BACKUP, "postgres"),
        definitions: as_role(SUPERUSER, DATABASE),
        stream: None,
        // It streams, or the backup waits for its WAL and says so.
        attached: true,
        label: "by hand",
        reading: Reading::new(&config.backup, ReadingSelection::default()),
    })
}
