//! A job that a person runs now: the same job, lock and record whichever process runs it.

use std::{path::Path, sync::Arc};

use jobs::{OneRun, RunContext};
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
    clusters,
    command_output::CommandOutput,
    config,
    error::Error,
    jobs::{
        Caller, JobEnvironment, Moment, RunArchive, Screens, answer, by_hand, host_name, names,
        registry, run_there, settings,
    },
    repository_handle::{RepositoryHandle, RepositorySelection},
};

/// By the process that has the plan, where one answers; otherwise here. Until its end either way: what ends this
/// process by a signal tells the run to end, too.
pub fn run_by_hand(
    instance: &Instance,
    json: bool,
    name: &str,
    reading: ReadingSelection,
    cluster: Option<&str>,
    screens: Screens,
) -> Result<CommandOutput, Error> {
    let config = settings::load(None, instance.root())?;
    let cluster = cluster.map(|name| clusters::find(instance, name));
    let cluster = cluster.transpose()?;
    let (home, plan) = match &cluster {
        Some(cluster) => (&cluster.instance, &cluster.plan),
        None => (instance, &config.backup),
    };
    let by_hand = by_hand(plan, name).ok_or_else(|| jobs::Error::UnknownJob {
        name: name.to_owned(),
        known: names(plan),
    })?;
    if let Some(reason) = by_hand.refusal {
        let (job, reason) = (by_hand.job, reason.to_owned());
        return Err(jobs::Error::Unavailable { job, reason }.into());
    }
    let options = serde_json::to_string(&reading).ok();
    let interrupted = interrupted()?;
    if home.is_locked()
        && let Some(shown) = run_there(home, json, &by_hand.job, options.clone(), &interrupted)?
    {
        return Ok(shown);
    }
    let roles = match &cluster {
        Some(cluster) => {
            cluster.prepare()?;
            Roles {
                backup: Some(cluster.connect.clone()),
                definitions: None,
            }
        }
        None if by_hand.needs_the_engine => Roles::of_engine(&instance.running()?.database_url)?,
        None => Roles::default(),
    };
    let selection = RepositorySelection {
        cluster: cluster.as_ref().map(|cluster| cluster.name.clone()),
        ..RepositorySelection::default()
    };
    let opened = RepositoryHandle::at(instance, selection)?;
    let binaries = config.database.binaries.as_deref();
    let moment = moment(home, plan, binaries, &opened, roles)?;
    let caller = Caller::Person { json };
    let environment = Arc::new(JobEnvironment::new(home, plan, caller, screens, moment));
    let archive = RunArchive(opened.repository);
    let one = OneRun {
        root: home.root(),
        archive: Some(&archive),
        host: &host_name(),
    };
    let context = RunContext::asked(who(), interrupted).with_options(options);
    let record = one.run(&registry(&environment)?, name, &context)?;
    answer::read(&record, context.take_answer())
}

/// How the database is reached, as which roles.
#[derive(Default)]
struct Roles {
    backup: Option<ConnectOptions>,
    definitions: Option<ConnectOptions>,
}

impl Roles {
    fn of_engine(url: &str) -> Result<Self, Error> {
        let connect = ConnectOptions::from_url(url);
        let connect = connect.map_err(|error| Error::failed(error.to_string()))?;
        let definitions = connect.clone().with_user(SUPERUSER).with_database(DATABASE);
        Ok(Self {
            backup: Some(connect.with_user(BACKUP).with_database("postgres")),
            definitions: Some(definitions),
        })
    }
}

/// As far as this host has it; what a job lacks it says itself.
fn moment(
    home: &Instance,
    plan: &config::Backup,
    binaries: Option<&Path>,
    opened: &RepositoryHandle,
    roles: Roles,
) -> Result<Moment, Error> {
    Ok(Moment {
        repository: opened.repository.clone(),
        private: keys::reading_key_if_here(&opened.keys)?,
        public: keys::writing_key(&opened.keys).ok(),
        chunk_id: ChunkIdKey::load(&home.keys().join("chunk_id.key")).ok(),
        binaries: Binaries::find(binaries).ok(),
        user: OsUser::for_server().ok(),
        connect: roles.backup,
        definitions: roles.definitions,
        stream: None,
        // It streams, or the backup waits for its WAL and says so.
        attached: true,
        label: "by hand",
        reading: Reading::new(plan, ReadingSelection::default()),
    })
}
