//! Settings that a base backup stream does not bring: they are links, or lie outside the data folder. The server passes the former over
//! with a warning, of the latter it says nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use postgres_physical::server::sql::Client;
use postgres_physical::wire::{ConnectOptions, ServerMessage, WireError};

/// What every cluster has, in its data folder or elsewhere.
const ALWAYS: [&str; 3] = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];

/// `skipped` and `configuration.missing`, for the manifest; `came`: files of the stream that are no data.
pub(super) fn facts(
    connect: &ConnectOptions,
    notices: &[ServerMessage],
    came: &BTreeSet<String>,
) -> BTreeMap<String, String> {
    // It passes over them twice: once to add up sizes.
    let skipped: BTreeSet<&str> = notices.iter().filter_map(skipped).collect();
    // A role that may not see where they are still notices when they do not come.
    let used = used(connect).unwrap_or_default();
    let missing = missing(&used, came);
    let mut facts = BTreeMap::new();
    if !skipped.is_empty() {
        let skipped: Vec<&str> = skipped.into_iter().collect();
        facts.insert("skipped".to_owned(), skipped.join(", "));
    }
    if !missing.is_empty() {
        facts.insert("configuration.missing".to_owned(), missing.join(", "));
    }
    facts
}

/// `skipping special file "./postgresql.conf"`, in whatever language.
fn skipped(notice: &ServerMessage) -> Option<&str> {
    let path = notice.message.split_once("./")?.1;
    Some(path.trim_end_matches(|c: char| !(c.is_alphanumeric() || "._-".contains(c))))
}

/// The data folder, and the files that the running server took its settings from.
#[derive(Debug, Default)]
struct SettingsFiles {
    data: String,
    files: BTreeSet<String>,
}

fn used(connect: &ConnectOptions) -> Result<SettingsFiles, WireError> {
    let mut client = Client::connect(connect)?;
    let rows = client.query(
        "SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN ('data_directory', 'config_file', 'hba_file', 'ident_file') \
         UNION SELECT '', sourcefile FROM pg_catalog.pg_settings WHERE sourcefile IS NOT NULL",
    )?;
    let mut used = SettingsFiles::default();
    for row in rows.rows {
        let mut fields = row.into_iter().map(Option::unwrap_or_default);
        match (fields.next().as_deref(), fields.next()) {
            (Some("data_directory"), Some(folder)) => used.data = folder,
            (_, Some(file)) if !file.is_empty() => drop(used.files.insert(file)),
            _ => {}
        }
    }
    Ok(used)
}

fn missing(used: &SettingsFiles, came: &BTreeSet<String>) -> Vec<String> {
    if used.data.is_empty() || used.files.is_empty() {
        let missing = ALWAYS.iter().filter(|name| !came.contains(**name));
        return missing.map(|name| (*name).to_owned()).collect();
    }
    let came = |file: &&String| {
        let inside = Path::new(file.as_str()).strip_prefix(&used.data).ok();
        inside
            .and_then(Path::to_str)
            .is_some_and(|path| came.contains(path))
    };
    used.files
        .iter()
        .filter(|file| !came(file))
        .cloned()
        .collect()
}

/// For whoever takes the backup: what a restore will not have.
pub(super) fn warnings(facts: &BTreeMap<String, String>) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(paths) = facts.get("configuration.missing") {
        warnings.push(format!(
            "settings that are not in this backup: {paths}. They are links, or lie outside the data folder: keep a copy of them, or take \
             backups on the server itself (source local), which has them"
        ));
    }
    if let Some(paths) = facts.get("skipped") {
        warnings.push(format!(
            "not in this backup, because they are neither files nor folders: {paths}"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn settings_that_did_not_come_are_named_where_they_are() {
        let used = SettingsFiles {
            data: "/srv/pg".to_owned(),
            files: set(&[
                "/srv/pg/postgresql.conf",
                "/srv/pg/conf.d/a.conf",
                "/etc/pg/pg_hba.conf",
                "/srv/pg2/x.conf",
            ]),
        };
        assert_eq!(
            missing(&used, &set(&["conf.d/a.conf", "pg_ident.conf"])),
            [
                "/etc/pg/pg_hba.conf",
                "/srv/pg/postgresql.conf",
                "/srv/pg2/x.conf"
            ]
        );
        assert_eq!(
            missing(
                &SettingsFiles::default(),
                &set(&["pg_ident.conf", "postgresql.conf"])
            ),
            ["pg_hba.conf"]
        );
    }

    #[test]
    fn what_the_server_passes_over_is_read_in_any_language() {
        let check = |message: &str, expected: Option<&str>| {
            let notice = ServerMessage {
                message: message.to_owned(),
                ..ServerMessage::default()
            };
            assert_eq!(skipped(&notice), expected);
        };
        check(
            "skipping special file \"./postgresql.conf\"",
            Some("postgresql.conf"),
        );
        check(
            "ignore le fichier spécial « ./a b/c.conf »",
            Some("a b/c.conf"),
        );
        check("überspringe besondere Datei »./log«", Some("log"));
        check("a checkpoint is under way", None);
    }
}
