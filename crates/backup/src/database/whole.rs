//! Whether a backup holds all that the cluster had. While somebody removes the data folder the server still answers, and passes
//! over every file that is gone: what is copied then is no backup.

use postgres_physical::server::{databases, sql::Client};
use postgres_physical::wire::{ConnectOptions, WireError};
use repository::backup::BackupWriter;

use crate::{BackupError, Result};

/// Without these PostgreSQL starts on no data folder.
const OF_THE_CLUSTER: [&str; 3] = ["PG_VERSION", "global/pg_control", "global/pg_filenode.map"];
/// And without these it opens no database.
const OF_A_DATABASE: [&str; 2] = ["PG_VERSION", "pg_filenode.map"];

/// What was there when the backup began stays there, unless it is dropped: rows that are older than this transaction.
#[derive(Debug, Clone)]
pub(super) struct Beginning(String);

impl Beginning {
    pub(super) fn now(connect: &ConnectOptions) -> Result<Self> {
        let xid =
            "SELECT pg_catalog.txid_snapshot_xmin(pg_catalog.txid_current_snapshot()) % 4294967296";
        let xid = Client::connect(connect)?.value(xid)?;
        xid.map(Self)
            .ok_or_else(|| BackupError::Source("the server names no transaction".to_owned()))
    }

    /// For SQL: whether the row that this `xmin` is of is older.
    fn is_after(&self, xmin: &str) -> String {
        format!(
            "pg_catalog.age({xmin}) > pg_catalog.age('{}'::pg_catalog.xid)",
            self.0
        )
    }
}

/// Relations that were there from the beginning to the end, and whose files the backup does not have. An error where the server
/// itself misses files, or the backup those without which nothing starts.
pub(super) fn missing_relations(
    connect: &ConnectOptions,
    beginning: &Beginning,
    writer: &BackupWriter,
) -> Result<Vec<String>> {
    // A login reads the files of the cluster and of its database anew.
    let mut client = Client::connect(connect).map_err(gone)?;
    let lost = OF_THE_CLUSTER.iter().find(|path| !writer.has_file(path));
    if let Some(path) = lost {
        return Err(BackupError::FilesGone(vec![(*path).to_owned()]));
    }
    for folder in folders(&mut client, beginning)? {
        let paths = OF_A_DATABASE.map(|name| format!("{folder}/{name}"));
        if let Some(path) = paths.into_iter().find(|path| !writer.has_file(path)) {
            return Err(BackupError::FilesGone(vec![path]));
        }
    }
    let listed = databases(&mut client)?;
    let mut missing = Vec::new();
    for database in listed.iter().filter(|it| it.is_open()) {
        let connect = connect.clone().with_database(&database.name);
        match missing_in(&connect, beginning, writer) {
            Ok(paths) => {
                let named = |what| format!("{what} in database {:?}", database.name);
                missing.extend(paths.into_iter().map(named));
            }
            // It may be dropped by now, or not be ours to look into.
            Err(error)
                if error.server_message().is_some() && !is_of_files(&error) && !error.is_away() =>
            {
                tracing::warn!(%error, database = database.name, "whether the backup has all files of a database was not looked at");
            }
            Err(error) => return Err(gone(error)),
        }
    }
    Ok(missing)
}

/// Of databases in the default tablespace.
fn folders(client: &mut Client, beginning: &Beginning) -> Result<Vec<String>> {
    let is_old = beginning.is_after("xmin");
    let rows = client.query(&format!(
        "SELECT 'base/' || oid FROM pg_catalog.pg_database WHERE dattablespace = 1663 AND datconnlimit <> -2 AND {is_old}"
    ))?;
    let first = |row: Vec<Option<String>>| row.into_iter().next().flatten();
    Ok(rows.rows.into_iter().filter_map(first).collect())
}

fn missing_in(
    connect: &ConnectOptions,
    beginning: &Beginning,
    writer: &BackupWriter,
) -> std::result::Result<Vec<String>, WireError> {
    let mut client = Client::connect(connect)?;
    let first = missing_by(&mut client, beginning, writer)?;
    if first.is_empty() {
        return Ok(first);
    }
    // The name of a file is newer than the row: a table that was rewritten between them is new in the second answer.
    let second = missing_by(&mut client, beginning, writer)?;
    Ok(first.into_iter().filter(|it| second.contains(it)).collect())
}

/// Catalogues that are mapped (`relfilenode` is 0) may be rewritten without a new row: they are not looked at.
fn missing_by(
    client: &mut Client,
    beginning: &Beginning,
    writer: &BackupWriter,
) -> std::result::Result<Vec<String>, WireError> {
    let is_old = beginning.is_after("c.xmin");
    let rows = client.query(&format!(
        "SELECT pg_catalog.pg_relation_filepath(c.oid), c.oid::pg_catalog.regclass FROM pg_catalog.pg_class c \
         WHERE c.relkind IN ('r', 'i', 't', 'm', 'S') AND c.relpersistence = 'p' AND c.relfilenode <> 0 AND {is_old}"
    ))?;
    let mut missing = Vec::new();
    for row in rows.rows {
        let mut fields = row.into_iter();
        if let (Some(Some(path)), Some(Some(name))) = (fields.next(), fields.next())
            && !writer.has_file(&path)
        {
            missing.push(format!("{path} of {name}"));
        }
    }
    Ok(missing)
}

/// `58030`, `58P01`: the server does not find, or cannot read, its own files.
fn is_of_files(error: &WireError) -> bool {
    error.sqlstate().is_some_and(|code| code.starts_with("58"))
}

fn gone(error: WireError) -> BackupError {
    match is_of_files(&error) {
        true => BackupError::FilesGone(vec![error.to_string()]),
        false => error.into(),
    }
}
