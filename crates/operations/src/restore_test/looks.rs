//! What a restore test looks at in the scratch folder besides the checks of every database.

use assurance::verification::Check;
use postgres_physical::server::{Absence, Binaries, OsUser, databases, sql::Client};
use serde_json::json;

use super::no_verdict;
use host::database::DATABASE;

use crate::{error::Error, scratch::ScratchFolder};

impl ScratchFolder {
    /// Of the stopped cluster. PostgreSQL's own program says which file and block.
    pub(super) fn page_checksums(&self, binaries: &Binaries, user: &OsUser) -> Check {
        const NAME: &str = "page_checksums";
        let program = binaries.program("pg_checksums");
        let mut command = user.command(&program);
        let output = match command.arg("--check").arg("-D").arg(self.data()).output() {
            Ok(output) => output,
            Err(error) => {
                return Check::skipped(NAME, format!("cannot run {}: {error}", program.display()));
            }
        };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let printed = String::from_utf8_lossy(&output.stdout);
        let figure = |label: &str| -> Option<u64> {
            let line = printed.lines().find(|line| line.starts_with(label))?;
            line.rsplit(' ').next()?.parse().ok()
        };
        let blocks = figure("Blocks scanned:");
        if output.status.success() {
            return Check::passed(NAME, json!({ "blocks": blocks }));
        }
        if said.contains("not enabled") {
            return Check::skipped(
                NAME,
                "the cluster has no data checksums (pg_checksums --enable)",
            );
        }
        let bad: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("checksum"))
            .take(20)
            .collect();
        let first = bad.first().map_or(said.trim(), |line| *line);
        let count = figure("Bad checksums:");
        let why = match count {
            Some(count) => format!(
                "{count} pages fail their checksum; the first: {}",
                self.short(first)
            ),
            None => self.short(said.trim()),
        };
        Check::failed(
            NAME,
            why,
            json!({ "blocks": blocks, "bad": count, "named": bad }),
        )
    }

    /// Names inside the cluster, not of this folder.
    fn short(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.data().display()), "")
    }

    /// Fails when a database cannot be entered for want of something on this machine: that says nothing of the backup.
    pub(super) fn collations(&self) -> Result<Check, Error> {
        const NAME: &str = "collation_versions";
        let here = recovery::database::databases_here(&self.connect("template1"));
        if let Some(reason) = here.unusable.into_iter().next() {
            return Err(no_verdict(reason));
        }
        Ok(match here.ordered_otherwise.is_empty() {
            true => Check::passed(NAME, json!({})),
            false => Check::skipped(NAME, here.ordered_otherwise.join("; ")),
        })
    }

    /// What this machine lacks for it says nothing of the backup.
    fn enter(&self) -> Result<Client, Error> {
        let entered = recovery::database::enter_cluster(&self.connect("postgres"));
        entered.map_err(|error| match Absence::find(&error.to_string()) {
            Some(absence) => no_verdict(absence.to_string()),
            None => error.into(),
        })
    }

    /// This copy is ours: databases that take no connections take some here, so that they are looked at like the others.
    pub(super) fn open_databases(&self) -> Result<(), Error> {
        let mut client = self.enter()?;
        client.query("UPDATE pg_database SET datallowconn = true WHERE NOT datallowconn AND datconnlimit <> -2")?;
        Ok(())
    }

    /// The engine's database where there is one.
    pub(super) fn engine_database(&self) -> Result<String, Error> {
        let mut client = self.enter()?;
        let mut listed = databases(&mut client)?;
        listed.sort_by_key(|database| database.name != DATABASE);
        for database in listed.into_iter().filter(|it| it.is_open() && !it.template) {
            // One that cannot be entered is told by the checks of all databases.
            let Ok(mut client) = Client::connect(&self.connect(&database.name)) else {
                continue;
            };
            let there = "SELECT 1 FROM pg_class WHERE relname = 'audit_log' AND relkind = 'r'";
            if client.value(there)?.is_some() {
                return Ok(database.name);
            }
        }
        if Client::connect(&self.connect(DATABASE)).is_ok() {
            return Ok(DATABASE.to_owned());
        }
        Ok(client
            .value("SELECT current_database()")?
            .unwrap_or_default())
    }
}
